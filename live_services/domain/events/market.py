"""Sessions, watermarks and gaps; ticks and bars travel in frames."""

from __future__ import annotations

import hashlib
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
    feed: str = ""
    """Who stamps its records (`FeedStarted.source`); empty for a session put on a log by hand: nothing is stamped."""


class FeedStarted(Event):
    """A feed says who it is and what it plays, before its first record: whoever comes later reads it and is told."""

    TOPIC: ClassVar[Topic | str | None] = MARKET_SESSIONS

    event_type: Literal["market.feed_started"] = "market.feed_started"
    broker: Literal["shared"] = "shared"
    name: str
    """``market.feed_name``, by default of the host."""
    home: str
    store: str
    """Where its sessions come from."""
    feed: Literal["ticks", "bars"]
    frame_ms: int
    """Event time in one frame of ticks."""
    partitions: int
    plays: str
    """The range of sessions, as it was configured."""
    last_session: str
    """Date of the last session of that range; empty for a feed that follows: it never ends by itself."""
    market: str = ""
    """Which market the store holds, by its own name; a generated one is SYNTHETIC."""
    calendar: str = ""
    """Which exchange's sessions these are, in words, and for which dates they are verified."""
    took_over: str = ""
    """`event_id` of the feed whose session a person let this one go on with; empty if there was none."""

    @property
    def source(self) -> str:
        """What its records are stamped with: who it is and how it cuts, in 16 hexadecimal digits."""
        said = (self.name, self.home, self.store, self.feed, self.frame_ms, self.partitions)
        return hashlib.sha256(repr(said).encode()).hexdigest()[:16]


class MarketGap(Event):
    """An ingress missed everything in ``[event_time_ns, until_ns)`` of a partition: nobody has to guess it."""

    event_type: Literal["market.gap"] = "market.gap"
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
