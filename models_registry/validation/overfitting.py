"""The probability of backtest overfitting: how often the best configuration of one half is below median in the other.

Sessions are cut into blocks; every choice of half of them is once the half on which the best configuration is chosen,
and the rest the half on which it is tried (combinatorially symmetric cross-validation; Bailey, Borwein, López de Prado
& Zhu, "The Probability of Backtest Overfitting", Journal of Computational Finance 20(4), 2017).
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Final

import numpy as np
import scipy
from numpy.typing import NDArray

Floats = NDArray[np.float64]

BLOCKS: Final = 8
FEWEST_CONFIGURATIONS: Final = 6
"""Among fewer, to be below the median says little."""
FEWEST_SESSIONS_A_BLOCK: Final = 3


@dataclass(frozen=True)
class NotApplicable:
    """A question that the data cannot answer; never taken for a pass."""

    reason: str


@dataclass(frozen=True, eq=False)
class Overfitting:
    """What became of the best of each half."""

    probability: float
    """Share of the choices in which it fell below the median of the other half; the median itself counts half."""
    logits: Floats
    """Of its relative rank in the other half, one for each choice; above 0 it was better than the median."""
    loss_probability: float
    """Share of the choices in which it lost money in the other half, or made none."""
    degradation: float
    """Slope of its ratio in the other half over that in the half it was chosen on; NaN if the latter never varies."""
    configurations: int
    """That differ."""
    sessions: int
    blocks: int


def probability_of_overfitting(daily_pnl: Floats, *, blocks: int = BLOCKS) -> Overfitting | NotApplicable:
    """Ask whether choosing the best configuration is worth anything.

    Parameters
    ----------
    daily_pnl : ndarray of float64, shape (sessions, configurations)
        Net profit by session, of all configurations on the same sessions in their order. Equal columns count once.
    blocks : int
        Even; ``C(blocks, blocks/2)`` choices: 70 with 8, 12,870 with 16.

    Returns
    -------
    Overfitting or NotApplicable
        The latter with fewer than 6 different configurations or 3 sessions a block.

    Raises
    ------
    ValueError
        If a figure is not finite, or ``blocks`` is odd.

    Notes
    -----
    The measure is the Sharpe ratio of a half; that of a half that does not vary is 0. It assumes that a configuration
    is as good in one block as in another: halves are sets of blocks, not a before and an after. Where no configuration
    has an edge it is 0.5 on average, but of one set of trials anything between 0 and 1 (``docs/validation.md``): it is
    a figure about the choice, not a test.
    """
    pnl = np.asarray(daily_pnl, dtype=np.float64)
    if blocks < 2 or blocks % 2:
        raise ValueError(f"blocks must be even and at least 2, got {blocks}")
    if not np.all(np.isfinite(pnl)):
        raise ValueError("a session's profit is not a finite number; a session without trades has 0")
    pnl = np.unique(pnl, axis=1)
    sessions, configurations = pnl.shape
    if configurations < FEWEST_CONFIGURATIONS:
        return NotApplicable(f"{configurations} different configurations, at least {FEWEST_CONFIGURATIONS} are needed")
    if sessions < blocks * FEWEST_SESSIONS_A_BLOCK:
        return NotApplicable(
            f"{sessions} sessions, at least {blocks * FEWEST_SESSIONS_A_BLOCK} are needed for {blocks} blocks"
        )
    chosen_on = _choices(blocks)
    inside, outside = _ratios(pnl, chosen_on), _ratios(pnl, ~chosen_on)
    every, best = np.arange(len(chosen_on)), inside.argmax(axis=1)
    rank = scipy.stats.rankdata(outside, axis=1)[every, best] / (configurations + 1)
    chosen, tried = inside[every, best], outside[every, best]
    spread = float(np.var(chosen))
    return Overfitting(
        probability=float(np.mean(rank < 0.5) + np.mean(rank == 0.5) / 2),
        logits=np.log(rank / (1.0 - rank)),
        loss_probability=float(np.mean(tried <= 0.0)),
        degradation=float(np.mean((chosen - chosen.mean()) * tried) / spread) if spread > 0.0 else float("nan"),
        configurations=configurations,
        sessions=sessions,
        blocks=blocks,
    )


def _choices(blocks: int) -> NDArray[np.bool_]:
    """Every half of the blocks, shape (choices, blocks)."""
    halves = list(itertools.combinations(range(blocks), blocks // 2))
    chosen = np.zeros((len(halves), blocks), dtype=np.bool_)
    chosen[np.arange(len(halves))[:, None], halves] = True
    return chosen


def _ratios(pnl: Floats, chosen: NDArray[np.bool_]) -> Floats:
    """Sharpe ratios per session, shape (choices, configurations)."""
    parts = np.array_split(pnl, chosen.shape[1])
    each = chosen.astype(np.float64)
    n = (each @ np.array([len(part) for part in parts]))[:, None]
    mean = each @ np.array([part.sum(axis=0) for part in parts]) / n
    squares = each @ np.array([(part**2).sum(axis=0) for part in parts]) / n
    variance = (squares - mean**2) * n / (n - 1)
    varies = variance > 1e-12 * np.maximum(squares, 1e-300)  # what is left of a constant is rounding
    return np.where(varies, mean / np.sqrt(np.where(varies, variance, 1.0)), 0.0)
