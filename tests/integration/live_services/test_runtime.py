"""The runtime on a real Kafka: exactly once across kills, dead letters, clean stops."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Iterator, MutableMapping
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest
import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from feature_store.market.types import SECOND_NS, Session
from live_services.adapters.feed_producer import FeedProducer
from live_services.adapters.groups import groups_begin
from live_services.adapters.health import TaskHealth
from live_services.adapters.kafka import (
    KafkaSetupError,
    StoredRecord,
    TopicMismatch,
    admin_client,
    connection,
    create_topics,
    headers_of,
    read_topic,
    topic_configs,
    topic_partitions,
    transactional_producer,
    value_of,
)
from live_services.adapters.retention import FOR_EVER, RETENTION, described, retentions
from live_services.adapters.sessions import MarketSessions
from live_services.adapters.snapshot_files import SnapshotFiles
from live_services.adapters.telemetry import NoTelemetry, Telemetry
from live_services.chaos.log import remove_topics
from live_services.cli.accepting import accept_task
from live_services.domain.clock import session_end_ns, watermark
from live_services.domain.events import DeadLetter, Event, SignalGenerated, decode_event
from live_services.domain.frames import encode_tick_frame
from live_services.domain.log import NOWHERE, EventRecord, Record, TaskId
from live_services.domain.partitions import part_of
from live_services.domain.sequence import Stamp
from live_services.domain.topics import (
    MARKET_SESSIONS,
    MARKET_TICKS,
    STRATEGIES_CONTROL,
    Topic,
    consumer_group,
    transactional_id,
)
from live_services.machine.ports import port_of
from live_services.runtime.chain import Chain
from live_services.runtime.failures import DayDiffers, TaskFenced
from live_services.runtime.loop import run_chain
from live_services.runtime.service import Opening
from live_services.settings import KafkaSettings
from tests.toy_chain import (
    NEXT_SESSION,
    PAPER,
    SESSION,
    UNIVERSE,
    PortfolioState,
    RiskState,
    StrategyState,
    ToyRisk,
    ToyStrategy,
    frames_of,
    session_opened,
    toy_account,
    toy_settings,
    toy_signal,
    toy_snapshots,
    toy_strategy,
    toy_ticks,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
ROOT = Path(__file__).parents[3]
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


async def letters(kafka: KafkaSettings, topic: str) -> list[DeadLetter]:
    await until_settled(kafka, topic)
    found = [decode_event(value) for value in await events(kafka, topic)]
    return [letter for letter in found if isinstance(letter, DeadLetter)]


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


async def test_frames_of_different_sizes_give_the_same_outputs(kafka: KafkaSettings) -> None:
    whole_seconds = await chain_on(kafka, SECOND_NS)
    assert len(whole_seconds[PAPER.signals_validated.name]) == SIGNALS
    await recreate(kafka)
    odd = await chain_on(kafka, 370_000_000)
    assert odd == whole_seconds


async def test_killed_processes_leave_the_same_log_as_one_that_was_never_killed(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    expected = await chain_on(kafka, SECOND_NS)
    await recreate(kafka)
    feeding = asyncio.create_task(feed(kafka, 250_000_000, pace=0.06))
    for lives in (asyncio.sleep(3.0), until_validated(kafka)):
        child = await start_child(kafka, tmp_path)
        await lives
        os.kill(child.pid, signal.SIGKILL)
        assert await child.wait() == -signal.SIGKILL
    before = len(await events(kafka, PAPER.signals_validated.name))
    child = await start_child(kafka, tmp_path)
    try:
        await until_ended(kafka)
    finally:
        child.terminate()
        exit_code = await asyncio.wait_for(child.wait(), 20)
    await feeding
    assert exit_code == 0
    assert 0 < before < SIGNALS, "the kills came when there was work behind and ahead"
    assert await all_outputs(kafka) == expected


class Otherwise(ToyStrategy):
    """Other code: it scores higher."""

    def handle(self, record: Record, state: StrategyState, now_ns: int) -> Iterator[Event]:
        for event in super().handle(record, state, now_ns):
            assert isinstance(event, SignalGenerated)
            yield event.model_copy(update={"score": event.score + 1})


async def test_code_that_says_otherwise_ends_until_a_person_lets_stand_what_was_said(kafka: KafkaSettings) -> None:
    async with running(kafka, toy_strategy(), toy_account()):
        feeding = asyncio.create_task(feed(kafka, SECOND_NS, pace=0.05))
        await until_validated(kafka)
    await feeding
    await until_settled(kafka, *COMPARED)
    said = await events(kafka, PAPER.signals_raw.name)
    for _ in range(2):
        with pytest.raises(DayDiffers, match=r"paper\.signals\.raw at offset \d+, field score: said"):
            async with asyncio.timeout(30):
                await start(kafka, Chain("toy_strategy", (Otherwise(),)), asyncio.Event())
    settings, task = toy_settings(kafka.bootstrap_servers), TaskId("toy_strategy", "shared", 0)
    accepted = await accept_task(settings, task, MARKET_TICKS, "the higher score is meant")
    assert accepted.taken_as_said[PAPER.signals_raw.name] >= len(said)
    async with running(kafka, Chain("toy_strategy", (Otherwise(),)), toy_account()):
        await until_ended(kafka)
    await until_settled(kafka, *COMPARED)
    signals = await events(kafka, PAPER.signals_raw.name)
    assert signals[: len(said)] == said
    assert len(signals) == SIGNALS > len(said)
    (record,) = (decode_event(value) for value in (await events(kafka, STRATEGIES_CONTROL.name))[1:])
    assert record == accepted


async def start_child(kafka: KafkaSettings, snapshots: Path, stop_seconds: float = 20.0) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.toy_chain",
        kafka.bootstrap_servers,
        str(stop_seconds),
        str(snapshots),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "."},
    )


@contextlib.contextmanager
def hanging(kafka: KafkaSettings) -> Iterator[None]:
    """Stop the broker's process for as long as the block lasts: its connections stand, and nothing answers."""
    broker = psutil.Process(listener_on(port_of(kafka.bootstrap_servers)))
    broker.suspend()
    try:
        yield
    finally:
        broker.resume()


def listener_on(port: int) -> int:
    listening = (c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port == port)
    return next(c.pid for c in listening if c.pid is not None)


@pytest.mark.parametrize("brokers_hang", [False, True])
async def test_a_stopped_process_ends_and_its_successor_goes_on(
    kafka: KafkaSettings, tmp_path: Path, brokers_hang: bool
) -> None:
    expected = await chain_on(kafka, SECOND_NS)
    await recreate(kafka)
    child = await start_child(kafka, tmp_path, stop_seconds=1.0 if brokers_hang else 20.0)
    groups = [consumer_group(chain.name, chain.scope) for chain in (toy_strategy(), toy_account())]
    for group, topic in zip(groups, (MARKET_TICKS, PAPER.signals_raw), strict=True):
        await groups_begin(kafka, topic, [group], asyncio.Event())
    feeding = asyncio.create_task(feed(kafka, SECOND_NS, pace=0.15))
    await until_validated(kafka)
    with hanging(kafka) if brokers_hang else contextlib.nullcontext():
        child.terminate()
        # Its batch is committed; or it does not wait for brokers that answer nobody, and its successor runs that again.
        assert await asyncio.wait_for(child.wait(), 20) == (1 if brokers_hang else 0)
    assert len(await events(kafka, PAPER.signals_validated.name)) < SIGNALS
    with structlog.testing.capture_logs() as lines:
        async with running(kafka, toy_strategy(), toy_account(), snapshots=toy_snapshots(tmp_path)):
            await feeding
            await until_ended(kafka)
    assert await all_outputs(kafka) == expected
    if not brokers_hang:  # its snapshot is of its last commit
        assert [line["from_snapshot"] for line in lines if line["event"] == "task_taken_over"] == [True, True]


async def test_two_market_partitions_are_two_tasks_that_move_between_members(kafka: KafkaSettings) -> None:
    two = kafka.model_copy(update={"market_partitions": 2})
    logs = []
    for frame_ns in (SECOND_NS, 430_000_000):
        await recreate(kafka, partitions=2)
        stop, stop_first, stop_joiner = asyncio.Event(), asyncio.Event(), asyncio.Event()
        feeding = asyncio.create_task(feed(kafka, frame_ns, pace=0.15, partitions=2))
        async with asyncio.TaskGroup() as group:
            first = group.create_task(start(two, toy_strategy(), stop_first))
            group.create_task(start(two, toy_account(), stop))
            await until_validated(kafka)
            group.create_task(start(two, toy_strategy(), stop_joiner))
            await asyncio.sleep(3)
            stop_first.set()
            await first
            assert not feeding.done(), "the market was over before the members had changed"
            await feeding
            await until_ended(kafka)
            stop.set()
            stop_joiner.set()
        logs.append({topic: sorted(values) for topic, values in (await all_outputs(kafka)).items()})
    assert logs[0] == logs[1]
    assert len(logs[0][STRATEGIES_CONTROL.name]) == 2


Lines = list[MutableMapping[str, Any]]


async def test_a_member_that_stays_keeps_its_tasks_when_another_joins_and_leaves(kafka: KafkaSettings) -> None:
    four = kafka.model_copy(update={"market_partitions": 4})
    logs = list[dict[str, list[bytes]]]()
    for changes in (False, True):
        await recreate(kafka, partitions=4)
        stop, stop_joiner = asyncio.Event(), asyncio.Event()
        with structlog.testing.capture_logs() as lines:
            async with asyncio.TaskGroup() as group:
                for chain in (toy_strategy(), toy_account()):
                    group.create_task(start(four, chain, stop))
                    await groups_begin(four, chain.inputs[0].topic, [consumer_group(chain.name, chain.scope)], stop)
                feeding = asyncio.create_task(feed(kafka, SECOND_NS, pace=0.25 if changes else 0.0, partitions=4))
                if changes:
                    await until_validated(kafka)
                    joiner = group.create_task(start(four, toy_strategy(), stop_joiner))
                    await until(lambda: len(taken_over(lines, "market")) == 4 + 2)
                    stop_joiner.set()
                    await joiner
                    assert not feeding.done(), "the market was over before the members had changed"
                await feeding
                await until_ended(kafka)
                stop.set()
        assert len(taken_over(lines, "market")) == (4 + 2 + 2 if changes else 4)
        logs.append({topic: sorted(values) for topic, values in (await all_outputs(kafka)).items()})
    assert logs[0] == logs[1]


def taken_over(lines: Lines, topic: str) -> list[str]:
    """Give the tasks that were taken over so far, again and again if they were."""
    told = (line for line in lines if line["event"] == "task_taken_over")
    return [line["task"] for line in told if line["partitions"][0].startswith(topic)]


async def until(met: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not met():
            await asyncio.sleep(0.05)


async def test_a_killed_member_with_a_name_is_succeeded_at_once_and_the_others_hear_nothing_of_it(
    kafka: KafkaSettings,
) -> None:
    four, stop = kafka.model_copy(update={"market_partitions": 4}), asyncio.Event()
    await recreate(kafka, partitions=4)
    with structlog.testing.capture_logs() as lines:
        async with asyncio.TaskGroup() as group:
            group.create_task(start(four, toy_strategy(), stop, member="stays"))
            killed = asyncio.create_task(start(four, toy_strategy(), stop, member="killed"))
            await until(lambda: shares(lines)[-2:] == [2, 2] and len(set(taken_over(lines, "market"))) == 4)
            assigned, taken = len(shares(lines)), len(taken_over(lines, "market"))
            killed.cancel()
            await asyncio.gather(killed, return_exceptions=True)
            group.create_task(start(four, toy_strategy(), stop, member="killed"))
            await until(lambda: len(taken_over(lines, "market")) == taken + 2)
            stop.set()
    assert len(shares(lines)) == assigned + 1, "the one that stays was given its tasks anew"


def shares(lines: Lines) -> list[int]:
    """Give how many partitions each assignment so far gave to a member."""
    return [len(line["partitions"]) for line in lines if line["event"] == "partitions_assigned"]


class SlowStrategy(ToyStrategy):
    """Takes longer to open a session than the group waits for a sign of life."""

    def open_session(self, opening: Opening[StrategyState]) -> StrategyState:
        until_s = time.monotonic() + 8
        while time.monotonic() < until_s:
            sum(range(1000))
        return super().open_session(opening)


async def test_a_session_that_takes_longer_to_open_than_a_member_may_be_silent_is_opened_once(
    kafka: KafkaSettings,
) -> None:
    with structlog.testing.capture_logs() as lines:
        async with running(kafka, Chain("toy_strategy", (SlowStrategy(),)), toy_account()):
            await feed(kafka, SECOND_NS)
            await until_ended(kafka)
    assert len(await events(kafka, PAPER.signals_validated.name)) == SIGNALS
    assert len(taken_over(lines, "market")) == 1


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


async def test_a_second_member_stands_by_and_takes_over_when_the_first_leaves(kafka: KafkaSettings) -> None:
    stop_first, stop_second = asyncio.Event(), asyncio.Event()
    first = asyncio.create_task(start(kafka, toy_account(), stop_first))
    second = asyncio.create_task(start(kafka, toy_account(), stop_second))
    async with running(kafka, toy_strategy()):
        feeding = asyncio.create_task(feed(kafka, SECOND_NS, pace=0.05))
        await until_validated(kafka)
        stop_first.set()
        await first
        await feeding
        await until_ended(kafka)
        stop_second.set()
        await second
    assert len(await events(kafka, PAPER.signals_validated.name)) == SIGNALS


async def test_a_task_that_was_taken_over_ends_its_process_with_a_clear_message(kafka: KafkaSettings) -> None:
    service = asyncio.create_task(start(kafka, toy_strategy(), asyncio.Event()))
    await send_market(kafka, SESSION.open_ns)
    async with asyncio.timeout(30):
        while not await events(kafka, STRATEGIES_CONTROL.name):
            await asyncio.sleep(0.1)
    usurper = transactional_producer(kafka, transactional_id("toy_strategy", "shared", 0), 10_000)
    await usurper.start()
    try:
        await send_market(kafka, SESSION.open_ns + SECOND_NS)
        with pytest.raises(TaskFenced, match="another process runs this task"):
            await asyncio.wait_for(service, 20)
    finally:
        await usurper.stop()
    # aiokafka leaves a failed future of the fenced producer unread. Its complaint, made by a collection in the middle
    # of an import, breaks the parser of Python 3.11; so it is collected here.
    del service
    gc.collect()


async def send_market(kafka: KafkaSettings, watermark_ns: int) -> None:
    async with FeedProducer(kafka, 10_000) as producer:
        producer.say(session_opened(SESSION))
        mark(producer, watermark_ns)
        await producer.flush()


async def test_a_new_group_begins_with_the_session_under_way(kafka: KafkaSettings) -> None:
    """Retained days are not issued as orders when a group is new, also where the next one is still to come."""
    await feed(kafka, SECOND_NS, session=SESSION)
    async with running(kafka, toy_strategy(), toy_account()):
        await feed(kafka, SECOND_NS, session=NEXT_SESSION)
        await until_ended(kafka, NEXT_SESSION)
    for topic, values in (await all_outputs(kafka)).items():
        times = [decode_event(value).event_time_ns for value in values]
        assert times, topic
        assert min(times) >= NEXT_SESSION.open_ns, topic
    assert len(await events(kafka, PAPER.signals_validated.name)) == SIGNALS


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


async def test_the_group_and_its_partitions_are_logged_and_counted_at_each_assignment(kafka: KafkaSettings) -> None:
    class Assigned(NoTelemetry):
        given: ClassVar[list[tuple[str, list[tuple[str, int]]]]] = []

        def rebalanced(self, group: str, partitions: Collection[tuple[str, int]]) -> None:
            self.given.append((group, list(partitions)))

    with structlog.testing.capture_logs() as lines:
        async with running(kafka, toy_strategy(), telemetry=Assigned()):
            pass
    group = consumer_group("toy_strategy", "shared")
    assert Assigned.given[-1] == (group, [(MARKET_TICKS.name, 0)])
    told = [line for line in lines if line["event"] == "partitions_assigned"]
    assert len(told) == len(Assigned.given)
    assert (told[-1]["group"], told[-1]["partitions"]) == (group, ["market.ticks[0]"])


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
