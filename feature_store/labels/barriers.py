"""How a trade ends at its stop or its target, and the first rows of a market that end or fill what waits for one.

There is one rule, `barrier_step`: the paper exchange closes positions by it, and labels that foretell such a close
follow it. It is the cautious reading of a bar, whose inside nobody knows. A stop is a market order from its price on,
so where the price jumps over it, it fills at what the market then asks (backtrader, Order Management and Execution,
https://www.backtrader.com/docu/order-creation-execution/order-creation-execution, Stop). A target is a limit order, and
never gets more than its price. A bar that reaches both reached the stop first (freqtrade has this order on one candle:
Backtesting, Assumptions made by backtesting, https://www.freqtrade.io/en/stable/backtesting). Pure.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feature_store.market.arrays import kernel_input
from feature_store.market.types import Bars, Ticks, UnknownInstrument

NO_TOUCH: Final = 0
STOP: Final = 1
TARGET: Final = 2


class Touch(NamedTuple):
    """Where a trade ended."""

    row: int
    """Row of the market; -1: none of its rows touches."""
    outcome: int
    """`NO_TOUCH`, `STOP` or `TARGET`."""
    price: float
    """What the trade ends at, rupees; NaN without a touch."""


class MarketRows(NamedTuple):
    """A market as the kernels take it: made once by `rows_of`, asked often; shapes ``(n,)``, read-only."""

    seen_ns: NDArray[np.int64]
    """Event time: a tick's own, a bar's end; ascending."""
    begin_ns: NDArray[np.int64]
    """From when on its first price is made: a tick's own time, a bar's start."""
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    margin_ns: int
    """By which the row that fills an order begins after it: a tick is strictly later, 1; a bar may begin with it, 0."""
    by_instrument: NDArray[np.int64]
    """The rows of each instrument, one instrument after the other."""
    first: NDArray[np.int64]
    """Where in it each instrument's rows begin, and last where they end; shape ``(n_instruments + 1,)``."""


def rows_of(market: Ticks | Bars, n_instruments: int) -> MarketRows:
    """Make a market ready for `first_row` and `first_touch`; of ticks the last price is open, high and low.

    Parameters
    ----------
    market : Ticks or Bars
        In order of ``event_time_ns`` or ``end_ns``.
    n_instruments : int
        Length of the universe.

    Raises
    ------
    UnknownInstrument
        If a row's instrument index is outside the universe.
    """
    if isinstance(market, Ticks):
        seen_ns = begin_ns = kernel_input(market.event_time_ns, np.int64)
        opens = highs = lows = kernel_input(market.last_price, np.float64)
    else:
        seen_ns, begin_ns = kernel_input(market.end_ns, np.int64), kernel_input(market.start_ns, np.int64)
        opens, highs, lows = (kernel_input(price, np.float64) for price in (market.open, market.high, market.low))
    by_instrument, first = np.empty(len(market), dtype=np.int64), np.zeros(n_instruments + 1, dtype=np.int64)
    unknown = _sort(kernel_input(market.instrument, np.int32), by_instrument, first)
    if unknown >= 0:
        raise _unknown(f"row {unknown}", market.instrument[unknown], n_instruments)
    return MarketRows(seen_ns, begin_ns, opens, highs, lows, int(isinstance(market, Ticks)), by_instrument, first)


@njit(cache=True)  # type: ignore[untyped-decorator]
def barrier_step(  # noqa: PLR0917
    side: int, stop: float, target: float, open_: float, high: float, low: float
) -> tuple[int, float]:
    """Say whether a bar or tick ends a trade, and at which price.

    A bar's high and low are watched. The stop fills at its price or, where the bar opens beyond it, at the open; the
    target at its price, also where the bar opens beyond it. Where both are touched, the stop. To touch is to reach.

    Parameters
    ----------
    side : int
        1 for a trade that is long, -1 for one that is short, whose rule is the mirror image.
    stop, target : float
        Prices in rupees; NaN: none.
    open_, high, low : float
        Of the bar, rupees; a tick's price is all three, so its stop fills at the first tick at or beyond it.

    Returns
    -------
    tuple of int and float
        `NO_TOUCH`, `STOP` or `TARGET`, and the price in rupees (NaN without a touch).

    Examples
    --------
    >>> barrier_step(1, 99.0, 102.0, 100.0, 102.5, 98.5), barrier_step(1, 99.0, 102.0, 97.0, 98.0, 96.0)
    ((1, 99.0), (1, 97.0))
    """
    if side > 0:
        if low <= stop:
            return STOP, min(open_, stop)
        if high >= target:
            return TARGET, target
    else:
        if high >= stop:
            return STOP, max(open_, stop)
        if low <= target:
            return TARGET, target
    return NO_TOUCH, np.nan


def first_touch(  # noqa: PLR0917
    rows: MarketRows, instrument: int, side: int, stop: float, target: float, from_row: int
) -> Touch:
    """Find the first row that ends a trade, by `barrier_step`; the work grows with the instrument's own rows till then.

    A market may come in parts: a trade without a touch goes on in the next one, its rows counted from its first.

    Parameters
    ----------
    rows : MarketRows
    instrument : int
        Index in the universe.
    side : int
        1 for a trade that is long, -1 for one that is short.
    stop, target : float
        Rupees; NaN: none.
    from_row : int
        The first row of the market that counts, of whatever instrument. A fill at a bar's open has that bar's row, so
        that the entry bar counts; a fill at a tick has the row after it.

    Raises
    ------
    UnknownInstrument
        If the instrument is outside the universe.
    ValueError
        If the side is neither 1 nor -1, the row lies before the first, or the stop not on the losing side of the
        target.
    """
    _require_known("the trade", instrument, rows)
    if side not in (1, -1):
        raise ValueError(f"side {side} of a trade is neither 1 (long) nor -1 (short)")
    if from_row < 0:
        raise ValueError(f"from_row {from_row} lies before the first row, 0")
    if side * (target - stop) <= 0:
        raise ValueError(f"stop {stop} is not on the losing side of its target, {target}")
    return Touch(
        *_touch(
            rows.open, rows.high, rows.low, rows.by_instrument, rows.first, instrument, side, stop, target, from_row
        )
    )


def first_row(rows: MarketRows, instrument: int, time_ns: int) -> int:
    """Find the row that fills a market order: the first of its instrument that its time allows; -1: none.

    A tick must be strictly later than the order, a bar must start at or after it.

    Parameters
    ----------
    rows : MarketRows
    instrument : int
        Index in the universe.
    time_ns : int
        When the order was given.

    Raises
    ------
    UnknownInstrument
        If the instrument is outside the universe.
    """
    _require_known("the order", instrument, rows)
    row: int = _fill(rows.begin_ns, rows.by_instrument, rows.first, instrument, time_ns + rows.margin_ns)
    return row


def compile_barriers() -> None:
    """Compile the kernels of fills and touches, or load them from numba's cache, so that no first order waits."""
    at = np.zeros(1, dtype=np.int64)
    rows = rows_of(Ticks(np.zeros(1, dtype=np.int32), at, np.ones(1), at), 1)
    first_row(rows, 0, 0)
    first_touch(rows, 0, 1, 0.0, 2.0, 0)


def _require_known(who: str, instrument: int, rows: MarketRows) -> None:
    if not 0 <= instrument < len(rows.first) - 1:
        raise _unknown(who, instrument, len(rows.first) - 1)


def _unknown(who: str, instrument: int, n_instruments: int) -> UnknownInstrument:
    return UnknownInstrument(f"{who} names instrument {instrument}; the universe has 0…{n_instruments - 1}")


@njit(cache=True)
def _sort(instrument, by_instrument, first):  # type: ignore[no-untyped-def]
    """Write each instrument's rows one after the other; give the first row of an unknown one, or -1."""
    n = len(first) - 1
    for row in range(len(instrument)):
        if instrument[row] < 0 or instrument[row] >= n:
            return row
        first[instrument[row] + 1] += 1
    for i in range(n):
        first[i + 1] += first[i]
    following = first[:n].copy()
    for row in range(len(instrument)):
        i = instrument[row]
        by_instrument[following[i]] = row
        following[i] += 1
    return -1


@njit(cache=True)
def _touch(opens, highs, lows, by_instrument, first, instrument, side, stop, target, from_row):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Give the row that ends a trade (-1: none), how it does, and its price."""
    own = by_instrument[first[instrument] : first[instrument + 1]]
    for at in range(np.searchsorted(own, from_row), len(own)):
        row = own[at]
        how, price = barrier_step(side, stop, target, opens[row], highs[row], lows[row])
        if how != NO_TOUCH:
            return row, how, price
    return -1, NO_TOUCH, np.nan


@njit(cache=True)
def _fill(begin_ns, by_instrument, first, instrument, earliest_ns):  # type: ignore[no-untyped-def]
    """Give the instrument's first row that begins at a time or later, or -1."""
    low, high = first[instrument], first[instrument + 1]
    end = high
    while low < high:
        middle = (low + high) // 2
        if begin_ns[by_instrument[middle]] < earliest_ns:
            low = middle + 1
        else:
            high = middle
    return by_instrument[low] if low < end else -1


@njit(cache=True)
def barrier_label_rows(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    instrument, start_ns, end_ns, opens, highs, lows, opens_inr_e4, last_exit_ns, horizon_ns, n_instruments,
    side, stop, target, returns, entry_ns, label_end_ns, outcome,
):  # fmt: skip
    """Write what trades from each row on its side gain, and give -1, ``-2 - row`` or 0: see `barrier_return`.

    It stands beside `barrier_step` because numba's cache notices a change of this file only.
    """
    n = len(instrument)
    following = np.full(n, n)  # the instrument's next row; n: there is none
    newest = np.full(n_instruments, n)
    for row in range(n - 1, -1, -1):
        i = instrument[row]
        if i < 0 or i >= n_instruments:
            return -1
        following[row], newest[i] = newest[i], row
        if following[row] < n and start_ns[following[row]] < end_ns[row]:
            return -2 - following[row]
    for row in range(n):
        entry, due_ns = following[row], end_ns[row] + horizon_ns
        if side[row] == 0 or stop[row] == 0 or due_ns > last_exit_ns[row] or entry == n or start_ns[entry] >= due_ns:
            continue
        stop_price = (opens_inr_e4[entry] - side[row] * stop[row]) / 10_000.0
        target_price = (opens_inr_e4[entry] + side[row] * target[row]) / 10_000.0
        at, how, price = entry, NO_TOUCH, np.nan
        while at < n and start_ns[at] < due_ns:
            if at == entry or end_ns[at] <= due_ns:
                how, price = barrier_step(side[row], stop_price, target_price, opens[at], highs[at], lows[at])
            if how != NO_TOUCH:
                break
            at = following[at]
        if how != NO_TOUCH:
            known_ns = end_ns[at]
        elif at < n and start_ns[at] <= last_exit_ns[row]:
            known_ns, price = start_ns[at], opens[at]
        else:
            continue
        returns[row] = side[row] * (price / opens[entry] - 1.0)
        entry_ns[row], label_end_ns[row], outcome[row] = start_ns[entry], known_ns, how
    return 0
