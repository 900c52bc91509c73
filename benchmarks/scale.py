"""Scale: a desk of 3,000 instruments starts, trades, and comes back when its runner is killed; with its memory.

    make bench NAME=scale OUT=scale.json

Everything is what `alpha-panda up` runs: Kafka, Valkey, MLflow, the supervisor and all services, each a process.
Three sessions of bars are in the store, and a session of 4.2 million ticks is played in two minutes. The runner is
killed by SIGKILL four times, in mid-session and near its end, with its snapshot and without; the supervisor starts it
again. It has caught up when its proposals' topic has the watermark behind the newest bar that ended. A desk of 50
instruments beside it, undisturbed, says what the number of instruments costs.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from aiokafka import TopicPartition

from benchmarks.live_processes import reached_by
from benchmarks.measuring import Figure, at_least, at_most, report
from benchmarks.scale_desk import ACCOUNT, RUNNER, SHARE, ScaleDesk, largest, scale_desk
from feature_store.market.types import MINUTE_NS
from live_services.adapters.kafka import read_committed
from live_services.domain.topics import MARKET_TICKS, broker_topics

INSTRUMENTS: Final = 3000
FEW: Final = 50
_SECONDS: Final = 120.0
_FEW_SECONDS: Final = 30.0
_START_SECONDS: Final = 180.0
_RECOVERY_SECONDS: Final = 120.0
_SETTLE_SECONDS: Final = 30.0
_SAMPLE_SECONDS: Final = 1.0
_RSS_MB: Final = 220.0
_SNAPSHOT_MS: Final = 20.0
_WITH_SECONDS: Final = 5.0
_WITHOUT_SECONDS: Final = 15.0
_KILLS: Final = (
    ("in mid-session, from its snapshot", 0.3, True),
    ("in mid-session, without its snapshot", 0.55, False),
    ("near the end, from its snapshot", 0.8, True),
    ("near the end, without its snapshot", 0.97, False),
)
_PAPER: Final = broker_topics("paper")
_SERVICES: Final = (RUNNER, ACCOUNT)


@dataclass(slots=True)
class Seen:
    """What one reader of committed records saw, on the wall."""

    frames: list[tuple[int, float]] = field(default_factory=list)
    """Watermark and arrival of each of the market's records."""
    closes: list[tuple[int, float]] = field(default_factory=list)
    """Minute and arrival of the runner's first watermark behind it, which goes out with the minute's proposals."""
    proposals_at: float = 0.0
    """Arrival of the runner's newest record."""
    fills: int = 0
    restarts: list[tuple[float, float]] = field(default_factory=list)
    """When the session began, or the runner was killed, and when it had caught up."""
    rss_mb: list[dict[str, float]] = field(default_factory=list)

    @property
    def market_ns(self) -> int:
        """How far the market is."""
        return self.frames[-1][0] if self.frames else 0

    @property
    def has_caught_up(self) -> bool:
        """Whether the runner has decided on every bar that ended."""
        newest = self.frames[-1][0] // MINUTE_NS if self.frames else 0
        return bool(self.closes) and self.closes[-1][0] >= newest

    def take(self, record: Any, now: float) -> None:
        """Note a record."""
        reached_ns = reached_by(record)
        if record.topic == MARKET_TICKS.name:
            self.frames.append((max(reached_ns, self.market_ns), now))
        elif record.topic == _PAPER.orders_filled.name:
            self.fills += dict(record.headers)["event_type"] == b"order.filled"
        else:
            self.proposals_at, minute = now, (reached_ns - 1) // MINUTE_NS
            if not self.closes or minute > self.closes[-1][0]:
                self.closes.append((minute, now))

    def close_latencies(self) -> np.ndarray:
        """Seconds from the frame that ends a minute to the watermark behind it, without the times of restarts."""
        ended: dict[int, float] = {}
        for reached_ns, at in self.frames:
            ended.setdefault(reached_ns // MINUTE_NS, at)
        spans = [(ended[minute], done) for minute, done in self.closes if minute in ended]
        return np.array(
            [done - at for at, done in spans if not any(k <= done and at <= back for k, back in self.restarts)]
        )


def measure(tell: Callable[[str], None]) -> list[Figure]:
    """Let the small desk have its session, then the large one with its kills."""
    few, _ = _played(FEW, _FEW_SECONDS, (), tell)
    many, restarts = _played(INSTRUMENTS, _SECONDS, _KILLS, tell)
    return [*few, *many, *restarts]


def _played(
    instruments: int, seconds: float, kills: tuple[tuple[str, float, bool], ...], tell: Callable[[str], None]
) -> tuple[list[Figure], list[Figure]]:
    home = Path(tempfile.mkdtemp(prefix="alpha-panda-scale-"))
    try:
        tell(f"a desk of {instruments:,} instruments is made")
        with scale_desk(home, instruments, seconds, tell) as desk:
            return asyncio.run(_session(desk, instruments, kills, tell))
    finally:
        shutil.rmtree(home, ignore_errors=True)


async def _session(
    desk: ScaleDesk, instruments: int, kills: tuple[tuple[str, float, bool], ...], tell: Callable[[str], None]
) -> tuple[list[Figure], list[Figure]]:
    tell(f"{instruments:,} instruments: starting")
    seen, started, of = Seen(), time.monotonic(), f"{instruments:,}: "
    restarts: list[Figure] = []
    async with read_committed(desk.settings.kafka) as consumer:
        partitions = [TopicPartition(one, 0) for one in (MARKET_TICKS.name, _PAPER.signals_raw.name)]
        partitions.append(TopicPartition(_PAPER.orders_filled.name, 0))
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        await asyncio.to_thread(desk.stack.start_services)
        reading = asyncio.create_task(_read(consumer, seen))
        sampling = asyncio.create_task(_sample(desk, seen))
        try:
            await _until(lambda: len(seen.frames) > 0, _START_SECONDS, "the session's first record")
            begun = time.monotonic()
            ready_s, rss = begun - started, await asyncio.to_thread(desk.memory_mb)
            await _until(lambda: seen.has_caught_up, _RECOVERY_SECONDS, "the first bar")
            seen.restarts.append((begun, time.monotonic()))
            for name, share, with_snapshot in kills:
                tell(f"{instruments:,} instruments: killed {name}")
                at_ns = desk.session.open_ns + share * (desk.session.close_ns - desk.session.open_ns)
                await _until(lambda at_ns=at_ns: seen.market_ns >= at_ns, 4 * desk.seconds, "the session")
                took_s = await _killed(desk, seen, with_snapshot=with_snapshot)
                target = _WITH_SECONDS if with_snapshot else _WITHOUT_SECONDS
                restarts.append(at_most(f"{of}runner killed {name}", took_s, "s", target))
            await _until(lambda: seen.market_ns >= desk.session.close_ns, 4 * desk.seconds, "the session's end")
            await _until(lambda: seen.has_caught_up, _SETTLE_SECONDS, "the last bar")
        finally:
            for task in (reading, sampling):
                task.cancel()
            await asyncio.gather(reading, sampling, return_exceptions=True)
    return _figures(of, desk, seen, ready_s, rss, len(kills)), restarts


def _figures(of: str, desk: ScaleDesk, seen: Seen, ready_s: float, rss: dict[str, float], kills: int) -> list[Figure]:
    closes = seen.close_latencies()
    built = [line["seconds"] for line in desk.said("session_states_built") if line["service"] == RUNNER]
    settled = [line for line in desk.said("partitions_assigned") if line["process"] in ("strategy_runner", "account")]
    shared_anew = len(settled) - len(_SERVICES) - kills
    wall = seen.frames[-1][1] - seen.frames[0][1]
    figures = [
        Figure(f"{of}start of all services to the session's first record", ready_s, "s"),
        Figure(f"{of}the runner's states of the session, in their thread", built[0] if built else float("nan"), "s"),
        Figure(f"{of}the session's first record to caught up", seen.restarts[0][1] - seen.restarts[0][0], "s"),
        Figure(f"{of}session on the wall", wall, "s"),
        *(Figure(f"{of}bar's end to its proposals, p{p} of {len(closes)}", _ms(closes, p), "ms") for p in (50, 99)),
        at_least(f"{of}fills", seen.fills, "fills", 1),
        at_most(f"{of}groups shared out anew beside starts", shared_anew, "times", 0),
    ]
    for service in ("strategy_runner", "account"):
        taken = [line for line in desk.said("snapshot_written") if line["service"] == service]
        if taken:
            longest_ms = max(line["loop_ms"] for line in taken)
            size_mb = max(line["bytes"] for line in taken) / 2**20
            figures += [
                at_most(f"{of}snapshot of {service}, on its loop", longest_ms, "ms", _SNAPSHOT_MS),
                Figure(f"{of}snapshot of {service}", size_mb, "MiB"),
            ]
    most = largest(seen.rss_mb)
    for name in sorted(most):
        target = _RSS_MB if of == f"{FEW}: " and not name.endswith(SHARE) else None
        figures.append(Figure(f"{of}{name} after its start", rss.get(name, float("nan")), "MiB"))
        at_end, peak = seen.rss_mb[-1].get(name, float("nan")), f"{of}{name}, most in the session"
        figures.append(Figure(f"{of}{name} at the session's end", at_end, "MiB"))
        figures.append(Figure(peak, most[name], "MiB") if target is None else at_most(peak, most[name], "MiB", target))
    return figures


def _ms(taken: np.ndarray, percent: int) -> float:
    return float(np.percentile(taken, percent)) * 1e3 if len(taken) else float("nan")


async def _killed(desk: ScaleDesk, seen: Seen, *, with_snapshot: bool) -> float:
    """Kill the runner and give the seconds until it has caught up."""
    pid, killed = desk.pids()[RUNNER], time.monotonic()
    os.kill(pid, signal.SIGKILL)
    if not with_snapshot:
        for path in (desk.stack.home / "snapshots").glob(f"*{RUNNER}*"):
            path.unlink()
    await _until(lambda: desk.pids().get(RUNNER, pid) != pid, _RECOVERY_SECONDS, "the runner's successor")
    successor = time.monotonic()
    await _until(
        lambda: seen.has_caught_up and seen.proposals_at > successor, _RECOVERY_SECONDS, "the runner's way back"
    )
    seen.restarts.append((killed, time.monotonic()))
    return time.monotonic() - killed


async def _read(consumer: Any, seen: Seen) -> None:
    while True:
        fetched = await consumer.getmany(timeout_ms=100)
        now = time.monotonic()
        for records in fetched.values():
            for record in records:
                seen.take(record, now)


async def _sample(desk: ScaleDesk, seen: Seen) -> None:
    while True:
        with suppress(OSError):  # the supervisor is busy
            seen.rss_mb.append(await asyncio.to_thread(desk.memory_mb))
        await asyncio.sleep(_SAMPLE_SECONDS)


async def _until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} did not come in {seconds:.0f} s")
        await asyncio.sleep(0.05)


if __name__ == "__main__":
    report("scale", measure, ["numpy", "numba", "pyarrow", "aiokafka"])
