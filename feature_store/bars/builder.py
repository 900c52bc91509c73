"""Ticks become bars: one compiled builder for history and for the live stream.

A time bar covers ``[start_ns, end_ns)`` and is counted from the session's open, so 60-minute bars start at 09:15; the
last one ends at the close. A tick at exactly ``end_ns`` belongs to the next bar. An interval without ticks makes no
bar. A session bar is the time bar as long as the session. A bar is given out as soon as the market (a tick of any
instrument, or a watermark) has passed its end, so that of an illiquid instrument does not wait for its own next tick.

A tick bar holds N ticks of one instrument; the rest of the session's ticks make a last, shorter one that ends at the
close. It starts with its first tick and ends one nanosecond after its last. Where ticks of one instant would make bars
overlap, the later bar is pushed on by as little as it takes: ``start = max(first tick, end before)``,
``end = max(last tick, start) + 1``. Nothing in a bar was known before its end, and ends of an instrument ascend.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store.bars.kernels import (
    BAR_PRICES,
    BAR_WHOLES,
    BEFORE_OPEN,
    CLOSED,
    DECREASES,
    HANDLED,
    HIGH_PRICE,
    IMBALANCE,
    INTERVAL,
    LAST,
    LATE,
    LOW,
    LOW_PRICE,
    NEWEST,
    OPENED,
    OUTSIDE,
    REORDERED,
    REPEATS,
    RESETS,
    SPREAD,
    close_bars,
    day_end,
    step_ticks,
)
from feature_store.market.arrays import kernel_input
from feature_store.market.clocks import BarClock
from feature_store.market.types import DAY_NS, Bars, MarketDataError, Session, Ticks, UnknownInstrument

_SMALL_BATCH = 4096  # ticks whose bars are written to memory that is kept: asking for it costs more than small batches
_NO_PRICES, _NO_QUANTITIES = np.empty(0), np.empty(0, dtype=np.int64)
_NO_QUOTE = (
    kernel_input(_NO_PRICES, np.float64),
    kernel_input(_NO_PRICES, np.float64),
    kernel_input(_NO_QUANTITIES, np.int64),
    kernel_input(_NO_QUANTITIES, np.int64),
)


class BarBuilder:
    """Build bars from ticks in micro-batches of any size, for one session after the other.

    The bars depend on the ticks and their order, and not on how they were cut into batches. The rules, each counted:

    * A tick outside the session is left out. One at or after the close still moves the market's time, unless it is of
      a later day: that is a wrong time, and believing it would make all that follows late.
    * A tick more than the grace behind the newest event time, or behind a watermark, is late and left out.
    * A tick that comes out of order, but within the grace, is put back in its place.
    * Ticks of one instrument and time are real and all count; so does an exact repeat, which adds to ``tick_count``
      only.
    * Day volume counts from 0 at each session's open. One that goes down is ignored while the larger value stands, so
      no bar's volume is negative. Two ticks running at no more than half of the highest, the second above the first,
      are a source that counts anew: from there its count adds to what was traded before.

    Parameters
    ----------
    n_instruments : int
        Length of the universe.
    clock : BarClock
        By what bars are counted.
    grace_ns : int
        How far behind the newest event time a tick may come, nanoseconds; bars close that much later. With 0 ticks
        must come in order, as they do in frames, whose watermark promises that nothing earlier follows.

    Raises
    ------
    ValueError
        If a size is not positive.
    """

    def __init__(self, n_instruments: int, clock: BarClock, *, grace_ns: int = 0) -> None:
        if clock.kind != "session" and clock.size <= 0:
            raise ValueError(f"{clock!r} has no length; a bar needs a positive number of nanoseconds or of ticks")
        if grace_ns < 0:
            raise ValueError(f"grace_ns is {grace_ns}; it must be 0 or more nanoseconds")
        self.n_instruments = n_instruments
        self.clock = clock
        self.grace_ns = grace_ns
        self._session: Session | None = None
        self._scalars = np.zeros(9, dtype=np.int64)
        self._wholes = np.zeros((n_instruments, 8), dtype=np.int64)
        self._prices = np.zeros((n_instruments, 8))
        # a tick closes one bar of its instrument at most, and at a boundary every open bar closes
        self._room = _room(_SMALL_BATCH + n_instruments)
        self._held: Ticks | None = None  # within the grace, in order of event time
        self._ready = _NO_BARS  # closed tick bars that the market has not passed yet
        _load_kernels()

    @property
    def late_ticks(self) -> int:
        """Ticks left out because they came too late."""
        return int(self._scalars[LATE])

    @property
    def ticks_outside_session(self) -> int:
        """Ticks left out because they are outside the session."""
        return int(self._scalars[OUTSIDE])

    @property
    def reordered_ticks(self) -> int:
        """Ticks that came out of order and were put back in their place."""
        return int(self._scalars[REORDERED])

    @property
    def repeated_ticks(self) -> int:
        """Ticks equal to the one before of their instrument: time, price and day volume."""
        return int(self._scalars[REPEATS])

    @property
    def volume_decreases(self) -> int:
        """Ticks whose day volume was below an earlier one of the session."""
        return int(self._scalars[DECREASES])

    @property
    def volume_resets(self) -> int:
        """Times that a source began to count an instrument's day volume anew inside a session."""
        return int(self._scalars[RESETS])

    def step(self, ticks: Ticks, session: Session) -> Bars:
        """Take ticks of a session; give the bars that they closed.

        Parameters
        ----------
        ticks : Ticks
            In order of arrival.
        session : Session
            The session they belong to. A session other than the last one closes what is open and starts afresh.

        Returns
        -------
        Bars
            In order of ``(end_ns, instrument)``; empty while the market passes no bar's end.

        Raises
        ------
        UnknownInstrument
            If an instrument index is outside the universe; no tick of the batch is taken then.
        """
        before = self._open_session(session)
        if len(ticks) == 0:
            return before
        if self.grace_ns == 0:
            closed = self._due(self._take(ticks, session), session)
        else:
            released = self._put_in_order(ticks, session)
            closed = self._take(released, session) if len(released) else _NO_BARS
            closed = self._due(_join(closed, self._close_until(self._horizon_ns(), session)), session)
        return _join(before, closed)

    def advance(self, watermark_ns: int) -> Bars:
        """Close every open bar that ends at or before a watermark; later ticks below it count as late."""
        session = self._session
        if session is None or watermark_ns <= self._scalars[HANDLED]:
            return _NO_BARS
        closed = _NO_BARS
        if self._held is not None and (count := int(np.searchsorted(self._held.event_time_ns, watermark_ns))):
            due, self._held = self._held[:count], self._held[count:]
            closed = self._take(due, session)
        return self._due(_join(closed, self._close_until(watermark_ns, session)), session)

    def snapshot(self) -> dict[str, NDArray[Any]]:
        """Give the whole state as copies of plain arrays; `restore` makes an equal builder of it."""
        session = self._session
        return {
            "clock": np.array(str(self.clock)),
            "grace_ns": np.array(self.grace_ns),
            "session": np.array(
                [] if session is None else [session.date.toordinal(), session.open_ns, session.close_ns], dtype=np.int64
            ),
            "scalars": self._scalars.copy(),
            "wholes": self._wholes.copy(),
            "prices": self._prices.copy(),
            **({} if self._held is None else _stored("held", self._held.with_depth())),
            **_stored("ready", self._ready),
        }

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Take over a state that `snapshot` gave; whatever was here is dropped.

        Raises
        ------
        ValueError
            If it is of another clock, grace or number of instruments.
        """
        theirs = (str(snapshot["clock"]), int(snapshot["grace_ns"]), len(snapshot["wholes"]))
        ours = (str(self.clock), self.grace_ns, self.n_instruments)
        if theirs != ours:
            raise ValueError(
                f"the snapshot is of (clock, grace_ns, instruments) {theirs}, this builder is of {ours}: "
                "build it with the snapshot's, or start without the snapshot"
            )
        session = snapshot["session"].tolist()
        self._session = Session(dt.date.fromordinal(session[0]), *session[1:]) if session else None
        self._scalars, self._wholes = snapshot["scalars"].copy(), snapshot["wholes"].copy()
        self._prices = snapshot["prices"].copy()
        self._held = _restored("held", Ticks, snapshot) if "held.instrument" in snapshot else None
        self._ready = _restored("ready", Bars, snapshot)

    def _bar_ns(self, session: Session) -> int:
        return self.clock.size if self.clock.kind == "time" else session.close_ns - session.open_ns

    def _interval_of(self, time_ns: int, session: Session) -> int:
        bar_ns = self._bar_ns(session)
        if time_ns >= session.close_ns:
            return -((session.open_ns - session.close_ns) // bar_ns)
        return max((time_ns - session.open_ns) // bar_ns, BEFORE_OPEN)

    def _open_session(self, session: Session) -> Bars:
        if session == self._session:
            return _NO_BARS
        left = self.advance(self._session.close_ns) if self._session is not None else _NO_BARS
        self._session, self._held, self._ready = session, None, _NO_BARS
        self._scalars[INTERVAL] = BEFORE_OPEN
        self._scalars[[HANDLED, NEWEST]] = session.open_ns
        self._wholes[:] = 0
        self._wholes[:, [LOW, LAST]] = -1
        return left

    def _take(self, ticks: Ticks, session: Session) -> Bars:
        """Step the kernel over ticks; those that are not in order are late."""
        per_bar = self.clock.size if self.clock.kind == "ticks" else 0
        wholes, prices = self._room if len(ticks) <= _SMALL_BATCH else _room(len(ticks) + self.n_instruments)
        closed = step_ticks(
            kernel_input(ticks.instrument, np.int32),
            kernel_input(ticks.event_time_ns, np.int64),
            kernel_input(ticks.last_price, np.float64),
            kernel_input(ticks.day_volume, np.int64),
            *(_quote(ticks) if ticks.bid_price is not None else _NO_QUOTE),
            session.open_ns,
            session.close_ns,
            self._bar_ns(session),
            per_bar,
            self._scalars,
            self._wholes,
            self._prices,
            wholes,
            prices,
        )
        if closed < 0:
            raise self._unknown_instrument()
        return _bars(wholes, prices, closed) if closed else _NO_BARS

    def _unknown_instrument(self) -> UnknownInstrument:
        return UnknownInstrument(
            f"a tick names an instrument index outside 0…{self.n_instruments - 1}; "
            "build ticks and BarBuilder from the same universe"
        )

    def _close_until(self, time_ns: int, session: Session) -> Bars:
        closed, interval = _NO_BARS, self._interval_of(time_ns, session)
        if interval > self._scalars[INTERVAL]:
            wholes, prices = self._room
            end_ns = session.open_ns + (int(self._scalars[INTERVAL]) + 1) * self._bar_ns(session)
            count = close_bars(min(end_ns, session.close_ns), self._wholes, self._prices, 0, wholes, prices)
            closed = _bars(wholes, prices, count)
            self._scalars[INTERVAL] = interval
        self._scalars[HANDLED] = max(self._scalars[HANDLED], time_ns)
        return closed

    def _due(self, closed: Bars, session: Session) -> Bars:
        """Keep tick bars back until the market has passed their end: a bar of the same end may follow."""
        if self.clock.kind != "ticks":
            return closed
        bars = _join(self._ready, closed)
        if len(bars) == 0:
            return bars
        bars = bars[np.lexsort((bars.instrument, bars.end_ns))]
        handled_ns = int(self._scalars[HANDLED])
        over = handled_ns >= session.close_ns  # no bar can follow, even where one was pushed on beyond the close
        count = len(bars) if over else int(np.searchsorted(bars.end_ns, handled_ns, side="right"))
        self._ready = bars[count:]
        return bars[:count]

    def _horizon_ns(self) -> int:
        return max(int(self._scalars[HANDLED]), int(self._scalars[NEWEST]) - self.grace_ns)

    def _put_in_order(self, ticks: Ticks, session: Session) -> Ticks:
        """Hold ticks back for the grace; give those whose turn it is, in order of event time."""
        if ticks.instrument.min() < 0 or ticks.instrument.max() >= self.n_instruments:
            raise self._unknown_instrument()
        scalars, of_the_day = self._scalars, ticks.event_time_ns < day_end(session.close_ns)
        if not of_the_day.all():
            scalars[OUTSIDE] += np.count_nonzero(~of_the_day)
            ticks = ticks[of_the_day]
        time_ns = ticks.event_time_ns
        newest_before = np.maximum.accumulate(np.concatenate([scalars[[NEWEST]], time_ns]))[:-1]
        inside = (time_ns >= session.open_ns) & (time_ns < session.close_ns)
        late = inside & (time_ns < np.maximum(newest_before - self.grace_ns, scalars[HANDLED]))
        kept = inside & ~late
        scalars[OUTSIDE] += np.count_nonzero(~inside)
        scalars[LATE] += np.count_nonzero(late)
        scalars[REORDERED] += np.count_nonzero(kept & (time_ns < newest_before))
        scalars[NEWEST] = max(int(scalars[NEWEST]), int(time_ns.max(initial=0)))
        together = ticks[kept]
        if self._held is not None and len(self._held):
            alike = self._held.has_depth == together.has_depth
            parts = (self._held, together) if alike else (self._held.with_depth(), together.with_depth())
            together = Ticks.concatenate(parts)
        together = together[np.argsort(together.event_time_ns, kind="stable")]
        count = int(np.searchsorted(together.event_time_ns, self._horizon_ns()))
        self._held = together[count:]
        return together[:count]


def bars_of_session(ticks: Ticks, session: Session, n_instruments: int, clock: BarClock) -> Bars:
    """Build all bars of a whole session from its ticks; equal, bit for bit, to any cut into micro-batches."""
    builder = BarBuilder(n_instruments, clock)
    return Bars.concatenate([builder.step(ticks, session), builder.advance(session.close_ns)])


def aggregate_bars(bars: Bars, session: Session, n_instruments: int, clock: BarClock) -> Bars:
    """Build longer bars of a session from shorter ones; equal to building them from the ticks, bit for bit.

    Parameters
    ----------
    bars : Bars
        Time bars of one session whose boundaries include those of the longer bars.
    clock : BarClock
        A time or session clock. The quote columns take the last value in the interval that is there.

    Raises
    ------
    MarketDataError
        If a bar lies outside the session, or across a boundary of the longer bars, or the clock counts ticks.
    """
    if clock.kind == "ticks":
        raise MarketDataError(f"bars of {clock.size} ticks cannot be made of bars; build them from ticks")
    bar_ns = clock.size if clock.kind == "time" else session.close_ns - session.open_ns
    interval = (bars.start_ns - session.open_ns) // bar_ns
    start_ns = session.open_ns + interval * bar_ns
    end_ns = np.minimum(start_ns + bar_ns, session.close_ns)
    outside = (interval < 0) | (bars.end_ns > end_ns)
    if outside.any():
        row = int(outside.argmax())
        raise MarketDataError(
            f"bar {row} of the session {session.date} covers {bars.start_ns[row]}…{bars.end_ns[row]}, which is in no "
            f"single bar of {clock.short}: give bars of this session, on a clock that divides {clock.short}"
        )
    order = np.lexsort((bars.start_ns, bars.instrument, interval))
    if len(order) == 0:
        return bars
    ordered = bars[order]
    key = interval[order] * n_instruments + ordered.instrument
    first = np.flatnonzero(np.diff(key, prepend=key[0] - 1))
    last = np.append(first[1:], len(key)) - 1
    quoted = np.where(np.isnan(ordered.spread_bps), -1, np.arange(len(key)))
    quoted = np.maximum.reduceat(quoted, first)
    has_quote = quoted >= 0
    return Bars(
        instrument=ordered.instrument[first],
        start_ns=start_ns[order][first],
        end_ns=end_ns[order][first],
        open=ordered.open[first],
        high=np.maximum.reduceat(ordered.high, first),
        low=np.minimum.reduceat(ordered.low, first),
        close=ordered.close[last],
        volume=np.add.reduceat(ordered.volume, first),
        tick_count=np.add.reduceat(ordered.tick_count, first, dtype=np.int32),
        spread_bps=np.where(has_quote, ordered.spread_bps[quoted], np.nan),
        imbalance=np.where(has_quote, ordered.imbalance[quoted], np.nan),
    )


@cache
def _load_kernels() -> None:
    """Have the steps compiled, or loaded from disk, by whoever builds a builder and not by its first ticks."""
    scalars, wholes, prices = np.zeros(9, dtype=np.int64), np.zeros((0, 8), dtype=np.int64), np.zeros((0, 8))
    no_ticks = (kernel_input(np.empty(0), kind) for kind in (np.int32, np.int64, np.float64, np.int64))
    step_ticks(*no_ticks, *_NO_QUOTE, 0, DAY_NS, DAY_NS, 0, scalars, wholes, prices, *_room(0))
    close_bars(0, wholes, prices, 0, *_room(0))


def _room(n: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    return np.empty((BAR_WHOLES, n), dtype=np.int64), np.empty((BAR_PRICES, n))


def _bars(wholes: NDArray[np.int64], prices: NDArray[np.float64], count: int) -> Bars:
    wholes, prices = wholes[:, :count].copy(), prices[:, :count].copy()
    return Bars(
        instrument=wholes[0].astype(np.int32),
        start_ns=wholes[1],
        end_ns=wholes[2],
        open=prices[OPENED],
        high=prices[HIGH_PRICE],
        low=prices[LOW_PRICE],
        close=prices[CLOSED],
        volume=wholes[3],
        tick_count=wholes[4].astype(np.int32),
        spread_bps=prices[SPREAD],
        imbalance=prices[IMBALANCE],
    )


_NO_BARS = _bars(*_room(0), 0)


def _join(first: Bars, second: Bars) -> Bars:
    if len(first) == 0:
        return second
    return Bars.concatenate([first, second]) if len(second) else first


def _quote(ticks: Ticks) -> tuple[NDArray[Any], ...]:
    return (
        kernel_input(ticks.bid_price, np.float64),  # type: ignore[arg-type]  # all four are there, or none
        kernel_input(ticks.ask_price, np.float64),  # type: ignore[arg-type]
        kernel_input(ticks.bid_quantity, np.int64),  # type: ignore[arg-type]
        kernel_input(ticks.ask_quantity, np.int64),  # type: ignore[arg-type]
    )


def _stored(prefix: str, table: Ticks | Bars) -> dict[str, NDArray[Any]]:
    return {f"{prefix}.{f.name}": getattr(table, f.name).copy() for f in fields(table)}


def _restored(prefix: str, kind: type[Any], snapshot: Mapping[str, NDArray[Any]]) -> Any:
    return kind(*(snapshot[f"{prefix}.{f.name}"].copy() for f in fields(kind)))
