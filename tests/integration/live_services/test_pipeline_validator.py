"""The pipeline validator on a real Kafka and a real Valkey: each issue is provoked on them and named rightly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import redis
import structlog

from live_services.adapters.feed_producer import FeedProducer
from live_services.adapters.health import TaskHealth
from live_services.adapters.kafka import create_topics
from live_services.adapters.metrics import Metrics
from live_services.adapters.pipeline_view import KafkaView, MarketView, Unavailable
from live_services.adapters.sessions import MarketSessions
from live_services.adapters.telemetry import LiveTelemetry, NoTelemetry
from live_services.cli.pipeline_findings import read_pipeline_findings
from live_services.composition import broker_plan, reporting_tasks
from live_services.domain import keys
from live_services.domain.basis import Stamp
from live_services.domain.clock import session_end_ns, watermark
from live_services.domain.events import Event
from live_services.domain.frames import encode_tick_frame
from live_services.domain.limits import AccountConfig
from live_services.domain.log import MarketSlice, Record, TaskId
from live_services.domain.topics import BROKERS, MARKET_SESSIONS, MARKET_TICKS, consumer_group
from live_services.machine.embedded import kafka_spec, running, valkey_spec
from live_services.runtime.chain import Chain
from live_services.runtime.loop import run_chain
from live_services.services.account import account_chain
from live_services.services.pipeline_validator import PipelineValidator
from live_services.settings import Settings
from tests.kafka_desk import begin_anew
from tests.live_world import OPEN, SECOND, SESSION, UNIVERSE, signal, ticks
from tests.toy_chain import StrategyState, ToyStrategy, session_opened

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

ACCOUNT = tuple(TaskId(name, "paper", 0) for name in ("risk_manager", "paper_trading", "portfolio_manager"))


class Runner(ToyStrategy):
    """Proposes every third tick, one instrument after another, under the runner's name."""

    name = "strategy_runner"

    def handle(self, record: Record, state: StrategyState, now_ns: int) -> Iterator[Event]:
        if isinstance(record, MarketSlice):
            state.seen += len(record)
            if state.seen % 3 == 0:
                yield signal(state.seen // 3 % 3, (now_ns - OPEN) / SECOND)


class Home:
    """A desk whose parts come and go, and a validator that looks at it."""

    def __init__(self, settings: Settings, producer: FeedProducer, valkey: ExitStack) -> None:
        self.settings = settings
        self.valkey = valkey
        self.metrics = Metrics(["momentum"])
        plans = [broker_plan(settings, broker) for broker in BROKERS]
        self.validator = PipelineValidator(
            settings, plans, reporting_tasks(settings), NoTelemetry(), self.metrics.validator_warning
        )
        self._producer = producer
        self._frames = 0
        self.seconds = 0

    async def feed(self, frames: int = 1) -> None:
        """Say so many seconds more of the market."""
        for _ in range(frames):
            self.seconds += 1
            frame = encode_tick_frame(
                ticks((0, self.seconds - 0.5, 100.0)), UNIVERSE, self._frames, OPEN + self.seconds * SECOND, SESSION
            )
            self._producer.say_frame(MARKET_TICKS, 0, frame)
            self._frames += 1
        await self._producer.flush()

    async def mark(self, at_ns: int) -> None:
        self._producer.say_on(MARKET_TICKS, 0, watermark(MARKET_TICKS, 0, SESSION, at_ns, UNIVERSE.digest))
        await self._producer.flush()

    async def begin(self) -> None:
        self._producer.say(session_opened(SESSION, UNIVERSE))
        await self.mark(OPEN)

    async def until(self, wanted: set[tuple[str, str]], *, feeding: int = 0, gate: str = "watched") -> None:
        """Look until just that is found, while the market goes on with so many seconds at a time."""
        seen: Any = None
        try:
            async with asyncio.timeout(20):
                while True:
                    await self.feed(feeding)
                    (paper, _zerodha) = await self.validator.look()
                    seen = paper
                    if paper.gate.state == gate and {(one.stage, one.issue) for one in paper.findings} == wanted:
                        return
                    await asyncio.sleep(0.2)
        except TimeoutError:
            pytest.fail(f"{wanted} was not found in time, at last: {seen}")

    @asynccontextmanager
    async def runs(self, chain: Chain) -> AsyncIterator[None]:
        """Run a chain in this process until the block ends, as if it were killed then."""
        telemetry = LiveTelemetry(self.settings, chain.name, chain.scope)
        async with telemetry:
            sessions = MarketSessions(self.settings.kafka)
            task = asyncio.create_task(run_chain(chain, self.settings, sessions, telemetry, asyncio.Event()))
            try:
                yield
            finally:
                task.cancel()
                with suppress(asyncio.CancelledError):
                    await task


@pytest.fixture
async def home(kafka_servers: str, tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Home]:
    """A desk without anything on its log; its Valkey is `home.valkey`, which the test may stop."""
    latency_ms = getattr(request, "param", 60_000)
    with ExitStack() as valkey:
        spec = valkey_spec(tmp_path / "valkey")
        valkey.enter_context(running(spec))
        settings = Settings.model_validate(
            {
                "alpha_panda_home": tmp_path,
                "kafka": {"bootstrap_servers": kafka_servers, "market_partitions": 1},
                "redis": {"url": spec.endpoint},
                "strategies": [{"name": "momentum", "model": "momentum", "brokers": ["paper"]}],
                "market": {"speed": 1.0},
                "monitoring": {
                    "no_recent_data_seconds": 2.5,
                    "stuck_seconds": 2.5,
                    "consumer_lag_records": 30,
                    "high_latency_ms": latency_ms,
                },
            }
        )
        await begin_anew(settings)
        async with FeedProducer(settings.kafka, 10_000) as producer:
            home = Home(settings, producer, valkey)
            async with home.validator:
                yield home


def account() -> Chain:
    return account_chain("paper", MARKET_TICKS, AccountConfig(), Stamp())


async def test_a_day_in_which_everything_goes_wrong_once_is_told_rightly(home: Home) -> None:
    await home.until(set(), gate="idle")
    async with home.runs(Chain("strategy_runner", (Runner(),))):
        async with home.runs(account()):
            await home.begin()
            await home.until(set(), feeding=1)
            # The market stands still: nobody behind it is to blame, however long.
            await home.until({("market_data", "no_recent_data")})
            await asyncio.sleep(home.settings.monitoring.stuck_seconds)
            await home.until({("market_data", "no_recent_data")})
            await home.until(set(), feeding=1)
        # The account is gone, and records pile up before it.
        gone = {(stage, "no_recent_data") for stage in ("risk", "orders", "portfolio")}
        await home.until({*gone, ("risk", "consumer_lag")}, feeding=2)
        # One that says it is alive, and handles nothing.
        async with LiveTelemetry(home.settings, "account", "paper") as alive:
            for task in ACCOUNT:
                alive.report(TaskHealth(task, OPEN, "2026-01-05", True, 1, {}, 0, 0, 0, "", 1))
            await home.until({("risk", "stuck_consumer"), ("risk", "consumer_lag")}, feeding=1)
            for task in ACCOUNT:
                alive.withdraw(task)
        # The session is over, and not for the account: it is watched until it has caught up.
        await home.mark(session_end_ns(SESSION))
        await home.until({*gone, ("risk", "consumer_lag")})
        async with home.runs(account()):
            await home.until(set(), gate="idle")


@pytest.mark.parametrize("home", [0.001], indirect=True)
async def test_answers_that_take_too_long_are_a_latency_at_their_stage(home: Home) -> None:
    async with home.runs(Chain("strategy_runner", (Runner(),))), home.runs(account()):
        await home.begin()
        await home.until({("signals", "high_latency"), ("orders", "high_latency")}, feeding=1)


async def test_what_stands_in_redis_is_told_apart_from_a_redis_that_is_away(home: Home) -> None:
    everywhere = {(stage, "no_recent_data") for stage in ("signals", "risk", "orders", "portfolio")}
    await home.begin()
    await home.until(everywhere, feeding=1)
    with structlog.testing.capture_logs() as lines:
        with redis.Redis.from_url(home.settings.redis.url.get_secret_value()) as client:
            key = keys.task_health("paper", "risk_manager", 0)
            client.set(key, b"\xff{")
            client.set(keys.task_health("shared", "strategy_runner", 0), '{"watermark_ns": 1}')
            client.set(keys.portfolio("paper"), "[]")
            told = {("risk", "metrics_parse_error"), ("signals", "validation_error"), ("portfolio", "validation_error")}
            left = {("orders", "no_recent_data"), ("portfolio", "no_recent_data")}
            await home.until({*told, *left}, feeding=1)
            (said, _zerodha) = read_pipeline_findings(client)
            assert {(one.stage, one.issue) for one in said.findings} == {*told, *left}
            other = keys.task_health("paper", "portfolio_manager", 0)
            async with LiveTelemetry(home.settings, "account", "paper") as alive:
                alive.report(TaskHealth(TaskId("risk_manager", "paper", 0), 0, "", True, 1, {}, 0, 0, 0, "", 1))
                async with asyncio.timeout(10):
                    while client.get(key) == b"\xff{":
                        await asyncio.sleep(0.1)
                client.set(other, client.get(key))
                await home.until(
                    {("signals", "validation_error"), ("portfolio", "validation_error"), ("orders", "no_recent_data")},
                    feeding=1,
                )
        home.valkey.close()
        await home.until(
            {(stage, "redis_unavailable") for stage in ("signals", "risk", "orders", "portfolio")}, feeding=1
        )
        for _ in range(3):
            await home.validator.look()
    told_away = [line for line in lines if line["event"] == "redis_unavailable"]
    assert [(line["broker"], line["stages"]) for line in told_away] == [
        ("paper", ["signals", "risk", "orders", "portfolio"])
    ]
    labels = {"stage": "risk", "broker": "paper", "issue": "redis_unavailable"}
    assert (home.metrics.registry.get_sample_value("validator_warnings_total", labels) or 0) >= 4


async def test_a_kafka_that_goes_away_is_not_a_market_that_stands_still_and_is_asked_again(tmp_path: Path) -> None:
    spec = kafka_spec(tmp_path)
    settings = Settings.model_validate({"kafka": {"bootstrap_servers": spec.endpoint, "market_partitions": 1}})
    group = consumer_group("strategy_runner", "shared")
    with running(spec):
        await create_topics(settings, [MARKET_SESSIONS, MARKET_TICKS])
        view = KafkaView(settings.kafka, MARKET_TICKS, [group])
        await view.__aenter__()
        assert await view.look() == MarketView(None, {}, {group: {}})
    with pytest.raises(Unavailable, match="Kafka does not answer"):
        await view.look()
    await view.__aexit__(None, None, None)
