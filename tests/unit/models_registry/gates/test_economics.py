from __future__ import annotations

import dataclasses
import datetime as dt
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

from models_registry.gates.economics import Economics, Look, Tried, economics
from models_registry.gates.limits import GateLimits
from models_registry.gates.verdicts import judge
from models_registry.refs import GateCheck
from models_registry.validation.overfitting import NotApplicable
from tests.models_registry_frames import TRADES, evidence

OURS = "a" * 64
FRESH = Look(0, {}, "2026-12-31")
LIMITS = GateLimits()


def record(sessions: int, mean: float = 400.0, seed: int = 0, first: int = 0) -> dict[str, float]:
    """Profits of so many days, standard deviation ₹1,000."""
    pnl = np.random.default_rng(seed).normal(0.0, 1_000.0, sessions)
    pnl += mean - pnl.mean()
    days = (dt.date(2025, 1, 1) + dt.timedelta(days=first + k) for k in range(sessions))
    return {day.isoformat(): float(one) for day, one in zip(days, pnl, strict=True)}


def judged(pnl: Mapping[str, float], tried: list[Tried] | None = None, looks: Look = FRESH) -> Economics:
    return economics(pnl, tried or [], config_digest=OURS, capital_inr=1_000_000.0, looks=looks)


def live(found: Economics | None, trades: Any = TRADES) -> dict[str, GateCheck]:
    trades = trades and dataclasses.replace(trades, trades=400)
    result = judge(evidence(trades=trades, economics=found), "live", LIMITS)
    return {one.name: one for one in result.checks}


def others(number: int, sessions: int = 120, mean: float = 0.0) -> list[Tried]:
    return [Tried(f"{k:064d}", record(sessions, mean, seed=k + 1)) for k in range(number)]


def test_a_long_record_of_one_try_that_earns_goes_to_a_persons_word() -> None:
    checks = live(judged(record(120)))
    failed = [name for name, one in checks.items() if one.verdict == "failed"]
    assert failed == []
    assert checks["choice_is_not_overfitted"].verdict == "warning"
    assert "1 different configurations, at least 6" in checks["choice_is_not_overfitted"].observed


def test_a_short_record_says_how_many_more_sessions_it_needs() -> None:
    found = judged(record(12, mean=250.0))
    check = live(found)["record_is_long_enough"]
    assert check.verdict == "failed"
    assert 5 < found.sessions_missing < 200
    assert f"{found.sessions_missing:.0f} too few" in check.observed
    assert f"{found.sessions_missing:.0f} more if they go on like these" in check.required


def test_a_record_that_loses_needs_no_number_of_sessions() -> None:
    check = live(judged(record(60, mean=-100.0)))["record_is_long_enough"]
    assert check.verdict == "failed"
    assert "no number of sessions like these would do" in check.required


def test_the_more_was_tried_the_more_it_must_show() -> None:
    alone, after = judged(record(60, mean=250.0)), judged(record(60, mean=250.0), others(20, 60))
    assert after.deflated.probability < 0.95 < alone.deflated.probability
    assert after.configurations == after.compared == 21
    assert after.sessions_missing > 0 == alone.sessions_missing
    assert live(after)["beats_the_tries"].verdict == "failed"


def test_equal_tries_count_as_one() -> None:
    same = [Tried(f"{k:064d}", record(60, 250.0)) for k in range(10)]
    assert judged(record(60, 250.0), same).deflated.n_trials == pytest.approx(1.0)


def test_to_train_again_or_with_one_session_more_makes_no_try_fewer() -> None:
    before = others(20, 60)
    again = [*before, *(Tried(one.config_digest, record(61, seed=k)) for k, one in enumerate(before))]
    assert judged(record(60), again).configurations == 21
    longer = judged(record(61, seed=99), before)
    assert (longer.configurations, longer.compared) == (21, 1)
    assert longer.deflated.n_trials == pytest.approx(21.0)
    assert longer.deflated.benchmark > 0.1


def test_tries_of_a_search_count_though_they_were_never_traded() -> None:
    found = judged(record(60), [Tried(f"{k:064d}", {}) for k in range(7)])
    assert (found.configurations, found.compared) == (8, 1)
    assert found.deflated.benchmark > judged(record(60)).deflated.benchmark == 0.0


def test_the_candidates_own_trials_are_not_counted_beside_it() -> None:
    own = [Tried(OURS, record(60)), Tried(OURS, record(30))]
    assert judged(record(60), own).configurations == 1


def test_choosing_the_best_of_many_without_an_edge_is_overfitting_and_of_one_good_one_is_not() -> None:
    noise = judged(record(96, 0.0), others(15, 96))
    good = judged(record(96, 600.0), others(15, 96))
    assert not isinstance(good.overfitting, NotApplicable)
    assert good.overfitting.probability < 0.1
    assert live(good)["choice_is_not_overfitted"].verdict == "passed"
    assert not isinstance(noise.overfitting, NotApplicable)
    strict = judge(evidence(economics=noise), "live", GateLimits(maximum_overfitting=0.001))
    assert {one.name: one.verdict for one in strict.checks}["choice_is_not_overfitted"] == "failed"


def test_a_fall_is_held_against_what_the_account_began_with() -> None:
    pnl = record(60)
    pnl["2025-01-10"] = -150_000.0
    check = live(judged(pnl))["falls_not_too_deep"]
    assert check.verdict == "failed"
    assert "of ₹1,000,000" in check.observed
    assert check.required.startswith("≤ 10.00 %")


def test_trades_that_are_much_of_the_market_do_not_pass_nor_those_of_unknown_size() -> None:
    found = judged(record(120))
    much = dataclasses.replace(TRADES, high_participation=0.02)
    unknown = dataclasses.replace(TRADES, high_participation=math.nan)
    assert live(found)["small_beside_the_market"].verdict == "passed"
    assert live(found, much)["small_beside_the_market"].verdict == "failed"
    assert live(found, unknown)["small_beside_the_market"].verdict == "failed"
    assert live(found, None)["small_beside_the_market"].verdict == "failed"


def test_the_verdict_says_how_often_the_hold_out_was_looked_at() -> None:
    check = live(judged(record(120), looks=Look(3, {"backtest": 2, "replay": 1}, "2026-03-31")))["holdout_is_fresh"]
    assert check.verdict == "warning"
    assert check.observed == "sessions after 2026-03-31 were looked at 3 times (2 by backtest, 1 by replay)"
    assert live(judged(record(120)))["holdout_is_fresh"].verdict == "passed"


@pytest.mark.parametrize("pnl", [{}, record(2), dict.fromkeys(record(30), 0.0)], ids=["none", "two", "no trades"])
def test_a_record_without_a_ratio_passes_nothing_and_writes_only_numbers(pnl: dict[str, float]) -> None:
    found = judged(pnl, others(8, 30))
    checks = live(found)
    assert checks["beats_the_tries"].verdict == checks["record_is_long_enough"].verdict == "failed"
    assert "no Sharpe ratio" in checks["beats_the_tries"].observed
    assert all(math.isfinite(value) for value in found.metrics().values())


def test_without_economics_nothing_passes() -> None:
    checks = live(None)
    for name in ("beats_the_tries", "record_is_long_enough", "choice_is_not_overfitted", "falls_not_too_deep"):
        assert checks[name].verdict == "failed"
    assert checks["holdout_is_fresh"].verdict == "warning"
