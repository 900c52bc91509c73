"""Which sessions a feed plays: a range, what is left of one, what comes later."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from feature_store.market.types import Session
from live_services.domain.topics import MARKET_SESSIONS, MARKET_TICKS
from live_services.runtime.local import MemoryLog
from live_services.services import market_feed
from live_services.services.feed_plan import NothingToReplay, chosen_sessions, replayed_sessions
from live_services.services.market_feed import FeedProgress, LogIsAhead
from live_services.settings import MarketSettings, Settings
from tests.stored_sessions import (
    DAYS,
    SECOND,
    SHORT,
    Died,
    GivenMarket,
    days_of,
    id_of_feed,
    live,
    market_on,
    played,
    settings_of,
    watermarks,
)


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
