"""Any event from and to its bytes, and the topic that it goes to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Final, get_args

from pydantic import Field, TypeAdapter, ValidationError

from live_services.domain.events.account import AccountOpened, PnlSnapshot, TradingSwitched
from live_services.domain.events.day import (
    AccountDifferenceAccepted,
    DifferenceAccepted,
    StrategiesConfigured,
    StrategiesDifferenceAccepted,
)
from live_services.domain.events.envelope import TASK_HEADER, Event
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
    | DeadLetter
    | DeadLetterDecided,
    Field(discriminator="event_type"),
]
"""What travels as JSON: every event but the watermark, which is headers without a value."""
EVENT_CLASSES: Final[tuple[type[Event], ...]] = (*get_args(get_args(AnyEvent)[0]), Watermark)
_Headers = Sequence[tuple[str, bytes]]

_WATERMARK: Final[bytes] = Watermark.model_fields["event_type"].default.encode()
_ALWAYS_SAID: Final = ("event_type", "schema_version")
_OWN_IDS: Final = ("correlation_id", "causation_id")
"""Left out where they are the event's own id, as they are of whatever nothing caused."""
_LONGEST_QUOTE: Final = 80  # of what a stranger wrote
_decoder: Final[TypeAdapter[Any]] = TypeAdapter(AnyEvent)


class NoEvent(ValueError):
    """Bytes that are no event of this version; the message says why, in a line."""


def headers_of(event: Event) -> list[tuple[str, bytes]]:
    """Give an event's headers: of a watermark all that it says, of others what they are; a letter says that it is one.

    A field of a watermark that is as the class has it by default is left out.
    """
    if isinstance(event, Watermark):
        return _watermark_headers(event)
    headers = [
        ("event_type", event.event_type.encode()),
        ("broker", event.broker.encode()),
        ("schema_version", str(event.schema_version).encode()),
        ("event_time_ns", str(event.event_time_ns).encode()),
    ]
    if isinstance(event, DeadLetter):
        headers.append(("dlq", b"true"))
    if isinstance(event, DifferenceAccepted):  # it stands among the task's own control records
        headers.append((TASK_HEADER, event.task.encode()))
    return headers


def value_of(event: Event) -> bytes:
    """Give the bytes of an event: its JSON; none of a watermark."""
    return b"" if isinstance(event, Watermark) else event.model_dump_json().encode()


def decode_event(value: bytes, headers: _Headers = ()) -> Event:
    """Read an event from its JSON, or a watermark from its headers.

    Parameters
    ----------
    value, headers
        As :func:`value_of` and :func:`headers_of` gave them. Headers may be left out where no watermark travels.

    Raises
    ------
    NoEvent
        If they are no event; names the type or the field.
    """
    said = dict(headers)
    if said.get("event_type") == _WATERMARK:
        return _watermark_of(value, said)
    try:
        event: Event = _decoder.validate_json(value)
    except ValidationError as problem:
        raise NoEvent(_in_words(problem)) from None
    return event


def _watermark_headers(event: Watermark) -> list[tuple[str, bytes]]:
    defaults, own = _defaults_of_watermark(), event.event_id
    return [
        (name, str(content).encode())
        for name, content in event
        if not (name in defaults and content == defaults[name]) and not (name in _OWN_IDS and content == own)
    ]


def _watermark_of(value: bytes, said: Mapping[str, bytes]) -> Watermark:
    if value:
        raise NoEvent(f"a watermark has no value, and this one has {len(value)} bytes: it is said in the headers")
    fields = {name: said[name].decode(errors="replace") for name in Watermark.model_fields if name in said}
    own, version = dict.fromkeys(_OWN_IDS, fields.get("event_id", "")), fields.get("schema_version", "")
    # pydantic reads numbers from words, but not those of a Literal
    known = {"schema_version": int(version) if version.isdecimal() and len(version) == 1 else version}
    try:
        return Watermark.model_validate(own | fields | known)
    except ValidationError as problem:
        raise NoEvent(_in_words(problem)) from None


@cache
def _defaults_of_watermark() -> dict[str, Any]:
    fields = Watermark.model_fields.items()
    return {name: field.default for name, field in fields if not field.is_required() and name not in _ALWAYS_SAID}


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


def event_or_none(value: bytes, headers: _Headers = ()) -> Event | None:
    """Read an event as `decode_event` does, for a person who looks back; None for what is no event."""
    try:
        return decode_event(value, headers)
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
