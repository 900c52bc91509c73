import math

import numpy as np
import pytest

from models_registry.validation.capacity import capacity, turnover


def test_capacity_is_the_notional_at_which_the_tolerated_share_lies_above_the_limit():
    value = np.arange(1, 101) * 1e6
    found = capacity(np.full(100, 50_000.0), value)
    assert found.largest_notional_inr == pytest.approx(0.01 * value[4])  # at more, six of a hundred bars are too small
    assert np.mean(found.largest_notional_inr > 0.01 * value) <= 0.05
    assert found.scale == pytest.approx(1.0)
    assert found.share_above_limit == pytest.approx(0.04)
    assert found.median_participation == pytest.approx(50_000 / 50e6, rel=0.03)
    assert (found.trades, found.unknown) == (100, 0)


def test_trades_of_unlike_size_are_scaled_together():
    found = capacity(np.array([1e4, 2e4]), np.array([1e7, 1e7]))
    assert found.scale == pytest.approx(5.0)


def test_a_bar_in_which_nothing_was_traded_has_room_for_nothing():
    found = capacity(np.array([1e4]), np.array([0.0]))
    assert (found.largest_notional_inr, found.scale, found.share_above_limit) == (0.0, 0.0, 1.0)
    assert found.median_participation == math.inf


def test_bars_whose_value_is_not_known_are_counted():
    found = capacity(np.array([1e4, 1e4]), np.array([np.nan, 1e8]))
    assert (found.trades, found.unknown) == (1, 1)
    none = capacity(np.array([1e4]), np.array([np.nan]))
    assert (none.trades, none.unknown) == (0, 1)
    assert math.isnan(none.largest_notional_inr)


@pytest.mark.parametrize(("notional", "value"), [(0.0, 1.0), (-1.0, 1.0), (np.nan, 1.0), (1.0, -1.0)])
def test_what_is_no_trade_is_refused(notional, value):
    with pytest.raises(ValueError, match="positive number of rupees"):
        capacity(np.array([notional]), np.array([value]))


def test_turnover_counts_every_fill_and_every_session():
    found = turnover(np.array([100.0, 110.0, 50.0]), np.array([5, 5, 7]), np.array([5, 6, 7]))
    assert found.by_session_inr.tolist() == [210.0, 0.0, 50.0]
    assert (found.mean_inr, found.largest_inr, found.total_inr) == (pytest.approx(260 / 3), 210.0, 260.0)


def test_turnover_of_no_fills_is_none():
    none = np.empty(0), np.empty(0, dtype=np.int64)
    assert turnover(*none, np.array([5, 6])).mean_inr == 0.0
    assert turnover(*none, np.empty(0, dtype=np.int64)).mean_inr == 0.0


def test_a_fill_of_a_session_that_is_not_in_the_record_is_refused():
    with pytest.raises(ValueError, match="give every session of the record"):
        turnover(np.array([1.0]), np.array([9]), np.array([5, 6]))
