"""From a proposal to the end of its order."""

from __future__ import annotations

from typing import Annotated, ClassVar, Final, Literal

from pydantic import Field

from live_services.domain.events.envelope import Count, Frozen, Instant, ModelStamped, Price, PriceE4, Whole
from live_services.domain.money import LARGEST_INR, RUPEE
from live_services.domain.topics import Topic
from models_registry.refs import Alias
from models_registry.specification import Product

Side = Literal["BUY", "SELL"]
Intent = Literal["open", "close"]
ExitReason = Literal["stop", "target", "time", "square_off", "carried", "flatten"]
"""stop, target  the price that rested from the opening fill was touched.
time         the holding that the strategy asked for is over.
square_off   a MIS position at its product's last time of the session.
carried      a position that should have been closed in an earlier session, at the open of this one.
flatten      a person commanded that its strategy, or the broker, hold nothing."""
Reason = Literal["entry", "bracket"] | ExitReason
"""Why an order is there: an entry, the pair of stop and target that rests behind it, or an exit at the market."""
FillModel = Literal["next_tick", "next_bar_open", "touched_on_tick", "touched_on_bar"]

MOST_PROPOSED: Final = 10**15
"""Shares; more is no quantity. What a limit refuses can still be added to, and written."""
SignedPriceE4 = Annotated[int, Field(ge=-2 * LARGEST_INR * RUPEE, le=2 * LARGEST_INR * RUPEE)]
"""1/10,000 rupee a share; a stop whose distance is more than the price lies below zero, and is never touched."""


class BarValues(Frozen):
    """The bar a decision was made on; ``[start_ns, end_ns)``."""

    start_ns: Instant
    end_ns: Instant
    open: Price
    high: Price
    low: Price
    close: Price
    volume: Count
    tick_count: Count


class ExitTerms(Frozen):
    """How a position is to end, as its strategy proposed it; distances from the opening fill's price."""

    expiry_ns: Instant
    """From here on it is closed at the market: decision + horizon, in session time."""
    stop_distance_inr_e4: int | None = Field(default=None, gt=0, le=LARGEST_INR * RUPEE)
    target_distance_inr_e4: int | None = Field(default=None, gt=0, le=LARGEST_INR * RUPEE)

    @property
    def is_bracketed(self) -> bool:
        """Whether a stop or a target rests from the opening fill on."""
        return self.stop_distance_inr_e4 is not None or self.target_distance_inr_e4 is not None


class _OnInstrument(ModelStamped):
    strategy: str
    rung: Alias
    instrument_token: Whole
    symbol: str
    product: Product = "MIS"
    side: Side
    intent: Intent
    quantity: int = Field(gt=0, le=MOST_PROPOSED)


class SignalGenerated(_OnInstrument):
    """A strategy proposes a position. ``event_time_ns`` is the decision time: the end of its bar."""

    TOPIC: ClassVar[Topic | str | None] = "signals_raw"

    event_type: Literal["signal.generated"] = "signal.generated"
    intent: Literal["open"] = "open"
    priority: Whole = 0
    """Among the proposals of one instant the lower one is judged first; ties by strategy, then by instrument token."""
    exit: ExitTerms
    score: float
    threshold: float
    reference_price: Price
    """Close of the bar, rupees."""
    bar: BarValues
    features: dict[str, float | None]
    """The feature row, in schema order; None where a feature has no value (NaN)."""


class SignalValidated(_OnInstrument):
    """Risk accepted a proposal, or raised an exit; ``quantity`` is what may be ordered.

    An exit is caused by the opening fill, and belongs to the chain of the proposal that opened the position.
    """

    TOPIC: ClassVar[Topic | str | None] = "signals_validated"

    event_type: Literal["signal.validated"] = "signal.validated"
    signal_id: str
    """The proposal at the head of the chain."""
    reason: Reason
    reference_price: Price
    exit: ExitTerms | None = None
    """Of an entry."""
    stop_price_inr_e4: SignedPriceE4 | None = None
    """Of a bracket, with the next one: it rests until one of both is touched."""
    target_price_inr_e4: SignedPriceE4 | None = None
    rules: tuple[str, ...]
    """The rules that were asked, in order."""


class SignalRejected(_OnInstrument):
    """Risk refused a proposal; names the rule, its limit and what it saw."""

    TOPIC: ClassVar[Topic | str | None] = "signals_rejected"

    event_type: Literal["signal.rejected"] = "signal.rejected"
    signal_id: str
    rule: str
    """``already_open`` is no complaint: the strategy holds the instrument, or has an order under way there."""
    limit: str
    observed: str


class _OnOrder(_OnInstrument):
    signal_id: str
    order_id: str
    reason: Reason


class OrderSubmitted(_OnOrder):
    """An order was accepted for execution; it can fill strictly later than ``event_time_ns``."""

    TOPIC: ClassVar[Topic | str | None] = "orders_submitted"

    event_type: Literal["order.submitted"] = "order.submitted"
    reference_price: Price
    exit: ExitTerms | None = None
    stop_price_inr_e4: SignedPriceE4 | None = None
    target_price_inr_e4: SignedPriceE4 | None = None


class OrderFilled(_OnOrder):
    """So much of an order filled; of a bracket, ``reason`` says which of its prices."""

    TOPIC: ClassVar[Topic | str | None] = "orders_filled"

    event_type: Literal["order.filled"] = "order.filled"
    price_inr_e4: PriceE4
    price_time_ns: Instant
    """When the price was made: the tick's time, or the start of the bar whose open it is."""
    remaining_quantity: int = Field(ge=0, le=MOST_PROPOSED)
    """What of the order is still open; 0 ends it."""
    charges_inr_e4: int = Field(ge=0, le=LARGEST_INR * RUPEE)
    charges_schedule: str
    """Date of the schedule that they were computed by."""
    charges_exact: bool
    """False: no schedule is verified for the day, the nearest one was used."""
    fill_model: FillModel


class OrderRejected(_OnOrder):
    """Execution refused an order."""

    TOPIC: ClassVar[Topic | str | None] = "orders_rejected"

    event_type: Literal["order.rejected"] = "order.rejected"
    why: str


class OrderCancelled(_OnOrder):
    """What was left of an order ended unfilled."""

    TOPIC: ClassVar[Topic | str | None] = "orders_cancelled"

    event_type: Literal["order.cancelled"] = "order.cancelled"
    why: str
