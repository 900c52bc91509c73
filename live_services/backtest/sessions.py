"""Trades of sessions that a model had not seen: the evidence that a gate asks for.

An expectancy is of trades, not of rows: of what the account's limits let through, at the prices that its orders fill
at, after its charges.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from feature_store.market.types import Bars, Session, Universe
from live_services.backtest.engine import EngineConfig, MarketDay, assignments_at_open, run_session
from live_services.domain.account.risk import ALREADY_OPEN
from live_services.domain.account.trades import Trade, round_trips
from live_services.domain.events import SignalGenerated, SignalRejected
from live_services.domain.limits import AccountConfig
from live_services.domain.strategy.history import SessionHistory
from live_services.domain.strategy.loaded_model import LoadedModel
from models_registry.flat import load_flat
from models_registry.refs import ModelIdentity
from models_registry.specification import StrategySpec

if TYPE_CHECKING:
    from feature_store.features.schema import FeatureSchema
    from models_registry.training import FoldModel


@dataclass(frozen=True, slots=True)
class SessionTrades:
    """What became of a session's signals."""

    session: Session
    trades: tuple[Trade, ...]
    """Round trips in order of their end, then what was left open, in order of its entry."""
    entries_proposed: int
    """Proposals on instruments that the strategy did not hold; while it holds one, further ones are passed over."""
    entries_refused: Mapping[str, int] = field(default_factory=dict)
    """Of these, those that risk refused, by the rule's name."""


@dataclass(frozen=True, slots=True, eq=False)
class TestedSession:
    """A session that a model had not seen, with what the desk would have had at its open."""

    __test__ = False  # no test class, whatever pytest makes of its name

    session: Session
    universe: Universe
    bars: Bars
    """On the desk's clock, in order of ``(end_ns, instrument)``; orders fill at the next bar's open."""
    history: SessionHistory
    model: LoadedModel
    """The model of the fold that is tested on this session, with that fold's thresholds."""


def loaded_fold(fold: FoldModel, schema: FeatureSchema, model_name: str) -> LoadedModel:
    """Make a model that a strategy can run of a fold's; its version is ``fold-1`` and so on."""
    identity = ModelIdentity(
        model_name=model_name, model_version=f"fold-{fold.number}", feature_schema_hash=schema.hash
    )
    model = load_flat(fold.arrays, fold.algorithm, len(schema.names))
    return LoadedModel(identity, schema, model, fold.buy_threshold, fold.sell_threshold)


def trade_sessions(
    sessions: Iterable[TestedSession], strategy: StrategySpec, account: AccountConfig
) -> Iterator[SessionTrades]:
    """Trade sessions one after the other, each with its own model, the strategy alone on a new account.

    Parameters
    ----------
    sessions : iterable of TestedSession
        In order; each is traded when it is asked for.
    strategy : StrategySpec
        Whose signals are traded.
    account : AccountConfig
        Its limits.
    """
    on_paper = strategy.model_copy(update={"brokers": ("paper",)})
    alone = EngineConfig((on_paper,), {"paper": account}, bar_minutes=strategy.bar_minutes)
    for tested in sessions:
        assignments = assignments_at_open(tested.session, {strategy.name: tested.model})
        day = MarketDay(tested.session, tested.universe, tested.bars, assignments, tested.history)
        events = run_session(day, alone)
        refused = Counter(event.rule for event in events if isinstance(event, SignalRejected))
        proposed = sum(isinstance(event, SignalGenerated) for event in events) - refused.pop(ALREADY_OPEN, 0)
        yield SessionTrades(tested.session, round_trips(events), proposed, dict(refused))
