"""The forward return: what a trade decided at the end of a bar earns before costs, if it is held for the horizon.

Prices are those that the account gets on bars: the order of a decision fills at the open of the instrument's first bar
that starts at or after it (`live_services.domain.account.paper_exchange`). A decision is at the end of its bar. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feature_store.market.arrays import kernel_input
from feature_store.market.types import MINUTE_NS, Bars, MarketDataError, Session, UnknownInstrument, ist_text


class Labels(NamedTuple):
    """The label of each bar as a decision, in the order of the bars; shapes ``(n,)``."""

    forward_return: NDArray[np.float64]
    """Exit price over entry price less 1, as a fraction; NaN where there is no label."""
    entry_ns: NDArray[np.int64]
    """Start of the bar at whose open the label enters; the end of the bar itself where there is no label."""
    label_end_ns: NDArray[np.int64]
    """Start of the bar at whose open it ends, that is, when it was known; the bar's end where there is no label."""


@dataclass(frozen=True)
class ForwardReturn:
    """The return from the next open after a decision to the first open at or after the horizon, in the same session.

    The horizon is ``horizon_bars`` times the length of a bar of session time, counted from the decision. It is not
    counted in the instrument's own bars: one that trades every third minute is held as long as one that trades in each.
    A strategy of the same numbers holds its positions as long (`live_services.domain.strategy.desk`).

    Raises
    ------
    ValueError
        If a number is less than 1. Bars that are counted by ticks or sessions have no length, so no horizon either.
    """

    horizon_bars: int
    bar_minutes: int = 1
    """Length of a bar of the clock that is decided on."""
    exit_minutes_before_close: int = 10
    """The strategy's last exit; a label that would end later is none."""

    def __post_init__(self) -> None:
        for name in ("horizon_bars", "bar_minutes", "exit_minutes_before_close"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} of a label is {getattr(self, name)}; it must be at least 1")

    @property
    def horizon_ns(self) -> int:
        """Session time from the decision to the end of the holding, nanoseconds."""
        return self.horizon_bars * self.bar_minutes * MINUTE_NS

    def last_exit_ns(self, session: Session) -> int:
        """Give the time from which on nothing is held any more.

        Of long bars the last decision before the close may come earlier than the minutes asked for: the last exit is
        at least one bar before the close.
        """
        return session.close_ns - max(self.exit_minutes_before_close, self.bar_minutes) * MINUTE_NS

    def identity(self) -> dict[str, str | int]:
        """Give everything that decides what the label of a row is, as the sidecar has it and the loader compares.

        Version 1 went from the decision bar's close to the close of the instrument's tenth bar after it.
        """
        return {
            "kind": "forward_return",
            "version": 2,
            "entry": "next_open",
            "exit": "first_open_at_or_after_horizon",
            "horizon": "session_time_from_decision",
            "horizon_bars": self.horizon_bars,
            "bar_minutes": self.bar_minutes,
            "exit_minutes_before_close": self.exit_minutes_before_close,
        }

    @property
    def name(self) -> str:
        """The label's name, one for each identity, for example ``forward_return_v2_10x1m_exit10m``."""
        last_exit = f"exit{self.exit_minutes_before_close}m"
        return f"forward_return_v2_{self.horizon_bars}x{self.bar_minutes}m_{last_exit}"

    def of(self, bars: Bars, n_instruments: int, sessions: Sequence[Session]) -> Labels:
        """Label bars: see `forward_return`."""
        return forward_return(bars, n_instruments, sessions, self)


def forward_return(bars: Bars, n_instruments: int, sessions: Sequence[Session], label: ForwardReturn) -> Labels:
    """Label each bar as a decision at its end.

    The label enters at the open of the instrument's first bar that starts at or after the decision, and ends at the
    open of its first bar that starts at or after decision + horizon. There is none if no bar to enter at starts before
    decision + horizon, or if it would end after the last exit of its session, or never.

    Parameters
    ----------
    bars : Bars
        In order of time for each instrument, of length ``label.bar_minutes`` at most.
    n_instruments : int
        Length of the universe.
    sessions : sequence of Session
        Those of the bars, with their own hours (a muhurat session has others); more do no harm.
    label : ForwardReturn
        Horizon and last exit.

    Returns
    -------
    Labels
        A purge removes training rows whose ``[end_ns, label_end_ns]`` overlaps the test period.

    Raises
    ------
    UnknownInstrument
        If an instrument index is outside the universe.
    MarketDataError
        If a bar lies in none of the sessions, or starts before its instrument's one before has ended.
    """
    returns, entry_ns, label_end_ns = np.full(len(bars), np.nan), bars.end_ns.copy(), bars.end_ns.copy()
    status = _label_rows(
        kernel_input(bars.instrument, np.int32),
        kernel_input(bars.start_ns, np.int64),
        kernel_input(bars.end_ns, np.int64),
        kernel_input(bars.open, np.float64),
        kernel_input(last_exits(bars, sessions, label), np.int64),
        label.horizon_ns,
        n_instruments,
        returns,
        entry_ns,
        label_end_ns,
    )
    require_rows(status, bars, n_instruments)
    return Labels(returns, entry_ns, label_end_ns)


def require_rows(status: int, bars: Bars, n_instruments: int) -> None:
    """Raise what a kernel of labels found wrong with the bars: -1 is an index outside the universe, ``-2 - row`` a bar
    that starts before its instrument's one before has ended.
    """
    if status == -1:
        raise UnknownInstrument(f"a bar names an instrument index outside 0…{n_instruments - 1}")
    if status < -1:
        row = -2 - status
        raise MarketDataError(
            f"bar {row} (instrument {bars.instrument[row]}, start {ist_text(int(bars.start_ns[row]))}) starts before "
            "its instrument's bar before it has ended; give the bars of each instrument in order of time, each once"
        )


def last_exits(bars: Bars, sessions: Sequence[Session], label: ForwardReturn) -> NDArray[np.int64]:
    """Give the last exit of each bar's session, shape ``(n,)``.

    Raises
    ------
    MarketDataError
        If a bar lies in none of the sessions.
    """
    ordered = sorted(sessions, key=lambda session: session.open_ns)
    hours = np.array([(s.open_ns, s.close_ns, label.last_exit_ns(s)) for s in ordered], dtype=np.int64).reshape(-1, 3)
    place = np.searchsorted(hours[:, 0], bars.start_ns, side="right") - 1
    outside = (place < 0) if not len(hours) else (place < 0) | (bars.end_ns > hours[place, 1])
    if outside.any():
        row = int(np.flatnonzero(outside)[0])
        raise MarketDataError(
            f"bar {row} ({ist_text(int(bars.start_ns[row]))} to {ist_text(int(bars.end_ns[row]))}) lies in none of the "
            f"{len(hours)} sessions given; give the session of every bar"
        )
    last_exits: NDArray[np.int64] = hours[place, 2]
    return last_exits


@njit(cache=True)
def _label_rows(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    instrument, start_ns, end_ns, opens, last_exit_ns, horizon_ns, n_instruments, returns, entry_ns, label_end_ns,
):  # fmt: skip
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
    ahead = np.zeros(n_instruments, np.int64)  # the exit of the instrument's row before; it never goes back
    for row in range(n):
        i, entry, due_ns = instrument[row], following[row], end_ns[row] + horizon_ns
        at = max(ahead[i], entry)
        while at < n and start_ns[at] < due_ns:
            at = following[at]
        ahead[i] = at
        if at < n and start_ns[entry] < due_ns and start_ns[at] <= last_exit_ns[row]:
            returns[row] = opens[at] / opens[entry] - 1.0
            entry_ns[row], label_end_ns[row] = start_ns[entry], start_ns[at]
    return 0
