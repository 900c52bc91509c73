"""The reception of a task: what is fetched is decoded, checked and queued; what cannot be used is a dead letter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Final

from feature_store.market.types import Session, Universe
from live_services.adapters.spans import TaskSpans
from live_services.domain.clock import session_end_ns, session_of
from live_services.domain.events import DeadLetter, Event, NoEvent, SessionOpened, Watermark, decode_event
from live_services.domain.frame_rows import BadFrame
from live_services.domain.frames import FRAME_TOPICS, decode_frame, session_of_frame, universe_digest_of
from live_services.domain.log import EventRecord, LogPosition
from live_services.domain.partitions import own_rows
from live_services.domain.sequence import stamp_of
from live_services.domain.topics import Topic
from live_services.runtime.chain import WrongTopic, check_place
from live_services.runtime.letters import Letters
from live_services.runtime.merge import Foreign, LateRows, Merge, OutsideSession
from live_services.runtime.received import Received

Universes = Callable[[str], Universe | None]
"""Gives the universe of a digest, as ``market.sessions`` told it; None for one that nobody told."""
Told = Callable[[int], SessionOpened | None]
"""Gives what ``market.sessions`` told of the session with an open; None for one that nobody told."""


class Reception:
    """What stands before a task's merge.

    Parameters
    ----------
    merge, letters
        The task's.
    topics : mapping of str to Topic
        What it reads and writes, by name.
    universes
        What the digests on the market's records mean.
    told
        What was told of sessions. None: the first record of a session is believed.
    spans
        Who hears of what came.
    woven_partitions : int
        How many market partitions this one task reads and weaves; the context in a frame of each is another's own.
    """

    def __init__(
        self,
        merge: Merge,
        letters: Letters,
        topics: Mapping[str, Topic],
        universes: Universes,
        *,
        told: Told | None,
        spans: TaskSpans,
        woven_partitions: int = 1,
    ) -> None:
        self._merge: Final = merge
        self._letters: Final = letters
        self._topics: Final = topics
        self._universes: Final = universes
        self._told: Final = told
        self._spans: Final = spans
        self._woven_partitions: Final = woven_partitions
        self._digests: Final[dict[int, str]] = {}
        """Of universes, by the open of their session."""

    def receive(self, record: Received) -> None:
        """Decode and check one record and queue it; one that cannot be used becomes a dead letter in its place."""
        try:
            self._push(record)
        except Exception as failure:  # whatever a decoder met: a stranger's bytes end no process
            self._refuse(record, self._letters.of_record(record, failure, self._reached_ns(record)))

    def digest_of(self, session: Session) -> str:
        """Give the digest of the universe that a session was told with; it was received."""
        return self._digests[session.open_ns]

    def universe_of(self, session: Session) -> Universe | None:
        """Give the universe of a session that was received; None if it is gone from ``market.sessions``."""
        return self._universes(self.digest_of(session))

    def know(self, session: Session, digest: str) -> None:
        """Take note of a session and its universe.

        Raises
        ------
        BadFrame
            If the universe was never told, or the session has another one, or other hours.
        """
        if self._universes(digest) is None:
            raise BadFrame(f"the universe {digest[:12]!r} of the session of {session.date} was never told")
        if self._told is not None:
            told = self._told(session.open_ns)
            if told is None or session_of(told) != session:
                raise BadFrame(f"the session of {session.date} was never told with these hours on market.sessions")
            self._digests[session.open_ns] = told.universe_digest
        known = self._digests.setdefault(session.open_ns, digest)
        if known != digest:
            raise BadFrame(f"the universe {digest[:12]} is not that of the session of {session.date}, {known[:12]}")

    def _push(self, record: Received) -> None:
        topic, where = self._topics[record.topic], (record.topic, record.partition, record.offset)
        headers = dict(record.headers)
        broker = headers.get("broker", topic.scope.encode()).decode(errors="replace")
        if broker != topic.scope:
            raise WrongTopic(f"header broker {broker!r} on {topic.name}, which is {topic.scope}'s")
        event_type = headers.get("event_type", b"").decode(errors="replace")
        if event_type in FRAME_TOPICS:
            if FRAME_TOPICS[event_type] != topic:
                raise WrongTopic(f"{event_type} on {topic.name}; it belongs on {FRAME_TOPICS[event_type].name}")
            self._push_frame(record)
            return
        try:
            event = decode_event(record.value, record.headers)
            check_place(event, topic)
        except (NoEvent, WrongTopic):
            with suppress(Foreign):  # its number is taken whether it can be read or not, if it is its writer's
                self._admit(record)
            raise
        if isinstance(event, Watermark):
            session = session_of(event)
            self.know(session, event.universe_digest)
            self._admit(record, session, event.event_time_ns)
            self._spans.came(record.headers, event)
            self._merge.push_watermark(*where, event.event_time_ns, session)
        else:
            self._admit(record)
            self._spans.came(record.headers, event)
            self._require_session(record, event)
            self._merge.push_event(*where, EventRecord(event, LogPosition(*where)))

    def _require_session(self, record: Received, event: Event) -> None:
        """Refuse what would wait for a watermark that its session has not; a session is told before its first event."""
        session = self._merge.newest_session(record.topic, record.partition)
        if session is None:
            raise OutsideSession("no session was told on its partition before it")
        if event.event_time_ns >= session_end_ns(session):
            raise OutsideSession(f"event time {event.event_time_ns} is after the end of the session of {session.date}")

    def _push_frame(self, record: Received) -> None:
        where, digest = (record.topic, record.partition, record.offset), universe_digest_of(record.headers)
        universe = self._universes(digest)
        if universe is None:
            raise BadFrame(f"its universe {digest[:12]} was never told on market.sessions")
        session, says_ns = session_of_frame(record.headers)
        self.know(session, digest)
        self._admit(record, session, says_ns)  # its number is taken whether its body can be read or not
        frame = decode_frame(record.value, record.headers, universe)
        self._spans.came(record.headers)
        if self._woven_partitions > 1:
            frame = replace(frame, table=own_rows(frame.table, universe, record.partition, self._woven_partitions))
        reached_ns, rows = self._reached_ns(record), len(frame.times_ns)
        late = self._merge.push_frame(*where, frame)
        if late:
            lost = LateRows(late, rows, int(frame.times_ns[0]), reached_ns)
            self._refuse(record, self._letters.of_record(record, lost, self._reached_ns(record)))
        if late is not None and frame.refused:
            told = f"{frame.refused_rows} rows left out: {'; '.join(map(str, frame.refused))}"
            self._refuse(record, self._letters.of_rows(record, told, self._reached_ns(record)))

    def _admit(self, record: Received, session: Session | None = None, says_ns: int = -1) -> None:
        """Hold a record against the numbering of who writes its partition; an event names its session in its stamp."""
        topic, where = self._topics[record.topic], (record.topic, record.partition)
        if not topic.is_numbered:
            return
        stamp = stamp_of(record.headers)
        if session is None and stamp is not None and self._told is not None:
            stamped = self._told(stamp.session_open_ns)
            session = None if stamped is None else session_of(stamped)
        session = session or self._merge.newest_session(*where)
        if session is None:
            raise Foreign("no session was begun on this partition, and it names none")
        told = None if self._told is None else self._told(session.open_ns)
        source = topic.writer or (None if told is None else told.feed)
        self._merge.admit(*where, record.offset, stamp=stamp, session=session, source=source, says_ns=says_ns)

    def _refuse(self, record: Received, letter: DeadLetter) -> None:
        """Queue the dead letter of what cannot be used of a record, in its place."""
        self._merge.push_refused(record.topic, record.partition, record.offset, letter)

    def _reached_ns(self, record: Received) -> int:
        return max(0, self._merge.watermark_ns(record.topic, record.partition))
