"""How long events take behind the frame that makes them due, beside a bare chain of two transactional hops.

Embedded Kafka, one partition, 50 instruments, 10,000 ticks a second in frames of 20 ms; feed, strategy runner, account
and both hops are processes of their own and see the same frames. One reader of committed records notes when each frame
and each event arrives, on the wall.
"""

from __future__ import annotations

import asyncio
import pickle
import sys
import tempfile
import time
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from aiokafka import TopicPartition

from benchmarks.live_desk import ONE_THREAD, Check, all_of, running
from benchmarks.live_processes import HOP_TOPICS, reached_by, settings_on, trained_model
from benchmarks.measuring import Figure, at_most
from feature_store.market.types import SECOND_NS
from live_services.adapters.groups import groups_begin
from live_services.adapters.kafka import create_topics, read_committed
from live_services.domain.topics import MARKET_TICKS, all_topics, broker_topics, consumer_group
from live_services.machine.embedded import embedded_kafka
from live_services.settings import Settings

_WARM_UP_SECONDS: Final = 20.0
_MEASURED_SECONDS: Final = 120.0
_START_SECONDS: Final = 120.0
_SLOWER: Final = 1.5
QUIET_MS: Final = {"tick → signal": 40.0, "tick → PnL": 70.0}
"""What the 99th percentiles are to be on a machine that does nothing else."""
_MODEL: Final = "model.pickle"
_PAPER: Final = broker_topics("paper")
_EVENTS: Final = {
    _PAPER.signals_raw.name: "signal.generated",
    _PAPER.orders_filled.name: "order.filled",
    _PAPER.pnl_snapshots.name: "pnl.snapshot",
}
_READ: Final = (MARKET_TICKS.name, *_EVENTS, *(topic.name for topic in HOP_TOPICS))


@dataclass(slots=True)
class Arrivals:
    """When records arrived at the reader (seconds on the wall), each with its event time, by topic."""

    begun: float = 0.0
    """Arrival of the first frame."""
    warm_up: float = _WARM_UP_SECONDS
    """What is due in so many seconds from then on is left out."""
    frames: list[tuple[int, float]] = field(default_factory=list)
    """By the watermarks that they carry."""
    events: dict[str, list[tuple[int, float]]] = field(default_factory=lambda: {topic: [] for topic in _READ[1:]})

    def take(self, record: Any, now: float) -> None:
        """Note a record."""
        if record.topic == MARKET_TICKS.name:
            self.begun = self.begun or now
            self.frames.append((reached_by(record), now))
        elif record.topic not in _EVENTS or dict(record.headers)["event_type"] == _EVENTS[record.topic].encode():
            self.events[record.topic].append((reached_by(record), now))

    def latencies(self, topic: str, *, strictly: bool = False, wanted: Sequence[int] | None = None) -> np.ndarray:
        """Seconds from the first frame that has reached an event's time (or is past it) to the event.

        Events of one instant count once, by the last of them. Those due in the warm-up are left out.
        """
        watermarks = [watermark_ns for watermark_ns, _ in self.frames]
        find = bisect_right if strictly else bisect_left
        last = dict(self.events[topic])
        found = []
        for time_ns in sorted(last) if wanted is None else wanted:
            due = find(watermarks, time_ns)
            if time_ns in last and due < len(watermarks) and self.frames[due][1] > self.begun + self.warm_up:
                found.append(last[time_ns] - self.frames[due][1])
        return np.array(found)

    def snapshots_after_fills(self) -> np.ndarray:
        """Seconds to the snapshots that stand at the first whole second behind a fill."""
        seconds = {-(-(t + 1) // SECOND_NS) * SECOND_NS for t, _ in self.events[_PAPER.orders_filled.name]}
        return self.latencies(_PAPER.pnl_snapshots.name, wanted=sorted(seconds))

    def signals(self) -> np.ndarray:
        """Seconds to the proposals of each decision."""
        return self.latencies(_PAPER.signals_raw.name)


def latency() -> list[Figure]:
    """Play, read, and compare."""
    with tempfile.TemporaryDirectory() as home, embedded_kafka(Path(home) / "kafka") as servers:
        (Path(home) / _MODEL).write_bytes(pickle.dumps(trained_model()))
        arrivals = asyncio.run(_measured(settings_on(servers), Path(home)))
    return figures_of(arrivals)


def figures_of(arrivals: Arrivals) -> list[Figure]:
    """Make figures of what arrived."""
    hops = [arrivals.latencies(topic.name) for topic in HOP_TOPICS]
    fills = arrivals.latencies(_PAPER.orders_filled.name, strictly=True)
    measured: Mapping[str, tuple[np.ndarray, int]] = {
        "tick → signal": (arrivals.signals(), 0),
        "tick → fill": (fills, 1),
        "tick → PnL": (arrivals.snapshots_after_fills(), 1),
    }
    frames = len(arrivals.frames) / (arrivals.frames[-1][1] - arrivals.begun)
    figures = [Figure("frames", frames, "frames/s")]
    for name, taken in (("first hop", hops[0]), ("second hop", hops[1]), *((n, t) for n, (t, _) in measured.items())):
        figures.append(Figure(f"{name}, p50 of {len(taken)}", milliseconds(taken, 50), "ms"))
        p99, what = milliseconds(taken, 99), f"{name}, p99 of {len(taken)}"
        limit = QUIET_MS.get(name)
        figures.append(Figure(what, p99, "ms") if limit is None else at_most(what, p99, "ms", limit))
    for name, (taken, hop) in measured.items():
        rival = milliseconds(hops[hop], 99)
        what = ("first", "second")[hop]
        figures.append(at_most(f"{name}, p99 by that of the {what} hop", milliseconds(taken, 99) / rival, "×", _SLOWER))
    return figures


def milliseconds(taken: np.ndarray, percent: int) -> float:
    """Give a percentile of seconds; not a number if there are none."""
    return float(np.percentile(taken, percent)) * 1e3 if len(taken) else float("nan")


async def _measured(settings: Settings, home: Path) -> Arrivals:
    await create_topics(settings, (*all_topics(("paper",)), *HOP_TOPICS))
    servers, stop = settings.kafka.bootstrap_servers, asyncio.Event()
    with processes(("runner", "account", "first_hop", "second_hop"), servers, home) as alive:
        groups = [consumer_group("strategy_runner", "shared"), consumer_group("account", "paper")]
        await groups_begin(settings.kafka, MARKET_TICKS, groups, stop)
        with processes(("feed",), servers, home) as feeds:
            return await _read(settings, all_of(alive, feeds))


async def _read(settings: Settings, check: Check) -> Arrivals:
    """Read until the time is over."""
    arrivals, started = Arrivals(), time.monotonic()
    async with read_committed(settings.kafka) as consumer:
        partitions = [TopicPartition(topic, 0) for topic in _READ]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while not arrivals.begun or time.monotonic() - arrivals.begun < _WARM_UP_SECONDS + _MEASURED_SECONDS:
            fetched = await consumer.getmany(timeout_ms=200)
            now = time.monotonic()
            for records in fetched.values():
                for record in records:
                    arrivals.take(record, now)
            check()
            if not arrivals.begun and now - started > _START_SECONDS:
                raise RuntimeError(f"no frame came in {_START_SECONDS:.0f} s")
    return arrivals


@contextmanager
def processes(roles: Sequence[str], servers: str, home: Path) -> Iterator[Check]:
    """Run processes of `benchmarks.live_processes`; gives what raises if one of them has failed."""
    argvs = {
        role: [sys.executable, "-m", "benchmarks.live_processes", role, servers, str(home / _MODEL)] for role in roles
    }
    with running(argvs, home, ONE_THREAD) as (_, check):
        yield check
