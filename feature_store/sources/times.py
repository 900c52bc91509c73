"""Times as files write them, as UTC epoch nanoseconds: timestamps, ISO 8601 text, epochs, and formats of strptime."""

from __future__ import annotations

import re
from typing import Final, TypeAlias
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.market.types import IST, IST_OFFSET_NS, MarketDataError

Times: TypeAlias = tuple[NDArray[np.int64], NDArray[np.bool_]]
"""UTC epoch nanoseconds, and which rows could be read (others are 0)."""

EPOCH_FORMATS: Final = {"epoch_s": 10**9, "epoch_ms": 10**6, "epoch_us": 10**3, "epoch_ns": 1}
"""Formats of times that are numbers: UTC epoch seconds, and so on, in nanoseconds."""

_NS_PER_UNIT = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_ZONE = r"(?:[Zz]|[+-]\d{2}:?\d{2}|[+-]\d{2})$"
_GROUPED = r"-?\d{1,3}(?:,\d{2,3})*,\d{3}(?:\.\d*)?"
_DATE_ONLY = r"^\d{4}-\d{2}(?:-\d{2})?$"
_DATE_FIRST = r"^\d{4}-?\d{2}"  # or pandas reads "now" and "today" as this very moment


class NoTime(Exception):
    """A column is of a type that is no time; the message says of which, and what to write."""


def times_of(column: pa.ChunkedArray, time_format: str | None = None, zone: ZoneInfo = IST) -> Times:
    """Read a column of times.

    Parameters
    ----------
    column : ChunkedArray
        Text, timestamps, dates or numbers.
    time_format : str, optional
        One of `EPOCH_FORMATS`, or a format of `datetime.strptime`; default: ISO 8601 text and timestamps.
    zone : ZoneInfo
        Zone of times that have none.

    Raises
    ------
    NoTime
        If the column is of a type that is no time.
    MarketDataError
        If the format is none of strptime.
    """
    column = plain(column)
    if time_format in EPOCH_FORMATS:
        return _epochs(column, EPOCH_FORMATS[time_format])
    if pa.types.is_null(column.type):
        return np.zeros(len(column), dtype=np.int64), np.zeros(len(column), dtype=np.bool_)
    if pa.types.is_date(column.type):
        column = column.cast(pa.timestamp("ms"))
    if pa.types.is_timestamp(column.type):
        counts = column.cast(pa.int64())
        present = counts.is_valid().to_numpy()
        filled = counts.fill_null(0).to_numpy()
        time_ns, readable = _epoch_ns(filled, column.type.unit, present)
        return (time_ns, readable) if column.type.tz else _from_wall_clock(time_ns, readable, zone)
    if pa.types.is_integer(column.type) and time_format is not None:  # 20240401
        column = column.cast(pa.string())
    if not is_text(column.type):
        raise NoTime(
            f"is {column.type}, which is no time; write timestamps, text such as 2026-01-05T09:15:00+05:30, or say "
            "how it is written: --time-format epoch_s (setting market.time_format)"
        )
    text = column.cast(pa.string()).fill_null("").to_pandas().str.strip()
    return _parsed(text, zone) if time_format is None else _parsed_as(text, time_format, zone)


def numbers_of(column: pa.ChunkedArray, *, counts: bool = False) -> NDArray[np.float64] | None:
    """Give a column as float64, what is no number as NaN; None if it is of a type that is no number.

    Commas of text group digits (``1,23,456.50``) or stand for the decimal point (``1234,50``) if the column's numbers
    leave no other reading; in a column that ``counts`` they group. Else what has one is no number.
    """
    column = plain(column)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type) or pa.types.is_null(column.type):
        return np.ascontiguousarray(column.cast(pa.float64(), safe=False).to_numpy(), dtype=np.float64)
    if pa.types.is_decimal(column.type):
        return np.ascontiguousarray(column.cast(pa.float64()).to_numpy(), dtype=np.float64)
    if is_text(column.type):
        values = pd.to_numeric(_without_commas(column.cast(pa.string()).to_pandas(), counts), errors="coerce")
        return np.ascontiguousarray(values.to_numpy(dtype=np.float64, na_value=np.nan))
    return None


def _without_commas(text: pd.Series[str], counts: bool) -> pd.Series[str]:
    with_comma = text.str.contains(",", regex=False, na=False)
    if not with_comma.any():
        return text
    commas = text[with_comma].str.strip()
    grouped, pointed = commas.str.fullmatch(_GROUPED), commas.str.fullmatch(r"-?\d+,\d+")
    only_grouped = grouped & (counts | ~pointed)
    if only_grouped.any() and not (pointed & ~grouped).any():
        return text.mask(with_comma, commas.where(~grouped, commas.str.replace(",", "")))
    if (
        (pointed & ~grouped).any()
        and not only_grouped.any()
        and not text.str.contains(".", regex=False, na=False).any()
    ):
        return text.mask(with_comma, commas.where(~pointed, commas.str.replace(",", ".")))
    return text


def joined(dates: pa.ChunkedArray, times: pa.ChunkedArray) -> pa.ChunkedArray:
    """Give a column of dates and one of times of day as one of text, with a space between them; empty if one is."""
    dates, times = plain(dates), plain(times)
    if pa.types.is_timestamp(dates.type):
        dates = dates.cast(pa.date32())
    date, time = (column.cast(pa.string()).fill_null("").to_pandas().str.strip() for column in (dates, times))
    bare = time.str.fullmatch(r"\d{3,6}")  # 915 is 09:15, 91500 is 09:15:00
    padded = time.str.zfill(4).where(time.str.len() <= 4, time.str.zfill(6))
    both = date + " " + time.where(~bare, padded)
    return pa.chunked_array([pa.array(both.where((date != "") & (time != ""), ""), pa.string())])


def has_zone(text: str) -> bool:
    """Whether an ISO 8601 time says its zone."""
    return bool(written_zone(text))


def written_zone(text: str) -> str:
    """Give the zone at the end of a time that has one, as it is written there, else nothing."""
    found = re.search(_ZONE, text)
    return found[0] if found and not re.search(_DATE_ONLY, text) else ""


def plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Give a column without its dictionary."""
    return column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column


def is_text(kind: pa.DataType) -> bool:
    """Whether a type is one of Arrow's texts."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _epochs(column: pa.ChunkedArray, factor: int) -> Times:
    counts = numbers_of(column)
    if counts is None:
        raise NoTime(f"is {column.type}, which is no number; write plain numbers")
    readable = np.isfinite(counts) & (np.abs(counts) < 2**62 / factor)
    if pa.types.is_integer(column.type):  # a float does not hold each nanosecond
        whole = column.fill_null(0).cast(pa.int64(), safe=False).to_numpy()
        return np.where(readable, np.where(readable, whole, 0) * factor, 0), readable
    return np.where(readable, np.rint(np.where(readable, counts, 0) * factor), 0).astype(np.int64), readable


def _parsed(text: pd.Series[str], zone: ZoneInfo) -> Times:
    text = text.where(text.str.contains(_DATE_FIRST), "")
    parsed = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce")
    time_ns, readable = _ns_of(parsed)
    has_zone = (text.str.contains(_ZONE) & ~text.str.contains(_DATE_ONLY)).to_numpy(dtype=np.bool_)
    moved_ns, in_zone = _from_wall_clock(time_ns, readable & ~has_zone, zone)
    return np.where(has_zone, time_ns, moved_ns), np.where(has_zone, readable, in_zone)


def _parsed_as(text: pd.Series[str], time_format: str, zone: ZoneInfo) -> Times:
    try:
        parsed = pd.to_datetime(text, format=time_format, errors="coerce", utc=True)
    except (ValueError, re.error) as error:
        raise MarketDataError(f"time_format {time_format!r} is no format of strptime ({error})") from error
    time_ns, readable = _ns_of(parsed)
    return (time_ns, readable) if "%z" in time_format else _from_wall_clock(time_ns, readable, zone)


def _ns_of(parsed: pd.Series[pd.Timestamp]) -> Times:
    micros = parsed.dt.as_unit("us")
    present = micros.notna().to_numpy()
    return _epoch_ns(np.where(present, micros.astype("int64").to_numpy(), 0), "us", present)


def _from_wall_clock(wall_ns: NDArray[np.int64], readable: NDArray[np.bool_], zone: ZoneInfo) -> Times:
    """Read nanoseconds since 1970-01-01 00:00 on a zone's wall clock; hours that a clock skips or repeats are not."""
    if zone.key == IST.key:
        return np.where(readable, wall_ns - IST_OFFSET_NS, 0), readable
    times = pd.Series(pd.to_datetime(wall_ns)).dt.tz_localize(zone, ambiguous="NaT", nonexistent="NaT")
    readable = readable & times.notna().to_numpy()
    return np.where(readable, times.dt.as_unit("ns").astype("int64").to_numpy(), 0), readable


def _epoch_ns(counts: NDArray[np.int64], unit: str, present: NDArray[np.bool_]) -> Times:
    factor = _NS_PER_UNIT[unit]
    limit = 2**62 // factor  # years 1824 to 2116: beyond them nanoseconds overflow
    readable = present & (counts > -limit) & (counts < limit)
    return np.where(readable, np.where(readable, counts, 0) * factor, 0), readable
