"""Sessions traded one after the other on one account that lives through them, and what is kept of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import MarketDataError, Session
from live_services.backtest.engine import Engine, EngineConfig, MarketDay, assignments_at_open
from live_services.domain.account.risk import ALREADY_OPEN
from live_services.domain.events import (
    AccountOpened,
    Event,
    OrderFilled,
    PnlSnapshot,
    SignalGenerated,
    SignalRejected,
)

if TYPE_CHECKING:
    from feature_store.market.types import Bars, Ticks
    from feature_store.offline.store import OfflineStore
    from live_services.adapters.history import StoredHistory
    from live_services.backtest.versions import JudgedVersion
    from live_services.domain.strategy.loaded_model import LoadedModel, RuleFailures
    from models_registry.specification import StrategySpec

Fills = Literal["bars", "ticks"]
"""What the market is: orders fill at the next bar's open, or at the next tick."""


class Judged(Protocol):
    """A strategy and what runs it on each session: a registered version, or the folds of a candidate."""

    @property
    def spec(self) -> StrategySpec:
        """The strategy as it trades."""
        ...

    @property
    def model(self) -> LoadedModel:
        """Any model of it: all have one schema."""
        ...

    def model_on(self, session: Session, *, in_sample: bool) -> LoadedModel:
        """Give what a session is run with."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class AccountPath:
    """The account at the whole seconds at which it said how it stands; arrays of shape ``(n,)``."""

    time_ns: NDArray[np.int64]
    equity_inr: NDArray[np.float64]
    gross_inr: NDArray[np.float64]
    """What is held, long and short added up, at its marks."""
    net_inr: NDArray[np.float64]
    """Long minus short."""
    positions: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class TradedSession:
    """What is kept of a session that was traded."""

    session: Session
    kept: tuple[Event, ...]
    """What the account was opened with, its fills, and its last snapshot: what `round_trips` reads."""
    path: AccountPath
    equity_at_open_inr: float
    proposed: int
    """Proposals on instruments that the strategy did not hold."""
    refused: Mapping[str, int]
    """Of these, those that risk refused, by the rule's name."""
    rule_failures: Mapping[str, RuleFailures]
    """Rows at which the rule of a strategy failed, by strategy; they proposed nothing."""

    @property
    def fills(self) -> tuple[OrderFilled, ...]:
        """The fills, in order."""
        return tuple(event for event in self.kept if isinstance(event, OrderFilled))

    @property
    def last(self) -> PnlSnapshot:
        """The session's result."""
        (found,) = (event for event in self.kept if isinstance(event, PnlSnapshot))
        return found


def trade(
    store: OfflineStore,
    history: StoredHistory,
    config: EngineConfig,
    judged: Sequence[Judged],
    sessions: Sequence[Session],
    *,
    fills: Fills,
    in_sample: bool,
) -> Iterator[TradedSession]:
    """Trade sessions in order, each with the models that it may be run with; cash and positions go on.

    Features go on from the session before if it was traded too, else from the stored sessions before: both are equal.

    Parameters
    ----------
    store : OfflineStore
        With the bars, or the ticks, of the sessions.
    history : StoredHistory
        Reads the sessions before one.
    config : EngineConfig
        The strategies, and the account.
    judged : sequence of Judged
        One for each strategy.
    sessions : sequence of Session
        In order; each is traded when it is asked for.
    fills : {"bars", "ticks"}
    in_sample : bool
        Run the registered models, whatever they know of a session.
    """
    engine, universe = Engine(config), store.universe()
    needed = max(one.model.schema.history_sessions for one in judged)
    stored = [session.date for session in store.sessions("bars")]
    before: Session | None = None
    for session in sessions:
        models = {one.spec.name: one.model_on(session, in_sample=in_sample) for one in judged}
        goes_on = before is not None and _follows(before, session, stored)
        day = MarketDay(
            session,
            universe,
            _market(store, session, fills),
            assignments_at_open(session, models),
            None if goes_on else history.of(session, universe, needed=needed),
        )
        yield kept(session, engine.run(day), engine.rule_failures)
        before = session


def require_as_trained(store: OfflineStore, judged: Sequence[JudgedVersion], sessions: Sequence[Session]) -> None:
    """Refuse sessions whose bars are others than those that a version was measured on.

    Raises
    ------
    MarketDataError
        Names the first one.
    """
    for one in judged:
        digests = one.sidecar.lineage.sessions if one.sidecar.lineage is not None else {}
        for session in sessions:
            expected = digests.get(session.date.isoformat())
            if expected is not None and store.manifest("bars", session)["digest"] != expected:
                raise MarketDataError(
                    f"the bars of {session.date} have changed since {one.title} was trained on them: what it says of "
                    "that session is no more what was measured; train again, or bring these bars back"
                )


def _follows(before: Session, session: Session, stored: Sequence[object]) -> bool:
    return (
        before.date in stored and session.date in stored and stored.index(session.date) - stored.index(before.date) == 1
    )


def _market(store: OfflineStore, session: Session, fills: Fills) -> Ticks | Bars:
    return store.read_ticks(session) if fills == "ticks" else store.read_bars([session])


def kept(session: Session, events: Sequence[Event], rule_failures: Mapping[str, RuleFailures]) -> TradedSession:
    """Keep of a session's events what reports and gates are made of."""
    snapshots = [event for event in events if isinstance(event, PnlSnapshot)]
    refused = Counter(event.rule for event in events if isinstance(event, SignalRejected))
    proposed = sum(isinstance(event, SignalGenerated) for event in events) - refused.pop(ALREADY_OPEN, 0)
    read = (e for e in events if isinstance(e, AccountOpened | OrderFilled) or e is snapshots[-1])
    return TradedSession(
        session,
        tuple(read),
        _path(snapshots),
        snapshots[-1].equity_at_open_inr,
        proposed,
        dict(sorted(refused.items())),
        rule_failures,
    )


def _path(snapshots: Sequence[PnlSnapshot]) -> AccountPath:
    worth = [[position.quantity * position.mark_price for position in one.positions] for one in snapshots]
    return AccountPath(
        time_ns=np.array([one.event_time_ns for one in snapshots], dtype=np.int64),
        equity_inr=np.array([one.equity_inr for one in snapshots]),
        gross_inr=np.array([float(sum(map(abs, held))) for held in worth]),
        net_inr=np.array([float(sum(held)) for held in worth]),
        positions=np.array([sum(p.quantity != 0 for p in one.positions) for one in snapshots], dtype=np.int64),
    )


def stored_bars(store: OfflineStore, sessions: Sequence[Session]) -> Iterator[tuple[Session, Bars]]:
    """Read the bars of sessions, one session at a time; one that has only ticks is left out."""
    stored = {session.date for session in store.sessions("bars")}
    for session in sessions:
        if session.date in stored:
            yield session, store.read_bars([session])
