import math

import numpy as np
import pytest
from purgedcv import probability_of_backtest_overfitting

from models_registry.validation.overfitting import NotApplicable, Overfitting, probability_of_overfitting


def noise(sessions=64, configurations=10, seed=1):
    return np.random.default_rng(seed).normal(size=(sessions, configurations))


def of_deviation_by_n_less_one(slice_):
    return slice_.mean() / slice_.std(ddof=1)


@pytest.mark.parametrize(("sessions", "configurations"), [(64, 10), (67, 6)])
def test_it_is_purgedcvs_with_the_same_ratio(sessions, configurations):
    pnl = noise(sessions, configurations)
    found = probability_of_overfitting(pnl)
    other = probability_of_backtest_overfitting(pnl.T, 8, metric=of_deviation_by_n_less_one)
    assert isinstance(found, Overfitting)
    assert len(found.logits) == other.n_combos == math.comb(8, 4)
    assert found.probability == pytest.approx(other.pbo)
    assert found.degradation == pytest.approx(other.slope)
    np.testing.assert_allclose(np.sort(found.logits), np.sort(other.logits))
    assert found.loss_probability == np.mean(other.is_oos_performance[:, 1] <= 0.0)


def test_the_median_itself_counts_half_where_purgedcv_lets_it_pass():
    pnl = noise(configurations=7)
    found = probability_of_overfitting(pnl)
    other = probability_of_backtest_overfitting(pnl.T, 8, metric=of_deviation_by_n_less_one)
    assert (found.logits == 0.0).any()
    assert found.probability == pytest.approx(other.pbo + np.mean(other.logits == 0.0) / 2)


def test_of_noise_it_is_a_half_on_average():
    found = [probability_of_overfitting(noise(32, 20, seed)).probability for seed in range(150)]
    assert np.mean(found) == pytest.approx(0.5, abs=0.06)


def test_a_configuration_with_an_edge_is_found_again_in_the_other_half():
    pnl = noise(64, 10)
    pnl[:, 3] += 1.0
    found = probability_of_overfitting(pnl)
    assert found.probability < 0.02
    assert found.loss_probability == 0.0


def test_an_edge_that_lives_in_one_half_only_is_overfitting():
    pnl = noise(64, 10)
    for block in range(8):  # each configuration shines in one block and loses as much in the seven others
        pnl[8 * block : 8 * block + 8, block] += 7.0
        pnl[:, block] -= 7.0 / 8
    assert probability_of_overfitting(pnl).probability > 0.7


@pytest.mark.parametrize(
    ("pnl", "reason"),
    [
        (noise(64, 5), "5 different configurations, at least 6 are needed"),
        (np.repeat(noise(64, 5), 3, axis=1), "5 different configurations"),
        (noise(23, 10), "23 sessions, at least 24 are needed for 8 blocks"),
        (np.empty((0, 0)), "0 different configurations"),
    ],
)
def test_few_configurations_or_sessions_are_no_number(pnl, reason):
    found = probability_of_overfitting(pnl)
    assert isinstance(found, NotApplicable)
    assert reason in found.reason


def test_configurations_that_never_trade_are_worth_nothing_and_break_nothing():
    pnl = noise(32, 8)
    pnl[:16, 0] = 0.0
    pnl[:, 1] = 0.0
    pnl[:, 2] = 0.1
    found = probability_of_overfitting(pnl)
    assert found.configurations == 8
    assert np.isfinite(found.logits).all()


def test_an_odd_number_of_blocks_and_a_hole_in_a_record_are_refused():
    with pytest.raises(ValueError, match="blocks must be even"):
        probability_of_overfitting(noise(), blocks=7)
    with pytest.raises(ValueError, match="a session without trades has 0"):
        probability_of_overfitting(np.where(noise() > 2.0, np.nan, noise()))
