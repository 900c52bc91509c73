"""Where the log of the market ends: what a feed that starts reads first."""

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
from live_services.domain.events import Watermark, decode_event
from live_services.domain.frame_rows import BadFrame
from live_services.domain.frames import FRAME_TOPICS, decode_frame, universe_digest_of
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
    """Read what each partition of a market topic ends with; a partition without a feed's record is absent.

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
            end = await newest_end(begins[partition], ends[partition], read, sessions)
            if end is not None:
                found[partition.partition] = end
        return found
    finally:
        await consumer.stop()


async def newest_end(
    begin: int, end: int, read: ReadRange, sessions: MarketSessions, *, first_step: int = _FIRST_STEP
) -> LogEnd | None:
    """Look at longer and longer stretches before the end of a partition, until one holds records of its feed.

    Whatever else stands there is nobody's: every reader of the market buries it. None if no record is a feed's.
    """
    step = first_step
    while end > begin:
        first = max(begin, end - step)
        found, sure = await _end_of(read(first, end), sessions)
        if found is not None and (sure or first == begin):
            return found
        if first == begin:
            return None
        step *= _FACTOR
    return None


async def _end_of(records: AsyncIterator[StoredRecord], sessions: MarketSessions) -> tuple[LogEnd | None, bool]:
    """Give what a stretch ends with, and whether enough of it fits together to be sure."""
    numbering, reached = Numbering(), None
    async for record in records:
        said = _said_by(record, sessions)
        if said is None:
            continue
        session, watermark_ns, source = said
        before_ns = reached[1] if reached is not None else -1
        numbering, refusal = numbering.after(stamp_of(record.headers), session, source, before_ns)
        if refusal:
            continue
        if watermark_ns is not None:
            at_ns = watermark_ns if reached is None or reached[0] != session.open_ns else max(watermark_ns, before_ns)
            reached = session.open_ns, at_ns
    if reached is None:
        return None, False
    sure = not numbering.source or numbering.believed >= _SURE or numbering.number == 0
    return LogEnd(*reached, numbering.number, numbering.end_ns), sure


def _said_by(record: StoredRecord, sessions: MarketSessions) -> tuple[Session, int | None, str] | None:
    """Give the session of a record of the market, the watermark that it reached, and who told it.

    None if a reader would bury it. What is no frame and no watermark, such as a gap, reached none.
    """
    stamp = stamp_of(record.headers)
    told = None if stamp is None else sessions.session(stamp.session_open_ns)
    kind = dict(record.headers).get("event_type", b"").decode(errors="replace")
    universe = sessions.universe(universe_digest_of(record.headers))
    watermark_ns = None
    try:
        if kind in FRAME_TOPICS and universe is not None:
            frame = decode_frame(record.value, record.headers, universe)
            session, watermark_ns = frame.session, frame.watermark_ns
            told = sessions.session(session.open_ns)
        elif kind not in FRAME_TOPICS and isinstance(event := decode_event(record.value, record.headers), Watermark):
            session, watermark_ns = session_of(event), event.event_time_ns
            told = sessions.session(session.open_ns)
        elif told is not None:
            session = session_of(told)
        else:
            return None
    except (BadFrame, ValueError):
        return None
    if told is None or session_of(told) != session:
        return None
    if watermark_ns is not None and told.universe_digest != universe_digest_of(record.headers):
        return None
    return session, watermark_ns, told.feed
