"""What a person sees of a model's assets in Dagster: facts, tables and plots, from what training and gates give.

Dagster clips what is wider than its column, so text is broken into short lines and tables have few columns. Digests
stand in short, and whole in the last entry, ``identity``.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from dagster_project.plots import (
    MAXIMUM_MARKDOWN,
    column_plot,
    equity_plot,
    interval_plot,
    line_plot,
    short_lines,
    small_multiples,
)
from dagster_project.previews import feature_quantiles, label_quantiles
from feature_store.market.types import ist_text
from models_registry.refs import GateResult, named_thresholds

if TYPE_CHECKING:
    from dagster_project.candidates import Candidate
    from dagster_project.recipes import Recipe
    from feature_store.market.types import Session
    from feature_store.offline.training_frames import TrainingFrame
    from models_registry.cross_validation import PathSpread
    from models_registry.gates.evidence import TradeEvidence
    from models_registry.sidecar import Sidecar
    from models_registry.tables import Row
    from models_registry.training import OutOfFold

Facts = dict[str, Any]
_SAMPLED: Final = 200_000  # rows that distributions are drawn from
_MARKS: Final = {"passed": "✓", "failed": "✗", "warning": "⚠"}
_FOLD_COLUMNS: Final = ("fold", "AUC", "trades", "net bps a trade")
_SHORT, _HALF = 12, 32  # characters of a digest


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
        "label_distribution": label_quantiles(bps),
        "feature_distributions": dg.MetadataValue.md(
            small_multiples(
                dict(zip(frame.schema.names, np.ascontiguousarray(some.T), strict=True)),
                "Distribution of each feature between its 1 % and 99 % quantiles",
            )
        ),
        "feature_quantiles": feature_quantiles(frame.schema.names, some),
        **_identity(training_data_digest=frame.digest, feature_schema_hash=frame.schema.hash),
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
        "packed_bytes": sum(len(content) for content in candidate.packed.files.values()),
        "packed_largest_difference": f"{candidate.parity.largest_difference:.3g}",
        **_identity(
            training_data_digest=trained.data_digest,
            feature_schema_hash=feature_schema_hash,
            git_commit=trained.fitted.git_commit,
        ),
    }


def report_facts(candidate: Candidate) -> Facts:
    """Show what a model was worth out of sample."""
    from models_registry.tables import fold_rows

    trained = candidate.trained
    return {
        "market": candidate.market,
        **_score_plots(trained.oof),
        "auc_by_fold": dg.MetadataValue.md(
            line_plot([fold.metrics["auc"] for fold in trained.folds], "AUC by fold, 0.5 is chance")
        ),
        "folds": _table(fold_rows(trained.folds), _FOLD_COLUMNS),
        **_rounded(trained.metrics),
    }


def path_facts(spread: PathSpread) -> Facts:
    """Show the skill of each path through all sessions."""
    return {
        "auc_by_path": _table([{"path": str(k + 1), "AUC": f"{value:.4f}"} for k, value in enumerate(spread.auc)]),
        "auc_by_split": dg.MetadataValue.md(line_plot(list(spread.auc_by_split), "AUC by split, 0.5 is chance")),
        "mean": round(spread.mean, 4),
        "lowest": round(spread.lowest, 4),
        "standard_deviation": round(spread.standard_deviation, 4),
        "rows": spread.rows,
        "rows_of_the_training_set": spread.thinned_from,
        "what_it_says": "Paths share sessions and training rows: their spread is no standard error.",
    }


def trade_facts(trades: TradeEvidence) -> Facts:
    """Show the trades that an account would have made in sessions that the model had not seen."""
    from models_registry.tables import figure

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
        **_equity(trades),
        "trades_by_fold": _table(folds),
        "trades_by_exit": _counts(trades.exits),
        "entries_refused_by_risk": _counts(trades.entries_refused),
        **_rounded(trades.metrics()),
    }


def version_facts(
    sidecar: Sidecar, version: str, oof: OutOfFold, trades: TradeEvidence, champion: Sidecar | None = None
) -> Facts:
    """Tell the story of a version, as its page in MLflow does: what it bets on, verdicts, plots, tries, data.

    Parameters
    ----------
    sidecar : Sidecar
        Of the version.
    version : str
    oof : OutOfFold
        What it said of rows that it had not seen.
    trades : TradeEvidence
        What the account would have made of that.
    champion : Sidecar, optional
        Of the version that holds the alias, if it can be read.
    """
    from models_registry.bet import bet
    from models_registry.description import on_the_same_rows, period_and_data, tries
    from models_registry.tables import fold_rows, metric_rows

    gates = {"verdict_for_paper": sidecar.gate} | (
        {"verdict_for_money": sidecar.live_gate} if sidecar.live_gate else {}
    )
    return {
        "version": version,
        "model": sidecar.model_name,
        "what_it_bets_on": _paragraphs([f"**{row['what']}**: {row['in words']}." for row in bet(sidecar)]),
        **{name: _verdict(gate) for name, gate in gates.items() if gate is not None},
        "gate_champion": "passed" if sidecar.gate.passed else "failed",
        "champion_when_judged": sidecar.gate.judged_against or "none",
        "against_the_champion": _paragraphs([on_the_same_rows(sidecar.gate)]),
        **_equity(trades),
        **_score_plots(oof),
        "figures": _table(metric_rows(sidecar.metrics, "champion", champion.metrics if champion else {})),
        "tries": _paragraphs(tries(sidecar) or ["not counted"]),
        "folds": _table(fold_rows(sidecar.folds), _FOLD_COLUMNS),
        "period_and_data": _paragraphs(period_and_data(sidecar)),
        "market": sidecar.market,
        "bar_source": sidecar.bar_source,
        "dagster/row_count": sidecar.training_rows,
        **_identity(
            training_data_digest=sidecar.training_data_digest,
            feature_schema_hash=sidecar.feature_schema_hash,
            git_commit=sidecar.git_commit,
            what_live_reads=sidecar.identity,
            **sidecar.artifact_sha256,
        ),
    }


def skill_gate_result(gate: GateResult, model: str, version: str) -> dg.AssetCheckResult:
    """Show a gate's verdict as the check ``skill_gate``: red where the version is refused."""
    from models_registry.tables import reasons

    why = "; ".join(row["why"] for row in reasons(gate))
    warned = "; ".join(row["why"] for row in reasons(gate, "warning"))
    said = (
        f"{model} version {version} passed: the sensor promote_champion promotes it."
        if gate.passed
        else f"{model} version {version} is REFUSED and not promoted: {why}."
    )
    return dg.AssetCheckResult(
        check_name="skill_gate",
        passed=gate.passed,
        severity=dg.AssetCheckSeverity.ERROR,
        description=said + (f" Warning: {warned}." if warned else ""),
        metadata={c.name: f"{_MARKS[c.verdict]} {c.observed} (asked: {c.required})" for c in gate.checks},
    )


# --- parts --------------------------------------------------------------------------------------------------------


def _equity(trades: TradeEvidence) -> Facts:
    told = f"Net profit, ₹, after charges, over {trades.sessions} sessions that no model had seen"
    earned = [trades.net_pnl_by_session[date] for date in sorted(trades.net_pnl_by_session)]
    return {"equity_and_drawdown": dg.MetadataValue.md(equity_plot(earned, told))}


def _score_plots(oof: OutOfFold) -> Facts:
    from models_registry.tables import score_deciles
    from models_registry.validation.calibration import calibration

    found = calibration(oof.score, oof.up, oof.weight, oof.day)
    told = f"Share that came (up) by score (across), {found.confidence:.0%} intervals by session; grey: perfect"
    plot = interval_plot(
        [one.mean_score for one in found.table],
        [one.rate for one in found.table],
        [one.lower for one in found.table],
        [one.upper for one in found.table],
        told,
    )
    return {
        "calibration": dg.MetadataValue.md(plot),
        "return_by_score": dg.MetadataValue.md(
            column_plot(
                score_deciles(oof).forward_return_bps.tolist(),
                "Mean return before costs by tenth of the score, bps, lowest score first",
            )
        ),
    }


def _verdict(gate: GateResult) -> dg.MarkdownMetadataValue:
    """Give the verdict with its reasons in words, and with what was seen as long as all of it is shown inline."""
    from models_registry.tables import reasons

    passed = sum(check.verdict == "passed" for check in gate.checks)
    head = f"**{'passed' if gate.passed else 'REFUSED'}**, {passed}/{len(gate.checks)} checks hold"
    rows = [(_MARKS[verdict], row) for verdict in ("failed", "warning") for row in reasons(gate, verdict)]
    whole = [f"{mark} **{row['why']}**: {row['saw']}" for mark, row in rows]
    text = short_lines("\n\n".join([head, *whole]))
    if len(text) > MAXIMUM_MARKDOWN:
        text = short_lines("\n\n".join([head, *(f"{mark} {row['why']}" for mark, row in rows)]))
    return dg.MetadataValue.md(text)


def _paragraphs(said: Sequence[str]) -> dg.MarkdownMetadataValue:
    return dg.MetadataValue.md(short_lines("\n\n".join(said)))


def _identity(**digests: str) -> Facts:
    # One word of 64 characters makes its whole column wider than the page, which then clips every other entry.
    lines = [f"{name}\n\n`{' '.join(textwrap.wrap(digest, _HALF))}`" for name, digest in digests.items()]
    short = {name: digest[:_SHORT] for name, digest in digests.items() if "." not in name}
    return short | {"identity": dg.MetadataValue.md("\n\n".join(lines))}


def _rounded(metrics: Mapping[str, float]) -> dict[str, int | float]:
    return {
        name: int(value) if float(value).is_integer() else round(float(value), 2 if name.endswith("_bps") else 4)
        for name, value in metrics.items()
    }


def _counts(found: Mapping[str, int]) -> str:
    return ", ".join(f"{number:,} {name}" for name, number in found.items()) or "none"


def _table(rows: Sequence[Row], columns: Sequence[str] = ()) -> dg.TableMetadataValue:
    """Give rows as a table of the columns that are named, so that none is clipped; all if none is."""
    kept = [{name: row[name] for name in columns or row if name in row} for row in rows]
    return dg.MetadataValue.table([dg.TableRecord(row) for row in kept])
