"""Ticks become bars: one compiled builder for history and for the live stream.

A bar covers ``[start_ns, end_ns)``; bars are counted from the session's open, so 60-minute bars start at 09:15. A tick
at exactly ``end_ns`` belongs to the next bar. A boundary closes the bars of every instrument at once, passed by a tick
of any instrument or by a watermark. An interval without ticks makes no bar.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feature_store.kernels import kernel_input
from feature_store.market import Bars, Session, Ticks, UnknownInstrument

_INTERVAL, _LATE, _OUTSIDE, _DECREASES = range(4)  # places in the counter array
_BEFORE_OPEN = -1  # the interval of a session that has seen nothing
_NEVER = np.iinfo(np.int64).max


class BarBuilder:
    """Build time bars from ticks in micro-batches of any size, for one session after the other.

    The bars depend on the ticks and not on how they were cut into batches.

    Parameters
    ----------
    n_instruments : int
        Length of the universe.
    bar_ns : int
        Length of a bar, nanoseconds. The last bar of a session ends at its close even when it is shorter.

    Attributes
    ----------
    late_ticks : int
        Ticks of an interval that had already closed; they are left out.
    ticks_outside_session : int
        Ticks before the open, or at or after the close; they are left out.
    volume_decreases : int
        Ticks whose day volume was below an earlier one of the session; the larger value stands, so no bar's volume is
        ever negative.
    """

    def __init__(self, n_instruments: int, bar_ns: int) -> None:
        if bar_ns <= 0:
            raise ValueError(f"bar_ns is {bar_ns}; a bar must have a positive length in nanoseconds")
        self.n_instruments = n_instruments
        self.bar_ns = bar_ns
        self._session: Session | None = None
        self._counters = np.zeros(4, dtype=np.int64)
        self._prices = np.zeros((4, n_instruments))  # open, high, low, close of the open bar
        self._volumes = np.zeros((2, n_instruments), dtype=np.int64)  # day volume at the last closed bar, and now
        self._tick_count = np.zeros(n_instruments, dtype=np.int32)  # 0: no open bar

    @property
    def late_ticks(self) -> int:
        """Ticks left out because their interval had closed."""
        return int(self._counters[_LATE])

    @property
    def ticks_outside_session(self) -> int:
        """Ticks left out because they are outside the session."""
        return int(self._counters[_OUTSIDE])

    @property
    def volume_decreases(self) -> int:
        """Ticks whose day volume went down."""
        return int(self._counters[_DECREASES])

    def step(self, ticks: Ticks, session: Session) -> Bars:
        """Take ticks of a session; give the bars that they closed.

        Parameters
        ----------
        ticks : Ticks
            In order of event time.
        session : Session
            The session they belong to. A session other than the last one closes what is open and starts afresh.

        Returns
        -------
        Bars
            In order of ``(end_ns, instrument)``; empty while no boundary is passed.

        Raises
        ------
        UnknownInstrument
            If an instrument index is outside the universe; the builder is then unusable.
        """
        before = self._open_session(session)
        if len(ticks) == 0:
            return before
        last = self._interval_of(int(ticks.event_time_ns.max()), session)
        passed = max(last - int(self._counters[_INTERVAL]), 0)
        out = _NO_BARS
        if passed:
            open_bars = int(np.count_nonzero(self._tick_count))
            out = _empty_bars(min(len(ticks) + open_bars, passed * self.n_instruments))
        closed = _step_ticks(
            kernel_input(ticks.instrument, np.int32),
            kernel_input(ticks.event_time_ns, np.int64),
            kernel_input(ticks.last_price, np.float64),
            kernel_input(ticks.day_volume, np.int64),
            session.open_ns,
            session.close_ns,
            self.bar_ns,
            self._counters,
            self._prices,
            self._volumes,
            self._tick_count,
            *_arrays(out),
        )
        if closed < 0:
            raise UnknownInstrument(
                f"a tick names an instrument index outside 0…{self.n_instruments - 1}; "
                "build ticks and BarBuilder from the same universe"
            )
        bars = out[:closed]
        return Bars.concatenate([before, bars]) if len(before) else bars

    def advance(self, watermark_ns: int) -> Bars:
        """Close every open bar that ends at or before a watermark; later ticks below it count as late."""
        session = self._session
        if session is None:
            return _NO_BARS
        interval = self._interval_of(watermark_ns, session)
        if interval <= self._counters[_INTERVAL]:
            return _NO_BARS
        out = _empty_bars(int(np.count_nonzero(self._tick_count)))
        closed = _close_bars(
            session.open_ns,
            session.close_ns,
            self.bar_ns,
            self._counters,
            self._prices,
            self._volumes,
            self._tick_count,
            0,
            *_arrays(out),
        )
        self._counters[_INTERVAL] = interval
        return out[:closed]

    def _interval_of(self, time_ns: int, session: Session) -> int:
        if time_ns >= session.close_ns:
            return -((session.open_ns - session.close_ns) // self.bar_ns)
        return max((time_ns - session.open_ns) // self.bar_ns, _BEFORE_OPEN)

    def _open_session(self, session: Session) -> Bars:
        if session == self._session:
            return _NO_BARS
        left = self.advance(self._session.close_ns) if self._session else _NO_BARS
        self._session = session
        self._counters[_INTERVAL] = _BEFORE_OPEN
        self._volumes[:] = 0
        self._tick_count[:] = 0
        return left


def bars_of_session(ticks: Ticks, session: Session, n_instruments: int, bar_ns: int) -> Bars:
    """Build all bars of a whole session from its ticks; equal, bit for bit, to any cut into micro-batches."""
    builder = BarBuilder(n_instruments, bar_ns)
    return Bars.concatenate([builder.step(ticks, session), builder.advance(session.close_ns)])


def aggregate_bars(bars: Bars, session: Session, n_instruments: int, bar_ns: int) -> Bars:
    """Build longer bars of a session from shorter ones; equal to building them from the ticks.

    Parameters
    ----------
    bars : Bars
        Bars of one session whose boundaries include those of the longer bars.
    bar_ns : int
        Length of the longer bars, nanoseconds.
    """
    interval = (bars.start_ns - session.open_ns) // bar_ns
    order = np.lexsort((bars.start_ns, bars.instrument, interval))
    if len(order) == 0:
        return bars
    ordered = bars[order]
    key = interval[order] * n_instruments + ordered.instrument
    first = np.flatnonzero(np.diff(key, prepend=key[0] - 1))
    last = np.append(first[1:], len(key)) - 1
    start_ns = session.open_ns + interval[order][first] * bar_ns
    return Bars(
        instrument=ordered.instrument[first],
        start_ns=start_ns,
        end_ns=np.minimum(start_ns + bar_ns, session.close_ns),
        open=ordered.open[first],
        high=np.maximum.reduceat(ordered.high, first),
        low=np.minimum.reduceat(ordered.low, first),
        close=ordered.close[last],
        volume=np.add.reduceat(ordered.volume, first),
        tick_count=np.add.reduceat(ordered.tick_count, first, dtype=np.int32),
    )


def _empty_bars(n: int) -> Bars:
    return Bars(
        instrument=np.empty(n, dtype=np.int32),
        start_ns=np.empty(n, dtype=np.int64),
        end_ns=np.empty(n, dtype=np.int64),
        open=np.empty(n),
        high=np.empty(n),
        low=np.empty(n),
        close=np.empty(n),
        volume=np.empty(n, dtype=np.int64),
        tick_count=np.empty(n, dtype=np.int32),
    )


_NO_BARS = _empty_bars(0)


def _arrays(bars: Bars) -> tuple[NDArray[np.generic], ...]:
    return (
        bars.instrument,
        bars.start_ns,
        bars.end_ns,
        bars.open,
        bars.high,
        bars.low,
        bars.close,
        bars.volume,
        bars.tick_count,
    )


@njit(cache=True)
def _close_bars(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    open_ns, close_ns, bar_ns, counters, prices, volumes, tick_count, at,
    instrument, start, end, opens, highs, lows, closes, volume, count,
):  # fmt: skip
    start_ns = open_ns + counters[_INTERVAL] * bar_ns
    for i in range(len(tick_count)):
        if tick_count[i] == 0:
            continue
        instrument[at] = i
        start[at] = start_ns
        end[at] = min(start_ns + bar_ns, close_ns)
        opens[at], highs[at], lows[at], closes[at] = prices[0, i], prices[1, i], prices[2, i], prices[3, i]
        volume[at] = volumes[1, i] - volumes[0, i]
        count[at] = tick_count[i]
        volumes[0, i] = volumes[1, i]
        tick_count[i] = 0
        at += 1
    return at


@njit(cache=True)
def _step_ticks(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    tick_instrument, event_time_ns, last_price, day_volume,
    open_ns, close_ns, bar_ns, counters, prices, volumes, tick_count,
    instrument, start, end, opens, highs, lows, closes, volume, count,
):  # fmt: skip
    at = 0
    interval, last = counters[_INTERVAL], -((open_ns - close_ns) // bar_ns)
    boundary = _NEVER if interval == last else min(open_ns + (interval + 1) * bar_ns, close_ns)
    for t in range(len(event_time_ns)):
        i, now, price = tick_instrument[t], event_time_ns[t], last_price[t]
        if i < 0 or i >= len(tick_count):
            return -1
        if now >= boundary:
            at = _close_bars(
                open_ns, close_ns, bar_ns, counters, prices, volumes, tick_count, at,
                instrument, start, end, opens, highs, lows, closes, volume, count,
            )  # fmt: skip
            interval = last if now >= close_ns else (now - open_ns) // bar_ns
            boundary = _NEVER if interval == last else min(open_ns + (interval + 1) * bar_ns, close_ns)
            counters[_INTERVAL] = interval
        if now < open_ns or now >= close_ns:
            counters[_OUTSIDE] += 1
            continue
        if now < open_ns + interval * bar_ns:
            counters[_LATE] += 1
            continue
        if tick_count[i] == 0:
            prices[0, i], prices[1, i], prices[2, i] = price, price, price
        else:
            prices[1, i] = max(prices[1, i], price)
            prices[2, i] = min(prices[2, i], price)
        prices[3, i] = price
        tick_count[i] += 1
        if day_volume[t] < volumes[1, i]:
            counters[_DECREASES] += 1
        else:
            volumes[1, i] = day_volume[t]
    return at
