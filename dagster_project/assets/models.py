"""Training set → momentum model → out-of-sample report → registered version, and the checks before a promotion."""

import time
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

import dagster as dg
from pydantic import Field

from dagster_project.assets.market_data import training_set
from dagster_project.candidates import Candidate
from dagster_project.desk import Desk
from dagster_project.failures import expected_failures
from dagster_project.plots import MAXIMUM_MARKDOWN, column_plot, line_plot
from dagster_project.resources import MlflowResource, OfflineStoreResource
from feature_store.market.types import MarketDataError, ist_text
from feature_store.provenance import code_commit
from live_services.settings import Settings
from models_registry.refs import GateResult, ModelRef

if TYPE_CHECKING:
    from feature_store.offline.training_frames import TrainingFrame
    from models_registry.training import OutOfFold

GROUP: Final = "models"
MODEL_NAME: Final = "momentum"
_MARKS: Final = {"passed": "✓", "failed": "✗", "warning": "⚠"}


class Algorithm(Enum):
    """The estimators there are, as the Launchpad offers them."""

    hist_gradient_boosting = "hist_gradient_boosting"
    logistic_regression = "logistic_regression"


class TrainingConfig(dg.Config):
    """How the momentum model is fitted."""

    algorithm: Algorithm = Algorithm.hist_gradient_boosting
    seed: int = Field(default=7, description="Equal seeds and equal data give an equal model.")
    folds: int = Field(default=4, ge=1, description="Walk-forward test blocks; sessions are cut into one more.")


@dg.asset(
    deps=[training_set],
    group_name=GROUP,
    kinds={"sklearn"},
    io_manager_key="candidates",
    description="The momentum model, fitted on all training sessions, measured by walk-forward on sessions that it had "
    "not seen, and packed into files that load without pickle.",
)
def momentum_model(
    context: dg.AssetExecutionContext, config: TrainingConfig, settings: dg.ResourceParam[Settings], training_set: Any
) -> Candidate:
    """Train, measure and pack."""
    from models_registry.packing import library_versions, pack, parity
    from models_registry.sidecar import FitFacts
    from models_registry.training import UntrainableFrame, train
    from models_registry.validation.splitters import NotEnoughSessions

    frame: TrainingFrame = training_set
    with expected_failures(UntrainableFrame, NotEnoughSessions):
        trained = train(
            frame,
            settings.strategies[0].model_copy(
                update={"estimator": config.algorithm.value, "seed": config.seed, "folds": config.folds}
            ),
            FitFacts(git_commit=code_commit(), library_versions=library_versions(), fitted_at_ns=time.time_ns()),
        )
    packed = pack(trained.estimator, trained.golden_rows)
    candidate = Candidate(
        trained=trained,
        packed=packed,
        parity=parity(packed, trained.estimator, frame.X[:: max(1, len(frame) // 5000)]),
        market=frame.market,
    )
    context.add_output_metadata(
        {
            "market": candidate.market,
            "algorithm": trained.spec.estimator,
            "seed": trained.spec.seed,
            "dagster/row_count": trained.training_rows,
            "dropped_rows": trained.dropped,
            "trained_from": ist_text(trained.training_start_ns),
            "trained_to": ist_text(trained.training_end_ns),
            "buy_threshold": round(trained.buy_threshold, 6),
            "sell_threshold": round(trained.sell_threshold, 6),
            "feature_schema_hash": frame.schema.hash,
            "training_data_digest": trained.data_digest,
            "packed_bytes": sum(len(content) for content in packed.files.values()),
            "packed_largest_difference": f"{candidate.parity.largest_difference:.3g}",
            "git_commit": code_commit(),
        }
    )
    return candidate


@dg.asset(
    group_name=GROUP,
    kinds={"sklearn"},
    description="What the momentum model was worth on sessions it had not seen, fold by fold, against always guessing "
    "the base rate.",
)
def momentum_report(momentum_model: Candidate) -> dg.MaterializeResult[None]:
    """Report the out-of-sample results."""
    trained = momentum_model.trained
    return dg.MaterializeResult(
        metadata={
            "market": momentum_model.market,
            "forward_return_by_score_decile": dg.MetadataValue.md(
                column_plot(
                    _decile_returns_bps(trained.oof), "Mean forward return by score decile, bps, lowest score first"
                )
            ),
            "auc_by_fold": dg.MetadataValue.md(
                line_plot([fold.metrics["auc"] for fold in trained.folds], "AUC by fold, 0.5 is chance")
            ),
            "folds": _fold_table(trained.folds),
            **{name: _rounded(name, value) for name, value in trained.metrics.items()},
        }
    )


def _rounded(name: str, value: float) -> int | float:
    if float(value).is_integer():
        return int(value)
    return round(float(value), 2 if name.endswith("_bps") else 4)


def _fold_table(folds: Any) -> dg.TableMetadataValue:
    records = [
        dg.TableRecord(
            {
                "fold": fold.fold,
                "tested_from": ist_text(fold.test_start_ns)[:10],
                "tested_to": ist_text(fold.test_end_ns)[:10],
                "rows": fold.rows,
                **{name: round(float(fold.metrics[name]), 4) for name in ("auc", "log_loss", "naive_log_loss")},
            }
        )
        for fold in folds
    ]
    return dg.MetadataValue.table(records)


def _decile_returns_bps(oof: "OutOfFold") -> list[float]:
    import numpy as np

    parts = np.array_split(np.argsort(oof.score, kind="stable"), 10)
    return [float(oof.forward_return[part].mean()) * 1e4 if len(part) else 0.0 for part in parts]


@dg.asset(
    deps=[momentum_report],
    group_name=GROUP,
    kinds={"mlflow"},
    check_specs=[
        dg.AssetCheckSpec(
            "skill_gate",
            asset="momentum_version",
            description="Whether this version may become champion; also a tag in MLflow.",
        )
    ],
    description="The momentum model as a version in MLflow, with its sidecar and the verdict of its gate. Registering "
    "promotes nothing: the sensor promote_champion, or a person, moves the alias.",
)
def momentum_version(  # noqa: PLR0917  # Dagster fills resources and inputs in by name
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    mlflow: dg.ResourceParam[MlflowResource],
    offline: dg.ResourceParam[OfflineStoreResource],
    momentum_model: Candidate,
    training_set: Any,
) -> dg.MaterializeResult:  # type: ignore[type-arg]  # with checks Dagster takes only the bare class
    """Judge the candidate against the champion, and register it whatever the verdict."""
    from models_registry.description import describe, failures, plots, warnings
    from models_registry.gates.skill import skill_gate
    from models_registry.packing import build_sidecar

    if training_set.digest != momentum_model.trained.data_digest:
        raise dg.Failure(
            "The training set has changed since the model was trained: materialise momentum_model again.",
            allow_retries=False,
        )
    registry = mlflow.registry()
    champion_version = registry.resolve(ModelRef(name=MODEL_NAME, alias="champion"))
    champion = registry.sidecar(MODEL_NAME, champion_version) if champion_version else None
    with expected_failures(MarketDataError):
        trades_on = Desk(offline.store(), settings).traded_bar_source()
    gate = skill_gate(
        momentum_model.trained,
        momentum_model.parity,
        market=momentum_model.market,
        bar_source=training_set.bar_source,
        trades_on=trades_on,
        champion=champion,
        champion_version=champion_version,
    )
    run_url = f"{settings.dagster.url.rstrip('/')}/runs/{context.run.run_id}" if settings.dagster.url else ""
    sidecar = build_sidecar(
        momentum_model.trained,
        training_set,
        momentum_model.packed,
        gate,
        model_name=MODEL_NAME,
        git_commit=code_commit(),
        created_by=f"Dagster run {context.run.run_id}",
        created_at_ns=time.time_ns(),
        run_url=run_url,
    )
    version = registry.register(
        momentum_model.packed,
        sidecar,
        description=describe(sidecar, champion, champion_version),
        plots=plots(momentum_model.trained),
        run_name=f"train_momentum {context.run.run_id[:8]}",
        tags={"dagster_run_id": context.run.run_id} | ({"dagster_run_url": run_url} if run_url else {}),
    )
    return dg.MaterializeResult(
        metadata={
            "version": version,
            "model": MODEL_NAME,
            "market": sidecar.market,
            "bar_source": sidecar.bar_source,
            "mlflow": dg.MetadataValue.url(registry.url_of(MODEL_NAME, version)),
            "gate_champion": "passed" if gate.passed else "failed",
            "gate": dg.MetadataValue.md(_gate_table(gate)),
            "champion_when_judged": champion_version or "none",
            "dagster/row_count": sidecar.training_rows,
            "training_data_digest": sidecar.training_data_digest,
            "feature_schema_hash": sidecar.feature_schema_hash,
            "artifact_sha256": dict(sidecar.artifact_sha256),
            "git_commit": sidecar.git_commit,
        },
        check_results=[
            dg.AssetCheckResult(
                check_name="skill_gate",
                passed=gate.passed,
                severity=dg.AssetCheckSeverity.WARN,
                description=f"{MODEL_NAME} version {version} passed: the sensor promote_champion promotes it."
                + (f" Warning: {warnings(gate)}." if warnings(gate) else "")
                if gate.passed
                else f"{MODEL_NAME} version {version} is not promoted: {failures(gate)}.",
                metadata={c.name: f"{_MARKS[c.verdict]} {c.observed} (asked: {c.required})" for c in gate.checks}
                | {"mlflow": dg.MetadataValue.url(registry.url_of(MODEL_NAME, version))},
            )
        ],
    )


def _gate_table(gate: GateResult) -> str:
    # Short enough to be shown inline: what was asked stands in the check's own metadata.
    rows = (f"| {_MARKS[check.verdict]} {check.name} | {check.observed} |" for check in gate.checks)
    return "\n".join(["| check | saw |", "|---|---|", *rows])[:MAXIMUM_MARKDOWN]


# --- checks -------------------------------------------------------------------------------------------------------


@dg.asset_check(
    asset=momentum_model, blocking=True, description="No training row knows anything of the replayed session."
)
def training_ends_before_replay(
    settings: dg.ResourceParam[Settings], offline: dg.ResourceParam[OfflineStoreResource], momentum_model: Candidate
) -> dg.AssetCheckResult:
    """Compare the last label's end with the open of the session that is held out."""
    with expected_failures(MarketDataError):
        held_out = Desk(offline.store(), settings).held_out_session()
    end_ns = momentum_model.trained.training_end_ns
    return dg.AssetCheckResult(
        passed=held_out is None or end_ns <= held_out.open_ns,
        description=f"trained to {ist_text(end_ns)}; held out: {held_out.date if held_out else 'no session'}",
    )


@dg.asset_check(
    asset=momentum_model,
    blocking=True,
    description="The packed model that live code runs says what the trained one says.",
)
def packed_model_equals_trained(momentum_model: Candidate) -> dg.AssetCheckResult:
    """Read the parity that was measured when the model was packed."""
    parity = momentum_model.parity
    return dg.AssetCheckResult(
        passed=parity.holds,
        description=f"{parity.rows:,} rows, largest difference {parity.largest_difference:.3g}",
        metadata={"allowed_difference": parity.allowed_difference, "bit_equal": parity.bit_equal},
    )


CHECKS: Final = (training_ends_before_replay, packed_model_equals_trained)
