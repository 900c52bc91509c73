"""A session on real servers that goes on from stored sessions: online rows, WARMING, skew, one flipped bit."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from pydantic import SecretStr
from typer.testing import CliRunner

from feature_store.bars.builder import bars_of_session
from feature_store.features.engine import feature_table
from feature_store.market.clocks import BarClock
from feature_store.market.types import Bars, Instrument, Session, Universe
from feature_store.offline.store import OfflineStore
from feature_store.online.blocks import block_key, pack
from feature_store.online.store import OnlineStore
from live_services.adapters.groups import groups_begin
from live_services.adapters.health import TaskHealth
from live_services.adapters.history import StoredHistory
from live_services.adapters.kafka import read_topic
from live_services.adapters.online_features import OnlinePublisher
from live_services.adapters.sessions import MarketSessions
from live_services.adapters.stored_market import Replay
from live_services.adapters.telemetry import NoTelemetry, Telemetry
from live_services.backtest.engine import MarketDay, assignments_at_open, run_session
from live_services.cli.main import app
from live_services.cli.skew_check import check_skew
from live_services.composition import engine_config
from live_services.domain.basis import Stamp
from live_services.domain.clock import session_end_ns
from live_services.domain.events import Event, FeatureSkewMeasured, StrategyHistoryUsed, Watermark, decode_event
from live_services.domain.topics import FEATURES_SKEW, MARKET_TICKS, STRATEGIES_CONTROL, broker_topics, consumer_group
from live_services.machine.embedded import embedded_valkey
from live_services.runtime.chain import Chain
from live_services.runtime.loop import run_chain
from live_services.runtime.service import Service
from live_services.services.market_feed import run_market_feed
from live_services.services.skew_monitor import SkewMonitor
from live_services.services.strategy_runner import StrategyRunner
from live_services.settings import KafkaSettings, MarketSettings, RedisSettings, Settings, SkewSettings
from models_registry.specification import StrategySpec
from tests.integration.live_services.test_trading_chain import FixedModel
from tests.kafka_desk import begin_anew
from tests.live_world import SESSION, loaded_model, random_walk, session_bars
from tests.stored_sessions import GivenMarket, days_of

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]

PAPER = broker_topics("paper")
UNIVERSE = Universe.ordered(
    [Instrument(instrument_token=300, symbol="SYN INDEX", tradable=False)]
    + [Instrument(instrument_token=101 + k, symbol=f"S{k}") for k in range(5)]
)
NAMES = ["momentum", "rsi", "relative_strength", "trend_slope@5m", "vwap_distance"]
MODEL = loaded_model(names=NAMES)
REPLAY = Replay(SESSION, UNIVERSE, random_walk(6, minutes=40, per_minute=12, seed=6))


class Kept(NoTelemetry):
    """Keeps what the runtime reports."""

    def __init__(self) -> None:
        self.health: list[TaskHealth] = []

    def report(self, health: TaskHealth) -> None:
        self.health.append(health)


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    directory: Path = tmp_path_factory.mktemp("valkey")
    with embedded_valkey(directory) as url:
        yield url


@pytest.fixture
async def config(kafka_servers: str, redis_url: str, tmp_path: Path) -> Settings:
    config = Settings(
        alpha_panda_home=tmp_path,
        kafka=KafkaSettings(bootstrap_servers=kafka_servers, market_partitions=2),
        redis=RedisSettings(url=SecretStr(redis_url)),
        market=MarketSettings.model_validate(days_of([REPLAY])),
        strategies=(StrategySpec(name="momentum", holding_bars=3),),
        skew=SkewSettings(instruments=len(UNIVERSE)),
    )
    with redis.Redis.from_url(redis_url) as client:
        client.flushdb()
    await begin_anew(config)
    store = OfflineStore(config.store_root)
    for k in range(4, 0, -1):
        session = Session.regular(SESSION.date - dt.timedelta(days=k))
        store.write_bars(session, UNIVERSE, session_bars(session, len(UNIVERSE), 120, seed=3), "TEST")
    return config


async def events_on(config: Settings, topic: str) -> list[Event]:
    return [decode_event(record.value, record.headers) async for record in read_topic(config.kafka, topic)]


async def until_signals_end(config: Settings) -> None:
    async with asyncio.timeout(90):
        while True:
            found = [e for e in await events_on(config, PAPER.signals_raw.name) if isinstance(e, Watermark)]
            ended = [e for e in found if e.event_time_ns >= session_end_ns(SESSION)]
            if len(ended) >= 2:
                return
            await asyncio.sleep(0.3)


async def run(config: Settings) -> tuple[Kept, Counter[str]]:
    stop, telemetry, blocks = asyncio.Event(), Kept(), Counter[str]()
    history = StoredHistory(config)
    async with OnlinePublisher(config, lambda outcome: blocks.update([outcome])) as rows:
        runner = StrategyRunner(config, FixedModel(config, MODEL), Stamp(), rows=rows, history=history)
        async with asyncio.TaskGroup() as group:
            for service in (runner, SkewMonitor(config, history)):
                group.create_task(run_alone(service, config, telemetry, stop))
            await all_there(config, (runner.name, SkewMonitor.name), stop)
            assert await run_market_feed(config, stop, source=GivenMarket([REPLAY]))
            await until_signals_end(config)
            async with asyncio.timeout(60):
                while not [e for e in await measured(config) if e.rows_equal] or not blocks["written"]:
                    await asyncio.sleep(0.3)
            signals = [e for e in await events_on(config, PAPER.signals_raw.name) if not isinstance(e, Watermark)]
            async with asyncio.timeout(60):
                while sum(e.rows_equal + e.rows_different for e in await measured(config)) < len(signals):
                    await asyncio.sleep(0.3)
            stop.set()
    return telemetry, blocks


async def all_there(config: Settings, services: Sequence[str], stop: asyncio.Event) -> None:
    """Wait for the groups of services, as the feed's process does."""
    groups = [consumer_group(name, "shared") for name in services]
    await groups_begin(config.kafka, MARKET_TICKS, groups, stop)


async def run_alone(service: Service[Any], config: Settings, telemetry: Telemetry, stop: asyncio.Event) -> None:
    await run_chain(Chain(service.name, (service,)), config, MarketSessions(config.kafka), telemetry, stop)


async def measured(config: Settings) -> list[FeatureSkewMeasured]:
    return [e for e in await events_on(config, FEATURES_SKEW.name) if isinstance(e, FeatureSkewMeasured)]


async def test_a_session_goes_on_from_stored_sessions_and_one_flipped_bit_is_found(
    config: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    telemetry, blocks = await run(config)

    # live == engine, on the same history
    signals = [e for e in await events_on(config, PAPER.signals_raw.name) if not isinstance(e, Watermark)]
    history = StoredHistory(config).of(SESSION, UNIVERSE)
    assigned = assignments_at_open(SESSION, {"momentum": MODEL})
    engine = run_session(MarketDay(SESSION, UNIVERSE, REPLAY.market, assigned, history), engine_config(config))
    expected = {e.event_id: e.model_dump(exclude={"basis"}) for e in engine if e.event_type == "signal.generated"}
    assert {e.event_id: e.model_dump(exclude={"basis"}) for e in signals} == expected
    assert len(signals) > 20

    # what it stands on is on the log, once for each task
    used = [e for e in await events_on(config, STRATEGIES_CONTROL.name) if isinstance(e, StrategyHistoryUsed)]
    assert [(e.digest, e.sessions) for e in used] == [(history.digest, history.sessions)] * 2
    warm = [h.readiness for h in telemetry.health if h.readiness is not None]
    assert {(r.instruments, r.warming) for r in warm} <= {(2, ()), (3, ())}
    assert warm

    # the monitor compared every row
    said = await measured(config)
    assert sum(e.rows_equal for e in said) == len(signals)
    assert sum(e.rows_different for e in said) == 0

    # the online store has the rows of a full history
    bars = Bars.concatenate([history.before, bars_of_session(REPLAY.market, SESSION, 6, BarClock.minutes(1))])  # type: ignore[arg-type]
    table, _ = feature_table(bars, MODEL.schema, UNIVERSE)
    store = OnlineStore.connect(config.redis.url.get_secret_value())
    newest = int(bars.end_ns[-1])
    rows = store.read(MODEL.schema, UNIVERSE.instruments, now_ns=newest, max_age_ns=5 * 60 * 10**9)
    assert rows.reasons == {}
    for k in range(len(UNIVERSE)):
        last = np.flatnonzero(bars.instrument == k)[-1]
        assert rows.rows[k].tobytes() == table[last].tobytes()
    assert blocks["written"] >= 2

    # `features verify` agrees, and finds one bit
    report = await check_skew(config)
    assert (report.rows_equal, report.rows_different, report.notes) == (len(signals) + len(UNIVERSE), 0, ())
    block = store.blocks(MODEL.schema)[1]
    changed = block.rows.copy()
    changed[1, 1] = math.nextafter(changed[1, 1], math.inf)
    with redis.Redis.from_url(config.redis.url.get_secret_value()) as client:
        key = block_key(MODEL.schema.hash, block.partition, block.end_ns)
        assert client.exists(key)
        client.set(key, pack(replace(block, rows=changed), MODEL.schema.names))
    (difference,) = (await check_skew(config)).differences
    assert (difference.feature, difference.instrument_token) == ("rsi", int(block.tokens[1]))
    assert difference.bar_end_ns == newest

    monkeypatch.setattr("live_services.cli.main.read_settings", lambda **_: config)
    result = await asyncio.to_thread(CliRunner().invoke, app, ["features", "verify"])
    assert result.exit_code == 1
    assert "rsi of " in result.output
    store.write(MODEL.schema, block)
    result = await asyncio.to_thread(CliRunner().invoke, app, ["features", "verify"])
    assert result.exit_code == 0, result.output
    assert "0 different" in result.output


async def test_without_stored_sessions_everything_is_warming_and_nothing_opens(config: Settings) -> None:
    empty = config.model_copy(update={"alpha_panda_home": config.alpha_panda_home / "empty"})
    stop, telemetry = asyncio.Event(), Kept()
    runner = StrategyRunner(config, FixedModel(config, MODEL), Stamp(), history=StoredHistory(empty))
    async with asyncio.TaskGroup() as group:
        group.create_task(run_alone(runner, config, telemetry, stop))
        await all_there(config, (runner.name,), stop)
        assert await run_market_feed(config, stop, source=GivenMarket([REPLAY]))
        await until_signals_end(config)
        async with asyncio.timeout(30):
            while not [h for h in telemetry.health if h.readiness is not None]:
                await asyncio.sleep(0.1)
        stop.set()
    said = [e for e in await events_on(config, PAPER.signals_raw.name) if not isinstance(e, Watermark)]
    assert said == []
    readiness = [h.readiness for h in telemetry.health if h.readiness is not None][-1]
    assert len(readiness.warming) == readiness.instruments > 0
    assert str(readiness).startswith("WARMING")
