"""A feed on a log that another one has begun, and one that joins a session late."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import pytest

from feature_store.market.types import ist_ns
from live_services.adapters.stored_market import Replay
from live_services.domain.events import MarketGap, Watermark
from live_services.domain.frames import Frame
from live_services.domain.log import event_times
from live_services.domain.sequence import Stamp, stamp_of
from live_services.domain.topics import MARKET_TICKS
from live_services.runtime.local import MemoryLog
from live_services.services.feed_plan import AnotherFeed
from live_services.services.market_feed import JoinsTooLate, SessionLost
from live_services.settings import Settings
from tests.stored_sessions import (
    DAYS,
    SECOND,
    SHORT,
    Died,
    GivenMarket,
    days_of,
    ends_on,
    id_of_feed,
    live,
    market_on,
    played,
    said,
    settings_of,
    told_on,
    watermarks,
)

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
