from __future__ import annotations

import asyncio
import datetime as dt
import gc
import weakref
from collections.abc import Sequence
from pathlib import Path

import pytest

from feature_store.market.types import Session, Universe, ist_ns
from live_services.adapters.stored_market import Replay
from live_services.domain.events import FeedStarted, MarketGap, SessionOpened, Watermark
from live_services.domain.frames import Frame
from live_services.domain.log import event_times
from live_services.domain.partitions import own_rows
from live_services.domain.sequence import LogEnd, Stamp, stamp_of
from live_services.domain.topics import MARKET_BARS, MARKET_SESSIONS, MARKET_TICKS
from live_services.runtime.ingress import Ingress
from live_services.runtime.local import MemoryLog
from live_services.services import market_feed
from live_services.services.feed_plan import AnotherFeed, NothingToReplay, chosen_sessions, replayed_sessions
from live_services.services.market_feed import Feed, FeedProgress, JoinsTooLate, LogIsAhead, SessionLost
from live_services.settings import MarketSettings, Settings
from tests.stored_sessions import (
    FIRST_DAY,
    Died,
    GivenMarket,
    MemoryFeed,
    day_of_bars,
    day_of_ticks,
    days_of,
    ends_on,
    live,
    market_on,
    rows_of,
    said,
    settings_of,
    told_on,
)

SECOND = 1_000_000_000
DAYS = tuple(day_of_ticks(day) for day in range(3))
SHORT = {"frame_ms": 60_000}


async def played(days: Sequence[Replay] = DAYS[:1], partitions: int = 2, **market: object) -> MemoryLog:
    log = MemoryLog(partitions)
    assert await live(GivenMarket(days), settings_of(partitions, **(days_of(days) | market)), log)
    return log


def id_of_feed(log: MemoryLog) -> str:
    """The id by which a person lets another feed go on with this market."""
    feed = told_on(log).feed
    assert feed is not None
    return feed.event_id[:8]


def watermarks(log: MemoryLog, partition: int) -> list[int]:
    return [
        event.watermark_ns if isinstance(event, Frame) else event.event_time_ns
        for event in said(log, MARKET_TICKS, partition)
        if isinstance(event, Frame | Watermark)
    ]


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


# --- which sessions ---------------------------------------------------------------------------------------------------


def sessions(*days: int) -> tuple[Session, ...]:
    return tuple(DAYS[day].session for day in days)


@pytest.mark.parametrize(
    ("market", "expected"),
    [
        ({}, sessions(2)),
        ({"replay_session": "2026-01-05"}, sessions(0)),
        ({"replay_session": "2026-01-05", "replay_through": "2026-01-06"}, sessions(0, 1)),
        ({"replay_session": "2026-01-03", "replay_through": "2026-02-01"}, sessions(0, 1, 2)),
        ({"replay_session": "2026-01-09", "follow": True}, ()),
    ],
)
def test_the_range_is_of_stored_sessions_and_by_default_the_last_one(
    market: dict[str, object], expected: tuple[Session, ...]
) -> None:
    assert chosen_sessions(sessions(0, 1, 2), MarketSettings.model_validate(market)) == expected


def test_a_session_that_is_not_there_is_named_with_those_that_are() -> None:
    market = MarketSettings(replay_session="2026-01-09")
    with pytest.raises(NothingToReplay, match=r"session 2026-01-09; it has 2026-01-05, 2026-01-06"):
        chosen_sessions(sessions(0, 1), market)
    market = MarketSettings(replay_session="2026-01-09", replay_through="2026-01-12")
    with pytest.raises(NothingToReplay, match="sessions 2026-01-09 to 2026-01-12"):
        chosen_sessions(sessions(0, 1), market)


def test_an_empty_store_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(NothingToReplay, match="Load market data"):
        replayed_sessions(Settings(alpha_panda_home=tmp_path))


async def test_a_session_that_is_whole_on_the_log_is_not_said_again() -> None:
    log = await played(DAYS[:2])
    before = {key: len(records) for key, records in log.partitions.items()}
    assert await live(GivenMarket(DAYS), settings_of(**days_of(DAYS[:2])), log)
    assert {key: len(records) for key, records in log.partitions.items()} == before


async def test_a_longer_range_goes_on_behind_what_is_whole() -> None:
    log = await played(DAYS[:2])
    assert await live(GivenMarket(DAYS), settings_of(**days_of(DAYS)), log)
    assert market_on(log) == market_on(await played(DAYS))


async def test_event_time_does_not_run_backwards() -> None:
    log = await played(DAYS[1:2])
    with pytest.raises(LogIsAhead, match=r"2026-01-06 .*later than 2026-01-05"):
        await live(GivenMarket(DAYS), settings_of(**days_of(DAYS[:1])), log)


async def test_what_is_left_of_a_range_is_played_although_the_log_is_past_its_beginning() -> None:
    log = await played(DAYS[1:2])
    assert await live(GivenMarket(DAYS), settings_of(**days_of(DAYS)), log)
    assert [e.event_time_ns for e in market_on(log)[1]] == [s.open_ns for s in sessions(1, 2)]


async def test_a_session_in_whose_middle_the_log_ends_is_finished_first() -> None:
    log = MemoryLog(2)
    with pytest.raises(Died):
        await live(GivenMarket(DAYS), settings_of(**days_of(DAYS[:1]), **SHORT), log, lives=300)
    options = settings_of(**days_of(DAYS[2:]), **SHORT, take_over=id_of_feed(log))
    assert await live(GivenMarket(DAYS), options, log)
    whole = await played(DAYS[:1], **SHORT)
    key = (MARKET_TICKS.name, 0)
    assert log.partitions[key][: len(whole.partitions[key])] == whole.partitions[key]
    assert watermarks(log, 0)[-1] == DAYS[2].session.close_ns + SECOND


async def followed(market: GivenMarket, log: MemoryLog, until: int, **options: object) -> None:
    """Let the feed follow until the session of so many days is said, each coming when the one before is."""
    stop = asyncio.Event()

    def next_day(step: FeedProgress) -> None:
        if step.finished and len(market.days) < until:
            market.days.append(DAYS[len(market.days)])
        elif step.finished:
            stop.set()

    assert not await live(market, settings_of(follow=True, **SHORT, **options), log, stop=stop, progress=next_day)


async def test_a_following_feed_plays_the_next_session_when_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(market_feed, "_LOOK_AGAIN_SECONDS", 0.0)
    log = MemoryLog(2)
    await followed(GivenMarket(DAYS[:1]), log, 3)
    assert market_on(log) == market_on(await played(DAYS, **SHORT))


async def test_a_following_feed_that_starts_again_leaves_out_no_session_that_came_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(market_feed, "_LOOK_AGAIN_SECONDS", 0.0)
    log = await played(DAYS[:1], **SHORT)
    await followed(GivenMarket(DAYS), log, 2)
    assert [e.event_time_ns for e in market_on(log)[1]] == [s.open_ns for s in sessions(0, 1)]


async def test_a_following_feed_waits_for_a_range_that_has_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(market_feed, "_LOOK_AGAIN_SECONDS", 0.0)
    log, stop, market = MemoryLog(2), asyncio.Event(), GivenMarket(DAYS[:1])
    feed = live(market, settings_of(follow=True, replay_session="2026-01-06", **SHORT), log, stop=stop)
    running = asyncio.create_task(feed)
    await asyncio.sleep(0.05)
    assert log.topics == {MARKET_SESSIONS.name}, "it says who waits, and nothing of the market"
    market.days.append(DAYS[1])
    async with asyncio.timeout(20):
        while MARKET_TICKS.name not in log.topics:
            await asyncio.sleep(0.01)
    stop.set()
    assert not await running


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


# --- another feed -----------------------------------------------------------------------------------------------------


async def half_played(days: Sequence[Replay] = DAYS[:1]) -> MemoryLog:
    log = MemoryLog(2)
    with pytest.raises(Died):
        await live(GivenMarket(days), settings_of(**days_of(days), **SHORT), log, lives=300)
    return log


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({"frame_ms": 10_000}, "market.frame_ms: 10000, not 60000"),
        ({"feed_name": "laptop"}, "feed_name: laptop, not "),
    ],
    ids=str,
)
async def test_in_a_session_another_feed_is_refused_before_it_says_anything(
    other: dict[str, object], said: str
) -> None:
    log = await half_played()
    before = {key: list(records) for key, records in log.partitions.items()}
    with pytest.raises(AnotherFeed) as refused:
        await live(GivenMarket(DAYS), settings_of(**(days_of(DAYS[:1]) | SHORT | other)), log)
    assert said in str(refused.value)
    assert f'market.take_over = "{id_of_feed(log)}"' in str(refused.value)
    assert {key: list(records) for key, records in log.partitions.items()} == before


@pytest.mark.parametrize(
    "other",
    [{"replay_through": "2026-01-06"}, {"replay_session": "2026-01-06", "replay_through": "2026-01-06"}],
    ids=str,
)
async def test_a_feed_that_is_to_play_other_days_ends_the_one_that_it_is_in_first(other: dict[str, object]) -> None:
    log, whole = await half_played(), MemoryLog(2)
    assert await live(GivenMarket(DAYS), settings_of(**(days_of(DAYS[:1]) | SHORT | other)), log)
    assert await live(GivenMarket(DAYS), settings_of(**days_of(DAYS[:2]), **SHORT), whole)
    assert [watermarks(log, partition) for partition in range(2)] == [watermarks(whole, p) for p in range(2)]


async def test_a_feed_of_another_home_is_refused_until_the_first_one_has_played_all_that_it_said(
    tmp_path: Path,
) -> None:
    def at_home(**market: object) -> Settings:
        return settings_of(**SHORT, **market).model_copy(update={"alpha_panda_home": tmp_path})

    log = await half_played(DAYS[:2])
    with pytest.raises(AnotherFeed, match=f"home: {tmp_path}, not "):
        await live(GivenMarket(DAYS), at_home(**days_of(DAYS[2:])), log)
    assert await live(GivenMarket(DAYS), settings_of(**days_of(DAYS[:2]), **SHORT), log)
    assert await live(GivenMarket(DAYS), at_home(**days_of(DAYS[2:])), log)
    assert watermarks(log, 0)[-1] == DAYS[2].session.close_ns + SECOND


async def test_what_a_person_lets_a_feed_take_over_is_on_the_log() -> None:
    log = await half_played()
    taken = told_on(log).feed
    assert taken is not None
    options = settings_of(**days_of(DAYS[:1]), frame_ms=30_000, take_over=taken.event_id[:8])
    assert await live(GivenMarket(DAYS), options, log)
    feed = told_on(log).feed
    assert feed is not None
    assert (feed.frame_ms, feed.took_over, feed.event_time_ns > 0) == (30_000, taken.event_id, True)
    stamps = [stamp_of(record.headers) for record in log.partitions[MARKET_TICKS.name, 0]]
    assert stamps == [Stamp(taken.source, DAYS[0].session.open_ns, number) for number in range(len(stamps))]


async def test_a_session_that_the_store_has_lost_is_ended_by_a_gap_and_only_if_a_person_says_so() -> None:
    log = await half_played()
    plan, taken = days_of(DAYS[1:2]) | SHORT, id_of_feed(log)
    with pytest.raises(SessionLost):
        await live(GivenMarket(DAYS[1:2]), settings_of(**plan), log)
    assert await live(GivenMarket(DAYS[1:2]), settings_of(**plan, take_over=taken), log)
    for partition in range(2):
        (gap,) = [event for event in said(log, MARKET_TICKS, partition) if isinstance(event, MarketGap)]
        assert gap.until_ns == DAYS[0].session.close_ns + SECOND
        assert "its store does not have this session" in gap.reason
        assert watermarks(log, partition)[-1] == DAYS[1].session.close_ns + SECOND


async def test_a_feed_that_follows_does_not_begin_a_session_on_one_that_it_has_lost() -> None:
    log = MemoryLog(2)
    follows = settings_of(follow=True, **SHORT)
    with pytest.raises(Died):
        await live(GivenMarket(DAYS[:1]), follows, log, lives=300)
    with pytest.raises(SessionLost, match="in the middle of the session of 2026-01-05"):
        await live(GivenMarket(DAYS[1:2]), follows, log)


# --- joining late -----------------------------------------------------------------------------------------------------


async def test_a_feed_that_joins_late_tells_the_gap_on_every_partition_before_its_first_row() -> None:
    day = DAYS[0]
    join_ns = ist_ns(day.session.date, dt.time(9, 16, 30))
    log = await played(DAYS[:2], join_at="09:16:30")
    for partition in range(2):
        opening, gap, joined, *rest = said(log, MARKET_TICKS, partition)
        assert isinstance(opening, Watermark)
        assert opening.event_time_ns == day.session.open_ns
        assert isinstance(gap, MarketGap)
        assert (gap.event_time_ns, gap.until_ns) == (day.session.open_ns, join_ns)
        assert "joined at 2026-01-05 09:16:30 IST" in gap.reason
        assert isinstance(joined, Watermark)
        assert joined.event_time_ns == join_ns
        assert not any(isinstance(event, MarketGap) for event in rest), "the second session is joined at its open"
        tables = [e.table for e in rest if isinstance(e, Frame) and e.session == day.session]
        assert all(event_times(table)[0] >= join_ns for table in tables)
    whole = await played(DAYS[:2])
    assert market_on(log)[1] == market_on(whole)[1]


async def test_a_feed_that_joined_late_and_starts_again_tells_no_gap_more() -> None:
    log = MemoryLog(2)
    options = settings_of(join_at="10:00", **SHORT)
    with pytest.raises(Died):
        await live(GivenMarket(DAYS[:1]), options, log, lives=300)
    assert await live(GivenMarket(DAYS[:1]), options, log)
    assert market_on(log) == market_on(await played(DAYS[:1], join_at="10:00", **SHORT))
    assert len([e for e in said(log, MARKET_TICKS, 0) if isinstance(e, MarketGap)]) == 1


async def test_a_feed_that_joins_a_session_again_later_tells_what_it_missed_since_the_log_ends() -> None:
    log = MemoryLog(1)
    with pytest.raises(Died):
        await live(GivenMarket(DAYS[:1]), settings_of(1, **SHORT), log, lives=300)
    end, join_ns = (await ends_on(log, MARKET_TICKS, told_on(log)))[0], DAYS[0].session.close_ns - SECOND
    reached_ns = end.watermark_ns
    options = settings_of(1, join_at="15:29:59", take_over=id_of_feed(log), **SHORT)
    assert await live(GivenMarket(DAYS[:1]), options, log)
    (gap,) = (e for e in said(log, MARKET_TICKS, 0) if isinstance(e, MarketGap))
    assert (gap.event_time_ns, gap.until_ns) == (reached_ns, join_ns)


async def test_a_feed_that_joins_before_the_open_has_missed_nothing() -> None:
    assert market_on(await played(join_at="09:00")) == market_on(await played())


async def test_a_feed_cannot_join_a_session_that_is_over() -> None:
    with pytest.raises(JoinsTooLate, match=r"join_at is 15:30, but the session of 2026-01-05 closes"):
        await played(join_at="15:30")


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
