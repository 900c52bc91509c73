"""Who trades, by a person's word: promote and roll back from the Launchpad.

The sensor promote_champion does not decide again what a person decided.
"""

import getpass
import time
from enum import Enum
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from dagster_project.failures import expected_failures
from dagster_project.resources import LedgerResource, MlflowResource, PromotionAnnouncer
from live_services.settings import Settings
from models_registry.refs import Alias
from models_registry.refusals import ModelRefusedError
from models_registry.specification import by_model

if TYPE_CHECKING:
    from models_registry.registry import Registry


class Rung(Enum):
    """The aliases, as the Launchpad offers them."""

    challenger = "challenger"
    champion = "champion"
    live = "live"


class PromoteConfig(dg.Config):
    """What to promote, and why."""

    model_name: str = Field(default="", description="Name in the registry; empty: the desk's only model.")
    version: str = Field(default="newest", description="A version number, or newest.")
    alias: Rung = Field(default=Rung.champion, description="challenger: shadow; champion: paper; live: real money.")
    reason: str = Field(default="promoted by hand in Dagster", description="Kept in the ledger.")
    override_reason: str = Field(
        default="", description="Why the gate is overruled; empty asks the gate. Needs your name in promoted_by."
    )
    promoted_by: str = Field(default="", description="Your name; empty: the account that Dagster runs as.")


class RollbackConfig(dg.Config):
    """What to take back, and why."""

    model_name: str = Field(default="", description="Name in the registry; empty: the desk's only model.")
    alias: Rung = Field(default=Rung.champion, description="The alias that goes back to the version before.")
    reason: str = Field(default="rolled back by hand in Dagster", description="Kept in the ledger.")
    promoted_by: str = Field(default="", description="Your name; empty: the account that Dagster runs as.")


@dg.op(out=dg.Out(dg.Nothing), description="Moves an alias to a version, through the gate or against it, by name.")
def promote_version(  # noqa: PLR0917  # Dagster fills resources in by name
    context: dg.OpExecutionContext,
    config: PromoteConfig,
    settings: dg.ResourceParam[Settings],
    mlflow: dg.ResourceParam[MlflowResource],
    ledger: dg.ResourceParam[LedgerResource],
    announcer: dg.ResourceParam[PromotionAnnouncer],
) -> None:
    """Promote as a person asks."""
    from models_registry.ledger import LedgerError
    from models_registry.promotion import PromotionError, promote
    from models_registry.registry import RegistryUnavailable

    if config.override_reason and not config.promoted_by.strip():
        raise dg.Failure("A gate is overruled by name: put yours in promoted_by.", allow_retries=False)
    registry, name = mlflow.registry(), _model_name(config.model_name, settings)
    with expected_failures(ModelRefusedError, PromotionError, LedgerError, RegistryUnavailable):
        record = promote(
            registry,
            ledger.ledger(),
            name,
            _newest(registry, name) if config.version == "newest" else config.version,
            _alias(config.alias),
            promoted_by=_person(config.promoted_by),
            reason=config.reason,
            override=config.override_reason or None,
            now_ns=time.time_ns(),
            announce=announcer.logging_to(context.log),
        )
    context.log.info(str(record))


@dg.op(out=dg.Out(dg.Nothing), description="Moves an alias back to the version it pointed to before.")
def roll_back_alias(  # noqa: PLR0917  # Dagster fills resources in by name
    context: dg.OpExecutionContext,
    config: RollbackConfig,
    settings: dg.ResourceParam[Settings],
    mlflow: dg.ResourceParam[MlflowResource],
    ledger: dg.ResourceParam[LedgerResource],
    announcer: dg.ResourceParam[PromotionAnnouncer],
) -> None:
    """Roll back as a person asks."""
    from models_registry.ledger import LedgerError
    from models_registry.promotion import PromotionError, rollback
    from models_registry.registry import RegistryUnavailable

    registry, name = mlflow.registry(), _model_name(config.model_name, settings)
    with expected_failures(ModelRefusedError, PromotionError, LedgerError, RegistryUnavailable):
        record = rollback(
            registry,
            ledger.ledger(),
            name,
            _alias(config.alias),
            promoted_by=_person(config.promoted_by),
            reason=config.reason,
            now_ns=time.time_ns(),
            announce=announcer.logging_to(context.log),
        )
    context.log.info(str(record))


@dg.job(
    executor_def=dg.in_process_executor,
    description="Promote a version by hand: with the defaults, the newest version of the desk's only model to "
    "champion, if its gate passed; a desk with several names one in model_name.",
)
def promote_job() -> None:
    """Promote a version by hand."""
    promote_version()


@dg.job(
    executor_def=dg.in_process_executor,
    description="Roll back: with the defaults, the champion of the desk's only model goes back to the version before; "
    "a desk with several names one in model_name. The sensor does not promote again what was rolled back.",
)
def rollback_job() -> None:
    """Take the last promotion back."""
    roll_back_alias()


def _model_name(asked: str, settings: Settings) -> str:
    models = tuple(by_model(settings.strategies))
    if asked.strip():
        return asked.strip()
    if len(models) > 1:
        raise dg.Failure(
            f"This desk has the models {', '.join(models)}: name one of them in model_name.", allow_retries=False
        )
    return models[0]


def _newest(registry: "Registry", name: str) -> str:
    versions = registry.versions(name)
    if not versions:
        raise dg.Failure(f"{name} has no version in the registry: launch train_{name} first.", allow_retries=False)
    return versions[0].version


def _alias(rung: Rung) -> Alias:
    alias: Alias = rung.value
    return alias


def _person(named: str) -> str:
    try:
        return named.strip() or f"{getpass.getuser()} in Dagster"
    except (KeyError, OSError):  # a container without an entry for its user
        return "someone in Dagster"
