"""Finding the same decisions in two sets of rows; pure."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def paired_rows(
    decision_ns: NDArray[np.int64],
    instrument: NDArray[np.integer[Any]],
    other_decision_ns: NDArray[np.int64],
    other_instrument: NDArray[np.integer[Any]],
) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Give the rows of two sets that are the same decision: equal time and equal instrument.

    Parameters
    ----------
    decision_ns, instrument : ndarray, shape (n,)
        Decisions of the first set, each once; instruments are indices of one universe.
    other_decision_ns, other_instrument : ndarray, shape (m,)
        Those of the second.

    Returns
    -------
    rows, other_rows : ndarray of intp, shape (k,)
        In order of ``(decision_ns, instrument)``.
    """
    times = np.unique(np.concatenate([decision_ns, other_decision_ns]))
    width = int(max(instrument.max(initial=0), other_instrument.max(initial=0))) + 1
    keys = [
        np.searchsorted(times, at_ns) * width + which
        for at_ns, which in ((decision_ns, instrument), (other_decision_ns, other_instrument))
    ]
    _, rows, other_rows = np.intersect1d(keys[0], keys[1], assume_unique=True, return_indices=True)
    return rows, other_rows
