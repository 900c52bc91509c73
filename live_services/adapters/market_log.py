"""Where the log of the market ends: what a feed that starts reads first."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from functools import partial
from typing import Final

from aiokafka import TopicPartition

from feature_store.market.types import Universe
from live_services.adapters.kafka import StoredRecord, read_committed
from live_services.adapters.look_back import records_between
from live_services.domain.clock import session_of
from live_services.domain.events import Watermark, decode_event
from live_services.domain.frame_rows import BadFrame
from live_services.domain.frames import FRAME_TOPICS, decode_frame, universe_digest_of
from live_services.domain.log import Reached
from live_services.domain.topics import Topic
from live_services.settings import KafkaSettings

ReadRange = Callable[[int, int], AsyncIterator[StoredRecord]]
"""Gives the records from one offset up to, and without, another."""

_FIRST_STEP: Final = 64
_LONGEST_STEP: Final = 16_384


async def last_watermarks(
    kafka: KafkaSettings, topic: Topic, universe_of: Callable[[str], Universe | None]
) -> dict[int, Reached]:
    """Read what each partition of a market topic ends with; a partition without a feed's record is absent.

    Parameters
    ----------
    universe_of
        What the digests on records mean: `live_services.adapters.sessions.MarketSessions.universe`, refreshed.

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
            reached = await newest_reached(begins[partition], ends[partition], read, universe_of)
            if reached is not None:
                found[partition.partition] = reached
        return found
    finally:
        await consumer.stop()


async def newest_reached(
    begin: int,
    end: int,
    read: ReadRange,
    universe_of: Callable[[str], Universe | None],
    *,
    first_step: int = _FIRST_STEP,
) -> Reached | None:
    """Go back from the end of a partition, in longer and longer steps, to the last record that is a feed's.

    Whatever stands behind it is nobody's: every reader of the market buries it. None if no record is a feed's.
    """
    step = first_step
    while end > begin:
        first, reached = max(begin, end - step), None
        async for record in read(first, end):
            reached = reached_by(record, universe_of) or reached
        if reached is not None:
            return reached
        end, step = first, min(4 * step, _LONGEST_STEP)
    return None


def reached_by(record: StoredRecord, universe_of: Callable[[str], Universe | None]) -> Reached | None:
    """Give the session and the watermark that a record of the market reached; None if a reader would bury it."""
    universe = universe_of(universe_digest_of(record.headers))
    if universe is None:
        return None
    try:
        if dict(record.headers).get("event_type", b"").decode() in FRAME_TOPICS:
            frame = decode_frame(record.value, record.headers, universe)
            return frame.session.open_ns, frame.watermark_ns
        event = decode_event(record.value, record.headers)
        return (session_of(event).open_ns, event.event_time_ns) if isinstance(event, Watermark) else None
    except (BadFrame, ValueError):
        return None
