"""Rows of a schema out of those of a union are what the schema alone gives, values and warm, bit for bit."""

import dataclasses
import datetime as dt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.features.engine import feature_table
from feature_store.features.projection import history_needed, holds, projected, union_schema, warm_ups
from feature_store.features.schema import FEATURES, FeatureSchema, feature_schema
from feature_store.market.corporate_actions import CorporateActions
from feature_store.market.types import Bars
from tests.feature_markets import FeatureMarket, feature_market, with_split

PLAIN = [spec.name for spec in FEATURES]
LONGER = [f"{name}@{clock}" for name in PLAIN for clock in ("5m", "15m")]
DAILY = [f"{spec.name}@session" for spec in FEATURES if spec.memory != "recursive" and spec.warm_up < 12]
SOME = st.lists(st.sampled_from([*PLAIN, *LONGER, *DAILY]), min_size=1, max_size=5, unique=True)


@st.composite
def markets(draw: st.DrawFn) -> FeatureMarket:
    """Many short sessions with gaps, halts and absences: what is warm hangs on how many of them are stepped."""
    return feature_market(
        draw(st.integers(0, 2**32 - 1)),
        stocks=draw(st.integers(1, 3)),
        sessions=draw(st.sampled_from([1, 3, 6, 20])),
        bars_per_session=draw(st.sampled_from([3, 8, 25, 40])),
        missing=draw(st.sampled_from([0.0, 0.2, 0.7])),
        odd=True,
    )


def by_session(market: FeatureMarket, bars: Bars) -> list[Bars]:
    return [bars[(bars.start_ns >= s.open_ns) & (bars.end_ns <= s.close_ns)] for s in market.sessions]


def alone(
    sessions: list[Bars], schema: FeatureSchema, market: FeatureMarket, actions: CorporateActions
) -> tuple[np.ndarray, np.ndarray, list[Bars]]:
    """Rows of the last session as a run over the schema's own history gives them, and what was stepped."""
    stepped = sessions[max(len(sessions) - 1 - schema.history_sessions, 0) :]
    rows, warm = feature_table(Bars.concatenate(stepped), schema, market.universe, actions)
    begin = len(rows) - len(stepped[-1])
    return rows[begin:], warm[begin:], stepped


@settings(max_examples=150, deadline=None)
@given(markets(), SOME, SOME, st.booleans())
def test_a_projection_is_the_small_schema_alone(
    market: FeatureMarket, names: list[str], others: list[str], split: bool
) -> None:
    bars, actions = market.bars, CorporateActions.none()
    if split:
        bars, actions = with_split(market, "STOCK0", market.sessions[len(market.sessions) // 2].date)
    sessions, part = by_session(market, bars), feature_schema(names, 1)
    union = union_schema([feature_schema(others, 1), part])
    assert holds(union, part)
    rows, warm, stepped = alone(sessions, union, market, actions)
    needed = history_needed(stepped, union, len(market.universe))
    assert needed.shape == (len(stepped[-1]), len(warm_ups(union)))
    for schema in (part, union):
        expected, expected_warm, _ = alone(sessions, schema, market, actions)
        columns = [union.names.index(name) for name in schema.names]
        found = projected(rows[:, columns], needed, union, schema)
        assert found.X.tobytes() == expected.tobytes()
        assert np.array_equal(found.warm, expected_warm)
    assert np.array_equal(warm, projected(rows, needed, union, union).warm)


def test_a_row_may_be_warm_in_the_union_and_cold_in_the_small_schema_alone() -> None:
    """Otherwise the property above would compare nothing that matters."""
    market = feature_market(5, stocks=1, sessions=8, bars_per_session=8, missing=0.2)
    part, other = feature_schema(["volatility"], 1), feature_schema(["rsi@5m"], 1)
    sessions, none = by_session(market, market.bars), CorporateActions.none()
    union = union_schema([part, other])
    assert (part.history_sessions, union.history_sessions) == (2, 7)
    rows, _, stepped = alone(sessions, union, market, none)
    there = np.isfinite(rows[:, union.names.index("volatility")])
    _, warm, _ = alone(sessions, part, market, none)
    assert (there & ~warm).any()
    assert (there & warm).any()
    assert len(stepped) == 8


def test_a_union_has_every_column_once_and_does_not_depend_on_the_order() -> None:
    small, wide = feature_schema(["rsi", "adx"], 1), feature_schema(["z_score", "adx", "rsi"], 1)
    other = feature_schema(["momentum@5m", "adx"], 1)
    assert union_schema([small]) == small
    assert union_schema([small, wide]) == union_schema([wide, small, small]) == wide
    assert union_schema([small, other]).names == ("adx", "momentum@5m", "rsi")
    assert union_schema([small, other]).hash == union_schema([other, small]).hash
    turned = feature_schema(["adx", "rsi"], 1)
    assert union_schema([small, turned]) == union_schema([turned, small])


def test_schemas_of_several_clocks_or_versions_have_no_union() -> None:
    one, five = feature_schema(["rsi"], 1), feature_schema(["rsi"], 5)
    with pytest.raises(ValueError, match=r"2 clocks \(time:300s, time:60s\)"):
        union_schema([one, five])
    with pytest.raises(ValueError, match="0 clocks"):
        union_schema([])
    newer = FeatureSchema((dataclasses.replace(one.features[0], version=99),), one.bar_clock)
    with pytest.raises(ValueError, match="rsi is two features"):
        union_schema([one, newer])


def test_nothing_is_needed_of_a_session_without_bars() -> None:
    market = feature_market(1, stocks=1, sessions=2, first=dt.date(2026, 1, 5))
    bars, schema = by_session(market, market.bars), feature_schema(["rsi", "momentum@5m"], 1)
    assert history_needed([bars[0], bars[1][:0]], schema, len(market.universe)).shape == (0, 2)
