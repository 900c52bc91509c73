"""Whose export a file is, told by its header, and how to read one that nobody knows.

``generic``
    Our own names (`feature_store.sources.reading`), or a `ColumnMapping` that says which column is which.
``kite``
    Candles of Kite Connect, ``date,open,high,low,close,volume[,oi]``, ISO times with +0530; ticks by the names of its
    full mode (``exchange_timestamp, last_price, volume_traded``).
``dhan``
    Charts of DhanHQ: ``open,high,low,close,volume,timestamp[,open_interest]`` in epoch seconds; v1 has ``start_Time``.
``fyers``
    History of Fyers v3: epoch seconds first, then open to volume, often headed ``0,1,2,3,4,5``; ``NSE:SBIN-EQ``.
``yfinance``
    ``Date|Datetime,Open,High,Low,Close,[Adj Close,]Volume``, or fields over tickers in two or three lines of header;
    ``SBIN.NS``. ``Close`` is read, not ``Adj Close``: prices that it adjusted itself need no corporate actions.

Sources: kite.trade/docs/connect/v3/historical; dhanhq.co/docs/v2/historical-data; the history call of Fyers API v3; the
files that yfinance and pandas write. Symbols become those of the exchange. A file of one symbol may lack a column for
it: then it is given, or it is the name of the file (``RELIANCE.csv``, ``NSE_SBIN-EQ_5minute.csv``); of a name only an
interval behind a separator is cut off. Epochs are told by their size, a date and a time of day in columns of their own
are joined, and how text is written is told by the file's times (`feature_store.sources.time_formats`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feature_store.market.indices import is_index_name
from feature_store.market.types import MarketDataError, MissingColumn
from feature_store.sources.file_errors import identifying_columns, missing_columns, refuse_several_instruments
from feature_store.sources.files import (
    FileHead,
    FileTable,
    Progress,
    first_value,
    found_columns,
    load,
    plain_name,
    read_head,
)
from feature_store.sources.mappings import ColumnMapping
from feature_store.sources.stamps import Kind, TimeReading, times_of_file
from feature_store.sources.time_formats import epoch_format
from feature_store.sources.times import Times
from feature_store.sources.wide_files import FIELDS, read_wide, wide_columns

_FYERS_POSITIONS = dict(zip(("time", *FIELDS), "012345", strict=True))
_YAHOO_INDICES = {"^NSEI": "NIFTY 50", "^NSEBANK": "NIFTY BANK"}
_FYERS_SYMBOL = re.compile(r"NSE[:_](?P<symbol>.+?)(?:-(?:EQ|BE|INDEX))?$")
_SUFFIXES = re.compile(r"(?:\.csv|\.csv\.gz|\.parquet)$", re.IGNORECASE)
_LENGTH = (
    r"(?:[_-](?:\d+(?:(?i:minute|min|hour|day)|[mhHdD])|(?i:minute|hour|day|daily))|_(?:D|1|2|3|5|10|15|30|45|60))"
)
_INTERVAL = re.compile(f"{_LENGTH}$")
_FILE_SYMBOL = re.compile(rf"(?:NSE[_-])?(?P<symbol>(?=[0-9&-]*[A-Z])[A-Z0-9][A-Z0-9&-]*?)(?:-EQ)?(?:\.NS)?{_LENGTH}?")
_NO_SYMBOLS = frozenset({
    "ALL", "BARS", "BHAVCOPY", "BSE", "CANDLES", "DAILY", "DATA", "EQUITIES", "EXPORT", "FNO", "HISTORICAL", "HISTORY",
    "INTRADAY", "MARKET", "MINUTE", "NSE", "OHLC", "OHLCV", "OUTPUT", "PRICES", "SAMPLE", "STOCKS", "TEST", "TICKS",
    "TRADES", "UNIVERSE",
})  # fmt: skip
"""What people call files of many instruments."""
_SEGMENTS = frozenset({"EQ", "EQUITY", "INDEX", "INDICES", "STOCK", "FUT", "FUTSTK", "FUTIDX", "OPTSTK", "OPTIDX"})
LOOSE_SYMBOL_COLUMNS: Final = ("name", "stock_name", "code", "instrument_key")
"""Columns that hold symbols in some files, and in others something else."""
_SYMBOL_LIKE = re.compile(r"(?=.*[A-Z])[A-Z0-9&.:^_|-]+")
_DATES: Final = ("date", "dtyyyymmdd", "trade_date", "trading_date", "tradedate")
_TIMES_OF_DAY: Final = ("time", "trade_time", "trading_time", "tradetime", "time_of_day")
_DATE_ALONE = re.compile(
    r"(?:\d{4}-?\d{2}-?\d{2}|\d{1,4}[-/.]\d{1,2}[-/.]\d{1,4}|\d{1,2}[-/ ]?[A-Za-z]{3,9}[-/ ]?\d{2,4})(?: 00:00:00)?"
)
_TIME_OF_DAY = re.compile(r"\d{1,2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?: ?[AaPp][Mm])?|\d{3,6}")


@dataclass(frozen=True, eq=False)
class MarketFile:
    """A file's columns, and how its times and symbols are written."""

    table: FileTable
    dialect: str
    symbol: str | None
    """The one symbol of a file that has no column for it."""
    when: Times
    reading: TimeReading
    """How the times were read."""
    recognised: tuple[str, ...] = ()
    """What was not stated but recognised, or is in doubt, a sentence each."""

    @property
    def layout(self) -> ColumnMapping:
        """As the file was read: what was stated, and what was recognised where nothing was."""
        return self.reading.layout

    def times(self) -> Times:
        """UTC epoch nanoseconds, and which rows could be read."""
        return self.when

    def symbols(self) -> tuple[NDArray[np.intp], list[str]]:
        """Codes and distinct symbols as the exchange writes them."""
        if self.symbol is not None:
            return np.zeros(len(self.table.row_number), dtype=np.intp), [self.symbol]
        codes, values = self.table.texts("symbol")
        cleaned = [exchange_symbol(value, self.dialect) for value in values]
        distinct = sorted(set(cleaned))
        place = np.array([distinct.index(value) for value in cleaned], dtype=np.intp)
        return place[codes], distinct


def exchange_symbol(text: str, dialect: str) -> str:
    """Give a symbol as the exchange writes it, from a dialect's way: ``NSE:SBIN-EQ`` and ``SBIN.NS`` are ``SBIN``."""
    if dialect == "fyers" and (found := _FYERS_SYMBOL.fullmatch(text)):
        return found["symbol"]
    if text.startswith("NSE:") and (found := _FYERS_SYMBOL.fullmatch(text)):
        return found["symbol"]
    return _YAHOO_INDICES.get(text, text.removesuffix(".NS"))


def read_market_file(
    path: str | Path,
    required: Mapping[str, tuple[str, ...]],
    optional: Mapping[str, tuple[str, ...]],
    *,
    mapping: ColumnMapping | Mapping[str, str] | None = None,
    symbol: str | None = None,
    progress: Progress | None = None,
) -> MarketFile:
    """Read the columns of a file of bars or ticks.

    What the mapping states holds; what it leaves open is recognised by the file's header and its times.

    Raises
    ------
    UnreadableFile
        If the file is missing, empty, truncated or of another kind.
    MissingColumn
        If a column is missing, or no symbol can be told.
    MarketDataError
        If the mapping names a column of ours that there is not, a column is there twice, or rows of a file without a
        column for the symbol plainly are of several instruments.
    """
    head = read_head(path)
    stated = mapping if isinstance(mapping, ColumnMapping) else ColumnMapping(mapping or {})
    kind: Kind = "bars" if "open" in required else "ticks"
    if not stated.columns and (wide := wide_columns(head)) is not None:
        table, dialect = read_wide(head, wide, required, progress), "yfinance"
        when, reading = times_of_file(table, stated, kind)
        return MarketFile(table, dialect, None, when, reading, reading.recognised + reading.doubts)
    stated = _of_this_file(head, required, optional, stated)
    dialect, columns = _recognised(head, stated) if kind == "bars" else _recognised_ticks(head)
    names = _names(head, required, optional, {**columns, **stated.columns})
    recognised: tuple[str, ...] = ()
    if symbol is not None or "symbol" not in names:
        names |= identifying_columns(head)
    if symbol is not None:
        names.pop("symbol", None)
    elif "symbol" not in names:
        symbol = _symbol_of_file(head)
        recognised = (f"no column for the symbol: all rows are {symbol}, by the file's name",)
    texts = ("time", "date", "symbol", *identifying_columns(head))
    table = load(head, names, texts, progress=progress)
    when, reading = times_of_file(table, stated, kind)
    if symbol is not None:
        refuse_several_instruments(table, when, kind)
    return MarketFile(table, dialect, symbol, when, reading, recognised + reading.recognised + reading.doubts)


def _of_this_file(
    head: FileHead,
    required: Mapping[str, tuple[str, ...]],
    optional: Mapping[str, tuple[str, ...]],
    stated: ColumnMapping,
) -> ColumnMapping:
    """Give what a mapping says of this file, and refuse what no file can have."""
    known = [*required, *optional, "date"]
    there = {plain_name(name) for name in head.columns}
    if stated.of_several_files:
        fitting = {k: v for k, v in stated.columns.items() if k in known and plain_name(v) in there}
        return replace(stated, columns=fitting)
    unknown = sorted(set(stated.columns) - set(known))
    if unknown:
        raise MarketDataError(
            f"{head.path}: the mapping names {', '.join(map(repr, unknown))}; there are only {', '.join(known)}"
        )
    for ours, theirs in stated.columns.items():
        if plain_name(theirs) not in there:
            raise MissingColumn(
                f"{head.path} has no column {theirs!r}, which the mapping gives for {ours!r}; it has {head.columns}"
            )
    return stated


def _names(
    head: FileHead,
    required: Mapping[str, tuple[str, ...]],
    optional: Mapping[str, tuple[str, ...]],
    columns: Mapping[str, str],
) -> dict[str, str]:
    """The file's name of each of our columns that it has."""
    given = {ours: (plain_name(theirs),) for ours, theirs in columns.items()}
    candidates = {ours: given.get(ours, names) for ours, names in {**required, **optional}.items()}
    if "date" in given:
        candidates["date"] = given["date"]
    elif "time" not in given and (pair := _date_and_time(head)) is not None:
        candidates["date"], candidates["time"] = ((plain_name(name),) for name in pair)
    names = found_columns(head, candidates)
    if "symbol" in names and "symbol" not in given and not _names_instruments(head, names["symbol"]):
        del names["symbol"]
    missing = [ours for ours in required if ours not in names and ours != "symbol"]
    if missing and missing != ["volume"]:  # which indices may lack: `screening` says whether all are
        raise MissingColumn(missing_columns(head, names, {ours: candidates[ours] for ours in missing}))
    return names


def _names_instruments(head: FileHead, column: str) -> bool:
    """Whether a column's first value may be a symbol: not a kind of instrument, nor the name of a company."""
    value = first_value(head, column)
    plainly = plain_name(column) not in LOOSE_SYMBOL_COLUMNS or _SYMBOL_LIKE.fullmatch(value) is not None
    return plainly and value.upper() not in _SEGMENTS


def _date_and_time(head: FileHead) -> tuple[str, str] | None:
    """The columns of the date and of the time of day of a file that has two for them."""
    by_name = {plain_name(name): name for name in reversed(head.columns)}
    if any(name in by_name for name in ("timestamp", "datetime", "exchange_timestamp")):
        return None
    pair = [next((by_name[name] for name in names if name in by_name), None) for names in (_DATES, _TIMES_OF_DAY)]
    if pair[0] is None or pair[1] is None:
        return None
    date, time = (first_value(head, name) for name in pair if name is not None)
    return (pair[0], pair[1]) if _DATE_ALONE.fullmatch(date) and _TIME_OF_DAY.fullmatch(time) else None


def _symbol_of_file(head: FileHead) -> str:
    stem = _SUFFIXES.sub("", head.path.name)
    if "_" not in (whole := _INTERVAL.sub("", stem)) and is_index_name(whole):  # NIFTY 50_minute
        return _YAHOO_INDICES.get(whole, whole)
    found = _FILE_SYMBOL.fullmatch(stem)
    if found is None or found["symbol"] in _NO_SYMBOLS | _SEGMENTS or _DATE_ALONE.fullmatch(found["symbol"]):
        raise MissingColumn(
            f"{head.path} has no column 'symbol' and its name is no symbol; add the column, rename one of its columns "
            f"{head.columns}, say which of them it is (--columns symbol=COLUMN, setting market.columns), name the file "
            "by its symbol (RELIANCE.csv), or give symbol="
        )
    return found["symbol"]


def _recognised_ticks(head: FileHead) -> tuple[str, dict[str, str]]:
    kite = "exchange_timestamp" in {plain_name(name) for name in head.columns}
    return ("kite" if kite else "generic"), {}


def _recognised(head: FileHead, stated: ColumnMapping) -> tuple[str, dict[str, str]]:
    """The dialect of a file of bars with one line of header, and its columns that have names of its own."""
    names = [name.strip() for name in head.columns]
    lower = [name.lower() for name in names]
    there = set(lower)
    has_symbol = bool(there & {"symbol", "tradingsymbol"})
    if "time" not in stated.columns and (epochs := _recognised_epochs(head, lower, has_symbol)) is not None:
        return epochs
    if "Open" in names and "Close" in names and there & {"date", "datetime"} and not has_symbol:
        return "yfinance", {}
    if {"date", "open"} <= set(names) and "timestamp" not in there and (not has_symbol or "tradingsymbol" in there):
        return "kite", {}
    return "generic", {}


def _recognised_epochs(head: FileHead, lower: list[str], has_symbol: bool) -> tuple[str, dict[str, str]] | None:
    """Fyers and Dhan, whose times are numbers; with a symbol of its own scheme, or a name that only they use."""
    if set(_FYERS_POSITIONS.values()) <= set(lower) and _is_epoch(head, lower, "0"):
        return "fyers", _FYERS_POSITIONS
    for name in ("start_time", "epoch", "timestamp", "datetime", "date"):
        theirs = not has_symbol or name in ("start_time", "epoch") or _has_fyers_symbols(head, lower)
        if theirs and _is_epoch(head, lower, name):
            after_prices = "close" in lower and lower.index(name) > lower.index("close")
            return "dhan" if name == "start_time" or after_prices else "fyers", {"time": name}
    return None


def _has_fyers_symbols(head: FileHead, lower: list[str]) -> bool:
    return "symbol" in lower and bool(_FYERS_SYMBOL.fullmatch(first_value(head, head.columns[lower.index("symbol")])))


def _is_epoch(head: FileHead, lower: list[str], name: str) -> bool:
    return name in lower and epoch_format(first_value(head, head.columns[lower.index(name)])) is not None
