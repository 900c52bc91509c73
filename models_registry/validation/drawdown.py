"""How far equity fell below its highest value so far, and for how long."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Drawdown:
    """The deepest fall and the longest time under water."""

    depth_inr: Floats
    """Distance below the highest value so far, rupees, shape (n,); 0 at a new high."""
    largest_inr: float
    """0 if equity never fell."""
    peak: int
    """Index of the value that the deepest fall is measured from; −1 for the start."""
    trough: int
    """Index of its deepest value; −1 if equity never fell."""
    recovered: int | None
    """Index of the first value after the trough that is as high as the peak; None if there is none."""
    longest_under_water: int
    """Most values in a row that lie below the highest so far."""


def drawdown(equity_inr: Floats, *, start_inr: float = 0.0) -> Drawdown:
    """Measure the falls of an equity curve.

    Parameters
    ----------
    equity_inr : ndarray of float64, shape (n,)
        Equity at the end of each session, or cumulative profit; finite.
    start_inr : float
        Equity before the first session: a record that begins with a loss has fallen from there.
    """
    curve = np.concatenate([[start_inr], np.asarray(equity_inr, dtype=np.float64)])
    highest = np.maximum.accumulate(curve)
    depth = highest - curve
    trough = int(depth.argmax())
    largest = float(depth[trough])
    peak = int(np.flatnonzero(curve[: trough + 1] == highest[trough])[-1])
    after = np.flatnonzero(curve[trough:] >= highest[trough]) if largest > 0.0 else np.empty(0, dtype=np.intp)
    return Drawdown(
        depth_inr=depth[1:],
        largest_inr=largest,
        peak=peak - 1 if largest > 0.0 else -1,
        trough=trough - 1 if largest > 0.0 else -1,
        recovered=trough + int(after[0]) - 1 if len(after) else None,
        longest_under_water=_longest(depth > 0.0),
    )


def _longest(below: NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], below, [False]]).astype(np.int8)))
    return int((edges[1::2] - edges[::2]).max(initial=0))
