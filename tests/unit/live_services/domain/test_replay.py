from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from feature_store.market.types import Bars, Ticks
from live_services.domain.replay import Cut, cuts_of_session
from tests.live_world import MINUTE, OPEN, SECOND, SESSION, UNIVERSE, bars, random_walk, ticks

WALK = random_walk(4, minutes=3, per_minute=30, seed=9)
UNPACED: dict[str, Any] = {"frame_ms": 1000, "paced": False}


def cuts(market: Ticks | Bars, partitions: int = 1, frame_ms: int = 1000, paced: bool = False) -> list[Cut]:
    return list(cuts_of_session(market, SESSION, UNIVERSE, partitions, frame_ms=frame_ms, paced=paced))


@pytest.mark.parametrize("frame_ms", [10, 700, 1000, 60_000, 600_000])
@pytest.mark.parametrize("paced", [True, False])
def test_every_tick_is_in_the_one_frame_of_its_time(frame_ms: int, paced: bool) -> None:
    found = cuts(WALK, partitions=3, frame_ms=frame_ms, paced=paced)
    before = 0
    for cut in found:
        for partition, part in enumerate(cut.parts):
            assert isinstance(part, Ticks)
            if not len(part):
                continue
            assert ((part.event_time_ns >= before) & (part.event_time_ns < cut.watermark_ns)).all()
            assert (UNIVERSE.partition_of(part.instrument, 3) == partition).all()
        before = cut.watermark_ns
    assert sum(len(part) for cut in found for part in cut.parts) == len(WALK)


def test_a_session_begins_at_its_open_and_ends_a_second_after_its_close() -> None:
    for market in (WALK, WALK[0:0], bars((0, 0, 1.0, 1.0))):
        found = cuts(market)
        assert (found[0].watermark_ns, found[-1].watermark_ns) == (OPEN, SESSION.close_ns + SECOND)
        assert len(found[0].parts[0]) == len(found[-1].parts[0]) == 0


def test_frames_are_on_the_absolute_grid_and_their_numbers_do_not_repeat() -> None:
    found = [cut for cut in cuts(WALK, frame_ms=700) if len(cut.parts[0])]
    assert all(cut.watermark_ns % 700_000_000 == 0 for cut in found)
    numbers = [cut.number for cut in found]
    assert numbers == sorted(set(numbers))


def test_at_full_speed_an_idle_market_still_passes_every_minute() -> None:
    watermarks = [cut.watermark_ns for cut in cuts(ticks((0, 0.5, 1.0)))]
    assert watermarks[:3] == [OPEN, OPEN + MINUTE, OPEN + 2 * MINUTE]
    assert len(watermarks) == 1 + 374 + 1


def test_at_full_speed_a_busy_minute_is_cut_into_frames_of_equally_many_rows() -> None:
    found = [len(cut.parts[0]) for cut in cuts_of_session(WALK, SESSION, UNIVERSE, 1, **UNPACED, frame_rows=10)]
    frames = [rows for rows in found if rows]
    assert sum(frames) == len(WALK) == 4 * 90
    assert len(frames) == 3 * 12
    assert max(frames) < 20, "as near to ten as a second's grid allows"
    whole = [cut.rows for cut in cuts_of_session(WALK, SESSION, UNIVERSE, 1, **UNPACED, frame_rows=100) if cut.rows]
    assert len(whole) == 3, "a minute at most"
    halves = [cut.rows for cut in cuts_of_session(WALK, SESSION, UNIVERSE, 2, **UNPACED, frame_rows=30) if cut.rows]
    assert len(halves) == 6, "each has thirty rows of both partitions"


def test_paced_an_idle_market_has_a_watermark_every_100_ms() -> None:
    gaps = np.diff([cut.watermark_ns for cut in cuts(ticks((0, 0.5, 1.0)), frame_ms=10, paced=True)][:-1])
    assert gaps.max() <= 100_000_000


def test_bars_are_cut_just_after_each_end() -> None:
    found = cuts(bars((0, 0, 1.0, 1.0), (1, 0, 1.0, 1.0), (0, 2, 1.0, 1.0)))
    assert [(cut.watermark_ns - OPEN, len(cut.parts[0])) for cut in found[1:-1]] == [
        (MINUTE + 1, 2),
        (3 * MINUTE + 1, 1),
    ]


def test_what_is_outside_the_session_is_left_out() -> None:
    close = (SESSION.close_ns - OPEN) / SECOND
    found = cuts(ticks((0, -1, 1.0), (0, 0, 1.0), (0, close, 1.0)))
    assert sum(len(cut.parts[0]) for cut in found) == 1
