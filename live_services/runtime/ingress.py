"""The one way in for what lies outside the log: the market's feed today, a broker's gateway tomorrow.

An ingress owns a topic. It fences whoever wrote there before, numbers its records in each partition, dates them so that
nothing is earlier than what it promised, tells what it missed, and says how far it is. Its readers hold each record
against that numbering (`live_services.domain.sequence`) and believe nobody else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Final, Protocol

from aiokafka.errors import InvalidProducerEpoch, KafkaError, ProducerFenced, UnknownError

from feature_store.market.types import Bars, Session, Ticks, Universe, ist_text
from live_services.adapters.feed_producer import FeedProducer
from live_services.adapters.market_log import log_ends
from live_services.adapters.sessions import MarketSessions
from live_services.domain.clock import market_gap, session_end_ns, session_of, watermark
from live_services.domain.events import Event, SessionOpened
from live_services.domain.frames import EncodedFrame, encode_bar_frame, encode_tick_frame
from live_services.domain.log import event_times
from live_services.domain.sequence import LogEnd, Stamp
from live_services.domain.topics import MARKET_SESSIONS, Topic
from live_services.settings import KafkaSettings


class IngressTakenOver(Exception):
    """Another writer of the same topic was started."""


class SessionUnderWay(Exception):
    """A session is to begin on a partition on which the one before has not ended."""


class IngressWriter(Protocol):
    """Where an ingress speaks; `live_services.adapters.feed_producer.FeedProducer` has it."""

    def say(self, event: Event, stamp: Stamp | None = None) -> None:
        """Say an event on the one topic it belongs to."""
        ...

    def say_on(self, topic: Topic, partition: int, event: Event, stamp: Stamp | None = None) -> None:
        """Say an event on a partition."""
        ...

    def say_frame(self, topic: Topic, partition: int, frame: EncodedFrame, stamp: Stamp | None = None) -> None:
        """Say a frame of the market."""
        ...

    async def flush(self) -> None:
        """Wait until everything that was said is on the log, in that order in each partition."""
        ...


class Ingress:
    """The writer's side of one topic.

    Parameters
    ----------
    topic : Topic
    writer : IngressWriter
        Nobody else speaks there.
    ends : mapping of int to LogEnd
        What each partition ends with; absent for one on which nothing was said.
    partitions : int
        How many the topic has.
    told : int
        How many records were told on the topic of sessions.
    """

    def __init__(
        self, topic: Topic, writer: IngressWriter, ends: Mapping[int, LogEnd], partitions: int = 1, told: int = 0
    ) -> None:
        self.topic: Final = topic
        self._writer: Final = writer
        self._ends: Final = [ends.get(partition, LogEnd()) for partition in range(partitions)]
        self._told = told
        self._session: Session | None = None
        self._held: list[tuple[int, Event]] = []
        """What came behind a session's end, by partition."""
        self._source = self._digest = ""

    @property
    def ends(self) -> tuple[LogEnd, ...]:
        """What each partition ends with, what was not flushed included."""
        return tuple(self._ends)

    def begin(self, told: SessionOpened) -> None:
        """Go on with a session, or with what a predecessor left of it.

        Raises
        ------
        SessionUnderWay
            If the session before was not ended on some partition.
        """
        session = session_of(told)
        for partition, end in enumerate(self._ends):
            if end.open_ns < session.open_ns and not end.is_over:
                raise SessionUnderWay(
                    f"{self.topic.name}[{partition}] is at {ist_text(end.watermark_ns)} in a session that was not "
                    f"ended there: end it before the session of {session.date} begins"
                )
        self._session, self._digest, self._source = session, told.universe_digest, self.topic.writer or told.feed
        held, self._held = self._held, []
        for partition, event in held:
            self.event(partition, event)

    def lacks(self, partition: int, watermark_ns: int) -> bool:
        """Whether a partition has not said this watermark of the session, or a later one."""
        return (self._under_way.open_ns, watermark_ns) > self._ends[partition].reached

    # --- what is said ---------------------------------------------------------------------------------------------

    def tell(self, event: Event) -> None:
        """Say a session, or who the ingress is, as the next record of the feed on its topic."""
        self._writer.say(event, Stamp(MARKET_SESSIONS.writer, 0, self._told))
        self._told += 1

    def mark(self, partition: int, watermark_ns: int) -> None:
        """Say that nothing earlier than this will follow; one that was said is not said again.

        Raises
        ------
        ValueError
            If it lies outside the session.
        """
        session = self._under_way
        if not session.open_ns <= watermark_ns <= session_end_ns(session):
            raise ValueError(f"watermark {watermark_ns} lies outside the session of {session.date}")
        if not self.lacks(partition, watermark_ns):
            return
        event = watermark(self.topic, partition, session, watermark_ns, self._digest)
        self._writer.say_on(self.topic, partition, event, self._stamp(partition))
        self._said(partition, watermark_ns)

    def end(self, partition: int) -> None:
        """End the session on a partition."""
        self.mark(partition, session_end_ns(self._under_way))

    def gap(self, partition: int, until_ns: int, reason: str) -> None:
        """Say that everything from what was said last up to an instant was missed; nothing if that was said already."""
        session = self._under_way
        if not self.lacks(partition, until_ns):
            return
        self.mark(partition, session.open_ns)
        begin_ns = self._ends[partition].watermark_ns
        if begin_ns < until_ns:
            event = market_gap(self.topic, partition, begin_ns, until_ns, reason)
            self._writer.say_on(self.topic, partition, event, self._stamp(partition))
            self._said(partition, begin_ns)
            self.mark(partition, until_ns)

    def event(self, partition: int, event: Event) -> None:
        """Say an event from outside, dated no earlier than what was promised: what comes late counts from when it came.

        Its own time belongs in a field of its own. What comes when the session was ended on its partition belongs to
        the next one, and is said as that begins; until then it stands nowhere, and whoever brings it in asks for it
        again after a restart.
        """
        end = self._ends[partition]
        if end.open_ns == self._under_way.open_ns and end.is_over:
            self._held.append((partition, event))
            return
        self.mark(partition, self._under_way.open_ns)
        earliest_ns = self._ends[partition].watermark_ns
        if event.event_time_ns < earliest_ns:
            event = event.model_copy(update={"event_time_ns": earliest_ns})
        self._writer.say_on(self.topic, partition, event, self._stamp(partition))
        self._said(partition, earliest_ns)

    def rows(self, partition: int, part: Ticks | Bars, universe: Universe, number: int, watermark_ns: int) -> int:
        """Say rows of the market up to a watermark; give how many were said.

        Rows before what was said already are left out: frames were shorter before a restart, or the feed joins late.
        A partition without any is marked.
        """
        session, end = self._under_way, self._ends[partition]
        if len(part) and end.open_ns == session.open_ns and int(event_times(part)[0]) < end.watermark_ns:
            part = part[event_times(part) >= end.watermark_ns]
        if not len(part):
            self.mark(partition, watermark_ns)
            return 0
        place = (universe, number, watermark_ns, session)
        frame = encode_tick_frame(part, *place) if isinstance(part, Ticks) else encode_bar_frame(part, *place)
        self._writer.say_frame(self.topic, partition, frame, self._stamp(partition))
        self._said(partition, watermark_ns)
        return len(part)

    async def flush(self) -> None:
        """Wait until everything that was said is on the log."""
        await self._writer.flush()

    # --- inside ---------------------------------------------------------------------------------------------------

    @property
    def _under_way(self) -> Session:
        if self._session is None:
            raise ValueError(f"no session was begun on {self.topic.name}")
        return self._session

    def _stamp(self, partition: int) -> Stamp | None:
        if not self._source:
            return None
        end, open_ns = self._ends[partition], self._under_way.open_ns
        return Stamp(self._source, open_ns, end.number + 1 if end.open_ns == open_ns else 0)

    def _said(self, partition: int, watermark_ns: int) -> None:
        stamp, session = self._stamp(partition), self._under_way
        number = -1 if stamp is None else stamp.number
        self._ends[partition] = LogEnd(session.open_ns, watermark_ns, number, session_end_ns(session))


@asynccontextmanager
async def fenced_ingress(
    kafka: KafkaSettings, topic: Topic, producer: FeedProducer, sessions: MarketSessions
) -> AsyncIterator[Ingress]:
    """Fence whoever wrote a topic before, and only then read where it ends.

    Raises
    ------
    IngressTakenOver
        If another writer of the topic was started while this one ran.
    """
    try:
        async with producer:
            await sessions.refresh()
            ends = await log_ends(kafka, topic, sessions)
            yield Ingress(topic, producer, ends, topic.partitions(kafka.market_partitions), sessions.next_number)
    except KafkaError as cause:
        if not _was_fenced(cause):
            raise
        raise IngressTakenOver(topic.name) from cause


def _was_fenced(failure: KafkaError) -> bool:
    """Whether a transaction ended because its id was taken over.

    At its end the brokers may say so by a code that the client does not know (90, PRODUCER_FENCED).
    """
    fenced = ProducerFenced | InvalidProducerEpoch
    return isinstance(failure, fenced | UnknownError) or isinstance(failure.__cause__, fenced | UnknownError)
