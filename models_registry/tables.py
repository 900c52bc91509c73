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


def gate_rows(gate: GateResult) -> list[Row]:
    """Give a row for each check of a gate; ``verdict`` is ``passed``, ``failed`` or ``warning``."""
    return [
        {"check": check.name, "verdict": check.verdict, "observed": check.observed, "required": check.required}
        for check in gate.checks
    ]


def failures(gate: GateResult) -> str:
    """Say which checks of a gate failed, what they saw and what they asked."""
    return "; ".join(f"{c.name} saw {c.observed}, asked for {c.required}" for c in gate.checks if c.verdict == "failed")


def warnings(gate: GateResult) -> str:
    """Say what a gate saw that it does not fail for, and a person should know; empty if there is nothing."""
    return "; ".join(c.observed for c in gate.checks if c.verdict == "warning")


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
