"""Files of yfinance with a column for each field of each ticker, in two or three lines of header."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

import numpy as np
import pyarrow as pa

from feature_store.market.types import MissingColumn
from feature_store.sources.files import FileHead, FileTable, Progress, load

FIELDS: Final = ("open", "high", "low", "close", "volume")


def wide_columns(head: FileHead) -> dict[str, dict[str, int]] | None:
    """Place of each field of each ticker in a file of yfinance with fields over tickers; None if it is none."""
    if head.kind == "parquet":
        pairs = [_pair_of(name) for name in head.columns]
    elif _has_two_headers(head):
        pairs = [None, *zip(head.columns[1:], head.rows[0][1:], strict=True)]
    else:
        return None
    places: dict[str, dict[str, int]] = {}
    for at, pair in enumerate(pairs):
        if pair is None:
            continue
        field, ticker = pair if pair[0].lower() in (*FIELDS, "adj close") else pair[::-1]
        if field.lower() in FIELDS and ticker:
            places.setdefault(ticker, {})[field.lower()] = at
    return places or None


def _has_two_headers(head: FileHead) -> bool:
    if len(head.rows) < 2 or len(head.rows[0]) != len(head.columns):
        return False
    begins = (head.columns[0], head.rows[0][0])
    return begins in {("Price", "Ticker"), ("Ticker", "Price")} or (
        begins == ("", "") and head.rows[1][0] in ("Date", "Datetime")
    )


def _pair_of(name: str) -> tuple[str, str] | None:
    """The field and the ticker of a column that pandas wrote as the text of a pair."""
    if not name.startswith("("):
        return None
    try:
        pair = ast.literal_eval(name)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    if isinstance(pair, tuple) and len(pair) == 2 and all(isinstance(part, str) for part in pair):
        return pair
    return None


def read_wide(
    head: FileHead,
    places: Mapping[str, Mapping[str, int]],
    required: Mapping[str, tuple[str, ...]],
    progress: Progress | None,
) -> FileTable:
    """Read such a file, given `wide_columns`, as one with a row for each time and ticker.

    Raises
    ------
    UnreadableFile
        If the file is truncated or damaged, or has no rows.
    MissingColumn
        If a ticker lacks one of `FIELDS`, the file has no time, or ticks were asked for.
    """
    for ticker, fields in places.items():
        lacking = [field for field in FIELDS if field not in fields]
        if lacking or "open" not in required:
            raise MissingColumn(f"{head.path}: {ticker} has no column {', '.join(lacking or ['of ticks'])}; export it")
    if head.kind == "parquet":
        header_rows = 1
        time = next((name for name in head.columns if name.strip().lower() in ("date", "datetime")), None)
        if time is None:
            raise MissingColumn(f"{head.path} has no column 'Date' or 'Datetime'; write it with its index")
        columns = head.columns
    else:
        third = head.rows[1]
        header_rows = 3 if third[0] in ("Date", "Datetime") and not any(third[1:]) else 2
        time, columns = "time", ["time", *(f"{k}" for k in range(1, len(head.columns)))]
    tickers = sorted(places)
    names = {f"{field} {ticker}": columns[places[ticker][field]] for ticker in tickers for field in FIELDS}
    read = load(
        replace(head, columns=columns), {"time": time, **names}, ("time",), header_rows=header_rows, progress=progress
    )
    n = len(read.row_number)
    stacked = {
        field: pa.chunked_array(
            [pa.array(read.numbers(f"{field} {ticker}"), from_pandas=True) for ticker in tickers], pa.float64()
        )
        for field in FIELDS
    }
    stacked["time"] = pa.chunked_array(read.columns["time"].chunks * len(tickers), read.columns["time"].type)
    stacked["symbol"] = pa.chunked_array([pa.array([ticker] * n, pa.string()) for ticker in tickers], pa.string())
    return FileTable(
        head.path,
        stacked,
        {name: name for name in stacked},
        np.tile(read.row_number, len(tickers)),
        read.malformed,
        wide=True,
    )
