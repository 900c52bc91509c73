"""What a proposal says beside its side, and what a model says of what a rule proposes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from feature_store.features.schema import feature_schema
from feature_store.labels.barrier_return import BarrierReturn
from feature_store.labels.forward_return import ForwardReturn
from feature_store.proposals.rules import Proposer, declare, proposer
from live_services.domain.strategy.loaded_model import LoadedModel, judged
from live_services.domain.strategy.terms import Distances, distances, shares
from models_registry.refs import ModelIdentity
from models_registry.specification import StrategySpec

SCHEMA = feature_schema(["z_score", "rsi", "volatility"], 1)
IDENTITY = ModelIdentity(model_name="m", model_version="1", feature_schema_hash=SCHEMA.hash)


class FirstColumn:
    """Scores a row by its first column, as it is seen."""

    def score(self, X):  # noqa: N803
        return 0.5 + X[:, 0] / 100.0


def model(threshold: float) -> LoadedModel:
    return LoadedModel(IDENTITY, SCHEMA, FirstColumn(), threshold, None)


def rows(*z_scores: float) -> np.ndarray:
    return np.array([[z, 40.0, 1e-3] for z in z_scores])


def test_a_proposal_is_judged_as_it_is_seen_from_its_side_and_accepted_from_the_threshold_on():
    score, side, failed = judged(model(0.46), proposer("stretch", {"threshold": 2.0}), rows(2.5, -2.5, 1.0, 5.0))
    np.testing.assert_allclose(score, [0.475, 0.475, np.nan, 0.45])  # a stretch upwards is sold: seen as one downwards
    assert side.tolist() == [-1, 1, 0, 0]
    assert failed is None


def fragile(z_score: float, threshold: float = 2.0) -> int:
    if z_score > 4.0:
        raise ValueError("too far")
    return 1 if z_score > threshold else 0


def test_where_a_rule_fails_nothing_is_proposed_it_is_counted_and_other_rows_are_as_if_it_had_not():
    asks = Proposer(declare(fragile, source="a test"), {})
    _, side, failed = judged(model(0.0), asks, rows(3.0, 5.0, 1.0, 3.5, 6.0))
    assert side.tolist() == [1, 0, 0, 1, 0]
    assert failed is not None
    assert failed.rows == 2
    assert "fragile(z_score=5.0" in failed.first
    for row in (3.0, 5.0, 1.0, 3.5):
        alone = judged(model(0.0), asks, rows(row))
        assert alone[1][0] == (1 if row in {3.0, 3.5} else 0)


def test_a_model_that_its_gate_refused_says_so_on_that_rung_alone():
    refused = dataclasses.replace(model(0.0), refused_by={"champion": ("skill", "trades_earn"), "live": ()})
    assert refused.against_gate("champion") == (
        "its gate refused it (skill, trades_earn): it runs by a person's override"
    )
    assert refused.against_gate("live") == refused.against_gate("challenger") == ""


def test_barriers_of_the_label_are_those_of_the_trade_and_one_without_width_is_no_trade():
    spec = StrategySpec(name="a", rule="stretch", stop_volatility=1.5, target_volatility=1.0, holding_bars=16)
    label = BarrierReturn(16, stop_volatility=1.5, target_volatility=1.0)
    assert spec.label() == label
    found = distances(spec, label, np.array([100.0, 100.0, 100.0]), np.array([1e-3, 0.0, np.nan]))
    assert found == [Distances(6_000, 4_000), None, None]  # 0.1 % a bar over 16 bars of ₹100 is 40 paise


def test_without_a_rule_barriers_are_parts_of_the_price():
    spec = StrategySpec(name="a", stop_bps=50)
    assert distances(spec, ForwardReturn(10), np.array([200.0]), np.array([np.nan])) == [Distances(10_000, None)]


@pytest.mark.parametrize(
    ("sizing", "amount", "stop", "expected"),
    [
        ("fixed", {}, None, 1_000),
        ("risk_per_trade", {"risk_per_trade_inr": 100.0}, 5_000, 200),
        ("risk_per_trade", {"risk_per_trade_inr": 1e6}, 5_000, 1_000),  # never for more than the notional
        ("volatility_target", {"volatility_target_inr": 100.0}, None, 250),
        ("risk_per_trade", {"risk_per_trade_inr": 0.01}, 5_000, 1),
    ],
)
def test_size_is_a_sum_a_loss_at_the_stop_or_a_spread_of_the_outcome(sizing, amount, stop, expected):
    spec = StrategySpec(name="a", rule="stretch", sizing=sizing, holding_bars=16, **amount)
    assert shares(spec, 100.0, 1e-3, stop) == expected


def test_size_is_in_whole_lots_and_at_least_one():
    spec = StrategySpec(name="a")
    assert [shares(spec, price, 1e-3, None, lot_size=75) for price in (100.0, 1_000.0, 90_000.0)] == [975, 75, 75]
