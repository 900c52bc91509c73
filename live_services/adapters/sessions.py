"""What the feed has told of its sessions: the topic ``market.sessions``, read once and then from where it ended."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from typing import Final

import structlog
from pydantic import ValidationError

from feature_store.market.types import Instrument, MarketDataError, Universe
from live_services.adapters.kafka import StoredRecord, read_topic
from live_services.domain.clock import session_of
from live_services.domain.events import FeedStarted, SessionOpened, decode_event
from live_services.domain.frames import Headers, universe_digest_of
from live_services.domain.sequence import stamp_of
from live_services.domain.topics import MARKET_SESSIONS
from live_services.settings import KafkaSettings

_log = structlog.get_logger("market_data")

_UNIVERSES: Final = 4
"""Universes with their arrays; a process that lives for weeks needs those of the session before and of this one."""


class MarketSessions:
    """The sessions that were told, and what their universes are.

    Instruments that are the same in several sessions are held once, so a session more costs next to nothing.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._next_offset = 0
        self._instruments: dict[int, Instrument] = {}
        self._lists: dict[str, tuple[Instrument, ...]] = {}
        self._universes: dict[str, Universe] = {}
        self._one_at_a_time = threading.Lock()  # a task is restored in a thread while others receive
        self.opened: Final[dict[int, SessionOpened]] = {}
        """What was told of each session, by its open; the first word stands."""
        self.feed: FeedStarted | None = None
        """The feed that said last who it is."""
        self._number = -1
        """Of the last record that a feed said under its fence."""

    async def refresh(self) -> None:
        """Read what was told since the last call.

        Raises
        ------
        live_services.adapters.kafka.KafkaSetupError
            If the topic does not exist.
        """
        async for record in read_topic(self._kafka, MARKET_SESSIONS.name, first_offset=self._next_offset):
            self.take(record)

    def learner(self) -> Callable[[Headers], Awaitable[None]]:
        """Give what reads, for records that were just fetched, what was told since, before each of them is taken.

        It reads once at most, if the headers of one name a session or a universe not known here: a session is told
        before its first record, so what is not there then nobody told, and a thousand such records cost no more.
        """
        is_fresh = False

        async def learn(headers: Headers) -> None:
            nonlocal is_fresh
            if not is_fresh and self._is_news(headers):
                await self.refresh()
                is_fresh = True

        return learn

    def _is_news(self, headers: Headers) -> bool:
        digest, open_ns = universe_digest_of(headers), _open_of(headers)
        new_universe = bool(digest) and self.universe(digest) is None
        return new_universe or (open_ns is not None and open_ns not in self.opened)

    def take(self, record: StoredRecord) -> None:
        """Take one record of the topic; one that tells no session is logged and left out."""
        self._next_offset = record.offset + 1
        try:
            event = decode_event(record.value)
            if not isinstance(event, FeedStarted | SessionOpened):
                raise ValueError(f"{event.event_type} does not belong here")  # noqa: TRY004 - a record, not our code
            self._number = self._number_of(record, event)
            if isinstance(event, FeedStarted):
                self.feed = event
                return
            session_of(event)
            told = self._told_by(event)
        except (ValueError, MarketDataError) as failure:  # NoEvent is one, and the ValidationError of a universe
            reason = f"{failure.error_count()} fields are wrong" if isinstance(failure, ValidationError) else failure
            _log.warning("not_a_session", topic=record.topic, offset=record.offset, failure=str(reason))
            return
        before = self.opened.setdefault(event.session_open_ns, event.model_copy(update={"instruments": told}))
        if before.universe_digest != event.universe_digest:
            _log.warning("session_told_twice", session=event.session_date, offset=record.offset)

    @property
    def next_number(self) -> int:
        """Number of what a feed tells next."""
        return self._number + 1

    def _number_of(self, record: StoredRecord, event: FeedStarted | SessionOpened) -> int:
        """Give the number with which a record counts.

        Raises
        ------
        ValueError
            If no feed wrote it. A session may be put by hand on a log that no feed writes.
        """
        stamp = stamp_of(record.headers)
        if stamp is not None and stamp.source == MARKET_SESSIONS.writer and stamp.number > self._number:
            return stamp.number
        if stamp is None and self._number < 0 and isinstance(event, SessionOpened):
            return -1
        raise ValueError(f"{event.event_type} without the next number of the feed: somebody else wrote it")

    def universe(self, digest: str) -> Universe | None:
        """Give the universe with this digest, or None if no session was told with it."""
        with self._one_at_a_time:
            universe = self._universes.get(digest)
            if universe is None and digest in self._lists:
                universe = Universe.model_construct(instruments=self._lists[digest])
                self._universes[digest] = universe
                while len(self._universes) > _UNIVERSES:
                    del self._universes[next(iter(self._universes))]
            return universe

    def session(self, open_ns: int) -> SessionOpened | None:
        """Give what was told of the session with this open, or None."""
        return self.opened.get(open_ns)

    def newest(self) -> SessionOpened | None:
        """Give the latest session that was told, or None."""
        return self.opened[max(self.opened)] if self.opened else None

    def _told_by(self, event: SessionOpened) -> tuple[Instrument, ...]:
        digest = event.universe_digest
        if digest in self._lists:
            return self._lists[digest]
        if Universe(instruments=event.instruments).digest != digest:
            raise ValueError(f"its instruments do not have the digest {digest[:12]} that it names")
        held = self._instruments
        alike = [(one, held.setdefault(one.instrument_token, one)) for one in event.instruments]
        told = tuple(known if known == one else one for one, known in alike)
        self._lists[digest] = told
        return told


def _open_of(headers: Headers) -> int | None:
    """Give the open of the session that a record of the market names in its headers."""
    stamp = stamp_of(headers)
    if stamp is not None:
        return stamp.session_open_ns
    said = next((value for name, value in headers if name == "session_open_ns"), b"")
    return int(said) if said.isdigit() and len(said) < 20 else None
