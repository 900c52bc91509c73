"""Who trades: a version that passed its gate becomes champion, and people promote and roll back from the Launchpad.

The sensor looks at the state of the registry and the ledger, not at events, so nothing is lost while it sleeps. What it
decided once it never decides again: a version that a person rolled back from stays where the person put it.
"""

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Final

import dagster as dg

if TYPE_CHECKING:
    from models_registry.ledger import LedgerEntry
    from models_registry.registry import VersionInfo

SENSOR: Final = "sensor promote_champion"

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


def due(versions: Sequence["VersionInfo"], history: Sequence["LedgerEntry"]) -> "VersionInfo | None":
    """Choose the version to promote to champion, if there is one.

    Parameters
    ----------
    versions
        All versions of one model.
    history
        The ledger's entries of that model, of all rungs.

    Returns
    -------
    VersionInfo or None
        The newest version whose gate for champion passed, unless it is not newer than the champion, or was decided on
        before (the ledger knows it as champion, whoever promoted it and whatever came after).
    """
    passed = [v for v in versions if v.gate_verdict("champion") == "passed"]
    if not passed:
        return None
    newest = max(passed, key=lambda v: int(v.version))
    champion = max((int(v.version) for v in versions if "champion" in v.aliases), default=0)
    decided = {entry.version for entry in history if entry.alias == "champion"}
    return newest if int(newest.version) > champion and newest.version not in decided else None


@dg.sensor(name="promote_champion", minimum_interval_seconds=4, default_status=dg.DefaultSensorStatus.RUNNING)
def promote_champion(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    return dg.SkipReason("x")


@dg.job
def promote_job() -> None: ...
@dg.job
def rollback_job() -> None: ...
