"""Joining side tables (fundamentals, announcements, sectors, …) to decisions by what was known then.

A side row says when it became available, and that time alone decides: not the day it is about, nor when it was put into
the table. Rules:

* A decision sees the newest side row of its key with ``available_at`` **before** the decision. A row available at
  exactly that instant is not seen: nobody knows which came first, and a bar that ends there does not hold a tick of
  that instant either.
* Of several side rows of one key with the same ``available_at`` the last one in the table counts: a revision stands
  below what it revises.
* Rows keep their order, their number and their columns; a decision without a side row gets missing values, never a
  default.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeAlias, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from feature_store.market.types import MarketDataError, MissingColumn

if TYPE_CHECKING:
    from collections.abc import Iterable

    import polars as pl

AnyTable: TypeAlias = "pd.DataFrame | pl.DataFrame"
Table = TypeVar("Table", pd.DataFrame, "pl.DataFrame")

_EARLIEST_NS = 10**17  # March 1973; smaller counts are seconds, milliseconds or microseconds by mistake
_LARGEST_NS = 2**62
_PER_NS = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}


class UnusableTable(MarketDataError):
    """A table that cannot be joined without guessing what was known when."""


def point_in_time_join(
    rows: Table,
    side: Table,
    *,
    by: str | Sequence[str],
    at: str,
    columns: Sequence[str] | None = None,
    available_at: str = "available_at",
    tolerance: dt.timedelta | None = None,
) -> Table:
    """Give ``rows`` with columns of ``side`` as they were known at each row's time.

    Parameters
    ----------
    rows : pandas or polars DataFrame
        Decisions, in any order.
    side : pandas or polars DataFrame of the same kind
        What became known when; ``available_at`` never goes back within a key.
    by : str or sequence of str
        Columns that name the key, in both tables.
    at : str
        Column of ``rows`` with the time of the decision: int64 UTC epoch nanoseconds, or datetimes with a zone.
    columns : sequence of str, optional
        Columns of ``side`` to join; default: all but the key and ``available_at``.
    available_at : str
        Column of ``side`` with the first instant at which its row was known, typed as ``at``.
    tolerance : timedelta, optional
        A side row that is older than this at the decision is not used; one that is exactly as old still is.

    Returns
    -------
    pandas or polars DataFrame, as given
        ``rows`` unchanged, with the side's columns behind them. Without a side row they are null (pandas: NaN, so that
        whole numbers become float64 where one is missing).

    Raises
    ------
    MissingColumn
        If a column is missing; ``side`` without ``available_at`` above all.
    UnusableTable
        If a time is missing, has no zone, is no epoch nanosecond or goes back within a key; if a key is missing or of
        another type; or if a column is in both tables.
    """
    if tolerance is not None and tolerance <= dt.timedelta(0):
        raise UnusableTable(f"tolerance is {tolerance}; give a positive length of time, or leave it out")
    keys: list[str] = [by] if isinstance(by, str) else list(by)
    _refuse_unusable(rows, side, keys, at, available_at)
    wanted = _wanted(rows, side, [*keys, available_at], columns)
    left, right = _columns(rows, keys, "rows"), _columns(side, keys, "side")
    times = _epoch_ns(rows, at, "rows"), _epoch_ns(side, available_at, "side")
    place = _places(_codes(left, right, keys), times, tolerance)
    return _with_columns(rows, side, wanted, place)


def _refuse_unusable(rows: AnyTable, side: AnyTable, keys: Sequence[str], at: str, available_at: str) -> None:
    if isinstance(rows, pd.DataFrame) is not isinstance(side, pd.DataFrame):
        raise UnusableTable(
            f"rows is a {type(rows).__module__} table and side a {type(side).__module__} one; give two of a kind"
        )
    _require(rows, [*keys, at], "rows")
    _require(side, keys, "side")
    if available_at not in side.columns:
        raise MissingColumn(
            f"side has no column {available_at!r}, so nobody knows when its rows became known; add it (the first "
            "instant at which a decision could have used the row) or name the column that holds it: "
            f"{list(side.columns)}"
        )


def _require(table: AnyTable, names: Iterable[str], what: str) -> None:
    missing = [name for name in names if name not in table.columns]
    if missing:
        raise MissingColumn(f"{what} has no column {', '.join(map(repr, missing))}; it has {list(table.columns)}")


def _wanted(
    rows: AnyTable,
    side: AnyTable,
    not_wanted: Sequence[str],
    columns: Sequence[str] | None,
) -> list[str]:
    wanted = [name for name in side.columns if name not in not_wanted] if columns is None else list(columns)
    _require(side, wanted, "side")
    both = [name for name in wanted if name in rows.columns]
    if both:
        raise UnusableTable(f"{', '.join(map(repr, both))} is in both tables; rename it in side, or choose columns=…")
    return wanted


def _column(table: AnyTable, name: str, what: str) -> pa.ChunkedArray:
    """Give a column as Arrow has it, which pandas and polars both give without a copy where they can."""
    if not isinstance(table, pd.DataFrame):
        return table.select(name).to_arrow().column(0)
    column = table[name].reset_index(drop=True)
    if isinstance(column.dtype, pd.DatetimeTZDtype):  # Arrow reads .values of it, which pandas 3.1 warns about
        naive = pa.Array.from_pandas(column.dt.tz_convert(None))
        return pa.chunked_array([naive.cast(pa.timestamp(naive.type.unit, "UTC"))])
    try:
        return pa.chunked_array([pa.Array.from_pandas(column)])
    except pa.ArrowException as problem:
        raise UnusableTable(f"{what}: {name} holds values of several types ({problem}); give it one type") from problem


def _columns(table: AnyTable, keys: Sequence[str], what: str) -> list[pa.ChunkedArray]:
    columns = [_column(table, name, what) for name in keys]
    for name, column in zip(keys, columns, strict=True):
        if column.null_count:
            raise UnusableTable(
                f"{what}, row {_first(column.is_null())}: {name} is missing; give every row its key, or leave the row "
                "out"
            )
    return columns


def _first(flags: pa.ChunkedArray) -> int:
    return int(pc.index(flags, True).as_py())


def _epoch_ns(table: AnyTable, name: str, what: str) -> NDArray[np.int64]:
    times = _column(table, name, what)
    if times.null_count:
        raise UnusableTable(
            f"{what}, row {_first(times.is_null())}: {name} is missing; give the time, or leave the row out"
        )
    unit = 1
    if pa.types.is_timestamp(times.type):
        if times.type.tz is None:
            raise UnusableTable(
                f"{what}: {name} has no time zone, so its instants are a guess; say which "
                f"(for example .dt.replace_time_zone('Asia/Kolkata'), in pandas .dt.tz_localize('Asia/Kolkata'))"
            )
        unit = _PER_NS[times.type.unit]
    elif times.type != pa.int64():
        raise UnusableTable(
            f"{what}: {name} is {times.type}, no instant; give datetimes with a zone or int64 epoch nanoseconds "
            "(a date alone does not say when in the day something was known)"
        )
    counts: NDArray[np.int64] = times.cast(pa.int64()).to_numpy()
    wrong = (counts < _EARLIEST_NS // unit) | (counts > _LARGEST_NS // unit)
    if wrong.any():
        row = int(wrong.argmax())
        raise UnusableTable(
            f"{what}, row {row}: {name} is {times[row]}, which is no time after 1973 in nanoseconds; multiply seconds "
            "by 10**9, milliseconds by 10**6"
        )
    return counts * unit


def _comparable(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Give text as text and whole numbers as int64, however they are kept."""
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_string(column.type) or pa.types.is_string_view(column.type):
        return column.cast(pa.large_string())
    return column.cast(pa.int64()) if pa.types.is_integer(column.type) else column


def _codes(
    left: Sequence[pa.ChunkedArray], right: Sequence[pa.ChunkedArray], keys: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Give one whole number for the key of each row of both tables; equal keys have equal numbers."""
    count = len(right[0])
    codes: NDArray[np.int64] | None = None
    for name, ours, theirs in zip(keys, map(_comparable, left), map(_comparable, right), strict=True):
        if ours.type != theirs.type and len(ours) and len(theirs):
            raise UnusableTable(f"{name} is {ours.type} in rows and {theirs.type} in side; give it one type in both")
        both = pa.chunked_array([*theirs.chunks, *(ours.chunks if len(ours) else ())], type=theirs.type)
        both = both.combine_chunks() if len(theirs) else ours.combine_chunks()
        encoded = both.dictionary_encode()
        mine = encoded.indices.to_numpy().astype(np.int64)
        if codes is None:
            codes = mine
        else:  # small again, whatever the next key
            codes = np.unique(codes * (len(encoded.dictionary) + 1) + mine, return_inverse=True)[1].astype(np.int64)
    whole = np.zeros(count + len(left[0]), dtype=np.int64) if codes is None else codes
    return whole[count:], whole[:count]


def _places(
    codes: tuple[NDArray[np.int64], NDArray[np.int64]],
    times: tuple[NDArray[np.int64], NDArray[np.int64]],
    tolerance: dt.timedelta | None,
) -> NDArray[np.int64]:
    """Give for each row the place of its side row, -1 without one; ``codes`` and ``times`` are of rows, of side."""
    order = np.argsort(codes[1], kind="stable")
    code, time = codes[1][order], times[1][order]
    back = np.flatnonzero((np.diff(code) == 0) & (np.diff(time) < 0))
    if len(back):
        raise UnusableTable(
            f"side, row {int(order[back[0] + 1])}: available_at goes back within its key; sort side by it, and check "
            "that it is the time at which the row became known"
        )
    left = pd.DataFrame({"code": codes[0], "time": times[0]}).sort_values("time", kind="stable")
    right = pd.DataFrame({"code": codes[1], "time": times[1], "place": np.arange(len(order))})
    joined = pd.merge_asof(
        left,
        right.sort_values("time", kind="stable"),
        on="time",
        by="code",
        allow_exact_matches=False,
        tolerance=None if tolerance is None else tolerance // dt.timedelta(microseconds=1) * 1000,
    )
    place = np.empty(len(left), dtype=np.int64)
    place[left.index.to_numpy()] = joined["place"].fillna(-1).to_numpy()
    return place


def _with_columns(rows: Table, side: Table, wanted: Sequence[str], place: NDArray[np.int64]) -> Table:
    if not isinstance(rows, pd.DataFrame):
        import polars as pl  # there, because its table was given

        at = pl.Series(place).replace(-1, None)
        return rows.with_columns([side[name].gather(at) for name in wanted])
    taken = side.reset_index(drop=True)[list(wanted)].reindex(place)
    return pd.concat([rows, taken.set_index(rows.index)], axis=1)
