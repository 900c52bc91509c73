"""What a person reads about a version: a markdown description and two plots.

Both are pure: a trained model or a sidecar in, text or PNG bytes out.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models_registry.refs import GateResult, bars_in_words
from models_registry.sidecar import Sidecar
from models_registry.tables import (
    Row,
    ScoreDeciles,
    day_text,
    failures,
    figure,
    fold_rows,
    gate_rows,
    score_deciles,
    warnings,
)

if TYPE_CHECKING:
    from models_registry.training import TrainedModel

_ROWS: Final = (
    ("auc", "AUC", ".4f"),
    ("auc_lower_bound", "AUC, lower bound over sessions", ".4f"),
    ("hit_surplus", "hits above the base rate", ".4f"),
    ("hit_surplus_lower_bound", "hits above the base rate, lower bound", ".4f"),
    ("log_loss", "log loss", ".6f"),
    ("trades", "trades that the account would have made", ",.0f"),
    ("trade_gross_expectancy_bps", "a trade before costs, bps", ".2f"),
    ("trade_net_expectancy_bps", "a trade net of costs, bps", ".2f"),
    ("long_trade_net_expectancy_bps", "a long trade net, bps", ".2f"),
    ("short_trade_net_expectancy_bps", "a short trade net, bps", ".2f"),
    ("trades_net_pnl_inr", "all trades net, rupees", ",.0f"),
    ("trades_left_open", "trades left open at a session's end", ",.0f"),
    ("entries_refused", "entries that risk refused", ",.0f"),
    ("buy_forward_return_bps", "forward return of rows above the buy threshold, bps", ".2f"),
    ("sell_forward_return_bps", "forward return of rows below the sell threshold, bps", ".2f"),
    ("rows", "rows", ",.0f"),
    ("test_sessions", "sessions", ".0f"),
)
_NAIVE: Final = {"auc": 0.5, "hit_surplus": 0.0}
_VERDICTS: Final = {"passed": "passed", "failed": "**failed**", "warning": "*warning*"}
_RIGHT: Final = {"rows", "AUC", "log loss", "naive log loss", "buy at", "sell at", "trades", "net bps a trade"}
_MOST_DETAILS: Final = 600
"""Characters of a market's details on the page; the sidecar has them all."""
LONGEST_PAGE: Final = 5000
"""Characters of a version's description in MLflow's database. SQLite holds more, PostgreSQL refuses it."""
_ORIGIN: Final = "### What made it"
DECILES_PLOT: Final = "score_deciles.png"
CALIBRATION_PLOT: Final = "calibration.png"
_WEIGHTS: Final = (
    "Rows weigh by how much of their label's interval is theirs alone, and every session weighs the same; a return of "
    "zero counts half to each class."
)


def describe(sidecar: Sidecar, champion: Sidecar | None = None, champion_version: str | None = None) -> str:
    """Write the markdown description of a version.

    Parameters
    ----------
    sidecar : Sidecar
        The candidate.
    champion : Sidecar, optional
        The sidecar of the version that holds the champion alias now, if it can be read.
    champion_version : str, optional
        Its version.
    """
    lines = [
        # The list of versions shows how this begins, as it is written: plain words.
        f"{sidecar.model_name}, {sidecar.algorithm.replace('_', ' ')} on {sidecar.market}. {_verdict(sidecar.gate)}",
        "",
        *_made_of(sidecar),
        "",
        *_metrics_table(sidecar, champion, champion_version),
        "",
        *_gate_tables(sidecar),
        "### Walk-forward folds",
        "",
        *_table(fold_rows(sidecar.folds)),
        "",
        _ORIGIN,
        "",
        _thresholds(sidecar),
        "",
        *_origin(sidecar),
        "",
    ]
    lines.append(
        "Versions are promoted from Dagster or with `alpha-panda models promote`, which write the ledger. The "
        "*Promote model* button of this page does not, and an alias set by hand is refused by the strategy runner."
    )
    return "\n".join(_spaced(line) if line.startswith("| ") else line for line in lines)


def shortened(page: str, longest: int) -> str:
    """Leave sections out of a page, the last before its origin first, until it is at most so many characters long.

    What it leaves out is named; the sidecar and Dagster have it.
    """
    before, *sections = re.split(r"\n\n(?=### )", page)
    left_out: list[str] = []

    def whole() -> str:
        said = f"Left out here, for want of room: {', '.join(left_out)}. Dagster shows it." if left_out else ""
        return "\n\n".join(part for part in (before, *sections, said) if part)

    while len(whole()) > longest and len(sections) > 1:
        left_out.append(sections.pop(-2).partition("\n")[0].removeprefix("### "))
    return whole()[:longest]


def _verdict(gate: GateResult) -> str:
    warned = warnings(gate)
    verdict = (
        f"The {gate.rung} gate passed."
        if gate.passed
        else f"The {gate.rung} gate did not pass, so the sensor does not promote this version: {failures(gate)}."
    )
    return verdict + (f" Warning: {warned}." if warned else "")


def _made_of(sidecar: Sidecar) -> list[str]:
    lines = [
        f"Trained on {sidecar.training_rows:,} rows from {day_text(sidecar.training_start_ns)} to "
        f"{day_text(sidecar.training_end_ns - 1)} (IST), bars {sidecar.bar_clock} "
        f"({bars_in_words(sidecar.bar_source)}), label {sidecar.label}."
    ]
    if sidecar.specification:
        embargo = sidecar.fold_parameters.get("embargo_sessions", 0)
        instruments = f"{len(sidecar.instruments)} instruments"
        lines.append(f"{instruments}; {len(sidecar.folds)} folds with an embargo of {embargo} sessions. {_WEIGHTS}")
    return lines


def _thresholds(sidecar: Sidecar) -> str:
    sell, origin = sidecar.sell_threshold, sidecar.thresholds_from
    if sell is None:
        entry = f"Accept a proposal at a score of {sidecar.buy_threshold:.4f} or more"
    else:
        entry = f"Enter long at a score of {sidecar.buy_threshold:.4f} or more, short at {sell:.4f} or less"
    if origin is None:
        return f"{entry}."
    quantiles = (
        f"quantile {origin.buy_quantile:g}"
        if origin.sell_quantile is None
        else f"quantiles {origin.buy_quantile:g} and {origin.sell_quantile:g}"
    )
    return (
        f"{entry}: the {quantiles} of how the model of fold "
        f"{origin.fold} leaned on {origin.rows:,} rows of {origin.first_session} to {origin.last_session}, times "
        f"{origin.scale:.3f}."
    )


def _origin(sidecar: Sidecar) -> list[str]:
    """Say what made it, by ids: an address would die with its port."""
    run = f", in Dagster's run `{sidecar.run_id}`" if sidecar.run_id else ""
    lines = [
        f"Fitted with seed {sidecar.seed} at commit `{sidecar.git_commit[:12]}`{run}, on features "
        f"`{sidecar.feature_schema_hash[:12]}` and data `{sidecar.training_data_digest[:12]}`; registered by "
        f"{sidecar.created_by}. What live reads of it is `{sidecar.identity[:12]}`."
    ]
    if sidecar.market_details:
        details = json.dumps(sidecar.market_details, ensure_ascii=False)
        lines += ["", f"{sidecar.market} in detail: `{details[:_MOST_DETAILS]}{'…' * (len(details) > _MOST_DETAILS)}`"]
    return lines


def _spaced(row: str) -> str:
    # MLflow's tables have no padding and trim blanks; without these entities columns run into one another.
    return row.replace(" |", "&emsp;|")


def _metrics_table(sidecar: Sidecar, champion: Sidecar | None, version: str | None) -> list[str]:
    naive = _NAIVE | {"log_loss": sidecar.metrics.get("naive_log_loss", float("nan"))}
    holder = f"champion v{version}" if version else "champion (none yet)"
    theirs = champion.metrics if champion is not None else {}
    rows = [
        {
            "out of fold": label,
            "candidate": figure(sidecar.metrics, name, form),
            "naive baseline": figure(naive, name, form),
            holder: figure(theirs, name, form),
        }
        for name, label, form in _ROWS
    ]
    lines = _table(rows, {"candidate", "naive baseline", holder})
    lines += ["", "The naive baseline always says the share of up moves in its training rows."]
    if champion is not None and _data_of(champion) != _data_of(sidecar):
        lines.append(
            "The champion's figures are those of its registration, on other sessions or instruments: the check "
            "better_than_champion compares on the same rows."
        )
    return lines


def _data_of(sidecar: Sidecar) -> tuple[object, ...]:
    return (sidecar.lineage.sessions if sidecar.lineage is not None else None), sidecar.instruments


def _gate_tables(sidecar: Sidecar) -> list[str]:
    lines: list[str] = []
    for gate in (sidecar.gate, sidecar.live_gate):
        if gate is not None:
            rows = [row | {"verdict": _VERDICTS[row["verdict"]]} for row in gate_rows(gate)]
            lines += [f"### Gate for {gate.rung}", "", *_table(rows), ""]
    return lines


def _table(rows: Sequence[Row], right: set[str] | None = None) -> list[str]:
    """Write rows as a table of markdown; columns of figures stand to the right."""
    columns = list(rows[0]) if rows else []
    rule = ["---:" if column in (right or _RIGHT) else "---" for column in columns]
    cells = [columns, *(list(row.values()) for row in rows)]
    first, *rest = (f"| {' | '.join(line)} |" for line in cells)
    return [first, f"|{'|'.join(rule)}|", *rest]


def plots(trained: TrainedModel) -> dict[str, bytes]:
    """Draw the out-of-fold scores: deciles against mean forward return, and calibration; PNG by file name."""
    found = score_deciles(trained.oof)
    return {DECILES_PLOT: _deciles(found), CALIBRATION_PLOT: _calibration(found)}


def _deciles(found: ScoreDeciles) -> bytes:
    canvas, axes = _figure()
    means = found.forward_return_bps
    axes.bar(np.arange(1, 11), means, color=["#2a7f62" if value > 0 else "#b4442f" for value in means])
    axes.axhline(0.0, color="black", linewidth=0.8)
    axes.set_xticks(np.arange(1, 11))
    axes.set(xlabel="decile of the score (1 lowest)", ylabel="mean forward return, bps", title="Out-of-fold deciles")
    return _png(canvas)


def _calibration(found: ScoreDeciles) -> bytes:
    canvas, axes = _figure()
    low, high = float(np.nanmin([found.score, found.up])), float(np.nanmax([found.score, found.up]))
    axes.plot([low, high], [low, high], color="grey", linestyle="--", label="perfect")
    axes.plot(found.score, found.up, marker="o", color="#2a7f62", label="model, by decile")
    axes.set(xlabel="mean score", ylabel="share of up moves", title="Out-of-fold calibration")
    axes.legend()
    return _png(canvas)


def _figure() -> tuple[Any, Any]:
    # Figure, not pyplot: no window system, no process-wide state.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    canvas = Figure(figsize=(6.4, 3.6), layout="constrained")
    FigureCanvasAgg(canvas)
    return canvas, canvas.subplots()


def _png(canvas: Any) -> bytes:
    buffer = io.BytesIO()
    canvas.savefig(buffer, format="png", dpi=100, metadata={"Software": None})
    return buffer.getvalue()
