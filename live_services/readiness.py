"""What the services wait for after a first `up`: a market in the offline store, then a model to trade it with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from live_services.settings import Settings, load_settings

_LOOK_AGAIN_SECONDS: Final = 1.0

_log = structlog.get_logger(__name__)

Question = Callable[[Settings], bool]


def has_market(settings: Settings) -> bool:
    """Whether the offline store knows instruments and sessions, without which no service can start."""
    from feature_store.offline.store import OfflineStore

    return settings.store_root.exists() and bool(OfflineStore(settings.store_root).sessions())


def has_model(settings: Settings) -> bool:
    """Whether a version stands behind any strategy's alias; also if nothing asks for one, or no registry is set."""
    from models_registry.refs import ModelRef
    from models_registry.registry import Registry, RegistryUnavailable

    if not settings.strategies or not settings.mlflow.tracking_uri:
        return True
    registry = Registry(settings.mlflow.tracking_uri)
    try:
        return any(registry.resolve(ModelRef.parse(strategy.model)) for strategy in settings.strategies)
    except RegistryUnavailable:
        return False


def missing(settings: Settings) -> str | None:
    """Say what is not there yet and how a person gets it; None if nothing is missing."""
    dagster = settings.dagster.url or "your Dagster"
    if not has_market(settings):
        return (
            f"no market data yet: launch the job train_momentum at {dagster}, which brings the market in and trains; "
            "the services wait for the data, and the replay for a model"
        )
    if not has_model(settings):
        aliases = ", ".join(sorted({strategy.model for strategy in settings.strategies}))
        return (
            f"no version stands behind {aliases} yet, so the strategy trades nothing and the replay waits: launch the "
            f"job train_momentum at {dagster}, or promote one with `alpha-panda models promote NAME VERSION`"
        )
    return None


async def market_arrives(settings: Settings, stop: asyncio.Event) -> bool:
    """Wait for a market; False if ``stop`` came first. Nobody but a person ends this wait, so it has no other end."""
    return await _arrives(has_market, settings, stop) is not None


async def model_arrives(settings: Settings, stop: asyncio.Event) -> bool:
    """Wait for a model, and for the strategy runner to see it; False if ``stop`` came first."""
    waited = await _arrives(has_model, settings, stop)
    if waited:
        await _stopped(stop, settings.mlflow.poll_seconds + _LOOK_AGAIN_SECONDS)
    return waited is not None and not stop.is_set()


async def _arrives(there: Question, settings: Settings, stop: asyncio.Event) -> bool | None:
    """Whether it had to be waited for; None if it was stopped."""
    waited = False
    while not await asyncio.to_thread(there, settings):
        if not waited:
            reason = await asyncio.to_thread(missing, load_settings())
            _log.warning("waiting", reason=reason)
        waited = True
        if await _stopped(stop, _LOOK_AGAIN_SECONDS):
            return None
    return waited


async def _stopped(stop: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return False
    return True
