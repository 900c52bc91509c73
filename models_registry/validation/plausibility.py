"""Whether skill looks like skill or like a leak, where leaks live: at an AUC of 0.6 to 0.9.

Two questions are asked of out-of-fold scores. *Does one feature carry it?* A feature that has seen the label, the next
bar's return or the session's close, says what no other feature says; honest features of one market tell much the same.
*Is it gone one bar later?* Held against the label that begins one bar later, knowledge of the next bar is worth
nothing, while what foretold ten minutes foretells most of the next ten. What honest edges and planted leaks came to,
and what these questions cannot see, stands in ``docs/validation.md``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from models_registry.validation.pairing import paired_rows
from models_registry.validation.statistics import auc, lean

Floats = NDArray[np.float64]

_MOST_ROWS: Final = 40_000  # every feature is permuted and scored again; more rows tell no more
_FEWEST_PAIRS: Final = 500
_CHANCE: Final = 0.5


class Scorer(Protocol):
    """The model of one fold."""

    def score(self, X: Floats, /) -> Floats:  # noqa: N803
        """Score rows ``(n, F)``."""
        ...


class Rows(Protocol):
    """Out-of-fold rows, arrays of shape ``(m,)``; `training.OutOfFold` is one."""

    @property
    def score(self) -> Floats:
        """Probability of an up move."""
        ...

    @property
    def up(self) -> Floats:
        """1, 0, or 0.5 for a return of zero."""
        ...

    @property
    def base_rate(self) -> Floats:
        """Share of up moves in the training rows of the row's fold."""
        ...

    @property
    def weight(self) -> Floats:
        """Of the row."""
        ...

    @property
    def decision_ns(self) -> NDArray[np.int64]:
        """Its decision."""
        ...

    @property
    def instrument(self) -> NDArray[np.int32]:
        """Index of its instrument."""
        ...

    @property
    def fold(self) -> NDArray[np.int64]:
        """Number of its fold."""
        ...


@dataclass(frozen=True, slots=True)
class Plausibility:
    """What was found."""

    auc: float
    features: int
    """How many the model has."""
    feature: str
    """The one whose loss costs most."""
    importance: float
    """Share of the skill (AUC less one half) that is lost when what only this feature says is permuted."""
    shift_retention: float
    """Share of the skill that is left on the labels of one bar later; NaN if too few rows have one."""
    shifted_rows: int
    events: bool = False
    """Rows are proposals of a rule, which has none for the bar after one: there is no label of one bar later."""

    def metrics(self) -> dict[str, float]:
        """Give the figures that a version is registered with."""
        found = {"largest_feature_importance": self.importance, "shift_retention": self.shift_retention}
        return {name: value for name, value in found.items() if math.isfinite(value)}


def plausibility(
    rows: Rows,
    features: Floats,
    names: Sequence[str],
    models: Mapping[int, Scorer],
    *,
    bar_ns: int,
    seed: int,
    events: bool = False,
) -> Plausibility:
    """Ask both questions.

    Parameters
    ----------
    rows : Rows
        Out of fold.
    features : ndarray of float64, shape (m, F)
        Their features, finite.
    names : sequence of str
        The features' names.
    models : mapping of Scorer
        By number of the fold; every fold of ``rows`` has one.
    bar_ns : int
        Length of a bar of the clock that is decided on, nanoseconds.
    seed : int
        Of the permutations and of the choice of rows.
    events : bool
        Rows are proposals of a rule: the second question is not asked of them. A rule proposes on the next bar too only
        where a move goes on, so that what has a row there is not what it was.
    """
    from threadpoolctl import threadpool_limits

    random = np.random.default_rng(seed)
    chosen = np.sort(random.choice(len(features), size=min(len(features), _MOST_ROWS), replace=False))
    with threadpool_limits(1):  # on busy cores a thread for each of many small products made 1 s into 20 s
        importance = _importances(rows, features[chosen], chosen, models, random)
    most = int(np.argmax(importance))
    retention, pairs = (math.nan, 0) if events else _shift_retention(rows, bar_ns)
    return Plausibility(
        auc=auc(lean(rows.score, rows.base_rate), rows.up, rows.weight),
        features=len(names),
        feature=names[most],
        importance=float(importance[most]),
        shift_retention=retention,
        shifted_rows=pairs,
        events=events,
    )


def _importances(
    rows: Rows,
    features: Floats,
    chosen: NDArray[np.intp],
    models: Mapping[int, Scorer],
    random: np.random.Generator,
) -> Floats:
    """Share of the skill that each feature's own part carries.

    Conditional permutation importance: what the other features tell of a feature (linearly) stays, its residual is
    permuted. A plain permutation takes features that tell the same for unlike each other, and breaks a linear model
    of collinear ones altogether. Chamma, Engemann & Thirion, "Statistically valid variable importance assessment
    through conditional permutations", NeurIPS 2023.
    """
    up, weight, base_rate, fold = rows.up[chosen], rows.weight[chosen], rows.base_rate[chosen], rows.fold[chosen]
    scale = features.std(axis=0)
    standard = (features - features.mean(axis=0)) / np.where(scale > 0.0, scale, 1.0)

    def skill(values: Floats) -> float:
        score = np.empty(len(values))
        for number, model in models.items():
            score[fold == number] = model.score(np.ascontiguousarray(values[fold == number]))
        return auc(lean(score, base_rate), up, weight) - _CHANCE

    whole = skill(features)
    products = standard.T @ standard
    lost = np.empty(features.shape[1])
    for column in range(features.shape[1]):
        others = np.arange(features.shape[1]) != column
        by_others = np.linalg.lstsq(products[np.ix_(others, others)], products[others, column], rcond=1e-10)[0]
        own = standard[:, column] - standard[:, others] @ by_others
        changed = features.copy()
        changed[:, column] += (random.permutation(own) - own) * scale[column]
        lost[column] = whole - skill(changed)
    return lost / whole if whole > 0.0 else np.zeros(len(lost))


def _shift_retention(rows: Rows, bar_ns: int) -> tuple[float, int]:
    now, later = paired_rows(rows.decision_ns + bar_ns, rows.instrument, rows.decision_ns, rows.instrument)
    if len(now) < _FEWEST_PAIRS:
        return math.nan, len(now)
    said = lean(rows.score, rows.base_rate)[now]
    skill = auc(said, rows.up[now], rows.weight[now]) - _CHANCE
    left = auc(said, rows.up[later], rows.weight[now]) - _CHANCE
    return (left / skill if skill > 0.0 else math.nan), len(now)
