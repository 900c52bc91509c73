"""Ten thousand ticks a second for as long as asked: is memory flat, is anything lost, do latencies stay?

    make bench NAME=soak ARGS="--minutes 60"

Every process that ``alpha-panda up`` runs, on a Kafka, a Valkey and an MLflow of its own, plays one session of 50
instruments after the other, each in 150 s: a process here lives through as many sessions in an hour as a desk's in a
month. Memory and latencies are told by minute. At the end the ticks on the log are compared with those that were
played, and every event of the account and its proposals with what the engine says of the same sessions
(`benchmarks.soak_truth`).
"""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Final

import psutil
from aiokafka import TopicPartition

from benchmarks.live_desk import BenchDesk, Check, all_of, bench_desk
from benchmarks.live_latency import QUIET_MS, Arrivals, milliseconds
from benchmarks.live_processes import FRAME_MS, SPEED, even_ticks, market, reached_by
from benchmarks.measuring import Figure, arguments, at_most, report
from benchmarks.soak_truth import Compared, compared_with_the_engine
from feature_store.market.calendar import nse_sessions
from feature_store.market.types import MINUTE_NS, SECOND_NS, Session
from live_services.adapters.kafka import read_committed
from live_services.domain.frames import rows_of
from live_services.domain.topics import MARKET_TICKS, broker_topics

_PAPER: Final = broker_topics("paper")
_READ: Final = (
    MARKET_TICKS.name,
    _PAPER.signals_raw.name,
    _PAPER.orders_filled.name,
    _PAPER.pnl_snapshots.name,
)
SERVERS: Final = ("kafka", "valkey")
GROWTH_PERCENT: Final = 5.0
_MINUTE_SECONDS: Final = 60.0
_KEPT_FRAMES: Final = 500  # of the minute before: what is said at the start of a minute was due at its end
_STUCK_SECONDS: Final = 180.0


@dataclass(frozen=True, slots=True)
class Minute:
    """What a minute was like."""

    number: int
    ticks: float
    """By second."""
    signals_ms: tuple[float, float]
    """Tick → signal, 50th and 99th percentile."""
    snapshots_ms: tuple[float, float]
    """Tick → PnL."""
    memory_mb: Mapping[str, float]
    """Resident, by process."""
    load: float
    """Of the machine, over the last minute."""


@dataclass(slots=True)
class Watching:
    """What has arrived at the one reader."""

    arrivals: Arrivals = field(default_factory=lambda: Arrivals(warm_up=float("-inf")))
    reached_ns: dict[str, int] = field(default_factory=dict)
    """By topic, event time."""
    ticks: int = 0

    def next_minute(self) -> None:
        """Forget what was told."""
        kept = self.arrivals.frames[-_KEPT_FRAMES:]
        self.arrivals = Arrivals(begun=self.arrivals.begun, warm_up=float("-inf"), frames=kept)
        self.ticks = 0


def measure(tell: Callable[[str], None], minutes: float, tables: list[str]) -> list[Figure]:
    """Play, watch, and compare; the tables are put beside the figures."""
    with bench_desk(tell) as desk:
        sessions = store_sessions(desk, minutes, tell)
        desk.configure(sessions, speed=SPEED, frame_ms=FRAME_MS)
        watched = asyncio.run(_watched(desk, sessions, tell))
        tell("the soak: the engine says what was to be said")
        compared = asyncio.run(compared_with_the_engine(desk.settings, sessions))
    tables += [table_of_minutes(watched), table_of_records(compared)]
    return figures_of(watched, compared)


def store_sessions(desk: BenchDesk, minutes: float, tell: Callable[[str], None]) -> tuple[Session, ...]:
    """Put as many sessions as the minutes need into the store, and train on those before."""
    made, store = market(), desk.store
    after = made.tick_sessions[0].date
    length = (made.tick_sessions[0].close_ns - made.tick_sessions[0].open_ns) / SECOND_NS / SPEED
    wanted = max(round(minutes * 60 / length), 1)
    sessions = tuple(
        one
        for one in nse_sessions(after, after + dt.timedelta(days=3 * wanted + 10))
        if (one.close_ns - one.open_ns) / SECOND_NS / SPEED == length
    )[:wanted]
    store.write_universe(made.universe, made.name)
    for one, bars in zip(made.sessions, made.bars, strict=True):
        store.write_bars(one, made.universe, bars, made.name)
    for number, session in enumerate(sessions):
        tell(f"the soak: session {number + 1} of {len(sessions)} is made")
        ticks = even_ticks(session, (session.close_ns - session.open_ns) // MINUTE_NS, seed=number)
        store.write_ticks(session, made.universe, ticks, made.name)
    desk.register(made.sessions)
    return sessions


# --- while it runs ----------------------------------------------------------------------------------------------------


async def _watched(desk: BenchDesk, sessions: Sequence[Session], tell: Callable[[str], None]) -> list[Minute]:
    others = {entry.name: desk.argv(entry.name) for entry, _ in desk.services if entry.name != "market_feed"}
    tell("the soak: the services start")
    with desk.running(others) as (chains, alive):
        await desk.chains_begin(alive)
        with desk.running({"market_feed": desk.argv("market_feed")}) as (feeds, fed):
            servers = {name: pid for name, pid in desk.server_pids().items() if name in SERVERS}
            pids = {name: one.pid for name, one in (feeds | chains).items()} | servers
            watching = Watching()
            reading = asyncio.create_task(_read(desk, watching))
            try:
                return await _minutes(watching, pids, sessions[-1], all_of(alive, fed), tell)
            finally:
                reading.cancel()
                with suppress(asyncio.CancelledError):
                    await reading


async def _minutes(
    watching: Watching, pids: Mapping[str, int], last: Session, check: Check, tell: Callable[[str], None]
) -> list[Minute]:
    """Tell of every minute from the first frame on, until the account is through the last session."""
    minutes, memory = list[Minute](), dict[str, float]()
    moved_at, moved_ns = time.monotonic(), 0
    while not watching.arrivals.begun:
        check()
        if time.monotonic() - moved_at > _STUCK_SECONDS:
            raise RuntimeError(f"no frame came in {_STUCK_SECONDS:.0f} s")
        await asyncio.sleep(0.1)
    begun = time.monotonic()
    while True:
        await asyncio.sleep(1.0)
        check()
        reached_ns = watching.reached_ns.get(_PAPER.pnl_snapshots.name, 0)
        over = reached_ns > last.close_ns
        if not over:  # the feed ends when it is through, and then it has no memory to tell of
            memory |= {name: psutil.Process(pid).memory_info().rss / 1e6 for name, pid in pids.items()}
        if reached_ns > moved_ns:
            moved_at, moved_ns = time.monotonic(), reached_ns
        if time.monotonic() - moved_at > _STUCK_SECONDS:
            raise RuntimeError(f"the account said nothing for {_STUCK_SECONDS:.0f} s")
        passed = time.monotonic() - begun
        if passed >= _MINUTE_SECONDS or over:
            minutes.append(_minute(len(minutes) + 1, watching, passed, memory))
            tell(f"the soak: minute {len(minutes)} is over")
            watching.next_minute()
            begun += passed
        if over:
            return minutes


def _minute(number: int, watching: Watching, seconds: float, memory: Mapping[str, float]) -> Minute:
    signals, snapshots = watching.arrivals.signals(), watching.arrivals.snapshots_after_fills()
    return Minute(
        number,
        watching.ticks / seconds,
        (milliseconds(signals, 50), milliseconds(signals, 99)),
        (milliseconds(snapshots, 50), milliseconds(snapshots, 99)),
        dict(memory),
        psutil.getloadavg()[0],
    )


async def _read(desk: BenchDesk, watching: Watching) -> None:
    async with read_committed(desk.settings.kafka) as consumer:
        partitions = [TopicPartition(topic, 0) for topic in _READ]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while True:
            fetched = await consumer.getmany(timeout_ms=200)
            now = time.monotonic()
            for (topic, _), records in fetched.items():
                for record in records:
                    watching.arrivals.take(record, now)
                    if topic == MARKET_TICKS.name:
                        watching.ticks += rows_of(record.headers)
                watching.reached_ns[topic] = reached_by(records[-1])


# --- what is told -----------------------------------------------------------------------------------------------------


def table_of_minutes(minutes: Sequence[Minute]) -> str:
    """Write the minutes as Markdown."""
    names = list(minutes[0].memory_mb)
    heads = ["minute", "ticks/s", "signal p50 / p99 ms", "PnL p50 / p99 ms", *(f"{n} MB" for n in names), "load"]
    rows = [
        [
            str(one.number),
            f"{one.ticks:,.0f}",
            " / ".join(f"{ms:.0f}" for ms in one.signals_ms),
            " / ".join(f"{ms:.0f}" for ms in one.snapshots_ms),
            *(f"{one.memory_mb[name]:.0f}" for name in names),
            f"{one.load:.1f}",
        ]
        for one in minutes
    ]
    return _markdown(heads, rows)


def table_of_records(compared: Sequence[Compared]) -> str:
    """Write what was said and what was to be said as Markdown."""
    heads = ["topic", "expected", "said", "missing", "not expected"]
    return _markdown(
        heads,
        [[one.topic, *(f"{n:,}" for n in (one.expected, one.said, one.missing, one.strange))] for one in compared],
    )


def _markdown(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heads, ["---", *("---:" for _ in heads[1:])], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def figures_of(minutes: Sequence[Minute], compared: Sequence[Compared]) -> list[Figure]:
    """Make figures of a soak: memory from the middle of it on, when caches are full."""
    whole = list(minutes[:-1]) or list(minutes)
    middle, last = whole[len(whole) // 2].memory_mb, whole[-1].memory_mb
    return [
        Figure("ticks played", float(next(one.said for one in compared if one.topic == MARKET_TICKS.name)), "ticks"),
        at_most("records missing", float(sum(one.missing for one in compared)), "records", 0.0),
        at_most("records that nobody expected", float(sum(one.strange for one in compared)), "records", 0.0),
        *(
            at_most(f"{name}, p99 of the median minute", _median_p99(whole, field), "ms", QUIET_MS[name])
            for name, field in (("tick → signal", "signals_ms"), ("tick → PnL", "snapshots_ms"))
        ),
        *(
            at_most(f"memory of {name}, growth in the second half", 100 * (last[name] / mb - 1), "%", GROWTH_PERCENT)
            for name, mb in middle.items()
            if name not in SERVERS
        ),
    ]


def _median_p99(minutes: Sequence[Minute], what: str) -> float:
    found = sorted(getattr(one, what)[1] for one in minutes)
    return float(found[len(found) // 2])


def main() -> int:
    """Print the figures and the tables; 1 if a record is missing or nobody expected it."""
    parser = arguments("soak")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long; rounded to whole sessions of 150 s")
    asked, tables, figures = parser.parse_args(), list[str](), list[Figure]()

    def measured(tell: Callable[[str], None]) -> list[Figure]:
        figures.extend(measure(tell, asked.minutes, tables))
        return figures

    report("soak", measured, ["aiokafka", "numpy", "numba", "pyarrow", "pydantic", "mlflow"], asked)
    print("\n" + "\n\n".join(tables))
    return int(any(figure.met is False for figure in figures if figure.unit == "records"))


if __name__ == "__main__":
    sys.exit(main())
