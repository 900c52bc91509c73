"""Every feature there is, through every guard of `features.audit`: a new feature is tested by existing."""

import datetime as dt
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.features.audit import AuditReport, audit
from feature_store.features.engine import FeatureEngine, feature_table
from feature_store.features.schema import FEATURES, FeatureSchema, feature_schema
from feature_store.market.types import Session
from tests.feature_markets import FeatureMarket, feature_market, in_order, with_split

NAMES = [spec.name for spec in FEATURES]
SPLIT_DAY = dt.date(2026, 1, 8)
examples = settings(max_examples=25, deadline=None)
seeds = st.integers(0, 2**32 - 1)

CLOCKS = {
    "1m": (NAMES, {"sessions": 7}),
    "1m joined from 5m": ([f"{name}@5m" for name in NAMES], {"sessions": 9, "stocks": 2}),
    "15m joined from session": (
        [f"{spec.name}@session" for spec in FEATURES if spec.memory != "recursive"],  # these need 360 sessions
        {"sessions": 70, "clock": "15m", "bars_per_session": 4},
    ),
    "60m": (NAMES, {"sessions": 60, "clock": "60m"}),
    "session": (NAMES, {"sessions": 400, "clock": "session", "first": dt.date(2024, 1, 1)}),
    "100t": (NAMES, {"sessions": 6, "clock": "100t", "bars_per_session": 120}),
}
"""A clock, what is computed on it, and a market on which all of that gets warm."""
CASES = [(clock, name) for clock, (names, _) in CLOCKS.items() for name in names]


@cache
def schema_of(clock: str) -> FeatureSchema:
    names, options = CLOCKS[clock]
    return feature_schema(names, str(options.get("clock", "1m")))


@cache
def report_of(clock: str) -> AuditReport:
    """One audit of all features on a clock; the tests of the single features only read it."""
    market = feature_market(11, **{"stocks": 3, **CLOCKS[clock][1]})
    return audit(schema_of(clock), market.bars, market.universe, cuts=6)


@pytest.mark.parametrize("clock", CLOCKS)
def test_every_guard_has_something_to_compare_on(clock: str) -> None:
    report = report_of(clock)
    assert report.passed, str(report)
    assert report.features == tuple(CLOCKS[clock][0])
    assert len(report.compared) >= 13


def test_the_longest_history_is_stepped_in_the_order_of_instruments_and_the_batches_are_not() -> None:
    """The kernel sorts from 8,192 rows on; the audit of 1m must lie on both sides."""
    assert report_of("1m").rows > 8192


@pytest.mark.parametrize(("clock", "name"), CASES, ids=[f"{name}-{clock}" for clock, name in CASES])
def test_no_guard_finds_fault_with(clock: str, name: str) -> None:
    report = report_of(clock)
    assert report.of(name) == ()
    assert name not in report.never_seen


# --- on odd markets ---------------------------------------------------------------------------------------------------

ALL = feature_schema([*NAMES, *(f"{name}@5m" for name in NAMES)], 1)


@st.composite
def odd_markets(draw: st.DrawFn) -> FeatureMarket:
    """Short sessions with gaps, halts, absences, flat prices, no volume, missing index bars and missing quotes."""
    return feature_market(
        draw(seeds),
        stocks=draw(st.integers(1, 3)),
        sessions=draw(st.integers(1, 5)),
        bars_per_session=draw(st.integers(1, 40)),
        missing=draw(st.sampled_from([0.0, 0.1, 0.6])),
        odd=True,
    )


@examples
@given(market=odd_markets(), seed=st.integers(0, 2**16))
def test_no_guard_finds_a_difference_on_any_market(market: FeatureMarket, seed: int) -> None:
    if len(market.bars):
        assert audit(ALL, market.bars, market.universe, seed=seed, cuts=2).differences == ()


@examples
@given(market=odd_markets(), seed=st.integers(0, 2**16))
def test_a_split_leaves_no_difference_between_any_two_runs(market: FeatureMarket, seed: int) -> None:
    """Also not between histories that begin before and just before it: the origins are random."""
    bars, actions = with_split(market, "STOCK0", market.sessions[len(market.sessions) // 2].date)
    if len(bars):
        assert audit(ALL, bars, market.universe, actions=actions, seed=seed, cuts=2).differences == ()


@examples
@given(market=odd_markets())
def test_every_feature_keeps_its_warm_up_and_its_nan_policy(market: FeatureMarket) -> None:
    schema = feature_schema(None, 1)
    rows, warm = feature_table(market.bars, schema, market.universe)
    assert not np.isinf(rows).any()
    for i in range(len(market.universe)):
        mine = np.flatnonzero(market.bars.instrument == i)
        day = market.bars.start_ns[mine] // (24 * 3600 * 10**9)  # UTC: a session lies within one day of both zones
        sessions_before = np.cumsum(np.diff(day, prepend=day[:1]) != 0)
        for k, spec in enumerate(schema.features):
            enough = np.arange(len(mine)) >= spec.warm_up - 1
            enough &= sessions_before >= {"window": 0, "session": 1, "recursive": 2}[spec.memory]
            assert np.isnan(rows[mine[~enough], k]).all(), spec.name
            if spec.nan_policy == "never":
                assert np.isfinite(rows[mine[enough], k]).all(), spec.name
    assert np.isfinite(rows[warm][:, [spec.nan_policy == "never" for spec in schema.features]]).all()


@examples
@given(market=odd_markets(), names=st.permutations(ALL.names), count=st.integers(1, 12))
def test_a_feature_has_the_same_value_in_every_schema(market: FeatureMarket, names: list[str], count: int) -> None:
    of_all, _ = feature_table(market.bars, ALL, market.universe)
    rows, _ = feature_table(market.bars, feature_schema(names[:count], 1), market.universe)
    columns = [ALL.names.index(name) for name in names[:count]]
    assert np.array_equal(rows, of_all[:, columns], equal_nan=True)


@examples
@given(seed=seeds, at=st.floats(0.0, 1.0))
def test_a_bar_without_the_index_takes_no_index_bar_of_another_time(seed: int, at: float) -> None:
    """Moving the index's other bars changes no feature of a stock's bar that has none beside it or before it."""
    market = feature_market(seed, stocks=1, sessions=1, bars_per_session=80)
    index, bars = market.of("SYN INDEX"), market.bars
    gone = index[int(at * (len(index) - 1))]
    without = bars[np.arange(len(bars)) != gone]
    schema = feature_schema(["relative_strength", "beta"], 1)
    rows, _ = feature_table(without, schema, market.universe)
    beside = (without.end_ns == bars.end_ns[gone]) & (without.instrument != 0)
    assert np.isnan(rows[beside]).all()


# --- corporate actions ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def unsplit() -> FeatureMarket:
    return feature_market(3, stocks=2, sessions=7, bars_per_session=130)


def test_with_the_action_every_feature_is_as_if_there_had_been_no_split(unsplit: FeatureMarket) -> None:
    bars, actions = with_split(unsplit, "STOCK0", SPLIT_DAY)
    expected, expected_warm = feature_table(unsplit.bars, ALL, unsplit.universe)
    rows, warm = feature_table(bars, ALL, unsplit.universe, actions)
    assert np.array_equal(warm, expected_warm)
    np.testing.assert_allclose(rows, expected, rtol=1e-8, atol=1e-8)


def test_without_the_action_the_jump_shows_at_the_ex_date_and_not_before(unsplit: FeatureMarket) -> None:
    bars, actions = with_split(unsplit, "STOCK0", SPLIT_DAY)
    right, _ = feature_table(bars, ALL, unsplit.universe, actions)
    wrong, _ = feature_table(bars, ALL, unsplit.universe)
    opened = Session.regular(SPLIT_DAY).open_ns
    before = bars.start_ns < opened
    assert np.array_equal(right[before], wrong[before], equal_nan=True)
    first = unsplit.of("STOCK0")[bars.start_ns[unsplit.of("STOCK0")] >= opened][0]
    shows = {name for name, r, w in zip(ALL.names, right[first], wrong[first], strict=True) if abs(r - w) > 1e-6}
    assert {"overnight_gap", "last_return", "momentum", "volatility", "trend_slope", "average_true_range"} <= shows
    assert wrong[first, ALL.names.index("overnight_gap")] == pytest.approx(-0.8, abs=0.02)
    assert abs(right[first, ALL.names.index("overnight_gap")]) < 0.05
    other = bars.instrument != unsplit.universe.index_of_symbol["STOCK0"]
    assert np.array_equal(right[other], wrong[other], equal_nan=True)


@pytest.mark.parametrize("bars_before", [1, 2, 5, 30, 63, 64, 65, 100, 300])
def test_from_just_before_the_ex_date_on_the_bits_are_those_of_all_of_history(
    unsplit: FeatureMarket, bars_before: int
) -> None:
    bars, actions = with_split(unsplit, "STOCK0", SPLIT_DAY)
    ex_row = int(np.flatnonzero(bars.start_ns >= Session.regular(SPLIT_DAY).open_ns)[0])
    origin = ex_row - bars_before * len(unsplit.universe)
    rows, _ = feature_table(bars, ALL, unsplit.universe, actions)
    late, warm = feature_table(bars[origin:], ALL, unsplit.universe, actions)
    there = ~np.isnan(late) | warm[:, None]
    assert there.sum() > 10_000
    assert np.array_equal(late[there].view(np.int64), rows[origin:][there].view(np.int64))


def test_a_snapshot_of_the_evening_before_goes_on_through_the_ex_date(unsplit: FeatureMarket) -> None:
    bars, actions = with_split(unsplit, "STOCK0", SPLIT_DAY)
    evening = int(np.flatnonzero(bars.start_ns >= Session.regular(SPLIT_DAY).open_ns)[0])
    rows, _ = feature_table(bars, ALL, unsplit.universe, actions)
    before = FeatureEngine(ALL, unsplit.universe, actions)
    before.step(bars[:evening])
    after = FeatureEngine(ALL, unsplit.universe, actions)
    after.restore(before.snapshot())
    assert np.array_equal(after.step(bars[evening:])[0], rows[evening:], equal_nan=True)


@pytest.mark.parametrize("bars_a_step", [3, 60, 700])
def test_a_snapshot_that_is_brought_up_to_date_is_a_new_one(unsplit: FeatureMarket, bars_a_step: int) -> None:
    bars, actions = with_split(unsplit, "STOCK0", SPLIT_DAY)
    evening = int(np.flatnonzero(bars.start_ns >= Session.regular(SPLIT_DAY).open_ns)[0])
    engine = FeatureEngine(ALL, unsplit.universe, actions)
    engine.step(bars[: evening - 700])
    kept = engine.snapshot()
    for first in range(evening - 700, evening + 700, bars_a_step):
        engine.step(bars[first : first + bars_a_step])
        before, kept = kept, engine.snapshot(kept)
        assert kept["ring"] is before["ring"]
        anew = engine.snapshot()
        assert kept.keys() == anew.keys()
        assert all(np.array_equal(kept[name], anew[name], equal_nan=kept[name].dtype.kind == "f") for name in anew)


def test_bars_come_in_the_order_the_engine_asks_for(unsplit: FeatureMarket) -> None:
    assert np.array_equal(in_order(unsplit.bars).end_ns, unsplit.bars.end_ns)
