"""Touches and fills are what a plain search row by row finds, however the market is cut."""

from __future__ import annotations

import itertools
import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from feature_store.labels.barriers import NO_TOUCH, STOP, TARGET, Touches, Watches, first_rows, first_touches
from feature_store.market.types import MINUTE_NS, Bars, Ticks

N = 3
INSTRUMENTS = st.integers(0, N - 1)
PRICES = st.integers(90, 110).map(float)  # few, so that many are reached exactly, jumped over, or both in one bar


@st.composite
def tick_tables(draw: st.DrawFn) -> Ticks:
    rows = draw(st.lists(st.tuples(INSTRUMENTS, st.integers(0, 3), PRICES), max_size=40))
    instrument, gap, price = zip(*rows, strict=True) if rows else ((), (), ())
    return Ticks(
        np.array(instrument, np.int32),
        np.cumsum(np.array(gap, np.int64)),
        np.array(price),
        np.zeros(len(rows), np.int64),
    )


@st.composite
def bar_tables(draw: st.DrawFn) -> Bars:
    """One-minute bars in order of (end, instrument); some are missing."""
    places = sorted(draw(st.sets(st.tuples(st.integers(0, 15), INSTRUMENTS), max_size=40)))
    prices = [sorted(draw(st.tuples(PRICES, PRICES, PRICES))) for _ in places]  # low, open, high
    low, open_, high = np.array(prices).reshape(-1, 3).T
    start = np.array([minute for minute, _ in places], np.int64) * MINUTE_NS
    count = np.zeros(len(places), np.int64)
    instrument = np.array([i for _, i in places], np.int32)
    return Bars(instrument, start, start + MINUTE_NS, open_, high, low, open_, count, count.astype(np.int32))


TABLES = st.one_of(tick_tables(), bar_tables())
DISTANCES = st.one_of(st.just(math.nan), st.integers(1, 12).map(float))


@st.composite
def watch_lists(draw: st.DrawFn) -> Watches:
    one = st.tuples(INSTRUMENTS, st.sampled_from([1, -1]), PRICES, DISTANCES, DISTANCES, st.integers(0, 45))
    rows = draw(st.lists(one, max_size=20))
    return Watches(
        np.array([i for i, *_ in rows], np.int32),
        np.array([side for _, side, *_ in rows], np.int8),
        np.array([entry - side * down for _, side, entry, down, _, _ in rows], np.float64),
        np.array([entry + side * up for _, side, entry, _, up, _ in rows], np.float64),
        np.array([row for *_, row in rows], np.int64),
    )


def prices(market: Ticks | Bars, row: int) -> tuple[float, float, float]:
    if isinstance(market, Ticks):
        return (float(market.last_price[row]),) * 3
    return float(market.open[row]), float(market.high[row]), float(market.low[row])


def touch(market: Ticks | Bars, watches: Watches, k: int) -> tuple[int, int, float]:
    """The first touch, by searching the rows one by one in prices seen from the trade's side: up is a gain."""
    side = int(watches.side[k])
    stop, target = side * float(watches.stop[k]), side * float(watches.target[k])
    for row in range(int(watches.from_row[k]), len(market)):
        if market.instrument[row] != watches.instrument[k]:
            continue
        open_, high, low = (side * price for price in prices(market, row))
        worst, best = min(high, low), max(high, low)
        if not math.isnan(stop) and worst <= stop:
            return row, STOP, side * (open_ if open_ < stop else stop)
        if not math.isnan(target) and best >= target:
            return row, TARGET, side * target
    return -1, NO_TOUCH, math.nan


def of_rows(found: list[tuple[int, int, float]]) -> Touches:
    return Touches(
        np.array([row for row, _, _ in found], np.int64),
        np.array([outcome for _, outcome, _ in found], np.int8),
        np.array([price for _, _, price in found], np.float64),
    )


def assert_equal(found: Touches, expected: Touches) -> None:
    for name, column, wanted in zip(Touches._fields, found, expected, strict=True):
        assert column.dtype == wanted.dtype
        np.testing.assert_array_equal(column, wanted, err_msg=name)


@given(TABLES, watch_lists())
def test_touches_are_those_of_a_search_row_by_row(market: Ticks | Bars, watches: Watches) -> None:
    expected = of_rows([touch(market, watches, k) for k in range(len(watches.side))])
    assert_equal(first_touches(market, N, watches), expected)


@given(TABLES, watch_lists(), st.lists(st.integers(0, 40), max_size=4).map(sorted))
def test_a_market_in_parts_touches_as_the_whole_does(market: Ticks | Bars, watches: Watches, cuts: list[int]) -> None:
    n = len(watches.side)
    row, outcome, price = np.full(n, -1), np.zeros(n, np.int8), np.full(n, math.nan)
    edges = [0, *(min(cut, len(market)) for cut in cuts), len(market)]
    for first, end in itertools.pairwise(edges):
        waiting = np.flatnonzero(outcome == NO_TOUCH)
        left = Watches(*(column[waiting] for column in watches))
        part = first_touches(market[first:end], N, left._replace(from_row=np.maximum(left.from_row - first, 0)))
        row[waiting] = np.where(part.row < 0, -1, part.row + first)
        outcome[waiting], price[waiting] = part.outcome, part.price
    assert_equal(Touches(row, outcome, price), first_touches(market, N, watches))


@given(TABLES, st.lists(st.tuples(INSTRUMENTS, st.integers(-1, 60)), max_size=20))
def test_orders_fill_at_the_first_row_that_their_time_allows(
    market: Ticks | Bars, orders: list[tuple[int, int]]
) -> None:
    instrument = np.array([i for i, _ in orders], np.int32)
    unit_ns = 1 if isinstance(market, Ticks) else MINUTE_NS // 3
    times = np.array([time for _, time in orders], np.int64) * unit_ns

    def allowed(row: int, k: int) -> bool:
        if market.instrument[row] != instrument[k]:
            return False
        if isinstance(market, Ticks):
            return bool(market.event_time_ns[row] > times[k])
        return bool(market.start_ns[row] >= times[k])

    expected = [next((r for r in range(len(market)) if allowed(r, k)), -1) for k in range(len(orders))]
    assert first_rows(market, N, instrument, times).tolist() == expected
