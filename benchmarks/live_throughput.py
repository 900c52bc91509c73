"""How many ticks a core takes from Kafka: the strategy runner, exactly once, beside a loop that decodes and counts.

    python -m benchmarks.live_throughput [--quix PYTHON]

A session of 50 instruments stands on the log in frames of 3,000 and of 150 ticks. The runner is the platform's own
process: it reads committed frames, builds bars, computes the features of three strategies, asks three models of a
hundred trees, and commits what they say with its offsets. Its rivals are a plain aiokafka loop that decodes frames of
the same layout and counts rows, and, with ``--quix``, Quix Streams on one message a tick with the same state for each
instrument (`benchmarks.quix_rival` says what it does less). All figures are ticks by the processor time of the process
that took them: a core's, whatever else runs on the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import psutil
from aiokafka import TopicPartition

from benchmarks.live_latency import processes
from benchmarks.live_processes import INSTRUMENTS, STRATEGY, THREE, GeneratedTicks, market, settings_on, trained_model
from benchmarks.measuring import Figure, arguments, at_least, report
from feature_store.market.types import Session, Ticks
from live_services.adapters.feed_producer import FeedProducer
from live_services.adapters.groups import groups_begin
from live_services.adapters.kafka import create_topics, read_committed
from live_services.domain.clock import session_end_ns, session_opened, watermark
from live_services.domain.frames import FRAME_TOPICS, decode_frame, encode_tick_frame
from live_services.domain.topics import MARKET_TICKS, all_topics, broker_topics, consumer_group
from live_services.machine.embedded import embedded_kafka
from live_services.settings import Settings

TARGETS: Final = {3000: 1_000_000, 150: 250_000}
"""Ticks a second and core, by ticks in a frame."""
TICKS: Final = {3000: 9_000_000, 150: 1_200_000}
"""Of a session, by ticks in a frame: several thousand frames, of which a process takes 500 at a time."""
_MODEL: Final = "model.pickle"
_FLUSHED: Final = 32
_LONGEST_SECONDS: Final = 600.0
_FIRST: Final = 0.1  # the runner's figure begins behind this part of the session, when it is warm
QUIX_LOCK: Final = "benchmarks/quixstreams.lock"
HOW_TO_ADD_QUIX: Final = (
    "Quix Streams is left out: it needs an older pydantic than this project. To have it, make it a Python of its own, "
    f"`python -m venv .quix && .quix/bin/pip install --require-hashes -r {QUIX_LOCK}`, and name it: "
    "ARGS='--quix .quix/bin/python'"
)


def measure(tell: Callable[[str], None], quix: str = "") -> list[Figure]:
    """Measure both sizes of frames and the rivals."""
    figures = []
    for frame_ticks, target in TARGETS.items():
        tell(f"throughput at {frame_ticks:,} ticks a frame")
        with tempfile.TemporaryDirectory() as home, embedded_kafka(Path(home) / "kafka") as servers:
            (Path(home) / _MODEL).write_bytes(pickle.dumps(trained_model()))
            settings = settings_on(servers)
            rate, plain = asyncio.run(_measured(settings, Path(home), frame_ticks))
            name = f"runner, features and three models, {frame_ticks:,} ticks a frame"
            figures.append(at_least(name, rate, "ticks/s", target, ratio=rate / plain, rival="plain loop"))
            figures.append(Figure(f"plain aiokafka loop, {frame_ticks:,} ticks a frame", plain, "ticks/s"))
            if quix and frame_ticks == min(TARGETS):
                tell("Quix Streams")
                theirs = _quix(quix, servers)
                figures.append(
                    Figure(
                        "Quix Streams: bars, as many rolling figures, linear scores",
                        theirs,
                        "ticks/s",
                        ratio=rate / theirs,
                        rival="this",
                    )
                )
    return figures


async def _measured(settings: Settings, home: Path, frame_ticks: int) -> tuple[float, float]:
    """Ticks by second of processor time of the runner, and of the plain loop."""
    await create_topics(settings, all_topics(("paper",)))
    (session,) = GeneratedTicks().sessions()
    replay = GeneratedTicks().load(session)
    assert isinstance(replay.market, Ticks)
    ticks = spread(replay.market, TICKS[frame_ticks], session.open_ns, session.close_ns)
    with processes(("runner_of_three",), settings.kafka.bootstrap_servers, home) as alive:
        # A new group begins with the session under way, so it must be there before the session is over on the log.
        groups = [consumer_group("strategy_runner", "shared")]
        await groups_begin(settings.kafka, MARKET_TICKS, groups, asyncio.Event())
        _, rate = await asyncio.gather(
            _say_session(settings, session, ticks, frame_ticks), _rate_of_runner(settings, ticks, alive)
        )
    return rate, await plain_loop(settings, len(ticks))


async def _say_session(settings: Settings, session: Session, ticks: Ticks, frame_ticks: int) -> None:
    """Put a session on the log."""
    universe = market().universe
    async with FeedProducer(settings.kafka, 60_000) as log:
        log.say(session_opened(session, universe))
        log.say_on(MARKET_TICKS, 0, watermark(MARKET_TICKS, 0, session, session.open_ns, universe.digest))
        for number, begin in enumerate(range(0, len(ticks), frame_ticks)):
            part, end = ticks[begin : begin + frame_ticks], begin + frame_ticks
            cut_ns = int(ticks.event_time_ns[end]) if end < len(ticks) else session.close_ns
            log.say_frame(MARKET_TICKS, 0, encode_tick_frame(part, universe, number, cut_ns, session))
            if number % _FLUSHED == 0:
                await log.flush()
        last = watermark(MARKET_TICKS, 0, session, session_end_ns(session), universe.digest)
        log.say_on(MARKET_TICKS, 0, last)
        await log.flush()


def spread(ticks: Ticks, wanted: int, open_ns: int, close_ns: int) -> Ticks:
    """Repeat ticks until there are as many as wanted, an equal time apart, with day volumes that go on."""
    import numpy as np

    rows = np.arange(wanted) % len(ticks)
    step_ns = (close_ns - open_ns) // wanted
    times, volume = open_ns + step_ns * np.arange(wanted), np.arange(1, wanted + 1) * 10
    return Ticks(ticks.instrument[rows], times, ticks.last_price[rows], volume)


async def plain_loop(settings: Settings, wanted: int) -> float:
    """Decode frames and count rows, and nothing else; ticks by second of this process' time."""
    universe, rows = market().universe, 0
    async with read_committed(settings.kafka) as consumer:
        partition = TopicPartition(MARKET_TICKS.name, 0)
        consumer.assign([partition])
        await consumer.seek_to_beginning(partition)
        began = time.process_time()
        while rows < wanted:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for record in records:
                    if dict(record.headers)["event_type"].decode() in FRAME_TOPICS:
                        rows += len(decode_frame(record.value, record.headers, universe).table)
        return rows / (time.process_time() - began)


async def _rate_of_runner(settings: Settings, ticks: Ticks, alive: Callable[[], object]) -> float:
    """Follow what the runner forwards; from its first tenth to the end, ticks by its processor time."""
    raw = TopicPartition(broker_topics("paper").signals_raw.name, 0)
    first_ns, last_ns = int(ticks.event_time_ns[int(_FIRST * len(ticks))]), int(ticks.event_time_ns[-1])
    process, started = _runner_process(), time.monotonic()
    begun: tuple[int, float] | None = None
    async with read_committed(settings.kafka) as consumer:
        consumer.assign([raw])
        await consumer.seek_to_beginning(raw)
        while time.monotonic() - started < _LONGEST_SECONDS:
            alive()
            for records in (await consumer.getmany(timeout_ms=20)).values():
                reached_ns = max(int(dict(record.headers)["event_time_ns"]) for record in records)
                taken = int(ticks.event_time_ns.searchsorted(reached_ns))
                spent = _spent(process)
                if begun is None and reached_ns >= first_ns:
                    begun = taken, spent
                if reached_ns > last_ns and begun is not None:
                    if taken - begun[0] < len(ticks) / 2:
                        raise RuntimeError(
                            "the runner was seen when most of the session was over: no figure is in that"
                        )
                    return (taken - begun[0]) / (spent - begun[1])
    raise RuntimeError(f"the runner did not reach the end of the session in {_LONGEST_SECONDS:.0f} s")


def _runner_process() -> psutil.Process:
    (found,) = (one for one in psutil.Process().children() if "runner_of_three" in one.cmdline())
    return found


def _spent(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _quix(python: str, servers: str) -> float:
    asked = [servers, INSTRUMENTS, len(STRATEGY.feature_schema().names), len(THREE)]
    told: Any = subprocess.run(
        [python, str(Path(__file__).with_name("quix_rival.py")), *map(str, asked)],
        check=True, capture_output=True, text=True, timeout=_LONGEST_SECONDS,
    )  # fmt: skip
    return float(told.stdout.split()[-1])


def quix_argument(parser: argparse.ArgumentParser) -> None:
    """Let a command line name a Python that has Quix Streams."""
    parser.add_argument("--quix", default="", metavar="PYTHON", help=HOW_TO_ADD_QUIX)


if __name__ == "__main__":
    parser = arguments("live_throughput")
    quix_argument(parser)
    asked = parser.parse_args()
    if not asked.quix:
        print(HOW_TO_ADD_QUIX, file=sys.stderr)
    report(
        "live_throughput",
        lambda tell: measure(tell, asked.quix),
        ["aiokafka", "numpy", "numba", "pyarrow"],
        asked,
    )
