"""The composition root of the live side: settings become clients, clients become services; nothing else does this."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from live_services.domain.topics import BROKERS, MODELS_PROMOTED, Scope, market_topic
from live_services.failures import CommandFailed
from live_services.next_steps import to_type
from live_services.settings import Settings, home_directory, load_settings
from models_registry.specification import Broker

if TYPE_CHECKING:
    from feature_store.market.types import Session, Universe
    from live_services.adapters.telemetry import LiveTelemetry
    from live_services.domain.basis import Stamp
    from live_services.runtime.service import Service
    from live_services.services.model_loading import ModelLoader
    from models_registry.ledger import PromotionLedger
    from models_registry.promotion import PromotionRecord
    from models_registry.registry import Registry

_LOOPBACK_HOSTS: Final = ("127.0.0.1", "localhost", "::1")
_NO_ZERODHA: Final = (
    "zerodha has no trading service yet: nothing of it can be started. Paper trading runs with --broker paper."
)


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
Build = Callable[[Settings, Broker, "LiveTelemetry"], AbstractAsyncContextManager["tuple[Service[Any], Universe]"]]
"""Builds a service; what it needs beside itself runs for as long as the block."""


@dataclass(frozen=True, slots=True)
class ServiceEntry:
    """One process of the live side; the supervisor, ``alpha-panda run`` and ``status`` know the processes from here."""

    name: str
    """What it is called, with the broker in front where there is one for each broker."""
    scope: Literal["shared", "broker"]
    """Whether one runs for all, or one for each broker."""
    hosts: tuple[str, ...]
    """The services in it, by the names that groups, health and metrics have; those of a chain in its order."""
    run: Run
    brokers: tuple[Broker, ...] = ()
    """The brokers that it can run for, if there is one for each."""
    needs_model: bool = False
    """Whether it has nothing to do before a model is promoted."""


def processes(settings: Settings) -> tuple[tuple[ServiceEntry, Scope], ...]:
    """Decide from the settings what runs: what is shared, then what each active and enabled broker has."""
    shared: list[tuple[ServiceEntry, Scope]] = [(entry, "shared") for entry in SERVICES if entry.scope == "shared"]
    running = [broker for broker in BROKERS if skip_reason(settings, broker) is None]
    return (*shared, *((entry, broker) for broker in running for entry in SERVICES if broker in entry.brokers))


def skip_reason(settings: Settings, broker: Broker) -> str | None:
    """Say why a broker does not run, or None when it does."""
    if broker not in settings.active_brokers:
        return f"it is not in ACTIVE_BROKERS ({', '.join(settings.active_brokers)})"
    if not getattr(settings.trading, broker).enabled:
        return f"TRADING__{broker.upper()}__ENABLED is false"
    if not any(broker in entry.brokers for entry in SERVICES):
        return _NO_ZERODHA
    return None


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
        if not any(chosen in e.brokers for e in SERVICES):
            raise CommandFailed(_NO_ZERODHA)
        reason = skip_reason(settings, chosen)
        if reason is not None:
            raise CommandFailed(f"{broker} is not to run: {reason}")
    return entry, chosen


async def _market_feed(settings: Settings, _broker: Broker, stop: asyncio.Event) -> None:
    from live_services.adapters.readiness import market_arrives, model_arrives
    from live_services.services.market_feed import run_market_feed

    if await market_arrives(settings, stop) and await model_arrives(settings, stop):
        await run_market_feed(settings, stop)


def _service(build: Build) -> Run:
    """Give the process of a service: it waits for the market, builds the service and hands it to the runtime."""

    async def run(settings: Settings, broker: Broker, stop: asyncio.Event) -> None:
        from live_services.adapters.readiness import market_arrives
        from live_services.adapters.telemetry import LiveTelemetry
        from live_services.runtime.loop import run_service

        if not await market_arrives(settings, stop):
            return
        async with (
            LiveTelemetry(settings) as telemetry,
            build(settings, broker, telemetry) as (service, universe),
        ):
            await run_service(service, settings, universe, telemetry, stop)

    return run


@asynccontextmanager
async def _strategy_runner(
    settings: Settings, broker: Broker, telemetry: LiveTelemetry
) -> AsyncIterator[tuple[Service[Any], Universe]]:
    from live_services.adapters.history import StoredHistory
    from live_services.adapters.online_features import OnlinePublisher
    from live_services.services.strategy_runner import StrategyRunner

    universe, count = _universe(settings), partial(telemetry.online_block, broker)
    async with _loader(settings) as loader, OnlinePublisher(settings, broker, count) as rows:
        history = await asyncio.to_thread(StoredHistory, settings, universe)
        code = stamp(settings)
        yield StrategyRunner(settings, universe, loader, code, broker=broker, rows=rows, history=history), universe


@asynccontextmanager
async def _risk_manager(
    settings: Settings, broker: Broker, _telemetry: LiveTelemetry
) -> AsyncIterator[tuple[Service[Any], Universe]]:
    from live_services.services.risk_manager import RiskManager

    yield RiskManager(getattr(settings.trading, broker).risk, stamp(settings), broker), _universe(settings)


@asynccontextmanager
async def _paper_trading(
    settings: Settings, broker: Broker, _telemetry: LiveTelemetry
) -> AsyncIterator[tuple[Service[Any], Universe]]:
    from live_services.services.paper_trading import PaperTrading

    universe, market = _universe(settings), market_topic(settings.market.feed)
    costs_bps = getattr(settings.trading, broker).costs_bps
    yield PaperTrading(universe, market, costs_bps, stamp(settings), broker=broker), universe


@asynccontextmanager
async def _portfolio_manager(
    settings: Settings, broker: Broker, _telemetry: LiveTelemetry
) -> AsyncIterator[tuple[Service[Any], Universe]]:
    from live_services.services.portfolio_manager import PortfolioManager

    universe, market = _universe(settings), market_topic(settings.market.feed)
    yield PortfolioManager(universe, market, getattr(settings.trading, broker).pnl_interval_seconds, broker), universe


@asynccontextmanager
async def _skew_monitor(
    settings: Settings, broker: Broker, _telemetry: LiveTelemetry
) -> AsyncIterator[tuple[Service[Any], Universe]]:
    from live_services.adapters.history import StoredHistory
    from live_services.services.skew_monitor import SkewMonitor

    universe = _universe(settings)
    history = await asyncio.to_thread(StoredHistory, settings, universe)
    yield SkewMonitor(settings, universe, history, broker=broker), universe


SERVICES: Final[tuple[ServiceEntry, ...]] = (
    ServiceEntry("market_feed", "shared", ("market_feed",), _market_feed, needs_model=True),
    ServiceEntry(
        "strategy_runner", "broker", ("strategy_runner",), _service(_strategy_runner), ("paper",), needs_model=True
    ),
    ServiceEntry("risk_manager", "broker", ("risk_manager",), _service(_risk_manager), ("paper",)),
    ServiceEntry("paper_trading", "broker", ("paper_trading",), _service(_paper_trading), ("paper",)),
    ServiceEntry("portfolio_manager", "broker", ("portfolio_manager",), _service(_portfolio_manager), ("paper",)),
    ServiceEntry("skew_monitor", "broker", ("skew_monitor",), _service(_skew_monitor), ("paper",)),
)
"""Every process there is, in the order in which a tick meets them."""

# --- what they are made of ------------------------------------------------------------------------------------------


def _universe(settings: Settings) -> Universe:
    from feature_store.offline.store import OfflineStore

    return OfflineStore(settings.store_root).universe()


@asynccontextmanager
async def _loader(settings: Settings) -> AsyncIterator[ModelLoader]:
    from live_services.services.model_loading import build_loader
    from models_registry.promotion import may_run
    from models_registry.refs import Alias

    registry, ledger = build_registry(settings), build_ledger(settings)

    def objection(name: str, model_version: str, rung: Alias) -> str | None:
        return may_run(registry.version(name, model_version), ledger, rung)

    loader = build_loader(settings, registry, objection)
    nudges = asyncio.create_task(_nudge(settings, loader), name="promotions")
    try:
        yield loader
    finally:
        nudges.cancel()
        await asyncio.gather(nudges, return_exceptions=True)
        await loader.stop()


async def _nudge(settings: Settings, loader: ModelLoader) -> None:
    from live_services.adapters.kafka import follow

    async for _ in follow(settings.kafka, [MODELS_PROMOTED.name]):
        loader.nudge()


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


def replay_session(settings: Settings) -> Session:
    """Give the session that the feed replays.

    Raises
    ------
    live_services.services.market_feed.FeedError
        If there is none.
    """
    from live_services.services.market_feed import load_replay

    return load_replay(settings).session


def announcer(settings: Settings, tell: Callable[[str], None]) -> Callable[[PromotionRecord], None]:
    """Give what publishes ``models.promoted``; without a Kafka that answers it says so, and the promotion stands."""
    from live_services.adapters.promotions import announce_promotion

    def announce(record: PromotionRecord) -> None:
        problem = announce_promotion(settings.kafka, record)
        if problem is not None:
            tell(f"models.promoted was not published ({problem}); live services find the alias by their poll")

    return announce
