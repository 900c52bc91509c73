"""Whether a model knows which proposed trades gain: skill where a row is a trade that its stop, target or time ends.

`validation.statistics` asks whether outcomes are foretold. Of trades with barriers that is the wrong question, and its
weights are hindsight; on markets in which nothing can be foretold it found skill in a quarter of the models
(``docs/validation.md``, "Rules"):

* *Whether* a trade gains can be foretold without any edge. A target that lies farther than the stop is reached less
  often but gains more, and how often time ends the trade depends on what is known: the hour, and a volatility that
  lags. What cannot be foretold there is the gain itself: its mean is zero whatever was known.
* The *uniqueness* of a label's interval knows when the label ended, and with it how; and the number of proposals in a
  session knows how the ones before went, since a move that runs into a stop makes a rule propose again.

So a row weighs here what is at stake, the size of its gain, and no session is made equal to another. If the gain has
mean zero whatever was known, winners and losers weigh equally much at each score: the AUC that is weighed by gains is
one half, and what is gained on the side of a lean sums to zero. Sessions stay the unit of evidence.

A gain is the return of the trade before costs over the volatility of its holding as known at the decision, so that no
volatile instrument or hour decides alone.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import scipy
from numpy.typing import NDArray

from models_registry.validation.statistics import (
    CHAMPION_CONFIDENCE,
    Bound,
    auc,
    jackknife,
    lean,
    left_out_auc,
)

Floats = NDArray[np.float64]

TRADE_SKILL_CONFIDENCE: Final = 0.995
"""One-sided, of each of the two bounds. Sessions have proposals in numbers that differ much, so that fewer decide than
are counted: bounds of 99 % were passed about twice in a hundred."""


def gain_ranking(
    score: Floats,
    gain: Floats,
    base_rate: Floats,
    day: NDArray[np.int64],
    confidence: float = TRADE_SKILL_CONFIDENCE,
) -> Bound:
    """AUC of the lean between trades that gained and trades that lost, weighed by gains; 0.5 is chance.

    Parameters
    ----------
    score, gain, base_rate : ndarray of float64, shape (n,)
        Out-of-fold probabilities of a gain; what the trades gained, in volatilities of their holding; the share of
        gains in the training rows of each score's model.
    day : ndarray of int64, shape (n,)
        The session of each row.
    confidence : float
        One-sided.

    Notes
    -----
    The probability that a rupee gained was scored higher than a rupee lost. Jackknife by sessions, as
    `statistics.ranking`.
    """
    leans, up, stake = lean(score, base_rate), _up(gain), np.abs(gain)
    return jackknife(auc(leans, up, stake), left_out_auc(leans, up, stake, _numbered(day)), confidence)


def gain_ranking_difference(  # noqa: PLR0917
    score: Floats,
    base_rate: Floats,
    other_score: Floats,
    other_base_rate: Floats,
    gain: Floats,
    day: NDArray[np.int64],
    confidence: float = CHAMPION_CONFIDENCE,
) -> Bound:
    """`gain_ranking` of a score minus that of another one on the same rows, paired; 0 is no difference."""
    up, stake, session = _up(gain), np.abs(gain), _numbered(day)
    ours, theirs = lean(score, base_rate), lean(other_score, other_base_rate)
    left_out = left_out_auc(ours, up, stake, session) - left_out_auc(theirs, up, stake, session)
    return jackknife(auc(ours, up, stake) - auc(theirs, up, stake), left_out, confidence)


def gain_direction(  # noqa: PLR0917
    score: Floats,
    gain: Floats,
    base_rate: Floats,
    base_gain: Floats,
    day: NDArray[np.int64],
    confidence: float = TRADE_SKILL_CONFIDENCE,
) -> Bound:
    """What trades gain above the base where the score leans to a gain, and below it where it leans to a loss; a trade.

    ``(gain - base gain) · sign(lean)``, summed over each session; the mean of these sums and its standard error, both
    over the mean number of trades in a session. 0 is chance; in volatilities of the holding. Parameters are those of
    `gain_ranking`.

    Parameters
    ----------
    base_gain : ndarray of float64, shape (n,)
        Mean gain of the training rows of each score's model.

    Notes
    -----
    A session's sum is used and not its mean, which would divide by a number that knows how the session went.
    """
    session = _numbered(day)
    sessions = int(session.max(initial=-1)) + 1
    if sessions < 2:
        return Bound(math.nan, math.nan, sessions, confidence)
    surplus = (gain - base_gain) * np.sign(lean(score, base_rate))
    of_session = np.bincount(session, surplus, minlength=sessions) * (sessions / len(surplus))
    return Bound(float(of_session.mean()), float(scipy.stats.sem(of_session)), sessions, confidence)


def trade_skill(
    score: Floats, gain: Floats, base_rate: Floats, base_gain: Floats, day: NDArray[np.int64]
) -> dict[str, float]:
    """Give the figures that skill is judged by, under the names that they have in a sidecar.

    Returns
    -------
    dict
        ``gain_auc`` and ``gain_surplus`` of `gain_ranking` and `gain_direction`, each with ``_standard_error``,
        ``_lower_bound`` and ``smallest_visible_…``; ``skill_confidence``; ``test_sessions``. A model has shown skill if
        both lower bounds lie above chance: see `has_trade_skill`.
    """
    order = gain_ranking(score, gain, base_rate, day)
    surplus = gain_direction(score, gain, base_rate, base_gain, day)
    return {
        "gain_auc": order.estimate,
        "gain_auc_standard_error": order.standard_error,
        "gain_auc_lower_bound": order.lower,
        "smallest_visible_gain_auc": 0.5 + order.smallest_visible,
        "gain_surplus": surplus.estimate,
        "gain_surplus_standard_error": surplus.standard_error,
        "gain_surplus_lower_bound": surplus.lower,
        "smallest_visible_gain_surplus": surplus.smallest_visible,
        "skill_confidence": order.confidence,
        "test_sessions": float(order.sessions),
    }


def has_trade_skill(figures: dict[str, float]) -> bool:
    """Whether the figures of `trade_skill` show it: both lower bounds above chance; a NaN shows nothing."""
    return figures["gain_auc_lower_bound"] > 0.5 and figures["gain_surplus_lower_bound"] > 0.0


def _up(gain: Floats) -> Floats:
    up: Floats = (np.sign(gain) + 1.0) / 2.0
    return up


def _numbered(day: NDArray[np.int64]) -> NDArray[np.intp]:
    return np.unique(day, return_inverse=True)[1]
