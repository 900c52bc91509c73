"""Who trades: a version that passed its gate becomes champion, of every model of the desk.

The sensor looks at the state of the registry and the ledger, not at events, so nothing is lost while it sleeps. What
was decided once it never decides again: a version that a person rolled back from stays where the person put it.
"""

import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from dagster_project.model_keys import ModelKeys
from dagster_project.resources import LedgerResource, MlflowResource, PromotionAnnouncer
from feature_store.market.types import ist_text
from live_services.next_steps import of_home
from live_services.settings import Settings, home_directory
from models_registry.ledger_entries import done, standing
from models_registry.refusals import GateStale, ModelRefusedError
from models_registry.specification import by_model

if TYPE_CHECKING:
    from models_registry.ledger import PromotionLedger
    from models_registry.ledger_entries import LedgerEntry
    from models_registry.registry import Registry, VersionInfo

SENSOR: Final = "Dagster sensor promote_champion"
_REPORTED_AT_ONCE: Final = 100


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
        The newest version whose gate for champion passed, if it is newer than the champion of the ledger and was not
        decided on before: the ledger knows what was ever to be champion, whoever promoted it and whatever came after.
    """
    decided = {e.to_version for e in history if e.alias == "champion" and e.phase != "observed"}
    stands = standing(history, "champion")
    passed = [v.version for v in versions if v.gate_verdict("champion") == "passed"]
    newest = max(passed, key=int, default=None)
    if newest is None or newest in decided or (stands is not None and int(newest) <= int(stands.to_version)):
        return None
    return newest


@dg.sensor(
    name="promote_champion",
    minimum_interval_seconds=4,  # below the daemon's floor of 5 s, so it looks every 5 s instead of every 10
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Promotes the newest version whose gate passed to champion, settles promotions that were cut off, and "
    "records every promotion in the ledger, its own or a person's, as a materialisation of the champion's asset.",
)
def promote_champion(
    context: dg.SensorEvaluationContext,
    settings: dg.ResourceParam[Settings],
    mlflow: dg.ResourceParam[MlflowResource],
    ledger: dg.ResourceParam[LedgerResource],
    announcer: dg.ResourceParam[PromotionAnnouncer],
) -> dg.SensorResult | dg.SkipReason:
    """Bring the champion alias in line with the gates, and aliases, pages and assets in line with the ledger."""
    from models_registry.ledger import LedgerError
    from models_registry.promotion import PromotionError
    from models_registry.reconciliation import show_standing
    from models_registry.registry import RegistryUnavailable

    if not mlflow.tracking_uri:
        return dg.SkipReason("No MLflow server is set: `alpha-panda up` starts one, MLFLOW__TRACKING_URI names one.")
    registry, book = mlflow.registry(), ledger.ledger()
    refused: list[str] = []
    events: list[dg.AssetMaterialization] = []
    reported = _reported(context.cursor)
    cursor = dict(reported)
    for name in by_model(settings.strategies):
        try:
            refused += _strayed(name, registry, book)
            why_not = _promote_due(name, registry, book, announcer, context)
            show_standing(registry, book.history(name), registry.versions(name))
        except (RegistryUnavailable, LedgerError, PromotionError) as error:
            return dg.SkipReason(str(error))
        refused += [why_not] if why_not is not None else []
        seen = reported.get(name, 0)
        fresh = [entry for entry in done(book.history(name), "champion") if entry.number > seen]
        events += [_materialization(entry) for entry in fresh[-_REPORTED_AT_ONCE:]]
        cursor[name] = max([seen, *(entry.number for entry in fresh)])
    if not events:
        return dg.SkipReason("; ".join(refused) or "No version waits for promotion.")
    said = "; ".join(event.description or "" for event in events)
    return dg.SensorResult(
        asset_events=events, cursor=json.dumps(cursor), skip_reason=f"No run is needed. Recorded: {said}"
    )


def _reported(cursor: str | None) -> dict[str, int]:
    """Give the last ledger entry that was reported, by model: entries of others may be written in between."""
    found = json.loads(cursor) if cursor else {}
    return found if isinstance(found, dict) else {}  # one number for all, of an instance that is older


def _strayed(name: str, registry: "Registry", book: "PromotionLedger") -> list[str]:
    """Settle what was cut off and note aliases that were moved past the ledger; say what is refused."""
    from models_registry.reconciliation import reconcile

    found = reconcile(registry, book, name, by=SENSOR, now_ns=time.time_ns(), command=of_home(home_directory()))
    return [standing.objection for standing in found.values() if standing.objection is not None]


def _promote_due(
    name: str,
    registry: "Registry",
    book: "PromotionLedger",
    announcer: PromotionAnnouncer,
    context: dg.SensorEvaluationContext,
) -> str | None:
    """Promote the version of a model that is due, if there is one; give the reason if it is refused."""
    from models_registry.promotion import promote

    version = due(registry.versions(name), book.history(name))
    if version is None:
        return None
    try:
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
            announce=announcer.logging_to(context.log),
        )
    except GateStale as error:  # nothing went wrong, and it is so at every tick until the next training: no warning
        return f"{name} version {version} waits: {error}"
    except ModelRefusedError as error:
        context.log.warning(f"{name} version {version} was not promoted: {error}")
        return f"{name} version {version} was not promoted: {error}"
    context.log.info(f"{name} version {version} is champion")
    return None


def _materialization(entry: "LedgerEntry") -> dg.AssetMaterialization:
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
    }
    if entry.evidence.get("run_id"):
        metadata["trained_by"] = dg.MetadataValue.dagster_run(str(entry.evidence["run_id"]))
    return dg.AssetMaterialization(
        asset_key=ModelKeys(entry.model_name).champion,
        description=f"{entry.action}: version {entry.from_version or 'none'} → {entry.to_version} by {entry.by}"
        + (", AGAINST ITS GATE" if entry.override else ""),
        metadata=metadata,
    )
