from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiokafka import ConsumerRecord

from live_services.adapters.kafka import StoredRecord, stored_record
from live_services.adapters.market_log import newest_end
from live_services.adapters.sessions import MarketSessions
from live_services.domain.clock import market_gap, session_opened, watermark
from live_services.domain.events import headers_of, value_of
from live_services.domain.frames import encode_tick_frame
from live_services.domain.log import Reached
from live_services.domain.sequence import Stamp
from live_services.domain.topics import MARKET_SESSIONS, MARKET_TICKS, broker_topics
from live_services.settings import KafkaSettings
from tests.stored_sessions import day_of_ticks

DAY = day_of_ticks(0)
OPEN = DAY.session.open_ns
SECOND = 1_000_000_000
FEED = "0123456789abcdef"

Value = tuple[bytes, list[tuple[str, bytes]]]


def mark(after_open_ns: int, digest: str = DAY.universe.digest) -> Value:
    event = watermark(MARKET_TICKS, 0, DAY.session, OPEN + after_open_ns, digest)
    return value_of(event), headers_of(event)


def frame(until: int) -> Value:
    part = DAY.market[DAY.market.event_time_ns < OPEN + until]  # type: ignore[union-attr]
    return encode_tick_frame(part, DAY.universe, 1, OPEN + until, DAY.session)  # type: ignore[arg-type]


def told(feed: str = "") -> MarketSessions:
    event = session_opened(DAY.session, DAY.universe, feed)
    sessions = MarketSessions(KafkaSettings())
    sessions.take(StoredRecord(MARKET_SESSIONS.name, 0, 0, 0, None, value_of(event), tuple(headers_of(event))))
    return sessions


async def reached(
    values: list[Value | None], begin: int = 0, *, feed: str = "", number: int | None = None
) -> tuple[Reached | None, int]:
    """What the log of these values (None: the marker of a transaction) ends with, and how many records were read."""
    read_so_far = 0

    async def read(first: int, end: int) -> AsyncIterator[StoredRecord]:
        nonlocal read_so_far
        for offset in range(first, end):
            value = values[offset]
            if value is not None:
                read_so_far += 1
                yield StoredRecord(MARKET_TICKS.name, 0, offset, 0, None, value[0], tuple(value[1]))

    end = await newest_end(begin, len(values), read, told(feed))
    if number is not None:
        assert end is not None
        assert end.number == number
    return None if end is None else end.reached, read_so_far


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


async def test_a_record_whose_headers_are_null_is_nobodys_and_stops_no_feed() -> None:
    fetched = ConsumerRecord(
        MARKET_TICKS.name, 0, 7, 0, 0, None, None, 0, 0, 0, headers=[("event_type", None), ("universe_digest", None)]
    )
    record = stored_record(fetched)
    assert record.headers == (("event_type", b""), ("universe_digest", b""))
    assert (await reached([(record.value, list(record.headers))]))[0] is None


# --- what a feed stamped ----------------------------------------------------------------------------------------------


def stamped(value: Value, number: int, source: str = FEED) -> Value:
    return value[0], [*value[1], Stamp(source, OPEN, number).header]


OURS = [stamped(mark(k * SECOND), k) for k in range(5)]


@pytest.mark.parametrize(
    "foreign",
    [mark(300 * SECOND), stamped(mark(300 * SECOND), 9), stamped(mark(300 * SECOND), 5, "another"), GARBAGE],
    ids=["no stamp", "a jump", "another source", "garbage"],
)
@pytest.mark.parametrize("times", [1, 200])
async def test_what_is_not_the_next_record_of_the_feed_does_not_end_its_log(foreign: Value, times: int) -> None:
    found, _ = await reached([*OURS, *[foreign] * times], feed=FEED, number=4)
    assert found == (OPEN, OPEN + 4 * SECOND)


async def test_a_gap_takes_a_number_and_reaches_nothing() -> None:
    missed = market_gap(MARKET_TICKS, 0, OPEN + 4 * SECOND, OPEN + 9 * SECOND, "x")
    gap = stamped((value_of(missed), headers_of(missed)), 5)
    assert (await reached([*OURS, gap], feed=FEED, number=5))[0] == (OPEN, OPEN + 4 * SECOND)


async def test_an_event_that_cannot_be_read_takes_its_number_as_it_does_of_every_reader() -> None:
    missed = market_gap(MARKET_TICKS, 0, OPEN + 4 * SECOND, OPEN + 9 * SECOND, "x")
    log = [*OURS, stamped((b"junk", headers_of(missed)), 5)]
    assert (await reached(log, feed=FEED, number=5))[0] == (OPEN, OPEN + 4 * SECOND)


async def test_a_foreign_record_alone_in_front_of_junk_does_not_pass_for_the_feed() -> None:
    log = [*OURS, stamped(mark(300 * SECOND), 70), *[GARBAGE] * 63]
    assert (await reached(log, feed=FEED, number=4))[0] == (OPEN, OPEN + 4 * SECOND)


async def test_the_end_of_what_a_task_said_to_others_is_found_by_its_own_numbers() -> None:
    topic = broker_topics("paper").signals_raw

    def mark_of(seconds: int, *stamps: Stamp) -> Value:
        event = watermark(topic, 0, DAY.session, OPEN + seconds * SECOND, DAY.universe.digest)
        return value_of(event), [*headers_of(event), *(stamp.header for stamp in stamps)]

    ours = [Stamp(topic.writer, OPEN, number) for number in range(2)]
    values = [
        mark_of(0, ours[0]),
        mark_of(10, ours[1]),
        mark_of(40),
        mark_of(50, ours[0]),
        mark_of(60, Stamp("x", OPEN, 2)),
    ]

    async def read(first: int, end: int) -> AsyncIterator[StoredRecord]:
        for offset in range(first, end):
            yield StoredRecord(topic.name, 0, offset, 0, None, values[offset][0], tuple(values[offset][1]))

    end = await newest_end(0, len(values), read, told("the feed"), writer=topic.writer)
    assert end is not None
    assert (end.reached, end.number) == ((OPEN, OPEN + 10 * SECOND), 1)
