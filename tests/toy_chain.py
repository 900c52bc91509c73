"""A chain of three tiny services with a lagged feedback, for tests of the runtime; and a log in memory to run it on.

``python -m tests.toy_chain BOOTSTRAP_SERVERS`` runs it on Kafka as a process of its own.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from feature_store.market.types import SECOND_NS, Instrument, Session, Ticks, Universe
from live_services.adapters.kafka import headers_of, value_of
from live_services.adapters.telemetry import NoTelemetry, configure_logging
from live_services.domain.events import (
    BarValues,
    Event,
    PnlSnapshot,
    SignalGenerated,
    SignalValidated,
    StrategyModelAssigned,
    decode_event,
    event_id,
)
from live_services.domain.log import EventRecord, Record, TaskId, TickSlice
from live_services.domain.topics import MARKET_TICKS, Topic, broker_topics
from live_services.runtime.merge import Source
from live_services.runtime.service import Input
from live_services.runtime.task import Received, Resume, TaskRun
from live_services.settings import KafkaSettings, Settings

PAPER = broker_topics("paper")
UNIVERSE = Universe(instruments=tuple(Instrument(instrument_token=100 + i, symbol=f"S{i}") for i in range(4)))
OPEN_NS = 1_767_584_700 * SECOND_NS
SESSION = Session(dt.date(2026, 1, 5), OPEN_NS, OPEN_NS + 60 * SECOND_NS)
DAY_NS = 86_400 * SECOND_NS
NEXT_SESSION = Session(dt.date(2026, 1, 6), OPEN_NS + DAY_NS, OPEN_NS + DAY_NS + 60 * SECOND_NS)


def toy_ticks(session: Session = SESSION, per_second: int = 20, seed: int = 3) -> Ticks:
    seconds = (session.close_ns - session.open_ns) // SECOND_NS
    rng = np.random.default_rng(seed)
    n = seconds * per_second
    times = np.sort(rng.integers(0, seconds * SECOND_NS // 1_000_000, n)) * 1_000_000 + session.open_ns
    return Ticks(
        rng.integers(0, len(UNIVERSE), n).astype(np.int32),
        times.astype(np.int64),
        np.round(100 + rng.normal(0, 1, n).cumsum() * 0.05, 2),
        np.arange(n, dtype=np.int64),
    )


def frames_of(ticks: Ticks, frame_ns: int, session: Session = SESSION) -> list[tuple[Ticks, int]]:
    """Ticks cut on a fixed grid, each with its watermark."""
    edges = range(session.open_ns, session.close_ns, frame_ns)
    cuts = [min(edge + frame_ns, session.close_ns) for edge in edges]
    rows = np.searchsorted(ticks.event_time_ns, [session.open_ns, *cuts])
    return [(ticks[int(a) : int(b)], cut) for a, b, cut in zip(rows[:-1], rows[1:], cuts, strict=True)]


def _chain(event: Event) -> dict[str, str]:
    return {"correlation_id": event.correlation_id, "causation_id": event.event_id}


@dataclass
class StrategyState:
    seen: int = 0
    total: float = 0.0
    assigned: str = "none"


class ToyStrategy:
    """Every seventh tick is a signal whose score is the running mean of all prices."""

    name = "toy_strategy"
    scope = "paper"
    inputs = (Input(MARKET_TICKS), Input(PAPER.control, "control"))
    outputs: tuple[Topic, ...] = (PAPER.signals_raw,)
    single_task = False

    def __init__(self) -> None:
        self.prepared_with: list[Event] = []

    async def prepare(self, task: TaskId, control: Sequence[Event]) -> None:
        self.prepared_with = list(control)

    def open_session(self, session: Session, task: TaskId) -> StrategyState:
        return StrategyState()

    def commands(self, state: StrategyState, now_ns: int) -> Iterable[Event]:
        if state.assigned == "none":
            yield assignment("1", now_ns)

    def handle(self, record: Record, state: StrategyState, now_ns: int) -> Iterable[Event]:
        if isinstance(record, EventRecord):
            assert isinstance(record.event, StrategyModelAssigned)
            state.assigned = record.event.model_version or ""
            return
        assert isinstance(record, TickSlice)
        ticks = record.ticks
        for row in range(len(ticks)):
            state.seen += 1
            state.total += float(ticks.last_price[row])
            if state.seen % 7 == 0:
                yield toy_signal(
                    int(ticks.instrument[row]),
                    int(ticks.event_time_ns[row]),
                    state.total / state.seen,
                    float(ticks.last_price[row]),
                    state.assigned,
                )

    def advance(self, state: StrategyState, now_ns: int) -> Iterable[Event]:
        return ()

    def promise(self, now_ns: int) -> int:
        return now_ns


def assignment(version: str, at_ns: int) -> StrategyModelAssigned:
    identity = event_id("assigned", version, at_ns)
    return StrategyModelAssigned(
        broker="paper",
        event_id=identity,
        correlation_id=identity,
        causation_id=identity,
        event_time_ns=at_ns,
        strategy="toy",
        model_name="toy",
        model_version=version,
        feature_schema_hash="f",
        reason="test",
    )


def toy_signal(instrument: int, at_ns: int, score: float, price: float, version: str = "1") -> SignalGenerated:
    symbol, token = UNIVERSE.instruments[instrument].symbol, UNIVERSE.instruments[instrument].instrument_token
    identity = event_id("toy", token, at_ns, repr(score))
    return SignalGenerated(
        broker="paper",
        event_id=identity,
        correlation_id=identity,
        causation_id=identity,
        event_time_ns=at_ns,
        model_name="toy",
        model_version=version,
        feature_schema_hash="f",
        strategy="toy",
        instrument_token=token,
        symbol=symbol,
        side="BUY",
        intent="open",
        quantity=1,
        score=score,
        threshold=0.5,
        reference_price=price,
        bar=BarValues(
            start_ns=at_ns - 1, end_ns=at_ns, open=price, high=price, low=price, close=price, volume=1, tick_count=1
        ),
        features={},
    )


@dataclass
class RiskState:
    fills: int = 0
    accepted: int = 0


class ToyRisk:
    """Accepts every signal with a quantity that depends on the snapshot of the whole second before."""

    name = "toy_risk"
    scope = "paper"
    inputs = (Input(PAPER.signals_raw), Input(PAPER.pnl_snapshots, "lagged"))
    outputs: tuple[Topic, ...] = (PAPER.signals_validated,)
    single_task = True

    async def prepare(self, task: TaskId, control: Sequence[Event]) -> None:
        pass

    def open_session(self, session: Session, task: TaskId) -> RiskState:
        return RiskState()

    def commands(self, state: RiskState, now_ns: int) -> Iterable[Event]:
        return ()

    def handle(self, record: Record, state: RiskState, now_ns: int) -> Iterable[Event]:
        assert isinstance(record, EventRecord)
        event = record.event
        if isinstance(event, PnlSnapshot):
            state.fills = event.fills
            return
        assert isinstance(event, SignalGenerated)
        if event.score < 0:
            raise ValueError("a poisoned signal")
        state.accepted += 1
        yield SignalValidated(
            **_chain(event),
            **event.model_dump(include=_ON_INSTRUMENT),
            broker="paper",
            event_id=event_id("validated", event.event_id),
            event_time_ns=event.event_time_ns,
            quantity=1 + state.fills * 1000 + state.accepted,
            signal_id=event.event_id,
            rules=("toy",),
        )

    def advance(self, state: RiskState, now_ns: int) -> Iterable[Event]:
        return ()

    def promise(self, now_ns: int) -> int:
        return now_ns


_ON_INSTRUMENT = {
    "model_name",
    "model_version",
    "feature_schema_hash",
    "strategy",
    "instrument_token",
    "symbol",
    "side",
    "intent",
    "reference_price",
}


@dataclass
class PortfolioState:
    fills: int = 0
    due_ns: int | None = None


class ToyPortfolio:
    """Counts validated signals; publishes the count at the whole second after each."""

    name = "toy_portfolio"
    scope = "paper"
    inputs = (Input(PAPER.signals_validated),)
    outputs: tuple[Topic, ...] = (PAPER.pnl_snapshots,)
    single_task = True

    async def prepare(self, task: TaskId, control: Sequence[Event]) -> None:
        pass

    def open_session(self, session: Session, task: TaskId) -> PortfolioState:
        return PortfolioState()

    def commands(self, state: PortfolioState, now_ns: int) -> Iterable[Event]:
        return ()

    def handle(self, record: Record, state: PortfolioState, now_ns: int) -> Iterable[Event]:
        yield from self.advance(state, now_ns)
        state.fills += 1
        state.due_ns = state.due_ns or (now_ns // SECOND_NS + 1) * SECOND_NS

    def advance(self, state: PortfolioState, now_ns: int) -> Iterable[Event]:
        if state.due_ns is not None and state.due_ns <= now_ns:
            identity = event_id("toy_snapshot", state.due_ns)
            yield PnlSnapshot(
                broker="paper",
                event_id=identity,
                correlation_id=identity,
                causation_id=identity,
                event_time_ns=state.due_ns,
                positions=(),
                realized_pnl_inr=0,
                unrealized_pnl_inr=0,
                costs_inr=0,
                net_pnl_inr=0,
                fills=state.fills,
                settled_signal_ids=(),
            )
            state.due_ns = None

    def promise(self, now_ns: int) -> int:
        return now_ns + 1


# --- the log in memory ------------------------------------------------------------------------------------------------


@dataclass
class MemoryLog:
    """Topics with one partition each, and tasks that read them from where they stand."""

    topics: dict[str, list[Received]] = field(default_factory=lambda: defaultdict(list))

    def append(self, topic: str, value: bytes, headers: Any) -> None:
        log = self.topics[topic]
        log.append(Received(topic, 0, len(log), None, value, tuple(headers)))


class MemoryTask:
    """A ``TaskRun`` on a ``MemoryLog``, with commits; ``kill`` forgets everything that was not committed."""

    def __init__(self, service: Any, log: MemoryLog) -> None:
        self.service = service
        self.log = log
        self.inputs = [i for i in service.inputs if i.role != "control"]
        self.committed: dict[tuple[str, int], Any] = {}
        self.kill()

    def kill(self) -> None:
        sources = [Source(i.topic.name, 0, rank, i.role) for rank, i in enumerate(self.inputs)]
        starts = {key: p.session_open_offset for key, p in self.committed.items()}
        self.next = {s.topic: starts.get((s.topic, 0), 0) for s in sources}
        resume = None
        if self.committed:
            newest = max(self.committed.values(), key=lambda p: p.watermark_ns)
            control = [
                decode_event(r.value)
                for r in self.log.topics[PAPER.control.name]
                if any(i.role == "control" for i in self.service.inputs)
            ]
            control = [e for e in control if newest.session_open_ns <= e.event_time_ns <= newest.watermark_ns]
            resume = Resume(newest.watermark_ns, tuple(control))
        task = TaskId(self.service.name, "paper", 0)
        self.run: TaskRun[Any] = TaskRun(
            self.service,
            task,
            sources,
            UNIVERSE,
            starts={(t, 0): n for t, n in self.next.items()},
            resume=resume,
        )

    def fetch(self, topic: str, most: int) -> int:
        records = self.log.topics[topic][self.next[topic] : self.next[topic] + most]
        for record in records:
            self.run.receive(record)
        self.next[topic] += len(records)
        return len(records)

    def step(self) -> None:
        self.run.step()

    def commit(self) -> bool:
        self.run.forward()
        outputs, positions = self.run.take_outputs(), self.run.positions()
        if positions:
            self.committed = positions
        for output in outputs:
            self.log.append(output.topic, value_of(output.event), headers_of(output.event))
        return bool(outputs)

    @property
    def behind(self) -> bool:
        return any(self.next[t] < len(self.log.topics[t]) for t in self.next)


# --- as a process -----------------------------------------------------------------------------------------------------


def toy_settings(bootstrap_servers: str, home: Path = Path("unused")) -> Settings:
    return Settings(alpha_panda_home=home, kafka=KafkaSettings(bootstrap_servers=bootstrap_servers))


async def run_chain(bootstrap_servers: str) -> None:
    from live_services.runtime.loop import run_service, stop_on_signals

    stop, settings = stop_on_signals(), toy_settings(bootstrap_servers)
    services: list[Any] = [ToyStrategy(), ToyRisk(), ToyPortfolio()]
    async with asyncio.TaskGroup() as group:
        for service in services:
            group.create_task(run_service(service, settings, UNIVERSE, NoTelemetry(), stop))


if __name__ == "__main__":
    configure_logging("toy")
    asyncio.run(run_chain(sys.argv[1]))
