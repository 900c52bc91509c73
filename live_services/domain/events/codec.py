"""Any event from and to its bytes, and the topic that it goes to."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Final, get_args

from pydantic import Field, TypeAdapter, ValidationError

from live_services.domain.events.account import AccountOpened, PnlSnapshot, TradingSwitched
from live_services.domain.events.envelope import Event
from live_services.domain.events.market import MarketGap, SessionOpened, Watermark
from live_services.domain.events.operations import (
    CommandRefused,
    DeadLetter,
    DeadLetterDecided,
    RecordHandedIn,
    RecordTaken,
    StrategiesStopped,
    TradingStateChanged,
    TradingStateCommanded,
)
from live_services.domain.events.orders import (
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    OrderSubmitted,
    SignalGenerated,
    SignalRejected,
    SignalValidated,
)
from live_services.domain.events.strategy import (
    FeatureSkewMeasured,
    ModelLoaded,
    ModelPromoted,
    ModelRefused,
    SignalShadowed,
    StrategiesSummarized,
    StrategyHistoryUsed,
    StrategyModelAssigned,
)
from live_services.domain.topics import Scope, Topic, broker_topics

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
    | TradingSwitched
    | TradingStateCommanded
    | TradingStateChanged
    | RecordHandedIn
    | RecordTaken
    | CommandRefused
    | StrategiesStopped
    | SessionOpened
    | MarketGap
    | StrategyModelAssigned
    | StrategyHistoryUsed
    | StrategiesSummarized
    | FeatureSkewMeasured
    | ModelPromoted
    | ModelLoaded
    | ModelRefused
    | Watermark
    | DeadLetter
    | DeadLetterDecided,
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
