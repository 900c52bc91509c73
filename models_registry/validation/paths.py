"""The paths of combinatorial cross-validation: each passes through all sessions, and no row of it was trained on.

Paths share sessions, and their models share training rows, so that they are no independent samples: their spread says
how much a measure hangs on what was trained on, and is no standard error.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from models_registry.validation.splitters import Fold


def path_folds(folds: Sequence[Fold]) -> NDArray[np.intp]:
    """Say which fold scores which group on which path.

    Parameters
    ----------
    folds : sequence of Fold
        Those of `splitters.CombinatorialPurged`, in their order.

    Returns
    -------
    ndarray of intp, shape (paths, groups)
        Indices of ``folds``. The first fold that tests a group is on the first path, the second on the second (López de
        Prado 2018, §12.4): ``C(groups − 1, test_groups − 1)`` paths.
    """
    groups = 1 + max(group for fold in folds for group in fold.test_groups)
    by_group = [[place for place, fold in enumerate(folds) if group in fold.test_groups] for group in range(groups)]
    return np.array(by_group, dtype=np.intp).T


def path_scores(folds: Sequence[Fold], scores: Sequence[NDArray[np.float64]], rows: int) -> NDArray[np.float64]:
    """Put the scores of the folds together to paths.

    Parameters
    ----------
    folds : sequence of Fold
        Those of `splitters.CombinatorialPurged`, in their order.
    scores : sequence of ndarray
        For each fold one value for each row of its ``test``, in that order.
    rows : int
        Number of rows that were split.

    Returns
    -------
    ndarray of float64, shape (paths, rows)
        NaN for rows that are in no group.
    """
    n_paths = path_folds(folds).shape[0]
    found = np.full((n_paths, rows), np.nan)
    seen = np.zeros(rows, dtype=np.intp)  # how often a row was scored: the path that the next score of it belongs to
    for fold, score in zip(folds, scores, strict=True):
        found[seen[fold.test], fold.test] = score
        seen[fold.test] += 1
    return found
