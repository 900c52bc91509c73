"""Bars of longer clocks, folded as the short ones come."""

import datetime as dt

import numpy as np
import pytest

from feature_store.bars.builder import aggregate_bars
from feature_store.features.engine import feature_table
from feature_store.features.folding import BarFolder
from feature_store.features.schema import UnknownFeature, feature_schema
from feature_store.market.clocks import BarClock
from feature_store.market.types import MINUTE_NS, Bars, Session, ist_ns
from tests.feature_markets import FeatureMarket, feature_market


@pytest.mark.parametrize("clock", ["5m", "7m", "15m", "60m", "session"])
@pytest.mark.parametrize("step", [1, 13, 100_000])
def test_folded_bars_are_the_aggregated_ones(clock: str, step: int) -> None:
    """Whatever the batches; the last bars of a session without its last minute come with the next session."""
    market = feature_market(9, stocks=2, sessions=3, missing=0.2, odd=True)
    bars, n, longer = market.bars, len(market.universe), BarClock.parse(clock)
    day = np.searchsorted([s.open_ns for s in market.sessions], bars.start_ns, side="right") - 1
    parts = [aggregate_bars(bars[day == k], s, n, longer) for k, s in enumerate(market.sessions)]
    expected = Bars.concatenate(parts)
    folder = BarFolder(n, longer)
    folded = Bars.concatenate([folder.step(bars[begin : begin + step])[0] for begin in range(0, len(bars), step)])
    for i in range(n):
        whole, mine = expected[expected.instrument == i], folded[folded.instrument == i]
        first = bars[bars.instrument == i].start_ns[0]
        begin = int(first != whole.start_ns[0])  # not seen from its start
        assert len(whole) - begin - 1 <= len(mine) <= len(whole) - begin
        for name in Bars.__dataclass_fields__:
            left, right = getattr(mine, name), getattr(whole, name)[begin : begin + len(mine)]
            assert np.array_equal(left, right, equal_nan=name in {"spread_bps", "imbalance"}), name


def one_by_one(day: dt.date, begin: dt.time, minutes: int) -> Bars:
    start = ist_ns(day, begin) + np.arange(minutes) * MINUTE_NS
    price = np.arange(100.0, 100.0 + minutes)
    return Bars(
        np.zeros(minutes, dtype=np.int32), start, start + MINUTE_NS, price, price, price, price,
        np.ones(minutes, dtype=np.int64), np.ones(minutes, dtype=np.int32),
    )  # fmt: skip


def test_a_longer_bar_is_known_from_its_own_end_on_and_not_before() -> None:
    bars = one_by_one(dt.date(2026, 1, 5), dt.time(9, 15), 12)
    closed, known = BarFolder(1, BarClock.parse("5m")).step(bars)
    assert known.tolist() == [0] * 4 + [1] * 5 + [2] * 3
    assert closed.close.tolist() == [104.0, 109.0]


def test_a_longer_bar_that_was_not_seen_from_its_start_is_left_out() -> None:
    bars = one_by_one(dt.date(2026, 1, 5), dt.time(9, 15), 20)
    whole, _ = BarFolder(1, BarClock.parse("5m")).step(bars)
    late, known = BarFolder(1, BarClock.parse("5m")).step(bars[7:])
    assert late.start_ns.tolist() == whole.start_ns[2:].tolist()
    assert known[:8].tolist() == [0] * 7 + [1]


def test_an_evening_session_makes_one_bar_of_itself_and_hours_in_the_same_count() -> None:
    evening, morning = dt.date(2026, 1, 6), dt.date(2026, 1, 7)
    bars = Bars.concatenate(
        [
            one_by_one(dt.date(2026, 1, 5), dt.time(9, 15), 375),
            one_by_one(evening, dt.time(18, 15), 60),
            one_by_one(morning, dt.time(9, 15), 60),
        ]
    )
    sessions, _ = BarFolder(1, BarClock.parse("session")).step(bars)
    assert sessions.volume.tolist() == [375, 60]
    hours, _ = BarFolder(1, BarClock.parse("60m")).step(bars)
    assert hours.volume.tolist() == [60] * 6 + [15, 60, 60]
    assert hours.end_ns[6] == Session.regular(dt.date(2026, 1, 5)).close_ns


def test_a_row_carries_the_newest_closed_longer_bar(market: FeatureMarket) -> None:
    rows, _ = feature_table(market.bars, feature_schema(["last_return@5m"], 1), market.universe)
    stock = market.of("STOCK1")
    closed, known = BarFolder(len(market.universe), BarClock.parse("5m")).step(market.bars)
    for row in stock[[40, 41, 42, 43, 44, 45, 400, 700]]:
        mine = np.flatnonzero(closed.instrument[: known[row]] == market.bars.instrument[row])[-2:]
        before, last = closed.close[mine]
        assert rows[row, 0] == last / before - 1.0
        assert closed.end_ns[mine[-1]] <= market.bars.end_ns[row]


def test_a_recursive_feature_on_session_bars_beside_minutes_is_refused_with_what_it_would_need() -> None:
    with pytest.raises(UnknownFeature, match=r"rsi@session: .* needs 361 sessions"):
        feature_schema(["rsi@session"], 1)
