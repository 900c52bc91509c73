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
it: then it is given, or it is the name of the file (``RELIANCE.csv``, ``NSE_SBIN-EQ_5minute.csv``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.market.types import MarketDataError, MissingColumn
from feature_store.sources.files import (
    FileHead,
    FileTable,
    Progress,
    first_value,
    load,
    match,
    read_head,
)
from feature_store.sources.mappings import ColumnMapping
from feature_store.sources.times import EPOCH_FORMATS
from feature_store.sources.wide_files import FIELDS, read_wide, wide_columns

_FYERS_POSITIONS = dict(zip(("time", *FIELDS), "012345", strict=True))
_YAHOO_INDICES = {"^NSEI": "NIFTY 50", "^NSEBANK": "NIFTY BANK"}
_FYERS_SYMBOL = re.compile(r"NSE[:_](?P<symbol>.+?)(?:-(?:EQ|BE|INDEX))?$")
_FILE_SYMBOL = re.compile(
    r"(?:NSE[_-])?(?P<symbol>[A-Z0-9][A-Z0-9&-]*?)(?:-EQ)?(?:\.NS)?(?:[_-](?:\d+(?:minute|min|m|h|hour|d)?|minute|hour|day|daily|D))?"
)


@dataclass(frozen=True)
class MarketFile:
    """A file's columns, and how its times and symbols are written."""

    table: FileTable
    dialect: str
    layout: ColumnMapping
    symbol: str | None
    """The one symbol of a file that has no column for it."""

    def times(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """UTC epoch nanoseconds, and which rows could be read."""
        return self.table.times("time", self.layout.time_format, ZoneInfo(self.layout.zone))

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
    if dialect == "yfinance":
        return _YAHOO_INDICES.get(text, text.removesuffix(".NS"))
    return text


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

    Raises
    ------
    UnreadableFile
        If the file is missing, empty, truncated or of another kind.
    MissingColumn
        If a column is missing, or no symbol can be told.
    MarketDataError
        If the mapping names a column of ours that there is not, or a column is there twice.
    """
    head = read_head(path)
    if mapping is None and (wide := wide_columns(head)) is not None:
        return MarketFile(read_wide(head, wide, required, progress), "yfinance", ColumnMapping({}), None)
    if mapping is None:
        dialect, layout = _recognised(head) if "open" in required else _recognised_ticks(head)
    else:
        dialect, layout = "generic", mapping if isinstance(mapping, ColumnMapping) else ColumnMapping(mapping)
    names = _mapped_names(head, required, optional, layout)
    if symbol is not None:
        names.pop("symbol", None)
    elif "symbol" not in names:
        symbol = _symbol_of_file(head)
    return MarketFile(load(head, names, ("time", "symbol"), progress=progress), dialect, layout, symbol)


def _mapped_names(
    head: FileHead,
    required: Mapping[str, tuple[str, ...]],
    optional: Mapping[str, tuple[str, ...]],
    layout: ColumnMapping,
) -> dict[str, str]:
    unknown = sorted(set(layout.columns) - set(required) - set(optional))
    if unknown:
        raise MarketDataError(
            f"{head.path}: the mapping names {', '.join(map(repr, unknown))}; there are only "
            f"{', '.join([*required, *optional])}"
        )
    for ours, theirs in layout.columns.items():
        if theirs.strip().lower() not in {name.strip().lower() for name in head.columns}:
            raise MissingColumn(
                f"{head.path} has no column {theirs!r}, which the mapping gives for {ours!r}; it has {head.columns}"
            )
    given = {ours: (theirs.strip().lower(),) for ours, theirs in layout.columns.items()}
    needed = {name: given.get(name, names) for name, names in required.items() if name != "symbol"}
    others = {name: given.get(name, names) for name, names in {**optional, "symbol": required["symbol"]}.items()}
    return match(head, needed, others)


def _symbol_of_file(head: FileHead) -> str:
    found = _FILE_SYMBOL.fullmatch(head.path.name.split(".csv")[0].split(".parquet")[0])
    if found is None:
        raise MissingColumn(
            f"{head.path} has no column 'symbol' and its name is no symbol; add the column, rename one of its columns "
            f"{head.columns}, name the file by its symbol (RELIANCE.csv), or give symbol="
        )
    return found["symbol"]


def _recognised_ticks(head: FileHead) -> tuple[str, ColumnMapping]:
    kite = "exchange_timestamp" in {name.strip().lower() for name in head.columns}
    return ("kite" if kite else "generic"), ColumnMapping({})


def _recognised(head: FileHead) -> tuple[str, ColumnMapping]:
    """The dialect of a file of bars with one line of header."""
    names = [name.strip() for name in head.columns]
    lower = [name.lower() for name in names]
    there, as_usual = set(lower), ColumnMapping({})
    has_symbol = bool(there & {"symbol", "tradingsymbol"})
    if (epochs := _recognised_epochs(head, lower, has_symbol)) is not None:
        return epochs
    if "Open" in names and "Close" in names and there & {"date", "datetime"} and not has_symbol:
        return "yfinance", ColumnMapping({"symbol": "ticker"}) if "ticker" in there else as_usual
    if {"date", "open"} <= set(names) and "timestamp" not in there and (not has_symbol or "tradingsymbol" in there):
        return "kite", as_usual
    return "generic", as_usual


def _recognised_epochs(head: FileHead, lower: list[str], has_symbol: bool) -> tuple[str, ColumnMapping] | None:
    """Fyers and Dhan, whose times are numbers; with a symbol of its own scheme, or a name that only they use."""
    if set(_FYERS_POSITIONS.values()) <= set(lower) and (time_format := _epoch_of(head, lower, "0")):
        return "fyers", ColumnMapping(_FYERS_POSITIONS, time_format)
    for name in ("start_time", "epoch", "timestamp", "datetime", "date"):
        time_format = _epoch_of(head, lower, name)
        theirs = not has_symbol or name in ("start_time", "epoch") or _has_fyers_symbols(head, lower)
        if time_format and theirs:
            after_prices = "close" in lower and lower.index(name) > lower.index("close")
            return "dhan" if name == "start_time" or after_prices else "fyers", ColumnMapping(
                {"time": name}, time_format
            )
    return None


def _has_fyers_symbols(head: FileHead, lower: list[str]) -> bool:
    return "symbol" in lower and bool(_FYERS_SYMBOL.fullmatch(first_value(head, head.columns[lower.index("symbol")])))


def _epoch_of(head: FileHead, lower: list[str], name: str) -> str | None:
    """The epoch format of a column, by the size of its first value; None if it is no epoch."""
    if name not in lower:
        return None
    at = lower.index(name)
    kind = head.types[at]
    if kind is not None and not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return None
    text = first_value(head, head.columns[at])
    if not re.fullmatch(r"\d{9,19}(?:\.\d*)?", text):
        return None
    digits = len(text.split(".")[0])
    return next(name for name, least in zip(reversed(EPOCH_FORMATS), (18, 15, 12, 0), strict=True) if digits >= least)
