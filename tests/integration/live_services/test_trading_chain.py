"""The whole trading chain on a real Kafka: feed, strategy, risk, paper trading, portfolio; equal to the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from live_services.domain.engine import EngineConfig, run_session

from live_services.adapters.kafka import EventProducer, connection, create_topics, read_topic
from live_services.adapters.telemetry import NoTelemetry
from live_services.domain.basis import Stamp
from live_services.domain.clock import session_end_ns
from live_services.domain.events import Event, StrategyModelAssigned, Watermark, decode_event, topic_of
from live_services.domain.strategy.desk import Assignment, LoadedModel
from live_services.domain.topics import MARKET_TICKS, broker_topics
from live_services.runtime.loop import run_service
from live_services.services.market_feed import Replay, last_watermarks, replay_session, run_market_feed
from live_services.services.model_loading import Candidate, ModelLoader
from live_services.services.paper_trading import PaperTrading
from live_services.services.portfolio_manager import PortfolioManager
from live_services.services.risk_manager import RiskManager
from live_services.services.strategy_runner import StrategyRunner
from live_services.settings import KafkaSettings, Settings
from models_registry.specification import StrategySpec
from tests.live_world import SESSION, UNIVERSE, loaded_model, random_walk
from tests.trading_desk import assert_market_is_whole

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
PAPER = broker_topics("paper")
MODEL = loaded_model()
REPLAY = Replay(SESSION, UNIVERSE, random_walk(4, minutes=40, per_minute=20, seed=6))


class FixedModel(ModelLoader):
    def __init__(self, settings: Settings) -> None:
        super().__init__(None, None, settings.strategies, bar_minutes=1, poll_seconds=60)  # type: ignore[arg-type]
        self.candidates = {s.name: Candidate(MODEL, "fixed") for s in settings.strategies}

    async def start(self) -> None:
        """Know it already."""

    def loaded(self, name: str, version: str) -> LoadedModel:
        return MODEL


@pytest.fixture
async def config(kafka_servers: str) -> AsyncIterator[Settings]:
    config = Settings(
        kafka=KafkaSettings(bootstrap_servers=kafka_servers, market_partitions=2),
        strategies=(StrategySpec(name="momentum", holding_bars=3),),
    )
    admin = AIOKafkaAdminClient(**connection(config.kafka))
    await admin.start()
    try:
        async with asyncio.timeout(30):
            while names := [n for n in await admin.list_topics() if not n.startswith("__")]:
                await admin.delete_topics(names)
                await asyncio.sleep(0.2)
        await create_topics(config)
        yield config
        async with asyncio.timeout(30):
            while names := [n for n in await admin.list_topics() if not n.startswith("__")]:
                await admin.delete_topics(names)
                await asyncio.sleep(0.2)
    finally:
        await admin.close()


async def everything(config: Settings, topic: str) -> list[Event]:
    return [decode_event(record.value) async for record in read_topic(config.kafka, topic)]


async def until_ended(config: Settings) -> None:
    async with asyncio.timeout(90):
        while True:
            times = [
                e.event_time_ns for e in await everything(config, PAPER.pnl_snapshots.name) if isinstance(e, Watermark)
            ]
            if times and times[-1] >= session_end_ns(SESSION):
                return
            await asyncio.sleep(0.3)


async def test_a_replayed_session_gives_what_the_engine_gives(config: Settings) -> None:
    stop = asyncio.Event()
    trading = config.trading.paper
    services: list[Any] = [
        StrategyRunner(config, UNIVERSE, FixedModel(config), Stamp()),
        RiskManager(trading.risk, Stamp()),
        PaperTrading(UNIVERSE, MARKET_TICKS, trading.costs_bps, Stamp()),
        PortfolioManager(UNIVERSE, MARKET_TICKS, trading.pnl_interval_seconds),
    ]
    async with asyncio.TaskGroup() as group:
        for service in services:
            group.create_task(run_service(service, config, UNIVERSE, NoTelemetry(), stop))
        assert await run_market_feed(config, stop, replay=REPLAY)
        await until_ended(config)
        stop.set()
    control = [e for e in await everything(config, PAPER.control.name) if isinstance(e, StrategyModelAssigned)]
    assert {e.event_time_ns for e in control} == {SESSION.open_ns}
    assigned = [Assignment(SESSION.open_ns, "momentum", MODEL)]
    expected = run_session(REPLAY.market, SESSION, assigned, EngineConfig.of(config, UNIVERSE))
    for topic in PAPER:
        if topic != PAPER.control:
            live = [e for e in await everything(config, topic.name) if not isinstance(e, Watermark)]
            assert facts(live) == facts([e for e in expected if topic_of(e) == topic]), topic.name
    assert len(await everything(config, PAPER.orders_filled.name)) > 10


def facts(events: list[Event]) -> list[dict[str, object]]:
    """Compare as sets by id: the order of what happens at one instant on several partitions is nobody's."""
    return sorted((e.model_dump(exclude={"basis"}) for e in events), key=lambda fields: str(fields["event_id"]))


async def test_a_feed_that_starts_again_adds_nothing(config: Settings) -> None:
    stop = asyncio.Event()
    assert await run_market_feed(config, stop, replay=REPLAY)
    reached = await last_watermarks(config.kafka, MARKET_TICKS)
    assert reached == {p: (SESSION.open_ns, session_end_ns(SESSION)) for p in range(2)}
    before = len([r async for r in read_topic(config.kafka, MARKET_TICKS.name)])
    assert await run_market_feed(config, stop, replay=REPLAY)
    assert len([r async for r in read_topic(config.kafka, MARKET_TICKS.name)]) == before


async def test_a_feed_goes_on_behind_a_record_that_is_no_feeds(config: Settings) -> None:
    assert await run_market_feed(config, asyncio.Event(), replay=REPLAY)
    reached = await last_watermarks(config.kafka, MARKET_TICKS)
    async with AIOKafkaProducer(**connection(config.kafka)) as producer:
        await producer.send_and_wait(MARKET_TICKS.name, b"garbage", partition=0)
    assert await last_watermarks(config.kafka, MARKET_TICKS) == reached


class Died(Exception):
    """The feed's process ended."""


class DyingProducer(EventProducer):
    """Sends so many records, and no more."""

    def __init__(self, kafka: KafkaSettings, lives: int) -> None:
        super().__init__(kafka)
        self._lives = lives

    async def produce_watermark(self, *arguments: Any) -> None:
        await self._live()
        await super().produce_watermark(*arguments)

    async def produce_frame(self, *arguments: Any) -> None:
        await self._live()
        await super().produce_frame(*arguments)

    async def _live(self) -> None:
        self._lives -= 1
        if self._lives < 0:
            await self.flush()
            raise Died


async def test_a_feed_that_died_between_two_partitions_goes_on_where_each_of_them_ends(config: Settings) -> None:
    stop = asyncio.Event()
    for lives in (1, 300, 600):  # so that one partition is a frame ahead; the first time the other one is empty
        reached = await last_watermarks(config.kafka, MARKET_TICKS)
        with pytest.raises(Died):
            async with DyingProducer(config.kafka, lives) as producer:
                await replay_session(REPLAY, config, producer, reached=reached, stop=stop)
        now = await last_watermarks(config.kafka, MARKET_TICKS)
        assert now.keys() == ({0} if lives == 1 else {0, 1})
        assert all(now[p] > reached[p] for p in reached)
        assert lives == 1 or now[0] != now[1]
    assert await run_market_feed(config, stop, replay=REPLAY)
    assert_market_is_whole([r async for r in read_topic(config.kafka, MARKET_TICKS.name)], REPLAY)
