"""Reading a log backwards: what is looked for is mostly recent, and a day's topics are long."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from live_services.adapters.kafka import (
    KafkaSetupError,
    StoredRecord,
    read_committed,
    stored_record,
    topic_partitions,
)
from live_services.settings import KafkaSettings

_FIRST_STEP: Final = 256
_LONGEST_STEP: Final = 16_384
_SILENCE_SECONDS: Final = 10.0
_POLL_MS: Final = 500


async def newest_first(
    kafka: KafkaSettings, topic: str, *, before_ms: int | None = None
) -> AsyncGenerator[StoredRecord, None]:
    """Give a topic's committed records backwards, in longer and longer steps.

    Whoever stops before the end closes it (``contextlib.aclosing``), and with it the connections to Kafka.

    Parameters
    ----------
    before_ms
        Begin with what was written up to this time (Kafka's own, wall clock); default: with the newest.

    Yields
    ------
    StoredRecord
        Each partition's newest first; of several partitions one stretch of each in turn.

    Raises
    ------
    KafkaSetupError
        If the topic does not exist, or Kafka does not give its records.
    """
    ours, step = await topic_partitions(kafka, [topic]), _FIRST_STEP
    consumer = read_committed(kafka)
    await consumer.start()
    try:
        consumer.assign(ours)
        ends, begins = await consumer.end_offsets(ours), await consumer.beginning_offsets(ours)
        if before_ms is not None:
            later = await consumer.offsets_for_times(dict.fromkeys(ours, before_ms + 1))
            ends |= {tp: min(ends[tp], found.offset) for tp, found in later.items() if found is not None}
        while left := [tp for tp in ours if ends[tp] > begins[tp]]:
            for tp in left:
                first = max(begins[tp], ends[tp] - step)
                for record in reversed([record async for record in records_between(consumer, tp, first, ends[tp])]):
                    yield record
                ends[tp] = first
            step = min(2 * step, _LONGEST_STEP)
    finally:
        await consumer.stop()


async def records_between(
    consumer: AIOKafkaConsumer, partition: TopicPartition, first: int, end: int
) -> AsyncIterator[StoredRecord]:
    """Give the records of an assigned partition from one offset up to, and without, another.

    Raises
    ------
    KafkaSetupError
        If Kafka does not give them.
    """
    consumer.seek(partition, first)
    heard = time.monotonic()
    while await consumer.position(partition) < end:  # the markers of transactions are offsets without a record
        before = await consumer.position(partition)
        for record in (await consumer.getmany(partition, timeout_ms=_POLL_MS)).get(partition, ()):
            if record.offset < end:
                yield stored_record(record)
        if await consumer.position(partition) > before:
            heard = time.monotonic()
        elif time.monotonic() - heard > _SILENCE_SECONDS:
            raise KafkaSetupError(
                f"Kafka did not give {partition.topic}[{partition.partition}] from offset {before} on; try again"
            )
