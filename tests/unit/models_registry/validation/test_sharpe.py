import dataclasses
import math

import numpy as np
import purgedcv
import pytest
from arch.bootstrap import StationaryBootstrap
from scipy import stats

from models_registry.validation.sharpe import (
    Sharpe,
    deflated_sharpe,
    expected_maximum_sharpe,
    minimum_track_record_sessions,
    probabilistic_sharpe,
    sharpe_ratio,
    trial_variance,
)


def record(n=250, mean=0.1, seed=1, draw="normal"):
    random = np.random.default_rng(seed)
    noise = random.normal(size=n) if draw == "normal" else random.standard_t(5, n) / math.sqrt(5 / 3)
    return 1_000.0 * (mean + noise)


def of_purgedcv(pnl) -> Sharpe:
    """The same record with purgedcv's moments: deviation by n, skew and kurtosis corrected for bias."""
    found = purgedcv.deflated_sharpe_ratio_full(pnl, 1, 0.0)
    ratio, skew, kurtosis, n = found.observed_sr, found.skew, found.kurt, found.n_obs
    error = math.sqrt((1 - skew * ratio + (kurtosis - 1) / 4 * ratio**2) / (n - 1))
    return Sharpe(ratio, ratio * 250**0.5, error, n, skew, kurtosis, 0.0)


def test_the_ratio_is_mean_over_deviation_and_has_no_unit():
    pnl = record()
    found, in_paise = sharpe_ratio(pnl), sharpe_ratio(100 * pnl)
    assert found.per_session == pytest.approx(pnl.mean() / pnl.std(ddof=1))
    assert found.annual == pytest.approx(found.per_session * math.sqrt(250))
    assert found.annual_standard_error == pytest.approx(found.standard_error * math.sqrt(250))
    assert (found.n, found.skew) == (250, pytest.approx(stats.skew(pnl)))
    assert found.kurtosis == pytest.approx(stats.kurtosis(pnl, fisher=False))
    assert in_paise.per_session == pytest.approx(found.per_session)


def test_of_a_normal_record_the_standard_error_is_los():
    found = sharpe_ratio(record(n=20_000, mean=0.5))
    assert found.standard_error == pytest.approx(math.sqrt((1 + 0.5 * 0.5**2) / 20_000), rel=0.02)


@pytest.mark.parametrize("draw", ["normal", "fat tails"])
def test_the_standard_error_is_about_that_of_a_stationary_bootstrap(draw):
    pnl = record(n=500, draw=draw)
    resampled = StationaryBootstrap(5, pnl, seed=3)
    by_bootstrap = math.sqrt(resampled.var(lambda x: x.mean() / x.std(ddof=1), reps=600)[0])
    assert sharpe_ratio(pnl).standard_error == pytest.approx(by_bootstrap, rel=0.15)


def test_sessions_that_hang_together_are_shown_and_make_the_standard_error_too_small():
    noise = np.random.default_rng(2).normal(size=4_001)
    pnl = 0.05 + noise[1:] + 0.8 * noise[:-1]
    found = sharpe_ratio(pnl)
    assert found.autocorrelation == pytest.approx(0.8 / 1.64, abs=0.05)
    resampled = StationaryBootstrap(20, pnl, seed=3)
    by_bootstrap = math.sqrt(resampled.var(lambda x: x.mean() / x.std(ddof=1), reps=200)[0])
    assert by_bootstrap > 1.2 * found.standard_error


def test_the_interval_holds_the_true_ratio_about_as_often_as_it_says():
    random = np.random.default_rng(4)
    held = 0
    for _ in range(600):
        found = sharpe_ratio(random.normal(0.1, 1.0, 45))
        held += abs(found.per_session - 0.1) < 1.96 * found.standard_error
    assert 0.92 < held / 600 < 0.98


@pytest.mark.parametrize("draw", ["normal", "fat tails"])
def test_the_probabilistic_ratio_is_purgedcvs(draw):
    pnl = record(n=60, draw=draw)
    assert probabilistic_sharpe(of_purgedcv(pnl), 0.05) == pytest.approx(
        purgedcv.probabilistic_sharpe_ratio(pnl, 0.05), abs=1e-12
    )
    assert probabilistic_sharpe(sharpe_ratio(pnl), 0.05) == pytest.approx(
        purgedcv.probabilistic_sharpe_ratio(pnl, 0.05), abs=0.01
    )  # its moments are corrected for bias, ours are not


@pytest.mark.parametrize("n_trials", [1, 2, 8, 100])
def test_the_deflated_ratio_is_purgedcvs(n_trials):
    pnl = record()
    other = purgedcv.deflated_sharpe_ratio_full(pnl, n_trials, 0.004)
    found = deflated_sharpe(pnl, n_trials=n_trials, variance_of_trials=0.004)
    assert found.benchmark == pytest.approx(other.sr_star, rel=1e-12)
    assert found.probability == pytest.approx(other.dsr, abs=0.005)
    assert probabilistic_sharpe(of_purgedcv(pnl), found.benchmark) == pytest.approx(other.dsr, abs=1e-12)


@pytest.mark.parametrize(("n_trials", "error"), [(2, 0.08), (3, 0.03), (5, 0.03), (20, 0.03), (200, 0.03)])
def test_the_expected_maximum_is_about_that_of_so_many_normal_draws(n_trials, error):
    grid = np.linspace(-8, 8, 20_001)
    exact = np.trapezoid(grid * n_trials * stats.norm.pdf(grid) * stats.norm.cdf(grid) ** (n_trials - 1), grid)
    assert expected_maximum_sharpe(1.0, n_trials) == pytest.approx(exact, rel=error)


def test_more_trials_raise_the_benchmark_and_one_needs_none():
    found = [expected_maximum_sharpe(0.01, n) for n in (0, 1, 1.2, 1.5, 2, 2.5, 3, 10, 100)]
    assert found[:2] == [0.0, 0.0]
    assert found == sorted(found)


def test_the_best_of_many_noise_strategies_passes_in_fewer_than_one_in_twenty():
    random = np.random.default_rng(5)
    passed = 0
    for _ in range(200):
        trials = random.standard_t(4, (45, 20))
        best = int(np.argmax(trials.mean(axis=0) / trials.std(axis=0)))
        found = deflated_sharpe(trials[:, best], n_trials=20, variance_of_trials=trial_variance(trials))
        passed += found.probability >= 0.95
    assert passed <= 10


def test_an_edge_that_is_large_enough_passes_in_spite_of_its_trials():
    trials = np.random.default_rng(6).normal(size=(250, 20))
    trials[:, 7] += 0.5
    assert deflated_sharpe(trials[:, 7], n_trials=20, variance_of_trials=trial_variance(trials)).probability > 0.95


@pytest.mark.parametrize("benchmark", [0.0, 0.05])
def test_the_minimum_track_record_is_purgedcvs_and_enough(benchmark):
    found = sharpe_ratio(record(n=120, mean=0.15))
    needed = minimum_track_record_sessions(found, benchmark)
    assert needed == purgedcv.min_track_record_length(found.per_session, benchmark, 0.05, found.skew, found.kurtosis)
    enough = dataclasses.replace(found, standard_error=found.standard_error * math.sqrt(119 / (needed - 1)))
    assert 0.95 <= probabilistic_sharpe(enough, benchmark) < 0.952


def test_the_more_trials_the_longer_the_record_must_be_until_the_deflated_ratio_passes():
    found = sharpe_ratio(record(n=45, mean=0.2))
    needed = [minimum_track_record_sessions(found, n_trials=n) for n in (1, 2, 10, 100)]
    assert needed == sorted(set(needed))
    longer = dataclasses.replace(found, standard_error=found.standard_error * math.sqrt(44 / (needed[2] - 1)))
    benchmark = expected_maximum_sharpe(1 / (needed[2] - 1), 10)
    assert 0.95 <= probabilistic_sharpe(longer, benchmark) < 0.955


def test_what_is_no_better_than_the_benchmark_never_has_a_long_enough_record():
    assert minimum_track_record_sessions(sharpe_ratio(-np.abs(record()))) == math.inf


@pytest.mark.parametrize("pnl", [[], [1.0, 2.0], [0.0] * 20, [0.1] * 20])
def test_a_record_that_is_too_short_or_never_varies_has_no_ratio(pnl):
    found = sharpe_ratio(np.array(pnl))
    assert math.isnan(found.per_session)
    assert math.isnan(probabilistic_sharpe(found))
    assert math.isnan(minimum_track_record_sessions(found))
    assert math.isnan(deflated_sharpe(np.array(pnl), n_trials=3, variance_of_trials=0.1).probability)


def test_a_hole_in_the_record_is_no_zero():
    with pytest.raises(ValueError, match="a session without trades has 0"):
        sharpe_ratio(np.array([1.0, np.nan, 2.0]))


def test_the_best_of_noise_strategies_that_are_nearly_one_passes_no_oftener():
    random = np.random.default_rng(7)
    passed = 0
    for _ in range(600):
        trials = math.sqrt(0.9) * random.normal(size=(32, 1)) + math.sqrt(0.1) * random.normal(size=(32, 10))
        best = int(np.argmax(trials.mean(axis=0) / trials.std(axis=0)))
        found = deflated_sharpe(trials[:, best], n_trials=1.9, variance_of_trials=trial_variance(trials))
        passed += found.probability >= 0.95
    assert passed / 600 < 0.075


def test_the_variance_of_trials_is_that_of_their_ratios_and_no_less_than_lucks():
    pnl = np.stack([record(seed=1, mean=0.5), record(seed=2, mean=-0.5), np.zeros(250)], axis=1)
    ratios = [sharpe_ratio(pnl[:, column]).per_session for column in (0, 1)]
    assert trial_variance(pnl) == pytest.approx(np.var(ratios, ddof=1))  # what never traded has no ratio
    assert trial_variance(pnl[:, 1:]) == 1 / 249
    assert trial_variance(np.repeat(pnl[:, :1], 5, axis=1)) == 1 / 249
