"""Walk-forward folds by session, purged by label interval and with an embargo in sessions.

A training row never overlaps a test in time: it is dropped if the interval over which its label was measured,
``[decision, label end]``, reaches the first decision of the test sessions, and the sessions of the embargo before the
test are left out whole (López de Prado, "Advances in Financial Machine Learning", 2018, ch. 7). Rows are purged by
time, not by count, because labels differ in length. The embargo counts in sessions: what carries over to the next day
does so over night, whatever the hour.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


class NotEnoughSessions(ValueError):
    """Fewer sessions than walk-forward needs."""


@dataclass(frozen=True, eq=False)
class Fold:
    """One step of walk-forward; times are epoch nanoseconds, ends exclusive and including the label intervals."""

    number: int
    """From 1; 0 is the fold inside the first block, whose scores only give the first thresholds."""
    train: NDArray[np.intp]
    test: NDArray[np.intp]
    test_days: NDArray[np.int64]
    """Sessions that are tested, as IST days counted from the epoch."""
    train_start_ns: int
    train_end_ns: int
    test_start_ns: int
    test_end_ns: int
    purged: int
    """Rows before the test that are not trained on: their label reached it, or their session is in the embargo."""


def sessions_needed(folds: int, embargo_sessions: int = 0) -> int:
    """Give the least number of sessions that can be cut, so that the first block can be trained and tested on."""
    return (1 + embargo_sessions) * (folds + 1) + 1


def walk_forward(
    decision_ns: NDArray[np.int64],
    label_end_ns: NDArray[np.int64],
    day: NDArray[np.int64],
    *,
    folds: int = 4,
    embargo_sessions: int = 0,
    sessions: NDArray[np.int64] | None = None,
) -> tuple[Fold, ...]:
    """Split rows into expanding training sets and the sessions that follow each.

    Parameters
    ----------
    decision_ns, label_end_ns : ndarray of int64, shape (n,)
        When a row's decision falls and when its label is known.
    day : ndarray of int64, shape (n,)
        The row's session, as an IST day counted from the epoch.
    folds : int
        Number of test blocks; sessions are cut into ``folds + 1`` blocks of nearly equal size, the first trains only.
    embargo_sessions : int
        Whole sessions left out between training and test.
    sessions : ndarray of int64, optional
        Ascending days to cut; default: those of the rows. Two recipes whose rows differ get the same folds by it.

    Returns
    -------
    tuple of Fold
        ``folds + 1`` of them: fold 0 tests the later half of the first block on the earlier one, folds 1 to ``folds``
        the blocks that follow. The tests of folds 1 and on do not overlap.

    Raises
    ------
    NotEnoughSessions
        If there are too few sessions, or purging leaves nothing to train or test on.
    """
    if folds < 1:
        raise ValueError(f"walk-forward needs at least one fold, got {folds}")
    cut = np.unique(day) if sessions is None else sessions
    needed = sessions_needed(folds, embargo_sessions)
    if len(cut) < needed:
        raise NotEnoughSessions(
            f"{folds} folds with an embargo of {embargo_sessions} sessions need at least {needed} sessions, there are "
            f"{len(cut)}: give more sessions or fewer folds"
        )
    blocks = np.array_split(cut, folds + 1)
    tests = [blocks[0][(len(blocks[0]) + embargo_sessions + 1) // 2 :], *blocks[1:]]
    return tuple(
        _fold(number, test, cut, (decision_ns, label_end_ns, day), embargo_sessions)
        for number, test in enumerate(tests)
    )


def _fold(
    number: int,
    test_days: NDArray[np.int64],
    sessions: NDArray[np.int64],
    rows: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    embargo_sessions: int,
) -> Fold:
    decision_ns, label_end_ns, day = rows
    test = np.flatnonzero((day >= test_days[0]) & (day <= test_days[-1]))
    before = day < test_days[0]
    last = int(np.searchsorted(sessions, test_days[0])) - embargo_sessions  # sessions before this place are trained on
    if len(test) and last > 0:
        clear = before & (day <= sessions[last - 1]) & (label_end_ns < decision_ns[test].min())
        train = np.flatnonzero(clear)
    if not len(test) or last <= 0 or not len(train):
        raise NotEnoughSessions(
            f"fold {number} has no rows to {'train' if len(test) else 'test'} on: give more sessions, fewer folds, "
            "shorter labels or a shorter embargo"
        )
    return Fold(
        number=number,
        train=train,
        test=test,
        test_days=test_days,
        train_start_ns=int(decision_ns[train].min()),
        train_end_ns=int(label_end_ns[train].max()) + 1,
        test_start_ns=int(decision_ns[test].min()),
        test_end_ns=int(label_end_ns[test].max()) + 1,
        purged=int(before.sum()) - len(train),
    )


def dates_of(days: Sequence[int] | NDArray[np.int64]) -> tuple[str, ...]:
    """ISO dates of days counted from the epoch."""
    return tuple(str(date) for date in np.asarray(days, dtype="datetime64[D]"))
