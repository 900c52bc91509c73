"""Bars of a longer clock out of the bars of a running engine, and their rows joined back by event time.

Unlike `aggregate_bars` this sees bars one batch at a time and knows nothing of what is to come: a
longer bar closes with the bar that reaches its end, or, if its last interval made none, with the instrument's next bar.
An instrument's very first longer bar is left out unless it was seen from its start: it may have begun before the run
did, and a run over longer history would have made another bar of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feature_store.market.arrays import compiled_ist_time_of_day, kernel_input
from feature_store.market.clocks import BarClock
from feature_store.market.types import DAY_NS, REGULAR_CLOSE_NS, REGULAR_OPEN_NS, Bars

_NONE = -1


class BarFolder:
    """Fold bars into bars of a longer clock, per instrument, in batches of any size.

    Parameters
    ----------
    n_instruments : int
        Length of the universe.
    clock : BarClock
        A time clock, counted from 09:15 IST and ended by 15:30, or ``session``. Bars of an evening session (muhurat)
        go on in the same count.
    """

    def __init__(self, n_instruments: int, clock: BarClock) -> None:
        self._bar_ns = clock.size if clock.kind == "time" else DAY_NS
        self._times = np.full((n_instruments, 2), _NONE, dtype=np.int64)  # start and end; -1: no open bar
        self._values = np.zeros((n_instruments, 6))  # open, high, low, close, spread, imbalance
        self._counts = np.zeros((n_instruments, 2), dtype=np.int64)  # volume, ticks
        self._left_out = np.full(n_instruments, _NONE, dtype=np.int64)  # start of the first bar, 0 if it is whole

    def step(self, bars: Bars) -> tuple[Bars, NDArray[np.int64]]:
        """Take bars in order of time; give the longer bars they closed.

        Returns
        -------
        closed : Bars
            In the order in which they closed.
        known : ndarray of int64, shape (n,)
            How many of ``closed`` were known at the end of each of ``bars``.
        """
        n = len(bars)
        times = np.empty((2 * n, 2), dtype=np.int64)
        values = np.empty((2 * n, 6))
        counts = np.empty((2 * n, 2), dtype=np.int64)
        instrument, known = np.empty(2 * n, dtype=np.int32), np.empty(n, dtype=np.int64)
        closed = _fold(
            kernel_input(bars.instrument, np.int32),
            kernel_input(np.stack([bars.start_ns, bars.end_ns], axis=1), np.int64),
            kernel_input(
                np.stack([bars.open, bars.high, bars.low, bars.close, bars.spread_bps, bars.imbalance], axis=1),
                np.float64,
            ),
            kernel_input(np.stack([bars.volume, bars.tick_count], axis=1), np.int64),
            self._bar_ns,
            self._times,
            self._values,
            self._counts,
            self._left_out,
            instrument,
            times,
            values,
            counts,
            known,
        )
        columns = np.ascontiguousarray(values[:closed].T)
        folded = Bars(
            instrument=instrument[:closed],
            start_ns=times[:closed, 0].copy(),
            end_ns=times[:closed, 1].copy(),
            open=columns[0],
            high=columns[1],
            low=columns[2],
            close=columns[3],
            volume=counts[:closed, 0].copy(),
            tick_count=counts[:closed, 1].astype(np.int32),
            spread_bps=columns[4],
            imbalance=columns[5],
        )
        return folded, known

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Give a copy of the open bars."""
        return {
            "times": self._times.copy(),
            "values": self._values.copy(),
            "counts": self._counts.copy(),
            "left_out": self._left_out.copy(),
        }

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Go on where a snapshot was taken."""
        self._times[...], self._values[...] = snapshot["times"], snapshot["values"]
        self._counts[...], self._left_out[...] = snapshot["counts"], snapshot["left_out"]


def joined_by_time(  # noqa: PLR0917
    instrument: NDArray[np.int32],
    known: NDArray[np.int64],
    of_closed: NDArray[np.int32],
    rows: NDArray[np.float64],
    warm: NDArray[np.bool_],
    newest: NDArray[np.float64],
    newest_warm: NDArray[np.bool_],
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Give each bar the row of its instrument's newest closed longer bar.

    Parameters
    ----------
    instrument, known
        Of the bars, shape ``(n,)``: whose they are, and how many closed bars were known at their ends.
    of_closed, rows, warm
        Of the closed bars: whose they are, and their feature rows.
    newest, newest_warm
        The newest row by instrument from the batches before; updated.
    """
    joined = np.empty((len(instrument), rows.shape[1]))
    joined_warm = np.empty(len(instrument), dtype=np.bool_)
    _join(kernel_input(instrument, np.int32), known, of_closed, rows, warm, newest, newest_warm, joined, joined_warm)
    return joined, joined_warm


@njit(cache=True)
def _fold(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    instrument, times, values, counts, bar_ns, open_times, open_values, open_counts, left_out,
    out_instrument, out_times, out_values, out_counts, known,
):  # fmt: skip
    at = 0
    for row in range(len(instrument)):
        i, start, end = instrument[row], times[row, 0], times[row, 1]
        midnight = start - compiled_ist_time_of_day(start)
        opening = midnight + REGULAR_OPEN_NS
        longer_start = opening + (start - opening) // bar_ns * bar_ns
        longer_end = longer_start + bar_ns
        if longer_start < midnight + REGULAR_CLOSE_NS < longer_end and start < midnight + REGULAR_CLOSE_NS:
            longer_end = midnight + REGULAR_CLOSE_NS
        if left_out[i] == _NONE:
            left_out[i] = 0 if start == longer_start else longer_start
        if left_out[i] == longer_start:
            known[row] = at
            continue
        if open_times[i, 0] >= 0 and open_times[i, 0] != longer_start:
            out_instrument[at], out_times[at] = i, open_times[i]
            out_values[at], out_counts[at] = open_values[i], open_counts[i]
            open_times[i, 0] = _NONE
            at += 1
        if open_times[i, 0] < 0:
            open_times[i, 0], open_times[i, 1] = longer_start, longer_end
            open_values[i], open_counts[i] = values[row], counts[row]
        else:
            mine = open_values[i]
            mine[1], mine[2], mine[3] = max(mine[1], values[row, 1]), min(mine[2], values[row, 2]), values[row, 3]
            if not np.isnan(values[row, 4]):
                mine[4], mine[5] = values[row, 4], values[row, 5]
            open_counts[i] += counts[row]
        if end >= open_times[i, 1]:
            out_instrument[at], out_times[at] = i, open_times[i]
            out_values[at], out_counts[at] = open_values[i], open_counts[i]
            open_times[i, 0] = _NONE
            at += 1
        known[row] = at
    return at


@njit(cache=True)
def _join(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    instrument, known, of_closed, rows, warm, newest, newest_warm, joined, joined_warm
):  # fmt: skip
    at = 0
    for row in range(len(instrument)):
        while at < known[row]:
            newest[of_closed[at]] = rows[at]
            newest_warm[of_closed[at]] = warm[at]
            at += 1
        joined[row] = newest[instrument[row]]
        joined_warm[row] = newest_warm[instrument[row]]
