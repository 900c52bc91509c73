"""The composition root of the live side: settings become clients, clients become services; nothing else does this."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from live_services.adapters.readiness import market_arrives, model_arrives
from live_services.domain.topics import BROKERS, MODELS_PROMOTED, Topic, broker_topics, market_topic
from live_services.failures import CommandFailed
from live_services.machine.stack import BROKER_SERVICES, FEED, NO_ZERODHA, skip_reason
from live_services.settings import Settings, home_directory, load_settings
from models_registry.specification import Broker

_LOOPBACK_HOSTS: Final = ("127.0.0.1", "localhost", "::1")

if TYPE_CHECKING:
    from feature_store.market.types import Session, Universe
    from live_services.adapters.telemetry import LiveTelemetry
    from live_services.cli.explain import Explanation
    from live_services.domain.basis import Stamp
    from live_services.domain.events import Event
    from live_services.runtime.service import Service
    from live_services.services.model_loading import ModelLoader
    from models_registry.ledger import PromotionLedger
    from models_registry.promotion import PromotionRecord
    from models_registry.registry import Registry


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


def run_named(service: str, broker: str, settings: Settings) -> None:
    """Run one service in the foreground until SIGINT or SIGTERM.

    Raises
    ------
    CommandFailed
        There is no such service or broker, or the broker is not to run.
    """
    from live_services.adapters.telemetry import configure_logging

    chosen = _runnable(service, broker, settings)
    configure_logging(service)
    if service == FEED:
        asyncio.run(_run_feed(settings))
    else:
        asyncio.run(_run(service, chosen, settings))


def _runnable(service: str, broker: str, settings: Settings) -> Broker:
    chosen = next((b for b in BROKERS if b == broker), None)
    if chosen is None:
        raise CommandFailed(f"there is no broker {broker!r}; choose one of {', '.join(BROKERS)}")
    known = (FEED, *BROKER_SERVICES["paper"])
    if service not in known:
        raise CommandFailed(f"there is no service {service!r}; choose one of {', '.join(known)}")
    if service == FEED:
        return chosen
    if chosen == "zerodha":
        raise CommandFailed(NO_ZERODHA)
    reason = skip_reason(settings, chosen)
    if reason is not None:
        raise CommandFailed(f"{broker} is not to run: {reason}")
    return chosen


async def _run_feed(settings: Settings) -> None:
    from live_services.runtime.loop import stop_on_signals
    from live_services.services.market_feed import run_market_feed

    stop = stop_on_signals()
    if await market_arrives(settings, stop) and await model_arrives(settings, stop):
        await run_market_feed(settings, stop)


async def _run(name: str, broker: Broker, settings: Settings) -> None:
    from live_services.adapters.telemetry import LiveTelemetry
    from live_services.runtime.loop import run_service, stop_on_signals

    stop = stop_on_signals()
    if not await market_arrives(settings, stop):
        return
    async with (
        LiveTelemetry(settings) as telemetry,
        _service(name, broker, settings, telemetry) as (service, universe),
    ):
        await run_service(service, settings, universe, telemetry, stop)


@asynccontextmanager
async def _service(
    name: str, broker: Broker, settings: Settings, telemetry: LiveTelemetry
) -> AsyncIterator[tuple[Service[Any], Universe]]:
    """Build a service; what it needs beside itself runs for as long as the block."""
    from live_services.adapters.history import StoredHistory
    from live_services.adapters.online_features import OnlinePublisher
    from live_services.services.paper_trading import PaperTrading
    from live_services.services.portfolio_manager import PortfolioManager
    from live_services.services.risk_manager import RiskManager
    from live_services.services.skew_monitor import SkewMonitor
    from live_services.services.strategy_runner import StrategyRunner

    universe, account = _universe(settings), getattr(settings.trading, broker)
    market = market_topic(settings.market.feed)
    if name == "strategy_runner":
        count = partial(telemetry.online_block, "shared")
        async with _loader(settings) as loader, OnlinePublisher(settings, count) as rows:
            history = StoredHistory(settings)
            yield StrategyRunner(settings, loader, stamp(settings), rows=rows, history=history), universe
    elif name == "skew_monitor":
        yield SkewMonitor(settings, StoredHistory(settings)), universe
    elif name == "risk_manager":
        yield RiskManager(account.risk, stamp(settings), broker), universe
    elif name == "paper_trading":
        yield PaperTrading(universe, market, account.costs_bps, stamp(settings), broker=broker), universe
    else:
        yield PortfolioManager(universe, market, account.pnl_interval_seconds, broker), universe


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
        raise CommandFailed("no model registry is known: start one with `alpha-panda up`, or set MLFLOW__TRACKING_URI")
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


async def explain_order(settings: Settings, broker: Broker, order_id: str | None) -> Explanation:
    """Explain an order, by default the one filled last.

    Raises
    ------
    CommandFailed
        No order was filled yet.
    live_services.cli.explain.ExplainError
        There is no such order, or a link of its chain is gone.
    """
    from live_services.cli import explain
    from live_services.domain.events import OrderFilled

    topics = broker_topics(broker)
    needed = (
        topics.orders_submitted,
        topics.orders_filled,
        topics.orders_rejected,
        topics.orders_cancelled,
        topics.signals_validated,
        topics.signals_raw,
        topics.control,
    )
    log = {topic.name: await read_events(settings, topic) for topic in needed}
    if order_id is None:
        filled = [e for e in log[topics.orders_filled.name] if isinstance(e, OrderFilled)]
        if not filled:
            raise CommandFailed(f"no order was filled on {topics.orders_filled.name} yet: let a session run first")
        order_id = max(filled, key=lambda e: e.event_time_ns).order_id
    registry = build_registry(settings)
    return await asyncio.to_thread(
        explain.explain_order, order_id, lambda topic: log[topic.name], registry.sidecar, broker
    )


async def read_events(settings: Settings, topic: Topic) -> Sequence[Event]:
    """Read a topic's committed events, without its watermarks; what is no event is left to the dead letters."""
    from live_services.adapters.kafka import read_topic
    from live_services.domain.events import Watermark, event_or_none

    events = [event_or_none(record.value) async for record in read_topic(settings.kafka, topic.name)]
    return [event for event in events if event is not None and not isinstance(event, Watermark)]


def announcer(settings: Settings, tell: Callable[[str], None]) -> Callable[[PromotionRecord], None]:
    """Give what publishes ``models.promoted``; without a Kafka that answers it says so, and the promotion stands."""
    from live_services.adapters.promotions import announce_promotion

    def announce(record: PromotionRecord) -> None:
        problem = announce_promotion(settings.kafka, record)
        if problem is not None:
            tell(f"models.promoted was not published ({problem}); live services find the alias by their poll")

    return announce
