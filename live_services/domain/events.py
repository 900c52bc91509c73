"""What travels on the topics, as frozen values. Each event names its type, its broker and what caused it.

Ticks and bars travel in frames (``live_services/domain/frames.py``); everything rare is one of these.
"""

from __future__ import annotations

import uuid
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from live_services.domain.topics import (
    MODELS_LOADED,
    MODELS_PROMOTED,
    MODELS_REFUSED,
    Broker,
    Scope,
    Topic,
    broker_topics,
)

Side = Literal["BUY", "SELL"]
Intent = Literal["open", "close"]
FillModel = Literal["next_tick", "next_bar_open"]

_NAMESPACE: Final = uuid.UUID("6f2d1c52-8a5e-5e0a-9a52-0d4f2a1f6c11")


def event_id(*identity: str | int) -> str:
    """Derive a stable id (UUIDv5) from what identifies an event; never from an offset, a batch or a model version."""
    return str(uuid.uuid5(_NAMESPACE, "|".join(str(part) for part in identity)))


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=(), allow_inf_nan=False)


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
    schema_version: Literal[1] = 1


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

    start_ns: int
    end_ns: int
    open: float
    high: float
    low: float
    close: float
    volume: int
    tick_count: int


class _OnInstrument(ModelStamped):
    strategy: str
    instrument_token: int
    symbol: str
    side: Side
    intent: Intent
    quantity: int = Field(gt=0)


class SignalGenerated(_OnInstrument):
    """A strategy wants a position changed. ``event_time_ns`` is the decision time: the end of its bar."""

    event_type: Literal["signal.generated"] = "signal.generated"
    score: float
    threshold: float
    reference_price: float = Field(gt=0)
    """Close of the bar, rupees."""
    bar: BarValues
    features: dict[str, float | None]
    """The feature row, in schema order; None where a feature has no value (NaN)."""


class SignalValidated(_OnInstrument):
    """Risk accepted a signal; ``quantity`` is what may be ordered (a close is capped at the position)."""

    event_type: Literal["signal.validated"] = "signal.validated"
    signal_id: str
    reference_price: float = Field(gt=0)
    rules: tuple[str, ...]
    """The rules that were asked, in order."""


class SignalRejected(_OnInstrument):
    """Risk refused a signal; names the rule, its limit and what it saw."""

    event_type: Literal["signal.rejected"] = "signal.rejected"
    signal_id: str
    rule: str
    limit: str
    observed: str


class _OnOrder(_OnInstrument):
    signal_id: str
    order_id: str


class OrderSubmitted(_OnOrder):
    """An order was accepted for execution; it can fill strictly later than ``event_time_ns``."""

    event_type: Literal["order.submitted"] = "order.submitted"
    reference_price: float = Field(gt=0)


class OrderFilled(_OnOrder):
    """An order filled whole."""

    event_type: Literal["order.filled"] = "order.filled"
    price: float = Field(gt=0)
    price_time_ns: int
    """When the price was made: the tick's time, or the start of the bar whose open it is."""
    costs_inr: float = Field(ge=0)
    fill_model: FillModel


class OrderRejected(_OnOrder):
    """Execution refused an order."""

    event_type: Literal["order.rejected"] = "order.rejected"
    reason: str


class OrderCancelled(_OnOrder):
    """An order ended unfilled."""

    event_type: Literal["order.cancelled"] = "order.cancelled"
    reason: str


class PositionMark(_Frozen):
    """One instrument of a snapshot; rupees, quantity signed."""

    instrument_token: int
    symbol: str
    quantity: int
    average_price: float
    mark_price: float
    realized_pnl_inr: float
    """Before costs."""
    unrealized_pnl_inr: float
    costs_inr: float


class PnlSnapshot(Event):
    """The portfolio at a whole second: every fill with an earlier event time is in it, and no later one."""

    event_type: Literal["pnl.snapshot"] = "pnl.snapshot"
    broker: Broker
    positions: tuple[PositionMark, ...]
    realized_pnl_inr: float
    unrealized_pnl_inr: float
    costs_inr: float
    net_pnl_inr: float
    """Realized + unrealized - costs."""
    fills: int
    """Fills since the session's open."""
    settled_signal_ids: tuple[str, ...]
    """Signals whose orders ended (filled, rejected, cancelled) since the snapshot before."""


class StrategyModelAssigned(Event):
    """Control: from ``event_time_ns`` on a strategy runs this version, or none. Restart and replay follow it."""

    event_type: Literal["strategy.model_assigned"] = "strategy.model_assigned"
    broker: Broker
    strategy: str
    model_name: str
    model_version: str | None
    """None: the strategy is disabled from here."""
    feature_schema_hash: str | None
    reason: str


class StrategyHistoryUsed(Event):
    """Control: what the features of a task's session stand on. A restart that would stand on other bars is refused."""

    event_type: Literal["strategy.history_used"] = "strategy.history_used"
    broker: Broker
    session_date: str
    sessions: tuple[str, ...]
    """ISO dates of the sessions before it whose bars were stepped."""
    digest: str
    """SHA-256 over these bars (by instrument token) and the corporate actions."""
    today_until_ns: int
    """End of the last stored bar of the session itself that was stepped (a start in its middle); 0 without any."""
    today_digest: str
    broken: bool
    """The session was joined in its middle without its bars before that: features begin anew, WARMING."""


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

    event_type: Literal["feature.skew_measured"] = "feature.skew_measured"
    broker: Broker
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
    """An alias was moved. A nudge: the alias is the truth."""

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

    event_type: Literal["model.loaded"] = "model.loaded"
    broker: Broker
    strategy: str
    model_name: str
    model_version: str
    alias: str
    feature_schema_hash: str
    artifact_sha256: str
    task: str


class ModelRefused(Event):
    """A strategy runner task would not load a version; the one it ran goes on."""

    event_type: Literal["model.refused"] = "model.refused"
    broker: Broker
    strategy: str
    model_name: str
    model_version: str
    alias: str
    reason: str
    running_version: str | None
    task: str


class Watermark(Event):
    """No record with an earlier event time will follow on this partition. The feed is the only clock."""

    event_type: Literal["watermark"] = "watermark"
    session_date: str
    session_open_ns: int
    session_close_ns: int


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
    | SignalValidated
    | SignalRejected
    | OrderSubmitted
    | OrderFilled
    | OrderRejected
    | OrderCancelled
    | PnlSnapshot
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


_BROKER_TOPIC_FIELD: Final[dict[str, str]] = {
    "signal.generated": "signals_raw",
    "signal.validated": "signals_validated",
    "signal.rejected": "signals_rejected",
    "order.submitted": "orders_submitted",
    "order.filled": "orders_filled",
    "order.rejected": "orders_rejected",
    "order.cancelled": "orders_cancelled",
    "pnl.snapshot": "pnl_snapshots",
    "strategy.model_assigned": "control",
    "strategy.history_used": "control",
    "feature.skew_measured": "feature_skew",
}
_SHARED_TOPIC: Final[dict[str, Topic]] = {
    "model.promoted": MODELS_PROMOTED,
    "model.loaded": MODELS_LOADED,
    "model.refused": MODELS_REFUSED,
}


def topic_of(event: Event) -> Topic:
    """Give the one topic an event goes to (watermarks and dead letters go where the runtime says).

    Raises
    ------
    KeyError
        For an event type without a topic of its own.
    """
    if event.event_type in _SHARED_TOPIC:
        return _SHARED_TOPIC[event.event_type]
    if event.broker == "shared":
        raise KeyError(f"{event.event_type} needs a broker, not 'shared'")
    topic: Topic = getattr(broker_topics(event.broker), _BROKER_TOPIC_FIELD[event.event_type])
    return topic
