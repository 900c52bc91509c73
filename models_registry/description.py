"""What a person reads about a version: a markdown description and two plots.

Both are pure: a trained model or a sidecar in, text or PNG bytes out.
"""

from __future__ import annotations

import datetime as dt
import io
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import IST
from models_registry.refs import GateResult, bars_in_words
from models_registry.sidecar import Sidecar

if TYPE_CHECKING:
    from models_registry.training import OutOfFold, TrainedModel

_ROWS: Final = (
    ("auc", "AUC, out of fold", ".4f"),
    ("auc_lower_bound", "AUC, 95 % lower bound", ".4f"),
    ("log_loss", "log loss", ".5f"),
    ("buy_forward_return_bps", "forward return above the buy threshold, bps", ".2f"),
    ("sell_forward_return_bps", "forward return below the sell threshold, bps", ".2f"),
    ("rows", "out-of-fold rows", ",.0f"),
    ("test_sessions", "test sessions", ".0f"),
)
_NAIVE: Final = {"auc": 0.5}
_VERDICTS: Final = {"passed": "passed", "failed": "**failed**", "warning": "*warning*"}
DECILES_PLOT: Final = "score_deciles.png"
CALIBRATION_PLOT: Final = "calibration.png"


def describe(sidecar: Sidecar, champion: Sidecar | None = None, champion_version: str | None = None) -> str:
    """Write the markdown description of a version.

    Parameters
    ----------
    sidecar : Sidecar
        The candidate.
    champion : Sidecar, optional
        The sidecar of the version that holds the champion alias now.
    champion_version : str, optional
        Its version.
    """
    verdict = (
        f"The {sidecar.gate.rung} gate passed."
        if sidecar.gate.passed
        else f"The {sidecar.gate.rung} gate **did not pass**, so this version is not promoted: "
        f"{failures(sidecar.gate)}."
    )
    warned = warnings(sidecar.gate)
    lines = [
        f"## {sidecar.model_name}: {sidecar.algorithm.replace('_', ' ')} on {sidecar.market}",
        "",
        verdict + (f" Warning: {warned}." if warned else ""),
        "",
        f"Trained on {sidecar.training_rows:,} rows from "
        f"{_day(sidecar.training_start_ns)} to {_day(sidecar.training_end_ns - 1)} (IST), bars {sidecar.bar_clock} "
        f"({bars_in_words(sidecar.bar_source)}), label {sidecar.label}.",
        "",
        *_metrics_table(sidecar, champion, champion_version),
        "",
        "### Gate",
        "",
        *_gate_table(sidecar),
        "",
        "### Walk-forward folds",
        "",
        *_fold_table(sidecar),
        "",
        f"Enter long at a score of {sidecar.buy_threshold:.4f} or more, short at {sidecar.sell_threshold:.4f} or less. "
        f"Seed {sidecar.seed}, commit `{sidecar.git_commit[:12]}`, features `{sidecar.feature_schema_hash[:12]}`, data "
        f"`{sidecar.training_data_digest[:12]}`, made by {sidecar.created_by}.",
        "",
    ]
    if sidecar.run_url:
        lines += [f"[The Dagster run that trained it]({sidecar.run_url})", ""]
    lines.append(
        "Versions are promoted from Dagster or with `alpha-panda models promote`, which write the ledger. The "
        "*Promote model* button of this page does not, and an alias set by hand is refused by the strategy runner."
    )
    return "\n".join(_spaced(line) if line.startswith("| ") else line for line in lines)


def failures(gate: GateResult) -> str:
    """Say which checks of a gate failed, what they saw and what they asked."""
    return "; ".join(f"{c.name} saw {c.observed}, asked for {c.required}" for c in gate.checks if c.verdict == "failed")


def warnings(gate: GateResult) -> str:
    """Say what a gate saw that it does not fail for, and a person should know; empty if there is nothing."""
    return "; ".join(c.observed for c in gate.checks if c.verdict == "warning")


def _spaced(row: str) -> str:
    # MLflow's tables have no padding and trim blanks; without these entities columns run into one another.
    return row.replace(" |", "&emsp;|")


def _metrics_table(sidecar: Sidecar, champion: Sidecar | None, version: str | None) -> list[str]:
    naive = _NAIVE | {"log_loss": sidecar.metrics.get("naive_log_loss", float("nan"))}
    holder = f"champion v{version}" if champion is not None and version else "champion (none yet)"
    lines = [f"| out of fold | candidate | naive baseline | {holder} |", "|---|---:|---:|---:|"]
    for name, label, spec in _ROWS:
        theirs = champion.metrics if champion is not None else {}
        cells = (_cell(source, name, spec) for source in (sidecar.metrics, naive, theirs))
        lines.append(f"| {label} | {' | '.join(cells)} |")
    lines += ["", "The naive baseline always says the share of up moves in its training rows."]
    if champion is not None and champion.market != sidecar.market:
        lines.append(f"The champion was measured on {champion.market}: the columns cannot be compared.")
    return lines


def _cell(metrics: dict[str, float], name: str, spec: str) -> str:
    return format(metrics[name], spec) if name in metrics else "–"


def _gate_table(sidecar: Sidecar) -> list[str]:
    rows = [
        f"| {check.name} | {_VERDICTS[check.verdict]} | {check.observed} | {check.required} |"
        for check in sidecar.gate.checks
    ]
    return ["| check | verdict | observed | required |", "|---|---|---|---|", *rows]


def _fold_table(sidecar: Sidecar) -> list[str]:
    rows = [
        f"| {fold.fold} | {_day(fold.train_start_ns)} – {_day(fold.train_end_ns - 1)} "
        f"| {_day(fold.test_start_ns)} – {_day(fold.test_end_ns - 1)} | {fold.rows:,} "
        f"| {_cell(fold.metrics, 'auc', '.4f')} |"
        for fold in sidecar.folds
    ]
    return ["| fold | trained | tested | rows | AUC |", "|---|---|---|---:|---:|", *rows]


def _day(time_ns: int) -> str:
    return f"{dt.datetime.fromtimestamp(time_ns // 1_000_000_000, IST):%Y-%m-%d}"


def plots(trained: TrainedModel) -> dict[str, bytes]:
    """Draw the out-of-fold scores: deciles against mean forward return, and calibration; PNG by file name."""
    edges = np.quantile(trained.oof.score, np.linspace(0.0, 1.0, 11))
    decile = np.clip(np.searchsorted(edges, trained.oof.score, side="right") - 1, 0, 9)
    return {DECILES_PLOT: _deciles(trained.oof, decile), CALIBRATION_PLOT: _calibration(trained.oof, decile)}


def _deciles(oof: OutOfFold, decile: NDArray[np.intp]) -> bytes:
    figure, axes = _figure()
    means = _mean_by(decile, oof.forward_return * 1e4)
    axes.bar(np.arange(1, 11), means, color=["#2a7f62" if value > 0 else "#b4442f" for value in means])
    axes.axhline(0.0, color="black", linewidth=0.8)
    axes.set_xticks(np.arange(1, 11))
    axes.set(xlabel="decile of the score (1 lowest)", ylabel="mean forward return, bps", title="Out-of-fold deciles")
    return _png(figure)


def _calibration(oof: OutOfFold, decile: NDArray[np.intp]) -> bytes:
    figure, axes = _figure()
    said, happened = _mean_by(decile, oof.score), _mean_by(decile, oof.up)
    low, high = float(np.nanmin([said, happened])), float(np.nanmax([said, happened]))
    axes.plot([low, high], [low, high], color="grey", linestyle="--", label="perfect")
    axes.plot(said, happened, marker="o", color="#2a7f62", label="model, by decile")
    axes.set(xlabel="mean score", ylabel="share of up moves", title="Out-of-fold calibration")
    axes.legend()
    return _png(figure)


def _mean_by(group: NDArray[np.intp], values: NDArray[np.float64]) -> NDArray[np.float64]:
    counts = np.bincount(group, minlength=10)
    sums = np.bincount(group, weights=values, minlength=10)
    means = np.full(10, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def _figure() -> tuple[Any, Any]:
    # Figure, not pyplot: no window system, no process-wide state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _png(figure: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()
