"""Touches and fills are what a plain search row by row finds, however the market is cut."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from feature_store.labels.barriers import NO_TOUCH, STOP, TARGET, Touch, first_row, first_touch, rows_of
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
NOTHING = Touch(-1, NO_TOUCH, math.nan)
DISTANCES = st.one_of(st.just(math.nan), st.integers(1, 12).map(float))


class Trade(NamedTuple):
    """What `first_touch` is asked, behind the rows."""

    instrument: int
    side: int
    stop: float
    target: float
    from_row: int


@st.composite
def trades(draw: st.DrawFn) -> Trade:
    side, entry = draw(st.sampled_from([1, -1])), draw(PRICES)
    stop, target = entry - side * draw(DISTANCES), entry + side * draw(DISTANCES)
    return Trade(draw(INSTRUMENTS), side, stop, target, draw(st.integers(0, 45)))


TRADES = st.lists(trades(), max_size=20)


def prices(market: Ticks | Bars, row: int) -> tuple[float, float, float]:
    if isinstance(market, Ticks):
        return (float(market.last_price[row]),) * 3
    return float(market.open[row]), float(market.high[row]), float(market.low[row])


def touch(market: Ticks | Bars, trade: Trade) -> Touch:
    """The first touch, by searching the rows one by one in prices seen from the trade's side: up is a gain."""
    side, stop, target = trade.side, trade.side * trade.stop, trade.side * trade.target
    for row in range(trade.from_row, len(market)):
        if market.instrument[row] != trade.instrument:
            continue
        open_, high, low = (side * price for price in prices(market, row))
        worst, best = min(high, low), max(high, low)
        if not math.isnan(stop) and worst <= stop:
            return Touch(row, STOP, side * (open_ if open_ < stop else stop))
        if not math.isnan(target) and best >= target:
            return Touch(row, TARGET, side * target)
    return NOTHING


@given(TABLES, TRADES)
def test_touches_are_those_of_a_search_row_by_row(market: Ticks | Bars, asked: list[Trade]) -> None:
    rows = rows_of(market, N)
    for trade in asked:
        np.testing.assert_equal(first_touch(rows, *trade), touch(market, trade))


@given(TABLES, TRADES, st.lists(st.integers(0, 40), max_size=4).map(sorted))
def test_a_market_in_parts_touches_as_the_whole_does(market: Ticks | Bars, asked: list[Trade], cuts: list[int]) -> None:
    edges = [0, *(min(cut, len(market)) for cut in cuts), len(market)]
    parts = [(first, rows_of(market[first:end], N)) for first, end in itertools.pairwise(edges)]
    for trade in asked:
        found = NOTHING
        for first, rows in parts:
            part = first_touch(rows, *trade._replace(from_row=max(trade.from_row - first, 0)))
            if part.outcome != NO_TOUCH:
                found = part._replace(row=part.row + first)
                break
        np.testing.assert_equal(found, first_touch(rows_of(market, N), *trade))


@given(TABLES, st.lists(st.tuples(INSTRUMENTS, st.integers(-1, 60)), max_size=20))
def test_orders_fill_at_the_first_row_that_their_time_allows(
    market: Ticks | Bars, orders: list[tuple[int, int]]
) -> None:
    unit_ns = 1 if isinstance(market, Ticks) else MINUTE_NS // 3
    rows = rows_of(market, N)

    def allowed(row: int, instrument: int, time_ns: int) -> bool:
        if market.instrument[row] != instrument:
            return False
        if isinstance(market, Ticks):
            return bool(market.event_time_ns[row] > time_ns)
        return bool(market.start_ns[row] >= time_ns)

    for instrument, units in orders:
        at_ns = units * unit_ns
        expected = next((row for row in range(len(market)) if allowed(row, instrument, at_ns)), -1)
        assert first_row(rows, instrument, at_ns) == expected
