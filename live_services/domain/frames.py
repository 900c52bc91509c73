"""Frames: the ticks or bars of one market partition over a stretch of event time, as one Kafka record.

The body is the columns one after the other, little-endian numbers of 8 bytes, as one LZ4 frame; it decodes straight
into arrays. What a consumer must know before it (type, columns, rows, number, watermark, session, universe) is in the
record's headers. Ticks carry the four columns of the best quote when their source has depth, and not otherwise.

A row that cannot be trusted is left out and told, and the rest of its frame stays. A frame is refused whole only where
nothing of it can be used: headers or body that cannot be read, or times that run backwards.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import Bars, Session, Ticks, Universe
from live_services.domain.clock import read_session, session_end_ns
from live_services.domain.frame_rows import (
    BadFrame,
    RefusedRow,
    columns_of,
    read_bars,
    read_ticks,
    written,
)
from live_services.domain.topics import MARKET_BARS, MARKET_TICKS, Topic

TICK_FRAME: Final = "market.ticks.frame"
BAR_FRAME: Final = "market.bars.frame"
FRAME_TOPICS: Final[dict[str, Topic]] = {TICK_FRAME: MARKET_TICKS, BAR_FRAME: MARKET_BARS}
SCHEMA_VERSION: Final = 3

Headers = Sequence[tuple[str, bytes]]

_LONGEST_NUMBER: Final = 20  # digits of 64 bits
_NUMBERS: Final = ("watermark_ns", "session_open_ns", "session_close_ns")


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
    universe_digest: str = ""
    """Of the universe that its writer named instruments by; `market.sessions` tells what is in it."""
    refused: tuple[RefusedRow, ...] = ()
    """The first of the rows that were left out, in order."""
    refused_rows: int = 0
    """How many were."""

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
    return _encoded(ticks, universe, number, watermark_ns, session)


def encode_bar_frame(bars: Bars, universe: Universe, number: int, watermark_ns: int, session: Session) -> EncodedFrame:
    """Write bars as a frame; a bar's event time is its ``end_ns``, so ``watermark_ns`` is later than every end."""
    return _encoded(bars, universe, number, watermark_ns, session)


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

    Notes
    -----
    Of ticks one compiled pass says whether anything is wrong, which it hardly ever is; what it is, is found out then.
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
    said = fields.get("columns", b"").decode(errors="replace"), fields.get("rows", b"").decode(errors="replace")
    if event_type == TICK_FRAME:
        table, refused, in_order = read_ticks(
            value, *said, universe=universe, session=session, watermark_ns=watermark_ns
        )
        frame = Frame(table, watermark_ns, session, number, digest, refused, int(said[1]) - len(table))
        if in_order:
            return frame
    else:
        bars, refused = read_bars(value, *said, universe=universe, session=session)
        frame = Frame(bars, watermark_ns, session, number, digest, refused, int(said[1]) - len(bars))
    _check_times(frame)
    return frame


def _encoded(
    market: Ticks | Bars, universe: Universe, number: int, watermark_ns: int, session: Session
) -> EncodedFrame:
    columns = columns_of(market)
    text = {
        "event_type": TICK_FRAME if isinstance(market, Ticks) else BAR_FRAME,
        "broker": "shared",
        "schema_version": str(SCHEMA_VERSION),
        "frame_number": str(number),
        "columns": " ".join(columns),
        "rows": str(len(market)),
        "watermark_ns": str(watermark_ns),
        "session_date": session.date.isoformat(),
        "session_open_ns": str(session.open_ns),
        "session_close_ns": str(session.close_ns),
        "universe_digest": universe.digest,
    }
    headers = [(name, content.encode()) for name, content in text.items()]
    return EncodedFrame(written(market, columns, universe), headers)


def _integer(fields: Mapping[str, str], name: str) -> int:
    try:
        return int(fields[name])
    except ValueError as cause:
        raise BadFrame(f"header {name} is missing or no integer: {fields[name][:40]!r}") from cause


def _check_times(frame: Frame) -> None:
    times = frame.times_ns
    if not len(times):
        return
    if (times[1:] < times[:-1]).any():
        row = int(np.argmax(times[1:] < times[:-1])) + 1
        raise BadFrame(f"times are out of order: {int(times[row - 1])} then {int(times[row])}")
    if times[-1] >= frame.watermark_ns:
        raise BadFrame(f"time {int(times[-1])} is not before the frame's watermark {frame.watermark_ns}")
