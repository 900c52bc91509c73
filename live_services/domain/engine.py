"""The backtest: the functions of the live services, chained in one process over one session.

Risk at time T sees the portfolio of the whole seconds before T plus its reservations, exactly as it does live, where
Kafka topics lie between the stages. The events are those of the live chain, one for one; only ``basis`` differs.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from feature_store.market.types import SECOND_NS, Bars, Session, Ticks, Universe
from live_services.domain.account.books import Portfolio
from live_services.domain.account.paper_exchange import PaperBroker, outcomes_of
from live_services.domain.account.risk import RiskState, apply_snapshot, decide
from live_services.domain.basis import Outcome, Stamp
from live_services.domain.events import (
    Event,
    OrderFilled,
    PnlSnapshot,
    SignalGenerated,
    SignalValidated,
)
from live_services.domain.partitions import part_of
from live_services.domain.strategy.desk import Assignment, LoadedModel, StrategyDesk
from live_services.domain.strategy.history import SessionHistory
from live_services.domain.topics import Broker
from live_services.settings import Settings, TradingSettings
from models_registry.specification import StrategySpec

_STAGES: Final = (
    "signal.generated",
    "signal.validated",
    "signal.rejected",
    "order.submitted",
    "order.filled",
    "order.rejected",
    "order.cancelled",
    "pnl.snapshot",
)


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Everything of the settings that decides what a session does."""

    universe: Universe
    strategies: tuple[StrategySpec, ...]
    trading: TradingSettings = field(default_factory=lambda: TradingSettings(enabled=True))
    bar_minutes: int = 1
    broker: Broker = "paper"
    market_partitions: int = 1
    stamp: Stamp = field(default_factory=Stamp)

    @classmethod
    def of(cls, settings: Settings, universe: Universe, broker: Broker = "paper", git_commit: str = "") -> EngineConfig:
        """Take the configuration that the live services of a broker run with."""
        return cls(
            universe=universe,
            strategies=settings.strategies,
            trading=getattr(settings.trading, broker),
            bar_minutes=settings.market.bar_minutes,
            broker=broker,
            market_partitions=settings.kafka.market_partitions,
            stamp=Stamp(settings.digest, git_commit),
        )


def assignments_at_open(session: Session, models: dict[str, LoadedModel]) -> tuple[Assignment, ...]:
    """Let strategies run their models, by strategy name, for the whole session."""
    return tuple(Assignment(session.open_ns, strategy, model) for strategy, model in models.items())


def run_session(
    market: Ticks | Bars,
    session: Session,
    assignments: Sequence[Assignment],
    config: EngineConfig,
    frame_ns: int | None = None,
    *,
    history: SessionHistory | None = None,
) -> tuple[Event, ...]:
    """Run one session from its open to one second after its close.

    Parameters
    ----------
    market : Ticks or Bars
        In order of event time (a bar's is its end); rows outside the session are left out. Ticks fill orders at the
        next tick, bars at the next bar's open.
    session : Session
        The session.
    assignments : sequence of Assignment
        Which model each strategy runs from when on, in order of time.
    config : EngineConfig
        Strategies, limits, costs.
    frame_ns : int, optional
        Work in frames of so many nanoseconds, as the live feed does; the result does not depend on it.
    history : SessionHistory, optional
        What features go on from; the live strategy runner logs the digest of the one it had.

    Returns
    -------
    tuple of Event
        Signals, verdicts, orders, fills and snapshots, in order of (event time, stage of the chain).
    """
    engine = _Engine(session, assignments, config, history)
    for part, watermark_ns in _frames(within_session(market, session), session, frame_ns):
        engine.step(part, watermark_ns)
    engine.finish()
    return tuple(sorted(engine.events, key=lambda event: (event.event_time_ns, _STAGES.index(event.event_type))))


def within_session(market: Ticks | Bars, session: Session) -> Ticks | Bars:
    """Leave out what is outside a session: ticks before its open or at or after its close, bars that overlap either."""
    if isinstance(market, Ticks):
        return market[(market.event_time_ns >= session.open_ns) & (market.event_time_ns < session.close_ns)]
    return market[(market.start_ns >= session.open_ns) & (market.end_ns <= session.close_ns)]


def event_times(market: Ticks | Bars) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Event time of each row: a tick's own, a bar's end."""
    return market.event_time_ns if isinstance(market, Ticks) else market.end_ns


def _frames(market: Ticks | Bars, session: Session, frame_ns: int | None) -> Iterator[tuple[Ticks | Bars, int]]:
    end_ns = session.close_ns + SECOND_NS
    cuts = [end_ns] if frame_ns is None else [*range(session.open_ns + frame_ns, end_ns, frame_ns), end_ns]
    edges = [0, *np.searchsorted(event_times(market), cuts).tolist()]
    for (first, end), watermark_ns in zip(itertools.pairwise(edges), cuts, strict=True):
        yield market[first:end], watermark_ns


class _Engine:
    def __init__(
        self,
        session: Session,
        assignments: Sequence[Assignment],
        config: EngineConfig,
        history: SessionHistory | None,
    ) -> None:
        self.events: list[Event] = []
        self._session = session
        self._universe = config.universe
        self._partitions = config.market_partitions
        self._desks = [
            StrategyDesk(
                config.universe,
                session,
                config.strategies,
                bar_minutes=config.bar_minutes,
                broker=config.broker,
                stamp=config.stamp,
                partition=partition,
                partitions=config.market_partitions,
                history=history,
            )
            for partition in range(config.market_partitions)
        ]
        for desk in self._desks:
            for assignment in assignments:
                desk.assign(assignment)
        trading = config.trading
        self._basis = config.stamp.basis()
        self._risk = RiskState(session, trading.risk)
        self._paper = PaperBroker(config.universe, session, trading.costs_bps)
        self._portfolio = Portfolio(config.universe, session, config.broker, trading.pnl_interval_seconds)
        self._unseen: deque[PnlSnapshot] = deque()

    def step(self, market: Ticks | Bars, watermark_ns: int) -> None:
        """Take one frame and the watermark behind it."""
        times = event_times(market)
        done = 0
        signals = self._signals(market, watermark_ns)
        for decision_ns, group in itertools.groupby(signals, key=lambda signal: signal.event_time_ns):
            due = int(np.searchsorted(times, decision_ns, side="left"))
            self._trade(market[done:due], decision_ns)
            done = due
            self._judge(list(group), decision_ns)
        if watermark_ns > self._session.close_ns:
            self._trade(market[done:], self._session.close_ns)
            self._ended(self._paper.end_session(self._basis))
        else:
            self._trade(market[done:], watermark_ns)
        self._snapshots_until(watermark_ns)

    def finish(self) -> None:
        """Check that every signal has come to its end."""
        if self._paper.pending:
            raise RuntimeError(f"{len(self._paper.pending)} orders are still pending after the session's end")

    def _signals(self, market: Ticks | Bars, watermark_ns: int) -> list[SignalGenerated]:
        signals: list[SignalGenerated] = []
        for partition, desk in enumerate(self._desks):
            mine = part_of(market, self._universe, partition, self._partitions)
            if isinstance(mine, Ticks):
                signals += desk.on_ticks(mine)
            else:
                desk.on_bars(mine)
            signals += desk.advance(watermark_ns)
        return sorted(signals, key=lambda signal: signal.event_time_ns)  # stable: partitions in order at one time

    def _trade(self, market: Ticks | Bars, until_ns: int) -> None:
        """Let rows before ``until_ns`` fill orders and mark positions."""
        if isinstance(market, Ticks):
            self._ended(self._paper.on_ticks(market, self._basis))
            self._portfolio.on_ticks(market)
        else:
            self._ended(self._paper.on_bars(market, self._basis))
            self._portfolio.on_bars(market)
        self._snapshots_until(until_ns)

    def _judge(self, signals: list[SignalGenerated], decision_ns: int) -> None:
        while self._unseen and self._unseen[0].event_time_ns < decision_ns:
            apply_snapshot(self._risk, self._unseen.popleft())
        self.events += signals
        for signal in signals:
            verdict = decide(self._risk, signal, self._basis)
            self.events.append(verdict)
            if isinstance(verdict, SignalValidated):
                submitted = self._paper.submit(verdict, self._basis)
                self.events += [event for event in submitted if event.event_type == "order.submitted"]
                self._ended(outcomes_of(submitted))

    def _ended(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self.events.append(outcome)
            self._portfolio.on_outcome(outcome)

    def _snapshots_until(self, watermark_ns: int) -> None:
        snapshots = self._portfolio.advance(watermark_ns)
        self.events += snapshots
        self._unseen.extend(snapshots)


def fills_of(events: Sequence[Event]) -> tuple[OrderFilled, ...]:
    """Pick the fills."""
    return tuple(event for event in events if isinstance(event, OrderFilled))


def final_snapshot(events: Sequence[Event]) -> PnlSnapshot:
    """Pick the last snapshot: the session's result."""
    return [event for event in events if isinstance(event, PnlSnapshot)][-1]
