"""Topics on a real Kafka: how they are made, and what comes of records that should not be on them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from feature_store.market.types import SECOND_NS, Session
from live_services.adapters.feed_producer import FeedProducer
from live_services.adapters.health import TaskHealth
from live_services.adapters.kafka import (
    KafkaSetupError,
    TopicMismatch,
    admin_client,
    connection,
    create_topics,
    headers_of,
    topic_configs,
    value_of,
)
from live_services.adapters.retention import FOR_EVER, RETENTION, described, retentions
from live_services.adapters.telemetry import NoTelemetry
from live_services.domain.clock import session_end_ns, watermark
from live_services.domain.events import DeadLetter, Event, SignalGenerated, decode_event
from live_services.domain.log import NOWHERE, EventRecord
from live_services.domain.sequence import Stamp
from live_services.domain.topics import MARKET_SESSIONS, MARKET_TICKS, Topic
from live_services.settings import KafkaSettings
from tests.toy_chain import (
    PAPER,
    SESSION,
    UNIVERSE,
    PortfolioState,
    RiskState,
    ToyRisk,
    session_opened,
    toy_account,
    toy_settings,
    toy_signal,
    toy_strategy,
)
from tests.toy_desk import (
    all_outputs,
    chain_on,
    events,
    feed,
    recreate,
    running,
    until_ended,
    until_settled,
    until_validated,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]


async def letters(kafka: KafkaSettings, topic: str) -> list[DeadLetter]:
    await until_settled(kafka, topic)
    found = [decode_event(value) for value in await events(kafka, topic)]
    return [letter for letter in found if isinstance(letter, DeadLetter)]


async def send_raw(kafka: KafkaSettings, topic: str, value: bytes, headers: Any = ()) -> None:
    producer = AIOKafkaProducer(**connection(kafka))
    await producer.start()
    try:
        await producer.send_and_wait(topic, value=value, partition=0, headers=list(headers))
    finally:
        await producer.stop()


async def test_garbage_and_foreign_records_go_to_the_dlq_and_the_next_is_handled(kafka: KafkaSettings) -> None:
    raw = PAPER.signals_raw
    good = toy_signal(0, SESSION.open_ns + SECOND_NS, 1.0, 100.0)
    foreign = good.model_copy(update={"broker": "zerodha", "event_id": "foreign"})
    poisoned = toy_signal(1, SESSION.open_ns + SECOND_NS, -1.0, 100.0)
    wrong_type = toy_validated(good)
    await tell(kafka, SESSION)
    async with running(kafka, toy_account()):
        await send(kafka, raw, watermark(raw, 0, SESSION, SESSION.open_ns, UNIVERSE.digest), 0)
        await send_raw(kafka, raw.name, b"\x00garbage", [("event_type", b"signal.generated")])
        for event, number in ((foreign, None), (wrong_type, None), (poisoned, 1), (good, 2)):
            await send(kafka, raw, event, number)
        await send(kafka, raw, watermark(raw, 0, SESSION, session_end_ns(SESSION), UNIVERSE.digest), 3)
        await until_ended(kafka)
    dead = await letters(kafka, raw.dlq)
    assert [letter.offset for letter in dead] == [1, 2, 3, 4]
    assert dead[0].value_base64 == "AGdhcmJhZ2U="
    assert "zerodha" in dead[1].failure
    assert "paper.signals.validated" in dead[2].failure
    assert "a poisoned signal" in dead[3].failure
    handled = [decode_event(value) for value in await events(kafka, PAPER.signals_validated.name)]
    assert [e.causation_id for e in handled] == [good.event_id]


async def tell(kafka: KafkaSettings, session: Session) -> None:
    """Tell a session and nothing of it."""
    async with FeedProducer(kafka, 10_000) as producer:
        producer.say(session_opened(session))
        await producer.flush()


async def send(kafka: KafkaSettings, topic: Topic, event: Event, number: int | None = None) -> None:
    """Send an event; with a number as the topic's own writer says it."""
    stamped = [] if number is None else [Stamp(topic.writer, SESSION.open_ns, number).header]
    await send_raw(kafka, topic.name, value_of(event), [*headers_of(event), *stamped])


def toy_validated(signal: SignalGenerated) -> Event:
    """Validate a signal that no strategy gave."""
    state = RiskState(PortfolioState(SESSION))
    (validated,) = ToyRisk().handle(EventRecord(signal, NOWHERE), state, signal.event_time_ns)
    return validated


class Kept(NoTelemetry):
    """Keeps what the runtime reports."""

    def __init__(self) -> None:
        self.health: list[TaskHealth] = []

    def report(self, health: TaskHealth) -> None:
        self.health.append(health)

    def foreign_records(self, service: str) -> int:
        return max((h.foreign_records for h in self.health if h.task.service == service), default=0)


async def test_a_foreign_record_on_an_inner_topic_is_alarmed_and_trades_nothing(kafka: KafkaSettings) -> None:
    expected = await chain_on(kafka, SECOND_NS)
    await recreate(kafka)
    kept = Kept()
    async with running(kafka, toy_strategy(), toy_account(), telemetry=kept):
        feeding = asyncio.create_task(feed(kafka, SECOND_NS, pace=0.05))
        await until_validated(kafka)
        intruder = toy_validated(toy_signal(0, SESSION.open_ns + SECOND_NS, 1.0, 100.0))
        await send(kafka, PAPER.signals_validated, intruder)
        await feeding
        await until_ended(kafka)
        async with asyncio.timeout(20):
            while not kept.foreign_records("toy_risk"):
                await asyncio.sleep(0.1)
    assert kept.foreign_records("toy_risk") == 1
    assert max(h.last_output_s for h in kept.health if h.task.service == "toy_risk") > 0
    assert kept.foreign_records("toy_portfolio") == 0
    said = await all_outputs(kafka)
    said[PAPER.signals_validated.name].remove(value_of(intruder))
    assert said == expected


async def test_creating_topics_again_changes_nothing_and_another_partition_count_is_refused(
    kafka: KafkaSettings,
) -> None:
    settings = toy_settings(kafka.bootstrap_servers)
    assert await create_topics(settings) == ()
    more = settings.model_copy(update={"kafka": kafka.model_copy(update={"market_partitions": 3})})
    with pytest.raises(TopicMismatch, match=r"market\.ticks has 1 partitions instead of 3"):
        await create_topics(more)


async def test_another_retention_reaches_the_topics_that_are_there_and_leaves_their_other_settings(
    kafka: KafkaSettings,
) -> None:
    settings, names = toy_settings(kafka.bootstrap_servers), [MARKET_TICKS.name, MARKET_TICKS.dlq, MARKET_SESSIONS.name]
    a_week = settings.model_copy(update={"kafka": kafka.model_copy(update={"retention_hours": 168})})
    own = topic_configs(kafka, MARKET_TICKS.name) | {"segment.bytes": "2097152"}  # set by who runs Kafka

    async def until(name: str, key: str, value: str) -> None:
        async with asyncio.timeout(30):  # brokers learn of it a little later
            while (await described(admin, [name]))[name].get(key) != value:
                await asyncio.sleep(0.1)

    async with admin_client(kafka) as admin:
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, MARKET_TICKS.name, configs=own)])
        await until(MARKET_TICKS.name, "segment.bytes", "2097152")
        assert await create_topics(a_week) == ()
        await until(MARKET_TICKS.name, RETENTION, str(168 * 3_600_000))
        assert [(await retentions(admin, names))[name] for name in names[1:]] == [FOR_EVER, FOR_EVER]
        await create_topics(settings)
        await until(MARKET_TICKS.name, RETENTION, str(FOR_EVER))
        assert (await described(admin, names))[MARKET_TICKS.name]["segment.bytes"] == "2097152"


async def test_reading_a_topic_that_does_not_exist_says_so(kafka: KafkaSettings) -> None:
    with pytest.raises(KafkaSetupError, match="no topic nowhere"):
        await events(kafka, "nowhere")
