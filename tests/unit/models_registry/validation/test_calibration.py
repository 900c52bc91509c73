import math

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from models_registry.validation.calibration import brier, calibration


def rows(sessions=30, each=100, seed=1, spread=0.0):
    """Outcomes that come as they are said, but for what a whole session shares."""
    random = np.random.default_rng(seed)
    day = np.repeat(np.arange(sessions), each)
    score = random.uniform(0.2, 0.8, len(day))
    rate = np.clip(score + spread * random.normal(size=sessions)[day], 0.0, 1.0)
    return score, (random.random(len(day)) < rate).astype(float), np.ones(len(day)), day


def test_the_table_is_scikit_learns():
    score, up, weight, day = rows()
    found = calibration(score, up, weight, day)
    rate, mean = calibration_curve(up, score, n_bins=10, strategy="quantile")
    np.testing.assert_allclose([one.rate for one in found.table], rate, atol=0.01)
    np.testing.assert_allclose([one.mean_score for one in found.table], mean, atol=0.002)
    assert sum(one.rows for one in found.table) == len(score)
    assert sum(one.weight for one in found.table) == pytest.approx(1.0)
    assert found.expected_error < 0.05


def test_brier_is_scikit_learns_and_halves_count_to_both_sides():
    score, up, weight, _ = rows()
    weight = np.random.default_rng(2).random(len(up))
    assert brier(score, up, weight) == pytest.approx(brier_score_loss(up, score, sample_weight=weight))
    split = (np.repeat(score[:9], 2), np.tile([0.0, 1.0], 9), np.repeat(weight[:9] / 2, 2))
    assert brier(score[:9], np.full(9, 0.5), weight[:9]) == pytest.approx(brier(*split))


def test_scores_that_are_too_sure_show_as_error_and_cost_more_than_the_base_rate():
    _, up, weight, day = rows()
    found = calibration(np.where(up > 0.5, 0.05, 0.95), up, weight, day)
    assert len(found.table) == 2
    assert found.expected_error > 0.9
    assert found.brier > found.base_rate_brier


@pytest.mark.parametrize("spread", [0.0, 0.15])
def test_intervals_hold_what_is_true_although_sessions_share_their_luck(spread):
    held, bins = 0, 0
    for seed in range(60):
        found = calibration(*rows(sessions=12, each=80, seed=seed, spread=spread), bins=5)
        held += sum(one.lower <= one.mean_score <= one.upper for one in found.table)
        bins += len(found.table)
    assert 0.88 < held / bins <= 1.0


def test_of_two_sessions_there_is_no_interval():
    found = calibration(*rows(sessions=2), bins=3)
    assert all(math.isnan(one.lower) and math.isnan(one.upper) for one in found.table)


def test_a_score_that_never_varies_is_one_bin():
    _, up, weight, day = rows()
    found = calibration(np.full(len(up), 0.5), up, weight, day)
    assert [one.rows for one in found.table] == [len(up)]
    assert found.brier == pytest.approx(0.25)


def test_without_rows_there_is_nothing_to_say():
    with pytest.raises(ValueError, match="there are no rows"):
        calibration(*(np.empty(0) for _ in range(3)), np.empty(0, dtype=np.int64))
