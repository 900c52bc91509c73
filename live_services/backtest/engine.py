"""The engine: the live desk and the very chain of the live accounts, driven over sessions without a log.

What the accounts hold goes from session to session. The events are those of the live services, one for one; only
``basis`` differs.
"""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final

import numpy as np

from feature_store.market.types import SECOND_NS, Bars, Session, Ticks, Universe
from live_services.domain.basis import Stamp
from live_services.domain.events import Event, OrderFilled, PnlSnapshot, SignalGenerated, TradingStateChanged
from live_services.domain.limits import AccountConfig
from live_services.domain.log import NOWHERE, EventRecord, LogPosition, MarketSlice, TaskId, event_times
from live_services.domain.partitions import part_of
from live_services.domain.replay import within_session
from live_services.domain.strategy.asked import Assignment
from live_services.domain.strategy.desk import Proposal, StrategyDesk
from live_services.domain.strategy.history import SessionHistory
from live_services.domain.strategy.loaded_model import LoadedModel, RuleFailures
from live_services.domain.topics import MARKET_BARS, MARKET_TICKS, Topic
from live_services.runtime.chain import Chain, ChainState, Say
from live_services.services.account import ACCOUNT, account_chain
from models_registry.refs import Alias
from models_registry.specification import Broker, StrategySpec

_STAGES: Final = {
    event_type: stage
    for stage, event_type in enumerate(
        (
            "account.opened",
            "trading.switched",
            "trading.state_changed",
            "signal.generated",
            "signal.shadowed",
            "signal.validated",
            "signal.rejected",
            "order.submitted",
            "order.filled",
            "order.rejected",
            "order.cancelled",
            "pnl.snapshot",
        )
    )
}


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """Everything of the settings that decides what sessions come to."""

    strategies: tuple[StrategySpec, ...]
    accounts: Mapping[Broker, AccountConfig] = field(default_factory=lambda: {"paper": AccountConfig()})
    """The brokers that run."""
    bar_minutes: int = 1
    market_partitions: int = 1
    stamp: Stamp = field(default_factory=Stamp)


@dataclass(frozen=True, slots=True, eq=False)
class MarketDay:
    """One session, and what the desk has at its open."""

    session: Session
    universe: Universe
    market: Ticks | Bars
    """In order of event time (a bar's is its end); rows outside the session are left out. Ticks fill orders at the next
    tick, bars at the next bar's open."""
    assignments: Sequence[Assignment]
    """Which model each strategy runs on which rung from when on, in order of time."""
    history: SessionHistory | None = None
    """What features go on from; the live strategy runner logs the digest of the one it had. None: from the engine's
    session before, if that had the same universe, else from nothing."""
    trading_states: Sequence[TradingStateChanged] = ()
    """What people commanded and when it came into force, of all accounts, in order of time; none: nobody did."""


def assignments_at_open(
    session: Session, models: Mapping[str, LoadedModel], rung: Alias = "champion"
) -> tuple[Assignment, ...]:
    """Let strategies run their models, by strategy name, on one rung for the whole session."""
    return tuple(Assignment(session.open_ns, strategy, model, rung) for strategy, model in models.items())


def run_session(day: MarketDay, config: EngineConfig, frame_ns: int | None = None) -> tuple[Event, ...]:
    """Run one session on new accounts; see `Engine.run`."""
    return Engine(config).run(day, frame_ns)


class Engine:
    """Accounts that live through sessions, one after the other.

    Parameters
    ----------
    config : EngineConfig
        Strategies, accounts, clock.
    """

    def __init__(self, config: EngineConfig) -> None:
        self._config = config
        self._states: dict[Broker, ChainState] = {}
        self._universe: Universe | None = None
        self._desks: list[StrategyDesk] = []

    def run(self, day: MarketDay, frame_ns: int | None = None) -> tuple[Event, ...]:
        """Run a session from its open to one second after its close.

        Parameters
        ----------
        day : MarketDay
            Later than the one before.
        frame_ns : int, optional
            Work in frames of so many nanoseconds, as the live feed does; the result does not depend on it.

        Returns
        -------
        tuple of Event
            Proposals, verdicts, orders, fills and snapshots, in order of (event time, stage of the chain).
        """
        with _without_collections():
            events = self._events(day, frame_ns)
        events.sort(key=lambda event: _STAGES[event.event_type])
        events.sort(key=attrgetter("event_time_ns"))  # stable
        return tuple(events)

    @property
    def rule_failures(self) -> Mapping[str, RuleFailures]:
        """Where the rules of strategies failed in the session that was run last, by strategy."""
        found: dict[str, RuleFailures] = {}
        for desk in self._desks:
            for (strategy, _), failed in desk.failures.items():
                found[strategy] = found[strategy] + failed if strategy in found else failed
        return found

    def _events(self, day: MarketDay, frame_ns: int | None) -> list[Event]:
        market = within_session(day.market, day.session)
        topic = MARKET_TICKS if isinstance(market, Ticks) else MARKET_BARS
        desks = self._desks_of(day)
        accounts = [self._account(broker, day, topic) for broker in self._config.accounts]
        events: list[Event] = []
        for account in accounts:
            account.open(events.append)
        _control(accounts, day, day.session.open_ns, events.append)
        for part, watermark_ns in _frames(market, day, frame_ns):
            proposals = self._proposals(desks, part, day.universe, watermark_ns)
            events += proposals
            for account in accounts:
                account.step(part, proposals, watermark_ns, events.append)
            _control(accounts, day, watermark_ns, events.append)
        self._states = {account.broker: account.state for account in accounts}
        return events

    def _desks_of(self, day: MarketDay) -> list[StrategyDesk]:
        if day.history is None and self._universe == day.universe:
            for desk in self._desks:
                desk.next_session(day.session)
        else:
            self._desks = [self._desk(day, partition) for partition in range(self._config.market_partitions)]
            self._universe = day.universe
        for desk in self._desks:
            for assignment in day.assignments:
                desk.assign(assignment)
        return self._desks

    def _desk(self, day: MarketDay, partition: int) -> StrategyDesk:
        return StrategyDesk(
            day.universe,
            day.session,
            self._config.strategies,
            bar_minutes=self._config.bar_minutes,
            brokers=tuple(self._config.accounts),
            stamp=self._config.stamp,
            partition=partition,
            partitions=self._config.market_partitions,
            history=day.history,
            of_bars=isinstance(day.market, Bars),
        )

    def _account(self, broker: Broker, day: MarketDay, topic: Topic) -> _Account:
        chain = account_chain(broker, topic, self._config.accounts[broker], self._config.stamp, alarm=_nobody_hears)
        task = TaskId(ACCOUNT, broker, 0)
        state = chain.open_session(day.session, day.universe, task, self._states.get(broker))
        return _Account(broker, chain, state, LogPosition(topic.name, 0, -1))

    def _proposals(
        self, desks: Sequence[StrategyDesk], market: Ticks | Bars, universe: Universe, watermark_ns: int
    ) -> list[Proposal]:
        proposals: list[Proposal] = []
        for partition, desk in enumerate(desks):
            mine = part_of(market, universe, partition, len(desks))
            if isinstance(mine, Ticks):
                proposals += desk.on_ticks(mine)
            else:
                desk.on_bars(mine)
            proposals += desk.advance(watermark_ns)
        return sorted(proposals, key=lambda one: (one.event_time_ns, one.strategy, one.instrument_token))


@dataclass(slots=True)
class _Account:
    """One broker's chain in the session at hand."""

    broker: Broker
    chain: Chain
    state: ChainState
    position: LogPosition

    def open(self, say: Say) -> None:
        for event in self.chain.commands(self.state, self.state.session.open_ns):
            self.control(event, say)

    def control(self, event: Event, say: Say) -> None:
        say(event)
        self.chain.handle_control(EventRecord(event, NOWHERE), self.state, say)

    def step(self, market: Ticks | Bars, proposals: Sequence[Proposal], watermark_ns: int, say: Say) -> None:
        """Take one frame and the watermark behind it.

        Its proposals come first: the account keeps each until its instant, at which the market comes before it.
        """
        mine = [
            EventRecord(proposal, NOWHERE)
            for proposal in proposals
            if isinstance(proposal, SignalGenerated) and proposal.broker == self.broker
        ]
        self.chain.handle_together(mine, self.state, self.state.session.open_ns, say)
        if len(market):
            record = MarketSlice(market, self.position)
            self.chain.handle(record, self.state, record.times_ns.item(-1), say)
        self.chain.advance(self.state, watermark_ns, say)


def _nobody_hears(event: str, **facts: object) -> None:
    """Raise no alarm of an account that is nobody's: what it was left with stands among its trades."""


@contextmanager
def _without_collections() -> Iterator[None]:
    """Let no garbage collection look through the thousands of events of a session: none is a cycle.

    What is left at the end goes to the oldest generation unseen, where a full collection looks at it as ever.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():  # what a process froze stays so
            gc.freeze()
            gc.unfreeze()
        gc.enable()


def _control(accounts: Sequence[_Account], day: MarketDay, at_ns: int, say: Say) -> None:
    """Let come into force what was commanded for an instant: all before it was handled, and nothing of it."""
    for event in day.trading_states:
        if event.event_time_ns == at_ns:
            for account in accounts:
                if account.broker == event.broker:
                    account.control(event, say)


def _frames(market: Ticks | Bars, day: MarketDay, frame_ns: int | None) -> Iterator[tuple[Ticks | Bars, int]]:
    session, end_ns = day.session, day.session.close_ns + SECOND_NS
    grid = () if frame_ns is None else range(session.open_ns + frame_ns, end_ns, frame_ns)
    commanded = (e.event_time_ns for e in day.trading_states if session.open_ns < e.event_time_ns < end_ns)
    cuts = sorted({*grid, *commanded, end_ns})
    edges = [0, *np.searchsorted(event_times(market), cuts).tolist()]
    for (first, end), watermark_ns in zip(itertools.pairwise(edges), cuts, strict=True):
        yield market[first:end], watermark_ns


def fills_of(events: Sequence[Event]) -> tuple[OrderFilled, ...]:
    """Pick the fills."""
    return tuple(event for event in events if isinstance(event, OrderFilled))


def final_snapshot(events: Sequence[Event]) -> PnlSnapshot:
    """Pick the last snapshot: the session's result."""
    return [event for event in events if isinstance(event, PnlSnapshot)][-1]
