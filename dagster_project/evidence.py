"""What the gates need from the right: the champion's recipe on the candidate's sessions, put together with the rest.

Plain functions: the assets load, call these and hand the evidence to `models_registry.gates`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from dagster_project.trade_evidence import Told, as_trained_on
from feature_store.market.types import MarketDataError
from live_services.settings import Settings
from models_registry.gates.evidence import NO_CHAMPION, ChampionComparison, Evidence, TradeEvidence
from models_registry.ledger_entries import standing
from models_registry.refusals import ModelRefusedError
from models_registry.sidecar import Sidecar
from models_registry.specification import StrategySpec

if TYPE_CHECKING:
    from feature_store.features.schema import FeatureSchema
    from feature_store.market.corporate_actions import CorporateActions
    from feature_store.market.membership import Membership
    from feature_store.offline.store import OfflineStore
    from feature_store.offline.training_frames import TrainingFrame
    from models_registry.gates.economics import Economics
    from models_registry.ledger import PromotionLedger
    from models_registry.packing import Parity
    from models_registry.registry import Registry
    from models_registry.training import OutOfFold, TrainedModel


@dataclass(frozen=True, eq=False)
class Ground:
    """What a candidate was trained on, and what the champion's rows of the same sessions are computed from."""

    store: OfflineStore
    frame: TrainingFrame
    """The candidate's."""
    membership: Membership | None
    actions: CorporateActions


@dataclass(frozen=True)
class Champion:
    """The version that holds the alias now."""

    version: str
    sidecar: Sidecar
    files: Mapping[str, bytes]
    """Its artifact files, as `Registry.fetch` gives them."""


@dataclass(frozen=True)
class DamagedChampion:
    """The version that holds the alias now, where its files are not what was registered."""

    version: str
    reason: str


def standing_champion(registry: Registry, ledger: PromotionLedger, model: str) -> Champion | DamagedChampion | None:
    """Give the version that is champion now, by the ledger, to which a promotion holds its verdict.

    Raises
    ------
    models_registry.registry.RegistryUnavailable
        If the registry does not answer.
    models_registry.ledger.LedgerError
        If the ledger does not, or was tampered with.
    """
    stands = standing(ledger.history(model), "champion")
    if stands is None:
        return None
    number = stands.to_version
    try:
        return Champion(number, *registry.fetch(model, number))
    except ModelRefusedError as refused:
        return DamagedChampion(number, str(refused))


def gathered(
    ground: Ground,
    settings: Settings,
    trained: TrainedModel,
    parity: Parity,
    champion: Champion | DamagedChampion | None,
    *,
    trades: TradeEvidence,
    economics: Economics,
    trades_on: str,
    told: Told,
) -> Evidence:
    """Find out what the gates look at beside the trades: the champion, and whether the skill looks like a leak.

    Parameters
    ----------
    ground : Ground
        What the candidate was trained on.
    settings : Settings
        Of the account and of the gates.
    trained : TrainedModel
        The candidate.
    parity : Parity
        How its packed form compares with it.
    champion : Champion, DamagedChampion or None
        What holds the alias.
    trades : TradeEvidence
        From `trade_evidence`.
    economics : Economics
        From `trials.economics_of`.
    trades_on : str
        What makes the bars that the strategy decides on.
    told : callable
        Takes a line of progress now and then.
    """
    from models_registry.gates.plausible import plausibility_of

    told("asking each feature what the skill owes to it")
    return Evidence.of(
        trained,
        parity=parity,
        bar_source=ground.frame.bar_source,
        trades_on=trades_on,
        plausibility=plausibility_of(trained, ground.frame),
        champion=champion_comparison(
            ground,
            trained,
            champion,
            minimum_sessions=settings.gates.champion.minimum_test_sessions,
            told=told,
        ),
        trades=trades,
        economics=economics,
    )


# --- the champion -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Scored:
    """What the champion's registered model says of decisions."""

    score: NDArray[np.float64]
    base_rate: NDArray[np.float64]
    decision_ns: NDArray[np.int64]
    instrument: NDArray[np.int32]


def champion_comparison(
    ground: Ground,
    trained: TrainedModel,
    champion: Champion | DamagedChampion | None,
    *,
    minimum_sessions: int,
    told: Told,
) -> ChampionComparison:
    """Say how a candidate stands against the champion, whose recipe runs in the candidate's folds if it must.

    Parameters
    ----------
    ground : Ground
        What the candidate was trained on.
    trained : TrainedModel
        The candidate.
    champion : Champion, DamagedChampion or None
        What holds the alias.
    minimum_sessions : int
        What a comparison with the champion's registered model must stand on.
    told : callable
        Takes a line of progress.

    Raises
    ------
    MarketDataError
        If the champion has to be run, and the store has no more the bars that the candidate was trained on.
    """
    from models_registry.gates.champion import compare_in_folds, compare_on_later_rows, not_comparable, settled
    from models_registry.training import session_days

    if champion is None:
        return NO_CHAMPION
    if isinstance(champion, DamagedChampion):
        return not_comparable(champion.version, champion.reason.rstrip("."))
    known = settled(champion.sidecar, champion.version, trained.spec, trained.lineage, trained.instruments)
    if known is not None:
        return known
    as_trained_on(ground.store, trained)
    try:
        told(f"running the recipe of champion v{champion.version} in the same folds")
        again = _run_again(ground, trained, champion.sidecar)
        return compare_in_folds(trained.oof, again, champion.version, judged=trained.spec.judged)
    except (MarketDataError, ValueError) as problem:  # ValueError: UnknownFeature, UntrainableFrame, ValidationError
        told(f"the recipe of champion v{champion.version} cannot be run: {problem}")
    try:
        scored = _registered_scores(ground, trained, champion)
    except (MarketDataError, ModelRefusedError, ValueError) as problem:
        return not_comparable(champion.version, f"neither its recipe nor its model can be run here ({problem})")
    return compare_on_later_rows(
        trained.oof,
        scored,
        champion.version,
        trained_through_day=int(session_days(np.array([champion.sidecar.training_end_ns - 1]))[0]),
        embargo_sessions=trained.spec.embargo_sessions,
        minimum_sessions=minimum_sessions,
        judged=trained.spec.judged,
    )


def _run_again(ground: Ground, trained: TrainedModel, champion: Sidecar) -> OutOfFold:
    from models_registry.training import evaluate, session_days

    if not champion.specification:
        raise ValueError("its sidecar is of version 1 and does not have it")
    theirs = StrategySpec.of_model(champion.specification)
    frame = _frame(ground, trained, theirs.feature_schema(), theirs.instruments)
    folds = {"folds": trained.spec.folds, "embargo_sessions": trained.spec.embargo_sessions}
    return evaluate(frame, theirs.model_copy(update=folds), np.unique(session_days(ground.frame.decision_ns)))


def _registered_scores(ground: Ground, trained: TrainedModel, champion: Champion) -> _Scored:
    from feature_store.features.schema import feature_schema
    from models_registry.packing import load

    names = [column.name for column in champion.sidecar.feature_schema]
    schema = feature_schema(names, champion.sidecar.bar_clock)
    model = load(champion.files, champion.sidecar, expected_feature_schema_hash=schema.hash)
    frame = _frame(ground, trained, schema, ())
    base_rate = np.full(len(frame), champion.sidecar.metrics.get("base_rate", 0.5))
    return _Scored(model.score(frame.X), base_rate, frame.decision_ns, frame.instrument)


def _frame(ground: Ground, trained: TrainedModel, features: FeatureSchema, instruments: Sequence[str]) -> TrainingFrame:
    from feature_store.offline.training_frames import training_frame

    first, last = min(trained.lineage.sessions), max(trained.lineage.sessions)
    return training_frame(
        ground.store,
        instruments or None,
        dt.date.fromisoformat(first),
        dt.date.fromisoformat(last),
        features=features,
        label=trained.spec.label(),
        proposer=trained.spec.proposer(),
        membership=ground.membership,
        actions=ground.actions,
    )
