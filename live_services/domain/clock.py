"""Watermarks, sessions and gaps as they travel: the feed's clock, forwarded from stage to stage."""

from __future__ import annotations

import datetime as dt
from typing import Final

from feature_store.market.types import DAY_NS, SECOND_NS, Session, Universe, day_of_date, ist_day
from live_services.domain.events import LAST_NS, MarketGap, SessionOpened, Watermark, self_caused
from live_services.domain.topics import Topic

NEVER_NS: Final = 2**63 - 1
"""The instant of what is not due: later than any time that a record may have."""


def watermark(topic: Topic, partition: int, session: Session, watermark_ns: int, universe_digest: str) -> Watermark:
    """Say that no record with an earlier event time will follow on this partition.

    Parameters
    ----------
    universe_digest
        Of the session's universe, as it was told on ``market.sessions``.
    """
    return Watermark(
        **self_caused("watermark", topic.name, partition, watermark_ns),
        event_type="watermark",
        broker=topic.scope,
        event_time_ns=watermark_ns,
        session_date=session.date.isoformat(),
        session_open_ns=session.open_ns,
        session_close_ns=session.close_ns,
        universe_digest=universe_digest,
    )


def session_opened(session: Session, universe: Universe, feed: str = "") -> SessionOpened:
    """Say a session: its hours, its instruments, and who stamps its records (empty: nobody does)."""
    return SessionOpened(
        **self_caused("session", session.date.isoformat(), universe.digest),
        event_time_ns=session.open_ns,
        session_date=session.date.isoformat(),
        session_open_ns=session.open_ns,
        session_close_ns=session.close_ns,
        universe_digest=universe.digest,
        instruments=universe.instruments,
        feed=feed,
    )


def market_gap(topic: Topic, partition: int, begin_ns: int, until_ns: int, reason: str) -> MarketGap:
    """Say that an ingress missed everything in ``[begin_ns, until_ns)`` of a partition."""
    identity = self_caused("gap", topic.name, partition, begin_ns, until_ns)
    return MarketGap(**identity, broker=topic.scope, event_time_ns=begin_ns, until_ns=until_ns, reason=reason)


def read_session(date: str, open_ns: int, close_ns: int) -> Session:
    """Give the session that a record names.

    Raises
    ------
    ValueError
        If there can be none: no ISO date, another day than its open, no time between open and close, or a time that
        no clock will reach.
    """
    session = Session(dt.date.fromisoformat(date), open_ns, close_ns)
    if not 0 <= open_ns < close_ns <= min(open_ns + DAY_NS, LAST_NS):
        raise ValueError(f"session_open_ns {open_ns} and session_close_ns {close_ns} are no session's hours")
    if ist_day(open_ns) != day_of_date(session.date):
        raise ValueError(f"session_open_ns {open_ns} is on another day than session_date {date}")
    return session


def session_of(event: Watermark | SessionOpened) -> Session:
    """Give the session that a watermark, or the feed's word of a session, belongs to.

    Raises
    ------
    ValueError
        If there can be no such session, or a watermark lies outside it: a stage may promise as much as one second past
        the session's end.
    """
    session = read_session(event.session_date, event.session_open_ns, event.session_close_ns)
    if not session.open_ns <= event.event_time_ns <= session_end_ns(session) + SECOND_NS:
        raise ValueError(f"{event.event_type} at {event.event_time_ns} lies outside the session of {session.date}")
    return session


def session_end_ns(session: Session) -> int:
    """Give the watermark that ends a session: one second after its close."""
    return session.close_ns + SECOND_NS
