"""A version promoted while 10,000 ticks a second are traded: how long the runner stands still, and when it answers.

    python -m benchmarks.live_promotion

The platform's own feed, strategy runner and account on a Kafka, an MLflow and a ledger of their own; versions of a
model of a hundred trees are promoted as a person does it, one after the other. The loop of the runner is watched from
inside (`benchmarks.watched_runner`): what counts as a stall is what its process made of it, without the time in which
others had the processors, beside what the same loop does while nobody promotes.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aiokafka import TopicPartition

from benchmarks.live_desk import WHY, BenchDesk, Check, all_of, bench_desk, end
from benchmarks.live_processes import FRAME_MS, INSTRUMENTS, SPEED, GeneratedTicks, market
from benchmarks.measuring import Figure, at_most, report
from live_services.adapters.kafka import read_committed
from live_services.chaos.made_desk import MODEL
from live_services.cli.models import promote_as_person
from live_services.domain.events import SignalGenerated, event_or_none
from live_services.domain.topics import broker_topics
from models_registry.refs import Alias
from models_registry.registry import Registry

PROMOTIONS: Final = 4
STALL_MS: Final = 5.0
ANSWER_SECONDS: Final = 2.0
_WARM_UP_SECONDS: Final = 20.0
_BETWEEN_SECONDS: Final = 12.0
_AFTER_SECONDS: Final = 0.5
_LONGEST_SECONDS: Final = 60.0


class Moved(Registry):
    """Notes when an alias had moved, seconds since the epoch."""

    at: float = 0.0

    def set_alias(self, name: str, alias: Alias, version: str) -> None:
        super().set_alias(name, alias, version)
        self.at = time.time()


@dataclass(slots=True)
class Answers:
    """When the first signal of each version could be read, seconds since the epoch."""

    first: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Stall:
    """One time at which the loop was late."""

    at: float
    late_ms: float
    waited_ms: float
    """For processors that others had."""
    used_ms: float
    """Of a processor, by the loop's own thread."""

    @property
    def own_ms(self) -> float:
        """What the process made of it."""
        return self.late_ms - self.waited_ms


def measure(tell: Callable[[str], None]) -> list[Figure]:
    """Promote a few versions."""
    with bench_desk(tell) as desk:
        tell("promotions: a market and a model")
        made, source = market(), GeneratedTicks()
        (session,) = source.sessions()
        store = desk.store
        store.write_universe(made.universe, made.name)
        for one, bars in zip(made.sessions, made.bars, strict=True):
            store.write_bars(one, made.universe, bars, made.name)
        store.write_ticks(session, made.universe, source.load(session).market, made.name)  # type: ignore[arg-type]
        first, *others = desk.register(made.sessions, 1 + PROMOTIONS)
        desk.configure([session], speed=SPEED, frame_ms=FRAME_MS)
        file = desk.home / "stalls"
        promoted = asyncio.run(_promoted(desk, file, first, others, tell))
        stalls = [Stall(*map(float, line.split())) for line in file.read_text().splitlines()]
    return figures_of(promoted, stalls)


def figures_of(promoted: Sequence[tuple[float, float]], stalls: Sequence[Stall]) -> list[Figure]:
    """Make figures of when aliases moved and first signals came, and of what the loop did."""
    spans = [(moved, answered + _AFTER_SECONDS) for moved, answered in promoted]
    length = statistics.fmean(until - since for since, until in spans)
    begun = min(since for since, _ in spans) - _BETWEEN_SECONDS + _AFTER_SECONDS
    usual, since = list[tuple[float, float]](), begun
    for moved, until in [*spans, (max(until for _, until in spans), 0.0)]:
        while since + length < moved:
            usual.append((since, since + length))
            since += length
        since = until
    of_usual = [_longest(stalls, span) for span in usual]
    answers = [answered - moved for moved, answered in promoted]
    of_promotions = [_longest(stalls, span) for span in spans]
    load = f"{INSTRUMENTS} instruments, 10,000 ticks/s"
    return [
        at_most(f"longest stall while a version is promoted, {load}", max(of_promotions), "ms", STALL_MS),
        Figure("  median of the promotions", statistics.median(of_promotions), "ms"),
        Figure("  as long a time without one, median", statistics.median(of_usual), "ms"),
        Figure("  as long a time without one, longest", max(of_usual), "ms"),
        Figure("  with what others had of the processors", _most(stalls, spans, lambda s: s.late_ms), "ms"),
        Figure(
            "  most that the loop computed from one look at the timer to the next",
            _most(stalls, spans, lambda s: s.used_ms),
            "ms",
        ),
        Figure("  the same, without one", _most(stalls, usual, lambda s: s.used_ms), "ms"),
        at_most(f"alias → first stamped signal, longest of {len(answers)}", max(answers), "s", ANSWER_SECONDS),
        Figure("  median", statistics.median(answers), "s"),
    ]


def _longest(stalls: Sequence[Stall], span: tuple[float, float]) -> float:
    return _most(stalls, [span], lambda stall: stall.own_ms)


def _most(stalls: Sequence[Stall], spans: Sequence[tuple[float, float]], of: Callable[[Stall], float]) -> float:
    return max((of(s) for s in stalls for since, until in spans if since <= s.at <= until), default=0.0)


async def _promoted(
    desk: BenchDesk, file: Path, first: str, others: Sequence[str], tell: Callable[[str], None]
) -> list[tuple[float, float]]:
    watched = [sys.executable, "-m", "benchmarks.watched_runner", str(file)]
    argvs = {"strategy_runner": watched} | {name: desk.argv(name) for name in ("account", "skew_monitor")}
    tell("promotions: the services start")
    with desk.running(argvs) as (chains, alive):
        await desk.chains_begin(alive)
        await end(chains.pop("skew_monitor"))  # the feed wants it there once; it is no part of what is measured
        with desk.running({"market_feed": desk.argv("market_feed")}) as (_, fed):
            answers = Answers()
            reading = asyncio.create_task(_read(desk, answers))
            try:
                return await _promote_all(desk, answers, first, others, all_of(alive, fed), tell)
            finally:
                reading.cancel()
                with suppress(asyncio.CancelledError):
                    await reading


async def _promote_all(
    desk: BenchDesk, answers: Answers, first: str, others: Sequence[str], check: Check, tell: Callable[[str], None]
) -> list[tuple[float, float]]:
    await _answered(answers, first, check)
    await asyncio.sleep(_WARM_UP_SECONDS)
    settings, promoted = desk.settings, list[tuple[float, float]]()
    registry = Moved(settings.mlflow.tracking_uri)
    for version in others:
        await asyncio.sleep(_BETWEEN_SECONDS)
        tell(f"promotions: version {version}")
        await asyncio.to_thread(
            promote_as_person, settings, registry, MODEL, version, "champion", reason=WHY, override=WHY
        )
        promoted.append((registry.at, await _answered(answers, version, check)))
    await asyncio.sleep(_AFTER_SECONDS)
    return promoted


async def _answered(answers: Answers, version: str, check: Check) -> float:
    deadline = time.monotonic() + _LONGEST_SECONDS
    while version not in answers.first:
        check()
        if time.monotonic() > deadline:
            raise RuntimeError(f"no signal of version {version} came in {_LONGEST_SECONDS:.0f} s")
        await asyncio.sleep(0.02)
    return answers.first[version]


async def _read(desk: BenchDesk, answers: Answers) -> None:
    raw = TopicPartition(broker_topics("paper").signals_raw.name, 0)
    async with read_committed(desk.settings.kafka) as consumer:
        consumer.assign([raw])
        await consumer.seek_to_beginning(raw)
        while True:
            for records in (await consumer.getmany(timeout_ms=50)).values():
                now = time.time()
                for record in records:
                    if dict(record.headers)["event_type"] != b"signal.generated":
                        continue
                    event = event_or_none(record.value, record.headers)
                    if isinstance(event, SignalGenerated):
                        answers.first.setdefault(event.model_version, now)


if __name__ == "__main__":
    report("live_promotion", measure, ["aiokafka", "numpy", "numba", "mlflow", "pydantic"])
