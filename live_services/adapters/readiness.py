"""What the services wait for after a first `up`: a market in the offline store, then a model to trade it with."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from live_services.next_steps import of_home
from live_services.settings import Settings, config_file, endpoints_file, load_settings
from models_registry.refs import Alias, ModelRef
from models_registry.specification import RUNG_OF_BROKER, StrategySpec, by_model

if TYPE_CHECKING:
    from models_registry.registry import Registry

_LOOK_AGAIN_SECONDS: Final = 1.0

_log = structlog.get_logger("application")

Question = Callable[[Settings], bool]
Waits = Callable[[str], None]
"""Takes what is waited for, in words; empty once it is there."""


@dataclass(frozen=True, slots=True)
class _Lacking:
    """A strategy on a rung on which no version stands, by the ledger: that is what runners follow."""

    strategy: StrategySpec
    rung: Alias
    to_come: bool

    @property
    def ref(self) -> ModelRef:
        return self.strategy.ref(self.rung)


def has_market(settings: Settings) -> bool:
    """Whether the offline store knows instruments and sessions, without which no service can start."""
    from feature_store.offline.store import OfflineStore

    return settings.store_root.exists() and bool(OfflineStore(settings.store_root).sessions())


def can_trade(settings: Settings) -> bool:
    """Whether a version stands for some strategy and no other's is still to come; a registry that is away brings none.

    Asked are the rungs of the brokers that run: an account of paper trades the champion, one of real money what a
    person let live. Nobody waits for a challenger. A version is still to come while a strategy's model has none at all,
    and for the seconds in which the newest has passed its gate and Dagster has not promoted it. A strategy whose newest
    version was refused, or that no person let live, holds nobody up.
    """
    without = _without_model(settings)
    if without is None or any(lacking.to_come for lacking in without):
        return False
    return len(without) < len(_traded(settings))


def _traded(settings: Settings) -> tuple[tuple[StrategySpec, Alias], ...]:
    """Give each strategy once for every rung that an account which runs trades it on."""
    return tuple(
        (strategy, rung)
        for strategy in settings.strategies
        for rung in dict.fromkeys(
            RUNG_OF_BROKER[broker] for broker in strategy.brokers if broker in settings.active_brokers
        )
    )


def missing(settings: Settings) -> str | None:
    """Say what is not there yet and how a person gets it; None if nothing is missing.

    Before all: that the settings file was changed after the stack started, for what it says now is not what runs.
    """
    dagster = settings.dagster.url or "your Dagster"
    if changed := _changed_since_start(settings):
        return changed
    if not has_market(settings):
        return (
            f"no market data yet: launch {_jobs(settings.strategies)} at {dagster}, which brings the market in and "
            "trains; the services wait for the data, and the replay for a model"
        )
    if not _traded(settings):
        return (
            "no strategy speaks to an account that runs: name one of its brokers in ACTIVE_BROKERS, or name a running "
            "one in the strategy's brokers"
        )
    found = _without_model(settings)
    unknown = (_Lacking(strategy, rung, to_come=True) for strategy, rung in _traded(settings))
    without = tuple(unknown) if found is None else found
    if not without:
        return None
    aliases = ", ".join(sorted({str(lacking.ref) for lacking in without}))
    again = of_home(settings.alpha_panda_home)
    leave_out = f", or take what is not to trade out of [[strategies]] (then `{again} down` and `{again} up`)"
    return (
        f"no version stands behind {aliases} yet, so nothing is traded by {_names(without)}"
        f"{_who_waits(settings, without)}: launch {_jobs([lacking.strategy for lacking in without])} at {dagster}, or "
        f"promote one with `{again} models promote NAME VERSION{_rungs(without)}`"
        f"{leave_out if len(settings.strategies) > 1 else ''}"
    )


def _rungs(without: Sequence[_Lacking]) -> str:
    """Name the rung to promote to where it is not the one that is promoted to by default."""
    return " --alias live" if all(lacking.rung == "live" for lacking in without) else ""


def _who_waits(settings: Settings, without: Sequence[_Lacking]) -> str:
    if len(without) == len(_traded(settings)):
        return " and the replay waits"
    to_come = [lacking for lacking in without if lacking.to_come]
    return f" and the replay waits for {_names(to_come)}" if to_come else ""


def _names(without: Sequence[_Lacking]) -> str:
    return ", ".join(dict.fromkeys(lacking.strategy.name for lacking in without))


def _changed_since_start(settings: Settings) -> str | None:
    file, started = config_file(), endpoints_file(settings.alpha_panda_home)
    if not (file.exists() and started.exists()) or file.stat().st_mtime_ns <= started.stat().st_mtime_ns:
        return None
    again = of_home(settings.alpha_panda_home)
    return (
        f"{file} was changed after this stack started, which goes on as it was: for its strategies and their jobs to "
        f"be as it says now, ask `{again} preflight` whether anything speaks against it, then stop and start the stack "
        f"with `{again} down` and `{again} up`"
    )


def _without_model(settings: Settings) -> tuple[_Lacking, ...] | None:
    """Give the strategies, each on its rungs, for which no version stands; None without an answer of the ledger.

    The registry is asked only for what stands nowhere; while it is away nothing can come from it, and nobody waits.
    """
    from models_registry.ledger import LedgerError, PromotionLedger
    from models_registry.ledger_entries import standing
    from models_registry.registry import Registry

    if not settings.mlflow.tracking_uri:
        return ()
    registry = Registry(settings.mlflow.tracking_uri)
    try:
        ledger = PromotionLedger(settings.ledger_url)
        return tuple(
            _Lacking(strategy, rung, _is_to_come(strategy.ref(rung), registry))
            for strategy, rung in _traded(settings)
            if standing(ledger.history(strategy.model_name), rung) is None
        )
    except LedgerError:
        return None


def _is_to_come(ref: ModelRef, registry: Registry) -> bool:
    from models_registry.registry import RegistryUnavailable

    try:
        newest_first = registry.versions(ref.name)
    except RegistryUnavailable:
        return False
    if not newest_first:
        return True
    return ref.alias == "champion" and newest_first[0].gate_verdict("champion") == "passed"


def _jobs(strategies: Sequence[StrategySpec]) -> str:
    names = [spec.training_job for spec in by_model(strategies).values()]
    return f"the job {names[0]}" if len(names) == 1 else f"the jobs {' and '.join(names)}, one after the other,"


async def market_arrives(settings: Settings, stop: asyncio.Event, waits: Waits) -> bool:
    """Wait for a market; False if ``stop`` came first. Nobody but a person ends this wait, so it has no other end."""
    return await _arrives(has_market, settings, stop, waits) is not None


async def model_arrives(settings: Settings, stop: asyncio.Event, waits: Waits) -> bool:
    """Wait for the models that are to come, and for the strategy runner to see them; False if ``stop`` came first."""
    waited = await _arrives(can_trade, settings, stop, waits)
    if waited:
        await _stopped(stop, settings.mlflow.poll_seconds + _LOOK_AGAIN_SECONDS)
    return waited is not None and not stop.is_set()


async def _arrives(there: Question, settings: Settings, stop: asyncio.Event, waits: Waits) -> bool | None:
    """Whether it had to be waited for; None if it was stopped."""
    waited = False
    while not await asyncio.to_thread(there, settings):
        if not waited:
            reason = await asyncio.to_thread(missing, load_settings())
            _log.warning("waiting", reason=reason)
            waits(reason or "the registry and the ledger have not answered yet")
        waited = True
        if await _stopped(stop, _LOOK_AGAIN_SECONDS):
            return None
    waits("")
    return waited


async def _stopped(stop: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return False
    return True
