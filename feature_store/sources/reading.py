"""Market data from Parquet and CSV files; what cannot be used is quarantined with its row and reason, never dropped.

Columns are found by name, whatever their case: ``timestamp|datetime|time|date`` (or a date and a time of day),
``symbol|ticker|stock_code`` and the like, for bars ``open, high, low, close, volume`` (and ``ticks|tick_count`` if
there is one), for ticks ``ltp|last_price|price`` and ``day_volume|volume_traded|volume`` (shares since the session's
open), and the best quote if all four columns are there (``bid_price, ask_price, bid_quantity, ask_quantity`` and Kite's
names of it). Exports of Kite, Dhan, Fyers and yfinance are recognised (``dialects``); any other file needs a
`ColumnMapping`. Where the times show nothing else (``stamps``) bars are START-stamped, and times without a zone are
Asia/Kolkata. Sessions are those of the exchange's calendar. Daily bars, stamped at midnight, are ``session`` bars from
the open to the close. Rows may stand in any order; what an instrument is, and what of a row must hold, is told in
``screening``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_store.market.calendar import exchange_in_words, nse_session
from feature_store.market.clocks import BarClock
from feature_store.market.types import (
    Bars,
    MarketDataError,
    MissingColumn,
    Session,
    Ticks,
    Universe,
    date_of_day,
    ist_day,
)
from feature_store.sources.dialects import LOOSE_SYMBOL_COLUMNS, read_market_file
from feature_store.sources.files import FileTable, Progress
from feature_store.sources.mappings import ColumnMapping
from feature_store.sources.quarantine import Quarantine
from feature_store.sources.screening import KIND_COLUMNS, Screen
from feature_store.sources.stamps import TimeReading
from feature_store.sources.synthetic import SyntheticMarket, synthetic_market

__all__ = ["BarFile", "BarSource", "ColumnMapping", "Progress", "Quarantine", "SourceBars", "SourceTicks",
           "SyntheticMarket", "TickFile", "TickSource", "by_session", "known_sessions", "read_bars", "read_ticks",
           "synthetic_market"]  # fmt: skip

_TIME = ("timestamp", "datetime", "time", "date")
_SYMBOL = ("symbol", "tradingsymbol", "trading_symbol", "ticker", "stock_code", "stockcode", "scrip", "scrip_name",
           "instrument", "instrument_name", "symbol_name", "stock", "security", "security_name",
           "tckrsymb", *LOOSE_SYMBOL_COLUMNS)  # fmt: skip
_PRICES = ("open", "high", "low", "close")
_BAR_COLUMNS = {
    "time": _TIME,
    "symbol": _SYMBOL,
    "open": ("open",),
    "high": ("high",),
    "low": ("low",),
    "close": ("close",),
    "volume": ("volume", "vol"),
}
_BAR_EXTRAS = {"tick_count": ("tick_count", "ticks"), **KIND_COLUMNS}
_TICK_COLUMNS = {
    "time": ("exchange_timestamp", *_TIME),
    "symbol": _SYMBOL,
    "price": ("ltp", "last_price", "price"),
    "volume": ("day_volume", "volume_traded", "volume"),
}
_QUOTE_COLUMNS = {
    "bid_price": ("bid_price", "best_bid_price", "best_bid", "bid", "depth_buy_0_price", "depth.buy.0.price"),
    "ask_price": ("ask_price", "best_ask_price", "best_ask", "ask", "depth_sell_0_price", "depth.sell.0.price"),
    "bid_quantity": ("bid_quantity", "bid_qty", "best_bid_quantity", "bid_size", "depth_buy_0_quantity",
                     "depth.buy.0.quantity"),
    "ask_quantity": ("ask_quantity", "ask_qty", "best_ask_quantity", "ask_size", "depth_sell_0_quantity",
                     "depth.sell.0.quantity"),
}  # fmt: skip

_Table = TypeVar("_Table", Bars, Ticks)


@dataclass(frozen=True, eq=False)
class SourceBars:
    """What a source of bars holds."""

    universe: Universe
    bars: Bars
    quarantine: Quarantine
    clock: BarClock
    """The bars' clock: the commonest step between bars of a symbol, or ``session`` for daily bars."""
    dialect: str
    """Whose export it is: ``generic``, ``kite``, ``dhan``, ``fyers`` or ``yfinance``."""
    reading: TimeReading
    """How its times were read."""
    recognised: tuple[str, ...] = ()
    """What nobody stated but the file shows (symbol, format, zone, stamp), or leaves open, a sentence each."""
    stated: frozenset[str] = frozenset()
    """Symbols of which the file or the table of instruments says what they are; of the others their name tells it."""
    without_volume: tuple[str, ...] = ()
    """Symbols that are no index and never have a volume."""
    rows_out_of_order: int = 0
    """Rows, kept, that stand after a later one of their symbol; they were sorted."""


@dataclass(frozen=True, eq=False)
class SourceTicks:
    """What a source of ticks holds."""

    universe: Universe
    ticks: Ticks
    quarantine: Quarantine
    volume_decreases: int
    """Ticks, kept, whose day volume is below an earlier one of the session."""
    dialect: str
    """Whose export it is: ``generic`` or ``kite``."""
    reading: TimeReading
    """How its times were read."""
    recognised: tuple[str, ...] = ()
    """As of `SourceBars`."""
    stated: frozenset[str] = frozenset()
    """As in `SourceBars`."""
    without_volume: tuple[str, ...] = ()
    """As in `SourceBars`."""
    rows_out_of_order: int = 0
    """As in `SourceBars`."""


@runtime_checkable
class BarSource(Protocol):
    """A port: where bars come from, a file or a broker's historical candles; it knows its universe and clock."""

    def bars(self, sessions: Sequence[Session | dt.date] | None = None) -> SourceBars:
        """Give the bars of some sessions, or of all; rows that cannot be used are in the quarantine."""
        ...


@runtime_checkable
class TickSource(Protocol):
    """A port: where ticks come from, a file or recorded days; it knows its universe."""

    def ticks(self, sessions: Sequence[Session | dt.date] | None = None) -> SourceTicks:
        """Give the ticks of some sessions, or of all; rows that cannot be used are in the quarantine."""
        ...


@dataclass(frozen=True)
class BarFile:
    """A `BarSource` that is a file; see `read_bars`."""

    path: Path
    universe: Universe | None = None
    instruments: Universe | None = None
    mapping: ColumnMapping | None = None
    symbol: str | None = None

    def bars(self, sessions: Sequence[Session | dt.date] | None = None) -> SourceBars:
        """Read the bars of some sessions, or of all."""
        return read_bars(
            self.path,
            sessions,
            universe=self.universe,
            instruments=self.instruments,
            mapping=self.mapping,
            symbol=self.symbol,
        )


@dataclass(frozen=True)
class TickFile:
    """A `TickSource` that is a file; see `read_ticks`."""

    path: Path
    universe: Universe | None = None
    instruments: Universe | None = None
    mapping: ColumnMapping | None = None
    symbol: str | None = None

    def ticks(self, sessions: Sequence[Session | dt.date] | None = None) -> SourceTicks:
        """Read the ticks of some sessions, or of all."""
        return read_ticks(
            self.path,
            sessions,
            universe=self.universe,
            instruments=self.instruments,
            mapping=self.mapping,
            symbol=self.symbol,
        )


def read_bars(
    path: str | Path,
    sessions: Sequence[Session | dt.date] | None = None,
    *,
    universe: Universe | None = None,
    instruments: Universe | None = None,
    mapping: ColumnMapping | Mapping[str, str] | None = None,
    symbol: str | None = None,
    progress: Progress | None = None,
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
    instruments : Universe, optional
        What is stated of some or all instruments (`dated_tables.read_universe`): it wins over what the file says.
    mapping : ColumnMapping or mapping of str, optional
        How to read a file with names of its own; default: by its header.
    symbol : str, optional
        The symbol of a file of one symbol.
    progress : callable, optional
        Takes how much is read and how much there is.

    Raises
    ------
    UnreadableFile
        If the file is missing, empty, truncated or of another kind.
    MissingColumn
        If a column is missing, or no symbol can be told. Indices alone need no volume.
    CollidingInstruments
        If two symbols have one token.
    MarketDataError
        If a column is of a type that it cannot be, or the mapping is wrong.
    """
    file = read_market_file(path, _BAR_COLUMNS, _BAR_EXTRAS, mapping=mapping, symbol=symbol, progress=progress)
    table, screen = file.table, Screen(file, sessions, universe, instruments)
    prices, volume = _screened_prices(table, screen)
    clock = screen.reject_off_clock(file.layout)
    start_ns, end_ns = screen.intervals(clock, file.layout)
    screen.reject_repeated_bars(start_ns, prices, volume)

    kept, universe = screen.kept(), screen.universe() if universe is None else universe
    instrument = screen.instrument(universe)[kept]
    bars = Bars(
        instrument=instrument,
        start_ns=start_ns[kept],
        end_ns=end_ns[kept],
        **dict(zip(_PRICES, prices[:, kept], strict=True)),
        volume=volume[kept].astype(np.int64),
        tick_count=_counts(table, kept),
    )
    ordered = bars[np.lexsort((instrument, bars.end_ns))]
    return SourceBars(
        universe,
        ordered,
        screen.quarantine(),
        clock,
        file.dialect,
        file.reading,
        file.recognised,
        stated=screen.stated,
        without_volume=screen.without_volume(volume),
        rows_out_of_order=screen.rows_out_of_order(),
    )


def _screened_prices(table: FileTable, screen: Screen) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Give prices, shape ``(4, n)`` in the order of `_PRICES`, and volumes; reject rows where they cannot be."""
    prices, volume = np.stack([table.numbers(name) for name in _PRICES]), screen.volumes(_BAR_COLUMNS["volume"])
    screen.reject_numbers(prices, volume)
    return screen.reject_outside_range(prices), volume


def read_ticks(
    path: str | Path,
    sessions: Sequence[Session | dt.date] | None = None,
    *,
    universe: Universe | None = None,
    instruments: Universe | None = None,
    mapping: ColumnMapping | Mapping[str, str] | None = None,
    symbol: str | None = None,
    progress: Progress | None = None,
) -> SourceTicks:
    """Read ticks from a Parquet or CSV file; parameters and errors as `read_bars`.

    Ticks of one time keep their order in the file; several ticks of a symbol in one second are real. A side of the best
    quote with no price and no quantity is empty.
    """
    extras = _QUOTE_COLUMNS | KIND_COLUMNS
    file = read_market_file(path, _TICK_COLUMNS, extras, mapping=mapping, symbol=symbol, progress=progress)
    table, screen = file.table, Screen(file, sessions, universe, instruments)
    price, volume = table.numbers("price"), screen.volumes(_TICK_COLUMNS["volume"])
    screen.reject_numbers(price[None, :], volume)
    quotes = _quotes(table, screen)
    screen.reject_outside_session()

    universe = screen.universe() if universe is None else universe
    kept, out_of_order = screen.in_order_of_time()
    ticks = Ticks(
        instrument=screen.instrument(universe)[kept],
        event_time_ns=screen.time_ns[kept],
        last_price=price[kept],
        day_volume=volume[kept].astype(np.int64),
        **{name: column[kept] for name, column in quotes.items()},
    )
    return SourceTicks(
        universe,
        ticks,
        screen.quarantine(),
        _volume_decreases(ticks),
        file.dialect,
        file.reading,
        file.recognised,
        stated=screen.stated,
        without_volume=screen.without_volume(volume),
        rows_out_of_order=out_of_order,
    )


def known_sessions(table: Bars | Ticks) -> tuple[Session, ...]:
    """Give the sessions of the exchange on the dates that the data has, in order.

    Raises
    ------
    MarketDataError
        If there was no session on one of the dates.
    """
    days = np.sort(pd.unique(ist_day(_times(table))))
    dates = [date_of_day(day) for day in days.tolist()]
    sessions = [nse_session(date) for date in dates]
    for date, session in zip(dates, sessions, strict=True):
        if session is None:
            raise MarketDataError(
                f"there is data of {date}, on which there was no session; leave that day out. {exchange_in_words()}"
            )
    return tuple(session for session in sessions if session is not None)


def by_session(table: _Table) -> Iterator[tuple[Session, _Table]]:
    """Cut bars or ticks, in order of time, into their sessions; raises as `known_sessions`."""
    time_ns = _times(table)
    for session in known_sessions(table):
        begin, end = np.searchsorted(time_ns, [session.open_ns, session.close_ns])
        yield session, table[int(begin) : int(end)]


def _times(table: Bars | Ticks) -> NDArray[np.int64]:
    return table.start_ns if isinstance(table, Bars) else table.event_time_ns


def _counts(table: FileTable, kept: NDArray[np.intp]) -> NDArray[np.int32]:
    if not table.has("tick_count"):
        return np.zeros(len(kept), dtype=np.int32)
    counts = np.nan_to_num(table.numbers("tick_count", counts=True)[kept], posinf=0, neginf=0)
    return np.clip(counts, 0, np.iinfo(np.int32).max).astype(np.int32)


def _quotes(table: FileTable, screen: Screen) -> dict[str, NDArray[Any]]:
    there = [name for name in _QUOTE_COLUMNS if table.has(name)]
    if not there:
        return {}
    if len(there) < len(_QUOTE_COLUMNS):
        raise MissingColumn(
            f"{table.path} has {', '.join(table.names[name] for name in there)} of the best quote but not "
            f"{', '.join(name for name in _QUOTE_COLUMNS if name not in there)}; give all four columns or none"
        )
    quotes: dict[str, NDArray[Any]] = {}
    for side in ("bid", "ask"):
        price, quantity = table.numbers(f"{side}_price"), table.numbers(f"{side}_quantity")
        empty = (np.isnan(price) | (price == 0)) & (np.isnan(quantity) | (quantity == 0))
        price, quantity = np.where(empty, np.nan, price), np.where(empty, 0.0, quantity)
        good = empty | ((price > 0) & np.isfinite(price) & (quantity >= 0) & (quantity < 2.0**53))
        screen.reject(~good, "bad_quote")
        quotes[f"{side}_price"] = price
        quotes[f"{side}_quantity"] = np.where(good, quantity, 0.0).astype(np.int64)
    screen.reject(quotes["bid_price"] > quotes["ask_price"], "crossed_quote")
    return quotes


def _volume_decreases(ticks: Ticks) -> int:
    key = ist_day(ticks.event_time_ns) * (int(ticks.instrument.max(initial=0)) + 1) + ticks.instrument
    highest = pd.Series(ticks.day_volume).groupby(key, sort=False).cummax().to_numpy()
    return int(np.count_nonzero(ticks.day_volume < highest))
