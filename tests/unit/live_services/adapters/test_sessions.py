from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from feature_store.market.types import Instrument, Session, Universe
from live_services.adapters.kafka import StoredRecord
from live_services.adapters.sessions import MarketSessions
from live_services.domain.clock import session_opened, watermark
from live_services.domain.events import Event, FeedStarted, headers_of, value_of
from live_services.domain.feeds import feed_started
from live_services.domain.sequence import Stamp
from live_services.domain.topics import MARKET_SESSIONS, MARKET_TICKS
from live_services.settings import KafkaSettings
from tests.stored_sessions import day_of_ticks, universe_of_day

DAYS = tuple(day_of_ticks(day, minutes=1) for day in range(3))
OPENINGS = tuple(session_opened(day.session, day.universe) for day in DAYS)

SEVERAL = {
    dt.date(2026, 3, 1 + k): Universe(instruments=(Instrument(instrument_token=k + 1, symbol=f"S{k}"),))
    for k in range(8)
}


@pytest.fixture
def switches_often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def record(event: Event | bytes, offset: int) -> StoredRecord:
    value, headers = (event, []) if isinstance(event, bytes) else (value_of(event), headers_of(event))
    return StoredRecord(MARKET_SESSIONS.name, 0, offset, 0, None, value, tuple(headers))


def sessions(*events: Event | bytes) -> MarketSessions:
    found = MarketSessions(KafkaSettings())
    for offset, event in enumerate(events):
        found.take(record(event, offset))
    return found


def test_a_digest_gives_the_universe_that_a_session_was_told_with() -> None:
    found = sessions(*OPENINGS)
    for day in range(3):
        assert found.universe(universe_of_day(day).digest) == universe_of_day(day)
    assert found.universe("unheard of") is None
    assert list(found.opened) == [day.session.open_ns for day in DAYS]


def test_the_newest_session_is_the_latest_whatever_was_read_last() -> None:
    assert sessions().newest() is None
    assert sessions(OPENINGS[2], OPENINGS[0]).newest() == OPENINGS[2]


def test_the_first_word_on_a_session_stands() -> None:
    other = session_opened(DAYS[0].session, universe_of_day(1))
    assert sessions(OPENINGS[0], other).opened[DAYS[0].session.open_ns] == OPENINGS[0]


@pytest.mark.parametrize(
    "wrong",
    [
        b"garbage",
        b"{}",
        watermark(MARKET_TICKS, 0, DAYS[0].session, DAYS[0].session.open_ns, "d"),
        OPENINGS[0].model_copy(update={"universe_digest": "another"}),
        OPENINGS[0].model_copy(update={"session_close_ns": 2**62}),
        OPENINGS[0].model_copy(update={"session_date": "2026-02-05"}),
    ],
    ids=["bytes", "json", "watermark", "digest", "hours", "date"],
)
def test_a_record_that_tells_no_session_is_left_out(wrong: Event | bytes) -> None:
    found = sessions(wrong, OPENINGS[1])
    assert list(found.opened) == [DAYS[1].session.open_ns]
    assert found.universe("another") is None


def test_sessions_of_the_same_instruments_hold_them_once() -> None:
    found = sessions(*OPENINGS)
    first, second, third = (found.opened[day.session.open_ns].instruments for day in DAYS)
    assert third is second, "the same universe"
    known = {i.instrument_token: i for i in first}
    assert all(known.get(i.instrument_token, i) is i for i in second), "one listing more"


def test_only_the_universes_of_a_few_sessions_keep_their_arrays() -> None:
    universes = [Universe.from_symbols([f"S{k}", "ALL"]) for k in range(20)]
    found = sessions(*(session_opened(DAYS[0].session, universe) for universe in universes))
    for universe in [*universes, *universes]:
        assert found.universe(universe.digest) == universe
    assert len(found._universes) <= 4


async def test_records_that_name_what_nobody_told_have_the_topic_read_once_for_all_that_were_fetched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found, reads = sessions(OPENINGS[0]), 0

    async def refresh() -> None:
        nonlocal reads
        reads += 1
        found.take(record(OPENINGS[1], 1))

    monkeypatch.setattr(found, "refresh", refresh)
    learn = found.learner()
    await learn([("universe_digest", OPENINGS[0].universe_digest.encode())])
    assert reads == 0
    for number in range(100):
        await learn([("universe_digest", b"junk %d" % number), ("session_open_ns", b"%d" % number)])
    await learn([("session_open_ns", str(DAYS[1].session.open_ns).encode())])
    assert (reads, DAYS[1].session.open_ns in found.opened) == (1, True)
    await found.learner()([("universe_digest", b"junk")])
    assert reads == 2


def test_universes_are_looked_up_from_several_threads_at_once(switches_often: None) -> None:
    found = sessions(*(session_opened(Session.regular(day), universe) for day, universe in SEVERAL.items()))
    digests = [universe.digest for universe in SEVERAL.values()] * 200
    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(lambda digest: found.universe(digest) is not None, digests, chunksize=20))


def told(event: Event, offset: int, stamp: Stamp | None) -> StoredRecord:
    headers = (*headers_of(event), *([stamp.header] if stamp else []))
    return StoredRecord(MARKET_SESSIONS.name, 0, offset, 0, None, value_of(event), headers)


def test_only_who_numbers_what_it_tells_is_the_feed() -> None:
    ours, strangers = feed("ours"), feed("a stranger's")
    found = MarketSessions(KafkaSettings())
    found.take(told(strangers, 0, None))
    assert (found.feed, found.next_number) == (None, 0)
    found.take(told(ours, 1, Stamp(MARKET_SESSIONS.writer, 0, 0)))
    for stamp in (None, Stamp(MARKET_SESSIONS.writer, 0, 0), Stamp("another", 0, 1)):
        found.take(told(strangers, 2, stamp))
        found.take(told(OPENINGS[1], 3, stamp))
    assert (found.feed, found.next_number, found.opened) == (ours, 1, {})
    found.take(told(OPENINGS[1], 4, Stamp(MARKET_SESSIONS.writer, 0, 1)))
    assert found.newest() == OPENINGS[1]
    assert found.next_number == 2


def feed(name: str) -> FeedStarted:
    return feed_started(
        name=name, home="h", store="s", feed="ticks", frame_ms=1, partitions=1, plays="p", last_session="2026-01-05"
    )
