"""Frames: the ticks or bars of one market partition over a stretch of event time, as one Kafka record.

The body is an Arrow IPC stream of one record batch that decodes straight into arrays; what a consumer must know before
the body (type, number, watermark, session) is in the record's headers. Ticks carry the four columns of the best quote
when their source has depth, and not otherwise. Bars carry spread and imbalance; frames recorded before these columns
existed are read as bars without depth.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.market.types import Bars, Session, Ticks, Universe
from live_services.domain.topics import MARKET_BARS, MARKET_TICKS, Topic

TICK_FRAME: Final = "market.ticks.frame"
BAR_FRAME: Final = "market.bars.frame"
FRAME_TOPICS: Final[dict[str, Topic]] = {TICK_FRAME: MARKET_TICKS, BAR_FRAME: MARKET_BARS}

Headers = Sequence[tuple[str, bytes]]

_TICK_COLUMNS: Final = pa.schema(
    [
        ("instrument_token", pa.int64()),
        ("event_time_ns", pa.int64()),
        ("last_price", pa.float64()),
        ("day_volume", pa.int64()),
    ]
)
_QUOTE_COLUMNS: Final = pa.schema(
    [
        ("bid_price", pa.float64()),
        ("ask_price", pa.float64()),
        ("bid_quantity", pa.int64()),
        ("ask_quantity", pa.int64()),
    ]
)
_QUOTED_TICK_COLUMNS: Final = pa.schema([*_TICK_COLUMNS, *_QUOTE_COLUMNS])
_BARE_BAR_COLUMNS: Final = pa.schema(
    [
        ("instrument_token", pa.int64()),
        ("start_ns", pa.int64()),
        ("end_ns", pa.int64()),
        ("open", pa.float64()),
        ("high", pa.float64()),
        ("low", pa.float64()),
        ("close", pa.float64()),
        ("volume", pa.int64()),
        ("tick_count", pa.int32()),
    ]
)
_BAR_COLUMNS: Final = pa.schema([*_BARE_BAR_COLUMNS, ("spread_bps", pa.float64()), ("imbalance", pa.float64())])


class BadFrame(Exception):
    """A frame that cannot be used; the message names the row, token or header."""


class EncodedFrame(NamedTuple):
    """A frame as it goes on the topic."""

    value: bytes
    headers: list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Frame:
    """The ticks or bars of one partition; nothing earlier than ``watermark_ns`` follows it there."""

    table: Ticks | Bars
    watermark_ns: int
    session: Session
    number: int
    """Number of the frame in its session and partition, from 0."""

    @property
    def times_ns(self) -> NDArray[np.int64]:
        """Event time of each row, ascending: a tick's own, a bar's end."""
        return self.table.event_time_ns if isinstance(self.table, Ticks) else self.table.end_ns


def encode_tick_frame(
    ticks: Ticks, universe: Universe, number: int, watermark_ns: int, session: Session
) -> EncodedFrame:
    """Write ticks as a frame.

    Parameters
    ----------
    ticks
        In order of event time, all in ``[session.open_ns, watermark_ns)``.
    number
        Number of the frame in its session and partition.
    watermark_ns
        End of the frame: no tick of this partition with an earlier event time will follow.
    """
    schema = _QUOTED_TICK_COLUMNS if ticks.has_depth else _TICK_COLUMNS
    columns = [universe.tokens[ticks.instrument], *(getattr(ticks, name) for name in schema.names[1:])]
    return EncodedFrame(_body(columns, schema), _headers(TICK_FRAME, number, watermark_ns, session))


def encode_bar_frame(bars: Bars, universe: Universe, number: int, watermark_ns: int, session: Session) -> EncodedFrame:
    """Write bars as a frame; a bar's event time is its ``end_ns``, so ``watermark_ns`` is later than every end."""
    columns = [
        universe.tokens[bars.instrument],
        *(getattr(bars, name) for name in _BAR_COLUMNS.names[1:]),
    ]
    return EncodedFrame(_body(columns, _BAR_COLUMNS), _headers(BAR_FRAME, number, watermark_ns, session))


def decode_frame(value: bytes, headers: Headers, universe: Universe) -> Frame:
    """Read a frame and check it once, for everything behind it to trust.

    Raises
    ------
    BadFrame
        For unreadable bytes or headers, an instrument outside the universe, a price that is not finite and positive, a
        negative volume, a quote that is neither a price nor an empty side, times out of order, or times outside the
        session's open and the frame's watermark.
    """
    fields = dict(headers)
    event_type = fields.get("event_type", b"").decode(errors="replace")
    if event_type not in FRAME_TOPICS:
        raise BadFrame(f"header event_type is {event_type!r}, not one of {sorted(FRAME_TOPICS)}")
    if fields.get("schema_version") != b"1":
        raise BadFrame(f"schema_version {fields.get('schema_version')!r} is not known here; upgrade the reader")
    number, watermark_ns = _integer(fields, "frame_number"), _integer(fields, "watermark_ns")
    session = _session(fields)
    if event_type == TICK_FRAME:
        table: Ticks | Bars = _ticks(_columns(value, (_TICK_COLUMNS, _QUOTED_TICK_COLUMNS)), universe)
    else:
        table = _bars(_columns(value, (_BAR_COLUMNS, _BARE_BAR_COLUMNS)), universe)
    frame = Frame(table, watermark_ns, session, number)
    _check_times(frame)
    return frame


def _body(columns: list[NDArray[Any]], schema: Any) -> bytes:
    batch = pa.record_batch(
        [pa.array(np.ascontiguousarray(c), type=f.type) for c, f in zip(columns, schema, strict=True)], schema=schema
    )
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(batch)
    body: bytes = sink.getvalue().to_pybytes()
    return body


def _headers(event_type: str, number: int, watermark_ns: int, session: Session) -> list[tuple[str, bytes]]:
    text = {
        "event_type": event_type,
        "broker": "shared",
        "schema_version": "1",
        "frame_number": str(number),
        "watermark_ns": str(watermark_ns),
        "session_date": session.date.isoformat(),
        "session_open_ns": str(session.open_ns),
        "session_close_ns": str(session.close_ns),
    }
    return [(name, content.encode()) for name, content in text.items()]


def _integer(fields: Mapping[str, bytes], name: str) -> int:
    try:
        return int(fields[name])
    except (KeyError, ValueError) as cause:
        raise BadFrame(f"header {name} is missing or no integer: {fields.get(name)!r}") from cause


def _session(fields: Mapping[str, bytes]) -> Session:
    try:
        date = dt.date.fromisoformat(fields["session_date"].decode())
    except (KeyError, ValueError) as cause:
        raise BadFrame(f"header session_date is missing or no date: {fields.get('session_date')!r}") from cause
    return Session(date, _integer(fields, "session_open_ns"), _integer(fields, "session_close_ns"))


def _columns(value: bytes, known: tuple[Any, ...]) -> dict[str, NDArray[Any]]:
    try:
        with pa.ipc.open_stream(value) as reader:
            schema = reader.schema
            if schema not in known:
                expected = " or ".join(str(one.names) for one in known)
                raise BadFrame(f"columns are {schema.names}, not {expected} of the expected types")
            batches = list(reader)
    except (pa.ArrowException, OSError) as cause:
        raise BadFrame(f"the body is no Arrow stream: {cause}") from cause
    if len(batches) != 1:
        raise BadFrame(f"the body has {len(batches)} record batches instead of 1")
    columns = dict(zip(schema.names, batches[0].columns, strict=True))
    empty = [name for name, column in columns.items() if column.null_count]
    if empty:
        raise BadFrame(f"nulls in columns {empty}")
    return {name: column.to_numpy(zero_copy_only=True) for name, column in columns.items()}


def _instruments(tokens: NDArray[np.int64], universe: Universe) -> NDArray[np.int32]:
    order = np.argsort(universe.tokens)
    known = universe.tokens[order]
    at = np.minimum(np.searchsorted(known, tokens), max(len(known) - 1, 0))
    unknown = known[at] != tokens if len(known) else np.ones(len(tokens), dtype=bool)
    if unknown.any():
        raise BadFrame(f"instrument_token {int(tokens[unknown][0])} (row {int(np.argmax(unknown))}) is not known here")
    return order[at].astype(np.int32)


def _require(good: NDArray[np.bool_], column: str, values: NDArray[Any], what: str) -> None:
    if not good.all():
        row = int(np.argmin(good))
        raise BadFrame(f"{column} {values[row]} in row {row} is not {what}")


def _ticks(columns: Mapping[str, NDArray[Any]], universe: Universe) -> Ticks:
    price, volume = columns["last_price"], columns["day_volume"]
    _require(np.isfinite(price) & (price > 0), "last_price", price, "finite and positive")
    _require(volume >= 0, "day_volume", volume, "0 or more")
    quote = tuple(columns[name] for name in _QUOTE_COLUMNS.names if name in columns)
    for name, side in zip(_QUOTE_COLUMNS.names, quote, strict=False):
        if side.dtype == np.float64:
            _require(np.isnan(side) | ((side > 0) & (side < np.inf)), name, side, "finite and positive, or NaN")
        else:
            _require(side >= 0, name, side, "0 or more")
    return Ticks(_instruments(columns["instrument_token"], universe), columns["event_time_ns"], price, volume, *quote)


def _bars(columns: Mapping[str, NDArray[Any]], universe: Universe) -> Bars:
    for name in ("open", "high", "low", "close"):
        _require(np.isfinite(columns[name]) & (columns[name] > 0), name, columns[name], "finite and positive")
    low, high = columns["low"], columns["high"]
    inside = (low <= np.minimum(columns["open"], columns["close"])) & (
        high >= np.maximum(columns["open"], columns["close"])
    )
    _require(inside, "low", low, "at or below open and close, or high is not at or above them")
    _require(columns["volume"] >= 0, "volume", columns["volume"], "0 or more")
    _require(columns["tick_count"] >= 0, "tick_count", columns["tick_count"], "0 or more")
    _require(columns["start_ns"] < columns["end_ns"], "start_ns", columns["start_ns"], "earlier than its end")
    if "spread_bps" in columns:
        spread, imbalance = columns["spread_bps"], columns["imbalance"]
        _require(~np.isinf(spread), "spread_bps", spread, "finite or NaN")
        _require(np.isnan(imbalance) | (np.abs(imbalance) <= 1), "imbalance", imbalance, "between -1 and 1, or NaN")
    fields = {name: column for name, column in columns.items() if name != "instrument_token"}
    return Bars(instrument=_instruments(columns["instrument_token"], universe), **fields)


def _check_times(frame: Frame) -> None:
    times = frame.times_ns
    if not len(times):
        return
    if (np.diff(times) < 0).any():
        row = int(np.argmax(np.diff(times) < 0)) + 1
        raise BadFrame(f"times are out of order at row {row}: {int(times[row - 1])} then {int(times[row])}")
    if times[-1] >= frame.watermark_ns:
        raise BadFrame(f"time {int(times[-1])} is not before the frame's watermark {frame.watermark_ns}")
    first = int(times[0] if isinstance(frame.table, Ticks) else frame.table.start_ns.min())
    if first < frame.session.open_ns:
        raise BadFrame(f"time {first} is before the session's open {frame.session.open_ns}")
