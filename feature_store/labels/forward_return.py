"""Labels: what a row of features is asked to foretell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feature_store.market.arrays import kernel_input
from feature_store.market.types import DAY_NS, IST_OFFSET_NS, Bars, UnknownInstrument


@dataclass(frozen=True)
class ForwardReturn:
    """The return from the close of the decision bar to the close ``horizon_bars`` bars later in the same session.

    Bars are counted, not minutes: an instrument's own bars, so one that trades every third minute looks three times as
    far ahead as one that trades in each. Nothing reaches over night.
    """

    horizon_bars: int
    bar_minutes: int = 1
    """Length of a bar of the clock that is decided on."""
    exit_minutes_before_close: int = 10
    """The strategy's last exit; a label that would end later is none."""

    def identity(self) -> dict[str, str | int]:
        """Give everything that decides what the label of a row is, as the sidecar has it and the loader compares."""
        return {
            "kind": "forward_return",
            "version": 1,
            "horizon_bars": self.horizon_bars,
            "bar_minutes": self.bar_minutes,
            "exit_minutes_before_close": self.exit_minutes_before_close,
        }

    @property
    def name(self) -> str:
        """The label's name, for example ``forward_return_10_bars``."""
        return f"forward_return_{self.horizon_bars}_bars"

    def of(self, bars: Bars, n_instruments: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Label bars: see `forward_return`."""
        return forward_return(bars, self.horizon_bars, n_instruments)


def forward_return(bars: Bars, horizon_bars: int, n_instruments: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return from close to close over the instrument's next ``horizon_bars`` bars of the same IST date.

    Parameters
    ----------
    bars : Bars
        In order of time for each instrument.
    horizon_bars : int
        Bars between decision and end of the label, at least 1. Bars are counted, not minutes: where the source has a
        gap the label is longer, and ``label_end_ns`` says so.
    n_instruments : int
        Length of the universe.

    Returns
    -------
    returns : ndarray of float64, shape (n,)
        As a fraction; NaN where the session ends before the horizon.
    label_end_ns : ndarray of int64, shape (n,)
        End of the last bar that the label looks at; the bar's own end where there is no label. A purge removes training
        rows whose ``[end_ns, label_end_ns]`` overlaps the test period.
    """
    if horizon_bars < 1:
        raise ValueError(f"horizon_bars is {horizon_bars}; a label must look at least 1 bar ahead")
    returns = np.full(len(bars), np.nan)
    label_end_ns = bars.end_ns.copy()
    rows = np.zeros((n_instruments, horizon_bars), dtype=np.int64)
    seen = np.zeros(n_instruments, dtype=np.int64)
    date = np.full(n_instruments, -1, dtype=np.int64)
    status = _label_rows(
        kernel_input(bars.instrument, np.int32),
        kernel_input(bars.start_ns, np.int64),
        kernel_input(bars.end_ns, np.int64),
        kernel_input(bars.close, np.float64),
        rows,
        seen,
        date,
        returns,
        label_end_ns,
    )
    if status < 0:
        raise UnknownInstrument(f"a bar names an instrument index outside 0…{n_instruments - 1}")
    return returns, label_end_ns


@njit(cache=True)
def _label_rows(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    instrument, start_ns, end_ns, close, rows, seen, date, returns, label_end_ns,
):  # fmt: skip
    horizon = rows.shape[1]
    for row in range(len(instrument)):
        i = instrument[row]
        if i < 0 or i >= len(seen):
            return -1
        day = (start_ns[row] + IST_OFFSET_NS) // DAY_NS
        if date[i] != day:
            date[i], seen[i] = day, 0
        at = seen[i] % horizon
        if seen[i] >= horizon:
            decision = rows[i, at]
            returns[decision] = close[row] / close[decision] - 1.0
            label_end_ns[decision] = end_ns[row]
        rows[i, at] = row
        seen[i] += 1
    return 0
