"""Who trades: a version that passed its gate becomes champion, and people promote and roll back from the Launchpad.

The sensor looks at the state of the registry and the ledger, not at events, so nothing is lost while it sleeps. What
was decided once it never decides again: a version that a person rolled back from stays where the person put it.
"""

import getpass
import time
from collections.abc import Callable, Sequence
from enum import Enum
from logging import Logger
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
from pydantic import Field

from dagster_project.failures import expected_failures
from dagster_project.resources import LedgerResource, MlflowResource, PromotionAnnouncer
from feature_store.market.types import ist_text
from live_services.settings import Settings
from models_registry.refs import Alias, ModelRef
from models_registry.refusals import GateStale, ModelRefusedError

if TYPE_CHECKING:
    from models_registry.ledger import LedgerEntry
    from models_registry.promotion import PromotionRecord
    from models_registry.registry import Registry, VersionInfo

SENSOR: Final = "Dagster sensor promote_champion"
_REPORTED_AT_ONCE: Final = 100

MOMENTUM_CHAMPION: Final = dg.AssetSpec(
    "momentum_champion",
    deps=["momentum_version"],
    group_name="models",
    kinds={"mlflow"},
    description="The version that the alias momentum@champion points to. Every promotion and rollback in the ledger, "
    "by the sensor or by a person, is a materialisation here.",
)


class Rung(Enum):
    """The aliases, as the Launchpad offers them."""

    challenger = "challenger"
    champion = "champion"
    live = "live"


# --- the sensor ---------------------------------------------------------------------------------------------------


def due(versions: Sequence["VersionInfo"], history: Sequence["LedgerEntry"]) -> "str | None":
    """Choose the version to promote to champion, if there is one.

    Parameters
    ----------
    versions
        All versions of one model.
    history
        The ledger's entries of that model, oldest first.

    Returns
    -------
    str or None
        The newest version whose gate for champion passed, if it is newer than the champion and was not decided on
        before: the ledger knows what was ever champion, whoever promoted it and whatever came after. Or the version of
        the sensor's own last entry, if the alias never followed it because the promotion was cut off.
    """
    entries = [entry for entry in history if entry.alias == "champion"]
    champion = next((v.version for v in versions if "champion" in v.aliases), None)
    last = entries[-1] if entries else None
    if last is not None and last.by == SENSOR and champion == last.from_version != last.to_version:
        return last.to_version
    passed = [v.version for v in versions if v.gate_verdict("champion") == "passed"]
    newest = max(passed, key=int, default=None)
    if newest is None or newest in {entry.to_version for entry in entries} or int(newest) <= int(champion or 0):
        return None
    return newest


@dg.sensor(
    name="promote_champion",
    minimum_interval_seconds=4,  # below the daemon's floor of 5 s, so it looks every 5 s instead of every 10
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Promotes the newest version whose gate passed to champion, and records every promotion in the ledger, "
    "its own or a person's, as a materialisation of the champion's asset.",
)
def promote_champion(
    context: dg.SensorEvaluationContext,
    settings: dg.ResourceParam[Settings],
    mlflow: dg.ResourceParam[MlflowResource],
    ledger: dg.ResourceParam[LedgerResource],
    announcer: dg.ResourceParam[PromotionAnnouncer],
) -> dg.SensorResult | dg.SkipReason:
    """Bring the champion alias in line with the gates, and the assets in line with the ledger."""
    from models_registry.ledger import LedgerError
    from models_registry.promotion import promote
    from models_registry.registry import RegistryUnavailable

    if not mlflow.tracking_uri:
        return dg.SkipReason("No MLflow server is set: `alpha-panda up` starts one, MLFLOW__TRACKING_URI names one.")
    registry, book = mlflow.registry(), ledger.ledger()
    refused: list[str] = []
    events: list[dg.AssetMaterialization] = []
    reported = int(context.cursor or 0)
    cursor = reported
    for name in model_names(settings):
        version = None
        try:
            version = due(registry.versions(name), book.history(name))
            if version is not None:
                promote(
                    registry,
                    book,
                    name,
                    version,
                    "champion",
                    promoted_by=SENSOR,
                    reason="the newest version whose champion gate passed",
                    override=None,
                    now_ns=time.time_ns(),
                    announce=_announce(announcer, context.log),
                )
                context.log.info(f"{name} version {version} is champion")
        except (RegistryUnavailable, LedgerError) as error:
            return dg.SkipReason(str(error))
        except GateStale as error:  # nothing went wrong, and it is so at every tick until the next training: no warning
            refused.append(f"{name} version {version} waits: {error}")
        except ModelRefusedError as error:
            context.log.warning(f"{name} version {version} was not promoted: {error}")
            refused.append(f"{name} version {version} was not promoted: {error}")
        fresh = [entry for entry in book.history(name) if entry.number > reported and entry.alias == "champion"]
        events += [_materialization(entry, registry) for entry in fresh[-_REPORTED_AT_ONCE:]]
        cursor = max([cursor, *(entry.number for entry in fresh)])
    if not events:
        return dg.SkipReason("; ".join(refused) or "No version waits for promotion.")
    said = "; ".join(event.description or "" for event in events)
    return dg.SensorResult(asset_events=events, cursor=str(cursor), skip_reason=f"No run is needed. Recorded: {said}")


def model_names(settings: Settings) -> tuple[str, ...]:
    """Give the models that the desk's strategies ask."""
    return tuple(sorted({ModelRef.parse(strategy.model).name for strategy in settings.strategies}))


def _materialization(entry: "LedgerEntry", registry: "Registry") -> dg.AssetMaterialization:
    metadata: dict[str, Any] = {
        "version": entry.to_version,
        "market": str(entry.evidence.get("market", "not recorded")),
        "from_version": entry.from_version or "none",
        "action": entry.action,
        "by": entry.by,
        "reason": entry.reason,
        "gate_overruled": entry.override,
        "at": ist_text(entry.at_ns),
        "ledger_entry": entry.number,
        "ledger_sha256": entry.sha256,
        "mlflow": dg.MetadataValue.url(registry.url_of(entry.model_name, entry.to_version)),
    }
    if entry.evidence.get("run_url"):
        metadata["trained_by"] = dg.MetadataValue.url(str(entry.evidence["run_url"]))
    return dg.AssetMaterialization(
        asset_key=f"{entry.model_name}_champion",
        description=f"{entry.action}: version {entry.from_version or 'none'} → {entry.to_version} by {entry.by}",
        metadata=metadata,
    )


def _announce(announcer: PromotionAnnouncer, log: Logger) -> Callable[["PromotionRecord"], None]:
    def announce(record: "PromotionRecord") -> None:
        why_not = announcer.announce(record)
        if why_not is not None:
            log.warning(
                f"models.promoted was not published ({why_not}). The promotion stands: live services find the alias by "
                "their own poll."
            )

    return announce


# --- what a person launches ---------------------------------------------------------------------------------------


class PromoteConfig(dg.Config):
    """What to promote, and why."""

    model_name: str = Field(default="momentum", description="Name in the registry.")
    version: str = Field(default="newest", description="A version number, or newest.")
    alias: Rung = Field(default=Rung.champion, description="challenger: shadow; champion: paper; live: real money.")
    reason: str = Field(default="promoted by hand in Dagster", description="Kept in the ledger.")
    override_reason: str = Field(
        default="", description="Why the gate is overruled; empty asks the gate. Needs your name in promoted_by."
    )
    promoted_by: str = Field(default="", description="Your name; empty: the account that Dagster runs as.")


class RollbackConfig(dg.Config):
    """What to take back, and why."""

    model_name: str = Field(default="momentum", description="Name in the registry.")
    alias: Rung = Field(default=Rung.champion, description="The alias that goes back to the version before.")
    reason: str = Field(default="rolled back by hand in Dagster", description="Kept in the ledger.")
    promoted_by: str = Field(default="", description="Your name; empty: the account that Dagster runs as.")


@dg.op(out=dg.Out(dg.Nothing), description="Moves an alias to a version, through the gate or against it, by name.")
def promote_version(
    context: dg.OpExecutionContext,
    config: PromoteConfig,
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
    registry = mlflow.registry()
    with expected_failures(ModelRefusedError, PromotionError, LedgerError, RegistryUnavailable):
        record = promote(
            registry,
            ledger.ledger(),
            config.model_name,
            _newest(registry, config.model_name) if config.version == "newest" else config.version,
            _alias(config.alias),
            promoted_by=_person(config.promoted_by),
            reason=config.reason,
            override=config.override_reason or None,
            now_ns=time.time_ns(),
            announce=_announce(announcer, context.log),
        )
    context.log.info(_sentence(record, registry))


@dg.op(out=dg.Out(dg.Nothing), description="Moves an alias back to the version it pointed to before.")
def roll_back_alias(
    context: dg.OpExecutionContext,
    config: RollbackConfig,
    mlflow: dg.ResourceParam[MlflowResource],
    ledger: dg.ResourceParam[LedgerResource],
    announcer: dg.ResourceParam[PromotionAnnouncer],
) -> None:
    """Roll back as a person asks."""
    from models_registry.ledger import LedgerError
    from models_registry.promotion import PromotionError, rollback
    from models_registry.registry import RegistryUnavailable

    registry = mlflow.registry()
    with expected_failures(ModelRefusedError, PromotionError, LedgerError, RegistryUnavailable):
        record = rollback(
            registry,
            ledger.ledger(),
            config.model_name,
            _alias(config.alias),
            promoted_by=_person(config.promoted_by),
            reason=config.reason,
            now_ns=time.time_ns(),
            announce=_announce(announcer, context.log),
        )
    context.log.info(_sentence(record, registry))


@dg.job(
    executor_def=dg.in_process_executor,
    description="Promote a version by hand: with the defaults, the newest version of momentum to champion, if its gate "
    "passed.",
)
def promote_job() -> None:
    """Promote a version by hand."""
    promote_version()


@dg.job(
    executor_def=dg.in_process_executor,
    description="Roll back: with the defaults, momentum@champion goes back to the version before. The sensor does not "
    "promote again what was rolled back.",
)
def rollback_job() -> None:
    """Take the last promotion back."""
    roll_back_alias()


def _newest(registry: "Registry", name: str) -> str:
    versions = registry.versions(name)
    if not versions:
        raise dg.Failure(f"{name} has no version in the registry: launch train_momentum first.", allow_retries=False)
    return versions[0].version


def _alias(rung: Rung) -> Alias:
    alias: Alias = rung.value
    return alias


def _person(named: str) -> str:
    try:
        return named.strip() or f"{getpass.getuser()} in Dagster"
    except (KeyError, OSError):  # a container without an entry for its user
        return "someone in Dagster"


def _sentence(record: "PromotionRecord", registry: "Registry") -> str:
    return (
        f"{record.model_name}@{record.alias}: version {record.previous_version or 'none'} → {record.model_version} by "
        f"{record.promoted_by} ({record.reason}); ledger entry {record.ledger_number}; "
        f"{registry.url_of(record.model_name, record.model_version)}"
    )
