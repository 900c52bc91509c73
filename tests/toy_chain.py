"""A tiny strategy and a tiny account of two services, for tests of the runtime.

``python -m tests.toy_chain BOOTSTRAP_SERVERS`` runs it on Kafka as a process of its own.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from feature_store.market.types import SECOND_NS, Instrument, Session, Ticks, Universe
from live_services.adapters.logs import configure_logging
from live_services.adapters.sessions import MarketSessions
from live_services.adapters.snapshot_files import SnapshotFiles
from live_services.adapters.telemetry import NoTelemetry
from live_services.domain.clock import session_end_ns, watermark
from live_services.domain.events import (
    BarValues,
    Event,
    ExitTerms,
    PnlSnapshot,
    SessionOpened,
    SignalGenerated,
    SignalValidated,
    StrategyModelAssigned,
    event_id,
    self_caused,
)
from live_services.domain.frames import encode_tick_frame
from live_services.domain.log import EventRecord, MarketSlice, Record, TaskId
from live_services.domain.snapshot import Tree
from live_services.domain.topics import MARKET_SESSIONS, MARKET_TICKS, STRATEGIES_CONTROL, Topic, broker_topics
from live_services.runtime.chain import Chain
from live_services.runtime.local import MemoryLog
from live_services.runtime.loop import run_chain
from live_services.runtime.service import Input, Opening, Service
from live_services.runtime.watchdog import stop_on_signals
from live_services.settings import KafkaSettings, RuntimeSettings, Settings

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


def session_opened(session: Session, universe: Universe = UNIVERSE) -> SessionOpened:
    return SessionOpened(
        **self_caused("session", session.date.isoformat(), universe.digest),
        event_time_ns=session.open_ns,
        session_date=session.date.isoformat(),
        session_open_ns=session.open_ns,
        session_close_ns=session.close_ns,
        universe_digest=universe.digest,
        instruments=universe.instruments,
    )


def toy_market(frame_ns: int, sessions: Sequence[Session] = (SESSION, NEXT_SESSION)) -> MemoryLog:
    """Put whole sessions on a log in memory, as the feed does."""
    log = MemoryLog()
    for session in sessions:
        log.append_event(MARKET_SESSIONS, 0, session_opened(session))
        _mark(log, session, session.open_ns)
        for number, (ticks, cut) in enumerate(frames_of(toy_ticks(session), frame_ns, session)):
            log.append(MARKET_TICKS.name, 0, *encode_tick_frame(ticks, UNIVERSE, number, cut, session))
        _mark(log, session, session_end_ns(session))
    return log


def _mark(log: MemoryLog, session: Session, at_ns: int) -> None:
    log.append_event(MARKET_TICKS, 0, watermark(MARKET_TICKS, 0, session, at_ns, UNIVERSE.digest))


@dataclass
class StrategyState:
    seen: int = 0
    total: float = 0.0
    assigned: str = "none"


class ToyStrategy(Service[StrategyState]):
    """Every seventh tick is a proposal whose score is the running mean of all prices."""

    name = "toy_strategy"
    scope = "shared"
    inputs = (Input(MARKET_TICKS), Input(STRATEGIES_CONTROL, "control"))
    outputs: tuple[Topic, ...] = (PAPER.signals_raw,)

    def __init__(self) -> None:
        self.prepared_with: list[Event] = []

    async def prepare(self, task: TaskId, control: Sequence[Event]) -> None:
        self.prepared_with = list(control)

    def open_session(self, opening: Opening[StrategyState]) -> StrategyState:
        return StrategyState()

    def snapshot(self, state: StrategyState) -> Tree:
        return asdict(state)

    def restore(self, opening: Opening[StrategyState], kept: Any) -> StrategyState:
        return StrategyState(**kept)

    def commands(self, state: StrategyState, now_ns: int) -> Iterable[Event]:
        if state.assigned == "none":
            yield assignment("1", now_ns)

    def handle(self, record: Record, state: StrategyState, now_ns: int) -> Iterator[Event]:
        if isinstance(record, EventRecord):
            assert isinstance(record.event, StrategyModelAssigned)
            state.assigned = record.event.model_version or ""
            return
        assert isinstance(record, MarketSlice)
        ticks = record.market
        assert isinstance(ticks, Ticks)
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


def assignment(version: str, at_ns: int) -> StrategyModelAssigned:
    return StrategyModelAssigned(
        **self_caused("assigned", version, at_ns),
        event_time_ns=at_ns,
        strategy="toy",
        rung="champion",
        model_name="toy",
        model_version=version,
        feature_schema_hash="f",
        reason="test",
    )


def toy_signal(instrument: int, at_ns: int, score: float, price: float, version: str = "1") -> SignalGenerated:
    symbol, token = UNIVERSE.instruments[instrument].symbol, UNIVERSE.instruments[instrument].instrument_token
    return SignalGenerated(
        **self_caused("toy", token, at_ns, repr(score)),
        broker="paper",
        event_time_ns=at_ns,
        model_name="toy",
        model_version=version,
        feature_schema_hash="f",
        strategy="toy",
        rung="champion",
        instrument_token=token,
        symbol=symbol,
        side="BUY",
        quantity=1,
        exit=ExitTerms(expiry_ns=at_ns + SECOND_NS),
        score=score,
        threshold=0.5,
        reference_price=price,
        bar=BarValues(
            start_ns=at_ns, end_ns=at_ns + 1, open=price, high=price, low=price, close=price, volume=1, tick_count=1
        ),
        features={},
    )


@dataclass
class RiskState:
    portfolio: PortfolioState


class ToyRisk(Service[RiskState]):
    """Accepts every proposal with a quantity that depends on what the portfolio counted just before."""

    name = "toy_risk"
    scope = "paper"
    inputs = (Input(PAPER.signals_raw),)
    outputs: tuple[Topic, ...] = (PAPER.signals_validated,)
    single_task = True

    def open_session(self, opening: Opening[RiskState]) -> RiskState:
        return RiskState(opening.chain["toy_portfolio"])

    def snapshot(self, state: RiskState) -> Tree:
        return {}

    def restore(self, opening: Opening[RiskState], kept: Any) -> RiskState:
        return self.open_session(opening)

    def handle(self, record: Record, state: RiskState, now_ns: int) -> Iterator[Event]:
        assert isinstance(record, EventRecord)
        event = record.event
        assert isinstance(event, SignalGenerated)
        if event.score < 0:
            raise ValueError("a poisoned signal")
        yield SignalValidated(
            correlation_id=event.correlation_id,
            causation_id=event.event_id,
            **event.model_dump(include=_ON_INSTRUMENT),
            broker="paper",
            event_id=event_id("validated", event.event_id),
            event_time_ns=event.event_time_ns,
            quantity=1 + state.portfolio.count,
            signal_id=event.event_id,
            reason="entry",
            rules=("toy",),
        )


_ON_INSTRUMENT = {
    "model_name",
    "model_version",
    "feature_schema_hash",
    "strategy",
    "rung",
    "instrument_token",
    "symbol",
    "side",
    "intent",
    "reference_price",
}


@dataclass
class PortfolioState:
    session: Session
    count: int = 0
    due_ns: int = 2**63 - 1


class ToyPortfolio(Service[PortfolioState]):
    """Counts validated signals; says the count at the whole second after each."""

    name = "toy_portfolio"
    scope = "paper"
    inputs = (Input(PAPER.signals_validated),)
    outputs: tuple[Topic, ...] = (PAPER.pnl_snapshots,)
    single_task = True

    def open_session(self, opening: Opening[PortfolioState]) -> PortfolioState:
        return PortfolioState(opening.session)

    def snapshot(self, state: PortfolioState) -> Tree:
        return {"count": state.count, "due_ns": state.due_ns}

    def restore(self, opening: Opening[PortfolioState], kept: Any) -> PortfolioState:
        return PortfolioState(opening.session, **kept)

    def handle(self, record: Record, state: PortfolioState, now_ns: int) -> Iterable[Event]:
        state.count += 1
        state.due_ns = min(state.due_ns, (now_ns // SECOND_NS + 1) * SECOND_NS - 1)
        return ()

    def due_ns(self, state: PortfolioState) -> int:
        return state.due_ns

    def fire(self, state: PortfolioState, at_ns: int) -> Iterable[Event]:
        state.due_ns = 2**63 - 1
        return (toy_snapshot(state.session, at_ns + 1, state.count),)

    def promise(self, state: PortfolioState, now_ns: int) -> int:
        return now_ns + 1


def toy_snapshot(session: Session, at_ns: int, count: int) -> PnlSnapshot:
    return PnlSnapshot(
        **self_caused("toy_snapshot", at_ns),
        broker="paper",
        event_time_ns=at_ns,
        session_date=session.date.isoformat(),
        positions=(),
        strategies=(),
        starting_cash_inr_e4=0,
        cash_inr_e4=0,
        holdings_at_cost_inr_e4=0,
        realized_inr_e4=0,
        charges_inr_e4=0,
        realized_today_inr_e4=0,
        charges_today_inr_e4=0,
        unrealized_inr=0.0,
        equity_inr=0.0,
        equity_at_open_inr=0.0,
        fills=count,
        orders_under_way=0,
        charges_exact=True,
    )


def toy_strategy() -> Chain:
    return Chain("toy_strategy", (ToyStrategy(),))


def toy_account() -> Chain:
    return Chain("toy_account", (ToyRisk(), ToyPortfolio()))


# --- as a process -----------------------------------------------------------------------------------------------------


def toy_settings(bootstrap_servers: str, home: Path = Path("unused")) -> Settings:
    return Settings(alpha_panda_home=home, kafka=KafkaSettings(bootstrap_servers=bootstrap_servers))


def toy_snapshots(folder: Path) -> SnapshotFiles:
    return SnapshotFiles(folder, "toy")


async def run_chains(bootstrap_servers: str, stop_seconds: float, folder: Path) -> None:
    stop, settings = stop_on_signals(stop_seconds), toy_settings(bootstrap_servers)
    settings = settings.model_copy(update={"runtime": RuntimeSettings(snapshot_interval_seconds=1)})
    async with asyncio.TaskGroup() as group:
        for chain in (toy_strategy(), toy_account()):
            sessions, kept = MarketSessions(settings.kafka), toy_snapshots(folder)
            group.create_task(run_chain(chain, settings, sessions, NoTelemetry(), stop, snapshots=kept))


if __name__ == "__main__":
    configure_logging("toy")
    asyncio.run(run_chains(sys.argv[1], float(sys.argv[2]), Path(sys.argv[3])))
