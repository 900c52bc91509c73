"""What a person reads about folds, gates and scores, as rows of text: Dagster and MLflow render the same ones. Pure."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import IST
from models_registry.refs import FoldResult, GateResult

if TYPE_CHECKING:
    from models_registry.training import OutOfFold

Row = dict[str, str]
"""A cell by its column, in order."""

_DECILES: Final = 10
_WHY: Final = {
    "finite_metrics": "a figure of it is no number",
    "enough_test_rows": "too little was tested",
    "no_leak": "training reaches into a test",
    "ranks_above_chance": "its ranking is not shown to be better than chance",
    "direction_above_chance": "its lean is not shown to be better than chance",
    "auc_plausible": "it is too good to be true",
    "no_feature_carries_it": "one feature carries all of it",
    "skill_outlives_a_bar": "its skill is gone a bar later",
    "better_than_champion": "it is not shown to be better than the champion",
    "packed_parity": "what live would run says something else than what was trained",
    "log_loss_below_naive": "as probabilities its scores are worth less than the base rate",
    "trades_earn": "its trades do not earn their costs",
    "enough_trades": "it made too few trades",
    "bar_source": "it trades on other bars than it was trained on",
    "beats_the_tries": "luck could do as well after so many tries",
    "record_is_long_enough": "the record is too short to tell it from luck",
    "choice_is_not_overfitted": "choosing it is not shown to be more than overfitting",
    "falls_not_too_deep": "it fell too deep",
    "small_beside_the_market": "its trades are not shown to be small beside the market",
    "holdout_is_fresh": "the held-out sessions were looked at",
}
"""Why a check says no, in words; a check without an entry is told by its name."""
_METRICS: Final = (
    ("AUC by gains (chance 0.5)", "gain_auc", ".4f"),
    ("its lower bound", "gain_auc_lower_bound", ".4f"),
    ("AUC (chance 0.5)", "auc", ".4f"),
    ("its lower bound", "auc_lower_bound", ".4f"),
    ("hits above base rate", "hit_surplus", ".4f"),
    ("their lower bound", "hit_surplus_lower_bound", ".4f"),
    ("log loss", "log_loss", ".5f"),
    ("log loss of base rate", "naive_log_loss", ".5f"),
    ("trades", "trades", ",.0f"),
    ("bps a trade, gross", "trade_gross_expectancy_bps", ".2f"),
    ("bps a trade, net", "trade_net_expectancy_bps", ".2f"),
    ("rupees, net", "trades_net_pnl_inr", ",.0f"),
    ("Sharpe ratio a year", "sharpe_annual", ".2f"),
    ("deepest fall, rupees", "max_drawdown_inr", ",.0f"),
)
_FOLD_FIGURES: Final = (
    ("AUC", "auc", ".4f"),
    ("log loss", "log_loss", ".5f"),
    ("naive log loss", "naive_log_loss", ".5f"),
    ("buy at", "buy_threshold", ".4f"),
    ("sell at", "sell_threshold", ".4f"),
    ("accept at", "accept_threshold", ".4f"),
    ("trades", "trades", ",.0f"),
    ("net bps a trade", "trade_net_expectancy_bps", ".2f"),
)


def figure(metrics: Mapping[str, float], name: str, form: str) -> str:
    """Write a metric; a dash where it is not there."""
    return format(metrics[name], form) if name in metrics else "–"


def number_of(count: int, thing: str) -> str:
    """Write a number of things: ``1 session``, ``12 sessions``."""
    return f"{count:,} {thing}{'' if count == 1 else 's'}"


def day_text(time_ns: int) -> str:
    """Give the IST date of a time."""
    return f"{dt.datetime.fromtimestamp(time_ns // 1_000_000_000, IST):%Y-%m-%d}"


def fold_rows(folds: Sequence[FoldResult]) -> list[Row]:
    """Give a row for each fold: what it was trained and tested on, and what it was worth there."""
    known = [one for one in _FOLD_FIGURES if any(one[1] in fold.metrics for fold in folds)]
    return [
        {
            "fold": str(fold.fold),
            "trained": f"{day_text(fold.train_start_ns)} – {day_text(fold.train_end_ns - 1)}",
            "tested": f"{day_text(fold.test_start_ns)} – {day_text(fold.test_end_ns - 1)}",
            "rows": f"{fold.rows:,}",
        }
        | {column: figure(fold.metrics, name, form) for column, name, form in known}
        for fold in folds
    ]


def reasons(gate: GateResult, verdict: str = "failed") -> list[Row]:
    """Give a row for each check of this verdict: ``why`` in words, what it ``saw``, what it ``asked`` for."""
    return [
        {"why": _WHY.get(one.name, one.name.replace("_", " ")), "saw": one.observed, "asked": one.required}
        for one in gate.checks
        if one.verdict == verdict
    ]


def metric_rows(metrics: Mapping[str, float], holder: str, theirs: Mapping[str, float]) -> list[Row]:
    """Give a row for each figure that one of two versions has.

    Parameters
    ----------
    metrics : mapping
        The candidate's.
    holder : str
        What the other column is headed.
    theirs : mapping
        Those of what holds the rung; if there are none, that column is left out.
    """
    judged = "gain_auc" in metrics
    return [
        {"out of fold": label, "candidate": figure(metrics, name, form)}
        | ({holder: figure(theirs, name, form)} if theirs else {})
        for label, name, form in _METRICS
        if (name in metrics or name in theirs) and not (judged and name in {"auc", "auc_lower_bound"})
    ]


@dataclass(frozen=True, eq=False)
class ScoreDeciles:
    """Means over ten groups of out-of-fold rows by their score, lowest first; NaN for a group without rows."""

    score: NDArray[np.float64]
    forward_return_bps: NDArray[np.float64]
    up: NDArray[np.float64]
    """Share of up moves."""


def score_deciles(oof: OutOfFold) -> ScoreDeciles:
    """Cut scores at their deciles, equal scores into one group."""
    edges = np.quantile(oof.score, np.linspace(0.0, 1.0, _DECILES + 1))
    group = np.clip(np.searchsorted(edges, oof.score, side="right") - 1, 0, _DECILES - 1)
    counts = np.bincount(group, minlength=_DECILES)

    def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
        means = np.full(_DECILES, math.nan)
        np.divide(np.bincount(group, weights=values, minlength=_DECILES), counts, out=means, where=counts > 0)
        return means

    return ScoreDeciles(mean(oof.score), mean(oof.forward_return * 1e4), mean(oof.up))
