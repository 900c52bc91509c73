"""Where a log that is numbered ends: what a feed that starts reads first, and a task whose group is new."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final

from aiokafka import TopicPartition

from feature_store.market.types import Session
from live_services.adapters.kafka import StoredRecord, read_committed
from live_services.adapters.look_back import records_between
from live_services.adapters.sessions import MarketSessions
from live_services.domain.clock import session_of
from live_services.domain.events import Watermark, event_or_none
from live_services.domain.frame_rows import BadFrame
from live_services.domain.frames import FRAME_TOPICS, decode_frame, session_of_frame, universe_digest_of
from live_services.domain.log import Reached
from live_services.domain.sequence import LogEnd, Numbering, stamp_of
from live_services.domain.topics import Topic
from live_services.settings import KafkaSettings

ReadRange = Callable[[int, int], AsyncIterator[StoredRecord]]
"""Gives the records from one offset up to, and without, another."""

_FIRST_STEP: Final = 64
_FACTOR: Final = 4
_SURE: Final = 2  # records in a row; one alone behind junk may be a stranger's with a right stamp


async def last_watermarks(kafka: KafkaSettings, topic: Topic, sessions: MarketSessions) -> dict[int, Reached]:
    """Read how far each partition of a market topic is; parameters and errors as of :func:`log_ends`."""
    return {partition: end.reached for partition, end in (await log_ends(kafka, topic, sessions)).items()}


async def log_ends(kafka: KafkaSettings, topic: Topic, sessions: MarketSessions) -> dict[int, LogEnd]:
    """Read what each partition of a numbered topic ends with; one without a record of its writer is absent.

    Parameters
    ----------
    sessions
        What the feed has told, refreshed.

    Raises
    ------
    KafkaSetupError
        If Kafka does not give the records.
    """
    consumer = read_committed(kafka)
    await consumer.start()
    try:
        partitions = [TopicPartition(topic.name, p) for p in range(topic.partitions(kafka.market_partitions))]
        begins, ends = await consumer.beginning_offsets(partitions), await consumer.end_offsets(partitions)
        found = {}
        for partition in partitions:
            consumer.assign([partition])
            read = partial(records_between, consumer, partition)
            end = await newest_end(begins[partition], ends[partition], read, sessions, writer=topic.writer)
            if end is not None:
                found[partition.partition] = end
        return found
    finally:
        await consumer.stop()


async def newest_end(
    begin: int,
    end: int,
    read: ReadRange,
    sessions: MarketSessions,
    *,
    writer: str = "",
    first_step: int = _FIRST_STEP,
) -> LogEnd | None:
    """Look at longer and longer stretches before the end of a partition, until one holds records of its writer.

    Whatever else stands there is nobody's: every reader buries it. None if no record is the writer's.

    Parameters
    ----------
    writer
        `Topic.writer`; empty for the market, whose feed told each session.
    """
    step = first_step
    while end > begin:
        first = max(begin, end - step)
        found, sure = await _end_of(read(first, end), sessions, writer)
        if found is not None and (sure or first == begin):
            return found
        if first == begin:
            return None
        step *= _FACTOR
    return None


async def _end_of(
    records: AsyncIterator[StoredRecord], sessions: MarketSessions, writer: str
) -> tuple[LogEnd | None, bool]:
    """Give what a stretch ends with, and whether enough of it fits together to be sure."""
    numbering, reached = Numbering(), None
    async for record in records:
        said = _said_by(record, sessions)
        if said is None:
            continue
        session, says_ns, source = said
        before_ns = reached[1] if reached is not None else -1
        stamp = stamp_of(record.headers)
        numbering, refusal = numbering.after(stamp, session, writer or source, before_ns, says_ns)
        if refusal or says_ns < 0 or not _can_be_read(record, sessions):
            continue
        at_ns = says_ns if reached is None or reached[0] != session.open_ns else max(says_ns, before_ns)
        reached = session.open_ns, at_ns
    if reached is None:
        return None, False
    sure = not numbering.source or numbering.believed >= _SURE or numbering.number == 0
    return LogEnd(*reached, numbering.number, numbering.end_ns), sure


def _said_by(record: StoredRecord, sessions: MarketSessions) -> tuple[Session, int, str] | None:
    """Give the session of a record, the watermark that it says, and who told it; a frame's body is not looked at.

    None if a reader would bury it and take no number of it. What is no frame and no watermark, such as a gap or an
    event that cannot be read, says -1.
    """
    stamp = stamp_of(record.headers)
    kind = dict(record.headers).get("event_type", b"").decode(errors="replace")
    says_ns = -1
    try:
        if kind in FRAME_TOPICS:
            session, says_ns = session_of_frame(record.headers)
        elif isinstance(event := event_or_none(record.value, record.headers), Watermark):
            session, says_ns = session_of(event), event.event_time_ns
        elif stamp is not None and (stamped := sessions.session(stamp.session_open_ns)) is not None:
            session = session_of(stamped)
        else:
            return None
    except (BadFrame, ValueError):
        return None
    told = sessions.session(session.open_ns)
    if told is None or session_of(told) != session:
        return None
    if says_ns >= 0 and told.universe_digest != universe_digest_of(record.headers):
        return None
    return session, says_ns, told.feed


def _can_be_read(record: StoredRecord, sessions: MarketSessions) -> bool:
    """Whether the body of a record is what its headers say: that of a frame is decoded, a watermark has none."""
    if dict(record.headers).get("event_type", b"").decode(errors="replace") not in FRAME_TOPICS:
        return True
    universe = sessions.universe(universe_digest_of(record.headers))
    try:
        return universe is not None and decode_frame(record.value, record.headers, universe) is not None
    except BadFrame:
        return False
