"""The first reason, if any, for which each row of a market data file cannot be used.

Reasons, in the order in which they are looked for
    ``malformed_row`` (too few or too many fields), ``unreadable_time``, ``missing_symbol``, ``unknown_symbol``,
    ``unverified_date`` (beyond the calendar), ``not_a_session`` (no session on that date), ``no_prices`` (of a file
    with columns for each symbol), ``not_a_number``, ``non_positive_price``, ``negative_volume``, ``volume_too_large``;
    for bars ``high_below_low``, ``open_or_close_outside_range``; for ticks ``bad_quote``, ``crossed_quote``; then
    ``outside_session``, ``off_grid``, ``out_of_order``, ``duplicate_bar``.

Out of order
    Of each symbol's rows, in the order of the file, the most rows that are in order of time are kept (a longest
    non-decreasing subsequence); of several equally long, that with the earlier rows. So one wrong time, early or late,
    costs one row. Bars sorted newest first are read backwards.
"""

from __future__ import annotations

import datetime as dt
from bisect import bisect_right
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_store.market.calendar import UnverifiedDate, nse_session
from feature_store.market.clocks import BarClock
from feature_store.market.types import (
    IST_OFFSET_NS,
    MINUTE_NS,
    Session,
    Universe,
    date_of_day,
    day_of_date,
    ist_day,
    ist_time_of_day,
)
from feature_store.sources.quarantine import Quarantine

if TYPE_CHECKING:
    from feature_store.sources.dialects import MarketFile
    from feature_store.sources.mappings import ColumnMapping

_SMALLEST_PRICE = 0.00005  # rupees; features count in 0.0001, so less is nothing there, and would be divided by
_LARGEST_TURNOVER_INR = 1e13  # of a row; far beyond a day of the whole exchange, and sums of 20 such are still exact
_DAILY_STAMPS = (0, IST_OFFSET_NS)  # midnight in Asia/Kolkata, and midnight UTC, as Fyers stamps days


class Screen:
    """The first reason, if any, for which each row of a file cannot be used."""

    def __init__(
        self, file: MarketFile, sessions: Sequence[Session | dt.date] | None, universe: Universe | None
    ) -> None:
        self.table = file.table
        self.time_ns, readable = file.times()
        self._codes, self._symbols = file.symbols()
        self._reasons = [""]
        n = len(self.time_ns)
        self._reason = np.zeros(n, dtype=np.int8)
        self._wanted = np.ones(n, dtype=np.bool_)
        self._day = ist_day(self.time_ns)
        if sessions is not None:
            dates = [s.date if isinstance(s, Session) else s for s in sessions]
            days = np.array([day_of_date(date) for date in dates], dtype=np.int64)
            self._wanted = ~readable | np.isin(self._day, days)
        self.reject(~readable, "unreadable_time")
        named = np.array([bool(symbol) for symbol in self._symbols], dtype=np.bool_)
        self.reject(~named[self._codes], "missing_symbol")
        if universe is not None:
            listed = np.array([s in universe.index_of_symbol for s in self._symbols], dtype=np.bool_)
            self.reject(~listed[self._codes], "unknown_symbol")
        self._find_sessions()

    def _find_sessions(self) -> None:
        place, days = pd.factorize(self._day[self.kept()])
        verified, hours = np.ones(len(days), dtype=np.bool_), np.zeros((2, len(days)), dtype=np.int64)
        for k, day in enumerate(days.tolist()):
            try:
                session = nse_session(date_of_day(day))
            except UnverifiedDate:
                verified[k] = False
                continue
            if session is not None:
                hours[:, k] = session.open_ns, session.close_ns
        self._open_ns, self._close_ns = np.zeros((2, len(self.time_ns)), dtype=np.int64)
        unverified, rows = np.zeros(len(self.time_ns), dtype=np.bool_), self.kept()
        self._open_ns[rows], self._close_ns[rows] = hours[:, place]
        unverified[rows] = ~verified[place]
        self.reject(unverified, "unverified_date")
        self.reject(self._open_ns == 0, "not_a_session")

    def reject(self, rows: NDArray[np.bool_] | np.bool_, reason: str) -> None:
        """Give a reason to rows that have none yet."""
        self._reasons.append(reason)
        self._reason[rows & (self._reason == 0)] = len(self._reasons) - 1

    def reject_numbers(self, prices: NDArray[np.float64], volume: NDArray[np.float64]) -> None:
        """Reject rows whose prices, shape ``(k, n)``, or volume cannot be."""
        if self.table.wide:
            self.reject(np.isnan(prices).all(axis=0), "no_prices")
        self.reject(~np.isfinite(prices).all(axis=0) | ~np.isfinite(volume), "not_a_number")
        self.reject(np.any(prices < _SMALLEST_PRICE, axis=0), "non_positive_price")
        self.reject(volume < 0, "negative_volume")
        with np.errstate(over="ignore", invalid="ignore"):  # infinite, or a row that is rejected above anyway
            turnover = prices.max(axis=0) * volume
        too_large = (volume >= 2.0**53) | (turnover > _LARGEST_TURNOVER_INR)
        self.reject(too_large, "volume_too_large")

    def reject_outside_session(self) -> None:
        """Reject ticks before their session's open, or at or after its close."""
        self.reject((self.time_ns < self._open_ns) | (self.time_ns >= self._close_ns), "outside_session")

    def reject_off_clock(self, layout: ColumnMapping) -> BarClock:
        """Reject bars that are not on their clock, and give the clock."""
        if layout.clock is not None:
            clock = BarClock.parse(layout.clock)
        elif self._is_daily():
            clock = BarClock("session")
        else:
            clock = BarClock("time", 0)
        if clock.kind == "session":
            stamped = np.isin(ist_time_of_day(self.time_ns), _DAILY_STAMPS)
            at = self._close_ns if layout.stamp == "end" else self._open_ns
            self.reject(~stamped & (self.time_ns != at), "off_grid")
            return clock
        later = layout.stamp == "end"
        since_open = self.time_ns - self._open_ns
        length = self._close_ns - self._open_ns
        inside = (since_open > 0) & (since_open <= length) if later else (since_open >= 0) & (since_open < length)
        self.reject(~inside, "outside_session")
        size = clock.size or self._commonest_step_ns()
        self.reject((since_open % size != 0) & ~(later & (since_open == length)), "off_grid")
        return BarClock("time", size)

    def _is_daily(self) -> bool:
        """Whether most rows are stamped at one of the midnights that daily exports use."""
        rows = self.kept()
        stamped = np.isin(ist_time_of_day(self.time_ns[rows]), _DAILY_STAMPS)
        return bool(2 * np.count_nonzero(stamped) > len(rows))

    def intervals(self, clock: BarClock, layout: ColumnMapping) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Start and end of each row's bar; meaningful for the rows that are kept."""
        if clock.kind == "session":
            return self._open_ns, self._close_ns
        start_ns = self.time_ns
        if layout.stamp == "end":  # the last bar of a session may be shorter
            start_ns = self._open_ns + (self.time_ns - self._open_ns - 1) // clock.size * clock.size
        return start_ns, np.minimum(start_ns + clock.size, self._close_ns)

    def reject_out_of_order(self, *, newest_first: bool = False) -> None:
        """Reject the fewest rows so that each symbol's are in order of time; maybe read it backwards."""
        rows = self.kept()
        rows = rows[np.argsort(self._codes[rows], kind="stable")]
        codes, times = self._codes[rows], self.time_ns[rows]
        bounds = np.flatnonzero(np.diff(codes, prepend=-1, append=-1))
        falls = (np.diff(times) < 0) & (np.diff(codes) == 0)
        late = np.zeros(len(self._reason), dtype=np.bool_)
        for k in np.unique(np.searchsorted(bounds, np.flatnonzero(falls), "right") - 1):
            begin, end = bounds[k], bounds[k + 1]
            if newest_first and end - begin > 2 and not np.any(np.diff(times[begin:end]) > 0):
                continue
            late[rows[begin:end][_out_of_order(times[begin:end])]] = True
        self.reject(late, "out_of_order")

    def reject_duplicates(self, start_ns: NDArray[np.int64]) -> None:
        """Reject a bar of a symbol and start that an earlier row has."""
        rows = self.kept()
        repeated = np.zeros(len(self._reason), dtype=np.bool_)
        keys = pd.DataFrame({"symbol": self._codes[rows], "start": start_ns[rows]})
        repeated[rows] = keys.duplicated().to_numpy()
        self.reject(repeated, "duplicate_bar")

    def kept(self) -> NDArray[np.intp]:
        """Rows without a reason, of the sessions that are wanted."""
        return np.flatnonzero((self._reason == 0) & self._wanted)

    def _commonest_step_ns(self) -> int:
        rows = self.kept()
        rows = rows[np.lexsort((self.time_ns[rows], self._codes[rows]))]
        same = (np.diff(self._codes[rows]) == 0) & (np.diff(self._day[rows]) == 0)
        steps, counts = np.unique(np.diff(self.time_ns[rows])[same], return_counts=True)
        steps, counts = steps[steps > 0], counts[steps > 0]
        likelier = np.lexsort((steps, steps % MINUTE_NS != 0, -counts))  # of equally common ones, whole minutes, short
        return int(steps[likelier[0]]) if len(steps) else MINUTE_NS

    def universe_of_symbols(self, volume: NDArray[np.float64]) -> Universe:
        """Build a universe of the symbols with a usable row; those with a space or never a volume are indices."""
        rows = self.kept()
        highest = np.full(len(self._symbols), -1.0)
        np.maximum.at(highest, self._codes[rows], volume[rows])
        present = [(s, v) for s, v in zip(self._symbols, highest, strict=True) if v >= 0]
        untradable = frozenset(symbol for symbol, largest in present if " " in symbol or largest == 0)
        return Universe.from_symbols([symbol for symbol, _ in present], untradable)

    def instrument(self, universe: Universe) -> NDArray[np.int32]:
        """Index in a universe of each row's symbol; -1 for a symbol outside it."""
        index = universe.index_of_symbol
        return np.array([index.get(s, -1) for s in self._symbols], dtype=np.int32)[self._codes]

    def quarantine(self) -> Quarantine:
        """Give the rows that have a reason, as they stand in the file."""
        rows = np.flatnonzero((self._reason > 0) & self._wanted)
        frame = self.table.text_of(rows)
        frame = frame.rename(columns={name: f"{name} in file" for name in ("row", "reason") if name in frame})
        frame.insert(0, "row", self.table.row_number[rows])
        frame.insert(1, "reason", [self._reasons[k] for k in self._reason[rows]])
        if len(self.table.malformed):
            malformed = self.table.malformed.assign(reason="malformed_row")
            frame = pd.concat([frame, malformed], ignore_index=True).sort_values("row", ignore_index=True)
        return Quarantine(frame)


def _out_of_order(times: NDArray[np.int64]) -> NDArray[np.intp]:
    """Places outside a longest non-decreasing subsequence; of several, that of the earlier places is kept.

    Patience sorting, from the end so that earlier places win, in O(n log n): Fredman (1975), "On computing the length
    of longest increasing subsequences", Discrete Mathematics 11.
    """
    backwards = [-t for t in reversed(times.tolist())]  # non-decreasing again
    tops: list[int] = []
    top_places: list[int] = []
    previous = [-1] * len(backwards)
    for place, value in enumerate(backwards):
        pile = bisect_right(tops, value)
        previous[place] = top_places[pile - 1] if pile else -1
        if pile == len(tops):
            tops.append(value)
            top_places.append(place)
        else:
            tops[pile], top_places[pile] = value, place
    inside = np.zeros(len(backwards), dtype=np.bool_)
    place = top_places[-1] if top_places else -1
    while place >= 0:
        inside[place] = True
        place = previous[place]
    return np.flatnonzero(~inside[::-1])
