"""The first reason, if any, for which each row of a market data file cannot be used.

Reasons, in the order in which they are looked for
    ``malformed_row`` (too few or too many fields), ``unreadable_time``, ``missing_symbol``, ``unknown_symbol``,
    ``unverified_date`` (beyond the calendar), ``not_a_session`` (no session on that date), ``no_prices`` (of a file
    with columns for each symbol), ``not_a_number``, ``non_positive_price``, ``negative_volume``, ``price_too_large``,
    ``volume_too_large``, ``turnover_too_large``, ``placeholder_number`` (such as 99999999, which stands for nothing);
    for bars ``high_below_low``, ``open_or_close_outside_range``; for ticks ``bad_quote``, ``crossed_quote``; then
    ``longer_than_a_session`` (bars of weeks and months), ``outside_session``, ``other_bar_length`` (of a symbol among
    shorter bars of others), ``off_grid``, and of several rows for one bar ``several_instruments``, ``superseded_bar``,
    ``duplicate_bar``, ``contradicting_bar`` (`Screen.reject_repeated_bars`).

Indices
    What an instrument is comes from the universe that is given, else from the table of instruments, else from the
    file's own columns, else from its exact name (`feature_store.market.indices`). A volume is nothing that an index
    has: where it is missing or no count it is 0, and a level times a number of shares is no turnover.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_store.market.calendar import UnverifiedDate, nse_session
from feature_store.market.clocks import BarClock
from feature_store.market.indices import STATED_AS_INDEX, is_index_name
from feature_store.market.types import (
    IST_OFFSET_NS,
    MINUTE_NS,
    MissingColumn,
    Session,
    Universe,
    date_of_day,
    day_of_date,
    ist_day,
    ist_time_of_day,
)
from feature_store.sources.dialects import MarketFile, exchange_symbol
from feature_store.sources.file_errors import missing_columns
from feature_store.sources.files import read_head
from feature_store.sources.mappings import ColumnMapping
from feature_store.sources.quarantine import Quarantine

KIND_COLUMNS: Final = {
    "segment": ("segment", "exchange_segment", "exch_seg"),
    "exchange": ("exchange",),
    "instrument_type": ("instrument_type", "instrumenttype"),
    "tradable": ("tradable",),
}
"""Columns in which exports say that an instrument is an index; ``tradable`` is one of Kite's ticks."""

_SMALLEST_PRICE = 0.00005  # rupees; features count in 0.0001, so less is nothing there, and would be divided by
_LARGEST_PRICE_INR = 500_000.0  # three times the dearest share that NSE ever had (MRF, ₹153,000 in June 2025)
_MOST_SHARES = 2.0e10  # of a row; no share has had a day of even 1e10, the cheapest ones have had days of a few 1e9
_LARGEST_TURNOVER_INR = 1e12  # of a row; a usual day of NSE's whole cash market in 2024; sums of 20 are still exact
_COUNTABLE = 2.0**53  # beyond it float64 skips whole numbers
_LIMITS_OF_INTEGERS = (2.0**31 - 1, 2.0**32 - 1)
_NINES = 8  # so many, and a volume is a placeholder: a real one is just that once in 1e8 rows
# none of them is a step of a share's price; larger ones are too large anyway
_PRICE_PLACEHOLDERS = (9999.99, 9999.9999, 99999.9, 99999.99, 99999.9999)
_ROUNDING_INR = 0.00015  # prices are kept to 0.0001 rupee; adjusted prices are rounded column by column
_ENOUGH_DAYS = 3  # with one bar each, for a bar at the open to be the whole session's
_WEEK_OF_SESSIONS = 5  # days between bars of a week or a month; of a session there is a weekend in five at most
_ENOUGH_BARS = 10  # of a symbol, to say of most of them that they are of several instruments
_NEARLY_ALL = 0.9  # of the steps of a symbol's bars: those of a thinly traded one are of many lengths
_SEEN_OFTEN = 3  # times, for a step to be the bars' and not that of one wrong time
_DAILY_STAMPS = (0, IST_OFFSET_NS)  # midnight in Asia/Kolkata, and midnight UTC, as Fyers stamps days


class Screen:
    """The first reason, if any, for which each row of a file cannot be used."""

    def __init__(
        self,
        file: MarketFile,
        sessions: Sequence[Session | dt.date] | None,
        universe: Universe | None,
        instruments: Universe | None,
    ) -> None:
        self.table = file.table
        self.time_ns, readable = file.times()
        self._readable = readable
        self._codes, self._symbols = file.symbols()
        self._instruments = {} if instruments is None else {one.symbol: one for one in instruments.instruments}
        said = _said_to_be_indices(file, self._codes, self._symbols)
        self.stated = frozenset(said | self._instruments.keys()) & set(self._symbols)
        known = self._instruments if universe is None else {one.symbol: one for one in universe.instruments}
        self._is_index = np.array(
            [not known[s].tradable if s in known else s in said or is_index_name(s) for s in self._symbols],
            dtype=np.bool_,
        )
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

    def volumes(self, names: tuple[str, ...]) -> NDArray[np.float64]:
        """Give each row's volume, a column of one of some names; of an index 0 where it is missing or no count.

        Raises
        ------
        MissingColumn
            If there is no such column, and not all instruments are indices.
        """
        if not self.table.has("volume"):
            if self._is_index.all():
                return np.zeros(len(self.time_ns), dtype=np.float64)
            raise MissingColumn(missing_columns(read_head(self.table.path), self.table.names, {"volume": names}))
        volume = self.table.numbers("volume", counts=True)
        if self._is_index.any():
            with np.errstate(invalid="ignore"):
                uncountable = ~((volume >= 0) & (volume < _COUNTABLE))
            volume = np.where(self._is_index[self._codes] & uncountable, 0.0, volume)
        return volume

    def reject_numbers(self, prices: NDArray[np.float64], volume: NDArray[np.float64]) -> None:
        """Reject rows whose prices, shape ``(k, n)``, or volume cannot be, each by bounds of its own."""
        if self.table.wide:
            self.reject(np.isnan(prices).all(axis=0), "no_prices")
        self.reject(~np.isfinite(prices).all(axis=0) | ~np.isfinite(volume), "not_a_number")
        highest = prices.max(axis=0)
        self.reject(np.any(prices < _SMALLEST_PRICE, axis=0), "non_positive_price")
        self.reject(volume < 0, "negative_volume")
        self.reject(highest > _LARGEST_PRICE_INR, "price_too_large")
        shares = ~self._is_index[self._codes]
        self.reject(shares & (volume > _MOST_SHARES), "volume_too_large")
        with np.errstate(over="ignore", invalid="ignore"):  # infinite, or a row that is rejected above anyway
            turnover = highest * volume
        placeholder = _is_placeholder(volume) | np.isin(prices, _PRICE_PLACEHOLDERS).any(axis=0)
        self.reject(shares & placeholder, "placeholder_number")
        self.reject(shares & (turnover > _LARGEST_TURNOVER_INR), "turnover_too_large")

    def reject_outside_range(self, prices: NDArray[np.float64]) -> NDArray[np.float64]:
        """Reject bars whose open, high, low and close, shape ``(4, n)``, are at odds; give them without rounding noise.

        An open or close outside the range by no more than the 0.0001 rupee that features keep is moved into it.
        """
        opens, highs, lows, closes = prices = np.where(np.isfinite(prices), prices, np.nan)  # rejected above anyway
        self.reject(highs - lows < -_ROUNDING_INR, "high_below_low")
        above, below = np.maximum(opens, closes) - highs, lows - np.minimum(opens, closes)
        self.reject(np.maximum(above, below) > _ROUNDING_INR, "open_or_close_outside_range")
        highs = np.maximum(highs, lows)
        return np.stack([np.clip(opens, lows, highs), highs, lows, np.clip(closes, lows, highs)])

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
            self.reject(np.bool_(self._is_of_several_sessions()), "longer_than_a_session")
            stamped = np.isin(ist_time_of_day(self.time_ns), _DAILY_STAMPS)
            self.reject(~stamped & (self.time_ns != self._open_ns) & (self.time_ns != self._close_ns), "off_grid")
            return clock
        later = layout.stamp == "end"
        since_open = self.time_ns - self._open_ns
        length = self._close_ns - self._open_ns
        inside = (since_open > 0) & (since_open <= length) if later else (since_open >= 0) & (since_open < length)
        self.reject(~inside, "outside_session")
        if clock.size:
            size = clock.size
        else:
            rows, steps, codes = self._steps_within_days()
            size = _clock_of_steps(steps, since_open[rows])
            self.reject(np.isin(self._codes, _of_longer_bars(steps, codes, size)), "other_bar_length")
        self.reject((since_open % size != 0) & ~(later & (since_open == length)), "off_grid")
        return BarClock("time", size)

    def _is_daily(self) -> bool:
        """Whether bars are one a session: stamped at the midnights that daily exports use, or at its open or close."""
        rows = self.kept()
        stamped = np.isin(ist_time_of_day(self.time_ns[rows]), _DAILY_STAMPS)
        if 2 * np.count_nonzero(stamped) > len(rows):
            return True
        at_ends = (self.time_ns[rows] == self._open_ns[rows]) | (self.time_ns[rows] == self._close_ns[rows])
        if 2 * np.count_nonzero(at_ends) <= len(rows):
            return False
        times_a_day = self._days_by_symbol()
        return len(times_a_day) >= _ENOUGH_DAYS and bool(times_a_day.max() == 1)

    def _is_of_several_sessions(self) -> bool:
        """Whether bars are of weeks or months."""
        apart = np.diff(self._days_by_symbol().reset_index(), axis=0)
        steps = apart[apart[:, 0] == 0, 1]
        return len(steps) >= _ENOUGH_DAYS - 1 and bool(np.median(steps) >= _WEEK_OF_SESSIONS)

    def _days_by_symbol(self) -> pd.Series[int]:
        """Count distinct times by symbol and day, ascending, in the whole file: no choice of sessions matters."""
        rows = np.flatnonzero(self._readable)
        frame = pd.DataFrame({"symbol": self._codes[rows], "day": self._day[rows], "time": self.time_ns[rows]})
        return frame.groupby(["symbol", "day"])["time"].nunique()

    def intervals(self, clock: BarClock, layout: ColumnMapping) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Start and end of each row's bar; meaningful for the rows that are kept."""
        if clock.kind == "session":
            return self._open_ns, self._close_ns
        start_ns = self.time_ns
        if layout.stamp == "end":  # the last bar of a session may be shorter
            start_ns = self._open_ns + (self.time_ns - self._open_ns - 1) // clock.size * clock.size
        return start_ns, np.minimum(start_ns + clock.size, self._close_ns)

    def reject_repeated_bars(
        self, start_ns: NDArray[np.int64], prices: NDArray[np.float64], volume: NDArray[np.float64]
    ) -> None:
        """Keep one row of several for one bar.

        That with the larger volume wins, for a vendor's later look at a bar has seen more of it: the others are a
        ``superseded_bar``. Of several with the largest volume and equal prices the first is kept, the others are a
        ``duplicate_bar``; if their prices differ nobody can say which is right, and each is a ``contradicting_bar``.
        A symbol most of whose bars are there with several opens and several closes stands for several instruments
        (series of a share, two exchanges, strikes): all its rows are of ``several_instruments``.
        """
        rows = self.kept()
        keys = ["symbol", "start"]
        frame = pd.DataFrame({"row": rows, "symbol": self._codes[rows], "start": start_ns[rows]})
        frame = frame[frame.duplicated(keys, keep=False)]
        if not len(frame):
            return
        of_row = frame["row"].to_numpy()
        looks = {f"price {k}": of_kind[of_row] for k, of_kind in enumerate(prices)}
        frame = frame.assign(volume=volume[of_row], **looks)
        several = self._symbols_of_several(frame, rows)
        self.reject(np.isin(self._codes, several), "several_instruments")
        frame = frame[~frame["symbol"].isin(several)]
        largest = frame[frame["volume"] == frame.groupby(keys)["volume"].transform("max")]
        of_bar = largest.groupby(keys)[list(looks)]
        at_odds = (of_bar.transform("min") != of_bar.transform("max")).any(axis=1)
        alike = largest[~at_odds]
        self._reject_some(frame.drop(largest.index)["row"], "superseded_bar")
        self._reject_some(largest[at_odds]["row"], "contradicting_bar")
        self._reject_some(alike[alike.duplicated(keys)]["row"], "duplicate_bar")

    def _symbols_of_several(self, repeated: pd.DataFrame, rows: NDArray[np.intp]) -> NDArray[np.intp]:
        """Give the codes of symbols of which most bars are repeated with other opens and other closes."""
        of_bar = repeated.groupby(["symbol", "start"])
        looks = of_bar.agg(opens=("price 0", "nunique"), closes=("price 3", "nunique"), rows=("row", "size"))
        apart = ((looks["opens"] > 1) & (looks["closes"] > 1)).groupby("symbol").sum()
        surplus = (looks["rows"] - 1).groupby("symbol").sum()
        bars = pd.Series(np.bincount(self._codes[rows], minlength=len(self._symbols)))[apart.index] - surplus
        return apart.index[(bars >= _ENOUGH_BARS) & (2 * apart > bars)].to_numpy(dtype=np.intp)

    def _reject_some(self, rows: pd.Series[int], reason: str) -> None:
        chosen = np.zeros(len(self._reason), dtype=np.bool_)
        chosen[rows.to_numpy()] = True
        self.reject(chosen, reason)

    def rows_out_of_order(self) -> int:
        """Count the kept rows that are earlier than the row of their symbol before them."""
        return int(np.count_nonzero(self._steps_by_symbol()[2]))

    def in_order_of_time(self) -> tuple[NDArray[np.intp], int]:
        """Give the kept rows in order of time, and how many were out of it, as `rows_out_of_order` counts.

        Those of one symbol and time stay as they stand in the file; a symbol whose rows stand newest first is read
        backwards.
        """
        kept = self.kept()
        if not np.any(np.diff(self.time_ns[kept]) < 0):
            return kept, 0
        rows, rises, falls = self._steps_by_symbol()
        n, code = len(self._symbols), self._codes[rows[1:]]
        backwards = (np.bincount(code[falls], minlength=n) > 0) & (np.bincount(code[rises], minlength=n) == 0)
        place = np.where(backwards[self._codes[kept]], -kept, kept)
        return kept[np.lexsort((place, self.time_ns[kept]))], int(np.count_nonzero(falls))

    def _steps_by_symbol(self) -> tuple[NDArray[np.intp], NDArray[np.bool_], NDArray[np.bool_]]:
        """Give the kept rows by symbol, and after which of them the time of the symbol rises and falls."""
        rows = self.kept()
        rows = rows[np.argsort(self._codes[rows], kind="stable")]
        steps, same = np.diff(self.time_ns[rows]), np.diff(self._codes[rows]) == 0
        return rows, same & (steps > 0), same & (steps < 0)

    def kept(self) -> NDArray[np.intp]:
        """Rows without a reason, of the sessions that are wanted."""
        return np.flatnonzero((self._reason == 0) & self._wanted)

    def _steps_within_days(self) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.int32]]:
        """Give the kept rows by symbol and time, the steps within a day from one to the next, and whose these are."""
        rows = self.kept()
        rows = rows[np.lexsort((self.time_ns[rows], self._codes[rows]))]
        steps = np.diff(self.time_ns[rows])
        within = (np.diff(self._codes[rows]) == 0) & (np.diff(self._day[rows]) == 0) & (steps > 0)
        return rows, steps[within], self._codes[rows[1:]][within]

    def universe(self) -> Universe:
        """Build a universe of the symbols with a usable row: facts of the table where it has any, else what is told.

        Raises
        ------
        CollidingInstruments
            If two symbols have one token.
        """
        present = np.zeros(len(self._symbols), dtype=np.bool_)
        present[self._codes[self.kept()]] = True
        symbols = [s for s, there in zip(self._symbols, present, strict=True) if there]
        indices = frozenset(s for s, is_index in zip(self._symbols, self._is_index, strict=True) if is_index)
        told = Universe.from_symbols([s for s in symbols if s not in self._instruments], indices)
        return Universe.ordered([*told.instruments, *(self._instruments[s] for s in symbols if s in self._instruments)])

    def without_volume(self, volume: NDArray[np.float64]) -> tuple[str, ...]:
        """Give the symbols that are no index and have usable rows, but never a volume."""
        rows = self.kept()
        highest = np.full(len(self._symbols), -1.0)
        np.maximum.at(highest, self._codes[rows], volume[rows])
        return tuple(s for k, s in enumerate(self._symbols) if highest[k] == 0 and not self._is_index[k])

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


def _said_to_be_indices(file: MarketFile, codes: NDArray[np.intp], symbols: Sequence[str]) -> set[str]:
    """Symbols of which a column of the file, or the way in which the symbol is written, says that they are indices."""
    said = {s for s in symbols if s.upper().endswith("-INDEX") or s.upper().startswith(("^", "NSE_INDEX|"))}
    if file.symbol is None:  # symbols were cut to the exchange's
        _, written = file.table.texts("symbol")
        said |= {exchange_symbol(s, file.dialect) for s in written if s.endswith("-INDEX") or s.startswith("^")}
    for name in KIND_COLUMNS:
        if not file.table.has(name):
            continue
        places, values = file.table.texts(name)
        words = {"FALSE", "NO", "0"} if name == "tradable" else STATED_AS_INDEX
        stated = np.array([value.upper() in words for value in values], dtype=np.bool_)
        if stated.any():
            said |= {symbols[k] for k in np.unique(codes[stated[places]]).tolist()}
    return said


def _is_placeholder(volume: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Whether a volume is what software writes for none: eight nines or more, or the limit of an integer."""
    nines = [10.0**digits - 1.0 for digits in range(_NINES, 12)]
    return np.isin(volume, [*nines, *_LIMITS_OF_INTEGERS])


def _clock_of_steps(steps: NDArray[np.int64], since_open: NDArray[np.int64]) -> int:
    """Give the length of bars from the steps within a day from one to the next, and their times after the open."""
    sizes, counts = np.unique(steps, return_counts=True)
    if not len(sizes):
        return MINUTE_NS
    likelier = np.lexsort((sizes, sizes % MINUTE_NS != 0, -counts))  # of equally common ones, whole minutes, short
    commonest = int(sizes[likelier[0]])
    if 2 * counts.max() > counts.sum():
        return commonest
    # bars of a thinly traded instrument lack those of minutes without a trade: the grid is one that they are all on
    if counts.max() < _SEEN_OFTEN and not np.any(since_open % MINUTE_NS):
        return MINUTE_NS
    shorter = sizes[(sizes == commonest) | ((sizes < commonest) & (counts >= _SEEN_OFTEN))]
    off = [np.count_nonzero(since_open % size) for size in shorter.tolist()]
    return int(shorter[::-1][np.argmin(off[::-1])])


def _of_longer_bars(steps: NDArray[np.int64], codes: NDArray[np.int32], size: int) -> NDArray[np.intp]:
    """Give the codes of symbols whose bars plainly are longer: nearly all of many steps are of one length."""
    n = np.bincount(codes)
    longer = np.flatnonzero((n >= _ENOUGH_BARS) & (np.bincount(codes[steps <= size], minlength=len(n)) == 0))
    plainly = [np.unique(steps[codes == k], return_counts=True)[1].max() > _NEARLY_ALL * n[k] for k in longer]
    return longer[np.array(plainly, dtype=np.bool_)]
