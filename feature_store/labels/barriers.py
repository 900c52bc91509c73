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


class Watches(NamedTuple):
    """What ends trades, one for each; shapes ``(n_watches,)``."""

    instrument: NDArray[np.int32]
    """Index in the universe."""
    side: NDArray[np.int8]
    """1 for a trade that is long, -1 for one that is short."""
    stop: NDArray[np.float64]
    """Rupees; NaN: none."""
    target: NDArray[np.float64]
    """Rupees; NaN: none."""
    from_row: NDArray[np.int64]
    """The first row of the market that counts, of whatever instrument. A fill at a bar's open has that bar's row, so
    that the entry bar counts; a fill at a tick has the row after it."""


class Touches(NamedTuple):
    """Where trades ended, one for each watch and in their order; shapes ``(n_watches,)``."""

    row: NDArray[np.int64]
    """Row of the market; -1: none of its rows touches."""
    outcome: NDArray[np.int8]
    """`NO_TOUCH`, `STOP` or `TARGET`."""
    price: NDArray[np.float64]
    """What the trade ends at, rupees; NaN without a touch."""


class MarketRows(NamedTuple):
    """A market as the kernels take it: made once by `rows_of`, asked often; shapes ``(n,)``, read-only."""

    instrument: NDArray[np.int32]
    seen_ns: NDArray[np.int64]
    """Event time: a tick's own, a bar's end; ascending."""
    begin_ns: NDArray[np.int64]
    """From when on its first price is made: a tick's own time, a bar's start."""
    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    margin_ns: int
    """By which the row that fills an order begins after it: a tick is strictly later, 1; a bar may begin with it, 0."""


def rows_of(market: Ticks | Bars) -> MarketRows:
    """Make a market ready for `first_rows` and `first_touches`; of ticks the last price is open, high and low."""
    if isinstance(market, Ticks):
        seen_ns = begin_ns = kernel_input(market.event_time_ns, np.int64)
        opens = highs = lows = kernel_input(market.last_price, np.float64)
    else:
        seen_ns, begin_ns = kernel_input(market.end_ns, np.int64), kernel_input(market.start_ns, np.int64)
        opens, highs, lows = (kernel_input(price, np.float64) for price in (market.open, market.high, market.low))
    instrument = kernel_input(market.instrument, np.int32)
    return MarketRows(instrument, seen_ns, begin_ns, opens, highs, lows, int(isinstance(market, Ticks)))


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


def first_touches(market: Ticks | Bars | MarketRows, n_instruments: int, watches: Watches) -> Touches:
    """Find the first row that ends each of many trades, by `barrier_step`.

    The work grows with the rows and with the touches: a row costs one comparison with the nearest prices that are
    watched of its instrument. A market may come in parts: watches without a touch go on in the next one, their rows
    counted from its first.

    Parameters
    ----------
    market : Ticks, Bars or MarketRows
        In its own order; who asks often gives what `rows_of` made of it.
    n_instruments : int
        Length of the universe.
    watches : Watches
        In any order; several may watch one instrument.

    Raises
    ------
    UnknownInstrument
        If an instrument index, of a watch or of a row that was looked at, is outside the universe.
    ValueError
        If the arrays of the watches differ in length, or one has a side that is neither 1 nor -1, a row before the
        first, or a stop that does not lie on the losing side of its target.
    """
    n = len(watches.instrument)
    if any(len(column) != n for column in watches):
        lengths = {name: len(column) for name, column in watches._asdict().items()}
        raise ValueError(f"the arrays of watches differ in length: {lengths}; a watch has one of each")
    rows = market if isinstance(market, MarketRows) else rows_of(market)
    row, outcome, price = np.full(n, -1), np.full(n, NO_TOUCH, dtype=np.int8), np.full(n, np.nan)
    problem, place = _touch(
        rows.instrument,
        rows.open,
        rows.high,
        rows.low,
        kernel_input(watches.instrument, np.int32),
        kernel_input(watches.side, np.int8),
        kernel_input(watches.stop, np.float64),
        kernel_input(watches.target, np.float64),
        kernel_input(watches.from_row, np.int64),
        n_instruments,
        row,
        outcome,
        price,
    )
    if problem == _ROW_UNKNOWN:
        raise _unknown(f"row {place}", rows.instrument[place], n_instruments)
    if problem == _WATCH_UNKNOWN:
        raise _unknown(f"watch {place}", watches.instrument[place], n_instruments)
    if problem:
        name, why = _WRONG_WATCHES[problem]
        raise ValueError(f"watch {place}: {name} {getattr(watches, name)[place]} {why}")
    return Touches(row, outcome, price)


def first_rows(
    market: Ticks | Bars | MarketRows,
    n_instruments: int,
    instrument: NDArray[np.int32],
    time_ns: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Find the row that fills each of many market orders: the first of its instrument that its time allows.

    A tick must be strictly later than the order, a bar must start at or after it. The work grows with the rows from the
    earliest order to the last fill, and with the orders.

    Parameters
    ----------
    market : Ticks, Bars or MarketRows
        In order of ``event_time_ns`` or ``end_ns``; who asks often gives what `rows_of` made of it.
    n_instruments : int
        Length of the universe.
    instrument : array of int32, shape (n_orders,)
        Index of each order's instrument.
    time_ns : array of int64, shape (n_orders,)
        When each order was given.

    Returns
    -------
    array of int64, shape (n_orders,)
        Row of the market; -1: none.

    Raises
    ------
    UnknownInstrument
        If an instrument index, of an order or of a row that was looked at, is outside the universe.
    ValueError
        If the arrays of the orders differ in length.
    """
    if len(instrument) != len(time_ns):
        raise ValueError(f"{len(instrument)} instruments and {len(time_ns)} times; an order has one of each")
    rows = market if isinstance(market, MarketRows) else rows_of(market)
    found = np.full(len(time_ns), -1)
    problem, place = _fill(
        rows.instrument,
        rows.seen_ns,
        rows.begin_ns,
        rows.margin_ns,
        kernel_input(instrument, np.int32),
        kernel_input(time_ns, np.int64),
        n_instruments,
        found,
    )
    if problem == _ROW_UNKNOWN:
        raise _unknown(f"row {place}", rows.instrument[place], n_instruments)
    if problem:
        raise _unknown(f"order {place}", instrument[place], n_instruments)
    return found


def compile_barriers() -> None:
    """Compile the kernels of fills and touches, or load them from numba's cache, so that no first order waits."""
    at = np.zeros(1, dtype=np.int64)
    index = np.zeros(1, dtype=np.int32)
    market = rows_of(Ticks(index, at, np.ones(1), at))
    first_rows(market, 1, index, at)
    first_touches(market, 1, Watches(index, np.ones(1, dtype=np.int8), np.zeros(1), np.full(1, 2.0), at))


def _unknown(who: str, instrument: int, n_instruments: int) -> UnknownInstrument:
    return UnknownInstrument(f"{who} names instrument {instrument}; the universe has 0…{n_instruments - 1}")


_WATCH_UNKNOWN: Final = 1
_WRONG_SIDE: Final = 2
_WRONG_ROW: Final = 3
_WRONG_STOP: Final = 4
_ROW_UNKNOWN: Final = 5
_WRONG_WATCHES: Final = {
    _WRONG_SIDE: ("side", "is neither 1 (long) nor -1 (short)"),
    _WRONG_ROW: ("from_row", "lies before the first row, 0"),
    _WRONG_STOP: ("stop", "is not on the losing side of its target"),
}


@njit(cache=True)
def _outside(instrument, n_instruments):  # type: ignore[no-untyped-def]
    """Give the first place that names an unknown instrument, or -1."""
    for place in range(len(instrument)):
        if instrument[place] < 0 or instrument[place] >= n_instruments:
            return place
    return -1


@njit(cache=True)
def _wrong_watch(side, stop, target, from_row):  # type: ignore[no-untyped-def]
    """Give what is wrong with the watches, 0 if nothing is, and the first place where it is."""
    for place in range(len(side)):
        if side[place] != 1 and side[place] != -1:
            return _WRONG_SIDE, place
    for place in range(len(side)):
        if from_row[place] < 0:
            return _WRONG_ROW, place
    for place in range(len(side)):
        if side[place] * (target[place] - stop[place]) <= 0:
            return _WRONG_STOP, place
    return 0, -1


@njit(cache=True)
def _touch(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    instrument, opens, highs, lows, watched, side, stop, target, from_row, n_instruments, touched, outcome, price,
):  # fmt: skip
    """Write the touches; give what is wrong, 0 if nothing is, and the place where it is."""
    unknown = _outside(watched, n_instruments)
    if unknown >= 0:
        return _WATCH_UNKNOWN, unknown
    problem, place = _wrong_watch(side, stop, target, from_row)
    if problem != 0:
        return problem, place
    by_row = np.argsort(from_row, kind="mergesort")
    newest = np.full(n_instruments, -1)  # a list of what is watched of each instrument
    following = np.full(len(by_row), -1)
    above, below = np.full(n_instruments, np.inf), np.full(n_instruments, -np.inf)  # the nearest prices in it
    begun, open_watches = 0, 0
    for row in range(from_row[by_row[0]] if len(by_row) else len(instrument), len(instrument)):
        while begun < len(by_row) and from_row[by_row[begun]] <= row:
            watch = by_row[begun]
            i = watched[watch]
            following[watch], newest[i] = newest[i], watch
            _narrow(above, below, i, side[watch], stop[watch], target[watch])
            begun, open_watches = begun + 1, open_watches + 1
        if open_watches == 0 and begun == len(by_row):
            break
        i = instrument[row]
        if i < 0 or i >= n_instruments:
            return _ROW_UNKNOWN, row
        if highs[row] < above[i] and lows[row] > below[i]:
            continue
        above[i], below[i] = np.inf, -np.inf
        kept, watch = -1, newest[i]
        while watch >= 0:
            how, at = barrier_step(side[watch], stop[watch], target[watch], opens[row], highs[row], lows[row])
            if how == NO_TOUCH:
                _narrow(above, below, i, side[watch], stop[watch], target[watch])
                kept = watch
            else:
                touched[watch], outcome[watch], price[watch] = row, how, at
                open_watches -= 1
                if kept < 0:
                    newest[i] = following[watch]
                else:
                    following[kept] = following[watch]
            watch = following[watch]
    return 0, -1


@njit(cache=True)
def _narrow(above, below, i, side, stop, target):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Let an instrument's nearest prices take in those of a watch; one that is NaN changes nothing."""
    higher, lower = (target, stop) if side > 0 else (stop, target)
    above[i], below[i] = min(above[i], higher), max(below[i], lower)


@njit(cache=True)
def _fill(instrument, seen_ns, begin_ns, margin_ns, ordered, time_ns, n_instruments, found):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Write the rows; give what is wrong, 0 if nothing is, and the place where it is."""
    unknown = _outside(ordered, n_instruments)
    if unknown >= 0:
        return _WATCH_UNKNOWN, unknown
    waiting = len(ordered)
    if waiting == 0:
        return 0, -1
    earliest = np.full(n_instruments, -1)  # a list of the orders of each instrument, in order of time
    following = np.full(waiting, -1)
    for order in np.argsort(time_ns, kind="mergesort")[::-1]:
        i = ordered[order]
        following[order], earliest[i] = earliest[i], order
    row = np.searchsorted(seen_ns, time_ns.min(), side="right")
    while row < len(instrument) and waiting > 0:
        i = instrument[row]
        if i < 0 or i >= n_instruments:
            return _ROW_UNKNOWN, row
        while earliest[i] >= 0 and time_ns[earliest[i]] + margin_ns <= begin_ns[row]:
            order = earliest[i]
            found[order], earliest[i] = row, following[order]
            waiting -= 1
        row += 1
    return 0, -1


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
