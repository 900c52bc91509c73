"""Sessions, watermarks and gaps; ticks and bars travel in frames."""

from __future__ import annotations

from typing import ClassVar, Literal

from feature_store.market.types import Instrument
from live_services.domain.events.envelope import Event, Instant
from live_services.domain.topics import MARKET_SESSIONS, Topic


class SessionOpened(Event):
    """The feed says a session once: its hours and its instruments. Frames name the digest of the universe."""

    TOPIC: ClassVar[Topic | str | None] = MARKET_SESSIONS

    event_type: Literal["market.session_opened"] = "market.session_opened"
    broker: Literal["shared"] = "shared"
    session_date: str
    session_open_ns: Instant
    session_close_ns: Instant
    universe_digest: str
    instruments: tuple[Instrument, ...]


class MarketGap(Event):
    """The feed missed everything in ``[event_time_ns, until_ns)`` of a partition: nobody has to guess it."""

    event_type: Literal["market.gap"] = "market.gap"
    broker: Literal["shared"] = "shared"
    until_ns: Instant
    reason: str


class Watermark(Event):
    """No record with an earlier event time will follow on this partition. The feed is the only clock."""

    event_type: Literal["watermark"] = "watermark"
    session_date: str
    session_open_ns: Instant
    session_close_ns: Instant
    universe_digest: str
    """Of the session, as it was told on ``market.sessions``."""
