"""Watermarks and sessions as they travel: the feed's clock, forwarded from stage to stage."""

from __future__ import annotations

import datetime as dt

from feature_store.market.types import SECOND_NS, Session
from live_services.domain.events import Watermark, event_id
from live_services.domain.topics import Topic


def watermark(topic: Topic, partition: int, session: Session, watermark_ns: int) -> Watermark:
    """Say that no record with an earlier event time will follow on this partition."""
    identity = event_id("watermark", topic.name, partition, watermark_ns)
    return Watermark(
        event_type="watermark",
        broker=topic.scope,
        event_id=identity,
        correlation_id=identity,
        causation_id=identity,
        event_time_ns=watermark_ns,
        session_date=session.date.isoformat(),
        session_open_ns=session.open_ns,
        session_close_ns=session.close_ns,
    )


def session_of(event: Watermark) -> Session:
    """Give the session that a watermark belongs to.

    Raises
    ------
    ValueError
        If its date is no ISO date.
    """
    return Session(dt.date.fromisoformat(event.session_date), event.session_open_ns, event.session_close_ns)


def session_end_ns(session: Session) -> int:
    """Give the watermark that ends a session: one second after its close."""
    return session.close_ns + SECOND_NS
