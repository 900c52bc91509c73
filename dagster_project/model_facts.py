"""What a person sees of a model's assets in Dagster: facts, tables and plots, from what training and gates give."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from dagster_project.plots import MAXIMUM_MARKDOWN, column_plot, line_plot, small_multiples
from dagster_project.previews import feature_quantiles, label_quantiles
from feature_store.market.types import ist_text
from models_registry.refs import GateResult, named_thresholds

if TYPE_CHECKING:
    from dagster_project.candidates import Candidate
    from dagster_project.recipes import Recipe
    from feature_store.market.types import Session
    from feature_store.offline.training_frames import TrainingFrame
    from models_registry.gates.evidence import TradeEvidence
    from models_registry.sidecar import Sidecar
    from models_registry.tables import Row

Facts = dict[str, Any]
_SAMPLED: Final = 200_000  # rows that distributions are drawn from
_MARKS: Final = {"passed": "✓", "failed": "✗", "warning": "⚠"}


def training_set_facts(frame: TrainingFrame, sessions: Sequence[Session], held_out: Session | None) -> Facts:
    """Say what a training set holds: sessions, rows, the distribution of labels and features."""
    import numpy as np

    bps = frame.forward_return * 1e4
    some = frame.X[:: max(1, len(frame) // _SAMPLED)]
    return {
        "market": frame.market,
        "bar_source": frame.bar_source,
        "rows_left_out": frame.left_out,
        "label": frame.label.name,
        "sessions": len(sessions),
        "first_session": sessions[0].date.isoformat(),
        "last_session": sessions[-1].date.isoformat(),
        "first_decision": ist_text(int(frame.decision_ns[0]))[:10],
        "held_out_session": held_out.date.isoformat() if held_out else "none",
        "dagster/row_count": len(frame),
        "up_share": round(float((bps > 0).mean()), 4),
        "mean_bps": round(float(bps.mean()), 3),
        "standard_deviation_bps": round(float(bps.std()), 3),
        "training_data_digest": frame.digest,
        "feature_schema_hash": frame.schema.hash,
        "label_distribution": label_quantiles(bps),
        "feature_distributions": dg.MetadataValue.md(
            small_multiples(
                dict(zip(frame.schema.names, np.ascontiguousarray(some.T), strict=True)),
                "Distribution of each feature between its 1 % and 99 % quantiles",
            )
        ),
        "feature_quantiles": feature_quantiles(frame.schema.names, some),
    }


def recipe_facts(recipe: Recipe) -> Facts:
    """Say what was tried, and what is fitted next."""
    spec = recipe.spec
    rows = [
        {
            "try": str(one.number),
            "log loss in the first block": f"{one.value:.6f}",
            "hyperparameters": ", ".join(f"{name} {value:.4g}" for name, value in one.hyperparameters.items()) or "–",
            "seconds": f"{one.seconds:.1f}",
            "": "chosen" if one.hyperparameters == spec.hyperparameters else "",
        }
        for one in recipe.tries
    ]
    return {
        "estimator": spec.estimator,
        "seed": spec.seed,
        "folds": spec.folds,
        "hyperparameters": spec.hyperparameters or "the estimator's defaults",
        "tries": _table(rows) if rows else "none: the strategy's own hyperparameters",
    }


def fitted_facts(candidate: Candidate, feature_schema_hash: str) -> Facts:
    """Say how a model was fitted and packed."""
    trained = candidate.trained
    return {
        "market": candidate.market,
        "estimator": trained.spec.estimator,
        "seed": trained.spec.seed,
        "dagster/row_count": trained.training_rows,
        "dropped_rows": trained.dropped,
        "trained_from": ist_text(trained.training_start_ns),
        "trained_to": ist_text(trained.training_end_ns),
        **{
            name: round(value, 6)
            for name, value in named_thresholds(trained.buy_threshold, trained.sell_threshold).items()
        },
        "feature_schema_hash": feature_schema_hash,
        "training_data_digest": trained.data_digest,
        "packed_bytes": sum(len(content) for content in candidate.packed.files.values()),
        "packed_largest_difference": f"{candidate.parity.largest_difference:.3g}",
        "git_commit": trained.fitted.git_commit,
    }


def report_facts(candidate: Candidate) -> Facts:
    """Show what a model was worth out of sample."""
    from models_registry.tables import fold_rows, score_deciles

    trained = candidate.trained
    deciles = score_deciles(trained.oof).forward_return_bps.tolist()
    return {
        "market": candidate.market,
        "forward_return_by_score_decile": dg.MetadataValue.md(
            column_plot(deciles, "Mean forward return by score decile, bps, lowest score first")
        ),
        "auc_by_fold": dg.MetadataValue.md(
            line_plot([fold.metrics["auc"] for fold in trained.folds], "AUC by fold, 0.5 is chance")
        ),
        "folds": _table(fold_rows(trained.folds)),
        **_rounded(trained.metrics),
    }


def trade_facts(trades: TradeEvidence) -> Facts:
    """Show the trades that an account would have made in sessions that the model had not seen."""
    import numpy as np

    from models_registry.tables import figure

    earned = np.cumsum(list(trades.net_pnl_by_session.values())).tolist()
    folds = [
        {
            "fold": str(number),
            "trades": f"{fold.trades:,}",
            "net bps a trade": figure(fold.metrics(), "trade_net_expectancy_bps", ".2f"),
        }
        for number, fold in trades.by_fold.items()
    ]
    return {
        "dagster/row_count": trades.trades,
        "net_pnl_of_unseen_sessions": dg.MetadataValue.md(
            line_plot([0.0, *earned], f"Net PnL, ₹, over {trades.sessions} sessions that the model had not seen")
        ),
        "trades_by_fold": _table(folds),
        "entries_refused_by_risk": dict(trades.entries_refused),
        **_rounded(trades.metrics()),
    }


def version_facts(sidecar: Sidecar, version: str) -> Facts:
    """Say what was registered, and what its gate saw."""
    from models_registry.tables import fold_rows

    return {
        "version": version,
        "model": sidecar.model_name,
        "market": sidecar.market,
        "bar_source": sidecar.bar_source,
        "identity": sidecar.identity,
        "gate_champion": "passed" if sidecar.gate.passed else "failed",
        "gate": dg.MetadataValue.md(_gate_table(sidecar.gate)),
        "champion_when_judged": sidecar.gate.judged_against or "none",
        "folds": _table(fold_rows(sidecar.folds)),
        "dagster/row_count": sidecar.training_rows,
        "training_data_digest": sidecar.training_data_digest,
        "feature_schema_hash": sidecar.feature_schema_hash,
        "artifact_sha256": dict(sidecar.artifact_sha256),
        "git_commit": sidecar.git_commit,
    }


def skill_gate_result(gate: GateResult, model: str, version: str) -> dg.AssetCheckResult:
    """Show a gate's verdict as the check ``skill_gate``."""
    from models_registry.tables import failures, warnings

    if gate.passed:
        warned = f" Warning: {warnings(gate)}." if warnings(gate) else ""
        said = f"{model} version {version} passed: the sensor promote_champion promotes it.{warned}"
    else:
        said = f"{model} version {version} is not promoted: {failures(gate)}."
    return dg.AssetCheckResult(
        check_name="skill_gate",
        passed=gate.passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=said,
        metadata={c.name: f"{_MARKS[c.verdict]} {c.observed} (asked: {c.required})" for c in gate.checks},
    )


def _rounded(metrics: Mapping[str, float]) -> dict[str, int | float]:
    return {
        name: int(value) if float(value).is_integer() else round(float(value), 2 if name.endswith("_bps") else 4)
        for name, value in metrics.items()
    }


def _table(rows: Sequence[Row]) -> dg.TableMetadataValue:
    return dg.MetadataValue.table([dg.TableRecord(dict(row)) for row in rows])


def _gate_table(gate: GateResult) -> str:
    # Short enough to be shown inline: what was asked stands in the check's own metadata.
    from models_registry.tables import gate_rows

    rows = (f"| {_MARKS[row['verdict']]} {row['check']} | {row['observed']} |" for row in gate_rows(gate))
    return "\n".join(["| check | saw |", "|---|---|", *rows])[:MAXIMUM_MARKDOWN]
