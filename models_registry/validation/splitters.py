"""Walk-forward validation by session, purged by label interval, and the measures taken on it.

Rows of a fold never overlap in time: a training row is dropped if the interval over which its label was measured,
``[decision, label end]``, plus the embargo reaches the first decision of the test sessions (López de Prado, "Advances
in Financial Machine Learning", 2018, ch. 7). Rows are purged by time, not by count, because labels differ in length.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import MINUTE_NS

IST_OFFSET_NS: Final = 330 * MINUTE_NS
DAY_NS: Final = 1440 * MINUTE_NS
EMBARGO_NS: Final = 60 * MINUTE_NS


class NotEnoughSessions(ValueError):
    """Fewer sessions than walk-forward needs."""


@dataclass(frozen=True, eq=False)
class Fold:
    """One step of walk-forward; times are epoch nanoseconds, ends exclusive and including the label intervals."""

    number: int
    train: NDArray[np.intp]
    test: NDArray[np.intp]
    train_start_ns: int
    train_end_ns: int
    test_start_ns: int
    test_end_ns: int
    purged: int
    """Training rows dropped because their label reached the test."""


def session_days(decision_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    """IST calendar day of each decision, counted from the epoch; an NSE session never crosses midnight."""
    return (decision_ns + IST_OFFSET_NS) // DAY_NS


def walk_forward(
    decision_ns: NDArray[np.int64],
    label_end_ns: NDArray[np.int64],
    *,
    folds: int = 4,
    embargo_ns: int = EMBARGO_NS,
) -> tuple[Fold, ...]:
    """Split rows into expanding training sets and the sessions that follow each.

    Parameters
    ----------
    decision_ns, label_end_ns : ndarray of int64, shape (n,)
        When a row's decision falls and when its label is known.
    folds : int
        Number of test blocks; sessions are cut into ``folds + 1`` blocks of nearly equal size, the first trains only.
    embargo_ns : int
        Time between the end of a training label and the first test decision.

    Raises
    ------
    NotEnoughSessions
        If there are fewer sessions than ``folds + 1``, or purging leaves nothing to train on.
    """
    if folds < 1:
        raise ValueError(f"walk-forward needs at least one fold, got {folds}")
    days = session_days(decision_ns)
    sessions = np.unique(days)
    if len(sessions) < folds + 1:
        raise NotEnoughSessions(
            f"{folds} folds need at least {folds + 1} sessions, there are {len(sessions)}: "
            "give more sessions or fewer folds"
        )
    blocks = np.array_split(sessions, folds + 1)
    return tuple(
        _fold(number, blocks[number], days, decision_ns, label_end_ns, embargo_ns) for number in range(1, folds + 1)
    )


def _fold(  # noqa: PLR0917
    number: int,
    test_sessions: NDArray[np.int64],
    days: NDArray[np.int64],
    decision_ns: NDArray[np.int64],
    label_end_ns: NDArray[np.int64],
    embargo_ns: int,
) -> Fold:
    test = np.flatnonzero((days >= test_sessions[0]) & (days <= test_sessions[-1]))
    test_start = int(decision_ns[test].min())
    before = days < test_sessions[0]
    clear = before & (label_end_ns + embargo_ns < test_start)
    train = np.flatnonzero(clear)
    if len(train) == 0:
        raise NotEnoughSessions(f"purging leaves no training rows before fold {number}: shorten labels or the embargo")
    return Fold(
        number=number,
        train=train,
        test=test,
        train_start_ns=int(decision_ns[train].min()),
        train_end_ns=int(label_end_ns[train].max()) + 1,
        test_start_ns=test_start,
        test_end_ns=int(label_end_ns[test].max()) + 1,
        purged=int(before.sum()) - len(train),
    )


def auc(score: NDArray[np.float64], up: NDArray[np.bool_]) -> float:
    """Area under the ROC curve (Mann–Whitney U with mid-ranks for ties); NaN if one class is missing."""
    positives = int(up.sum())
    negatives = len(up) - positives
    if positives == 0 or negatives == 0:
        return float("nan")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    mid_rank = np.cumsum(counts) - (counts - 1) / 2.0
    return float((mid_rank[inverse][up].sum() - positives * (positives + 1) / 2.0) / (positives * negatives))


def log_loss(probability: NDArray[np.float64] | float, up: NDArray[np.bool_]) -> float:
    """Mean negative log likelihood in nats; probabilities are kept 1e-15 away from 0 and 1."""
    p = np.clip(np.broadcast_to(np.asarray(probability, dtype=np.float64), up.shape), 1e-15, 1.0 - 1e-15)
    return float(-np.mean(np.where(up, np.log(p), np.log1p(-p))))


def auc_by_session(score: NDArray[np.float64], up: NDArray[np.bool_], days: NDArray[np.int64]) -> NDArray[np.float64]:
    """AUC within each session that has both outcomes, in order of time."""
    found = [auc(score[rows], up[rows]) for rows in (days == day for day in np.unique(days))]
    return np.array([value for value in found if np.isfinite(value)])


def mean_lower_bound(
    values: NDArray[np.float64], *, confidence: float = 0.95, resamples: int = 2000, seed: int = 0
) -> float:
    """One-sided lower confidence bound of a mean by the bootstrap-t (Efron & Tibshirani 1993, §12.5).

    Whole sessions are resampled, never rows: rows of one session share the market's moves and overlap in their labels,
    so a bound that takes them as independent (DeLong's) is far too narrow. NaN below 3 values. Deterministic by seed.
    """
    n = len(values)
    if n < 3:
        return float("nan")
    mean, error = float(values.mean()), float(values.std(ddof=1)) / n**0.5
    if error == 0.0:
        return mean
    sample = values[np.random.default_rng(seed).integers(0, n, size=(resamples, n))]
    sample_error = sample.std(axis=1, ddof=1) / n**0.5
    usable = sample_error > 1e-12
    studentised = (sample.mean(axis=1)[usable] - mean) / sample_error[usable]
    return float(mean - np.quantile(studentised, confidence) * error)
