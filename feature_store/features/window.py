"""What a feature sees: the last bars of one instrument, and exact sums and extremes over them.

Everything a window sums is held as integers in fixed point, added up from the instrument's first bar on, modulo 2**64.
A sum over the last ``n`` bars is one subtraction, and it is exact: it cannot drift, and where a run began or how it was
cut into batches leaves no trace in it. Extremes are held over 2, 4, … 32 bars; one over ``n`` bars is two reads.

Recursive averages (EMA, Wilder) have no exact window. They are kept in two generations: at every anchor, a fixed
calendar boundary, a fresh one begins at the session's open, and the one begun an anchor earlier is read. Their memory
is finite too: one to two blocks between anchors, never less than about 128 bars.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

CAPACITY = 64
"""Bars held of each instrument; no window is longer than ``CAPACITY - 1`` bars."""
_MASK = CAPACITY - 1

PRICE_UNITS = 10_000.0
"""Units of a rupee: NSE prices have two decimals, adjusted ones are rounded to four."""
RETURN_UNITS = 2.0**40
"""Units of a return of 1; a one-minute return is kept to nine digits."""
SQUARE_UNITS = 2.0**52
"""Units of a squared return of 1, and of a product of two returns."""
LARGEST_MOVE = 5.6
"""Returns and log ranges of one bar count as no more: the squares of ``CAPACITY`` larger ones would overflow."""
DEPTH_UNITS = 2.0**32
"""Units of a basis point of spread, and of an imbalance of 1."""

# --- bar by bar ---
OPEN, HIGH, LOW, CLOSE, VOLUME, INDEX_CLOSE, SPREAD, IMBALANCE, OBV = range(9)
# --- sums from the first bar on ---
(
    SUM_CLOSE, SUM_CLOSE_SQUARED, SUM_CLOSE_BY_TIME, SUM_VOLUME, SUM_TURNOVER, SUM_RETURN, SUM_RETURN_SQUARED,
    SUM_PARKINSON, SUM_GARMAN_KLASS, SUM_RANGE, SUM_TRUE_RANGE, SUM_MOVE, SUM_OBV, SUM_OBV_BY_TIME,
    SUM_INDEX_RETURN, SUM_INDEX_RETURN_SQUARED, SUM_RETURN_PRODUCT, COUNT_INDEX, SUM_SPREAD, SUM_IMBALANCE, COUNT_DEPTH,
) = range(9, 30)  # fmt: skip
# --- extremes over 2, 4, 8, 16 and 32 bars ---
HIGHEST, LOWEST = 30, 35
COLUMNS = 40

# --- what an instrument's header holds ---
SEEN, DAY, BLOCK, SESSIONS, ANCHORS, SESSION_OPEN, SESSION_HIGH, SESSION_LOW = range(8)
SESSION_VOLUME, SESSION_TURNOVER, PREVIOUS_CLOSE, NEXT_ACTION, LAST_END = range(8, 13)
HEADER = 13

# --- recursive averages: what they smooth, and how fast ---
EMA_5, EMA_20, WILDER_GAIN, WILDER_LOSS, WILDER_TRUE_RANGE, WILDER_PLUS, WILDER_MINUS, WILDER_DX = range(8)
SMOOTHED = 8
ALPHA = np.array([2.0 / 6.0, 2.0 / 21.0, *[1.0 / 14.0] * 6])
"""Weight of the newest value; the first values are averaged plainly until this weight is reached (Wilder 1978)."""


class Window(NamedTuple):
    """One instrument at the end of its newest bar; read it with the functions below."""

    ring: NDArray[np.int64]
    """Shape ``(n_instruments, CAPACITY, COLUMNS)``."""
    smoothed: NDArray[np.float64]
    """Shape ``(n_instruments, 2, 1 + SMOOTHED)``: bars of each generation, then the averages; 0 is the older one."""
    header: NDArray[np.int64]
    """Shape ``(n_instruments, HEADER)``."""
    instrument: int
    newest: int
    """Number of the newest bar, counted from the instrument's first one in this run: only differences mean anything."""
    end_ns: int


_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile a function for use inside other compiled ones; dividing by zero gives inf or NaN, as in numpy."""
    return njit(error_model="numpy")(function)  # type: ignore[no-any-return]


@compiled
def units(bars: Window, column: int, ago: int = 0) -> int:
    """Give a column, in its units, ``ago`` bars before the newest."""
    return int(bars.ring[bars.instrument, (bars.newest - ago) & _MASK, column])


@compiled
def price(bars: Window, column: int, ago: int = 0) -> float:
    """Give ``OPEN``, ``HIGH``, ``LOW``, ``CLOSE`` or ``INDEX_CLOSE`` in rupees; an index close of 0 is missing."""
    return units(bars, column, ago) / PRICE_UNITS


@compiled
def total(bars: Window, column: int, period: int, ago: int = 0) -> int:
    """Sum a ``SUM_`` or ``COUNT_`` column over ``period`` bars, in its units; exact."""
    return _difference(units(bars, column, ago), units(bars, column, ago + period))


@compiled
def total_of_session(bars: Window, column: int, before: int) -> int:
    """Sum a ``SUM_`` column since the open; ``before`` is where the header holds it as it was then."""
    return _difference(units(bars, column), of_session(bars, before))


@compiled
def _difference(sum_now: Any, sum_before: Any) -> int:
    """Subtract modulo 2**64.

    In numba signed numbers must not overflow: LLVM is told that they do not, and turns ``a - b > 0`` into ``a > b``,
    which is wrong once a sum has gone past 2**63. Unsigned ones wrap by definition.
    """
    return np.int64(np.uint64(sum_now) - np.uint64(sum_before))  # type: ignore[return-value]


@compiled
def mean_price(bars: Window, period: int) -> float:
    """Mean close, rupees."""
    return total(bars, SUM_CLOSE, period) / (period * PRICE_UNITS)


@compiled
def price_deviation(bars: Window, period: int) -> float:
    """Population standard deviation of the close, rupees; exactly 0 when all are equal.

    The sums are taken about the whole number next to the mean, in integers, so nothing cancels, and 20 closes of a
    share of ₹150,000 may lie anywhere below it.
    """
    middle = int(total(bars, SUM_CLOSE, period) / period)
    first = total(bars, SUM_CLOSE, period) - period * middle
    of_middle = np.uint64(middle) * (np.uint64(2 * first) + np.uint64(period) * np.uint64(middle))
    squares = _difference(total(bars, SUM_CLOSE_SQUARED, period), of_middle)
    variance = (squares - float(first) * float(first) / period) / period
    return math.sqrt(max(variance, 0.0)) / PRICE_UNITS


@compiled
def price_slope(bars: Window, period: int) -> float:
    """Slope of the least-squares line through the close, rupees per bar."""
    return _slope(bars, CLOSE, SUM_CLOSE, SUM_CLOSE_BY_TIME, period) / PRICE_UNITS


@compiled
def obv_slope_shares(bars: Window, period: int) -> float:
    """Slope of the least-squares line through the on-balance volume, shares per bar."""
    return _slope(bars, OBV, SUM_OBV, SUM_OBV_BY_TIME, period)


@compiled
def _slope(bars: Window, column: int, sum_column: int, by_time: int, period: int) -> float:
    newest = units(bars, column)
    first = total(bars, sum_column, period) - period * newest
    # places count from 0 at the oldest bar; the bar numbers in the sums count from the run's first one
    before = np.uint64(bars.newest - period + 1) * np.uint64(total(bars, sum_column, period))
    weighted = _difference(total(bars, by_time, period), before)
    places = period * (period - 1) // 2
    weighted -= places * newest
    spread = period * (period - 1) * (2 * period - 1) // 6 * period - places * places
    return (period * float(weighted) - places * float(first)) / spread


@compiled
def return_deviation(bars: Window, period: int) -> float:
    """Population standard deviation of ``period`` bar-to-bar simple returns; needs ``period + 1`` bars."""
    mean = total(bars, SUM_RETURN, period) / RETURN_UNITS / period
    squares = total(bars, SUM_RETURN_SQUARED, period) / SQUARE_UNITS / period
    return math.sqrt(max(squares - mean * mean, 0.0))


@compiled
def highest(bars: Window, period: int, ago: int = 0) -> int:
    """Highest high of 1 to 63 bars, up to the one ``ago`` bars before the newest, in price units; exact."""
    level, span = 0, 1
    while 2 * span <= period:
        level, span = level + 1, 2 * span
    if level == 0:
        return units(bars, HIGH, ago)
    column = HIGHEST + level - 1
    return max(units(bars, column, ago), units(bars, column, ago + period - span))


@compiled
def lowest(bars: Window, period: int, ago: int = 0) -> int:
    """Lowest low of 1 to 63 bars, up to the one ``ago`` bars before the newest, in price units; exact."""
    level, span = 0, 1
    while 2 * span <= period:
        level, span = level + 1, 2 * span
    if level == 0:
        return units(bars, LOW, ago)
    column = LOWEST + level - 1
    return min(units(bars, column, ago), units(bars, column, ago + period - span))


@compiled
def smoothed(bars: Window, which: int) -> float:
    """Give a recursive average from the older generation; prices in price units."""
    return float(bars.smoothed[bars.instrument, 0, 1 + which])


@compiled
def of_session(bars: Window, which: int) -> int:
    """Give what the header holds of this session: ``SESSION_OPEN``, ``SESSION_HIGH``, …, ``PREVIOUS_CLOSE``."""
    return int(bars.header[bars.instrument, which])
