"""Market data from Parquet and CSV files; what cannot be used is quarantined with its row and reason, never dropped.

Columns are found by name, whatever their case: ``timestamp|datetime|time|date``, ``symbol|tradingsymbol``, for bars
``open, high, low, close, volume`` (and ``ticks|tick_count`` if there is one), for ticks ``ltp|last_price|price`` and
``volume|day_volume|volume_traded`` (shares since the session's open). Bars are START-stamped. Times without a zone are
Asia/Kolkata. Sessions are regular ones, 09:15 to 15:30 IST, of the dates that the data has.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_store.files import FileTable, read_file
from feature_store.market import MINUTE_NS, Bars, Session, Ticks, Universe
from feature_store.synthetic import SyntheticMarket, synthetic_market

__all__ = ["Quarantine", "SourceBars", "SourceTicks", "SyntheticMarket", "by_session", "known_sessions", "read_bars",
           "read_ticks", "synthetic_market"]  # fmt: skip

_IST_OFFSET_NS = 19_800_000_000_000
_DAY_NS = 86_400_000_000_000
_REGULAR = Session.regular(dt.date(1970, 1, 1))  # its times since the epoch, moved by the offset, are times of day
_OPEN_NS, _CLOSE_NS = _REGULAR.open_ns + _IST_OFFSET_NS, _REGULAR.close_ns + _IST_OFFSET_NS

_TIME = ("timestamp", "datetime", "time", "date")
_SYMBOL = ("symbol", "tradingsymbol")
_BAR_COLUMNS = {
    "time": _TIME,
    "symbol": _SYMBOL,
    "open": ("open",),
    "high": ("high",),
    "low": ("low",),
    "close": ("close",),
    "volume": ("volume",),
}
_TICK_COLUMNS = {
    "time": _TIME,
    "symbol": _SYMBOL,
    "price": ("ltp", "last_price", "price"),
    "volume": ("volume", "day_volume", "volume_traded"),
}

_Table = TypeVar("_Table", Bars, Ticks)


@dataclass
class Quarantine:
    """Rows that were not used."""

    rows: pd.DataFrame
    """``row`` (1 is the first row of data in the file), ``reason``, and the row's own values as text."""

    def __len__(self) -> int:
        return len(self.rows)

    def counts(self) -> dict[str, int]:
        """Number of rows by reason."""
        return {str(reason): int(n) for reason, n in self.rows["reason"].value_counts().sort_index().items()}


@dataclass(frozen=True, eq=False)
class SourceBars:
    """What a file of bars holds."""

    universe: Universe
    bars: Bars
    quarantine: Quarantine
    bar_ns: int
    """Length of a bar; the commonest step between bars of a symbol."""


@dataclass(frozen=True, eq=False)
class SourceTicks:
    """What a file of ticks holds."""

    universe: Universe
    ticks: Ticks
    quarantine: Quarantine
    volume_decreases: int
    """Ticks, kept, whose day volume is below an earlier one of the session."""


def read_bars(
    path: str | Path, sessions: Sequence[Session | dt.date] | None = None, *, universe: Universe | None = None
) -> SourceBars:
    """Read bars from a Parquet or CSV file.

    Parameters
    ----------
    path : str or Path
        The file.
    sessions : sequence of Session or date, optional
        Read these only; default: all.
    universe : Universe, optional
        Index instruments by this one and quarantine other symbols; default: a universe of the file's symbols.

    Raises
    ------
    UnreadableFile
        If the file is missing, empty, truncated or of another kind.
    MissingColumn
        If a column is missing.
    """
    table = read_file(path, _BAR_COLUMNS, optional={"tick_count": ("tick_count", "ticks")})
    screen = _Screen(table, sessions, universe)
    opens, highs, lows, closes, volume = (table.numbers(c) for c in ("open", "high", "low", "close", "volume"))
    prices = np.stack([opens, highs, lows, closes])
    screen.reject_numbers(prices, volume)
    screen.reject(highs < lows, "high_below_low")
    screen.reject(np.any((prices < lows) | (prices > highs), axis=0), "open_or_close_outside_range")
    screen.reject_outside_session()
    bar_ns = screen.commonest_step_ns()
    screen.reject(screen.since_open_ns % bar_ns != 0, "off_grid")
    screen.reject_out_of_order()
    screen.reject_duplicates()

    kept, universe = screen.kept(), universe or screen.universe_of_symbols(volume)
    start_ns, instrument = screen.time_ns[kept], screen.instrument(universe)[kept]
    end_ns = np.minimum(start_ns + bar_ns, start_ns - screen.since_open_ns[kept] + _CLOSE_NS - _OPEN_NS)
    ticks = np.nan_to_num(table.numbers("tick_count")[kept], posinf=0, neginf=0) if table.has("tick_count") else None
    bars = Bars(
        instrument=instrument,
        start_ns=start_ns,
        end_ns=end_ns,
        open=opens[kept],
        high=highs[kept],
        low=lows[kept],
        close=closes[kept],
        volume=volume[kept].astype(np.int64),
        tick_count=np.zeros(len(kept), dtype=np.int32) if ticks is None else ticks.astype(np.int32),
    )
    return SourceBars(universe, bars[np.lexsort((instrument, end_ns))], screen.quarantine(), bar_ns)


def read_ticks(
    path: str | Path, sessions: Sequence[Session | dt.date] | None = None, *, universe: Universe | None = None
) -> SourceTicks:
    """Read ticks from a Parquet or CSV file; parameters and errors as `read_bars`.

    Ticks of one time keep their order in the file; several ticks of a symbol in one second are real.
    """
    table = read_file(path, _TICK_COLUMNS)
    screen = _Screen(table, sessions, universe)
    price, volume = table.numbers("price"), table.numbers("volume")
    screen.reject_numbers(price[None, :], volume)
    screen.reject_outside_session()
    screen.reject_out_of_order()

    kept, universe = screen.kept(), universe or screen.universe_of_symbols(volume)
    ticks = Ticks(
        instrument=screen.instrument(universe)[kept],
        event_time_ns=screen.time_ns[kept],
        last_price=price[kept],
        day_volume=volume[kept].astype(np.int64),
    )
    ordered = ticks[np.argsort(ticks.event_time_ns, kind="stable")]
    return SourceTicks(universe, ordered, screen.quarantine(), _volume_decreases(ordered))


def known_sessions(table: Bars | Ticks) -> tuple[Session, ...]:
    """Give the regular sessions of the dates that the data has, in order."""
    time_ns = table.start_ns if isinstance(table, Bars) else table.event_time_ns
    days = np.sort(pd.unique((time_ns + _IST_OFFSET_NS) // _DAY_NS))
    return tuple(Session.regular(dt.date(1970, 1, 1) + dt.timedelta(days=int(day))) for day in days)


def by_session(table: _Table) -> Iterator[tuple[Session, _Table]]:
    """Cut bars or ticks, in order of time, into their sessions."""
    time_ns = table.start_ns if isinstance(table, Bars) else table.event_time_ns
    for session in known_sessions(table):
        begin, end = np.searchsorted(time_ns, [session.open_ns, session.close_ns])
        yield session, table[int(begin) : int(end)]


def _volume_decreases(ticks: Ticks) -> int:
    day = (ticks.event_time_ns + _IST_OFFSET_NS) // _DAY_NS
    key = day * (int(ticks.instrument.max(initial=0)) + 1) + ticks.instrument
    return int(np.count_nonzero(_below_earlier(key, ticks.day_volume)))


def _below_earlier(key: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a value is below an earlier one of its key."""
    highest = pd.Series(values).groupby(key, sort=False).cummax().to_numpy()
    return np.asarray(values < highest, dtype=np.bool_)


@dataclass
class _Screen:
    """The first reason, if any, for which each row of a file cannot be used."""

    table: FileTable
    sessions: Sequence[Session | dt.date] | None
    known: Universe | None
    _reasons: list[str] = field(default_factory=lambda: [""])

    def __post_init__(self) -> None:
        self.time_ns, readable = self.table.times("time")
        self._codes, self._symbols = self.table.texts("symbol")
        since_midnight = (self.time_ns + _IST_OFFSET_NS) % _DAY_NS
        self.since_open_ns = since_midnight - _OPEN_NS
        self._day = (self.time_ns + _IST_OFFSET_NS) // _DAY_NS
        self._reason = np.zeros(len(self.time_ns), dtype=np.int8)
        self._wanted = np.ones(len(self.time_ns), dtype=np.bool_)
        if self.sessions is not None:
            dates = [s.date if isinstance(s, Session) else s for s in self.sessions]
            days = np.array([(date - dt.date(1970, 1, 1)).days for date in dates], dtype=np.int64)
            self._wanted = ~readable | np.isin(self._day, days)
        self.reject(~readable, "unreadable_time")
        named = np.array([bool(symbol) for symbol in self._symbols], dtype=np.bool_)
        self.reject(~named[self._codes], "missing_symbol")
        if self.known is not None:
            listed = np.array([s in self.known.index_of_symbol for s in self._symbols], dtype=np.bool_)
            self.reject(~listed[self._codes], "unknown_symbol")

    def reject(self, rows: NDArray[np.bool_] | np.bool_, reason: str) -> None:
        self._reasons.append(reason)
        self._reason[rows & (self._reason == 0)] = len(self._reasons) - 1

    def reject_numbers(self, prices: NDArray[np.float64], volume: NDArray[np.float64]) -> None:
        self.reject(~np.isfinite(prices).all(axis=0) | ~np.isfinite(volume), "not_a_number")
        self.reject(np.any(prices <= 0, axis=0), "non_positive_price")
        self.reject(volume < 0, "negative_volume")
        self.reject(volume >= 2.0**53, "volume_too_large")  # beyond it, a float does not hold each whole number

    def reject_outside_session(self) -> None:
        self.reject((self.since_open_ns < 0) | (self.since_open_ns >= _CLOSE_NS - _OPEN_NS), "outside_session")

    def reject_out_of_order(self) -> None:
        rows = self.kept()
        late = np.zeros(len(self._reason), dtype=np.bool_)
        late[rows] = _below_earlier(self._codes[rows], self.time_ns[rows])
        self.reject(late, "out_of_order")

    def reject_duplicates(self) -> None:
        rows = self.kept()
        repeated = np.zeros(len(self._reason), dtype=np.bool_)
        keys = pd.DataFrame({"symbol": self._codes[rows], "time": self.time_ns[rows]})
        repeated[rows] = keys.duplicated().to_numpy()
        self.reject(repeated, "duplicate_bar")

    def kept(self) -> NDArray[np.intp]:
        return np.flatnonzero((self._reason == 0) & self._wanted)

    def commonest_step_ns(self) -> int:
        rows = self.kept()
        rows = rows[np.lexsort((self.time_ns[rows], self._codes[rows]))]
        same = (np.diff(self._codes[rows]) == 0) & (np.diff(self._day[rows]) == 0)
        steps, counts = np.unique(np.diff(self.time_ns[rows])[same], return_counts=True)
        steps, counts = steps[steps > 0], counts[steps > 0]
        return int(steps[counts.argmax()]) if len(steps) else MINUTE_NS

    def universe_of_symbols(self, volume: NDArray[np.float64]) -> Universe:
        """Build a universe of the symbols with a usable row; those with a space or never a volume are indices."""
        rows = self.kept()
        highest = np.full(len(self._symbols), -1.0)
        np.maximum.at(highest, self._codes[rows], volume[rows])
        present = [(s, v) for s, v in zip(self._symbols, highest, strict=True) if v >= 0]
        untradable = frozenset(symbol for symbol, largest in present if " " in symbol or largest == 0)
        return Universe.from_symbols([symbol for symbol, _ in present], untradable)

    def instrument(self, universe: Universe) -> NDArray[np.int32]:
        index = universe.index_of_symbol
        return np.array([index.get(s, -1) for s in self._symbols], dtype=np.int32)[self._codes]

    def quarantine(self) -> Quarantine:
        rows = np.flatnonzero((self._reason > 0) & self._wanted)
        frame = self.table.text_of(rows)
        frame.insert(0, "row", self.table.row_number[rows])
        frame.insert(1, "reason", [self._reasons[k] for k in self._reason[rows]])
        if len(self.table.malformed):
            malformed = self.table.malformed.assign(reason="malformed_row")
            frame = pd.concat([frame, malformed], ignore_index=True).sort_values("row", ignore_index=True)
        return Quarantine(frame)
