"""Checks of models: for each strategy, on each rung that an account which runs trades, the version that stands there.

It is put to the same questions as in a strategy runner, and nothing is settled or kept: the alias and the ledger agree,
its gate passed or was overruled, its files have their digests, its features, clock and label are the strategy's, and
its golden rows score here as they did at the fit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from live_services.composition import running_brokers
from live_services.next_steps import of_home
from live_services.preflight.findings import Finding, ok
from live_services.services.model_loading import prove
from live_services.settings import Settings
from models_registry.addresses import without_credentials
from models_registry.agreement import disagreement, not_as_judged
from models_registry.ledger import LedgerError, PromotionLedger
from models_registry.ledger_entries import LedgerEntry, standing
from models_registry.refs import Alias, ModelRef
from models_registry.refusals import ModelRefusedError
from models_registry.registry import Registry, RegistryUnavailable, VersionInfo
from models_registry.run_rule import content_objection, may_run
from models_registry.sidecar import Sidecar
from models_registry.specification import RUNG_OF_BROKER, StrategySpec


class Versions(Protocol):
    """What is asked of the registry."""

    def resolve(self, ref: ModelRef, /) -> str | None:
        """Give the version that an alias names."""
        ...

    def version(self, name: str, version: str, /) -> VersionInfo:
        """Give what is known of a version."""
        ...

    def fetch(self, name: str, version: str, /) -> tuple[Sidecar, dict[str, bytes]]:
        """Give a version's files, compared with their digests."""
        ...


class Entries(Protocol):
    """What is asked of the ledger."""

    def history(self, name: str) -> Sequence[LedgerEntry]:
        """Give the entries of a model, oldest first."""
        ...


def models_findings(settings: Settings) -> Iterator[Finding]:
    """Prove the model of every strategy that trades."""
    uri = settings.mlflow.tracking_uri
    if not uri:
        yield Finding("models", "not started", "asked when MLflow runs")
        return
    try:
        ledger = PromotionLedger(settings.ledger_url)
    except LedgerError as away:
        yield Finding("models", "failed", f"the ledger cannot be asked: {away}")
        return
    yield from strategy_models(settings, Registry(uri), ledger)


def strategy_models(settings: Settings, registry: Versions, ledger: Entries) -> Iterator[Finding]:
    """Prove the model of every strategy that trades, by this registry and this ledger."""
    running = running_brokers(settings)
    traded = [
        (strategy, rung)
        for strategy in settings.strategies
        for rung in dict.fromkeys(RUNG_OF_BROKER[broker] for broker in strategy.brokers if broker in running)
    ]
    if not traded:
        yield Finding("models", "warning", "no strategy trades on an account that runs", policy="advice")
    for strategy, rung in traded:
        check = f"model {strategy.ref(rung)}"
        try:
            version = _proved(settings, strategy, rung, registry, ledger)
        except ModelRefusedError as refused:
            yield Finding(check, "failed", str(refused), _other(settings, strategy, rung), strategy=strategy.name)
        except (RegistryUnavailable, LedgerError) as away:
            yield Finding(check, "failed", f"it could not be asked for: {away}", strategy=strategy.name)
        else:
            yield ok(check, f"version {version} of {strategy.name}: files, features, label and golden rows are good")


def _proved(settings: Settings, strategy: StrategySpec, rung: Alias, registry: Versions, ledger: Entries) -> str:
    """Give the version that may run.

    Raises
    ------
    ModelRefusedError
        Says why none may.
    """
    name, ref = strategy.model_name, strategy.ref(rung)
    stands, named = standing(ledger.history(name), rung), registry.resolve(ref)
    if stands is None and named is None:
        raise ModelRefusedError(f"no version stands behind {ref}, so {strategy.name} trades nothing")
    version = stands.to_version if stands is not None else str(named)
    if named != version:
        alias = f"names version {named}" if named else "names no version"
        raise ModelRefusedError(f"the alias {ref} {alias}, and the ledger promoted version {version}")
    info = registry.version(name, version)
    if objection := may_run(info, ledger, rung):
        raise ModelRefusedError(objection)
    sidecar, files = registry.fetch(name, version)
    if changed := content_objection(info, ledger):
        raise ModelRefusedError(changed)
    prove(sidecar, files, version, settings.market.bar_minutes)
    if other := disagreement(sidecar, version, strategy):
        raise ModelRefusedError(other)
    if rung == "live" and (other := not_as_judged(sidecar, version, strategy)):
        raise ModelRefusedError(other)
    return version


def _other(settings: Settings, strategy: StrategySpec, rung: Alias) -> str:
    command = of_home(settings.alpha_panda_home)
    alias = f" --alias {rung}" if rung != "champion" else ""
    dagster = without_credentials(settings.dagster.url) or "Dagster"
    return (
        f"Launch {strategy.training_job} at {dagster}, or promote another version: "
        f"`{command} models promote {strategy.model_name} VERSION{alias}`"
    )
