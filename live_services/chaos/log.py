"""The log of a desk on which faults are tried: emptied, looked at while it grows, and read when all is said."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import redis
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from live_services.adapters.kafka import KafkaSetupError, committed_offsets, connection, create_topics, read_topic
from live_services.adapters.market_log import last_watermarks
from live_services.adapters.sessions import MarketSessions
from live_services.chaos.comparison import Run
from live_services.composition import processes, running_brokers
from live_services.domain.topics import MARKET_BARS, MARKET_TICKS, Topic, all_topics, consumer_group, market_topic
from live_services.runtime.positions import decode_position
from live_services.settings import KafkaSettings, Settings

_LOOK_SECONDS: Final = 15.0
_SETTLE_SECONDS: Final = 30.0
_REMOVE_SECONDS: Final = 30.0


@dataclass(frozen=True, slots=True)
class Reached:
    """How far a desk is, in event time (ns since the epoch); -1 where nothing is committed yet."""

    market_ns: int
    """Of the market's partition that is furthest behind, as the feed has it on the log."""
    groups_ns: dict[str, int]
    """Of each group, the partition that is furthest behind."""

    @property
    def slowest_ns(self) -> int:
        """Of the group that is furthest behind."""
        return min(self.groups_ns.values())


async def remove_topics(kafka: KafkaSettings) -> None:
    """Delete all topics, and with them the groups' offsets."""
    admin = AIOKafkaAdminClient(**connection(kafka))
    await admin.start()
    try:
        async with asyncio.timeout(_REMOVE_SECONDS):
            while names := [name for name in await admin.list_topics() if not name.startswith("__")]:
                await admin.delete_topics(names)
                await asyncio.sleep(0.2)
    finally:
        await admin.close()


async def empty_log(settings: Settings) -> None:
    """Begin anew: no record, no position of a group, nothing in Valkey."""
    await remove_topics(settings.kafka)
    await create_topics(settings, all_topics(running_brokers(settings)))
    with redis.Redis.from_url(settings.redis.url.get_secret_value()) as client:
        client.flushdb()


async def reached(settings: Settings) -> Reached | None:
    """Say how far market and groups are; None while Kafka does not answer."""
    try:
        async with asyncio.timeout(_LOOK_SECONDS):
            return await _reached(settings)
    except (KafkaError, KafkaSetupError, OSError, TimeoutError):
        return None


async def _reached(settings: Settings) -> Reached:
    kafka, topic = settings.kafka, market_topic(settings.market.feed)
    partitions = [TopicPartition(topic.name, p) for p in range(topic.partitions(kafka.market_partitions))]
    groups = [consumer_group(entry.name, scope) for entry, scope in processes(settings) if entry.is_chain]
    committed = await asyncio.gather(*(committed_offsets(kafka, group, partitions) for group in groups))
    groups_ns = {
        group: min(decode_position(group, tp, *position).watermark_ns for tp, position in found.items())
        if len(found) == len(partitions)
        else -1
        for group, found in zip(groups, committed, strict=True)
    }
    told = MarketSessions(kafka)
    await told.refresh()
    ends = await last_watermarks(kafka, topic, told)
    market_ns = min(ns for _, ns in ends.values()) if len(ends) == len(partitions) else -1
    return Reached(market_ns, groups_ns)


async def read_run(settings: Settings) -> Run:
    """Give everything that was said, letters included, once all transactions are settled."""
    topics = all_topics(running_brokers(settings))
    await until_settled(settings, topics)
    told, run = MarketSessions(settings.kafka), Run()
    await told.refresh()
    for topic in topics:
        async for record in read_topic(settings.kafka, topic.name):
            if topic in (MARKET_TICKS, MARKET_BARS):
                run.add_market(record.topic, record.partition, record.value, record.headers, told.universe)
            else:
                run.add(record.topic, record.partition, record.value, record.headers)
        async for record in read_topic(settings.kafka, topic.dlq):
            run.add(record.topic, record.partition, record.value, record.headers)
    return run


async def until_settled(settings: Settings, topics: Sequence[Topic]) -> None:
    """Wait for the markers of the last transactions: they are written after a commit has returned."""
    partitions = [
        TopicPartition(t.name, p) for t in topics for p in range(t.partitions(settings.kafka.market_partitions))
    ]
    async with (
        asyncio.timeout(_SETTLE_SECONDS),
        AIOKafkaConsumer(**connection(settings.kafka), isolation_level="read_committed") as committed,
        AIOKafkaConsumer(**connection(settings.kafka)) as everything,
    ):
        while await committed.end_offsets(partitions) != await everything.end_offsets(partitions):
            await asyncio.sleep(0.05)
