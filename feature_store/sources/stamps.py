"""What a file's times are: how they are written, of which zone, and whether bars are stamped at their start or end.

What is stated holds. What is not is recognised only where the times leave one reading: text by `time_formats`; a zone
by the session's hours (times without a zone that all lie in a session as UTC, and do not as Asia/Kolkata); END stamps
by bars at the close of most sessions and none at any open; stamps in a bar's last second (09:15:59) by that second.
Bars whose times leave it open are compared with ticks of the same days (`feature_store.sources.stamps_by_ticks`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.market.calendar import UnverifiedDate, nse_session
from feature_store.market.types import (
    IST,
    IST_OFFSET_NS,
    SECOND_NS,
    MarketDataError,
    Session,
    date_of_day,
    ist_day,
)
from feature_store.sources.files import FileTable
from feature_store.sources.mappings import ColumnMapping
from feature_store.sources.time_formats import epoch_format, possible_formats, way_out
from feature_store.sources.times import EPOCH_FORMATS, NoTime, Times, has_zone, is_text, times_of, written_zone

Kind: TypeAlias = Literal["bars", "ticks"]

_SAMPLE: Final = 200  # rows from the file's beginning that say whether text is ISO 8601
_HALF_MINUTE_NS: Final = 30 * SECOND_NS  # the shortest bars whose last second is looked for
_USUALLY_INSIDE: Final = 0.8  # of the times; files with the minutes before the open and after the close have 0.9
_STRAY: Final = {"bars": 0.001, "ticks": 0.1}  # share of times outside: ticks before the open are usual
_ENOUGH_TICKS: Final = 200_000  # to see where they lie
_ENOUGH_TIMES: Final = 30_000  # to see that they lie hours away
_BARS_A_SESSION: Final = 3  # fewer times a day are no bars of minutes or hours


@dataclass(frozen=True)
class TimeReading:
    """How a file's times were read, and what was found out about them."""

    stated: ColumnMapping
    layout: ColumnMapping
    """As stated, with what was recognised where nothing was."""
    recognised: tuple[str, ...] = ()
    """What was not stated but recognised, a sentence each."""
    doubts: tuple[str, ...] = ()
    """What nothing shows and nobody stated: how it was read all the same, and what to say if that is wrong."""
    unreadable: str = ""
    """Empty, unless most times cannot be read, or cannot be of the zone they name: then what is to be said of them."""
    undecided: bool = False
    """Whether bars may be stamped otherwise than the layout says: it was not stated, and no bar at an open shows it."""
    naive: bool = False
    """Whether the times say no zone, and nobody stated one."""


class _Placement(NamedTuple):
    """How times lie in their sessions, as shares of those that are on a session's day."""

    inside_start: float
    """At or after the open and before the close."""
    inside_end: float
    """After the open and at or before the close."""
    at_open: int
    """Sessions with one at the open."""
    at_close: int
    sessions: int
    a_session: float
    """Distinct times in a session, the median."""


def times_of_file(table: FileTable, stated: ColumnMapping, kind: Kind) -> tuple[Times, TimeReading]:
    """Read a file's times as was stated, else as they plainly are; of bars, starts or ends as the layout says.

    Raises
    ------
    MarketDataError
        If they are of a type that is no time, or the stated format is none.
    """
    column = table.time_column()
    time_format, recognised = _format_of(column, stated)
    zone = ZoneInfo(stated.zone) if stated.zone is not None else IST
    times = table.times("time", time_format, zone)
    _, readable = times
    reading = TimeReading(stated, replace(stated, time_format=time_format, zone=zone.key), recognised)
    if not len(readable):
        return times, reading
    if 2 * np.count_nonzero(readable) < len(readable):
        return times, replace(reading, recognised=(), unreadable=_unreadable(table, column, readable, stated))
    naive = stated.zone is None and _is_naive(column, time_format, readable)
    placed, reading = _placed(times, replace(reading, naive=naive), kind)
    return placed, reading if naive else replace(reading, unreadable=_of_another_zone(table, placed, reading, kind))


def require_readable(reading: TimeReading) -> None:
    """Refuse a file most of whose times cannot be read.

    Raises
    ------
    MarketDataError
        Names the first, and the option and the setting that read them.
    """
    if reading.unreadable:
        raise MarketDataError(reading.unreadable)


def _format_of(column: pa.ChunkedArray, stated: ColumnMapping) -> tuple[str | None, tuple[str, ...]]:
    """The format of a column of times, None for ISO 8601 and timestamps; and what was recognised."""
    sample, text = column.slice(0, _SAMPLE), is_text(column.type)
    if stated.time_format is not None and (not stated.of_several_files or _reads(sample, stated.time_format)):
        return stated.time_format, ()
    number = pa.types.is_integer(column.type) or pa.types.is_floating(column.type)
    first = next(filter(None, map(_written, sample.drop_null().to_pylist())), "") if number or text else ""
    epochs = epoch_format(first)
    if epochs is not None or not first or (text and _reads(sample, None)):
        return epochs, ()
    formats = possible_formats(_distinct(column))
    return (formats[0], (f"times such as '{first}' are read as {formats[0]}",)) if len(formats) == 1 else (None, ())


def _written(value: object) -> str:
    return f"{value:.0f}" if isinstance(value, float) else str(value).strip()


def _reads(sample: pa.ChunkedArray, time_format: str | None) -> bool:
    try:
        return bool(times_of(sample, time_format)[1].any())
    except NoTime:
        return False


def _distinct(column: pa.ChunkedArray) -> list[str]:
    return [text.strip() for text in column.unique().drop_null().cast(pa.string()).to_pylist()]


def _is_naive(column: pa.ChunkedArray, time_format: str | None, readable: NDArray[np.bool_]) -> bool:
    if time_format in EPOCH_FORMATS or pa.types.is_date(column.type):
        return False
    if pa.types.is_timestamp(column.type):
        return column.type.tz is None
    if time_format is not None:
        return "%z" not in time_format
    first = column[int(np.argmax(readable))].as_py()
    return isinstance(first, str) and not has_zone(first.strip())


def _unreadable(table: FileTable, column: pa.ChunkedArray, readable: NDArray[np.bool_], stated: ColumnMapping) -> str:
    """Say that most times cannot be read, which is the first, and what reads them."""
    first = int(np.argmin(readable))
    columns = [table.names[name] for name in ("date", "time") if table.has(name)]
    text = " ".join(table.text_of(np.array([first]))[columns].fillna("").iloc[0]).strip()
    problem = (
        f"{table.path}: {np.count_nonzero(~readable):,} of {len(readable):,} times cannot be read; the first is "
        f"{text!r} (row {table.row_number[first]}, column {' and '.join(map(repr, columns))})"
    )
    return f"{problem}. {way_out(possible_formats(_distinct(column)), stated.time_format)}"


def _of_another_zone(table: FileTable, times: Times, reading: TimeReading, kind: Kind) -> str:
    """Say that times are the wall clock of Asia/Kolkata in spite of the zone that they name; empty if they are not."""
    time_ns = times[0][times[1]]
    time_ns = time_ns[:: max(1, len(time_ns) // _ENOUGH_TIMES)]
    stated, moved = _placement(time_ns), _placement(time_ns - IST_OFFSET_NS)
    if stated is None or moved is None or moved.a_session < _BARS_A_SESSION:
        return ""
    inside, there = (max(p.inside_start, p.inside_end) for p in (stated, moved))
    if inside >= 0.5 or there < 1 - _STRAY[kind]:
        return ""
    first = str(table.time_column()[int(np.argmax(times[1]))].as_py())
    text = is_text(table.time_column().type)  # of which a format may leave the zone out
    formats, ending = possible_formats([first] if text else ()), written_zone(first)
    if reading.stated.zone is not None and not ending:
        way = "correct --timezone (setting market.timezone)"
    elif len(formats) == 1 and ending:
        bare = formats[0].replace("%z", ending)
        way = f'give --time-format "{bare}" (setting market.time_format), which leaves it out'
    else:
        way = "take 19,800 seconds (5 hours 30 minutes) off each"
    return (
        f"{table.path}: {1 - inside:.0%} of its times lie outside the session as they are written, and all "
        f"lie in it as the time of day in Asia/Kolkata, which their zone says they are not; the first is {first!r} "
        f"(column {table.names['time']!r}). If so, {way}"
    )


def _placed(times: Times, reading: TimeReading, kind: Kind) -> tuple[Times, TimeReading]:
    """Recognise zone and stamp by where the times lie in their sessions."""
    time_ns, readable = times
    stamped = reading.stated.stamp
    if kind == "bars" and stamped != "start" and _in_last_seconds(time_ns[readable]):
        time_ns, stamped = np.where(readable, -(-time_ns // _HALF_MINUTE_NS) * _HALF_MINUTE_NS, time_ns), "end"
        said = "bars are stamped in their last second (09:15:59): each is read as ending with it"
        reading = _with(reading, said, layout=replace(reading.layout, stamp=stamped))
    looked_at = time_ns[readable][:: max(1, len(time_ns) // _ENOUGH_TICKS) if kind == "ticks" else 1]
    here = _placement(looked_at)
    if here is None or (kind == "bars" and here.a_session < _BARS_A_SESSION):
        return (time_ns, readable), reading
    if reading.naive and (there := _placement(looked_at + IST_OFFSET_NS)) is not None:
        reading = _zoned(reading, here, there, kind)
        if reading.layout.zone == "UTC":
            time_ns, here = np.where(readable, time_ns + IST_OFFSET_NS, time_ns), there
    if kind == "bars" and stamped is None:
        reading = _stamped(reading, here)
    return (time_ns, readable), reading


def _with(reading: TimeReading, said: str, **changes: Any) -> TimeReading:
    return replace(reading, recognised=(*reading.recognised, said), **changes)


def _in_doubt(reading: TimeReading, said: str) -> TimeReading:
    return replace(reading, doubts=(*reading.doubts, said), undecided=True)


def _zoned(reading: TimeReading, as_ist: _Placement, as_utc: _Placement, kind: Kind) -> TimeReading:
    """Say whether times without a zone are UTC, by where they lie in their sessions if they are, and if not."""
    ist, utc = (max(p.inside_start, p.inside_end) if kind == "bars" else p.inside_start for p in (as_ist, as_utc))
    fits = 1 - _STRAY[kind]
    if utc >= fits > ist:
        said = "times without a zone are read as UTC: so they lie in the session, as Asia/Kolkata they do not"
        return _with(reading, said, layout=replace(reading.layout, zone="UTC"))
    if min(utc, ist) >= fits and not (as_ist.at_open or as_ist.at_close):
        return _in_doubt(
            reading,
            "times without a zone lie in the session as Asia/Kolkata and as UTC, and are read as Asia/Kolkata; if they "
            "are UTC, give --timezone UTC (setting market.timezone)",
        )
    if ist < 0.5 < utc:
        return _in_doubt(
            reading,
            f"{1 - ist:.0%} of the times lie outside the session as Asia/Kolkata, {1 - utc:.0%} as UTC; if they are "
            "UTC, give --timezone UTC (setting market.timezone)",
        )
    if ist < _USUALLY_INSIDE:
        return _in_doubt(
            reading,
            f"{1 - ist:.0%} of the times lie outside the session as Asia/Kolkata; if they are of another zone, give "
            "--timezone ZONE (setting market.timezone)",
        )
    return reading


def _stamped(reading: TimeReading, here: _Placement) -> TimeReading:
    """Say whether bars are stamped at their start or at their end, if where they lie shows it."""
    if 2 * here.at_close > here.sessions and not here.at_open and here.inside_end >= 1 - _STRAY["bars"]:
        said = "bars are stamped at their end: most sessions have one at the close, and none has one at the open"
        return _with(reading, said, layout=replace(reading.layout, stamp="end"), undecided=True)
    if here.at_open or here.at_close:
        return replace(reading, undecided=reading.undecided or here.at_close > 0)
    return _in_doubt(
        reading,
        "no bar is stamped at an open and none at a close, so the times do not show whether they are a bar's start or "
        "its end, and are read as the start; if they are the end, give --stamp end (setting market.stamp)",
    )


def _in_last_seconds(time_ns: NDArray[np.int64]) -> bool:
    return bool(len(time_ns)) and bool(
        np.mean(time_ns % _HALF_MINUTE_NS >= _HALF_MINUTE_NS - SECOND_NS) > 1 - _STRAY["bars"]
    )


def _placement(time_ns: NDArray[np.int64]) -> _Placement | None:
    """Place times in the sessions of their days; None if none of them is on a session's day."""
    times, counts = np.unique(time_ns, return_counts=True)
    days, place = np.unique(ist_day(times), return_inverse=True)
    hours = np.zeros((2, len(days)), dtype=np.int64)
    for k, day in enumerate(days.tolist()):
        if (session := session_of_day(day)) is not None:
            hours[:, k] = session.open_ns, session.close_ns
    open_ns, close_ns = hours[:, place]
    there = open_ns > 0
    if not there.any():
        return None
    rows = counts[there].sum()
    times, counts, open_ns, close_ns = times[there], counts[there], open_ns[there], close_ns[there]
    _, a_session = np.unique(open_ns, return_counts=True)
    return _Placement(
        inside_start=float(counts[(times >= open_ns) & (times < close_ns)].sum() / rows),
        inside_end=float(counts[(times > open_ns) & (times <= close_ns)].sum() / rows),
        at_open=int(np.count_nonzero(times == open_ns)),
        at_close=int(np.count_nonzero(times == close_ns)),
        sessions=len(a_session),
        a_session=float(np.median(a_session)),
    )


def session_of_day(day: int) -> Session | None:
    """Give the session of a day since 1970-01-01; None if there is none, or nobody verified it."""
    try:
        return nse_session(date_of_day(day))
    except (UnverifiedDate, ValueError, OverflowError):
        return None
