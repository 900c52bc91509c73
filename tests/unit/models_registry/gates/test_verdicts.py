from __future__ import annotations

import dataclasses
import itertools
import math
from typing import Any

import pytest

from models_registry.gates.checks import shown
from models_registry.gates.evidence import ChampionComparison, Evidence
from models_registry.gates.limits import GateLimits, GatesSettings
from models_registry.gates.verdicts import SKILL, judge
from models_registry.packing import Parity
from models_registry.refs import GateCheck, GateResult
from models_registry.validation.statistics import has_skill
from models_registry.validation.trade_skill import has_trade_skill
from tests.models_registry_frames import LIMITS, PLAUSIBLE, TRADES, evidence, gate, trained

CLEAR = {
    "auc": 0.61,
    "auc_lower_bound": 0.59,
    "hit_surplus": 0.08,
    "hit_surplus_lower_bound": 0.06,
    "skill_confidence": 0.99,
    "log_loss": 0.67,
    "naive_log_loss": 0.69,
    "rows": 6_000.0,
    "test_sessions": 9.0,
    "smallest_visible_auc": 0.52,
}


def clear(**changes: Any) -> Evidence:
    """Evidence that passes every check, with changes; those to ``metrics`` are laid over."""
    metrics = CLEAR | changes.pop("metrics", {})
    return dataclasses.replace(evidence(), metrics=metrics, **changes)


def judged(rung: Any = "champion", limits: GateLimits = LIMITS, **changes: Any) -> GateResult:
    return judge(clear(**changes), rung, limits)


def check(name: str, result: GateResult) -> GateCheck:
    (found,) = (one for one in result.checks if one.name == name)
    return found


def not_passed(result: GateResult) -> dict[str, str]:
    return {one.name: one.verdict for one in result.checks if not one.passed}


def test_evidence_without_a_flaw_passes_every_check_of_the_champion_gate() -> None:
    result = judged()
    assert result.passed
    assert result.rung == "champion"
    assert not not_passed(result)


def test_a_trained_model_with_skill_passes_and_noise_does_not() -> None:
    assert gate().passed
    failed = not_passed(gate(edge=0.0))
    assert not gate(edge=0.0).passed
    assert {"ranks_above_chance", "direction_above_chance"} & set(failed)


@pytest.mark.parametrize(
    ("metrics", "name"),
    [
        ({"auc_lower_bound": 0.5}, "ranks_above_chance"),
        ({"hit_surplus_lower_bound": 0.0}, "direction_above_chance"),
        ({"auc": 0.99}, "auc_plausible"),
        ({"rows": 10.0}, "enough_test_rows"),
        ({"test_sessions": 4.0}, "enough_test_rows"),
    ],
)
def test_each_shortfall_of_skill_fails_its_own_check(metrics: dict[str, float], name: str) -> None:
    assert not_passed(judged(metrics=metrics)) == {name: "failed"}


_AROUND_CHANCE = (-0.01, 0.0, 0.01, math.nan)


@pytest.mark.parametrize(("order", "hits"), list(itertools.product(_AROUND_CHANCE, repeat=2)))
def test_the_skill_checks_pass_exactly_where_the_statistics_say_that_there_is_skill(order: float, hits: float) -> None:
    found = clear(metrics={"auc_lower_bound": 0.5 + order, "hit_surplus_lower_bound": hits})
    assert all(one(found, LIMITS).passed for one in SKILL) is has_skill(dict(found.metrics))


def test_scores_that_are_too_sure_of_themselves_are_a_warning() -> None:
    result = judged(metrics={"log_loss": 0.7})
    assert not_passed(result) == {"log_loss_below_naive": "warning"}
    assert result.passed


@pytest.mark.parametrize("name", ["auc", "auc_lower_bound", "hit_surplus_lower_bound"])
def test_a_metric_that_is_no_number_or_is_not_there_never_passes(name: str) -> None:
    assert "finite_metrics" in not_passed(judged(metrics={name: math.nan}))
    left = {key: value for key, value in CLEAR.items() if key != name}
    assert not judge(dataclasses.replace(clear(), metrics=left), "champion", LIMITS).passed


def test_the_figure_that_is_judged_is_the_figure_that_is_shown() -> None:
    narrow = judged(metrics={"log_loss": 0.693147181, "naive_log_loss": 0.693147180})
    found = check("log_loss_below_naive", narrow)
    assert (found.passed, found.observed) == (False, "log loss 0.693147181")
    assert found.required.startswith("< 0.693147180")
    assert shown(0.50000001, 0.5) == ("0.50000001", "0.50000000")
    assert shown(0.5, 0.5) == ("0.5000", "0.5000")


def test_the_verdict_says_the_smallest_edge_that_could_have_been_seen() -> None:
    assert "with 9 sessions 0.5200 is seen 4 times in 5" in check("ranks_above_chance", judged()).required


def test_a_training_label_that_reaches_the_test_is_a_leak() -> None:
    first, *rest = trained().folds
    leaking = first.model_copy(update={"train_end_ns": first.test_start_ns + 1})
    assert not_passed(judged(folds=(leaking, *rest))) == {"no_leak": "failed"}
    assert not_passed(judged(folds=())) == {"no_leak": "failed"}
    assert not_passed(judged(folds=tuple(reversed(trained().folds)))) == {"no_leak": "failed"}


def test_an_embargo_asks_for_sessions_between_training_and_test() -> None:
    result = judged(embargo_sessions=1)  # the folds were cut without one
    assert not_passed(result) == {"no_leak": "failed"}
    assert "fewer than 1 sessions lie between" in check("no_leak", result).observed


def test_a_feature_that_carries_the_skill_alone_fails() -> None:
    result = judged(plausibility=dataclasses.replace(PLAUSIBLE, features=27, feature="tomorrow", importance=0.62))
    assert not_passed(result) == {"no_feature_carries_it": "failed"}
    assert check("no_feature_carries_it", result).observed == "tomorrow alone carries 0.62 of the skill (AUC less 0.5)"
    assert check("no_feature_carries_it", result).required.startswith("≤ 0.19, 5 fair shares")


def test_so_few_features_that_none_could_fail_are_a_warning_that_says_so() -> None:
    result = judged(plausibility=dataclasses.replace(PLAUSIBLE, features=5, feature="tomorrow", importance=0.97))
    assert result.passed
    assert not_passed(result) == {"no_feature_carries_it": "warning"}
    assert check("no_feature_carries_it", result).observed == (
        "cannot be made with so few features: 5 fair shares of 5 are all the skill; tomorrow alone carries 0.97 of the "
        "skill (AUC less 0.5)"
    )


def test_skill_that_is_gone_one_bar_later_fails() -> None:
    result = judged(plausibility=dataclasses.replace(PLAUSIBLE, shift_retention=0.04))
    assert not_passed(result) == {"skill_outlives_a_bar": "failed"}


def test_below_a_suspicious_auc_a_leak_is_not_looked_for_and_the_verdict_says_so() -> None:
    result = judged(plausibility=dataclasses.replace(PLAUSIBLE, auc=0.53, importance=3.0, shift_retention=0.0))
    assert result.passed
    assert check("skill_outlives_a_bar", result).observed == "AUC 0.5300: too little to tell a leak from skill"


@pytest.mark.parametrize("found", [None, dataclasses.replace(PLAUSIBLE, shift_retention=math.nan)])
def test_plausibility_that_could_not_be_looked_at_fails(found: Any) -> None:
    assert "skill_outlives_a_bar" in not_passed(judged(plausibility=found))


def test_a_packed_model_that_differs_fails_parity() -> None:
    for parity in (Parity(100, 1e-9, bit_equal=False, allowed_difference=0.0), Parity(0, 0.0, True, 0.0)):
        assert not_passed(judged(parity=parity)) == {"packed_parity": "failed"}


@pytest.mark.parametrize(("bound", "verdict"), [(0.001, "passed"), (0.0, "failed"), (math.nan, "failed")])
def test_a_champion_that_is_compared_with_must_be_beaten(bound: float, verdict: str) -> None:
    compared = ChampionComparison(
        outcome="compared",
        how="the recipe of champion v3, run in the same folds",
        improvement=0.004,
        lower_bound=bound,
        confidence=0.95,
        rows=4_000,
        sessions=9,
    )
    assert check("better_than_champion", judged(champion=compared)).verdict == verdict


@pytest.mark.parametrize(
    ("outcome", "passes"), [("nothing_to_beat", True), ("not_better", False), ("not_comparable", False)]
)
def test_a_comparison_that_was_not_made_says_why(outcome: Any, passes: bool) -> None:
    result = judged(champion=ChampionComparison(outcome=outcome, how="why"))
    found = check("better_than_champion", result)
    assert (found.passed, found.observed) == (passes, "why")
    assert result.passed is passes


@pytest.mark.parametrize(
    ("trained_on", "trades_on", "observed"),
    [
        ("vendor", "ticks", "trained on a vendor's bars, trades on bars built from ticks"),
        ("ticks + vendor", "ticks", "trained on bars built from ticks and a vendor's bars, trades on bars built from"),
        ("unknown", "unknown", "trained on bars of unknown source, trades on bars of unknown source"),
    ],
)
def test_a_model_that_trades_on_bars_of_another_source_is_told_so_and_not_blocked(
    trained_on: str, trades_on: str, observed: str
) -> None:
    result = judged(bar_source=trained_on, trades_on=trades_on)
    assert result.passed
    assert check("bar_source", result).verdict == "warning"
    assert check("bar_source", result).observed.startswith(observed)


def test_trades_that_lose_are_a_warning_for_the_champion_and_block_live() -> None:
    losing = dataclasses.replace(TRADES, net_expectancy_bps=-0.001)
    assert judged(trades=losing).passed
    assert not_passed(judged(trades=losing)) == {"trades_earn": "warning"}
    assert not_passed(judged("live", trades=losing))["trades_earn"] == "failed"
    assert check("trades_earn", judged(trades=losing)).observed.startswith("-0.001 bps a trade net")


def test_trades_that_never_closed_are_told_of() -> None:
    assert check("trades_earn", judged()).observed.endswith("; 2 left open where bars ended, at the last price")
    closed = dataclasses.replace(TRADES, left_open=0)
    assert "left open" not in check("trades_earn", judged(trades=closed)).observed


@pytest.mark.parametrize(
    "trades", [None, dataclasses.replace(TRADES, trades=0, net_expectancy_bps=math.nan)], ids=["none made", "none"]
)
def test_without_trades_nothing_earns(trades: Any) -> None:
    result = judged("live", trades=trades)
    assert {"trades_earn", "enough_trades"} <= set(not_passed(result))


def test_few_trades_are_a_warning_for_the_champion_and_block_live() -> None:
    few = dataclasses.replace(TRADES, trades=99)
    assert not_passed(judged(trades=few)) == {"enough_trades": "warning"}
    assert not_passed(judged("live", trades=few))["enough_trades"] == "failed"


GAINS = {"gain_auc": 0.55, "gain_auc_lower_bound": 0.53, "gain_surplus": 0.1, "gain_surplus_lower_bound": 0.04}


@pytest.mark.parametrize("order", [0.01, -0.01])
@pytest.mark.parametrize("surplus", [0.01, -0.01])
def test_proposals_are_judged_by_what_their_trades_gain_and_not_by_how_often(order: float, surplus: float) -> None:
    bounds = {"gain_auc_lower_bound": 0.5 + order, "gain_surplus_lower_bound": surplus}
    found = clear(metrics=GAINS | bounds)
    assert all(one(found, LIMITS).passed for one in SKILL) is has_trade_skill(dict(found.metrics))
    assert check("ranks_above_chance", judge(found, "champion", LIMITS)).observed.startswith("AUC weighed by gains")


def test_of_proposals_it_cannot_be_asked_whether_skill_outlives_a_bar() -> None:
    events = dataclasses.replace(PLAUSIBLE, events=True, auc=0.6, shift_retention=math.nan, shifted_rows=0)
    assert check("skill_outlives_a_bar", judged(plausibility=events)).verdict == "warning"
    low = dataclasses.replace(events, auc=0.55)
    assert check("skill_outlives_a_bar", judged(plausibility=low)).verdict == "passed"


def test_each_rung_has_its_own_limits_and_live_asks_for_more() -> None:
    rungs = GatesSettings.model_validate({"champion": {"minimum_trades": 7}})
    assert rungs.champion.minimum_trades == 7
    assert rungs.champion.minimum_test_rows == 5_000
    assert rungs.live.minimum_trades > GateLimits().minimum_trades


def test_a_verdict_names_the_champion_that_it_was_judged_against() -> None:
    assert judge(clear(), "champion", LIMITS, champion_version="3").judged_against == "3"


def test_a_gate_without_checks_has_not_passed() -> None:
    assert not GateResult(rung="champion", checks=()).passed
