"""How much a recipe's skill hangs on the sessions it was trained on: the spread over the paths of combinatorial CV.

Only the spread is taken from here. Models of these folds are trained on what came after their tests too, so that nobody
could have traded them: scores for equity, economics, trials and verdicts are those of walk-forward.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from models_registry.specification import StrategySpec
from models_registry.training import evaluate
from models_registry.validation.paths import path_of
from models_registry.validation.splitters import CombinatorialPurged
from models_registry.validation.statistics import auc, lean

if TYPE_CHECKING:
    from feature_store.offline.training_frames import TrainingFrame

MOST_ROWS: Final = 100_000
"""Fifteen fits of that many rows; the paths of more differ hardly less, since it is sessions that they differ in."""


@dataclass(frozen=True)
class PathSpread:
    """The AUC of the lean, of each path through all sessions and of each split."""

    auc: tuple[float, ...]
    """By path; chance is 0.5. Paths share sessions and training rows: their spread is no standard error."""
    auc_by_split: tuple[float, ...]
    """In the order of the splits."""
    rows: int
    """On each path."""
    thinned_from: int
    """Rows of the frame; more than ``rows`` where some were left out to save time, or could not be used."""

    @property
    def mean(self) -> float:
        """Over the paths."""
        return float(np.mean(self.auc))

    @property
    def standard_deviation(self) -> float:
        """Of the paths."""
        return float(np.std(self.auc, ddof=1))

    @property
    def lowest(self) -> float:
        """Of the paths."""
        return min(self.auc)


def path_spread(
    frame: TrainingFrame,
    spec: StrategySpec,
    splitter: CombinatorialPurged = CombinatorialPurged(),  # noqa: B008 - frozen
    *,
    most_rows: int = MOST_ROWS,
) -> PathSpread:
    """Fit the recipe on every split and measure every path.

    Parameters
    ----------
    frame : TrainingFrame
        Of the recipe's own features.
    spec : StrategySpec
        Its estimator, hyperparameters and seed; its folds and embargo are those of walk-forward and not used.
    splitter : CombinatorialPurged
        With 6 groups of which 2 are tested, 15 fits and 5 paths.
    most_rows : int
        Rows that are drawn from the frame, all sessions alike; every session stays.

    Raises
    ------
    UntrainableFrame, NotEnoughSessions
        As `training.train`.
    """
    oof = evaluate(_thinned(frame, most_rows, spec.seed), spec, None, splitter)
    decisions = np.stack([oof.decision_ns, oof.instrument.astype(np.int64)], axis=1)
    path = path_of(np.unique(decisions, axis=0, return_inverse=True)[1])
    said = lean(oof.score, oof.base_rate)

    def each(part: np.ndarray[tuple[int], np.dtype[np.integer]]) -> tuple[float, ...]:
        chosen = (part == number for number in np.unique(part))
        return tuple(auc(said[own], oof.up[own], oof.weight[own]) for own in chosen)

    return PathSpread(each(path), each(oof.fold), rows=int((path == 0).sum()), thinned_from=len(frame))


def _thinned(frame: TrainingFrame, most_rows: int, seed: int) -> TrainingFrame:
    if len(frame) <= most_rows:
        return frame
    keep = np.sort(np.random.default_rng(seed).choice(len(frame), size=most_rows, replace=False))
    columns = {field.name: getattr(frame, field.name) for field in dataclasses.fields(frame)}
    rows: dict[str, Any] = {name: column[keep] for name, column in columns.items() if isinstance(column, np.ndarray)}
    return dataclasses.replace(frame, **rows)
