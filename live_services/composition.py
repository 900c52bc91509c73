"""The composition root of the live side: settings become clients, clients become services; nothing else does this."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

import structlog

from live_services.domain.topics import BROKERS, MODELS_PROMOTED, Scope, consumer_group, market_topic
from live_services.failures import CommandFailed
from live_services.next_steps import to_type
from live_services.settings import Settings, home_directory, load_settings
from models_registry.specification import Broker

if TYPE_CHECKING:
    from feature_store.market.types import Session
    from live_services.adapters.metrics import Metrics
    from live_services.adapters.spans import Tracing
    from live_services.adapters.telemetry import LiveTelemetry
    from live_services.backtest.engine import EngineConfig
    from live_services.domain.basis import Stamp
    from live_services.domain.log import TaskId
    from live_services.domain.pipeline import BrokerPlan
    from live_services.runtime.chain import Chain
    from live_services.services.model_loading import ModelLoader
    from models_registry.ledger import PromotionLedger
    from models_registry.promotion import PromotionRecord
    from models_registry.registry import Registry

_log = structlog.get_logger("application")

_LOOPBACK_HOSTS: Final = ("127.0.0.1", "localhost", "::1")
_WITHOUT_GATEWAY: Final = ("zerodha_trading",)
"""Trading stages that there is no service for yet."""


def keep_loopback_off_the_proxy() -> None:
    """Say in the environment, and so to every child, that no proxy knows the servers on this machine."""
    proxies = [name for name, value in os.environ.items() if value and name.lower().endswith("_proxy")]
    if not any(name.lower() != "no_proxy" for name in proxies):
        return  # naming an exception alone would make clients on macOS forget the system's own proxy
    written = ",".join(os.environ.get(name, "") for name in ("no_proxy", "NO_PROXY"))
    hosts = list(dict.fromkeys(host.strip() for host in written.split(",") if host.strip()))
    if "*" not in hosts:  # which already means all, and only when it stands alone
        hosts += [host for host in _LOOPBACK_HOSTS if host not in hosts]
        os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join(hosts)  # clients read one or the other


def read_settings(**options: Any) -> Settings:
    """Read the settings; a home set in the file becomes everybody's home."""
    settings = load_settings(**options)
    if settings.alpha_panda_home.absolute() != home_directory().absolute():
        os.environ["ALPHA_PANDA_HOME"] = str(settings.alpha_panda_home.absolute())
        settings = load_settings(**options)
    return settings


# --- what runs ------------------------------------------------------------------------------------------------------

Run = Callable[[Settings, Broker, asyncio.Event], Awaitable[None]]
"""Does all that a process does until the event is set; a shared one does not ask which broker it is."""
Build = Callable[[Settings, Broker, "LiveTelemetry"], AbstractAsyncContextManager["Chain"]]
"""Builds a chain of services; what it needs beside itself runs for as long as the block."""


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """One process of the live side; the supervisor, ``alpha-panda run`` and ``status`` know the processes from here."""

    name: str
    """What it is called, with the broker in front where there is one for each broker."""
    scope: Literal["shared", "broker"]
    """Whether one runs for all, or one for each broker."""
    services: tuple[str, ...]
    """The services in it, by the names that health and metrics have, in the chain's order; ``{broker}`` stands for one.
    """
    run: Run
    is_chain: bool = True
    """Whether it is a group that consumes the market."""
    needs_model: bool = False
    """Whether it has nothing to do before a model is promoted."""
    may_be_over: bool = False
    """Whether it ends by itself when it has done all it had to do, and is not started again then."""

    def hosts(self, scope: Scope) -> tuple[str, ...]:
        """Name the services in it; a real broker's trading stage is none of them before there is a gateway."""
        named = tuple(service.format(broker=scope) for service in self.services)
        return tuple(service for service in named if service not in _WITHOUT_GATEWAY)


def processes(settings: Settings) -> tuple[tuple[ServiceEntry, Scope], ...]:
    """Decide from the settings what runs: what is shared, then what each active broker has."""
    shared: list[tuple[ServiceEntry, Scope]] = [(entry, "shared") for entry in SERVICES if entry.scope == "shared"]
    of_brokers = [entry for entry in SERVICES if entry.scope == "broker"]
    return (*shared, *((entry, broker) for broker in running_brokers(settings) for entry in of_brokers))


def skip_reason(settings: Settings, broker: Broker) -> str | None:
    """Say why a broker's account does not run, or None when it does: ``ACTIVE_BROKERS`` decides."""
    if broker in settings.active_brokers:
        return None
    return f"it is not in ACTIVE_BROKERS: {', '.join(settings.active_brokers) or 'none is'}"


def trading_off(settings: Settings, broker: Broker) -> str | None:
    """Say why an account that runs gives no orders, or None when it does: ``TRADING__<BROKER>__ENABLED`` decides."""
    if not getattr(settings.trading, broker).enabled:
        return f"TRADING__{broker.upper()}__ENABLED is false: proposals are judged, and no order is given"
    if f"{broker}_trading" in _WITHOUT_GATEWAY:
        from live_services.services.account import NO_GATEWAY

        return f"TRADING__{broker.upper()}__ENABLED is true, but {NO_GATEWAY}"
    return None


def running_brokers(settings: Settings) -> tuple[Broker, ...]:
    """Give the brokers whose accounts run, whether they trade or not."""
    return tuple(broker for broker in BROKERS if skip_reason(settings, broker) is None)


def skipped(settings: Settings) -> tuple[str, ...]:
    """Say, one line each, what does not run and why: accounts, and the trading stages of those that do."""
    return tuple(line for broker in BROKERS for line in _skipped_of(settings, broker))


def _skipped_of(settings: Settings, broker: Broker) -> Iterator[str]:
    reason, off = skip_reason(settings, broker), trading_off(settings, broker)
    if reason is not None:
        yield f"skipping {broker}.account ({reason})"
    elif off is not None:
        yield f"skipping {broker}_trading ({off})"


def runnable(name: str, broker: str, settings: Settings) -> tuple[ServiceEntry, Broker]:
    """Find a process by its name, and the broker that it is to run for.

    Raises
    ------
    CommandFailed
        There is no such process or broker, or the broker is not to run.
    """
    chosen = next((b for b in BROKERS if b == broker), None)
    if chosen is None:
        raise CommandFailed(f"there is no broker {broker!r}; choose one of {', '.join(BROKERS)}")
    entry = next((e for e in SERVICES if e.name == name), None)
    if entry is None:
        raise CommandFailed(f"there is no service {name!r}; choose one of {', '.join(e.name for e in SERVICES)}")
    if entry.scope == "broker":
        reason = skip_reason(settings, chosen)
        if reason is not None:
            raise CommandFailed(f"{broker} is not to run: {reason}")
    return entry, chosen


async def run_process(entry: ServiceEntry, broker: Broker, settings: Settings, stop: asyncio.Event) -> None:
    """Run a process of the table until the event is set; says what starts, and what is skipped."""
    scope: Scope = broker if entry.scope == "broker" else "shared"
    for line in _skipped_of(settings, broker) if entry.scope == "broker" else ():
        _log.info(line)
    for service in entry.hosts(scope):
        _log.info("starting", service=service, broker=scope)
    await entry.run(settings, broker, stop)


async def _market_feed(settings: Settings, _broker: Broker, stop: asyncio.Event) -> None:
    from live_services.adapters.groups import groups_begin
    from live_services.adapters.readiness import market_arrives, model_arrives
    from live_services.adapters.telemetry import LiveTelemetry
    from live_services.runtime.heap import freeze_heap
    from live_services.services.feed_health import FeedHealth
    from live_services.services.market_feed import run_market_feed

    async with LiveTelemetry(settings, "market_feed") as telemetry:
        telemetry.active("market_feed", "shared")
        if not await market_arrives(settings, stop, telemetry.waits):
            return
        if not await model_arrives(settings, stop, telemetry.waits):
            return
        # Who is not there when a session begins would begin with the next one.
        groups = [consumer_group(entry.name, scope) for entry, scope in processes(settings) if entry.is_chain]
        await groups_begin(settings.kafka, market_topic(settings.market.feed), groups, stop)
        _started(telemetry, "market_feed", "shared")
        freeze_heap()
        with tracing_of(settings, "market_feed", "shared") as tracing:
            progress = FeedHealth(telemetry)
            await run_market_feed(settings, stop, progress, times=telemetry.metrics, spans=tracing.feed())


def member_name(settings: Settings) -> str:
    """Name a process in the consumer groups, the same after a restart: by its home, where each process is once."""
    if settings.runtime.member:
        return settings.runtime.member
    home = f"{socket.gethostname()}:{settings.alpha_panda_home.absolute()}"
    return f"home-{hashlib.sha256(home.encode()).hexdigest()[:16]}"


def _started(telemetry: LiveTelemetry, service: str, scope: Scope) -> None:
    _log.info("started", service=service, broker=scope)
    telemetry.active(service, scope)


def _chain(name: str, build: Build, *, of_broker: bool = False) -> Run:
    """Give the process of a chain: it waits for the market, builds the services and hands them to the runtime."""

    async def run(settings: Settings, broker: Broker, stop: asyncio.Event) -> None:
        from feature_store.provenance import code_digest
        from live_services.adapters.readiness import market_arrives
        from live_services.adapters.sessions import MarketSessions
        from live_services.adapters.snapshot_files import SnapshotFiles
        from live_services.adapters.telemetry import LiveTelemetry
        from live_services.runtime.heap import freeze_heap, give_back
        from live_services.runtime.loop import run_chain

        scope: Scope = broker if of_broker else "shared"
        async with LiveTelemetry(settings, name, scope) as telemetry:
            if not await market_arrives(settings, stop, telemetry.waits):
                return
            async with build(settings, broker, telemetry) as chain:
                for service in chain.services:
                    _started(telemetry, service.name, service.scope)
                give_back()
                with tracing_of(settings, name, scope) as tracing:
                    sessions, member = MarketSessions(settings.kafka), member_name(settings)
                    await run_chain(
                        chain,
                        settings,
                        sessions,
                        telemetry,
                        stop,
                        tracing=tracing,
                        member=member,
                        settled=freeze_heap,
                        snapshots=SnapshotFiles(settings.alpha_panda_home / "snapshots", code_digest()),
                    )

    return run


@asynccontextmanager
async def _strategy_runner(settings: Settings, _broker: Broker, telemetry: LiveTelemetry) -> AsyncIterator[Chain]:
    from live_services.adapters.history import StoredHistory
    from live_services.adapters.kept_histories import HistoryFiles
    from live_services.adapters.online_features import OnlinePublisher
    from live_services.adapters.opened_for import brokers_opened_for
    from live_services.runtime.chain import Chain
    from live_services.services.strategy_runner import StrategyRunner

    metrics = telemetry.metrics
    count = partial(metrics.online_block, "shared")
    async with _loader(settings, metrics) as loader, OnlinePublisher(settings, count) as rows:
        runner = StrategyRunner(
            settings,
            loader,
            stamp(settings),
            brokers=running_brokers(settings),
            opened_for=await brokers_opened_for(settings.kafka),
            rows=rows,
            history=StoredHistory(settings),
            kept=HistoryFiles(settings.kept_history),
            inferred=metrics.inferred,
        )
        yield Chain("strategy_runner", (runner,))


@asynccontextmanager
async def _skew_monitor(settings: Settings, _broker: Broker, _telemetry: LiveTelemetry) -> AsyncIterator[Chain]:
    from live_services.adapters.history import StoredHistory
    from live_services.adapters.kept_histories import HistoryFiles
    from live_services.runtime.chain import Chain
    from live_services.services.skew_monitor import SkewMonitor

    kept = HistoryFiles(settings.kept_history)
    monitor = SkewMonitor(settings, StoredHistory(settings), kept=kept, brokers=running_brokers(settings))
    yield Chain("skew_monitor", (monitor,))


@asynccontextmanager
async def _account(settings: Settings, broker: Broker, _telemetry: LiveTelemetry) -> AsyncIterator[Chain]:
    from live_services.services.account import account_chain

    market, config = market_topic(settings.market.feed), getattr(settings.trading, broker)
    yield account_chain(broker, market, config, stamp(settings), trading_off=trading_off(settings, broker))


async def _pipeline_validator(settings: Settings, _broker: Broker, stop: asyncio.Event) -> None:
    from live_services.adapters.telemetry import LiveTelemetry
    from live_services.services.pipeline_validator import PipelineValidator

    async with LiveTelemetry(settings, "pipeline_validator") as telemetry:
        plans = [broker_plan(settings, broker) for broker in BROKERS]
        warn = telemetry.metrics.validator_warning
        validator = PipelineValidator(settings, plans, reporting_tasks(settings), telemetry, warn)
        async with validator:
            _started(telemetry, validator.name, validator.scope)
            await validator.run(stop)


def broker_plan(settings: Settings, broker: Broker) -> BrokerPlan:
    """Say of a broker what the pipeline validator goes by: its strategies, and whether it runs and trades."""
    from live_services.domain.pipeline import BrokerPlan

    strategies = tuple(strategy.name for strategy in settings.strategies if broker in strategy.brokers)
    return BrokerPlan(broker, strategies, skip_reason(settings, broker), trading_off(settings, broker))


def reporting_tasks(settings: Settings) -> tuple[TaskId, ...]:
    """Name every service of every task of the runner and the accounts: all that say in Redis how they are."""
    from live_services.domain.log import TaskId

    runner = (TaskId("strategy_runner", "shared", p) for p in range(settings.kafka.market_partitions))
    (account,) = (entry for entry in SERVICES if entry.name == "account")
    return (*runner, *(TaskId(name, b, 0) for b in running_brokers(settings) for name in account.hosts(b)))


SERVICES: Final[tuple[ServiceEntry, ...]] = (
    ServiceEntry(
        "market_feed", "shared", ("market_feed",), _market_feed, is_chain=False, needs_model=True, may_be_over=True
    ),
    ServiceEntry(
        "strategy_runner", "shared", ("strategy_runner",), _chain("strategy_runner", _strategy_runner), needs_model=True
    ),
    ServiceEntry(
        "account",
        "broker",
        ("risk_manager", "{broker}_trading", "portfolio_manager"),
        _chain("account", _account, of_broker=True),
    ),
    ServiceEntry("skew_monitor", "shared", ("skew_monitor",), _chain("skew_monitor", _skew_monitor)),
    ServiceEntry("pipeline_validator", "shared", ("pipeline_validator",), _pipeline_validator, is_chain=False),
)
"""Every process there is, in the order in which a tick meets them; last the one that looks at the others."""

# --- what they are made of ------------------------------------------------------------------------------------------


@asynccontextmanager
async def _loader(settings: Settings, metrics: Metrics) -> AsyncIterator[ModelLoader]:
    from live_services.services.model_loading import build_loader

    brokers = running_brokers(settings)
    loader = build_loader(settings, build_registry(settings), build_ledger(settings), brokers, metrics)
    nudges = asyncio.create_task(_nudge(settings, loader, metrics), name="promotions")
    try:
        yield loader
    finally:
        nudges.cancel()
        await asyncio.gather(nudges, return_exceptions=True)
        await loader.stop()


async def _nudge(settings: Settings, loader: ModelLoader, metrics: Metrics) -> None:
    from live_services.adapters.kafka import follow
    from live_services.domain.events import ModelPromoted, event_or_none

    async for record in follow(settings.kafka, [MODELS_PROMOTED.name]):
        loader.nudge()
        if isinstance(promoted := event_or_none(record.value), ModelPromoted):
            metrics.promoted(promoted.alias)


@contextmanager
def tracing_of(settings: Settings, process: str, scope: Scope) -> Iterator[Tracing]:
    """Give where a process tells of its work, as spans if they are asked for; what traces is not loaded otherwise."""
    from live_services.adapters.spans import NoTracing

    if not settings.tracing.enabled:
        yield NoTracing()
        return
    from live_services.adapters.tracing import LiveTracing, otlp_exporter

    tracing = LiveTracing(otlp_exporter(settings.tracing), settings.tracing, process, scope)
    try:
        yield tracing
    finally:
        tracing.close()


def build_registry(settings: Settings) -> Registry:
    """Build the client of the model registry.

    Raises
    ------
    CommandFailed
        If no address is known.
    """
    from models_registry.registry import Registry

    if not settings.mlflow.tracking_uri:
        raise CommandFailed(f"no model registry is known: start one with {to_type('up')}, or set MLFLOW__TRACKING_URI")
    return Registry(settings.mlflow.tracking_uri)


def build_ledger(settings: Settings) -> PromotionLedger:
    """Build the promotion ledger."""
    from models_registry.ledger import PromotionLedger

    return PromotionLedger(settings.ledger_url)


def stamp(settings: Settings) -> Stamp:
    """Say which configuration and which code make this process's outputs."""
    from feature_store.provenance import code_commit
    from live_services.domain.basis import Stamp

    return Stamp(settings.digest, code_commit())


def engine_config(settings: Settings) -> EngineConfig:
    """Give what a backtest runs the desk of these settings with; its accounts trade, enabled or not."""
    from live_services.backtest.engine import EngineConfig

    return EngineConfig(
        settings.strategies,
        {broker: getattr(settings.trading, broker) for broker in running_brokers(settings)},
        bar_minutes=settings.market.bar_minutes,
        market_partitions=settings.kafka.market_partitions,
        stamp=stamp(settings),
    )


def replay_sessions(settings: Settings) -> tuple[Session, ...]:
    """Give the stored sessions that the feed replays, in order.

    Raises
    ------
    live_services.services.feed_plan.FeedError
        If there is none.
    """
    from live_services.services.feed_plan import replayed_sessions

    return replayed_sessions(settings)


def announcer(settings: Settings, tell: Callable[[str], None]) -> Callable[[PromotionRecord], None]:
    """Give what publishes ``models.promoted``; without a Kafka that answers it says so, and the promotion stands."""
    from live_services.adapters.promotions import announce_promotion

    def announce(record: PromotionRecord) -> None:
        problem = announce_promotion(settings.kafka, record)
        if problem is not None:
            tell(f"models.promoted was not published ({problem}); live services find the promotion by their poll")

    return announce
