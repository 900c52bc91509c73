"""How large a strategy could trade before it is much of the market it trades in, and how much it turns over.

Capacity here is a share of traded value: nothing is said of the price that a larger order would move, only when it
would be more of a bar's trading than a limit allows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

PARTICIPATION_LIMIT: Final = 0.01
"""Share of an entry bar's traded value; orders of about a percent of volume are taken to fill without moving it."""
TOLERATED_SHARE: Final = 0.05
"""Share of the trades that may lie above the limit."""


@dataclass(frozen=True)
class Capacity:
    """Notional of one trade that the traded volume has room for."""

    largest_notional_inr: float
    """Notional of every trade at which ``tolerated_share`` of them lie above the limit; NaN without trades."""
    scale: float
    """Factor on the present notionals at which they do; NaN without trades."""
    median_participation: float
    """Share that a trade is of its entry bar's traded value; infinite where nothing was traded."""
    share_above_limit: float
    """Of the trades, as they were made."""
    trades: int
    unknown: int
    """Trades left out, because their bar's traded value is not known."""
    participation_limit: float
    tolerated_share: float


def capacity(
    notional_inr: Floats,
    bar_value_inr: Floats,
    *,
    participation_limit: float = PARTICIPATION_LIMIT,
    tolerated_share: float = TOLERATED_SHARE,
) -> Capacity:
    """Hold trades against the traded value of the bar that they enter in.

    Parameters
    ----------
    notional_inr : ndarray of float64, shape (n,)
        Entry price × quantity of each trade, positive rupees.
    bar_value_inr : ndarray of float64, shape (n,)
        Price × volume of the bar in which it was filled, rupees; NaN where it is not known, 0 where nothing was traded.
    participation_limit : float
        Largest share of that value.
    tolerated_share : float
        Of the trades, above the limit.

    Raises
    ------
    ValueError
        If a notional is not a positive number, or a traded value is negative.
    """
    if not np.all(notional_inr > 0.0) or np.any(bar_value_inr < 0.0):
        raise ValueError(
            "a trade's notional must be a positive number of rupees, and its bar's traded value none below 0"
        )
    known = np.isfinite(bar_value_inr)
    notional, room = notional_inr[known], participation_limit * bar_value_inr[known]
    if not len(notional):
        nan = float("nan")
        return Capacity(nan, nan, nan, nan, 0, int((~known).sum()), participation_limit, tolerated_share)
    share = np.full(len(room), np.inf)
    np.divide(notional * participation_limit, room, out=share, where=room > 0.0)
    return Capacity(
        largest_notional_inr=float(np.quantile(room, tolerated_share, method="lower")),
        scale=float(np.quantile(room / notional, tolerated_share, method="lower")),
        median_participation=float(np.quantile(share, 0.5, method="higher")),
        share_above_limit=float(np.mean(notional > room)),
        trades=len(notional),
        unknown=int((~known).sum()),
        participation_limit=participation_limit,
        tolerated_share=tolerated_share,
    )


@dataclass(frozen=True, eq=False)
class Turnover:
    """Value bought and sold."""

    by_session_inr: Floats
    """Shape (sessions,)."""
    mean_inr: float
    """Per session, those without a fill included; 0 without sessions."""
    largest_inr: float
    total_inr: float


def turnover(notional_inr: Floats, day: NDArray[np.int64], sessions: NDArray[np.int64]) -> Turnover:
    """Sum the value of fills by session; a trade is two of them, its entry and its exit.

    Parameters
    ----------
    notional_inr : ndarray of float64, shape (n,)
        Price × quantity of each fill, rupees, whatever its side.
    day : ndarray of int64, shape (n,)
        Its session.
    sessions : ndarray of int64, shape (s,)
        All sessions of the record, ascending.

    Raises
    ------
    ValueError
        If a fill is of a session that is not among them.
    """
    place = np.searchsorted(sessions, day)
    if len(day) and not np.array_equal(sessions[np.minimum(place, len(sessions) - 1)], day):
        raise ValueError("a fill is of a session that is not among the record's; give every session of the record")
    sums = np.bincount(place, np.abs(notional_inr).astype(np.float64), minlength=len(sessions)).astype(np.float64)
    return Turnover(
        by_session_inr=sums,
        mean_inr=float(sums.mean()) if len(sums) else 0.0,
        largest_inr=float(sums.max(initial=0.0)),
        total_inr=float(sums.sum()),
    )
