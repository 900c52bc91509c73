"""What a row weighs: its label's uniqueness, and every session the same.

Labels of neighbouring decisions look at the same prices, so rows say less than their number; and a session with many
rows says no more about the next one than a session with few.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def average_uniqueness(
    instrument: NDArray[np.integer[Any]], decision_ns: NDArray[np.int64], label_end_ns: NDArray[np.int64]
) -> NDArray[np.float64]:
    """Give the mean of one over the number of the instrument's labels that are open, over each label's interval.

    Parameters
    ----------
    instrument : ndarray of int, shape (n,)
        Labels of different instruments do not overlap, however alike their prices move: that is left to measures
        clustered by session.
    decision_ns, label_end_ns : ndarray of int64, shape (n,)
        The interval ``[decision, label end)``, epoch nanoseconds. Rows may be in any order.

    Returns
    -------
    ndarray of float64, shape (n,)
        In (0, 1]; 1 for a label that shares no time with another one of its instrument.

    Raises
    ------
    ValueError
        If a label ends no later than its decision.

    Notes
    -----
    López de Prado, "Advances in Financial Machine Learning" (2018), §4.4, in continuous time: where he counts bars,
    this integrates over the spans between one interval's end or beginning and the next, so that labels of unequal
    length and instruments with holes weigh what they cover.

    Examples
    --------
    Two labels that share half of their time, and one alone:

    >>> import numpy as np
    >>> average_uniqueness(np.array([0, 0, 1]), np.array([0, 5, 0]), np.array([10, 15, 10]))
    array([0.75, 0.75, 1.  ])
    """
    if np.any(label_end_ns <= decision_ns):
        raise ValueError("a label ends no later than its decision")
    n = len(decision_ns)
    owner, time_ns = np.concatenate([instrument, instrument]), np.concatenate([decision_ns, label_end_ns])
    opens = np.repeat(np.array([1, -1]), n)
    order = np.lexsort((time_ns, owner))
    open_labels = np.cumsum(opens[order])
    # from each end or beginning to the next; after an instrument's last end nothing is open
    span_ns = np.diff(time_ns[order], append=0)
    share_ns = np.where(open_labels > 0, span_ns / np.maximum(open_labels, 1), 0.0)
    before_ns = np.empty(2 * n)
    before_ns[order] = np.concatenate([[0.0], np.cumsum(share_ns)[:-1]])
    unique: NDArray[np.float64] = (before_ns[n:] - before_ns[:n]) / (label_end_ns - decision_ns)
    return unique


def row_weights(
    instrument: NDArray[np.integer[Any]],
    decision_ns: NDArray[np.int64],
    label_end_ns: NDArray[np.int64],
    day: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Weigh rows by their uniqueness, and sessions equally.

    Parameters
    ----------
    instrument, decision_ns, label_end_ns
        See `average_uniqueness`.
    day : ndarray of int64, shape (n,)
        The session of each row.

    Returns
    -------
    ndarray of float64, shape (n,)
        Positive, mean 1; the weights of each session have the same sum. Any subset that holds whole sessions keeps
        that.
    """
    unique = average_uniqueness(instrument, decision_ns, label_end_ns)
    days, session = np.unique(day, return_inverse=True)
    weight: NDArray[np.float64] = unique / np.bincount(session, unique)[session] * (len(unique) / max(len(days), 1))
    return weight
