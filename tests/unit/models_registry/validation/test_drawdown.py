import numpy as np
import pandas as pd
import pytest
import quantstats.stats as quantstats_stats

from models_registry.validation.drawdown import drawdown


def test_the_deepest_fall_is_measured_from_the_highest_value_before_it():
    found = drawdown(np.array([10.0, 30.0, 20.0, 5.0, 25.0, 30.0, 28.0]))
    assert (found.largest_inr, found.peak, found.trough, found.recovered) == (25.0, 1, 3, 5)
    assert found.longest_under_water == 3
    assert found.depth_inr.tolist() == [0.0, 0.0, 10.0, 25.0, 5.0, 0.0, 2.0]


def test_a_record_that_begins_with_a_loss_has_fallen_from_its_start():
    found = drawdown(np.array([-5.0, -7.0, 1.0]))
    assert (found.largest_inr, found.peak, found.trough, found.recovered) == (7.0, -1, 1, 2)
    assert drawdown(np.array([95.0, 90.0]), start_inr=100.0).largest_inr == 10.0


def test_what_was_never_made_good_says_so():
    assert drawdown(np.array([5.0, 1.0, 4.0])).recovered is None


@pytest.mark.parametrize("equity", [[], [1.0, 2.0, 3.0], [0.0, 0.0]])
def test_equity_that_never_fell_has_no_drawdown(equity):
    found = drawdown(np.array(equity))
    assert (found.largest_inr, found.peak, found.trough, found.recovered) == (0.0, -1, -1, None)
    assert found.longest_under_water == 0


def test_as_a_share_of_the_peak_it_is_quantstats():
    equity = 1_000.0 + np.cumsum(np.random.default_rng(1).normal(0.0, 5.0, 200))
    found = drawdown(equity, start_inr=1_000.0)
    returns = pd.Series(
        np.diff(equity, prepend=1_000.0) / np.concatenate([[1_000.0], equity[:-1]]),
        pd.date_range("2026-01-01", periods=200),
    )
    share = found.depth_inr / np.maximum.accumulate(np.maximum(equity, 1_000.0))
    assert -share.max() == pytest.approx(quantstats_stats.max_drawdown(returns))
