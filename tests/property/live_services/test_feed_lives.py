"""Five sessions of the feed: one life and many say the same, byte for byte and offset for offset."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import cache
from unittest.mock import patch

import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feature_store.market.types import MINUTE_NS, Ticks
from live_services.domain.log import event_times
from live_services.domain.replay import cuts_of_session
from live_services.runtime.local import MemoryLog
from live_services.services import market_feed
from tests.stored_sessions import Died, GivenMarket, day_of_bars, day_of_ticks, days_of, live, market_on, settings_of

TICK_DAYS = tuple(day_of_ticks(day, minutes=2) for day in range(5))
BAR_DAYS = tuple(day_of_bars(day) for day in range(5))


@cache
def one_life(feed: str, partitions: int, frame_ms: int, join_at: str) -> MemoryLog:
    days = TICK_DAYS if feed == "ticks" else BAR_DAYS
    log = MemoryLog(partitions)
    options = settings_of(partitions, feed=feed, frame_ms=frame_ms, join_at=join_at, **days_of(days))
    assert asyncio.run(live(GivenMarket(days), options, log))
    return log


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["ticks", "bars"]),
    st.sampled_from([1, 2, 4]),
    st.sampled_from([1000, 7000, 60_000]),
    st.sampled_from(["", "09:16"]),
    st.lists(st.integers(0, 1500), max_size=6),
    st.integers(1, 300),
)
@example("ticks", 2, 1000, "", [0, 1, 2, 3, 4, 5], 1)
@example("ticks", 2, 1000, "09:16", [1, 3, 4, 5, 6, 9], 1)
def test_a_restart_at_any_point_changes_nothing(
    feed: str, partitions: int, frame_ms: int, join_at: str, lives: list[int], unflushed: int
) -> None:
    days, log = TICK_DAYS if feed == "ticks" else BAR_DAYS, MemoryLog(partitions)
    options = settings_of(partitions, feed=feed, frame_ms=frame_ms, join_at=join_at, **days_of(days))
    with patch.object(market_feed, "_MAX_UNFLUSHED", unflushed):
        for records in lives:
            try:
                asyncio.run(live(GivenMarket(days), options, log, lives=records))
            except Died:
                continue
        assert asyncio.run(live(GivenMarket(days), options, log))
    assert log.partitions == one_life(feed, partitions, frame_ms, join_at).partitions


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([1, 2]), st.sampled_from(["ticks", "bars"]))
def test_five_sessions_in_one_life_equal_five_lives_of_one_session(partitions: int, feed: str) -> None:
    days, log = TICK_DAYS if feed == "ticks" else BAR_DAYS, MemoryLog(partitions)
    for day in days:
        options = settings_of(partitions, feed=feed, replay_session=day.session.date.isoformat())
        assert asyncio.run(live(GivenMarket(days), options, log))
    assert market_on(log) == market_on(one_life(feed, partitions, 1000, ""))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 4), st.sampled_from([1, 2, 4]), st.sampled_from([10, 700, 1000, 60_000]), st.booleans())
def test_the_cuts_of_a_session_are_the_same_at_every_replay(day: int, n: int, frame_ms: int, paced: bool) -> None:
    replay = TICK_DAYS[day]
    session = replace(replay.session, close_ns=replay.session.open_ns + 3 * MINUTE_NS)

    def cut(market: Ticks) -> list[tuple[int, int, list[str]]]:
        found = cuts_of_session(market, session, replay.universe, n, frame_ms=frame_ms, paced=paced)
        return [(c.watermark_ns, c.number, [part.digest() for part in c.parts]) for c in found]

    assert isinstance(replay.market, Ticks)
    whole = cut(replay.market)
    assert cut(replay.market) == whole
    numbers = [number for _, number, _ in whole[1:]]
    assert numbers == sorted(set(numbers))
    # What comes later in a session changes none of the cuts before it.
    times = event_times(replay.market)
    half_ns = int(times[len(times) // 2])
    first_half = [c for c in cut(replay.market[times < half_ns]) if c[0] <= half_ns]
    assert first_half == [c for c in whole if c[0] <= half_ns]
    assert np.all(np.diff([watermark for watermark, _, _ in whole]) > 0)
