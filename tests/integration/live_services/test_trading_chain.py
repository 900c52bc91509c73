"""Two sessions through runner, account and feed on a real Kafka: equal to the engine; and a feed that dies."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer

from feature_store.market.types import Session
from live_services.adapters.feed_producer import FeedProducer
from live_services.adapters.groups import groups_begin
from live_services.adapters.kafka import connection, read_topic
from live_services.adapters.market_log import last_watermarks
from live_services.adapters.sessions import MarketSessions
from live_services.adapters.spans import TRACEPARENT, trace_id_of
from live_services.adapters.stored_market import Replay
from live_services.adapters.telemetry import LiveTelemetry, NoTelemetry
from live_services.adapters.tracing import LiveTracing, otlp_exporter
from live_services.backtest.engine import Engine, EngineConfig, MarketDay, assignments_at_open
from live_services.chaos.log import remove_topics
from live_services.composition import engine_config
from live_services.domain.basis import Stamp
from live_services.domain.clock import session_end_ns
from live_services.domain.events import (
    Event,
    OrderFilled,
    OrderSubmitted,
    StrategyModelAssigned,
    Watermark,
    decode_event,
    topic_of,
)
from live_services.domain.log import Reached
from live_services.domain.strategy.history import SessionHistory
from live_services.domain.strategy.loaded_model import LoadedModel
from live_services.domain.topics import MARKET_TICKS, STRATEGIES_CONTROL, broker_topics, consumer_group
from live_services.operations_settings import TracingSettings
from live_services.runtime.chain import Chain
from live_services.runtime.ingress import fenced_ingress
from live_services.runtime.loop import run_chain
from live_services.services.account import account_chain
from live_services.services.market_feed import Feed, FeedTakenOver, run_market_feed
from live_services.services.model_loading import Candidate, ModelLoader
from live_services.services.strategy_runner import StrategyRunner
from live_services.settings import KafkaSettings, MarketSettings, Settings
from models_registry.specification import StrategySpec
from tests.kafka_desk import begin_anew
from tests.live_world import OPEN, SESSION, UNIVERSE, loaded_model, random_walk
from tests.otlp_collector import collecting
from tests.prometheus_server import Prometheus, prometheus_of
from tests.stored_sessions import GivenMarket, days_of
from tests.trading_desk import assert_market_is_whole

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
PAPER = broker_topics("paper")
MODEL = loaded_model()
NEXT = Session.regular(SESSION.date + dt.timedelta(days=1))


def replayed(session: Session, seed: int) -> Replay:
    walk = random_walk(4, minutes=40, per_minute=20, seed=seed)
    return Replay(session, UNIVERSE, replace(walk, event_time_ns=walk.event_time_ns + session.open_ns - OPEN))


DAYS = (replayed(SESSION, 6), replayed(NEXT, 7))
MARKET = GivenMarket(DAYS)


class FixedModel(ModelLoader):
    """A registry that names one model for every strategy, and nothing for the challenger's rung."""

    def __init__(self, settings: Settings, model: LoadedModel = MODEL) -> None:
        super().__init__(None, None, None, settings.strategies, bar_minutes=1, poll_seconds=60)  # type: ignore[arg-type]
        self.candidates = {(s.name, "champion"): Candidate(model, "fixed") for s in settings.strategies}
        self._model = model

    async def start(self) -> None:
        """Know it already."""

    def loaded(self, name: str, version: str) -> LoadedModel:
        return self._model


@pytest.fixture
async def config(kafka_servers: str) -> AsyncIterator[Settings]:
    config = Settings(
        kafka=KafkaSettings(bootstrap_servers=kafka_servers, market_partitions=2),
        market=MarketSettings.model_validate(days_of(DAYS)),
        strategies=(
            StrategySpec(name="momentum", holding_bars=3),
            StrategySpec(name="bracketed", holding_bars=5, stop_bps=20, target_bps=25, priority=-1),
        ),
    )
    await begin_anew(config)
    yield config
    await remove_topics(config.kafka)


async def everything(config: Settings, topic: str) -> list[Event]:
    return [decode_event(record.value, record.headers) async for record in read_topic(config.kafka, topic)]


async def until_ended(config: Settings, session: Session) -> None:
    async with asyncio.timeout(90):
        while True:
            said = await everything(config, PAPER.pnl_snapshots.name)
            times = [e.event_time_ns for e in said if isinstance(e, Watermark)]
            if times and times[-1] >= session_end_ns(session):
                return
            await asyncio.sleep(0.3)


async def test_replayed_sessions_give_what_the_engine_gives(config: Settings) -> None:
    stop = asyncio.Event()
    chains = [
        Chain("strategy_runner", (StrategyRunner(config, FixedModel(config), Stamp()),)),
        account_chain("paper", MARKET_TICKS, config.trading.paper, Stamp()),
    ]
    async with asyncio.TaskGroup() as group:
        for chain in chains:
            group.create_task(run_chain(chain, config, MarketSessions(config.kafka), NoTelemetry(), stop))
        groups = [consumer_group(chain.name, chain.scope) for chain in chains]
        await groups_begin(config.kafka, MARKET_TICKS, groups, stop)
        assert await run_market_feed(config, stop, source=MARKET)
        await until_ended(config, NEXT)
        stop.set()
    control = [e for e in await everything(config, STRATEGIES_CONTROL.name) if isinstance(e, StrategyModelAssigned)]
    assert {e.event_time_ns for e in control} == {day.session.open_ns for day in DAYS}
    expected = in_the_engine(replace(engine_config(config), stamp=Stamp()))
    for topic in PAPER:
        live = [e for e in await everything(config, topic.name) if not isinstance(e, Watermark)]
        assert facts(live) == facts([e for e in expected if topic_of(e) == topic]), topic.name
    fills = [e for e in await everything(config, PAPER.orders_filled.name) if isinstance(e, OrderFilled)]
    assert {f.strategy for f in fills} == {"momentum", "bracketed"}
    assert len(fills) > 20


async def test_prometheus_finds_a_desk_that_runs_and_answers_what_dashboards_and_alerts_ask(
    config: Settings, tmp_path: Path
) -> None:
    config, stop = config.model_copy(update={"alpha_panda_home": tmp_path}), asyncio.Event()
    days = config.market.model_copy(update=days_of(DAYS[:1]))
    config = config.model_copy(update={"market": days})
    with prometheus_of(tmp_path, tmp_path) as prometheus:
        async with (
            LiveTelemetry(config, "market_feed") as feed,
            LiveTelemetry(config, "strategy_runner") as runner,
            LiveTelemetry(config, "account", "paper") as account,
            asyncio.TaskGroup() as group,
        ):
            inferred = runner.metrics.inferred
            strategies = StrategyRunner(config, FixedModel(config), Stamp(), inferred=inferred)
            chains = {
                Chain("strategy_runner", (strategies,)): runner,
                account_chain("paper", MARKET_TICKS, config.trading.paper, Stamp()): account,
            }
            for chain, telemetry in chains.items():
                group.create_task(run_chain(chain, config, MarketSessions(config.kafka), telemetry, stop))
            groups = [consumer_group(chain.name, chain.scope) for chain in chains]
            await groups_begin(config.kafka, MARKET_TICKS, groups, stop)
            assert await run_market_feed(config, stop, source=MARKET, times=feed.metrics)
            await until_ended(config, SESSION)
            orders = [e for e in await everything(config, PAPER.orders_submitted.name) if isinstance(e, OrderSubmitted)]
            entries = sum(order.reason == "entry" for order in orders)
            await until_measured(prometheus, "alpha_panda_signal_to_order_seconds_count", entries)
            for label, name, count in (
                ("instance", "up", 3),
                ("group", "alpha_panda_consumer_lag_records", len(groups)),
                ("stage", "trading_last_activity_timestamp_unix", 5),
            ):
                await until_measured(prometheus, f"count by ({label}) ({name}) > bool 0", count)
            answers = await answers_of(prometheus)
            firing = await asyncio.to_thread(prometheus.alerts)
            stop.set()
    assert {one["metric"]["instance"] for one in answers["up"]} == {
        "shared.market_feed",
        "shared.strategy_runner",
        "paper.account",
    }
    assert {one["metric"]["group"] for one in answers["alpha_panda_consumer_lag_records"]} == set(groups)
    assert {one["metric"]["stage"] for one in answers["trading_last_activity_timestamp_unix"]} == {
        "market_data",
        "signals",
        "risk",
        "orders",
        "portfolio",
    }
    assert [alert for alert in firing if alert["state"] == "firing"] == []


MEASURED = (
    "up",
    "trading_last_activity_timestamp_unix",
    "alpha_panda_consumer_lag_records",
    "alpha_panda_rebalances_total",
    "alpha_panda_commits_total",
    "alpha_panda_commit_seconds_count",
    "alpha_panda_tick_to_signal_seconds_count",
    "alpha_panda_equity_inr",
    "alpha_panda_realized_pnl_inr",
    "ml_inference_total",
    "ml_inference_latency_seconds_count",
    "market_tick_enqueue_delay_seconds_count",
    "market_tick_emit_latency_seconds_count",
)


async def until_measured(prometheus: Prometheus, name: str, count: int) -> None:
    """Wait until Prometheus has seen so many."""
    async with asyncio.timeout(20):
        while True:
            series = await asyncio.to_thread(prometheus.query, f"sum({name})")
            if series and float(series[0]["value"][1]) == count:
                return
            await asyncio.sleep(0.3)


async def answers_of(prometheus: Prometheus) -> dict[str, Any]:
    """Give what each name answers, once all do: each process is scraped in its own turn."""
    async with asyncio.timeout(20):
        while True:
            answers = {name: await asyncio.to_thread(prometheus.query, name) for name in MEASURED}
            if all(answers.values()):
                return answers
            await asyncio.sleep(0.3)


async def test_an_order_is_followed_by_a_collector_from_its_frame_to_its_fill(config: Settings) -> None:
    stop, day = asyncio.Event(), config.market.model_copy(update=days_of(DAYS[:1]))
    config = config.model_copy(update={"market": day})
    with collecting() as collector:
        traced = TracingSettings(endpoint=collector.endpoint, sample_ratio=1.0)
        feed, runner, account = (
            LiveTracing(otlp_exporter(traced), traced, process, scope)
            for process, scope in (("market_feed", "shared"), ("strategy_runner", "shared"), ("account", "paper"))
        )
        chains = {
            Chain("strategy_runner", (StrategyRunner(config, FixedModel(config), Stamp()),)): runner,
            account_chain("paper", MARKET_TICKS, config.trading.paper, Stamp()): account,
        }
        async with asyncio.TaskGroup() as group:
            for chain, tracing in chains.items():
                sessions = MarketSessions(config.kafka)
                group.create_task(run_chain(chain, config, sessions, NoTelemetry(), stop, tracing=tracing))
            groups = [consumer_group(chain.name, chain.scope) for chain in chains]
            await groups_begin(config.kafka, MARKET_TICKS, groups, stop)
            assert await run_market_feed(config, stop, source=MARKET, spans=feed.feed())
            await until_ended(config, SESSION)
            stop.set()
        for tracing in (feed, runner, account):
            tracing.close()
        filled = [r async for r in read_topic(config.kafka, PAPER.orders_filled.name) if trace_id_of(r.headers)]
        fills = {
            bytes.fromhex(dict(r.headers)[TRACEPARENT].decode().split("-")[2]): decode_event(r.value) for r in filled
        }
        async with asyncio.timeout(20):
            while not fills.keys() <= collector.spans.keys():
                await asyncio.sleep(0.1)
    reasons = set[str]()
    for span_id, fill in fills.items():
        assert isinstance(fill, OrderFilled)
        reasons.add(fill.reason)
        path = collector.path_to(span_id)
        assert path[: len(LIFE)] == LIFE
        # An exit hangs behind the fill that opened its position.
        assert path[len(LIFE) :] == ([] if fill.reason == "entry" else LIFE[3:])
    assert {"entry", "time"} < reasons


LIFE = [
    ("market_feed", "market.frame"),
    ("strategy_runner", "strategy.process_tick"),
    ("strategy_runner", "strategy.emit_signal"),
    ("account", "risk.validate"),
    ("account", "order.place"),
    ("account", "portfolio.update"),
]


def in_the_engine(config: EngineConfig) -> list[Event]:
    engine, said = Engine(config), list[Event]()
    for day in DAYS:
        assigned = assignments_at_open(day.session, {s.name: MODEL for s in config.strategies})
        # The runner of this test has no stored sessions, so its features begin anew on each day.
        said += engine.run(MarketDay(day.session, day.universe, day.market, assigned, SessionHistory(day.universe)))
    return said


def facts(events: Sequence[Event]) -> list[dict[str, object]]:
    """Compare as sets by id: the order of what happens at one instant on several partitions is nobody's."""
    return sorted((e.model_dump(exclude={"basis"}) for e in events), key=lambda fields: str(fields["event_id"]))


# --- the feed ---------------------------------------------------------------------------------------------------------


async def told(config: Settings) -> MarketSessions:
    sessions = MarketSessions(config.kafka)
    await sessions.refresh()
    return sessions


async def ends(config: Settings) -> dict[int, Reached]:
    return await last_watermarks(config.kafka, MARKET_TICKS, await told(config))


async def test_a_feed_that_starts_again_adds_nothing(config: Settings) -> None:
    stop = asyncio.Event()
    assert await run_market_feed(config, stop, source=MARKET)
    assert await ends(config) == {p: (NEXT.open_ns, session_end_ns(NEXT)) for p in range(2)}
    before = len([r async for r in read_topic(config.kafka, MARKET_TICKS.name)])
    assert await run_market_feed(config, stop, source=MARKET)
    assert len([r async for r in read_topic(config.kafka, MARKET_TICKS.name)]) == before


async def test_a_feed_goes_on_behind_a_record_that_is_no_feeds(config: Settings) -> None:
    assert await run_market_feed(config, asyncio.Event(), source=MARKET)
    reached = await ends(config)
    async with AIOKafkaProducer(**connection(config.kafka)) as producer:
        await producer.send_and_wait(MARKET_TICKS.name, b"garbage", partition=0)
    assert await ends(config) == reached


class Died(Exception):
    """The feed's process ended."""


class DyingProducer(FeedProducer):
    """Commits so many times; then it dies with the first half of a transaction sent and no word on the rest."""

    def __init__(self, kafka: KafkaSettings, lives: int) -> None:
        super().__init__(kafka, 10_000)
        self._lives = lives

    async def flush(self) -> None:
        self._lives -= 1
        if self._lives >= 0:
            await super().flush()
            return
        await self._producer.begin_transaction()
        for topic, partition, value, headers in self._said[: len(self._said) // 2 + 1]:
            await self._producer.send_and_wait(topic, value, partition=partition, headers=headers)
        raise Died


async def test_a_feed_that_died_in_the_middle_of_a_transaction_goes_on_where_the_one_before_ended(
    config: Settings,
) -> None:
    reached: dict[int, Reached] = {}
    for lives in (0, 1, 2, 3, 3):  # who it is not said, said, the session told, its beginning there, more of it
        with pytest.raises(Died):
            sessions = await told(config)
            async with fenced_ingress(config.kafka, MARKET_TICKS, DyingProducer(config.kafka, lives), sessions) as ours:
                reached = {p: end.reached for p, end in enumerate(ours.ends) if end.open_ns >= 0}
                await Feed(MARKET, config, ours, sessions.opened, former=sessions.feed).run(asyncio.Event())
    assert reached.keys() == {0, 1}
    assert await run_market_feed(config, asyncio.Event(), source=MARKET)
    assert len((await told(config)).opened) == 2
    assert_market_is_whole([r async for r in read_topic(config.kafka, MARKET_TICKS.name)], DAYS)


async def test_a_feed_whose_place_was_taken_ends_with_a_clear_message(config: Settings) -> None:
    slow = config.model_copy(update={"market": config.market.model_copy(update={"speed": 60.0})})
    first = asyncio.create_task(run_market_feed(slow, asyncio.Event(), source=MARKET))
    async with asyncio.timeout(30):
        while not await ends(config):
            await asyncio.sleep(0.1)
    assert await run_market_feed(config, asyncio.Event(), source=MARKET)
    with pytest.raises(FeedTakenOver, match="one Kafka has one feed"):
        await asyncio.wait_for(first, 30)
    # What aiokafka leaves unread of a fenced producer must not complain in the middle of an import.
    del first
    gc.collect()
    assert_market_is_whole([r async for r in read_topic(config.kafka, MARKET_TICKS.name)], DAYS)
