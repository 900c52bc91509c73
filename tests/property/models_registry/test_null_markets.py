"""The short form of ``make bench NAME=null``: the skill check on markets with and without an edge."""

import numpy as np

from benchmarks.null import Job, judge_proposals
from benchmarks.null_candidates import CHOSEN, verdicts
from benchmarks.null_rows import FEATURE_SETS, frame_of, frame_of_proposals, judged_out_of_fold, out_of_fold
from feature_store.sources.null_markets import NULL_KINDS, null_market
from models_registry.strategies import MOMENTUM

SMALL_SETS = ("session_return", "session_return, vwap_distance", "overnight_gap, volatility")
BEFORE = "mean of the sessions' AUCs, 95 % (before)"
MARKETS = 5


def test_markets_without_an_edge_show_no_skill_and_show_the_old_statistic_some():
    seen, of, before = 0, 0, 0
    for kind in NULL_KINDS:
        for seed in range(2_000_000, 2_000_000 + MARKETS):
            market = null_market(kind, seed)
            for density in ("every decision", "one in 30"):
                frame = frame_of(market, density, seed)
                for features in SMALL_SETS:
                    found = verdicts(out_of_fold(frame, "logistic_regression", FEATURE_SETS[features], seed))
                    seen, of, before = seen + found[CHOSEN], of + 1, before + found[BEFORE]
    # one in a hundred of 120 fits is 1; more than 4 have odds of 1 in 130
    assert of == 120
    assert seen <= 4
    assert before > 5, "the control: what looked at the mean of each session would have passed these"


def test_a_planted_edge_is_seen():
    seen = 0
    for seed in range(2_100_000, 2_100_005):
        frame = frame_of(null_market("one factor", seed, edge="momentum", edge_bps=8.0))
        seen += verdicts(out_of_fold(frame, "logistic_regression", FEATURE_SETS["momentum"], seed))[CHOSEN]
    assert seen >= 4


def test_of_proposals_how_often_they_gain_is_foretold_on_a_market_without_an_edge_and_what_they_gain_is_not():
    fits = judge_proposals(Job("volatile hours", 2_200_000, "logistic_regression", rule=MOMENTUM.rule))
    assert not any(fit.seen[CHOSEN] for fit in fits)
    assert any(fit.seen["whether it gains, by uniqueness (before)"] for fit in fits), "the control"


def test_weights_of_proposals_do_not_know_how_they_ended():
    market = null_market("random walk", 5, instruments=20)
    spec = MOMENTUM.model_copy(update={"estimator": "logistic_regression", "bar_minutes": 5})
    frame = frame_of_proposals(market, spec)
    rows = judged_out_of_fold(frame, spec)
    assert (rows.weight == 1.0).all()
    assert set(np.unique(frame.side)) == {-1, 1}
    np.testing.assert_array_equal(np.sign(rows.gain), np.sign(rows.forward_return))
