import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from feature_store.labels.barrier_return import BarrierLabels, BarrierReturn
from feature_store.labels.barriers import NO_TOUCH, STOP, TARGET
from feature_store.labels.forward_return import ForwardReturn
from feature_store.market.types import MINUTE_NS, Bars, MarketDataError, UnknownInstrument
from feature_store.sources.synthetic import synthetic_market
from live_services.domain.money import inr_e4
from tests.live_world import OPEN, SESSION, ranges

N = 3
FOUR = BarrierReturn(4, stop_volatility=0.5, target_volatility=1.0)
"""Of a volatility of 0.01 and a close of 100 rupees: stop at 1 rupee, target at 2."""
STILL = (100.0, 100.4, 99.6, 100.0)


def labelled(
    *rows: tuple[int, float, float, float, float], side: int = 1, label: BarrierReturn = FOUR, volatility: float = 0.01
) -> tuple[BarrierLabels, Bars]:
    """Label bars of (minute, open, high, low, close), all on one side."""
    table = ranges(*((0, *row) for row in rows))
    sides, volatilities = np.full(len(table), side, np.int8), np.full(len(table), volatility)
    return label.of(table, N, [SESSION], sides, volatilities), table


def first(labels: BarrierLabels) -> tuple[int, float, float, float]:
    """Outcome and gain of the first bar's decision, and the minutes of entry and end."""
    entry, end = ((int(time[0]) - OPEN) / MINUTE_NS for time in (labels.entry_ns, labels.label_end_ns))
    return int(labels.outcome[0]), round(float(labels.forward_return[0]), 9), entry, end


# --- how a trade ends -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "bar", "outcome", "price"),
    [
        (1, (100.0, 100.5, 98.9, 99.0), STOP, 99.0),
        (1, (98.5, 99.5, 98.0, 99.0), STOP, 98.5),  # a gap through the stop: at the open
        (1, (100.0, 102.0, 99.5, 101.0), TARGET, 102.0),
        (1, (103.0, 104.0, 102.5, 103.0), TARGET, 102.0),  # never more than its price
        (1, (100.0, 103.0, 98.0, 100.0), STOP, 99.0),  # both in one bar: the stop first
        (-1, (100.0, 101.0, 99.5, 100.0), STOP, 101.0),
        (-1, (102.0, 102.5, 101.5, 102.0), STOP, 102.0),
        (-1, (100.0, 100.5, 98.0, 99.0), TARGET, 98.0),
        (-1, (100.0, 101.5, 97.0, 100.0), STOP, 101.0),
    ],
)
def test_a_touch_ends_the_trade_at_its_price_and_is_known_at_its_bars_end(
    side: int, bar: tuple[float, float, float, float], outcome: int, price: float
) -> None:
    labels, _ = labelled((0, *STILL), (1, *STILL), (2, *bar), *((k, *STILL) for k in range(3, 9)), side=side)
    assert first(labels) == (outcome, round(side * (price / 100.0 - 1.0), 9), 1, 3)


def test_the_entry_bar_counts_from_its_open() -> None:
    labels, _ = labelled((0, *STILL), (1, 100.0, 102.5, 99.9, 102.0), *((k, *STILL) for k in range(2, 9)))
    assert first(labels) == (TARGET, 0.02, 1, 2)


def test_distances_are_from_the_opening_fill_and_in_volatilities_of_the_decision() -> None:
    labels, _ = labelled((0, *STILL), (1, 110.0, 110.5, 109.2, 110.0), (2, 110.0, 110.0, 108.9, 109.0), (3, *STILL))
    assert first(labels) == (STOP, round(109.0 / 110.0 - 1.0, 9), 1, 3)


def test_without_a_touch_time_ends_it_at_the_first_open_at_the_horizon_and_what_that_bar_touches_does_not_count() -> (
    None
):
    labels, _ = labelled(*((k, *STILL) for k in range(5)), (5, 100.5, 110.0, 90.0, 100.0))
    assert first(labels) == (NO_TOUCH, 0.005, 1, 5)


def test_where_the_bar_at_the_horizon_is_missing_it_ends_at_the_next_open_whatever_that_bar_touches() -> None:
    labels, _ = labelled(*((k, *STILL) for k in range(4)), (9, 97.0, 110.0, 90.0, 100.0))
    assert first(labels) == (NO_TOUCH, -0.03, 1, 9)


def test_a_touch_needs_no_bar_at_the_horizon() -> None:
    labels, _ = labelled((0, *STILL), (1, *STILL), (2, 100.0, 100.1, 98.0, 98.5))
    assert first(labels) == (STOP, -0.01, 1, 3)


def test_barriers_far_away_leave_the_forward_return_and_on_the_other_side_its_negative() -> None:
    market = synthetic_market(instruments=N, sessions=2, seed=5, index=False)
    table = Bars.concatenate(market.bars)
    table = table[np.random.default_rng(3).random(len(table)) < 0.6]
    far = BarrierReturn(10, stop_volatility=50.0, target_volatility=50.0)
    held = ForwardReturn(10).of(table, N, market.sessions)
    for side in (1, -1):
        found = far.of(table, N, market.sessions, np.full(len(table), side, np.int8), np.full(len(table), 1e-3))
        np.testing.assert_array_equal(found.forward_return, side * held.forward_return)
        np.testing.assert_array_equal(found.entry_ns, held.entry_ns)
        np.testing.assert_array_equal(found.label_end_ns, held.label_end_ns)


# --- where there is no label ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("side", "volatility"), [(0, 0.01), (1, math.nan), (1, 0.0), (-1, -0.01), (1, math.inf), (1, 1e-9), (1, 0.6)]
)
def test_without_a_side_or_a_barrier_of_some_width_there_is_no_label(side: int, volatility: float) -> None:
    labels, table = labelled(*((k, *STILL) for k in range(9)), side=side, volatility=volatility)
    assert np.isnan(labels.forward_return).all()
    assert (labels.outcome == NO_TOUCH).all()
    np.testing.assert_array_equal(labels.label_end_ns, table.end_ns)
    np.testing.assert_array_equal(labels.entry_ns, table.end_ns)


def test_a_decision_whose_time_would_end_after_the_last_exit_has_none_even_if_a_barrier_ended_it_before() -> None:
    falling = tuple((k, 100.0, 100.0, 98.0, 98.5) for k in range(355, 375))
    labels, table = labelled(*falling)
    last_minute = (table.end_ns[np.isfinite(labels.forward_return)].max() - OPEN) // MINUTE_NS
    assert last_minute == 375 - 10 - FOUR.horizon_bars


def test_an_entry_that_would_come_at_the_horizon_or_later_is_none() -> None:
    labels, _ = labelled((0, *STILL), (5, *STILL), (6, *STILL))
    assert np.isnan(labels.forward_return[0])


@pytest.mark.parametrize(
    ("sides", "volatilities", "told"),
    [
        (np.ones(4, np.int8), np.ones(5), r"5 bars, sides of shape \(4,\)"),
        (np.ones(5, np.int8), np.ones((5, 1)), r"volatilities of \(5, 1\)"),
        (np.full(5, 2, np.int8), np.ones(5), "the side of bar 0 is 2"),
    ],
)
def test_sides_and_volatilities_are_one_for_each_bar(sides: np.ndarray, volatilities: np.ndarray, told: str) -> None:
    table = ranges(*((0, k, *STILL) for k in range(5)))
    with pytest.raises(ValueError, match=told):
        FOUR.of(table, N, [SESSION], sides, volatilities)


def test_bars_that_no_label_can_be_made_of_are_refused_as_for_the_forward_return() -> None:
    table = ranges(*((0, k, *STILL) for k in range(5)))
    sides, volatilities = np.ones(5, np.int8), np.full(5, 0.01)
    with pytest.raises(UnknownInstrument):
        FOUR.of(table, 0, [SESSION], sides, volatilities)
    with pytest.raises(MarketDataError, match="starts before its instrument's bar before it has ended"):
        FOUR.of(table[::-1], N, [SESSION], sides, volatilities)


# --- declaration ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("width", [0.0, -1.0, math.nan, math.inf])
def test_a_barrier_of_no_width_is_refused(width: float) -> None:
    with pytest.raises(ValueError, match="stop_volatility of a label is"):
        BarrierReturn(10, stop_volatility=width)
    with pytest.raises(ValueError, match="target_volatility of a label is"):
        BarrierReturn(10, target_volatility=width)


def test_counts_are_checked_as_those_of_the_forward_return() -> None:
    with pytest.raises(ValueError, match="horizon_bars of a label is 0"):
        BarrierReturn(0)


def test_one_label_has_one_name_and_one_identity() -> None:
    labels = [
        BarrierReturn(10),
        BarrierReturn(10, stop_volatility=1.5),
        BarrierReturn(10, target_volatility=1.5),
        BarrierReturn(10, target_volatility=1.5000001),
        BarrierReturn(11),
        BarrierReturn(10, 5),
        BarrierReturn(10, exit_minutes_before_close=11),
    ]
    assert len({label.name for label in labels}) == len(labels)
    assert len({str(label.identity()) for label in labels}) == len(labels)
    assert str(BarrierReturn(10, stop_volatility=1).identity()) == str(BarrierReturn(10).identity())
    assert BarrierReturn(10, target_volatility=1.5).name == "barrier_return_v1_10x1m_exit10m_stop1.0_target1.5"


@given(st.floats(0.01, 200_000.0), st.floats(1e-7, 0.02))
@example(100.0, 0.00000025)  # half of 1/10,000 rupee
def test_distances_are_rounded_as_money_is(close: float, volatility: float) -> None:
    stop, target = FOUR.distances_inr_e4(np.array([close]), np.array([volatility]))
    width = np.float64(volatility) * 2.0 * close
    expected = inr_e4(float(0.5 * width)), inr_e4(float(1.0 * width))
    assert (int(stop[0]), int(target[0])) == (expected if min(expected) > 0 else (0, 0))
