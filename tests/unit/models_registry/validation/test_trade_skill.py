from __future__ import annotations

import math

import numpy as np
import pytest

from models_registry.validation.statistics import auc, has_skill, skill
from models_registry.validation.trade_skill import (
    gain_direction,
    gain_ranking,
    gain_ranking_difference,
    has_trade_skill,
    trade_skill,
)

TARGETS = (0.5, 1.0, 3.0)
"""Distances of the target, where the stop lies at 1; all that a score knows."""


def trades(sessions: int = 40, rows: int = 200, edge: float = 0.0, seed: int = 1) -> tuple[np.ndarray, ...]:
    """Trades that are fair, up to ``edge``, at targets that differ; scores say how often each target is reached."""
    rng = np.random.default_rng(seed)
    n = sessions * rows
    target = rng.choice(TARGETS, n)
    strength = rng.normal(size=n)
    fair = 1.0 / (1.0 + target)  # of a walk that ends at -1 or at the target
    reached = rng.random(n) < np.clip(fair + edge * np.tanh(strength), 0.0, 1.0)
    score = np.clip(fair + (0.2 * np.tanh(strength) if edge else 0.0), 0.01, 0.99)
    gain = np.where(reached, target, -1.0)
    base = np.full(n, float((gain > 0).mean()))
    return score, gain, base, np.zeros(n), np.repeat(np.arange(sessions), rows)


def test_how_often_trades_gain_is_no_skill_where_what_they_gain_is_fair() -> None:
    score, gain, base, base_gain, day = trades()
    before = skill(score, (gain > 0).astype(float), base, np.ones(len(gain)), day)
    assert before["auc"] > 0.6
    assert has_skill(before)
    found = trade_skill(score, gain, base, base_gain, day)
    assert found["gain_auc"] == pytest.approx(0.5, abs=0.02)
    assert not has_trade_skill(found)


def test_on_fair_trades_skill_is_seen_no_more_than_once_in_a_hundred() -> None:
    assert sum(has_trade_skill(trade_skill(*trades(20, 60, seed=seed))) for seed in range(100)) <= 3


def test_what_foretells_gains_is_seen_and_its_mirror_is_not() -> None:
    score, gain, base, base_gain, day = trades(edge=0.15)
    assert has_trade_skill(trade_skill(score, gain, base, base_gain, day))
    assert not has_trade_skill(trade_skill(1.0 - score, gain, 1.0 - base, base_gain, day))


def test_the_ranking_is_the_auc_weighed_by_gains() -> None:
    score, gain, base, _, day = trades(6, 30)
    assert gain_ranking(score, gain, base, day).estimate == pytest.approx(
        auc(score, (gain > 0).astype(float), np.abs(gain))
    )


def test_a_gain_that_all_trades_have_is_no_direction() -> None:
    score, gain, base, _, day = trades(12)
    lucky = gain_direction(score, gain + 0.5, base, np.full(len(gain), 0.5), day)
    assert lucky.estimate == pytest.approx(gain_direction(score, gain, base, np.zeros(len(gain)), day).estimate)


def test_the_better_of_two_scores_is_seen_on_the_same_trades() -> None:
    score, gain, base, _, day = trades(edge=0.15)
    blind = np.full_like(score, 0.4)
    assert gain_ranking_difference(score, base, blind, base, gain, day).lower > 0.0
    assert gain_ranking_difference(score, base, score, base, gain, day).estimate == 0.0


@pytest.mark.parametrize("sessions", [1, 2])
def test_too_few_sessions_show_nothing(sessions: int) -> None:
    found = trade_skill(*trades(sessions, edge=0.3))
    assert math.isnan(found["gain_auc_lower_bound"])
    assert math.isnan(found["gain_surplus_lower_bound"])
    assert not has_trade_skill(found)
