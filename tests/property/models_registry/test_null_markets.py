"""The short form of ``make bench NAME=null``: the skill check on markets with and without an edge."""

from benchmarks.null_candidates import CHOSEN, verdicts
from benchmarks.null_rows import FEATURE_SETS, frame_of, out_of_fold
from feature_store.sources.null_markets import NULL_KINDS, null_market

SMALL_SETS = ("session_return", "session_return, vwap_distance", "overnight_gap, volatility")
BEFORE = "mean of the sessions' AUCs, 95 % (before)"
MARKETS = 6


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
    # one in a hundred of 108 fits is 1; more than 4 have odds of 1 in 200
    assert of == 108
    assert seen <= 4
    assert before > 5, "the control: what looked at the mean of each session would have passed these"


def test_a_planted_edge_is_seen():
    seen = 0
    for seed in range(2_100_000, 2_100_005):
        frame = frame_of(null_market("one factor", seed, edge="momentum", edge_bps=8.0))
        seen += verdicts(out_of_fold(frame, "logistic_regression", FEATURE_SETS["momentum"], seed))[CHOSEN]
    assert seen >= 4
