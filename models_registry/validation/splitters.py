"""Splitters: rows with their label intervals and sessions in, folds of training and test rows out.

They share one rule. A training row never overlaps a test in time: it is dropped if the interval over which its label
was measured, ``[decision, label end]``, meets the test's, and the sessions of the embargo beside the test are left out
whole (López de Prado, "Advances in Financial Machine Learning", 2018, ch. 7). Rows are purged by time, not by count,
because labels differ in length. The embargo counts in sessions: what carries over to the next day does so over night,
whatever the hour.

`WalkForward` trains on what came before and makes the scores that everything is judged by. `CombinatorialPurged` also
trains on what came after, and gives only the spread over its paths.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.int64]


class NotEnoughSessions(ValueError):
    """Fewer sessions than a splitter needs."""


@dataclass(frozen=True, eq=False)
class Fold:
    """Rows to train and to test on; times are epoch nanoseconds, ends exclusive and including the label intervals."""

    number: int
    """From 1; 0 is the fold of walk-forward inside the first block, whose scores only give the first thresholds."""
    train: NDArray[np.intp]
    test: NDArray[np.intp]
    test_days: Times
    """Sessions that are tested, as IST days counted from the epoch."""
    train_start_ns: int
    train_end_ns: int
    test_start_ns: int
    test_end_ns: int
    purged: int
    """Rows that are not trained on although they are not tested, of walk-forward those before the test: their label
    reached it, or their session is in the embargo."""
    test_groups: tuple[int, ...] = ()
    """Groups that are tested, from 0; none in walk-forward."""


class Splitter(Protocol):
    """What cuts rows into folds."""

    def split(
        self, decision_ns: Times, label_end_ns: Times, day: Times, sessions: Times | None = None
    ) -> tuple[Fold, ...]:
        """Split rows.

        Parameters
        ----------
        decision_ns, label_end_ns : ndarray of int64, shape (n,)
            When a row's decision falls and when its label is known.
        day : ndarray of int64, shape (n,)
            The row's session, as an IST day counted from the epoch.
        sessions : ndarray of int64, optional
            Ascending days to cut; default: those of the rows. Two recipes whose rows differ get the same folds by it.

        Raises
        ------
        NotEnoughSessions
            If there are too few sessions, or purging leaves nothing to train or test on.
        """
        ...


def sessions_needed(folds: int, embargo_sessions: int = 0) -> int:
    """Give the least number of sessions that walk-forward can cut, so that its first block trains and tests."""
    return (1 + embargo_sessions) * (folds + 1) + 1


# --- walk-forward -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class WalkForward:
    """Expanding training sets and the sessions that follow each.

    ``folds + 1`` folds come out: fold 0 tests the later half of the first block on the earlier one, folds 1 to
    ``folds`` the blocks that follow. The tests of folds 1 and on do not overlap.
    """

    folds: int = 4
    """Number of test blocks; sessions are cut into one more of nearly equal size, the first trains only."""
    embargo_sessions: int = 0
    """Whole sessions left out between training and test."""

    def split(
        self, decision_ns: Times, label_end_ns: Times, day: Times, sessions: Times | None = None
    ) -> tuple[Fold, ...]:
        """See `Splitter.split`."""
        if self.folds < 1:
            raise ValueError(f"walk-forward needs at least one fold, got {self.folds}")
        cut = np.unique(day) if sessions is None else sessions
        needed = sessions_needed(self.folds, self.embargo_sessions)
        if len(cut) < needed:
            raise NotEnoughSessions(
                f"{self.folds} folds with an embargo of {self.embargo_sessions} sessions need at least {needed} "
                f"sessions, there are {len(cut)}: give more sessions or fewer folds"
            )
        blocks = np.array_split(cut, self.folds + 1)
        tests = [blocks[0][(len(blocks[0]) + self.embargo_sessions + 1) // 2 :], *blocks[1:]]
        rows = (decision_ns, label_end_ns, day)
        return tuple(self._fold(number, test, cut, rows) for number, test in enumerate(tests))

    def _fold(self, number: int, test_days: Times, sessions: Times, rows: tuple[Times, Times, Times]) -> Fold:
        decision_ns, label_end_ns, day = rows
        test = np.flatnonzero((day >= test_days[0]) & (day <= test_days[-1]))
        before = day < test_days[0]
        last = int(np.searchsorted(sessions, test_days[0])) - self.embargo_sessions  # sessions before it are trained on
        train = np.empty(0, dtype=np.intp)
        if len(test) and last > 0:
            clear = before & (day <= sessions[last - 1]) & (label_end_ns < decision_ns[test].min())
            train = np.flatnonzero(clear)
        return _made(number, train, test, test_days, rows, purged=int(before.sum()) - len(train))


# --- combinatorial ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CombinatorialPurged:
    """Every choice of ``test_groups`` out of ``groups`` contiguous blocks of whole sessions is tested once.

    López de Prado (2018), ch. 12: with 6 groups of which 2 are tested, 15 splits, whose tests make 5 paths through all
    sessions (`paths.path_scores`). He embargoes what follows a test; here the sessions before it are left out too,
    since what hangs together from one day to the next does so in both directions.

    The rule: a training row's label interval meets neither a test's nor the sessions of the embargo, which are counted
    from the test's first session back and from the session in which its last label ends on. Rows of sessions that are
    not among ``sessions`` are neither trained nor tested on.
    """

    groups: int = 6
    test_groups: int = 2
    embargo_sessions: int = 1
    """Whole sessions left out on each side of a test."""

    def split(
        self, decision_ns: Times, label_end_ns: Times, day: Times, sessions: Times | None = None
    ) -> tuple[Fold, ...]:
        """See `Splitter.split`; folds are numbered from 1 in lexicographic order of their groups."""
        if not 0 < self.test_groups < self.groups:
            raise ValueError(
                f"of {self.groups} groups {self.test_groups} cannot be tested: at least one must be, and one left"
            )
        cut = np.unique(day) if sessions is None else sessions
        if len(cut) < self.groups:
            raise NotEnoughSessions(
                f"{self.groups} groups need at least as many sessions, there are {len(cut)}: give more sessions or "
                "fewer groups"
            )
        group_of_session = _group_of_session(len(cut), self.groups)
        place = _place(cut, day)
        group = np.where(place >= 0, group_of_session[place], -1)
        rows = (decision_ns, label_end_ns, place)
        reach = [_session_reach(rows, group == number) for number in range(self.groups)]
        folds = []
        for number, chosen in enumerate(itertools.combinations(range(self.groups), self.test_groups), 1):
            tested = np.isin(group, chosen)
            others = (group >= 0) & ~tested
            train = np.flatnonzero(others & self._clear(rows, [reach[one] for one in chosen]))
            days = cut[np.isin(group_of_session, chosen)]
            purged = int(others.sum()) - len(train)
            made = _made(number, train, np.flatnonzero(tested), days, rows, purged=purged, test_groups=chosen)
            folds.append(made)
        return tuple(folds)

    def _clear(
        self, rows: tuple[Times, Times, NDArray[np.intp]], tested: Sequence[tuple[int, int] | None]
    ) -> NDArray[np.bool_]:
        """Rows that lie clear of the tests, which reach over the sessions ``(first, last)``."""
        decision_ns, label_end_ns, place = rows
        clear = np.ones(len(place), dtype=np.bool_)
        for reach in tested:
            if reach is None:
                continue
            first, last = reach[0] - self.embargo_sessions, reach[1] + self.embargo_sessions
            begins_ns = int(decision_ns[place >= first].min())
            clear &= ((place < first) & (label_end_ns < begins_ns)) | (place > last)
        return clear


def _group_of_session(sessions: int, groups: int) -> NDArray[np.int64]:
    sizes = [len(block) for block in np.array_split(np.arange(sessions), groups)]
    return np.repeat(np.arange(groups, dtype=np.int64), sizes)


def _place(sessions: Times, day: Times) -> NDArray[np.intp]:
    """Index of each row's session; −1 for one that is not among them."""
    place = np.minimum(np.searchsorted(sessions, day), len(sessions) - 1)
    return np.where(sessions[place] == day, place, -1)


def _session_reach(rows: tuple[Times, Times, NDArray[np.intp]], tested: NDArray[np.bool_]) -> tuple[int, int] | None:
    """First session of a group's rows, and the session in which its last label ends; None without rows."""
    decision_ns, label_end_ns, place = rows
    if not tested.any():
        return None
    return int(place[tested].min()), int(place[decision_ns <= label_end_ns[tested].max()].max())


def _made(
    number: int,
    train: NDArray[np.intp],
    test: NDArray[np.intp],
    test_days: Times,
    rows: tuple[Times, Times, NDArray[Any]],
    *,
    purged: int,
    test_groups: tuple[int, ...] = (),
) -> Fold:
    decision_ns, label_end_ns, _ = rows
    if not len(test) or not len(train):
        raise NotEnoughSessions(
            f"fold {number} has no rows to {'train' if len(test) else 'test'} on: give more sessions, fewer folds or "
            "groups, shorter labels or a shorter embargo"
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
        purged=purged,
        test_groups=test_groups,
    )


def dates_of(days: Sequence[int] | Times) -> tuple[str, ...]:
    """ISO dates of days counted from the epoch."""
    return tuple(str(date) for date in np.asarray(days, dtype="datetime64[D]"))
