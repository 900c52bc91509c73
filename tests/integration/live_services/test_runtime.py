"""The runtime on a real Kafka: exactly once across kills, dead letters, clean stops."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from feature_store.market.types import SECOND_NS
from live_services.adapters.kafka import (
    EventProducer,
    KafkaSetupError,
    StoredRecord,
    TopicMismatch,
    connection,
    create_topics,
    headers_of,
    read_topic,
    value_of,
)
from live_services.adapters.telemetry import NoTelemetry
from live_services.domain.clock import session_end_ns
from live_services.domain.events import DeadLetter, SignalValidated, decode_event
from live_services.domain.frames import encode_tick_frame
from live_services.domain.topics import MARKET_TICKS
from live_services.runtime.loop import run_service
from live_services.runtime.task import TaskFenced
from live_services.settings import KafkaSettings
from tests.toy_chain import (
    PAPER,
    SESSION,
    UNIVERSE,
    ToyPortfolio,
    ToyRisk,
    ToyStrategy,
    frames_of,
    toy_settings,
    toy_signal,
    toy_ticks,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
ROOT = Path(__file__).parents[3]
SIGNALS = 60 * 20 // 7
COMPARED = (PAPER.signals_raw.name, PAPER.signals_validated.name, PAPER.pnl_snapshots.name, PAPER.control.name)


@pytest.fixture
async def kafka(kafka_servers: str) -> AsyncIterator[KafkaSettings]:
    """The platform's topics, empty; Kafka drops the groups' offsets with the topics."""
    settings = toy_settings(kafka_servers)
    await recreate(settings.kafka)
    yield settings.kafka


async def feed(kafka: KafkaSettings, frame_ns: int, pace: float = 0.0, partitions: int = 1) -> None:
    async with asyncio.TaskGroup() as group:
        for partition in range(partitions):
            group.create_task(feed_partition(kafka, frame_ns, pace, partition, partitions))


async def feed_partition(kafka: KafkaSettings, frame_ns: int, pace: float, partition: int, partitions: int) -> None:
    async with EventProducer(kafka) as producer:
        await producer.produce_watermark(MARKET_TICKS, partition, SESSION, SESSION.open_ns)
        for number, (everything, cut) in enumerate(frames_of(toy_ticks(), frame_ns)):
            ticks = everything[UNIVERSE.partition_of(everything.instrument, partitions) == partition]
            frame = encode_tick_frame(ticks, UNIVERSE, number, cut, SESSION)
            await producer.produce_frame(MARKET_TICKS, partition, frame)
            if pace:
                await producer.flush()
                await asyncio.sleep(pace)
        await producer.produce_watermark(MARKET_TICKS, partition, SESSION, session_end_ns(SESSION))


async def until_settled(kafka: KafkaSettings, *topics: str) -> None:
    """Wait for the markers of the last transactions: they are written after a commit has returned."""
    partitions = [TopicPartition(topic, 0) for topic in topics]
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


async def letters(kafka: KafkaSettings, topic: str) -> list[DeadLetter]:
    await until_settled(kafka, topic)
    found = [decode_event(value) for value in await events(kafka, topic)]
    return [letter for letter in found if isinstance(letter, DeadLetter)]


async def ended(kafka: KafkaSettings, topic: str) -> bool:
    times = [decode_event(r.value).event_time_ns async for r in read_topic(kafka, topic) if is_watermark(r)]
    return bool(times) and times[-1] >= session_end_ns(SESSION)


async def until_ended(kafka: KafkaSettings, topic: str, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not await ended(kafka, topic):
            await asyncio.sleep(0.2)


@contextlib.asynccontextmanager
async def running(kafka: KafkaSettings, *services: Any) -> AsyncIterator[asyncio.Event]:
    stop, settings = asyncio.Event(), toy_settings(kafka.bootstrap_servers)
    async with asyncio.TaskGroup() as group:
        for service in services:
            group.create_task(run_service(service, settings, UNIVERSE, NoTelemetry(), stop))
        try:
            yield stop
        finally:
            stop.set()


async def all_outputs(kafka: KafkaSettings) -> dict[str, list[bytes]]:
    await until_settled(kafka, *COMPARED)
    return {topic: await events(kafka, topic) for topic in COMPARED}


async def chain_on(kafka: KafkaSettings, frame_ns: int) -> dict[str, list[bytes]]:
    async with running(kafka, ToyStrategy(), ToyRisk(), ToyPortfolio()):
        await feed(kafka, frame_ns)
        await until_ended(kafka, PAPER.pnl_snapshots.name)
    return await all_outputs(kafka)


async def recreate(kafka: KafkaSettings, partitions: int = 1) -> None:
    admin = AIOKafkaAdminClient(**connection(kafka))
    await admin.start()
    try:
        async with asyncio.timeout(30):
            while names := [n for n in await admin.list_topics() if not n.startswith("__")]:
                await admin.delete_topics(names)
                await asyncio.sleep(0.2)
    finally:
        await admin.close()
    settings = toy_settings(kafka.bootstrap_servers)
    await create_topics(
        settings.model_copy(update={"kafka": kafka.model_copy(update={"market_partitions": partitions})})
    )


async def test_frames_of_different_sizes_give_the_same_outputs(kafka: KafkaSettings) -> None:
    whole_seconds = await chain_on(kafka, SECOND_NS)
    assert len(whole_seconds[PAPER.signals_validated.name]) == SIGNALS
    await recreate(kafka)
    odd = await chain_on(kafka, 370_000_000)
    assert odd == whole_seconds


async def test_killed_processes_leave_the_same_log_as_one_that_was_never_killed(kafka: KafkaSettings) -> None:
    expected = await chain_on(kafka, SECOND_NS)
    await recreate(kafka)
    feeding = asyncio.create_task(feed(kafka, 250_000_000, pace=0.06))
    for lifetime in (3.0, 9.0):
        child = await start_child(kafka)
        await asyncio.sleep(lifetime)
        os.kill(child.pid, signal.SIGKILL)
        assert await child.wait() == -signal.SIGKILL
    before = len(await events(kafka, PAPER.signals_validated.name))
    child = await start_child(kafka)
    try:
        await until_ended(kafka, PAPER.pnl_snapshots.name)
    finally:
        child.terminate()
        exit_code = await asyncio.wait_for(child.wait(), 20)
    await feeding
    assert exit_code == 0
    assert 0 < before < SIGNALS, "the kills came when there was work behind and ahead"
    assert await all_outputs(kafka) == expected


async def start_child(kafka: KafkaSettings) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.toy_chain",
        kafka.bootstrap_servers,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "."},
    )


async def test_a_stopped_process_commits_its_batch_and_a_successor_goes_on(kafka: KafkaSettings) -> None:
    expected = await chain_on(kafka, SECOND_NS)
    await recreate(kafka)
    feeding = asyncio.create_task(feed(kafka, SECOND_NS, pace=0.1))
    child = await start_child(kafka)
    async with asyncio.timeout(30):
        while not await events(kafka, PAPER.signals_validated.name):
            await asyncio.sleep(0.05)
    child.terminate()
    assert await asyncio.wait_for(child.wait(), 20) == 0
    assert len(await events(kafka, PAPER.signals_validated.name)) < SIGNALS
    async with running(kafka, ToyStrategy(), ToyRisk(), ToyPortfolio()):
        await feeding
        await until_ended(kafka, PAPER.pnl_snapshots.name)
    assert await all_outputs(kafka) == expected


async def test_two_market_partitions_are_two_tasks_that_move_between_members(kafka: KafkaSettings) -> None:
    two = toy_settings(kafka.bootstrap_servers).model_copy(
        update={"kafka": kafka.model_copy(update={"market_partitions": 2})}
    )
    logs = []
    for frame_ns in (SECOND_NS, 430_000_000):
        await recreate(kafka, partitions=2)
        stop, stop_first = asyncio.Event(), asyncio.Event()
        feeding = asyncio.create_task(feed(two.kafka, frame_ns, pace=0.03, partitions=2))
        async with asyncio.TaskGroup() as group:
            for service, ends in (
                (ToyStrategy(), stop_first),
                (ToyStrategy(), stop),
                (ToyRisk(), stop),
                (ToyPortfolio(), stop),
            ):
                group.create_task(run_service(service, two, UNIVERSE, NoTelemetry(), ends))
            async with asyncio.timeout(30):
                while not await events(kafka, PAPER.signals_validated.name):
                    await asyncio.sleep(0.1)
            stop_first.set()
            await feeding
            await until_ended(kafka, PAPER.pnl_snapshots.name)
            stop.set()
        logs.append({topic: sorted(values) for topic, values in (await all_outputs(kafka)).items()})
    assert logs[0] == logs[1]
    assert len(logs[0][PAPER.control.name]) == 2


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
    wrong_type = toy_validated(good.event_id)
    async with running(kafka, ToyRisk(), ToyPortfolio()):
        async with EventProducer(kafka) as producer:
            await producer.produce_watermark(raw, 0, SESSION, SESSION.open_ns)
        await send_raw(kafka, raw.name, b"\x00garbage", [("event_type", b"signal.generated")])
        for event in (foreign, wrong_type, poisoned, good):
            await send_raw(kafka, raw.name, value_of(event), headers_of(event))
        async with EventProducer(kafka) as producer:
            await producer.produce_watermark(raw, 0, SESSION, session_end_ns(SESSION))
        await until_ended(kafka, PAPER.pnl_snapshots.name)
    dead = await letters(kafka, raw.dlq)
    assert [letter.offset for letter in dead] == [1, 2, 3, 4]
    assert dead[0].value_base64 == "AGdhcmJhZ2U="
    assert "zerodha" in dead[1].failure
    assert "paper.signals.validated" in dead[2].failure
    assert "a poisoned signal" in dead[3].failure
    handled = [decode_event(value) for value in await events(kafka, PAPER.signals_validated.name)]
    assert [e.causation_id for e in handled] == [good.event_id]


def toy_validated(signal_id: str) -> SignalValidated:
    signal = toy_signal(0, SESSION.open_ns + SECOND_NS, 1.0, 100.0)
    fields = signal.model_dump(exclude={"event_type", "score", "threshold", "bar", "features", "event_id"})
    return SignalValidated(**fields, event_id="validated", signal_id=signal_id, rules=())


async def test_a_second_member_stands_by_and_takes_over_when_the_first_leaves(kafka: KafkaSettings) -> None:
    stop_first, stop_second = asyncio.Event(), asyncio.Event()
    settings = toy_settings(kafka.bootstrap_servers)
    first = asyncio.create_task(run_service(ToyRisk(), settings, UNIVERSE, NoTelemetry(), stop_first))
    second = asyncio.create_task(run_service(ToyRisk(), settings, UNIVERSE, NoTelemetry(), stop_second))
    async with running(kafka, ToyStrategy(), ToyPortfolio()):
        feeding = asyncio.create_task(feed(kafka, SECOND_NS, pace=0.05))
        async with asyncio.timeout(30):
            while not await events(kafka, PAPER.signals_validated.name):
                await asyncio.sleep(0.1)
        stop_first.set()
        await first
        await feeding
        await until_ended(kafka, PAPER.pnl_snapshots.name)
        stop_second.set()
        await second
    assert len(await events(kafka, PAPER.signals_validated.name)) == SIGNALS


async def test_a_task_that_was_taken_over_ends_its_process_with_a_clear_message(kafka: KafkaSettings) -> None:
    from live_services.adapters.kafka import transactional_producer
    from live_services.domain.topics import transactional_id

    settings, stop = toy_settings(kafka.bootstrap_servers), asyncio.Event()
    service = asyncio.create_task(run_service(ToyStrategy(), settings, UNIVERSE, NoTelemetry(), stop))
    async with EventProducer(kafka) as producer:
        await producer.produce_watermark(MARKET_TICKS, 0, SESSION, SESSION.open_ns)
    async with asyncio.timeout(30):
        while not await events(kafka, PAPER.control.name):
            await asyncio.sleep(0.1)
    usurper = transactional_producer(kafka, transactional_id("toy_strategy", "paper", 0), 10_000)
    await usurper.start()
    try:
        async with EventProducer(kafka) as producer:
            await producer.produce_watermark(MARKET_TICKS, 0, SESSION, SESSION.open_ns + SECOND_NS)
        with pytest.raises(TaskFenced, match="another process runs this task"):
            await asyncio.wait_for(service, 20)
    finally:
        await usurper.stop()
    # aiokafka leaves a failed future of the fenced producer unread. Its complaint, made by a collection in the middle
    # of an import, breaks the parser of Python 3.11; so it is collected here.
    del service
    gc.collect()


async def test_creating_topics_again_changes_nothing_and_another_partition_count_is_refused(
    kafka: KafkaSettings,
) -> None:
    settings = toy_settings(kafka.bootstrap_servers)
    assert await create_topics(settings) == ()
    more = settings.model_copy(update={"kafka": kafka.model_copy(update={"market_partitions": 3})})
    with pytest.raises(TopicMismatch, match=r"market\.ticks has 1 partitions instead of 3"):
        await create_topics(more)


async def test_reading_a_topic_that_does_not_exist_says_so(kafka: KafkaSettings) -> None:
    with pytest.raises(KafkaSetupError, match="no topic nowhere"):
        await events(kafka, "nowhere")
