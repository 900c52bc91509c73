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
import polars as pl
from numpy.typing import NDArray

from feature_store.market.types import MarketDataError, MissingColumn

if TYPE_CHECKING:
    from collections.abc import Iterable

AnyTable: TypeAlias = pd.DataFrame | pl.DataFrame
Table = TypeVar("Table", pd.DataFrame, pl.DataFrame)

_EARLIEST_NS = 10**17  # March 1973; smaller counts are seconds, milliseconds or microseconds by mistake
_LARGEST_NS = 2**62
_PER_NS = {"ms": 1_000_000, "us": 1_000, "ns": 1}
_TEXTS = (pl.String, pl.Categorical, pl.Enum)


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
    left = _keys_and_time(rows, keys, at, "rows")
    right = _keys_and_time(side, keys, available_at, "side")
    _same_types(left, right, keys)
    place = _places(*_coded(left, right, keys), tolerance)
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


def _keys_and_time(table: AnyTable, keys: Sequence[str], time: str, what: str) -> pl.DataFrame:
    """Give ``k0, k1, …, time`` as polars columns, the time as int64 epoch nanoseconds."""
    series = [_series(table, name).alias(f"k{k}") for k, name in enumerate(keys)]
    for name, column in zip(keys, series, strict=True):
        if column.null_count():
            row = int(column.is_null().arg_max() or 0)
            raise UnusableTable(f"{what}, row {row}: {name} is missing; give every row its key, or leave the row out")
    return pl.DataFrame([*series, _epoch_ns(_series(table, time), time, what).alias("time")])


def _series(table: AnyTable, name: str) -> pl.Series:
    if isinstance(table, pl.DataFrame):
        return table[name]
    column = table[name].reset_index(drop=True)
    if isinstance(column.dtype, pd.DatetimeTZDtype):  # polars reads .values of it, which pandas 3.1 warns about
        naive: pl.Series = pl.from_pandas(column.dt.tz_convert(None))
        return naive.dt.replace_time_zone("UTC")
    found: pl.Series = pl.from_pandas(column, nan_to_null=True)
    return found


def _epoch_ns(times: pl.Series, name: str, what: str) -> pl.Series:
    if times.null_count():
        row = int(times.is_null().arg_max() or 0)
        raise UnusableTable(f"{what}, row {row}: {name} is missing; give the time, or leave the row out")
    unit = 1
    if isinstance(times.dtype, pl.Datetime):
        if times.dtype.time_zone is None:
            raise UnusableTable(
                f"{what}: {name} has no time zone, so its instants are a guess; say which "
                f"(for example .dt.replace_time_zone('Asia/Kolkata'), in pandas .dt.tz_localize('Asia/Kolkata'))"
            )
        unit = _PER_NS[times.dtype.time_unit]
    elif times.dtype != pl.Int64:
        raise UnusableTable(
            f"{what}: {name} is {times.dtype}, no instant; give datetimes with a zone or int64 epoch nanoseconds "
            "(a date alone does not say when in the day something was known)"
        )
    counts = times.cast(pl.Int64)
    wrong = (counts < _EARLIEST_NS // unit) | (counts > _LARGEST_NS // unit)
    if wrong.any():
        row = int(wrong.arg_max() or 0)
        raise UnusableTable(
            f"{what}, row {row}: {name} is {times[row]}, which is no time after 1973 in nanoseconds; multiply seconds "
            "by 10**9, milliseconds by 10**6"
        )
    return counts * unit


def _same_types(left: pl.DataFrame, right: pl.DataFrame, keys: Sequence[str]) -> None:
    for k, name in enumerate(keys):
        ours, theirs = left.schema[f"k{k}"], right.schema[f"k{k}"]
        alike = ours == theirs or (ours.is_integer() and theirs.is_integer())
        if not alike and not (isinstance(ours, _TEXTS) and isinstance(theirs, _TEXTS)):
            raise UnusableTable(f"{name} is {ours} in rows and {theirs} in side; give it one type in both")


def _coded(left: pl.DataFrame, right: pl.DataFrame, keys: Sequence[str]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Give both tables with one whole number for each key; keys that the side does not have are -1."""
    plain = [
        pl.col(f"k{k}").cast(pl.String if isinstance(right.schema[f"k{k}"], _TEXTS) else pl.Int64)
        if isinstance(right.schema[f"k{k}"], _TEXTS) or right.schema[f"k{k}"].is_integer()
        else pl.col(f"k{k}")
        for k in range(len(keys))
    ]
    names = [f"k{k}" for k in range(len(keys))]
    left, right = left.with_columns(plain), right.with_columns(plain)
    codes = (
        right.select(names)
        .unique(maintain_order=True)
        .with_row_index("code")
        .with_columns(pl.col("code").cast(pl.Int64))
    )
    coded = [
        table.join(codes, on=names, how="left", maintain_order="left").select(pl.col("code").fill_null(-1), "time")
        for table in (left, right)
    ]
    return coded[0], coded[1]


def _places(left: pl.DataFrame, right: pl.DataFrame, tolerance: dt.timedelta | None) -> NDArray[np.int64]:
    """Give for each row the place of its side row, -1 without one."""
    right = right.with_row_index("place").with_columns(pl.col("place").cast(pl.Int64))
    ordered = right.sort("code", maintain_order=True)
    code, time = ordered["code"].to_numpy(), ordered["time"].to_numpy()
    back = np.flatnonzero((np.diff(code) == 0) & (np.diff(time) < 0))
    if len(back):
        row = int(ordered["place"][int(back[0]) + 1])
        raise UnusableTable(
            f"side, row {row}: available_at goes back within its key; sort side by it, and check that it is the time "
            "at which the row became known"
        )
    in_order = left["time"].is_sorted()
    left = left.with_row_index("row")
    joined = (left if in_order else left.sort("time", maintain_order=True)).join_asof(
        right.sort("time", maintain_order=True),
        on="time",
        by="code",
        strategy="backward",
        allow_exact_matches=False,
        tolerance=None if tolerance is None else tolerance // dt.timedelta(microseconds=1) * 1000,
        check_sortedness=False,
    )
    place = joined["place"].fill_null(-1).to_numpy()
    if in_order:
        return place
    back_in_place = np.empty_like(place)
    back_in_place[joined["row"].to_numpy()] = place
    return back_in_place


def _with_columns(rows: Table, side: Table, wanted: Sequence[str], place: NDArray[np.int64]) -> Table:
    if isinstance(rows, pl.DataFrame):
        at = pl.Series(place).replace(-1, None)
        return rows.with_columns([side[name].gather(at) for name in wanted])
    taken = side.reset_index(drop=True)[list(wanted)].reindex(place)
    return pd.concat([rows, taken.set_index(rows.index)], axis=1)
