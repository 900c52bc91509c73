"""Any event from and to its bytes, and the topic that it goes to."""

from __future__ import annotations

from functools import cache
from typing import Annotated, Any, Final, get_args

from pydantic import Field, TypeAdapter, ValidationError

from live_services.domain.events.account import AccountOpened, PnlSnapshot, TradingSwitched
from live_services.domain.events.day import (
    AccountDifferenceAccepted,
    StrategiesConfigured,
    StrategiesDifferenceAccepted,
)
from live_services.domain.events.envelope import Event
from live_services.domain.events.market import FeedStarted, MarketGap, SessionOpened, Watermark
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
    | StrategiesConfigured
    | StrategiesDifferenceAccepted
    | AccountDifferenceAccepted
    | SessionOpened
    | FeedStarted
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

_LONGEST_QUOTE: Final = 80  # of what a stranger wrote
_decoder: Final[TypeAdapter[Any]] = TypeAdapter(AnyEvent)


class NoEvent(ValueError):
    """Bytes that are no event of this version; the message says why, in a line."""


def decode_event(value: bytes) -> Event:
    """Read an event from its JSON.

    Raises
    ------
    NoEvent
        If the bytes are no event; names the type or the field.
    """
    try:
        event: Event = _decoder.validate_json(value)
    except ValidationError as problem:
        raise NoEvent(_in_words(problem)) from None
    return event


def _in_words(problem: ValidationError) -> str:
    """Say the first thing that is wrong; pydantic's own words name every type of event there is."""
    first, more = problem.errors(include_url=False)[0], problem.error_count() - 1
    if first["type"] == "union_tag_not_found":
        return "it has no event_type"
    if first["type"] == "union_tag_invalid":
        return f"there is no event_type {str(first['ctx']['tag'])[:_LONGEST_QUOTE]!r}"
    field = ".".join(map(str, first["loc"]))[:_LONGEST_QUOTE] or "the whole"
    field = field if field.isprintable() else ascii(field)
    said = first["msg"] if first["type"] == "json_invalid" else f"{field}: {first['msg']}"
    return said + (f", and {more} more" if more else "")


def event_or_none(value: bytes) -> Event | None:
    """Read an event from its JSON, for a person who looks back; None for bytes that are no event."""
    try:
        return decode_event(value)
    except NoEvent:
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
