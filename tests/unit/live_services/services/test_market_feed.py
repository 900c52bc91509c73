"""What a market feed says of its sessions, after a restart too, and how its process lives."""

from __future__ import annotations

import asyncio
import datetime as dt
import gc
import weakref
from collections.abc import Sequence

import pytest

from feature_store.market.types import Session, Universe
from live_services.adapters.stored_market import Replay
from live_services.domain.events import FeedStarted, SessionOpened, Watermark
from live_services.domain.frames import Frame
from live_services.domain.log import event_times
from live_services.domain.partitions import own_rows
from live_services.domain.sequence import LogEnd, stamp_of
from live_services.domain.topics import MARKET_BARS, MARKET_SESSIONS, MARKET_TICKS
from live_services.runtime.ingress import Ingress
from live_services.runtime.local import MemoryLog
from live_services.services.market_feed import Feed, FeedProgress
from tests.stored_sessions import (
    DAYS,
    FIRST_DAY,
    SECOND,
    SHORT,
    Died,
    GivenMarket,
    MemoryFeed,
    day_of_bars,
    day_of_ticks,
    days_of,
    live,
    market_on,
    played,
    rows_of,
    said,
    settings_of,
    told_on,
    watermarks,
)

# --- what a session is ------------------------------------------------------------------------------------------------


async def test_a_session_is_told_once_and_every_record_of_it_names_its_universe() -> None:
    log = await played(DAYS)
    started, *told = log.events(MARKET_SESSIONS)
    assert isinstance(started, FeedStarted)
    assert [type(event) for event in told] == [SessionOpened] * 3
    assert [event.session_date for event in told if isinstance(event, SessionOpened)] == [
        str(day.session.date) for day in DAYS
    ]
    digest_of = {str(day.session.date): day.universe.digest for day in DAYS}
    for partition in range(2):
        for event in said(log, MARKET_TICKS, partition):
            assert isinstance(event, Frame | Watermark)
            date = str(event.session.date) if isinstance(event, Frame) else event.session_date
            assert event.universe_digest == digest_of[date]


async def test_every_partition_goes_from_open_to_end_of_each_session_with_rising_watermarks() -> None:
    log = await played(DAYS)
    for partition in range(2):
        found = watermarks(log, partition)
        assert found == sorted(set(found))
        for day in DAYS:
            within = [w for w in found if day.session.open_ns <= w <= day.session.close_ns + SECOND]
            assert (within[0], within[-1]) == (day.session.open_ns, day.session.close_ns + SECOND)
        first = said(log, MARKET_TICKS, partition)[0]
        assert isinstance(first, Watermark), "an empty watermark at the open"


@pytest.mark.parametrize("feed", ["ticks", "bars"])
async def test_every_row_is_said_once_in_its_own_partition(feed: str) -> None:
    days = DAYS if feed == "ticks" else tuple(day_of_bars(day) for day in range(3))
    log = await played(days, partitions=3, feed=feed)
    rows = []
    for partition in range(3):
        for event in said(log, MARKET_TICKS if feed == "ticks" else MARKET_BARS, partition):
            if isinstance(event, Frame):
                universe = log.universe(event.universe_digest)
                assert universe is not None
                rows += rows_of(own_rows(event.table, universe, partition, 3), universe)
                assert event.refused == ()
    assert sorted(rows) == sorted(row for day in days for row in rows_of(day.market, day.universe))


async def test_a_listing_of_the_second_day_is_in_the_second_days_universe_only() -> None:
    log = await played(DAYS[:2])
    _, first, second = log.events(MARKET_SESSIONS)
    assert isinstance(first, SessionOpened)
    assert isinstance(second, SessionOpened)
    new = {i.symbol for i in second.instruments} - {i.symbol for i in first.instruments}
    assert new == {"AAB"}


# --- restarts ---------------------------------------------------------------------------------------------------------


async def test_a_restart_sends_only_what_each_partition_lacks() -> None:
    day, whole = DAYS[0], await played()
    open_ns = day.session.open_ns
    end_ns = day.session.close_ns + SECOND
    ends = {0: LogEnd(open_ns, open_ns + 60 * SECOND, 7, end_ns), 1: LogEnd(open_ns, open_ns + 90 * SECOND, 9, end_ns)}
    rest, told = MemoryLog(2), told_on(whole)
    ingress = Ingress(MARKET_TICKS, MemoryFeed(rest), ends, 2)
    feed = Feed(GivenMarket([day]), settings_of(**days_of([day])), ingress, told.opened, former=told.feed)
    assert await feed.run(asyncio.Event())
    for partition in range(2):
        expected = [w for w in watermarks(whole, partition) if w > ends[partition].watermark_ns]
        stamps = [stamp_of(record.headers) for record in rest.partitions[MARKET_TICKS.name, partition]]
        assert [stamp.number for stamp in stamps if stamp is not None] == [
            ends[partition].number + 1 + k for k in range(len(expected))
        ]
        rest.partitions[MARKET_SESSIONS.name, 0] = whole.partitions[MARKET_SESSIONS.name, 0]
        assert watermarks(rest, partition) == expected


async def test_a_restart_with_longer_frames_sends_only_the_rows_that_are_missing() -> None:
    day, log = DAYS[0], MemoryLog(1)
    reached = day.session.open_ns + 61 * SECOND
    end = LogEnd(day.session.open_ns, reached, 61, day.session.close_ns + SECOND)
    feed = Feed(
        GivenMarket([day]), settings_of(1, frame_ms=10_000), Ingress(MARKET_TICKS, MemoryFeed(log), {0: end}), {}
    )
    assert await feed.run(asyncio.Event())
    rows = sum(len(f.table) for f in said(log, MARKET_TICKS, 0) if isinstance(f, Frame))
    assert rows == (event_times(day.market) >= reached).sum()


async def test_a_session_goes_on_with_the_universe_that_it_was_told_with() -> None:
    log = MemoryLog(2)
    with pytest.raises(Died):
        await live(GivenMarket(DAYS[:1]), settings_of(**SHORT), log, lives=300)
    assert await live(GivenMarket([_relisted(DAYS[0])]), settings_of(**SHORT), log)
    assert market_on(log) == market_on(await played(DAYS[:1], **SHORT))


def _relisted(day: Replay) -> Replay:
    """The same session as a store that has seen a later listing gives it."""
    universe = DAYS[1].universe
    index = universe.indices_of(day.universe.tokens)[day.market.instrument]
    columns = {name: getattr(day.market, name) for name in ("event_time_ns", "last_price", "day_volume")}
    return Replay(day.session, universe, type(day.market)(instrument=index, **columns))


# --- the life of a process --------------------------------------------------------------------------------------------


async def test_no_more_than_a_bounded_number_of_records_wait_for_the_brokers() -> None:
    feed = MemoryFeed(MemoryLog(2))
    assert await Feed(GivenMarket(DAYS[:1]), settings_of(), Ingress(MARKET_TICKS, feed, {}, 2), {}).run(asyncio.Event())
    assert feed.most_unflushed <= 257


async def test_progress_tells_rows_and_the_end() -> None:
    seen: list[FeedProgress] = []
    assert await live(GivenMarket(DAYS[:1]), settings_of(), MemoryLog(2), progress=seen.append)
    rows = len(DAYS[0].market)
    assert (seen[-1].rows_sent, seen[-1].rows_total, seen[-1].finished) == (rows, rows, True)
    assert not any(step.finished for step in seen[:-1])


async def test_a_stop_ends_the_replay_and_says_that_it_is_incomplete() -> None:
    stop, log = asyncio.Event(), MemoryLog(2)
    steps: list[FeedProgress] = []

    def after_ten(step: FeedProgress) -> None:
        steps.append(step)
        if len(steps) == 10:
            stop.set()

    assert not await live(GivenMarket(DAYS), settings_of(**days_of(DAYS)), log, stop=stop, progress=after_ten)
    assert len(log.partitions[MARKET_TICKS.name, 0]) == 10
    assert len(market_on(log)[1]) == 1


async def test_what_a_paced_feed_has_said_is_on_the_log_while_it_waits() -> None:
    log, stop = MemoryLog(2), asyncio.Event()
    running = asyncio.create_task(live(GivenMarket(DAYS[:1]), settings_of(speed=1e-6), log, stop=stop))
    async with asyncio.timeout(20):
        while MARKET_TICKS.name not in log.topics:
            await asyncio.sleep(0.01)
    assert [len(log.partitions[MARKET_TICKS.name, p]) for p in range(2)] == [1, 1], "the open, and then a long wait"
    stop.set()
    assert not await running


class Watched(GivenMarket):
    """Notes which sessions that were loaded before are still in memory when the next one is."""

    def __init__(self, days: int) -> None:
        super().__init__([])
        self.count = days
        self.loaded: list[weakref.ref[Replay | object]] = []
        self.alive: list[int] = []

    def sessions(self) -> tuple[Session, ...]:
        return tuple(Session.regular(FIRST_DAY + dt.timedelta(days=day)) for day in range(self.count))

    def load(self, session: Session, told: Universe | None) -> Replay:
        gc.collect()
        self.alive.append(sum(ref() is not None for ref in self.loaded))
        day = day_of_ticks((session.date - DAYS[0].session.date).days, minutes=1)
        self.loaded.append(weakref.ref(day.market))
        return day


async def test_a_session_is_dropped_when_it_is_over() -> None:
    market = Watched(20)
    options = settings_of(1, frame_ms=600_000, replay_session="2026-01-05", replay_through="2026-02-28")
    assert await live(market, options, MemoryLog(1))
    assert len(market.alive) == 20
    assert max(market.alive) <= 1, "the thread that loaded it may still hold the last one"


# --- how long frames take ---------------------------------------------------------------------------------------------


class Heard:
    """Keeps what a feed says of its frames."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self.latencies: list[float] = []

    def frame_queued(self, delay_seconds: float, /) -> None:
        self.delays.append(delay_seconds)

    def frames_acknowledged(self, latencies_seconds: Sequence[float], /) -> None:
        self.latencies += latencies_seconds


@pytest.mark.parametrize("speed", [0.0, 1000.0])
async def test_each_frame_is_measured_when_it_is_queued_and_when_it_is_on_the_log(speed: float) -> None:
    log, heard = MemoryLog(2), Heard()
    settings = settings_of(2, **(days_of(DAYS[:1]) | SHORT), speed=speed)
    assert await live(GivenMarket(DAYS[:1]), settings, log, times=heard)
    frames = [one for partition in range(2) for one in said(log, MARKET_TICKS, partition) if isinstance(one, Frame)]
    assert len(heard.delays) == len(heard.latencies) == len(frames)
    assert min(heard.delays + heard.latencies) >= 0
