"""Every rule that is declared, and those of the platform, on rows and on markets."""

from collections.abc import Iterator

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.features.engine import feature_table
from feature_store.features.schema import FeatureSchema, feature_schema
from feature_store.proposals.rules import RULES, Rule, declare, proposer
from feature_store.proposals.seen import require_mirrors, seen_from
from tests.feature_markets import FeatureMarket, feature_market


def turning_point(rsi: float, threshold: float = 80.0) -> int:
    """The example of CONTRIBUTING.md: its threshold is no distance from zero."""
    if rsi >= threshold:
        return -1
    return 1 if rsi <= 100.0 - threshold else 0


def dip(rsi: float, slope: float, depth: float = 35.0) -> int:
    """A rule with a feature on longer bars and without a parameter of the name threshold."""
    if slope > 0.0 and rsi < depth:
        return 1
    return -1 if slope < 0.0 and rsi > 100.0 - depth else 0


PLATFORMS = ("volatility_move", "stretch", "donchian_break")
OF_A_USER: dict[str, Rule] = {
    "turning_point": declare(turning_point, source="Wilder (1978)"),
    "dip": declare(dip, source="a test", features={"slope": "trend_slope@5m"}),
}
EVERY = RULES | OF_A_USER
EVENTS = feature_schema(list(dict.fromkeys(name for rule in EVERY.values() for name in rule.features)), 1)
ALL = feature_schema(list(dict.fromkeys((*feature_schema(None, 1).names, *EVENTS.names))), 1)


@pytest.fixture(scope="module", autouse=True)
def declared() -> Iterator[None]:
    """Let what a user may write go through what each rule goes through."""
    with pytest.MonkeyPatch.context() as patched:
        for name, rule in OF_A_USER.items():
            patched.setitem(RULES, name, rule)
        yield


@pytest.fixture(scope="module")
def market() -> FeatureMarket:
    return feature_market(5, stocks=3, sessions=5, bars_per_session=370)


@pytest.mark.parametrize("name", EVERY)
def test_a_declared_rule_is_complete_and_looks_at_features_that_can_be_mirrored(name: str) -> None:
    one = RULES[name]
    assert one.source
    assert one.version >= 1
    assert one.function.__doc__
    require_mirrors(feature_schema(one.features, 1).features)


@pytest.mark.parametrize("name", EVERY)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_in_a_mirrored_market_a_rule_proposes_the_other_side(name: str, seed: int) -> None:
    rows = rows_near_events(ALL, seed)
    mirrored = seen_from(np.full(len(rows), -1, np.int8), rows, ALL)
    sides, others = (proposer(name).sides(one, ALL) for one in (rows, mirrored))
    np.testing.assert_array_equal(others, -sides)


def rows_near_events(schema: FeatureSchema, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.normal(0.0, 3.0, (300, len(schema.names)))
    # So small that (1 + return) is no matter: which bar crossed is known to the first order only.
    rows[:, schema.names.index("last_return")] = rng.normal(0.0, 1e-9, 300)
    rows[:, schema.names.index("volatility")] = 1e-9
    return rows


@pytest.mark.parametrize("name", EVERY)
def test_a_rule_proposes_both_sides_of_a_market_and_nothing_most_of_the_time(name: str, market: FeatureMarket) -> None:
    rows, warm = feature_table(market.bars, EVENTS, market.universe)
    sides = proposer(name).sides(rows[warm], EVENTS)
    assert min((sides == 1).sum(), (sides == -1).sum()) > 5
    assert (sides == 0).mean() > 0.5


def test_a_volatility_move_is_proposed_on_the_bar_that_carries_it_over_the_threshold(market: FeatureMarket) -> None:
    rows, _ = feature_table(market.bars, EVENTS, market.universe)
    mine = market.of("STOCK0")
    found = proposer("volatility_move", {"threshold": 2.5}).sides(rows[mine], EVENTS)
    close = pd.Series(market.bars.close[mine])
    deviation = (close / close.shift() - 1).rolling(20).std(ddof=0) * close
    low, high = close.rolling(21).min(), close.rolling(21).max()
    rise, fall = (close - low) / deviation, (high - close) / deviation
    over_up, over_down = (rise > fall) & (rise >= 2.5), (fall > rise) & (fall >= 2.5)
    # where the bar before was, had the window not moved: the same low or high, by now's volatility
    new_up = over_up & ((close.shift() - low) / deviation < 2.5)
    new_down = over_down & ((high - close.shift()) / deviation < 2.5)
    np.testing.assert_array_equal(found, new_up.astype(int) - new_down.astype(int))
    assert 0.05 < (found != 0).sum() / (over_up | over_down).sum() < 0.7


@pytest.mark.parametrize(
    ("name", "threshold", "row", "side"),
    [
        ("stretch", 2.0, {"z_score": 2.0}, -1),
        ("stretch", 2.0, {"z_score": 1.99}, 0),
        ("stretch", 2.0, {"z_score": -2.5}, 1),
        ("donchian_break", 0.5, {"donchian_break": 0.5}, 1),
        ("donchian_break", 0.5, {"donchian_break": 0.4}, 0),
        ("donchian_break", 0.5, {"donchian_break": -0.7}, -1),
        ("volatility_move", 3.0, {"cusum_move": 3.1, "last_return": 0.001, "volatility": 0.001}, 1),
        ("volatility_move", 3.0, {"cusum_move": 4.5, "last_return": 0.001, "volatility": 0.001}, 0),  # was over before
        ("volatility_move", 3.0, {"cusum_move": 3.1, "last_return": -0.001, "volatility": 0.001}, 0),
        ("volatility_move", 3.0, {"cusum_move": -3.1, "last_return": -0.001, "volatility": 0.001}, -1),
        ("volatility_move", 3.0, {"cusum_move": 3.1, "last_return": 0.001, "volatility": 0.0}, 0),
    ],
)
def test_what_the_platforms_rules_propose(name: str, threshold: float, row: dict[str, float], side: int) -> None:
    values = np.array([[row.get(feature, 0.0) for feature in EVENTS.names]])
    assert proposer(name, {"threshold": threshold}).sides(values, EVENTS).tolist() == [side]


@pytest.mark.parametrize("name", EVERY)
def test_a_rule_proposes_nothing_where_nothing_moves(name: str) -> None:
    still = np.array([[0.0 if spec.top is None else spec.top / 2 for spec in EVENTS.features]])
    assert proposer(name).sides(still, EVENTS).tolist() == [0]


@pytest.mark.parametrize("name", PLATFORMS)
@pytest.mark.parametrize("threshold", [0.0, -1.0])
def test_a_threshold_of_nothing_never_turns_a_proposal_around(name: str, threshold: float) -> None:
    rows = rows_near_events(EVENTS, 1)
    rows[0] = 0.0
    all_of_them = proposer(name, {"threshold": threshold}).sides(rows, EVENTS)
    assert all_of_them[0] == 0
    few = proposer(name).sides(rows, EVENTS)
    assert not ((all_of_them == -few) & (few != 0)).any()
