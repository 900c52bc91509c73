import pytest

from models_registry.bet import bet, headline
from models_registry.refs import FeatureDistribution
from models_registry.specification import StrategySpec
from tests.models_registry_frames import sidecar

VOLATILITY = FeatureDistribution(name="volatility", mean=5e-4, std=1e-4, edges=tuple(1e-4 * k for k in range(11)))
"""Its median is 5 bps a bar; of 16 bars it is 20 bps."""
JUDGED = {
    "name": "breakout",
    "rule": "donchian_break",
    "rule_parameters": {"threshold": 1.5},
    "stop_volatility": 1.0,
    "target_volatility": 2.0,
    "holding_bars": 16,
    "sizing": "risk_per_trade",
}


def told(**specification):
    spec = StrategySpec.model_validate(JUDGED | specification)
    asks = spec.proposer()
    one = sidecar().model_copy(
        update={
            "model_name": spec.name,
            "specification": spec.model_dump(mode="json"),
            "proposals": asks.identity() if asks else {},
            "sell_threshold": None if asks else 0.4,
            "buy_threshold": 0.55,
            "feature_distributions": (VOLATILITY,),
        }
    )
    return headline(one), {row["what"]: row["in words"] for row in bet(one)}


def test_a_rule_is_told_in_its_own_words_with_its_parameters_put_in():
    first, words = told()
    assert first == (
        "breakout judges what the rule donchian break proposes, by hist gradient boosting on a SYNTHETIC market"
    )
    assert words["Side"] == (
        "the rule donchian_break proposes to go with a close that broke out of its channel by 1.5 volatilities per bar "
        "or more, long or short. The model accepts a proposal at a score of 0.5500 or more"
    )


def test_barriers_are_told_as_multiples_and_as_what_they_typically_are():
    _, words = told()
    assert words["Ends"] == (
        "stop at 1 × the volatility of the holding (typically 20 bps); target at 2 × the volatility of the holding "
        "(typically 40 bps); after 16 bars of 1 minute at the latest, and 10 minutes before the close"
    )


@pytest.mark.parametrize(
    ("sizing", "said"),
    [
        (
            {"risk_per_trade_inr": 100.0},
            "the stop loses ₹100, ₹100,000 a trade at most; typically a trade of ₹50,000 with ₹100 at the stop and "
            "₹200 at the target",
        ),
        (
            {"sizing": "volatility_target", "volatility_target_inr": 500.0},
            "the outcome spreads by ₹500 (one standard deviation), ₹100,000 a trade at most; typically a trade of "
            "₹100,000 with ₹200 at the stop and ₹400 at the target",
        ),
        (
            {"sizing": "fixed", "notional_per_trade_inr": 30_000.0},
            "₹30,000 a trade; typically a trade of ₹30,000 with ₹60 at the stop and ₹120 at the target",
        ),
    ],
)
def test_the_size_is_told_in_rupees(sizing, said):
    assert told(**sizing)[1]["Size"] == said


def test_a_model_that_says_the_side_itself_tells_both_thresholds_and_its_stop_in_basis_points():
    direct = {"rule": "", "rule_parameters": {}, "stop_volatility": None, "target_volatility": None}
    first, words = told(**direct, sizing="fixed", stop_bps=30)
    assert first.startswith("breakout says the side at every bar, by")
    assert words["Side"].endswith("long at a score of 0.5500 or more, short at 0.4000 or less")
    assert words["Ends"].startswith("stop at 30 bps; after 16 bars")
    assert words["Size"].endswith("typically a trade of ₹100,000 with ₹300 at the stop")


def test_a_rule_that_this_code_no_longer_has_is_told_by_its_name():
    one = sidecar().model_copy(update={"proposals": {"rule": "gone"}, "sell_threshold": None})
    one = one.model_copy(update={"specification": one.specification | {"rule": "gone"}})
    assert bet(one)[0]["in words"].startswith("the rule gone proposes a side on its events, long or short")
