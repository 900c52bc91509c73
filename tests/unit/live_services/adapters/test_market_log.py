from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiokafka import ConsumerRecord

from live_services.adapters.kafka import StoredRecord, headers_of, stored_record, value_of
from live_services.adapters.market_log import newest_reached, reached_by
from live_services.domain.clock import market_gap, watermark
from live_services.domain.frames import encode_tick_frame
from live_services.domain.log import Reached
from live_services.domain.topics import MARKET_TICKS
from tests.stored_sessions import day_of_ticks

DAY = day_of_ticks(0)
OPEN = DAY.session.open_ns
SECOND = 1_000_000_000
KNOWN = {DAY.universe.digest: DAY.universe}

Value = tuple[bytes, list[tuple[str, bytes]]]


def mark(after_open_ns: int, digest: str = DAY.universe.digest) -> Value:
    event = watermark(MARKET_TICKS, 0, DAY.session, OPEN + after_open_ns, digest)
    return value_of(event), headers_of(event)


def frame(until: int) -> Value:
    part = DAY.market[DAY.market.event_time_ns < OPEN + until]  # type: ignore[union-attr]
    return encode_tick_frame(part, DAY.universe, 1, OPEN + until, DAY.session)  # type: ignore[arg-type]


async def reached(values: list[Value | None], begin: int = 0) -> tuple[Reached | None, int]:
    """What the log of these values (None: the marker of a transaction) ends with, and how many records were read."""
    read_so_far = 0

    async def read(first: int, end: int) -> AsyncIterator[StoredRecord]:
        nonlocal read_so_far
        for offset in range(first, end):
            value = values[offset]
            if value is not None:
                read_so_far += 1
                yield StoredRecord(MARKET_TICKS.name, 0, offset, 0, None, value[0], tuple(value[1]))

    return await newest_reached(begin, len(values), read, KNOWN.get), read_so_far


GARBAGE: Value = (b"garbage", [("event_type", b"market.ticks.frame")])


@pytest.mark.parametrize("garbage", [0, 1, 63, 64, 65, 5_000, 100_000])
async def test_the_end_of_the_log_is_found_behind_garbage_of_any_length(garbage: int) -> None:
    found, _ = await reached([mark(0), frame(10 * SECOND), None, mark(20 * SECOND), None, *[GARBAGE] * garbage])
    assert found == (OPEN, OPEN + 20 * SECOND)


async def test_a_long_log_is_not_read_from_its_beginning() -> None:
    found, read = await reached([*[mark(k) for k in range(10_000)], None])
    assert found == (OPEN, OPEN + 9_999)
    assert read < 100


async def test_a_frame_ends_the_log_with_its_watermark() -> None:
    assert (await reached([mark(0), frame(5 * SECOND)]))[0] == (OPEN, OPEN + 5 * SECOND)


async def test_a_log_without_a_feeds_record_has_no_end() -> None:
    assert (await reached([]))[0] is None
    assert (await reached([GARBAGE] * 200))[0] is None
    assert (await reached([mark(0), GARBAGE], begin=1))[0] is None, "what was deleted is not asked for"


def _spoiled(value: Value, **headers: bytes) -> Value:
    return value[0], [*value[1], *headers.items()]


@pytest.mark.parametrize(
    "wrong",
    [
        _spoiled(frame(9 * SECOND), watermark_ns=str(2**63 - 1).encode()),
        _spoiled(frame(9 * SECOND), session_open_ns=b"0"),
        (frame(9 * SECOND)[0][:-40], frame(9 * SECOND)[1]),
        _spoiled(frame(9 * SECOND), universe_digest=b"never told"),
        mark(9 * SECOND, "never told"),
        _spoiled(mark(0), session_close_ns=str(2**63).encode()),
        (
            value_of(market_gap(MARKET_TICKS, 0, OPEN, OPEN + 1, "x")),
            headers_of(market_gap(MARKET_TICKS, 0, OPEN, OPEN + 1, "x")),
        ),
    ],
    ids=["far watermark", "no session", "cut body", "untold frame", "untold watermark", "no hours", "a gap"],
)
async def test_what_every_reader_buries_does_not_end_the_log(wrong: Value) -> None:
    assert (await reached([mark(SECOND), wrong]))[0] == (OPEN, OPEN + SECOND)


def test_a_record_whose_headers_are_null_is_nobodys_and_stops_no_feed() -> None:
    fetched = ConsumerRecord(
        MARKET_TICKS.name, 0, 7, 0, 0, None, None, 0, 0, 0, headers=[("event_type", None), ("universe_digest", None)]
    )
    record = stored_record(fetched)
    assert record.headers == (("event_type", b""), ("universe_digest", b""))
    assert reached_by(record, KNOWN.get) is None
