import datetime as dt
import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from feature_store.features import (
    FEATURES,
    FeatureEngine,
    UnknownFeature,
    feature_schema,
    feature_table,
    schema_hash,
)
from feature_store.market import MINUTE_NS, Bars, Session, UnknownInstrument
from feature_store.synthetic import synthetic_market
from models_registry.refs import FeatureColumn

SESSION = Session.regular(dt.date(2026, 1, 5))


@pytest.fixture(scope="module")
def bars() -> Bars:
    """One instrument's session."""
    market = synthetic_market(instruments=2, sessions=1, seed=3, index=False)
    return market.bars[0][market.bars[0].instrument == 0]


@pytest.fixture(scope="module")
def frame(bars: Bars) -> pd.DataFrame:
    return pd.DataFrame({name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume")})


def wilder(changes: pd.Series) -> pd.Series:
    def last(window: np.ndarray) -> float:
        value = window[:14].mean()
        for change in window[14:]:
            value = (value * 13 + change) / 14
        return value

    return changes.rolling(29).apply(last, raw=True)


def truncated_ema(close: pd.Series, span: int) -> pd.Series:
    return close.rolling(30).apply(lambda w: pd.Series(w).ewm(span=span, adjust=False).mean().iloc[-1], raw=True)


ORACLES = {
    "momentum": lambda f: f.close.pct_change(10),
    "volatility": lambda f: f.close.pct_change().rolling(20).std(ddof=0),
    "ema_spread": lambda f: (truncated_ema(f.close, 5) - truncated_ema(f.close, 20)) / f.close,
    "rsi": lambda f: 100 - 100 / (1 + wilder(f.close.diff().clip(lower=0)) / wilder((-f.close.diff()).clip(lower=0))),
    "z_score": lambda f: (f.close - f.close.rolling(20).mean()) / f.close.rolling(20).std(ddof=0),
    "vwap_distance": lambda f: (
        f.close / (((f.high + f.low + f.close) / 3 * f.volume).rolling(20).sum() / f.volume.rolling(20).sum()) - 1
    ),
    "donchian_position": lambda f: (
        (f.close - f.low.rolling(20).min()) / (f.high.rolling(20).max() - f.low.rolling(20).min())
    ),
    "relative_volume": lambda f: f.volume / f.volume.rolling(20).mean(),
    "mean_range": lambda f: (f.high - f.low).rolling(10).mean() / f.close,
    "time_of_day": lambda f: pd.Series((np.arange(len(f)) + 1) / 375),
}


def test_every_feature_has_an_oracle() -> None:
    assert set(ORACLES) == {spec.name for spec in FEATURES}


@pytest.mark.parametrize("name", ORACLES)
def test_a_feature_agrees_with_pandas(name: str, bars: Bars, frame: pd.DataFrame) -> None:
    rows, warm = feature_table(bars, feature_schema([name], 1), 1)
    expected = ORACLES[name](frame).to_numpy()
    np.testing.assert_allclose(rows[warm, 0], expected[warm], rtol=1e-7, atol=1e-10)
    assert warm.any()


def test_declarations_are_complete_and_short_enough_for_a_morning() -> None:
    for spec in FEATURES:
        assert 1 <= spec.warm_up <= 30
        assert spec.units
        assert spec.source
        assert spec.dtype == "float64"
    assert len({spec.name for spec in FEATURES}) == len(FEATURES)


def test_the_columns_fit_a_sidecar_and_give_the_hash() -> None:
    schema = feature_schema(None, 1)
    columns = [FeatureColumn.model_validate(column) for column in schema.columns()]
    assert schema_hash([c.model_dump() for c in columns], schema.bar_clock) == schema.hash
    assert schema_hash(json.loads(json.dumps(schema.columns())), schema.bar_clock) == schema.hash


def test_the_hash_tells_order_choice_clock_parameters_and_version_apart() -> None:
    schema = feature_schema(["rsi", "z_score"], 1)
    columns = schema.columns()
    changed = [{**columns[0], "parameters": {"period": 15}}, columns[1]]
    raised = [{**columns[0], "version": 2}, columns[1]]
    hashes = {
        schema.hash,
        feature_schema(["z_score", "rsi"], 1).hash,
        feature_schema(["rsi"], 1).hash,
        feature_schema(["rsi", "z_score"], 5).hash,
        schema_hash(changed, schema.bar_clock),
        schema_hash(raised, schema.bar_clock),
    }
    assert len(hashes) == 6
    assert feature_schema(["rsi", "z_score"], 1).hash == schema.hash


def test_another_process_gives_the_same_hash() -> None:
    code = "from feature_store.features import feature_schema as s; import sys; sys.stdout.write(s(None, 1).hash)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == feature_schema(None, 1).hash


@pytest.mark.parametrize("names", [["no_such"], [], ["rsi", "rsi"]])
def test_a_wrong_choice_of_features_says_what_there_is(names: list[str]) -> None:
    with pytest.raises(UnknownFeature, match="momentum"):
        feature_schema(names, 1)


def test_bar_clock_and_warm_up_come_from_the_choice() -> None:
    schema = feature_schema(["momentum", "time_of_day"], 5)
    assert (schema.bar_clock, schema.bar_ns, schema.warm_up) == ("time:300s", 5 * MINUTE_NS, 11)


def test_a_new_date_begins_afresh(bars: Bars) -> None:
    schema = feature_schema(None, 1)
    engine = FeatureEngine(schema, 1)
    first, _ = engine.step(bars)
    day = 24 * 60 * MINUTE_NS
    moved = Bars(
        bars.instrument, bars.start_ns + day, bars.end_ns + day, bars.open, bars.high, bars.low, bars.close,
        bars.volume, bars.tick_count,
    )  # fmt: skip
    second, _ = engine.step(moved)
    assert np.array_equal(first.view(np.int64), second.view(np.int64))


def test_flat_prices_without_volume_give_finite_neutral_values() -> None:
    n = 40
    start = SESSION.open_ns + np.arange(n) * MINUTE_NS
    price = np.full(n, 1234.55)
    bars = Bars(
        np.zeros(n, dtype=np.int32), start, start + MINUTE_NS, price, price, price, price,
        np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int32),
    )  # fmt: skip
    schema = feature_schema(None, 1)
    rows, _ = feature_table(bars, schema, 1)
    last = dict(zip(schema.names, rows[-1].tolist(), strict=True))
    assert last["rsi"] == 50.0
    assert last["z_score"] == 0.0
    assert last["donchian_position"] == 0.5
    assert last["relative_volume"] == 1.0
    assert last["volatility"] == 0.0
    assert abs(last["vwap_distance"]) < 1e-12


def test_an_instrument_outside_the_universe_is_refused(bars: Bars) -> None:
    wrong = Bars(bars.instrument + np.int32(1), *(getattr(bars, n) for n in list(Bars.__dataclass_fields__)[1:]))
    with pytest.raises(UnknownInstrument, match="same universe"):
        feature_table(wrong, feature_schema(None, 1), 1)
