"""What the services wait for after a first `up`: a market in the offline store, then a model to trade it with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Final

import structlog

from live_services.settings import Settings, load_settings
from models_registry.specification import StrategySpec, by_model

_LOOK_AGAIN_SECONDS: Final = 1.0

_log = structlog.get_logger(__name__)

Question = Callable[[Settings], bool]


def has_market(settings: Settings) -> bool:
    """Whether the offline store knows instruments and sessions, without which no service can start."""
    from feature_store.offline.store import OfflineStore

    return settings.store_root.exists() and bool(OfflineStore(settings.store_root).sessions())


def has_model(settings: Settings) -> bool:
    """Whether a version stands behind any strategy's alias; also if no registry is set."""
    without = _without_model(settings)
    return without is not None and len(without) < len(settings.strategies)


def missing(settings: Settings) -> str | None:
    """Say what is not there yet and how a person gets it; None if nothing is missing."""
    dagster = settings.dagster.url or "your Dagster"
    if not has_market(settings):
        return (
            f"no market data yet: launch {_jobs(settings.strategies)} at {dagster}, which brings the market in and "
            "trains; the services wait for the data, and the replay for a model"
        )
    without = settings.strategies if (found := _without_model(settings)) is None else found
    if not without:
        return None
    aliases = ", ".join(sorted({strategy.model for strategy in without}))
    names = ", ".join(strategy.name for strategy in without)
    waits = " and the replay waits" if len(without) == len(settings.strategies) else ""
    return (
        f"no version stands behind {aliases} yet, so nothing is traded by {names}{waits}: launch {_jobs(without)} at "
        f"{dagster}, or promote one with `alpha-panda models promote NAME VERSION`"
    )


def _without_model(settings: Settings) -> tuple[StrategySpec, ...] | None:
    """Give the strategies behind whose alias no version stands; None if the registry does not answer."""
    from models_registry.registry import Registry, RegistryUnavailable

    if not settings.mlflow.tracking_uri:
        return ()
    registry = Registry(settings.mlflow.tracking_uri)
    try:
        return tuple(strategy for strategy in settings.strategies if registry.resolve(strategy.ref) is None)
    except RegistryUnavailable:
        return None


def _jobs(strategies: Sequence[StrategySpec]) -> str:
    names = [spec.training_job for spec in by_model(strategies).values()]
    return f"the job {names[0]}" if len(names) == 1 else f"the jobs {' and '.join(names)}, one after the other,"


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
