"""What travels on the topics, as frozen values. Each event names its type, its broker and what caused it.

Ticks and bars travel in frames (``live_services/domain/frames.py``); everything rare is one of these.
"""

from __future__ import annotations

import hashlib
import uuid
from functools import cache
from typing import Annotated, Any, ClassVar, Final, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from feature_store.market.types import Instrument
from live_services.domain.limits import AccountConfig
from live_services.domain.money import LARGEST_INR, RUPEE
from live_services.domain.topics import (
    FEATURES_SKEW,
    MARKET_SESSIONS,
    MODELS_LOADED,
    MODELS_PROMOTED,
    MODELS_REFUSED,
    SIGNALS_SHADOW,
    STRATEGIES_CONTROL,
    Scope,
    Topic,
    broker_topics,
)
from models_registry.refs import Alias
from models_registry.specification import Broker, Product

Side = Literal["BUY", "SELL"]
Intent = Literal["open", "close"]
ExitReason = Literal["stop", "target", "time", "square_off", "carried"]
"""stop, target  the price that rested from the opening fill was touched.
time         the holding that the strategy asked for is over.
square_off   a MIS position at its product's last time of the session.
carried      a position that should have been closed in an earlier session, at the open of this one."""
Reason = Literal["entry", "bracket"] | ExitReason
"""Why an order is there: an entry, the pair of stop and target that rests behind it, or an exit at the market."""
FillModel = Literal["next_tick", "next_bar_open", "touched_on_tick", "touched_on_bar"]

LAST_NS: Final = 2**62
"""An instant in the year 2116, later than any event: sums of times and durations stay in 64 bits."""
MOST_PROPOSED: Final = 10**15
"""Shares; more is no quantity. What a limit refuses can still be added to, and written."""

_NAMESPACE: Final = uuid.UUID("6f2d1c52-8a5e-5e0a-9a52-0d4f2a1f6c11")
_NAMED: Final = hashlib.sha1(_NAMESPACE.bytes, usedforsecurity=False)
_VARIANT: Final = {digit: "89ab"[int(digit, 16) % 4] for digit in "0123456789abcdef"}


def event_id(*identity: str | int) -> str:
    """Derive a stable id (UUIDv5) from what identifies an event; never from an offset, a batch or a model version."""
    digest = _NAMED.copy()
    digest.update("|".join(map(str, identity)).encode())
    text = digest.hexdigest()  # what uuid.uuid5 makes of it (RFC 9562, 5.5), at a quarter of the time
    variant = _VARIANT[text[16]]
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{variant}{text[17:20]}-{text[20:32]}"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)

    @classmethod
    def trusted(cls, fields: dict[str, Any]) -> Self:
        """Make one of values that this code computed from checked ones; whatever comes from outside is validated.

        It does what pydantic's ``model_construct`` does for a model without aliases, in a tenth of the time: accounts
        say thousands of events. Nothing is checked here; tests validate what accounts and desks say.
        """
        template, names = _shape_of(cls)
        made = cls.__new__(cls)
        object.__setattr__(made, "__dict__", fields if len(fields) == len(template) else template | fields)
        object.__setattr__(made, "__pydantic_fields_set__", names)
        object.__setattr__(made, "__pydantic_extra__", None)
        object.__setattr__(made, "__pydantic_private__", None)
        return made


@cache
def _shape_of(kind: type[_Frozen]) -> tuple[dict[str, Any], set[str]]:
    """Give a model's fields in order, each with its default, and their names."""
    fields = kind.model_fields
    return {n: None if f.is_required() else f.get_default(call_default_factory=True) for n, f in fields.items()}, {
        *fields
    }


Instant = Annotated[int, Field(ge=0, le=LAST_NS)]
"""UTC epoch nanoseconds of what a record tells of; its own event time is held against watermarks."""


class Event(_Frozen):
    """The envelope. ``event_type`` and ``broker`` have no default, so an event without them cannot be built."""

    event_type: str
    broker: Scope
    event_id: str
    correlation_id: str
    """The id of the raw signal (or the promotion) at the head of the chain."""
    causation_id: str
    """The id of the event that this one answers; its own id at the head of a chain."""
    event_time_ns: int
    schema_version: Literal[2] = 2

    TOPIC: ClassVar[Topic | str | None] = None
    """Where it goes: a shared topic, or the name of a broker's; None for what the runtime places."""


def self_caused(*identity: str | int) -> dict[str, str]:
    """Give the ids of an event at the head of a chain: it is its own cause."""
    own = event_id(*identity)
    return {"event_id": own, "correlation_id": own, "causation_id": own}


class Basis(_Frozen):
    """What an output stands on; for ``explain`` only, never part of an identity or a comparison."""

    input_positions: dict[str, tuple[int, int]] = Field(default_factory=dict)
    """First and last offset by ``topic[partition]``."""
    config_digest: str = ""
    git_commit: str = ""


class ModelStamped(Event):
    """An event that a model's version caused, on whatever stage of the chain."""

    broker: Broker
    model_name: str
    model_version: str
    feature_schema_hash: str
    basis: Basis = Basis()


class BarValues(_Frozen):
    """The bar a decision was made on; ``[start_ns, end_ns)``."""

    start_ns: Instant
    end_ns: Instant
    open: float
    high: float
    low: float
    close: float
    volume: int
    tick_count: int


class ExitTerms(_Frozen):
    """How a position is to end, as its strategy proposed it; distances from the opening fill's price."""

    expiry_ns: Instant
    """From here on it is closed at the market: decision + horizon, in session time."""
    stop_distance_inr_e4: int | None = Field(default=None, gt=0, le=LARGEST_INR * RUPEE)
    target_distance_inr_e4: int | None = Field(default=None, gt=0, le=LARGEST_INR * RUPEE)


class _OnInstrument(ModelStamped):
    strategy: str
    rung: Alias
    instrument_token: int
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
    priority: int = 0
    """Among the proposals of one instant the lower one is judged first; ties by strategy, then by instrument token."""
    exit: ExitTerms
    score: float
    threshold: float
    reference_price: float = Field(gt=0, le=LARGEST_INR)
    """Close of the bar, rupees."""
    bar: BarValues
    features: dict[str, float | None]
    """The feature row, in schema order; None where a feature has no value (NaN)."""


class SignalShadowed(Event):
    """What a challenger's version would have proposed; no account reads it."""

    TOPIC: ClassVar[Topic | str | None] = SIGNALS_SHADOW

    event_type: Literal["signal.shadowed"] = "signal.shadowed"
    broker: Literal["shared"] = "shared"
    strategy: str
    rung: Literal["challenger"] = "challenger"
    model_name: str
    model_version: str
    feature_schema_hash: str
    instrument_token: int
    symbol: str
    side: Side
    score: float
    threshold: float
    reference_price: float = Field(gt=0)


class SignalValidated(_OnInstrument):
    """Risk accepted a proposal, or raised an exit; ``quantity`` is what may be ordered.

    An exit is caused by the opening fill, and belongs to the chain of the proposal that opened the position.
    """

    TOPIC: ClassVar[Topic | str | None] = "signals_validated"

    event_type: Literal["signal.validated"] = "signal.validated"
    signal_id: str
    """The proposal at the head of the chain."""
    reason: Reason
    reference_price: float = Field(gt=0)
    exit: ExitTerms | None = None
    """Of an entry."""
    stop_price_inr_e4: int | None = None
    """Of a bracket, with the next one: it rests until one of both is touched."""
    target_price_inr_e4: int | None = None
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
    reference_price: float = Field(gt=0)
    exit: ExitTerms | None = None
    stop_price_inr_e4: int | None = None
    target_price_inr_e4: int | None = None


class OrderFilled(_OnOrder):
    """So much of an order filled; of a bracket, ``reason`` says which of its prices."""

    TOPIC: ClassVar[Topic | str | None] = "orders_filled"

    event_type: Literal["order.filled"] = "order.filled"
    price_inr_e4: int = Field(gt=0)
    price_time_ns: int
    """When the price was made: the tick's time, or the start of the bar whose open it is."""
    remaining_quantity: int = Field(ge=0)
    """What of the order is still open; 0 ends it."""
    charges_inr_e4: int = Field(ge=0)
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


class Position(_Frozen):
    """What a strategy holds of an instrument: from its opening fill until nothing is left."""

    strategy: str
    rung: Alias
    instrument_token: int
    symbol: str
    product: Product
    quantity: int
    """Signed; never 0."""
    cost_inr_e4: int
    """What the quantity cost, signed as it is: average price times quantity, exact."""
    realized_inr_e4: int
    """Of shares of it that were closed already, before charges."""
    charges_inr_e4: int
    opened_ns: int
    opening_order_id: str
    opening_fill_id: str
    signal_id: str
    model_name: str
    model_version: str
    feature_schema_hash: str
    exit: ExitTerms
    mark_price: float | None = None
    """Rupees, of the session before; only in the record that carries it into the next one."""

    @property
    def key(self) -> tuple[str, int]:
        """The strategy and the instrument token: one position each."""
        return self.strategy, self.instrument_token


class PositionMark(_Frozen):
    """One position of a snapshot; flat (quantity 0) where it was closed since the snapshot before."""

    strategy: str
    instrument_token: int
    symbol: str
    model_version: str
    quantity: int
    """Signed."""
    cost_inr_e4: int
    mark_price: float
    realized_inr_e4: int
    """Before charges."""
    unrealized_inr: float
    charges_inr_e4: int
    opened_ns: int
    opening_order_id: str
    expiry_ns: int

    @property
    def average_price(self) -> float:
        """Rupees a share; 0 when flat."""
        return self.cost_inr_e4 / self.quantity / 10_000 if self.quantity else 0.0


class StrategyTotals(_Frozen):
    """What a strategy's version came to since the account began; positions in it are in the snapshot."""

    strategy: str
    model_name: str
    model_version: str
    realized_inr_e4: int
    """Before charges."""
    charges_inr_e4: int
    fills: int
    trades: int
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
    starting_cash_inr_e4: int
    cash_inr_e4: int
    holdings_at_cost_inr_e4: int
    realized_inr_e4: int
    """Before charges, since the account began."""
    charges_inr_e4: int
    realized_today_inr_e4: int
    charges_today_inr_e4: int
    unrealized_inr: float
    equity_inr: float
    """Cash and holdings at their marks."""
    equity_at_open_inr: float
    """Equity with which the session began, its positions at the marks of the session before."""
    fills: int
    """Fills since the session's open."""
    orders_under_way: int
    charges_exact: bool
    """False if a schedule other than the day's was used for any fill of the session."""

    @property
    def net_today_inr(self) -> float:
        """Profit or loss of the session after charges, rupees."""
        return self.equity_inr - self.equity_at_open_inr


class AccountOpened(Event):
    """Control: what an account enters a session with, and by which limits it trades until its end.

    Restart and replay begin with it, whoever restarted overnight and whatever the settings say by then.
    """

    TOPIC: ClassVar[Topic | str | None] = "control"

    event_type: Literal["account.opened"] = "account.opened"
    broker: Broker
    session_date: str
    config: AccountConfig
    starting_cash_inr_e4: int
    cash_inr_e4: int
    equity_inr: float
    positions: tuple[Position, ...]
    strategies: tuple[StrategyTotals, ...]


class SessionOpened(Event):
    """The feed says a session once: its hours and its instruments. Frames name the digest of the universe."""

    TOPIC: ClassVar[Topic | str | None] = MARKET_SESSIONS

    event_type: Literal["market.session_opened"] = "market.session_opened"
    broker: Literal["shared"] = "shared"
    session_date: str
    session_open_ns: int
    session_close_ns: int
    universe_digest: str
    instruments: tuple[Instrument, ...]


class MarketGap(Event):
    """The feed missed everything in ``[event_time_ns, until_ns)`` of a partition: nobody has to guess it."""

    event_type: Literal["market.gap"] = "market.gap"
    broker: Literal["shared"] = "shared"
    until_ns: Instant
    reason: str


class StrategyModelAssigned(Event):
    """Control: from ``event_time_ns`` on a strategy runs this version, or none. Restart and replay follow it."""

    TOPIC: ClassVar[Topic | str | None] = STRATEGIES_CONTROL

    event_type: Literal["strategy.model_assigned"] = "strategy.model_assigned"
    broker: Literal["shared"] = "shared"
    strategy: str
    rung: Alias
    model_name: str
    model_version: str | None
    """None: the strategy is disabled from here."""
    feature_schema_hash: str | None
    sidecar_sha256: str | None = None
    """Of the sidecar that was loaded, which names the digests of everything else; a restart compares its own copy."""
    reason: str


class StrategyHistoryUsed(Event):
    """Control: what the features of a task's session stand on. A restart that would stand on other bars is refused."""

    TOPIC: ClassVar[Topic | str | None] = STRATEGIES_CONTROL

    event_type: Literal["strategy.history_used"] = "strategy.history_used"
    broker: Literal["shared"] = "shared"
    session_date: str
    sessions: tuple[str, ...]
    """ISO dates of the sessions before it whose bars were stepped."""
    digest: str
    """SHA-256 over these bars (by instrument token) and the corporate actions."""
    today_until_ns: int
    """End of the last stored bar of the session itself that stood in for one that a gap of the market took; else 0."""
    today_digest: str
    broken: bool
    """No stored bar told what lay in a gap of the market: features began anew behind it, WARMING."""


class SkewDifference(_Frozen):
    """A feature of a row that went out live and is another number when it is computed again from the log."""

    feature: str
    instrument_token: int
    symbol: str
    bar_end_ns: int
    live: float | None
    recomputed: float | None
    live_bits: str
    """The 64 bits, hexadecimal; two numbers may print alike and differ in the last one."""
    recomputed_bits: str


class FeatureSkewMeasured(Event):
    """Rows that went out live were computed again from the recorded market; a single bit that differs is counted."""

    TOPIC: ClassVar[Topic | str | None] = FEATURES_SKEW

    event_type: Literal["feature.skew_measured"] = "feature.skew_measured"
    broker: Literal["shared"] = "shared"
    session_date: str
    partition: int
    rows_equal: int
    rows_different: int
    rows_unverified: int
    """Rows of a schema that this code declares otherwise, so that it cannot compute them."""
    history_digest: str
    differences: tuple[SkewDifference, ...]
    """The first ones."""


class ModelPromoted(Event):
    """A version was promoted. A nudge: the ledger decides, and is polled."""

    TOPIC: ClassVar[Topic | str | None] = MODELS_PROMOTED

    event_type: Literal["model.promoted"] = "model.promoted"
    broker: Literal["shared"] = "shared"
    model_name: str
    model_version: str
    alias: str
    previous_version: str | None
    reason: str
    promoted_by: str


class ModelLoaded(Event):
    """A strategy runner task swapped to a version, effective at ``event_time_ns``."""

    TOPIC: ClassVar[Topic | str | None] = MODELS_LOADED

    event_type: Literal["model.loaded"] = "model.loaded"
    broker: Literal["shared"] = "shared"
    strategy: str
    rung: Alias
    model_name: str
    model_version: str
    feature_schema_hash: str
    artifact_sha256: str
    task: str


class ModelRefused(Event):
    """A strategy runner task would not load a version; the one it ran goes on."""

    TOPIC: ClassVar[Topic | str | None] = MODELS_REFUSED

    event_type: Literal["model.refused"] = "model.refused"
    broker: Literal["shared"] = "shared"
    strategy: str
    rung: Alias
    model_name: str
    model_version: str
    reason: str
    running_version: str | None
    task: str


class Watermark(Event):
    """No record with an earlier event time will follow on this partition. The feed is the only clock."""

    event_type: Literal["watermark"] = "watermark"
    session_date: str
    session_open_ns: int
    session_close_ns: int
    universe_digest: str
    """Of the session, as it was told on ``market.sessions``."""


class DeadLetter(Event):
    """A record that could not be handled, with its bytes and where it stood."""

    event_type: Literal["dead_letter"] = "dead_letter"
    topic: str
    partition: int
    offset: int
    service: str
    failure: str
    key_base64: str | None
    value_base64: str


AnyEvent = Annotated[
    SignalGenerated
    | SignalShadowed
    | SignalValidated
    | SignalRejected
    | OrderSubmitted
    | OrderFilled
    | OrderRejected
    | OrderCancelled
    | PnlSnapshot
    | AccountOpened
    | SessionOpened
    | MarketGap
    | StrategyModelAssigned
    | StrategyHistoryUsed
    | FeatureSkewMeasured
    | ModelPromoted
    | ModelLoaded
    | ModelRefused
    | Watermark
    | DeadLetter,
    Field(discriminator="event_type"),
]
EVENT_CLASSES: Final[tuple[type[Event], ...]] = get_args(get_args(AnyEvent)[0])

_decoder: Final[TypeAdapter[Any]] = TypeAdapter(AnyEvent)


def decode_event(value: bytes) -> Event:
    """Read an event from its JSON.

    Raises
    ------
    pydantic.ValidationError
        If the bytes are no event; names the field.
    """
    event: Event = _decoder.validate_json(value)
    return event


def event_or_none(value: bytes) -> Event | None:
    """Read an event from its JSON, for a person who looks back; None for bytes that are no event."""
    try:
        return decode_event(value)
    except ValidationError:
        return None


def topic_of(event: Event) -> Topic:
    """Give the one topic an event goes to (watermarks, gaps and dead letters go where the runtime or the feed says).

    Raises
    ------
    KeyError
        For an event type without a topic of its own.
    """
    return _topic_of(type(event), event.broker)


@cache
def _topic_of(kind: type[Event], broker: Scope) -> Topic:
    place = kind.TOPIC
    if isinstance(place, Topic):
        return place
    if place is None or broker == "shared":
        raise KeyError(f"{kind.__name__} of {broker!r} has no topic of its own")
    topic: Topic = getattr(broker_topics(broker), place)
    return topic
