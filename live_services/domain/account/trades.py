"""Trades: what an account's fills came to, one record for each time that a strategy went in and out.

Pure. An expectancy is of trades, not of rows: of what the account's limits let through, at the prices that its orders
fill at, after its costs. `trade_sessions` makes them by the backtest engine for sessions that a fold's model had not
seen.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from feature_store.market.types import Bars, Session
from live_services.domain.account.risk import signed
from live_services.domain.engine import EngineConfig, assignments_at_open, run_session
from live_services.domain.events import (
    Event,
    OrderFilled,
    PnlSnapshot,
    Side,
    SignalGenerated,
    SignalRejected,
)
from live_services.domain.strategy.desk import LoadedModel
from live_services.domain.strategy.history import SessionHistory
from models_registry.flat import load_flat
from models_registry.refs import ModelIdentity
from models_registry.specification import StrategySpec

if TYPE_CHECKING:
    from feature_store.features.schema import FeatureSchema
    from models_registry.training import FoldModel

_BPS: Final = 1e4


@dataclass(frozen=True, slots=True)
class Trade:
    """One round trip of a strategy on an instrument: the opening fill, and the fills that closed it."""

    strategy: str
    instrument_token: int
    symbol: str
    side: Side
    """Of the opening fill: BUY is a long trade."""
    quantity: int
    """Shares opened."""
    entry_price: float
    """Rupees a share."""
    entry_time_ns: int
    """When the entry's price was made; of a fill at a bar's open, the bar's start."""
    exit_price: float
    """Mean over the closing fills by quantity; shares that are left open count at the session's last price."""
    exit_time_ns: int
    """When the price of the last closing fill was made; the session's last snapshot, if shares are left open."""
    costs_inr: float
    """Of the opening and the closing fills; shares that are left open pay what their closing would at that price."""
    left_open: int = 0
    """Shares that no order had closed by the session's end, since bars of the instrument or of the market ended early;
    0 for a round trip."""

    @property
    def entry_notional_inr(self) -> float:
        """Worth of the trade at its entry, rupees."""
        return self.quantity * self.entry_price

    @property
    def gross_pnl_inr(self) -> float:
        """Profit or loss before costs, rupees."""
        return signed(self.side, self.quantity) * (self.exit_price - self.entry_price)

    @property
    def net_pnl_inr(self) -> float:
        """Profit or loss after costs, rupees."""
        return self.gross_pnl_inr - self.costs_inr

    @property
    def gross_bps(self) -> float:
        """Profit or loss before costs, basis points of the entry's notional."""
        return self.gross_pnl_inr / self.entry_notional_inr * _BPS

    @property
    def net_bps(self) -> float:
        """Profit or loss after costs, basis points of the entry's notional."""
        return self.net_pnl_inr / self.entry_notional_inr * _BPS


@dataclass(slots=True)
class _Lot:
    """A trade under way."""

    opened: OrderFilled
    closed_quantity: int = 0
    closed_value: float = 0.0
    closed_ns: int = 0
    costs_inr: float = 0.0

    @property
    def open_quantity(self) -> int:
        return self.opened.quantity - self.closed_quantity

    def close(self, fill: OrderFilled) -> None:
        self.closed_quantity += fill.quantity
        self.closed_value += fill.quantity * fill.price
        self.closed_ns = fill.price_time_ns
        self.costs_inr += fill.costs_inr

    def trade(self, mark_price: float = 0.0, marked_ns: int = 0, costs_bps: float = 0.0) -> Trade:
        left = self.open_quantity
        left_value = left * mark_price
        return Trade(
            strategy=self.opened.strategy,
            instrument_token=self.opened.instrument_token,
            symbol=self.opened.symbol,
            side=self.opened.side,
            quantity=self.opened.quantity,
            entry_price=self.opened.price,
            entry_time_ns=self.opened.price_time_ns,
            exit_price=(self.closed_value + left_value) / self.opened.quantity,
            exit_time_ns=marked_ns if left else self.closed_ns,
            costs_inr=self.opened.costs_inr + self.costs_inr + left_value * costs_bps / _BPS,
            left_open=left,
        )


@dataclass(frozen=True, slots=True)
class SessionTrades:
    """What became of a session's signals."""

    session: Session
    trades: tuple[Trade, ...]
    """Round trips in order of their end, then what was left open, in order of its entry."""
    entries_proposed: int
    """Signals that wanted to open a position."""
    entries_refused: Mapping[str, int] = field(default_factory=dict)
    """Of these, those that risk refused, by the rule's name."""


def round_trips(events: Sequence[Event], costs_bps: float) -> tuple[Trade, ...]:
    """Make trades of a session's fills.

    A strategy holds an instrument once at a time, so the fill of an opening order begins a trade and the fills of its
    closing orders end it.

    Parameters
    ----------
    events : sequence of Event
        Of one session, in order of time, as `run_session` gives them; only fills and the last snapshot are read.
    costs_bps : float
        Of the account; what is left open pays them at its last price, or an expectancy would flatter.

    Returns
    -------
    tuple of Trade
        Round trips in order of their end, then what was left open at the session's end, in order of its entry.
    """
    lots: dict[tuple[str, int], _Lot] = {}
    done: list[Trade] = []
    last: PnlSnapshot | None = None
    for event in events:
        if isinstance(event, PnlSnapshot):
            last = event
        if not isinstance(event, OrderFilled):
            continue
        key = (event.strategy, event.instrument_token)
        if event.intent == "open":
            lots[key] = _Lot(event)
            continue
        lots[key].close(event)
        if lots[key].open_quantity == 0:
            done.append(lots.pop(key).trade())
    marks = {position.instrument_token: position.mark_price for position in last.positions} if last else {}
    at_ns = last.event_time_ns if last else 0
    left = (lot.trade(marks.get(token, lot.opened.price), at_ns, costs_bps) for (_, token), lot in lots.items())
    return (*done, *left)


@dataclass(frozen=True, slots=True, eq=False)
class TestedSession:
    """A session that a model had not seen, with what the desk would have had at its open."""

    __test__ = False  # no test class, whatever pytest makes of its name

    session: Session
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
    sessions: Iterable[TestedSession], strategy: StrategySpec, config: EngineConfig
) -> Iterator[SessionTrades]:
    """Trade sessions one after the other, each with its own model, the strategy alone on the account.

    Parameters
    ----------
    sessions : iterable of TestedSession
        In order; each is traded when it is asked for.
    strategy : StrategySpec
        Whose signals are traded.
    config : EngineConfig
        The account's limits and costs, and the market partitions that it trades in; its strategies are left out.
    """
    alone = replace(config, strategies=(strategy,), bar_minutes=strategy.bar_minutes)
    for tested in sessions:
        assignments = assignments_at_open(tested.session, {strategy.name: tested.model})
        events = run_session(tested.bars, tested.session, assignments, alone, history=tested.history)
        proposed = sum(isinstance(event, SignalGenerated) and event.intent == "open" for event in events)
        refused = Counter(
            event.rule for event in events if isinstance(event, SignalRejected) and event.intent == "open"
        )
        yield SessionTrades(tested.session, round_trips(events, config.trading.costs_bps), proposed, dict(refused))
