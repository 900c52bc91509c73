"""A version runs only for a strategy that trades what it was trained for."""

from __future__ import annotations

import pytest

from models_registry.agreement import disagreement, not_as_judged
from models_registry.refs import FeatureColumn
from models_registry.specification import StrategySpec
from tests.models_registry_frames import sidecar as any_sidecar

STRATEGY = StrategySpec(name="fade", features=("rsi", "momentum"), holding_bars=5)


def sidecar(spec=STRATEGY, **changes):
    schema = spec.feature_schema()
    facts = {
        "model_name": spec.model_name,
        "bar_clock": schema.bar_clock,
        "feature_schema": tuple(FeatureColumn.model_validate(column) for column in schema.columns()),
        "feature_schema_hash": schema.hash,
        "label_identity": spec.label().identity(),
        "label_horizon_bars": spec.holding_bars,
    }
    return any_sidecar().model_copy(update=facts | changes)


def spec(**changes):
    return STRATEGY.model_copy(update=changes)


def test_a_version_of_the_strategys_own_recipe_runs():
    assert disagreement(sidecar(), "3", STRATEGY) is None


def test_what_only_decides_how_it_is_fitted_or_traded_keeps_no_version_from_running():
    assert (
        disagreement(sidecar(), "3", spec(seed=99, notional_per_trade_inr=1.0, hyperparameters={"max_iter": 9})) is None
    )


@pytest.mark.parametrize(
    ("strategy", "said"),
    [
        (spec(features=("rsi",)), "other features than strategy 'fade' names: it has momentum more;"),
        (spec(features=("rsi", "momentum", "beta")), "it lacks beta;"),
        (spec(features=("rsi", "beta")), "it has momentum more and it lacks beta;"),
        (spec(features=("momentum", "rsi")), "the same in another order (rsi, momentum);"),
        (spec(holding_bars=7), "horizon_bars is 5 there and 7 here;"),
        (spec(exit_minutes_before_close=30), "exit_minutes_before_close is 10 there and 30 here;"),
        (spec(bar_minutes=5), "was trained on bars of time:60s, strategy 'fade' trades on time:300s:"),
    ],
)
def test_another_version_is_refused_with_both_sides_and_the_way_out(strategy, said):
    text = disagreement(sidecar(), "3", strategy)
    assert text is not None
    assert text.startswith("fade version 3 ")
    assert said in text
    assert "launch train_fade to train a version as the strategy is now" in text


def test_the_same_names_of_other_code_are_refused():
    assert "with other parameters or of another version" in disagreement(
        sidecar(feature_schema_hash="x"), "3", STRATEGY
    )


def test_a_version_of_before_label_identities_is_compared_by_its_horizon():
    before = sidecar(label_identity={}, schema_version=1)
    assert disagreement(before, "3", STRATEGY) is None
    assert disagreement(before, "3", spec(exit_minutes_before_close=30)) is None
    assert "horizon_bars is 5 there and 7 here" in disagreement(before, "3", spec(holding_bars=7))


def test_a_strategy_with_a_feature_that_there_is_not_runs_nothing():
    assert "did you mean rsi" in disagreement(sidecar(), "3", spec(features=("rsy",)))


def test_another_size_or_stop_is_not_what_was_judged_for_real_money_and_another_rank_is():
    judged = sidecar(specification=STRATEGY.model_dump(mode="json"))
    assert not_as_judged(judged, "3", spec(priority=3, name="other")) is None
    said = not_as_judged(judged, "3", spec(notional_per_trade_inr=5_000.0, stop_bps=20.0))
    assert said is not None
    assert "notional_per_trade_inr is 100000.0 there and 5000.0 here, stop_bps is None there and 20.0 here" in said
    assert said.endswith("or launch train_fade to train a version as the strategy is now")
