from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from models_registry.validation.statistics import (
    Bound,
    auc,
    direction,
    has_skill,
    lean,
    log_loss,
    ranking,
    ranking_difference,
    skill,
    smallest_visible_edge,
)


def scores(sessions: int = 20, rows: int = 200, edge: float = 0.0, seed: int = 7) -> tuple[np.ndarray, ...]:
    """Scores, outcomes, base rates, weights and days; outcomes follow the scores as far as ``edge`` says."""
    rng = np.random.default_rng(seed)
    n = sessions * rows
    x = rng.standard_normal(n)
    score = 1.0 / (1.0 + np.exp(-0.3 * x))
    up = (rng.random(n) < 0.5 + edge * np.tanh(x)).astype(float)
    up[rng.random(n) < 0.02] = 0.5
    return score, up, np.full(n, 0.5), rng.uniform(0.5, 1.5, n), np.repeat(np.arange(sessions), rows)


# --- measures of rows -------------------------------------------------------------------------------------------------


def test_auc_counts_pairs_by_their_weights_and_a_zero_return_half_to_each_class() -> None:
    rng = np.random.default_rng(1)
    score = rng.integers(0, 6, 40) / 6.0
    up, weight = rng.choice([0.0, 0.5, 1.0], 40), rng.uniform(0.1, 2.0, 40)
    pairs = np.outer(weight * up, weight * (1 - up))
    won = (score[:, None] > score) + 0.5 * (score[:, None] == score)
    assert auc(score, up, weight) == pytest.approx((pairs * won).sum() / pairs.sum())


def test_auc_of_one_class_is_no_number() -> None:
    assert math.isnan(auc(np.array([0.1, 0.2]), np.ones(2), np.ones(2)))
    assert math.isnan(auc(np.array([]), np.array([]), np.array([])))


def test_log_loss_of_a_zero_return_is_the_mean_of_both_outcomes() -> None:
    p = np.array([0.2, 0.7, 0.6])
    up, weight = np.array([0.0, 1.0, 0.5]), np.array([1.0, 2.0, 3.0])
    by_hand = -(np.log(0.8) + 2 * np.log(0.7) + 1.5 * (np.log(0.6) + np.log(0.4))) / 6
    assert log_loss(p, up, weight) == pytest.approx(by_hand)


def test_log_loss_of_certainty_that_was_wrong_is_large_and_finite() -> None:
    assert 30 < log_loss(np.array([1.0, 0.0]), np.array([0.0, 1.0]), np.ones(2)) < 800
    assert math.isnan(log_loss(np.array([]), np.array([]), np.array([])))


def test_a_score_at_the_base_rate_leans_nowhere() -> None:
    np.testing.assert_array_equal(np.sign(lean(np.array([0.48, 0.49, 0.5]), np.full(3, 0.49))), [-1, 0, 1])


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_the_jackknife_leaves_out_each_session_as_if_it_had_not_been() -> None:
    score, up, base, weight, day = scores(sessions=6, rows=30, edge=0.1)
    score = np.round(score, 2)  # ties
    _, session = np.unique(day, return_inverse=True)
    equal = weight / np.bincount(session, weight)[session]
    left = np.array([auc(score[day != d], up[day != d], equal[day != d]) for d in range(6)])
    found = ranking(score, up, base, weight, day)
    assert found.estimate == pytest.approx(auc(score, up, equal))
    assert found.standard_error == pytest.approx(math.sqrt(5 / 6 * ((left - left.mean()) ** 2).sum()))
    assert found.lower == pytest.approx(found.estimate - stats.t.ppf(0.99, 5) * found.standard_error)


def test_only_the_lean_counts_in_models_of_several_folds() -> None:
    score, up, _, weight, day = scores(edge=0.1)
    base = np.where(day < 10, 0.4, 0.6)
    shifted = 1.0 / (1.0 + np.exp(-(np.log(score / (1 - score)) + np.log(base / (1 - base)))))
    same = ranking(score, up, np.full(len(up), 0.5), weight, day)
    found = ranking(shifted, up, base, weight, day)
    assert found.estimate == pytest.approx(same.estimate)
    assert auc(shifted, up, weight) < same.estimate - 0.01


def test_direction_is_the_t_interval_of_the_sessions_means() -> None:
    score, up, _, weight, day = scores(edge=0.1)
    base = np.full(len(up), 0.48)
    hit = (up - 0.48) * np.sign(score - 0.48)
    means = np.array([np.average(hit[day == d], weights=weight[day == d]) for d in range(20)])
    found = direction(score, up, base, weight, day, 0.95)
    interval = stats.ttest_1samp(means, 0.0, alternative="greater").confidence_interval(0.95)
    assert found.estimate == pytest.approx(means.mean())
    assert found.lower == pytest.approx(interval.low)


def test_sessions_weigh_equally_whatever_their_weights_add_up_to() -> None:
    score, up, base, weight, day = scores(edge=0.1)
    heavier = np.where(day == 3, 50.0, 1.0) * weight
    for measure in (ranking, direction):
        found, same = measure(score, up, base, heavier, day), measure(score, up, base, weight, day)
        assert (found.estimate, found.lower) == (pytest.approx(same.estimate), pytest.approx(same.lower))


def test_the_difference_to_itself_is_nothing_and_to_a_worse_score_is_seen_better_paired() -> None:
    score, up, base, weight, day = scores(edge=0.15)
    itself = ranking_difference(score, base, score, base, up, weight, day)
    assert (itself.estimate, itself.standard_error, itself.lower) == (0.0, 0.0, 0.0)
    noisy = np.clip(score + np.random.default_rng(3).normal(0, 0.06, len(score)), 0.01, 0.99)
    ours, theirs = ranking(score, up, base, weight, day), ranking(noisy, up, base, weight, day)
    paired = ranking_difference(score, base, noisy, base, up, weight, day)
    assert paired.estimate == pytest.approx(ours.estimate - theirs.estimate)
    assert paired.lower > 0.0
    assert paired.standard_error < math.hypot(ours.standard_error, theirs.standard_error)


@pytest.mark.parametrize("sessions", [1, 2])
def test_two_sessions_bound_nothing(sessions: int) -> None:
    figures = skill(*scores(sessions=sessions, edge=0.3))
    assert math.isnan(figures["auc_lower_bound"])
    assert math.isnan(figures["hit_surplus_lower_bound"])
    assert not has_skill(figures)


def test_outcomes_of_one_class_show_no_skill() -> None:
    score, up, base, weight, day = scores()
    figures = skill(score, np.ones_like(up), base, weight, day)
    assert math.isnan(figures["auc"])
    assert not has_skill(figures)


def test_a_score_that_knows_shows_skill_and_one_that_does_not_shows_none() -> None:
    assert has_skill(skill(*scores(edge=0.1)))
    assert not has_skill(skill(*scores(edge=0.0)))
    score, up, base, weight, day = scores(edge=0.1)
    assert not has_skill(skill(1.0 - score, up, base, weight, day))


def test_a_model_that_always_says_the_base_rate_has_no_skill() -> None:
    _, up, base, weight, day = scores(edge=0.1)
    figures = skill(base, up, base, weight, day)
    assert figures["auc"] == pytest.approx(0.5)
    assert figures["hit_surplus"] == 0.0
    assert not has_skill(figures)


def test_the_smallest_visible_edge_is_seen_four_times_in_five() -> None:
    error, sessions = 0.01, 12
    edge = smallest_visible_edge(error, sessions, confidence=0.99, power=0.8)
    rng = np.random.default_rng(5)
    of_session = rng.normal(edge, error * sessions**0.5, (20_000, sessions))
    lower = of_session.mean(axis=1) - stats.t.ppf(0.99, sessions - 1) * stats.sem(of_session, axis=1)
    assert np.mean(lower > 0) == pytest.approx(0.8, abs=0.01)


def test_more_sessions_see_smaller_edges() -> None:
    edges = [smallest_visible_edge(0.1 / n**0.5, n) for n in (3, 5, 20, 100)]
    assert edges == sorted(edges, reverse=True)
    assert math.isnan(smallest_visible_edge(0.1, 2))
    assert math.isnan(smallest_visible_edge(math.nan, 20))


def test_a_bound_knows_its_own_smallest_edge() -> None:
    bound = Bound(0.53, 0.01, 20, 0.99)
    assert bound.smallest_visible == smallest_visible_edge(0.01, 20, confidence=0.99)
