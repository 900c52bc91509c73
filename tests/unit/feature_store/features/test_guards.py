import datetime as dt
import doctest

import numpy as np
import pytest

from feature_store.features import audit as checks
from feature_store.features.engine import FeatureEngine, feature_table
from feature_store.features.schema import feature_schema
from feature_store.market.corporate_actions import CorporateAction, CorporateActions
from feature_store.market.types import IST, Bars
from tests.feature_markets import INDEX, FeatureMarket, feature_market

SCHEMA = feature_schema(None, 1)


@pytest.fixture(scope="module")
def market() -> FeatureMarket:
    return feature_market(4, stocks=2, sessions=5, bars_per_session=90)


def without(bars: Bars, *, rows: np.ndarray | None = None, depth: bool = True) -> Bars:
    kept = bars if rows is None else bars[rows]
    if depth:
        return kept
    return Bars(*(getattr(kept, name) for name in list(Bars.__dataclass_fields__)[:9]))


def test_good_bars_pass(market: FeatureMarket) -> None:
    result = checks.features_pass_audit(market.bars, SCHEMA, market.universe)
    assert result.passed, result.details
    assert result.details["nothing_to_compare"] == result.details["without_input"] == ""
    rows, warm = feature_table(market.bars, SCHEMA, market.universe)
    assert checks.warm_rows_finite(rows, warm, SCHEMA).passed


def test_a_source_without_an_index_or_depth_passes_and_the_details_say_what_was_not_seen(market: FeatureMarket) -> None:
    stocks = without(market.bars, rows=market.bars.instrument != market.universe.index_of_symbol[INDEX], depth=False)
    result = checks.features_pass_audit(stocks, SCHEMA, market.universe)
    assert result.passed, result.details
    assert result.details["without_input"] == (
        "spread, relative_spread, depth_imbalance, mean_imbalance, relative_strength, beta"
    )


def test_too_few_sessions_do_not_pass(market: FeatureMarket) -> None:
    result = checks.features_pass_audit(market.bars[:90], SCHEMA, market.universe)
    assert not result.passed
    assert "rsi" in str(result.details["nothing_to_compare"])


def test_an_engine_that_gives_other_bits_live_does_not_pass(
    market: FeatureMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = FeatureEngine.step

    def drifting(engine: FeatureEngine, bars: Bars) -> tuple[np.ndarray, np.ndarray]:
        rows, warm = step(engine, bars)
        return (np.nextafter(rows, np.inf) if len(bars) == 1 else rows), warm

    monkeypatch.setattr(FeatureEngine, "step", drifting)
    result = checks.features_pass_audit(market.bars, SCHEMA, market.universe)
    assert not result.passed
    assert str(result.details["first"]).startswith("batches of 1: ")


def test_warm_rows_that_are_not_finite_fail_unless_their_policy_allows_it(market: FeatureMarket) -> None:
    rows, warm = feature_table(market.bars, SCHEMA, market.universe)
    rows[np.flatnonzero(warm)[0], SCHEMA.names.index("beta")] = np.nan
    assert checks.warm_rows_finite(rows, warm, SCHEMA).passed
    rows[np.flatnonzero(warm)[0], SCHEMA.names.index("rsi")] = np.inf
    result = checks.warm_rows_finite(rows, warm, SCHEMA)
    assert not result.passed
    assert result.details["not_finite"] == 1


def test_the_examples_of_the_audit_are_true() -> None:
    assert doctest.testmod(checks) == (0, 6)


def test_stored_features_are_audited_with_their_corporate_actions(
    market: FeatureMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    step, symbol = FeatureEngine.step, market.universe.instruments[-1].symbol
    ex_date = dt.datetime.fromtimestamp(int(market.bars.start_ns[-1]) / 1e9, IST).date()
    actions = CorporateActions((CorporateAction(symbol, ex_date, "split", 0.5),))

    def forgets_actions_one_by_one(engine: FeatureEngine, bars: Bars) -> tuple[np.ndarray, np.ndarray]:
        rows, warm = step(engine, bars)
        adjusts = len(engine._actions[1]) > 0
        return (np.nextafter(rows, np.inf) if adjusts and len(bars) == 1 else rows), warm

    monkeypatch.setattr(FeatureEngine, "step", forgets_actions_one_by_one)
    assert checks.features_pass_audit(market.bars, SCHEMA, market.universe).passed
    assert not checks.features_pass_audit(market.bars, SCHEMA, market.universe, actions=actions).passed
