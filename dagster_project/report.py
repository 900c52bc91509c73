"""What people read about a model: the version's description in MLflow, its plots, and the gate as a table."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from feature_store.market import ist_text
from models_registry.refs import GateResult, Sidecar

if TYPE_CHECKING:
    from models_registry.training import OutOfFold, TrainedModel

_SHOWN = (
    ("auc", "AUC", "{:.4f}"),
    ("auc_lower_bound", "AUC, 95 % lower bound", "{:.4f}"),
    ("log_loss", "log loss", "{:.5f}"),
    ("naive_log_loss", "log loss of the base rate", "{:.5f}"),
    ("gross_expectancy_bps", "gross expectancy of a trade, bps", "{:.2f}"),
    ("net_expectancy_bps", "net expectancy of a trade, bps", "{:.2f}"),
    ("rows", "out-of-sample rows", "{:,.0f}"),
)


def description(sidecar: Sidecar, champion: Sidecar | None, champion_version: str | None) -> str:
    """Describe a version in markdown: verdict, candidate against champion, period, code, and the run that made it."""
    versus = f"champion (version {champion_version})" if champion else "champion (none yet)"
    lines = [
        f"**{sidecar.market}**",
        "",
        f"Gate for champion: **{'passed' if sidecar.gate.passed else 'FAILED'}**. Aliases are moved by Dagster or "
        "`alpha-panda models promote`, never by the button *Promote model* above.",
        "",
        f"| out of sample | this version | {versus} |",
        "|---|---|---|",
        *(
            f"| {words} | {_shown(sidecar, name, form)} | {_shown(champion, name, form)} |"
            for name, words, form in _SHOWN
        ),
        "",
        gate_table(sidecar.gate),
        "",
        f"Trained on {sidecar.training_rows:,} rows, {ist_text(sidecar.training_start_ns)} to "
        f"{ist_text(sidecar.training_end_ns)}; label {sidecar.label}; seed {sidecar.seed}.",
        f"Data `{sidecar.training_data_digest[:16]}…`, features `{sidecar.feature_schema_hash[:16]}…`, code "
        f"`{sidecar.git_commit}`.",
        "",
        f"Made by [{sidecar.created_by}]({sidecar.run_url})" if sidecar.run_url else f"Made by {sidecar.created_by}",
    ]
    return "\n".join(lines)


def _shown(sidecar: Sidecar | None, name: str, form: str) -> str:
    value = sidecar.metrics.get(name) if sidecar else None
    return "–" if value is None else form.format(value)


def gate_table(gate: GateResult) -> str:
    """Give the gate's checks as a markdown table."""
    rows = (f"| {'✓' if c.passed else '✗'} {c.name} | {c.observed} | {c.required} |" for c in gate.checks)
    return "\n".join(["| check | saw | asked |", "|---|---|---|", *rows])


def decile_returns_bps(oof: OutOfFold) -> list[float]:
    """Mean forward return of the out-of-fold rows by decile of their score, basis points, lowest scores first."""
    import numpy as np

    parts = np.array_split(np.argsort(oof.score, kind="stable"), 10)
    return [float(oof.forward_return[part].mean()) * 1e4 if len(part) else 0.0 for part in parts]


def figures(trained: TrainedModel) -> dict[str, bytes]:
    """Draw the plots that are kept with the version, as PNG by file name."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3.2), layout="constrained")
    deciles, folds = figure.subplots(1, 2)
    deciles.bar(range(1, 11), decile_returns_bps(trained.oof))
    deciles.set(title="Forward return by score decile, out of sample", xlabel="decile of score", ylabel="mean, bps")
    folds.bar([str(fold.fold) for fold in trained.folds], [fold.metrics["auc"] for fold in trained.folds])
    folds.axhline(0.5, color="grey", linewidth=1)
    folds.set(title="AUC by walk-forward fold", xlabel="fold", ylabel="AUC", ylim=(0.4, None))
    png = io.BytesIO()
    FigureCanvasAgg(figure).print_png(png)
    return {"out_of_sample.png": png.getvalue()}
