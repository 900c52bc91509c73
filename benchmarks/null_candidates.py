"""The statistics that were candidates for the skill check, each as a verdict on out-of-fold scores."""

from __future__ import annotations

from dataclasses import replace
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from models_registry.training import OutOfFold
from models_registry.validation.statistics import SKILL_CONFIDENCE, Bound, auc, direction, has_skill, ranking, skill
from models_registry.validation.trade_skill import gain_direction, gain_ranking, has_trade_skill, trade_skill

Floats = NDArray[np.float64]

CHOSEN: Final = "the skill check: ranking and direction"
_ALONE: Final = 0.995


def verdicts_on_trades(scores: OutOfFold, uniqueness: Floats) -> dict[str, bool]:
    """Say which of the candidates for a rule's proposals see skill; `CHOSEN` is the skill check.

    Parameters
    ----------
    scores : OutOfFold
    uniqueness : ndarray of float64, shape (n,)
        Of the labels' intervals as they came out, sessions made equal: what weighed rows before.
    """
    rows, one = scores, np.ones(len(scores.score))
    order = gain_ranking(rows.score, rows.gain, rows.base_rate, rows.day)
    surplus = gain_direction(rows.score, rows.gain, rows.base_rate, rows.base_gain, rows.day)
    found = trade_skill(rows.score, rows.gain, rows.base_rate, rows.base_gain, rows.day)
    return {
        CHOSEN: has_trade_skill(found),
        "gains, ranking alone": order.lower > 0.5,
        "gains, direction alone": surplus.lower > 0.0,
        "gains, ranking and direction, 99 % each": (
            replace(order, confidence=SKILL_CONFIDENCE).lower > 0.5
            and replace(surplus, confidence=SKILL_CONFIDENCE).lower > 0.0
        ),
        "whether it gains, rows equal": has_skill(skill(rows.score, rows.up, rows.base_rate, one, rows.day)),
        "whether it gains, by uniqueness (before)": has_skill(
            skill(rows.score, rows.up, rows.base_rate, uniqueness, rows.day)
        ),
    }


def verdicts(scores: OutOfFold) -> dict[str, bool]:
    """Say which of the candidates see skill; `CHOSEN` is the skill check."""
    rows, score = scores, scores.score
    order = ranking(score, rows.up, scores.base_rate, rows.weight, rows.day)
    hits = direction(score, rows.up, scores.base_rate, rows.weight, rows.day)
    plain = ranking(score, rows.up, np.full(len(score), 0.5), rows.weight, rows.day, _ALONE)
    improvement = _mean_over_sessions(_improvement(scores), 0.95)
    alone = replace(order, confidence=_ALONE).lower > 0.5
    return {
        CHOSEN: has_skill(skill(score, rows.up, scores.base_rate, rows.weight, rows.day)),
        "ranking, 99.5 %": alone,
        "direction, 99.5 %": replace(hits, confidence=_ALONE).lower > 0.0,
        "ranking, 99.5 %, and log loss below the base rate's": alone and improvement.estimate > 0.0,
        "AUC of plain scores, 99.5 %": plain.lower > 0.5,
        "log loss below the base rate's, 95 %": improvement.lower > 0.0,
        "AUC across instruments at an instant, 99.5 %": _instants(scores).lower > 0.0,
        "mean of the sessions' AUCs, 95 % (before)": _mean_over_sessions(_session_aucs(scores), 0.95).lower > 0.5,
    }


def _improvement(scores: OutOfFold) -> Floats:
    """By how much the log loss is below that of the training base rate, per session."""
    rows, p, base = scores, np.clip(scores.score, 1e-15, 1 - 1e-15), scores.base_rate
    better = rows.up * np.log(p / base) + (1 - rows.up) * np.log((1 - p) / (1 - base))
    _, session = np.unique(rows.day, return_inverse=True)
    return np.bincount(session, rows.weight * better) / np.bincount(session, rows.weight)


def _session_aucs(scores: OutOfFold) -> Floats:
    """AUC inside each session, which knows how the session came out."""
    rows = scores
    of_session = [rows.day == day for day in np.unique(rows.day)]
    found = np.array([auc(scores.score[rs], rows.up[rs], rows.weight[rs]) for rs in of_session])
    return found[np.isfinite(found)]


def _instants(scores: OutOfFold) -> Bound:
    """Surplus over one half of the AUC of pairs of instruments at one instant, as a ratio over sessions."""
    rows = scores
    order = np.argsort(rows.decision_ns, kind="stable")
    instant, up, weight, day = (column[order] for column in (rows.decision_ns, rows.up, rows.weight, rows.day))
    won, pairs = _pairs(instant, scores.score[order], up, weight)
    _, session = np.unique(day, return_inverse=True)
    won, pairs = np.bincount(session, won), np.bincount(session, pairs)
    if not pairs.sum():
        return Bound(float("nan"), float("nan"), len(won), _ALONE)
    surplus = won.sum() / pairs.sum()
    error = (len(won) * np.var(won - surplus * pairs, ddof=1)) ** 0.5 / pairs.sum()
    return Bound(float(surplus), float(error), len(won), _ALONE)


def _pairs(instant: NDArray[np.int64], score: Floats, up: Floats, weight: Floats) -> tuple[Floats, Floats]:
    """By the first of each pair: half of its weight with the sign of what was won, and its weight."""
    won, pairs = np.zeros((2, len(score)))
    for apart in range(1, int(np.unique(instant, return_counts=True)[1].max())):
        here = np.flatnonzero(instant[:-apart] == instant[apart:])
        other = here + apart
        both = weight[here] * weight[other] * np.abs(up[here] - up[other])
        won[here] += both * np.sign(score[here] - score[other]) * np.sign(up[here] - up[other]) / 2.0
        pairs[here] += both
    return won, pairs


def _mean_over_sessions(values: Floats, confidence: float) -> Bound:
    error = float(stats.sem(values)) if len(values) > 1 else float("nan")
    return Bound(float(values.mean()) if len(values) else float("nan"), error, len(values), confidence)
