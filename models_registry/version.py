"""A version as it is registered: what the fit, the gates and the one who registers it say, put together. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from models_registry.gates.evidence import Evidence
from models_registry.packing import Packed
from models_registry.refs import FeatureColumn, FoldResult, GateResult, named_thresholds
from models_registry.sidecar import Sidecar, unwritable

if TYPE_CHECKING:
    from feature_store.offline.training_frames import TrainingFrame
    from models_registry.training import TrainedModel


def build_sidecar(
    trained: TrainedModel,
    frame: TrainingFrame,
    packed: Packed,
    evidence: Evidence,
    *,
    gate: GateResult,
    live_gate: GateResult | None = None,
    created_by: str,
    created_at_ns: int,
) -> Sidecar:
    """Put together what a version carries.

    What made the model (specification, data, commit, libraries) is as it was at the fit; only who registers it and
    when is of now.

    Parameters
    ----------
    trained : TrainedModel
        What training found out.
    frame : TrainingFrame
        What it was trained on.
    packed : Packed
        Its files.
    evidence : Evidence
        What the gates looked at; the figures of its trades are registered with the others.
    gate, live_gate : GateResult
        Verdicts for ``champion`` and ``live``.
    created_by, created_at_ns
        Who registers it, and when (UTC epoch nanoseconds).

    Raises
    ------
    UnwritableSidecar
        If a figure is no finite number; names it.
    """
    try:
        return Sidecar(
            **_as_fitted(trained, frame),
            bar_source=evidence.bar_source,
            folds=_folds(trained, evidence),
            metrics=_metrics(trained, evidence),
            gate=gate,
            live_gate=live_gate,
            artifact_sha256=packed.sha256,
            created_by=created_by,
            created_at_ns=created_at_ns,
        )
    except ValidationError as error:
        raise unwritable(error, trained.spec.model_name) from error


def _as_fitted(trained: TrainedModel, frame: TrainingFrame) -> dict[str, Any]:
    spec, label, asks = trained.spec, trained.spec.label(), trained.spec.proposer()
    return {
        "model_name": spec.model_name,
        "algorithm": spec.estimator,
        "market": frame.market,
        "market_details": frame.market_details,
        "bar_clock": frame.schema.bar_clock,
        "feature_schema": tuple(FeatureColumn.model_validate(column) for column in frame.schema.columns()),
        "feature_schema_hash": frame.schema.hash,
        "training_data_digest": trained.data_digest,
        "training_start_ns": trained.training_start_ns,
        "training_end_ns": trained.training_end_ns,
        "training_rows": trained.training_rows,
        "label": label.name,
        "label_horizon_bars": label.horizon_bars,
        "label_identity": label.identity(),
        "proposals": asks.identity() if asks else {},
        "specification": spec.model_dump(mode="json"),
        "recipe_digest": spec.recipe_digest(),
        "hyperparameters": trained.hyperparameters,
        "fold_parameters": {
            "scheme": "walk_forward",
            "folds": spec.folds,
            "embargo_sessions": spec.embargo_sessions,
        },
        "instruments": trained.instruments,
        "lineage": trained.lineage,
        "train_through": trained.train_through,
        "buy_threshold": trained.buy_threshold,
        "sell_threshold": trained.sell_threshold,
        "thresholds_from": trained.thresholds_from,
        "feature_distributions": trained.feature_distributions,
        "git_commit": trained.fitted.git_commit,
        "library_versions": trained.fitted.library_versions,
        "fitted_at_ns": trained.fitted.fitted_at_ns,
        "run_id": trained.fitted.run_id,
        "seed": spec.seed,
    }


def _metrics(trained: TrainedModel, evidence: Evidence) -> dict[str, float]:
    found = trained.metrics
    for more in (evidence.trades, evidence.plausibility, evidence.economics):
        found = found | (more.metrics() if more is not None else {})
    return found


def _folds(trained: TrainedModel, evidence: Evidence) -> tuple[FoldResult, ...]:
    traded = evidence.trades.by_fold if evidence.trades is not None else {}
    return tuple(
        fold.model_copy(
            update={
                "metrics": fold.metrics
                | named_thresholds(model.buy_threshold, model.sell_threshold)
                | (traded[fold.fold].metrics() if fold.fold in traded else {})
            }
        )
        for fold, model in zip(trained.folds, trained.fold_models, strict=True)
    )
