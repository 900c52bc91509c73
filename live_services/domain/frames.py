"""Frames: the ticks or bars of one market partition over a stretch of event time, as one Kafka record.

The body is an Arrow IPC stream of one record batch that decodes straight into arrays; what a consumer must know before
the body (type, number, watermark, session, universe) is in the record's headers. Ticks carry the four columns of the
best quote when their source has depth, and not otherwise.

A row that cannot be trusted is left out and told, and the rest of its frame stays. A frame is refused whole only where
nothing of it can be used: headers or body that cannot be read, or times that run backwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_store.market.types import Bars, Session, Ticks, Universe
from live_services.domain.clock import read_session, session_end_ns
from live_services.domain.money import HIGHEST_PRICE_INR
from live_services.domain.topics import MARKET_BARS, MARKET_TICKS, Topic

TICK_FRAME: Final = "market.ticks.frame"
BAR_FRAME: Final = "market.bars.frame"
FRAME_TOPICS: Final[dict[str, Topic]] = {TICK_FRAME: MARKET_TICKS, BAR_FRAME: MARKET_BARS}
SCHEMA_VERSION: Final = 2

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
_BAR_COLUMNS: Final = pa.schema(
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
        ("spread_bps", pa.float64()),
        ("imbalance", pa.float64()),
    ]
)
_LONGEST_NUMBER: Final = 20  # digits of 64 bits
_NUMBERS: Final = ("watermark_ns", "session_open_ns", "session_close_ns")
_LOWEST_PRICE_INR: Final = 1e-4  # below it a price is no exact money
_PRICE: Final = f"a price between 0.0001 and {HIGHEST_PRICE_INR:,} rupees"
# Sums of a session's volumes must stay in 64 bits.
_MOST_SHARES: Final = 10**15
_SHARES: Final = "between 0 and 1,000,000,000,000,000"


class BadFrame(Exception):
    """A frame of which nothing can be used; the message names the header, or the row whose time runs backwards."""


class EncodedFrame(NamedTuple):
    """A frame as it goes on the topic."""

    value: bytes
    headers: list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that was left out of its frame."""

    row: int
    """Its place in the frame, from 0."""
    instrument_token: int
    column: str
    value: str
    reason: str
    """What the value is not."""

    def __str__(self) -> str:
        return f"row {self.row} (instrument_token {self.instrument_token}): {self.column} {self.value} is {self.reason}"


@dataclass(frozen=True, slots=True)
class Frame:
    """The ticks or bars of one partition; nothing earlier than ``watermark_ns`` follows it there."""

    table: Ticks | Bars
    watermark_ns: int
    session: Session
    number: int
    """Number of the frame in its session and partition, from 0."""
    universe_digest: str = ""
    """Of the universe that its writer named instruments by; `market.sessions` tells what is in it."""
    refused: tuple[RefusedRow, ...] = ()
    """Rows that are not in ``table``, in order."""

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
    return EncodedFrame(_body(columns, schema), _headers(ticks, number, watermark_ns, session, universe))


def encode_bar_frame(bars: Bars, universe: Universe, number: int, watermark_ns: int, session: Session) -> EncodedFrame:
    """Write bars as a frame; a bar's event time is its ``end_ns``, so ``watermark_ns`` is later than every end."""
    columns = [
        universe.tokens[bars.instrument],
        *(getattr(bars, name) for name in _BAR_COLUMNS.names[1:]),
    ]
    return EncodedFrame(_body(columns, _BAR_COLUMNS), _headers(bars, number, watermark_ns, session, universe))


def universe_digest_of(headers: Headers) -> str:
    """Give the digest of the universe that a record of the market names in its headers; empty if it names none."""
    return dict(headers).get("universe_digest", b"").decode(errors="replace")


def rows_of(headers: Headers) -> int:
    """Give the number of rows that a frame's writer put in it, refused ones too; 0 if no header says it."""
    said = dict(headers).get("rows", b"")
    return int(said) if said.isdigit() and len(said) < _LONGEST_NUMBER else 0


def session_of_frame(headers: Headers) -> tuple[Session, int]:
    """Give the session and the watermark of a frame without reading its body.

    Raises
    ------
    BadFrame
        If a header is missing or cannot be, or the watermark lies outside the session.
    """
    fields = dict(headers)
    text = {name: fields.get(name, b"").decode(errors="replace") for name in ("session_date", *_NUMBERS)}
    watermark_ns = _integer(text, "watermark_ns")
    try:
        session = read_session(
            text["session_date"], _integer(text, "session_open_ns"), _integer(text, "session_close_ns")
        )
    except ValueError as cause:
        raise BadFrame(f"its headers name no session: {cause}") from cause
    if not session.open_ns <= watermark_ns <= session_end_ns(session):
        raise BadFrame(f"watermark_ns {watermark_ns} lies outside the session of {session.date}")
    return session, watermark_ns


def decode_frame(value: bytes, headers: Headers, universe: Universe) -> Frame:
    """Read a frame and check it once, for everything behind it to trust.

    A row is refused for a value that is missing, an instrument outside the universe, a price that is none or would
    overflow money, a volume that is negative or too large, a quote that is neither a price nor an empty side, or a time
    outside the session's hours.

    Parameters
    ----------
    universe
        That of :func:`universe_digest_of`, in any order.

    Raises
    ------
    BadFrame
        For unreadable bytes or headers, times out of order, or times at or after the frame's watermark.
    """
    fields = dict(headers)
    event_type = fields.get("event_type", b"").decode(errors="replace")
    if event_type not in FRAME_TOPICS:
        raise BadFrame(f"header event_type is {event_type!r}, not one of {sorted(FRAME_TOPICS)}")
    if fields.get("schema_version") != str(SCHEMA_VERSION).encode():
        raise BadFrame(
            f"schema_version is {fields.get('schema_version')!r}, not {SCHEMA_VERSION}: another version wrote it"
        )
    session, watermark_ns = session_of_frame(headers)
    number = _integer({"frame_number": fields.get("frame_number", b"").decode(errors="replace")}, "frame_number")
    digest = universe_digest_of(headers)
    if not digest:
        raise BadFrame("header universe_digest is missing: nobody can say what its tokens are")
    if event_type == TICK_FRAME:
        rows = _Rows(_columns(value, (_TICK_COLUMNS, _QUOTED_TICK_COLUMNS)))
        table: Ticks | Bars = _ticks(rows, universe, session)
    else:
        rows = _Rows(_columns(value, (_BAR_COLUMNS,)))
        table = _bars(rows, universe, session)
    frame = Frame(rows.good_of(table), watermark_ns, session, number, digest, rows.refused)
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


def _headers(
    market: Ticks | Bars, number: int, watermark_ns: int, session: Session, universe: Universe
) -> list[tuple[str, bytes]]:
    text = {
        "event_type": TICK_FRAME if isinstance(market, Ticks) else BAR_FRAME,
        "broker": "shared",
        "schema_version": str(SCHEMA_VERSION),
        "frame_number": str(number),
        "rows": str(len(market)),
        "watermark_ns": str(watermark_ns),
        "session_date": session.date.isoformat(),
        "session_open_ns": str(session.open_ns),
        "session_close_ns": str(session.close_ns),
        "universe_digest": universe.digest,
    }
    return [(name, content.encode()) for name, content in text.items()]


def _integer(fields: Mapping[str, str], name: str) -> int:
    try:
        return int(fields[name])
    except ValueError as cause:
        raise BadFrame(f"header {name} is missing or no integer: {fields[name][:40]!r}") from cause


def _columns(value: bytes, known: tuple[Any, ...]) -> dict[str, Any]:
    try:
        with pa.ipc.open_stream(value) as reader:
            schema = reader.schema
            if schema not in known:
                expected = " or ".join(str(one.names) for one in known)
                raise BadFrame(f"columns are {schema.names}, not {expected} of the expected types")
            batches = list(reader)
        for batch in batches:
            batch.validate()  # that no column reaches beyond its buffer
    except (pa.ArrowException, OSError, ValueError) as cause:  # a column's name may be no text
        raise BadFrame(f"the body is no Arrow stream: {cause}") from cause
    if len(batches) != 1:
        raise BadFrame(f"the body has {len(batches)} record batches instead of 1")
    return dict(zip(schema.names, batches[0].columns, strict=True))


class _Rows:
    """The columns of a frame as arrays, and which of its rows were refused."""

    def __init__(self, columns: Mapping[str, Any]) -> None:
        self.columns: Final[dict[str, NDArray[Any]]] = {}
        self._refused: dict[int, RefusedRow] = {}
        missing = []
        for name, column in columns.items():
            there = column
            if column.null_count:
                missing.append((name, column.is_valid().to_numpy(zero_copy_only=False)))
                there = column.fill_null(0)
            self.columns[name] = there.to_numpy(zero_copy_only=True)
        for name, present in missing:
            self.require(present, name, "missing")

    def require(self, good: NDArray[np.bool_], column: str, reason: str) -> None:
        """Refuse the rows in which a column is not good."""
        if good.all():
            return
        for row in np.flatnonzero(~good).tolist():
            if row not in self._refused:  # one reason is enough
                token, value = int(self.columns["instrument_token"][row]), str(self.columns[column][row])
                self._refused[row] = RefusedRow(row, token, column, value, reason)

    @property
    def refused(self) -> tuple[RefusedRow, ...]:
        """The rows that were refused, in order."""
        return tuple(self._refused[row] for row in sorted(self._refused))

    def good_of(self, table: Ticks | Bars) -> Ticks | Bars:
        """Give the rows of a table that were not refused."""
        if not self._refused:
            return table
        good = np.ones(len(table), dtype=np.bool_)
        good[list(self._refused)] = False
        return table[good]


def _is_price(price: NDArray[np.float64]) -> NDArray[np.bool_]:
    good: NDArray[np.bool_] = (price >= _LOWEST_PRICE_INR) & (price <= HIGHEST_PRICE_INR)  # NaN is neither
    return good


def _is_count(shares: NDArray[np.int64]) -> NDArray[np.bool_]:
    good: NDArray[np.bool_] = (shares >= 0) & (shares <= _MOST_SHARES)
    return good


def _instruments(rows: _Rows, universe: Universe) -> NDArray[np.int32]:
    index = universe.indices_of(rows.columns["instrument_token"])
    rows.require(index >= 0, "instrument_token", "not in the universe of its session")
    return index


def _ticks(rows: _Rows, universe: Universe, session: Session) -> Ticks:
    columns = rows.columns
    instrument, times = _instruments(rows, universe), columns["event_time_ns"]
    rows.require(_is_price(columns["last_price"]), "last_price", f"not {_PRICE}")
    rows.require(_is_count(columns["day_volume"]), "day_volume", f"not {_SHARES}")
    quote = tuple(columns[name] for name in _QUOTE_COLUMNS.names if name in columns)
    for name, side in zip(_QUOTE_COLUMNS.names, quote, strict=False):
        if side.dtype == np.float64:
            rows.require(_is_price(side) | np.isnan(side), name, f"neither {_PRICE} nor NaN")
        else:
            rows.require(_is_count(side), name, f"not {_SHARES}")
    rows.require((times >= session.open_ns) & (times < session.close_ns), "event_time_ns", _hours(session))
    return Ticks(instrument, times, columns["last_price"], columns["day_volume"], *quote)


def _bars(rows: _Rows, universe: Universe, session: Session) -> Bars:
    columns = rows.columns
    instrument = _instruments(rows, universe)
    for name in ("open", "high", "low", "close"):
        rows.require(_is_price(columns[name]), name, f"not {_PRICE}")
    opens, high, low, close = (columns[name] for name in ("open", "high", "low", "close"))
    inside = (low <= np.minimum(opens, close)) & (high >= np.maximum(opens, close))
    rows.require(inside, "low", "above open or close, or high is below them")
    rows.require(_is_count(columns["volume"]), "volume", f"not {_SHARES}")
    rows.require(columns["tick_count"] >= 0, "tick_count", "negative")
    rows.require(columns["start_ns"] < columns["end_ns"], "start_ns", "not earlier than its end")
    rows.require(~np.isinf(columns["spread_bps"]), "spread_bps", "neither finite nor NaN")
    imbalance = columns["imbalance"]
    rows.require(np.isnan(imbalance) | (np.abs(imbalance) <= 1), "imbalance", "neither between -1 and 1 nor NaN")
    rows.require(columns["start_ns"] >= session.open_ns, "start_ns", _hours(session))
    rows.require(columns["end_ns"] <= session.close_ns, "end_ns", _hours(session))
    rows.require(_is_first(instrument, columns["end_ns"]), "end_ns", "that of an earlier bar of its instrument")
    fields = {name: column for name, column in columns.items() if name != "instrument_token"}
    return Bars(instrument=instrument, **fields)


def _is_first(instrument: NDArray[np.int32], end_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Say of each bar whether none before it is of the same instrument and end; features would take it for disorder."""
    order = np.lexsort((instrument, end_ns))  # stable: of equal ones the first stays first
    again = (np.diff(instrument[order]) == 0) & (np.diff(end_ns[order]) == 0)
    first = np.ones(len(instrument), dtype=np.bool_)
    first[order[1:][again]] = False
    return first


def _hours(session: Session) -> str:
    return f"outside the session of {session.date}, [{session.open_ns}, {session.close_ns})"


def _check_times(frame: Frame) -> None:
    times = frame.times_ns
    if not len(times):
        return
    if (times[1:] < times[:-1]).any():
        row = int(np.argmax(times[1:] < times[:-1])) + 1
        raise BadFrame(f"times are out of order: {int(times[row - 1])} then {int(times[row])}")
    if times[-1] >= frame.watermark_ns:
        raise BadFrame(f"time {int(times[-1])} is not before the frame's watermark {frame.watermark_ns}")
