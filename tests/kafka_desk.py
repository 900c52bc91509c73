"""A desk on a real Kafka whose log begins empty, and its account as a process of its own."""

from __future__ import annotations

import asyncio
import signal as signals
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from aiokafka.admin import AIOKafkaAdminClient

from live_services.adapters.feed_producer import FeedProducer
from live_services.adapters.kafka import connection, create_topics, read_topic
from live_services.chaos.log import remove_topics
from live_services.domain.events import Event, decode_event
from live_services.domain.sequence import Stamp
from live_services.domain.topics import Topic, broker_topics
from live_services.settings import KafkaSettings, Settings
from models_registry.specification import StrategySpec

ROOT = Path(__file__).parents[1]
_RAW = broker_topics("paper").signals_raw


@asynccontextmanager
async def admin_of(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Give a client that asks and changes what a Kafka has."""
    admin = AIOKafkaAdminClient(**connection(kafka))
    await admin.start()
    try:
        yield admin
    finally:
        await admin.close()


async def begin_anew(settings: Settings) -> None:
    """Delete all topics and create them anew."""
    await remove_topics(settings.kafka)
    await create_topics(settings)


async def empty_desk(kafka_servers: str, home: Path) -> Settings:
    """Give a desk whose topics are empty; its market has one partition."""
    kafka = KafkaSettings(bootstrap_servers=kafka_servers, market_partitions=1)
    settings = Settings(alpha_panda_home=home, kafka=kafka, strategies=(StrategySpec(name="momentum"),))
    await begin_anew(settings)
    return settings


@asynccontextmanager
async def account(desk: Settings) -> AsyncIterator[None]:
    """The account's process, killed in the end."""
    arguments = "-m", "tests.account_process", desk.kafka.bootstrap_servers, desk.alpha_panda_home
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, cwd=ROOT)
    try:
        yield
    finally:
        process.send_signal(signals.SIGKILL)
        await process.wait()


class Runner:
    """What a strategy runner says to the paper account in one session, numbered as it does.

    Parameters
    ----------
    producer : FeedProducer
        Flushed by whoever has it.
    open_ns : int
        Of the session.
    """

    def __init__(self, producer: FeedProducer, open_ns: int) -> None:
        self._producer = producer
        self._next = Stamp(_RAW.writer, open_ns, 0)

    def say(self, event: Event) -> None:
        """Say a proposal or a watermark."""
        self._producer.say_on(_RAW, 0, event, self._next)
        self._next = self._next._replace(number=self._next.number + 1)


async def said(desk: Settings, topic: Topic) -> list[Event]:
    """Everything that stands on a topic of one partition."""
    return [decode_event(record.value, record.headers) async for record in read_topic(desk.kafka, topic.name)]
