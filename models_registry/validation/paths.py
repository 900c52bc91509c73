"""The paths of combinatorial cross-validation: each passes through all sessions, and no row of it was trained on.

Paths share sessions, and their models share training rows, so that they are no independent samples: their spread says
how much a measure hangs on what was trained on, and is no standard error.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models_registry.validation.splitters import Fold


def path_of(row: NDArray[np.integer[Any]]) -> NDArray[np.intp]:
    """Say on which path each score of a row lies.

    Parameters
    ----------
    row : ndarray of int, shape (m,)
        Which row was scored, fold after fold as `splitters.CombinatorialPurged` numbers them.

    Returns
    -------
    ndarray of intp, shape (m,)
        From 0: the first fold that tests a group is on the first path, the second on the second (López de Prado 2018,
        §12.4), ``C(groups − 1, test_groups − 1)`` in all.
    """
    order = np.argsort(row, kind="stable")
    begins = np.flatnonzero(np.diff(row[order], prepend=row[order][:1] - 1))
    path = np.empty(len(row), dtype=np.intp)
    path[order] = np.arange(len(row)) - np.repeat(begins, np.diff(begins, append=len(row)))
    return path


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
    row = np.concatenate([fold.test for fold in folds])
    path = path_of(row)
    found = np.full((int(path.max()) + 1, rows), np.nan)
    found[path, row] = np.concatenate(scores)
    return found
