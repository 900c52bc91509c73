"""What an account holds, and what it enters a session with."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from live_services.domain.events.envelope import (
    AnswersCommands,
    Count,
    Event,
    Frozen,
    Instant,
    Money,
    Price,
    Rupees,
    Whole,
)
from live_services.domain.events.operations import TradingStateInForce
from live_services.domain.events.orders import MOST_PROPOSED, ExitTerms
from live_services.domain.limits import AccountConfig
from live_services.domain.money import LARGEST_INR
from live_services.domain.topics import Topic
from models_registry.refs import Alias
from models_registry.specification import Broker, Product

Shares = Annotated[int, Field(ge=-MOST_PROPOSED, le=MOST_PROPOSED)]


class Position(Frozen):
    """What a strategy holds of an instrument: from its opening fill until nothing is left."""

    strategy: str
    rung: Alias
    instrument_token: Whole
    symbol: str
    product: Product
    quantity: Shares
    """Signed; never 0."""
    cost_inr_e4: Money
    """What the quantity cost, signed as it is: average price times quantity, exact."""
    realized_inr_e4: Money
    """Of shares of it that were closed already, before charges."""
    charges_inr_e4: Money
    opened_ns: Instant
    opening_order_id: str
    opening_fill_id: str
    signal_id: str
    model_name: str
    model_version: str
    feature_schema_hash: str
    exit: ExitTerms
    mark_price: Price | None = None
    """Rupees, of the session before; only in the record that carries it into the next one."""

    @property
    def key(self) -> tuple[str, int]:
        """The strategy and the instrument token: one position each."""
        return self.strategy, self.instrument_token


class PositionMark(Frozen):
    """One position of a snapshot; flat (quantity 0) where it was closed since the snapshot before."""

    strategy: str
    instrument_token: Whole
    symbol: str
    model_version: str
    quantity: Shares
    """Signed."""
    cost_inr_e4: Money
    mark_price: Annotated[float, Field(ge=0, le=LARGEST_INR)]
    realized_inr_e4: Money
    """Before charges."""
    unrealized_inr: Rupees
    charges_inr_e4: Money
    opened_ns: Instant
    opening_order_id: str
    expiry_ns: Instant

    @property
    def average_price(self) -> float:
        """Rupees a share; 0 when flat."""
        return self.cost_inr_e4 / self.quantity / 10_000 if self.quantity else 0.0


class StrategyTotals(Frozen):
    """What a strategy's version came to since the account began; positions in it are in the snapshot."""

    strategy: str
    model_name: str
    model_version: str
    realized_inr_e4: Money
    """Before charges."""
    charges_inr_e4: Money
    fills: Count
    trades: Count
    """Round trips that ended."""


class PnlSnapshot(Event):
    """The account at a whole second: every fill with an earlier event time is in it, and no later one.

    ``cash + holdings at cost = starting cash + realized - charges`` holds exactly.
    """

    TOPIC: ClassVar[Topic | str | None] = "pnl_snapshots"

    event_type: Literal["pnl.snapshot"] = "pnl.snapshot"
    broker: Broker
    session_date: str
    positions: tuple[PositionMark, ...]
    """What is open, and what was closed since the snapshot before."""
    strategies: tuple[StrategyTotals, ...]
    starting_cash_inr_e4: Money
    cash_inr_e4: Money
    holdings_at_cost_inr_e4: Money
    realized_inr_e4: Money
    """Before charges, since the account began."""
    charges_inr_e4: Money
    realized_today_inr_e4: Money
    charges_today_inr_e4: Money
    unrealized_inr: Rupees
    equity_inr: Rupees
    """Cash and holdings at their marks."""
    equity_at_open_inr: Rupees
    """Equity with which the session began, its positions at the marks of the session before."""
    fills: Count
    """Fills since the session's open."""
    orders_under_way: Count
    charges_exact: bool
    """False if a schedule other than the day's was used for any fill of the session."""

    @property
    def net_today_inr(self) -> float:
        """Profit or loss of the session after charges, rupees."""
        return self.equity_inr - self.equity_at_open_inr


class AccountOpened(AnswersCommands):
    """Control: what an account enters a session with, and by which limits it trades until its end.

    Restart and replay begin with it, whoever restarted overnight and whatever the settings say by then.
    """

    TOPIC: ClassVar[Topic | str | None] = "control"

    event_type: Literal["account.opened"] = "account.opened"
    broker: Broker
    session_date: str
    config: AccountConfig
    config_digest: str
    """SHA-256 of `config`."""
    git_commit: str
    """Of the code that opened the session; empty if it is not known."""
    starting_cash_inr_e4: Money
    cash_inr_e4: Money
    equity_inr: Rupees
    positions: tuple[Position, ...]
    strategies: tuple[StrategyTotals, ...]
    trading_states: tuple[TradingStateInForce, ...] = ()
    """Of every scope that is not ACTIVE."""
    handed_in: tuple[str, ...] = ()
    """Dead letters whose records were taken as new ones, so that none is taken twice."""


class TradingSwitched(Event):
    """Control: from ``event_time_ns`` on a broker's trading stage gives orders, or gives none.

    It is said in every session, so that a restart and a replay follow what was so, whatever the settings say by then:
    what risk validates while it is off is never ordered.
    """

    TOPIC: ClassVar[Topic | str | None] = "control"

    event_type: Literal["trading.switched"] = "trading.switched"
    broker: Broker
    session_date: str
    enabled: bool
    reason: str
