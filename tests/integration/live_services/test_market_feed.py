"""The feed on a real Kafka: one writer, sessions one after another, and a log that keeps what was said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from live_services.adapters.feed_producer import FeedProducer
from live_services.adapters.kafka import connection, read_topic
from live_services.adapters.market_log import last_watermarks
from live_services.adapters.sessions import MarketSessions
from live_services.chaos.log import remove_topics
from live_services.domain.clock import watermark
from live_services.domain.log import Reached
from live_services.domain.sequence import stamp_of
from live_services.domain.topics import MARKET_SESSIONS, MARKET_TICKS
from live_services.runtime.local import MemoryLog
from live_services.services import market_feed
from live_services.services.feed_plan import AnotherFeed
from live_services.services.market_feed import FeedProgress, FeedTakenOver, run_market_feed
from live_services.settings import KafkaSettings, MarketSettings, Settings
from tests.kafka_desk import admin_of, begin_anew
from tests.stored_sessions import GivenMarket, day_of_ticks, days_of, live

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

DAYS = tuple(day_of_ticks(day) for day in range(5))
TIMEOUT_MS = 10_000
Said = dict[tuple[str, int], list[tuple[bytes, list[tuple[str, bytes]]]]]


@pytest.fixture
async def config(kafka_servers: str) -> AsyncIterator[Settings]:
    config = Settings(
        kafka=KafkaSettings(bootstrap_servers=kafka_servers, market_partitions=2),
        market=MarketSettings.model_validate(days_of(DAYS)),
    )
    await begin_anew(config)
    yield config
    await remove_topics(config.kafka)


async def on_kafka(config: Settings) -> Said:
    """What was said, by topic and partition."""
    said: Said = {}
    for topic in (MARKET_SESSIONS, MARKET_TICKS):
        async for record in read_topic(config.kafka, topic.name):
            said.setdefault((topic.name, record.partition), []).append((record.value, list(record.headers)))
    return said


async def in_memory(config: Settings) -> Said:
    log = MemoryLog(config.kafka.market_partitions)
    assert await live(GivenMarket(DAYS), config, log)
    return {key: [(r.value, list(r.headers)) for r in records] for key, records in log.partitions.items()}


async def reached(config: Settings) -> dict[int, Reached]:
    sessions = MarketSessions(config.kafka)
    await sessions.refresh()
    return await last_watermarks(config.kafka, MARKET_TICKS, sessions)


async def play(config: Settings, stop: asyncio.Event, progress: Callable[[FeedProgress], None] | None = None) -> bool:
    return await run_market_feed(config, stop, progress, GivenMarket(DAYS))


async def test_topics_are_created_to_keep_their_records(config: Settings) -> None:
    names = [MARKET_TICKS.name, MARKET_TICKS.dlq, MARKET_SESSIONS.name, "paper.orders.filled"]
    async with admin_of(config.kafka) as admin:
        answers = await admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name) for name in names])
    for answer in answers:
        for *_, name, entries in answer.resources:
            said = {entry[0]: entry[1] for entry in entries}
            assert (said["retention.ms"], said["cleanup.policy"]) == ("-1", "delete"), name


async def test_five_sessions_with_stops_on_the_way_are_on_kafka_as_one_life_says_them(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(market_feed, "_MAX_UNFLUSHED", 64)
    for cuts in (1, 50, 700):
        stop, seen = asyncio.Event(), 0

        def count(_: FeedProgress, most: int = cuts, stop: asyncio.Event = stop) -> None:
            nonlocal seen
            seen += 1
            if seen >= most:
                stop.set()

        assert not await play(config, stop, count)
    assert await play(config, asyncio.Event())
    said = await on_kafka(config)
    assert said == await in_memory(config)
    assert await play(config, asyncio.Event())
    assert await on_kafka(config) == said, "a feed that starts again adds nothing"


async def test_the_end_of_the_log_is_found_behind_records_that_are_no_feeds(config: Settings) -> None:
    assert await play(config, asyncio.Event())
    before = await reached(config)
    last = DAYS[-1].session
    assert before == dict.fromkeys(range(2), (last.open_ns, last.close_ns + 10**9))
    async with AIOKafkaProducer(**connection(config.kafka)) as producer:
        for number in range(500):
            await producer.send(MARKET_TICKS.name, b"garbage %d" % number, partition=0)
    assert await reached(config) == before


async def test_a_second_feed_fences_the_first_and_goes_on_where_that_one_ended(config: Settings) -> None:
    taken, second = asyncio.Event(), FeedProducer(config.kafka, TIMEOUT_MS)

    async def first_feed() -> None:
        stop = asyncio.Event()
        slow = config.model_copy(update={"market": config.market.model_copy(update={"speed": 600.0})})
        await play(slow, stop, lambda _: taken.set())

    running = asyncio.create_task(first_feed())
    await taken.wait()
    async with second:
        with pytest.raises(FeedTakenOver, match="one Kafka has one feed"):
            await running
    assert await play(config, asyncio.Event())
    said = await on_kafka(config)
    for partition in range(2):
        marks = [dict(headers) for _, headers in said[MARKET_TICKS.name, partition]]
        times = [int(m.get("watermark_ns", m.get("event_time_ns", b"0"))) for m in marks]
        assert times == sorted(set(times))


async def test_another_feed_is_refused_while_the_first_one_goes_on_as_if_nothing_had_been(config: Settings) -> None:
    begun, stop = asyncio.Event(), asyncio.Event()
    slow = config.model_copy(update={"market": config.market.model_copy(update={"speed": 600.0})})
    running = asyncio.create_task(play(slow, stop, lambda _: begun.set()))
    await begun.wait()
    before = await on_kafka(config)
    for other in ({"frame_ms": 250}, {"feed_name": "laptop"}):
        second = config.model_copy(update={"market": config.market.model_copy(update=other)})
        with pytest.raises(AnotherFeed, match="under way"):
            await play(second, asyncio.Event())
    async with asyncio.timeout(30):
        while len((await on_kafka(config))[MARKET_TICKS.name, 0]) == len(before[MARKET_TICKS.name, 0]):
            await asyncio.sleep(0.1)
    assert not running.done()
    stop.set()
    assert not await running
    assert await play(config, asyncio.Event())
    rows = (await on_kafka(config))[MARKET_TICKS.name, 0]
    stamps = [stamp for _, headers in rows if (stamp := stamp_of(headers)) is not None]
    assert len(stamps) == len(rows)
    for day in DAYS:
        numbers = [stamp.number for stamp in stamps if stamp.session_open_ns == day.session.open_ns]
        assert numbers == list(range(len(numbers)))


async def test_a_feed_goes_on_behind_two_hundred_foreign_records(config: Settings) -> None:
    stop = asyncio.Event()
    assert not await play(config, stop, lambda _: stop.set())
    before, day = await reached(config), DAYS[0]
    async with FeedProducer(config.kafka, TIMEOUT_MS, identity="a stranger") as stranger:
        for number in range(200):
            at_ns = day.session.close_ns - number
            stranger.say_on(MARKET_TICKS, 0, watermark(MARKET_TICKS, 0, day.session, at_ns, day.universe.digest))
        await stranger.flush()
    assert await reached(config) == before
    assert await play(config, asyncio.Event())
    last = DAYS[-1].session
    assert await reached(config) == dict.fromkeys(range(2), (last.open_ns, last.close_ns + 10**9))


async def test_what_was_not_flushed_is_seen_by_nobody(config: Settings) -> None:
    day = DAYS[0]
    async with FeedProducer(config.kafka, TIMEOUT_MS) as producer:
        mark = watermark(MARKET_TICKS, 0, day.session, day.session.open_ns, day.universe.digest)
        producer.say_on(MARKET_TICKS, 0, mark)
    assert await on_kafka(config) == {}
