"""What out-of-fold scores are worth: measures of rows, and bounds that take whole sessions as the unit of evidence.

Rows of one session share the market's moves and overlap in their labels, so a bound that takes rows as independent
(DeLong's) is far too narrow; here a session is left out or counted whole, and Student's t has sessions minus one
degrees of freedom.

A score is measured against the base rate of what its model was trained on: their distance in log-odds is its *lean*.
Models of several folds are pooled by their lean, since the level of a score tells folds apart and not outcomes.
Nothing here looks at how the tested sessions came out on average: the mean of a session is hindsight, and ranking
inside sessions measured 0.54 on random walks for a score that knows nothing (``docs/validation.md``).

Everywhere ``up`` is 1 for an up move, 0 for a down move and 0.5 for a return of exactly zero, which counts half to
each class; weights are those of `models_registry.validation.uniqueness`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy
from numpy.typing import NDArray

Floats = NDArray[np.float64]

SKILL_CONFIDENCE: Final = 0.99
"""One-sided, of each of the two bounds of `skill`; chosen by measurement, see ``docs/validation.md``."""
CHAMPION_CONFIDENCE: Final = 0.95
"""One-sided, of being better than a champion that has shown skill itself."""
POWER: Final = 0.8
FEWEST_SESSIONS: Final = 3
"""A bound over fewer is NaN."""


@dataclass(frozen=True)
class Bound:
    """An estimate over sessions and how low it may be."""

    estimate: float
    standard_error: float
    sessions: int
    confidence: float
    """One-sided."""

    @property
    def lower(self) -> float:
        """The lower confidence bound; NaN below 3 sessions, or where the estimate does not exist."""
        if self.sessions < FEWEST_SESSIONS:
            return math.nan
        return self.estimate - float(scipy.stats.t.ppf(self.confidence, self.sessions - 1)) * self.standard_error

    @property
    def smallest_visible(self) -> float:
        """See `smallest_visible_edge`; in the units of the estimate, counted from chance."""
        return smallest_visible_edge(self.standard_error, self.sessions, confidence=self.confidence)


# --- measures of rows -------------------------------------------------------------------------------------------------


def auc(score: Floats, up: Floats, weight: Floats) -> float:
    """Area under the ROC curve, scikit-learn's; ties count half. NaN if one class has no weight.

    Parameters
    ----------
    score, up, weight : ndarray of float64, shape (n,)
        See the module; a row with ``up`` of 0.5 stands once in each class with half its weight.
    """
    from sklearn.metrics import roc_auc_score

    if not 0.0 < float(np.sum(up * weight)) < float(np.sum(weight)):
        return math.nan
    target, twice = _both_classes(up, weight)
    return float(roc_auc_score(target, np.concatenate([score, score]), sample_weight=twice))


def log_loss(probability: Floats, up: Floats, weight: Floats) -> float:
    """Mean negative log likelihood in nats, scikit-learn's; NaN without rows.

    Parameters
    ----------
    probability, up, weight : ndarray of float64, shape (n,)
        See the module.
    """
    from sklearn.metrics import log_loss as mean_log_loss

    if not len(up):
        return math.nan
    target, twice = _both_classes(up, weight)
    both = np.concatenate([probability, probability])
    return float(mean_log_loss(target, np.stack([1.0 - both, both], axis=1), sample_weight=twice, labels=[0, 1]))


def _both_classes(up: Floats, weight: Floats) -> tuple[NDArray[np.int64], Floats]:
    target = np.repeat(np.array([1, 0]), len(up))
    return target, np.concatenate([weight * up, weight * (1.0 - up)])


def lean(score: Floats, base_rate: Floats) -> Floats:
    """Log-odds of a score minus those of the base rate of its model's training rows; positive leans up.

    Probabilities are kept 1e-15 away from 0 and 1.
    """
    difference: Floats = _log_odds(score) - _log_odds(base_rate)
    return difference


def _log_odds(probability: Floats) -> Floats:
    return np.asarray(scipy.special.logit(np.clip(probability, 1e-15, 1.0 - 1e-15)), dtype=np.float64)


# --- bounds over sessions ---------------------------------------------------------------------------------------------


def ranking(  # noqa: PLR0917
    score: Floats,
    up: Floats,
    base_rate: Floats,
    weight: Floats,
    day: NDArray[np.int64],
    confidence: float = SKILL_CONFIDENCE,
) -> Bound:
    """AUC of the lean over all rows, with the jackknife that leaves out one session at a time; 0.5 is chance.

    Parameters
    ----------
    score, up, base_rate, weight : ndarray of float64, shape (n,)
        Out-of-fold probabilities, outcomes, the share of up moves in the training rows of each score's model, and row
        weights.
    day : ndarray of int64, shape (n,)
        The session of each row. Sessions are weighed equally, whatever their weights add up to.
    confidence : float
        One-sided.

    Notes
    -----
    Jackknife by groups: Efron & Tibshirani, "An Introduction to the Bootstrap" (1993), eq. 11.5. Assumes that sessions
    are exchangeable, and that none of them decides alone; five of them were enough to keep what the bound promises
    (``docs/validation.md``, "Few sessions").
    """
    session, equal = _equal_sessions(weight, day)
    left_out = left_out_auc(lean(score, base_rate), up, equal, session)
    return jackknife(auc(lean(score, base_rate), up, equal), left_out, confidence)


def ranking_difference(  # noqa: PLR0917
    score: Floats,
    base_rate: Floats,
    other_score: Floats,
    other_base_rate: Floats,
    up: Floats,
    weight: Floats,
    day: NDArray[np.int64],
    confidence: float = CHAMPION_CONFIDENCE,
) -> Bound:
    """AUC of a score minus that of another one on the same rows, paired; 0 is no difference.

    Both are left without the same session at a time, so what a session does to both cancels out. Parameters and
    assumptions are those of `ranking`; all arrays have shape ``(n,)`` and name the same rows.
    """
    session, equal = _equal_sessions(weight, day)
    ours, theirs = lean(score, base_rate), lean(other_score, other_base_rate)
    left_out = left_out_auc(ours, up, equal, session) - left_out_auc(theirs, up, equal, session)
    return jackknife(auc(ours, up, equal) - auc(theirs, up, equal), left_out, confidence)


def direction(  # noqa: PLR0917
    score: Floats,
    up: Floats,
    base_rate: Floats,
    weight: Floats,
    day: NDArray[np.int64],
    confidence: float = SKILL_CONFIDENCE,
) -> Bound:
    """How much oftener than the base rate says the price goes the way that the score leans; 0 is chance.

    The mean over sessions of ``(up - base rate) · sign(lean)``, and its standard error. Parameters are those of
    `ranking`.

    Notes
    -----
    The lean and the base rate are known before the outcome, so where moves cannot be foretold every term has mean zero
    whatever the features are, and with them the sum: no hindsight is left in it. This is the first-order term of the
    improvement of a loss over the base rate, without the price of the model's own noise; see Clark & West,
    "Approximately normal tests for equal predictive accuracy in nested models", J. Econometrics 138 (2007).
    """
    session, equal = _equal_sessions(weight, day)
    sessions = int(session.max(initial=-1)) + 1
    if sessions < 2:
        return Bound(math.nan, math.nan, sessions, confidence)
    surplus = (up - base_rate) * np.sign(lean(score, base_rate))
    of_session = np.bincount(session, equal * surplus, minlength=sessions)
    return Bound(float(of_session.mean()), float(scipy.stats.sem(of_session)), sessions, confidence)


def _equal_sessions(weight: Floats, day: NDArray[np.int64]) -> tuple[NDArray[np.intp], Floats]:
    """Number the sessions, and give every one the weight 1."""
    _, session = np.unique(day, return_inverse=True)
    return session, weight / np.bincount(session, weight)[session]


def left_out_auc(score: Floats, up: Floats, weight: Floats, session: NDArray[np.intp]) -> Floats:
    """AUC of all rows but those of a session, for each session; NaN where one class is left.

    ``session`` numbers the sessions from 0; arrays of shape ``(n,)``, the result has one figure for each session.
    The pairs of an up move in one session and a down move in another are counted once; leaving a session out takes its
    row and column away. By `auc`, every session would cost a sort of all rows.
    """
    order = np.argsort(score, kind="stable")
    up_weight, down_weight, session = (weight * up)[order], (weight * (1.0 - up))[order], session[order]
    level = np.cumsum(np.diff(score[order], prepend=-np.inf) > 0.0) - 1
    n, levels = int(session.max(initial=-1)) + 1, int(level.max(initial=-1)) + 1
    won = np.empty((n, n))  # by the session of the up move and that of the down move; ties count half
    for theirs in range(n):
        mine = session == theirs
        here = np.bincount(level[mine], down_weight[mine], minlength=levels)
        below = np.cumsum(here) - 0.5 * here
        won[:, theirs] = np.bincount(session, up_weight * below[level], minlength=n)
    ups, downs = (np.bincount(session, side, minlength=n) for side in (up_weight, down_weight))
    left = won.sum() - won.sum(axis=0) - won.sum(axis=1) + won.diagonal()
    pairs = (ups.sum() - ups) * (downs.sum() - downs)
    return np.asarray(np.divide(left, pairs, out=np.full(n, np.nan), where=pairs > 0.0), dtype=np.float64)


def jackknife(estimate: float, left_out: Floats, confidence: float) -> Bound:
    """Bound an estimate by what it is without one session at a time, as `ranking` does."""
    n = len(left_out)
    error = math.sqrt((n - 1) ** 2 / n * float(np.var(left_out, ddof=1))) if n > 1 else math.nan
    return Bound(estimate, error, n, confidence)


# --- skill ------------------------------------------------------------------------------------------------------------


def smallest_visible_edge(
    standard_error: float, sessions: int, *, confidence: float = SKILL_CONFIDENCE, power: float = POWER
) -> float:
    """Distance from chance at which an edge would be seen with the given power; NaN below 3 sessions.

    Notes
    -----
    The minimum detectable effect of a one-sided t-test: the noncentrality at which the noncentral t distribution
    (Johnson, Kotz & Balakrishnan, "Continuous Univariate Distributions" 2, 1995, ch. 31) exceeds the test's quantile
    with that power, times the standard error. Assumes that the standard error measured is the true one.
    """
    if sessions < FEWEST_SESSIONS or not math.isfinite(standard_error):
        return math.nan
    degrees = sessions - 1
    quantile = float(scipy.stats.t.ppf(confidence, degrees))
    far = 4.0 * (quantile + float(scipy.stats.t.ppf(power, degrees)))
    noncentrality = scipy.optimize.brentq(
        lambda shift: float(scipy.stats.nct.sf(quantile, degrees, shift)) - power, 0.0, far
    )
    return float(noncentrality) * standard_error


def skill(score: Floats, up: Floats, base_rate: Floats, weight: Floats, day: NDArray[np.int64]) -> dict[str, float]:
    """Give the figures that skill is judged by, under the names that they have in a sidecar.

    Returns
    -------
    dict
        ``auc``, ``auc_standard_error``, ``auc_lower_bound`` and ``smallest_visible_auc`` of `ranking`;
        ``hit_surplus``, ``hit_surplus_standard_error``, ``hit_surplus_lower_bound`` and
        ``smallest_visible_hit_surplus`` of `direction`; ``skill_confidence``; ``test_sessions``. A model has shown
        skill if both lower bounds lie above chance: see `has_skill`.
    """
    order, hits = ranking(score, up, base_rate, weight, day), direction(score, up, base_rate, weight, day)
    return {
        "auc": order.estimate,
        "auc_standard_error": order.standard_error,
        "auc_lower_bound": order.lower,
        "smallest_visible_auc": 0.5 + order.smallest_visible,
        "hit_surplus": hits.estimate,
        "hit_surplus_standard_error": hits.standard_error,
        "hit_surplus_lower_bound": hits.lower,
        "smallest_visible_hit_surplus": hits.smallest_visible,
        "skill_confidence": order.confidence,
        "test_sessions": float(order.sessions),
    }


def has_skill(figures: dict[str, float]) -> bool:
    """Whether the figures of `skill` show it: both lower bounds above chance; a NaN shows nothing."""
    return figures["auc_lower_bound"] > 0.5 and figures["hit_surplus_lower_bound"] > 0.0
