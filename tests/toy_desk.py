"""The toy chains on a real Kafka: a feed plays sessions to them, and what they said is read."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Coroutine

import pytest
from aiokafka import AIOKafkaConsumer

from feature_store.market.types import Session
from live_services.adapters.feed_producer import FeedProducer
from live_services.adapters.groups import groups_begin
from live_services.adapters.kafka import StoredRecord, connection, create_topics, read_topic, topic_partitions
from live_services.adapters.sessions import MarketSessions
from live_services.adapters.snapshot_files import SnapshotFiles
from live_services.adapters.telemetry import NoTelemetry, Telemetry
from live_services.chaos.log import remove_topics
from live_services.domain.clock import session_end_ns, watermark
from live_services.domain.events import decode_event
from live_services.domain.frames import encode_tick_frame
from live_services.domain.partitions import part_of
from live_services.domain.topics import MARKET_TICKS, STRATEGIES_CONTROL, consumer_group
from live_services.runtime.chain import Chain
from live_services.runtime.loop import run_chain
from live_services.settings import KafkaSettings
from tests.toy_chain import (
    PAPER,
    SESSION,
    UNIVERSE,
    frames_of,
    session_opened,
    toy_account,
    toy_settings,
    toy_strategy,
    toy_ticks,
)

SIGNALS = 60 * 20 // 7
COMPARED = (PAPER.signals_raw.name, PAPER.signals_validated.name, PAPER.pnl_snapshots.name, STRATEGIES_CONTROL.name)


@pytest.fixture
async def kafka(kafka_servers: str) -> AsyncIterator[KafkaSettings]:
    """The platform's topics, empty; Kafka drops the groups' offsets with the topics."""
    settings = toy_settings(kafka_servers)
    await recreate(settings.kafka)
    yield settings.kafka


async def feed(
    kafka: KafkaSettings, frame_ns: int, pace: float = 0.0, partitions: int = 1, session: Session = SESSION
) -> None:
    """Play a session as the feed does: told before anything of it, then cut by cut on every partition."""
    async with FeedProducer(kafka, 10_000) as producer:
        producer.say(session_opened(session))
        for partition in range(partitions):
            mark(producer, session.open_ns, partition, session)
        for number, (ticks, cut) in enumerate(frames_of(toy_ticks(session), frame_ns, session)):
            for partition in range(partitions):
                part = part_of(ticks, UNIVERSE, partition, partitions)
                producer.say_frame(MARKET_TICKS, partition, encode_tick_frame(part, UNIVERSE, number, cut, session))
            if pace:
                await producer.flush()
                await asyncio.sleep(pace)
        for partition in range(partitions):
            mark(producer, session_end_ns(session), partition, session)
        await producer.flush()


def mark(producer: FeedProducer, at_ns: int, partition: int = 0, session: Session = SESSION) -> None:
    producer.say_on(MARKET_TICKS, partition, watermark(MARKET_TICKS, partition, session, at_ns, UNIVERSE.digest))


async def until_settled(kafka: KafkaSettings, *topics: str) -> None:
    """Wait for the markers of the last transactions: they are written after a commit has returned."""
    partitions = await topic_partitions(kafka, topics)
    async with (
        asyncio.timeout(30),
        AIOKafkaConsumer(**connection(kafka), isolation_level="read_committed") as committed,
        AIOKafkaConsumer(**connection(kafka)) as everything,
    ):
        while await committed.end_offsets(partitions) != await everything.end_offsets(partitions):
            await asyncio.sleep(0.05)


async def events(kafka: KafkaSettings, topic: str) -> list[bytes]:
    return [r.value async for r in read_topic(kafka, topic) if not is_watermark(r)]


def is_watermark(record: StoredRecord) -> bool:
    return dict(record.headers)["event_type"] == b"watermark"


async def ended(kafka: KafkaSettings, session: Session) -> bool:
    said = read_topic(kafka, PAPER.pnl_snapshots.name)
    times = [decode_event(r.value, r.headers).event_time_ns async for r in said if is_watermark(r)]
    return bool(times) and times[-1] >= session_end_ns(session)


async def until_ended(kafka: KafkaSettings, session: Session = SESSION) -> None:
    """Wait until the account has passed a session's end."""
    async with asyncio.timeout(60):
        while not await ended(kafka, session):
            await asyncio.sleep(0.2)


async def until_validated(kafka: KafkaSettings) -> None:
    """Wait until the first signal is through."""
    async with asyncio.timeout(30):
        while not await events(kafka, PAPER.signals_validated.name):
            await asyncio.sleep(0.05)


def start(
    kafka: KafkaSettings,
    chain: Chain,
    stop: asyncio.Event,
    telemetry: Telemetry | None = None,
    *,
    member: str = "",
    snapshots: SnapshotFiles | None = None,
) -> Coroutine[None, None, None]:
    """Give the run of a chain, as its process does it."""
    settings = toy_settings(kafka.bootstrap_servers).model_copy(update={"kafka": kafka})
    sessions, telemetry = MarketSessions(kafka), telemetry or NoTelemetry()
    return run_chain(chain, settings, sessions, telemetry, stop, member=member, snapshots=snapshots)


@contextlib.asynccontextmanager
async def running(
    kafka: KafkaSettings,
    *chains: Chain,
    telemetry: Telemetry | None = None,
    snapshots: SnapshotFiles | None = None,
) -> AsyncIterator[asyncio.Event]:
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        for chain in chains:
            group.create_task(start(kafka, chain, stop, telemetry, snapshots=snapshots))
        for chain in chains:  # as the feed waits for them
            group_id = consumer_group(chain.name, chain.scope)
            await groups_begin(kafka, chain.inputs[0].topic, [group_id], stop)
        try:
            yield stop
        finally:
            stop.set()


async def all_outputs(kafka: KafkaSettings) -> dict[str, list[bytes]]:
    await until_settled(kafka, *COMPARED)
    return {topic: await events(kafka, topic) for topic in COMPARED}


async def chain_on(kafka: KafkaSettings, frame_ns: int) -> dict[str, list[bytes]]:
    async with running(kafka, toy_strategy(), toy_account()):
        await feed(kafka, frame_ns)
        await until_ended(kafka)
    return await all_outputs(kafka)


async def recreate(kafka: KafkaSettings, partitions: int = 1) -> None:
    await remove_topics(kafka)
    settings = toy_settings(kafka.bootstrap_servers)
    await create_topics(
        settings.model_copy(update={"kafka": kafka.model_copy(update={"market_partitions": partitions})})
    )
