"""A log that is read backwards, on a real Kafka: transactions leave offsets without a record."""

from __future__ import annotations

import asyncio
import uuid
from contextlib import aclosing

import pytest
from aiokafka import AIOKafkaProducer

from live_services.adapters.kafka import KafkaSetupError, StoredRecord, create_topics, read_topic
from live_services.adapters.look_back import newest_first
from live_services.domain.topics import Topic
from live_services.settings import KafkaSettings, load_settings

pytestmark = pytest.mark.integration


@pytest.fixture
def kafka(kafka_servers: str) -> KafkaSettings:
    return KafkaSettings(bootstrap_servers=kafka_servers, market_partitions=2)


async def written(kafka: KafkaSettings, *transactions: list[tuple[int, bytes]], abort: bytes = b"") -> str:
    """Write transactions of (partition, value) to a topic of two partitions; one with the value `abort` is aborted."""
    topic = Topic(f"looked.back.{uuid.uuid4().hex[:8]}", per_market_partition=True)
    await create_topics(load_settings(kafka=kafka), [topic])
    producer = AIOKafkaProducer(bootstrap_servers=kafka.bootstrap_servers, transactional_id=topic.name)
    await producer.start()
    try:
        for records in transactions:
            await producer.begin_transaction()
            sent = [await producer.send(topic.name, value=value, partition=p) for p, value in records]
            await asyncio.gather(*sent)
            is_void = any(value == abort for _, value in records)
            await (producer.abort_transaction() if is_void else producer.commit_transaction())
    finally:
        await producer.stop()
    return topic.name


async def backwards(kafka: KafkaSettings, topic: str, before_ms: int | None = None) -> list[StoredRecord]:
    return [record async for record in newest_first(kafka, topic, before_ms=before_ms)]


async def test_it_gives_what_reading_forwards_gives_backwards_in_each_partition(kafka: KafkaSettings) -> None:
    many = [[(n % 2, f"{n}-{k}".encode()) for k in range(9)] for n in range(90)]
    topic = await written(kafka, *many, [(0, b"void"), (1, b"void")], [(0, b"last")], abort=b"void")
    back = await backwards(kafka, topic)
    for partition in (0, 1):
        forwards = [record async for record in read_topic(kafka, topic, partition)]
        assert len(forwards) >= 9 * 45
        assert [record for record in back if record.partition == partition] == forwards[::-1]
    assert b"void" not in {record.value for record in back}


async def test_whoever_has_what_it_looked_for_stops(kafka: KafkaSettings) -> None:
    topic = await written(kafka, [(0, b"first"), (0, b"second")])
    async with aclosing(newest_first(kafka, topic)) as records:
        async for record in records:
            assert record.value == b"second"
            break


async def test_it_begins_with_what_was_written_up_to_a_time(kafka: KafkaSettings) -> None:
    topic = await written(kafka, [(0, b"before")])
    (before,) = await backwards(kafka, topic)
    assert await backwards(kafka, topic, before_ms=before.timestamp_ms) == [before]
    assert await backwards(kafka, topic, before_ms=before.timestamp_ms - 1) == []


async def test_an_empty_topic_has_nothing_and_one_that_is_not_there_is_named(kafka: KafkaSettings) -> None:
    assert await backwards(kafka, await written(kafka)) == []
    with pytest.raises(KafkaSetupError, match=r"nowhere\.at\.all"):
        await backwards(kafka, "nowhere.at.all")
