"""Whether scores are probabilities: the reliability table with intervals, Brier score and calibration error.

``up`` is 1, 0, or 0.5 for a row that counts half to each class; weights are those of
`models_registry.validation.uniqueness`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BINS: Final = 10
FEWEST_SESSIONS: Final = 3
"""An interval over fewer is NaN."""


@dataclass(frozen=True)
class Bin:
    """Rows whose scores lie beside each other."""

    rows: int
    sessions: int
    weight: float
    """Share of all weight."""
    lowest_score: float
    highest_score: float
    mean_score: float
    """What was said, weighted."""
    rate: float
    """What came, weighted."""
    lower: float
    upper: float
    """Interval of ``rate``; NaN below 3 sessions."""


@dataclass(frozen=True)
class Calibration:
    """What was said beside what came."""

    table: tuple[Bin, ...]
    """In ascending order of score."""
    brier: float
    """Mean squared distance between score and outcome; 0.25 for a score that is always 0.5."""
    base_rate_brier: float
    """That of the rows' own rate said of every row; a score above it would have said more by saying nothing."""
    expected_error: float
    """Mean distance between ``mean_score`` and ``rate`` by weight; above 0 by chance alone where bins are small."""
    confidence: float
    """Two-sided, of the intervals."""


def calibration(
    score: Floats,
    up: Floats,
    weight: Floats,
    day: NDArray[np.int64],
    *,
    bins: int = BINS,
    confidence: float = 0.95,
) -> Calibration:
    """Compare scores with outcomes, bin by bin.

    Parameters
    ----------
    score, up, weight : ndarray of float64, shape (n,)
        At least one row; scores in [0, 1].
    day : ndarray of int64, shape (n,)
        The session of each row.
    bins : int
        Of nearly equal numbers of rows; equal scores stand in one bin, so there may be fewer.
    confidence : float
        Two-sided, of each interval by itself.

    Raises
    ------
    ValueError
        Without rows.

    Notes
    -----
    Rows of one session share its moves, so intervals take the session as the unit: the linearised variance of a ratio
    over clusters (Cochran, "Sampling Techniques", 1977) and Student's t with sessions − 1
    degrees of freedom. They assume that sessions are alike and independent.
    """
    if not len(score):
        raise ValueError("there are no rows whose calibration could be measured")
    edges = np.unique(np.quantile(score, np.linspace(0.0, 1.0, bins + 1)[1:-1], method="closest_observation"))
    place = np.searchsorted(edges, score, side="left")
    whole = float(weight.sum())
    table = tuple(
        _bin(score[own], up[own], weight[own], day[own], whole, confidence)
        for own in (place == number for number in np.unique(place))
    )
    base_rate = np.full(len(up), float(np.average(up, weights=weight)))
    return Calibration(
        table=table,
        brier=brier(score, up, weight),
        base_rate_brier=brier(base_rate, up, weight),
        expected_error=float(sum(one.weight * abs(one.mean_score - one.rate) for one in table)),
        confidence=confidence,
    )


def brier(score: Floats, up: Floats, weight: Floats) -> float:
    """Mean squared distance of score and outcome (Brier 1950); a row of 0.5 counts half as 1 and half as 0.

    Parameters
    ----------
    score, up, weight : ndarray of float64, shape (n,)
    """
    return float(np.average(up * (1.0 - score) ** 2 + (1.0 - up) * score**2, weights=weight))


def _bin(  # noqa: PLR0917
    score: Floats, up: Floats, weight: Floats, day: NDArray[np.int64], whole: float, confidence: float
) -> Bin:
    rate, own = float(np.average(up, weights=weight)), float(weight.sum())
    _, session = np.unique(day, return_inverse=True)
    sums = np.bincount(session, weight * (up - rate))
    sessions = len(sums)
    half = math.nan
    if sessions >= FEWEST_SESSIONS:
        error = math.sqrt(sessions / (sessions - 1) * float(np.sum(sums**2))) / own
        half = float(scipy.stats.t.ppf((1.0 + confidence) / 2.0, sessions - 1)) * error
    return Bin(
        rows=len(score),
        sessions=sessions,
        weight=own / whole,
        lowest_score=float(score.min()),
        highest_score=float(score.max()),
        mean_score=float(np.average(score, weights=weight)),
        rate=rate,
        lower=float(np.maximum(rate - half, 0.0)),
        upper=float(np.minimum(rate + half, 1.0)),
    )
