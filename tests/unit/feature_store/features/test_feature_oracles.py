"""Every feature against an independent oracle: TA-Lib where it defines the same thing, else pandas and numpy."""

import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import talib
from talib import stream

from feature_store.features.engine import FeatureEngine, feature_table
from feature_store.features.schema import FEATURES, feature_schema
from feature_store.market.types import Bars
from tests.feature_markets import INDEX, FeatureMarket, feature_market

FIXED_POINT = 1e-9  # sums are kept in fixed point of 2**-40 of a return and more
FLOAT_SUMS = 1e-6  # TA-Lib subtracts running sums of squares of prices from each other: it keeps seven digits of them
SQUARED_RETURNS = 1e-8  # a squared return is kept to 2**-52; the root of their mean loses half the digits

Oracle = Callable[[pd.DataFrame], "pd.Series[float]"]


def of_day(f: pd.DataFrame) -> "pd.Series[object]":
    return f.end.dt.date


def typical(f: pd.DataFrame) -> "pd.Series[float]":
    return (f.high + f.low + f.close) / 3


def returns(f: pd.DataFrame) -> "pd.Series[float]":
    return f.close / f.close.shift() - 1


def true_range(f: pd.DataFrame) -> "pd.Series[float]":
    before = f.close.shift().fillna(f.close)
    return np.maximum(f.high, before) - np.minimum(f.low, before)


def slope(values: "pd.Series[float]", period: int = 20) -> "pd.Series[float]":
    return values.rolling(period).apply(lambda w: np.polyfit(np.arange(period), w - w[0], 1)[0], raw=True)


def minutes(f: pd.DataFrame) -> "pd.Series[float]":
    return f.end.dt.hour * 60 + f.end.dt.minute


def cusum_move(f: pd.DataFrame) -> "pd.Series[float]":
    rise, fall = f.close - f.close.rolling(21).min(), f.close.rolling(21).max() - f.close
    return rise.where(rise > fall, -fall).where(rise != fall, 0.0) / (f.close * returns(f).rolling(20).std(ddof=0))


def bollinger(f: pd.DataFrame) -> "pd.Series[float]":
    upper, _, lower = talib.BBANDS(f.close, 20, 2.0, 2.0)
    return (f.close - lower) / (upper - lower)


PANDAS: dict[str, tuple[Oracle, float]] = {
    "last_return": (returns, FIXED_POINT),
    "momentum": (lambda f: f.close / f.close.shift(10) - 1, FIXED_POINT),
    "long_momentum": (lambda f: f.close / f.close.shift(60) - 1, FIXED_POINT),
    "session_return": (lambda f: f.close / f.open.groupby(of_day(f)).transform("first") - 1, FIXED_POINT),
    "overnight_gap": (
        lambda f: (f.open / f.close.shift()).groupby(of_day(f)).transform("first", skipna=False) - 1,
        FIXED_POINT,
    ),
    "volatility": (lambda f: returns(f).rolling(20).std(ddof=0), SQUARED_RETURNS),
    "parkinson_volatility": (
        lambda f: np.sqrt((np.log(f.high / f.low) ** 2).rolling(20).mean() / (4 * math.log(2))),
        SQUARED_RETURNS,
    ),
    "garman_klass_volatility": (
        lambda f: np.sqrt(
            (0.5 * np.log(f.high / f.low) ** 2 - (2 * math.log(2) - 1) * np.log(f.close / f.open) ** 2)
            .rolling(20)
            .mean()
        ),
        SQUARED_RETURNS,
    ),
    "volatility_ratio": (
        lambda f: returns(f).rolling(10).std(ddof=0) / returns(f).rolling(60).std(ddof=0),
        1e-7,  # of two such roots
    ),
    "ema_spread": (
        lambda f: (f.close.ewm(span=5, adjust=False).mean() - f.close.ewm(span=20, adjust=False).mean()) / f.close,
        FIXED_POINT,
    ),
    "trend_slope": (lambda f: slope(f.close) / f.close, FIXED_POINT),
    "trend_r_squared": (lambda f: f.close.rolling(20).corr(pd.Series(np.arange(len(f)) * 1.0)) ** 2, FLOAT_SUMS),
    "efficiency_ratio": (
        lambda f: (f.close - f.close.shift(20)).abs() / f.close.diff().abs().rolling(20).sum(),
        FIXED_POINT,
    ),
    "z_score": (
        lambda f: f.close.rolling(20).apply(lambda w: (w[-1] - w.mean()) / w.std(), raw=True),
        FIXED_POINT,
    ),
    "rsi": (
        lambda f: (
            100
            * f.close.diff().clip(lower=0).ewm(alpha=1 / 14, adjust=False).mean()
            / f.close.diff().abs().ewm(alpha=1 / 14, adjust=False).mean()
        ),
        FIXED_POINT,
    ),
    "vwap_distance": (
        lambda f: (
            f.close / ((typical(f) * f.volume).groupby(of_day(f)).cumsum() / f.volume.groupby(of_day(f)).cumsum()) - 1
        ).fillna(0.0),
        FIXED_POINT,
    ),
    "rolling_vwap_distance": (
        lambda f: f.close / ((typical(f) * f.volume).rolling(20).sum() / f.volume.rolling(20).sum()) - 1,
        FIXED_POINT,
    ),
    "donchian_position": (
        lambda f: (f.close - f.low.rolling(20).min()) / (f.high.rolling(20).max() - f.low.rolling(20).min()),
        FIXED_POINT,
    ),
    "session_range_position": (
        lambda f: (
            (f.close - f.low.groupby(of_day(f)).cummin())
            / (f.high.groupby(of_day(f)).cummax() - f.low.groupby(of_day(f)).cummin())
        ).fillna(0.5),
        FIXED_POINT,
    ),
    "range_expansion": (lambda f: (f.high - f.low) / (f.high - f.low).rolling(20).mean(), FIXED_POINT),
    "mean_range": (lambda f: (f.high - f.low).rolling(10).mean() / f.close, FIXED_POINT),
    "atr_ratio": (lambda f: true_range(f).rolling(5).mean() / true_range(f).rolling(20).mean(), FIXED_POINT),
    "relative_volume": (lambda f: f.volume / f.volume.rolling(20).mean(), FIXED_POINT),
    "obv_slope": (
        lambda f: slope((np.sign(f.close.diff()).fillna(0) * f.volume).cumsum()) / f.volume.rolling(20).mean(),
        FIXED_POINT,
    ),
    "spread": (lambda f: f.spread_bps, FIXED_POINT),
    "relative_spread": (lambda f: f.spread_bps / f.spread_bps.rolling(10).mean(), FIXED_POINT),
    "depth_imbalance": (lambda f: f.imbalance, FIXED_POINT),
    "mean_imbalance": (lambda f: f.imbalance.rolling(5).mean(), FIXED_POINT),
    "time_of_day": (lambda f: (minutes(f) - 555) / 375, FIXED_POINT),
    "relative_strength": (
        lambda f: f.close / f.close.shift(20) - f.index_close / f.index_close.shift(20),
        FIXED_POINT,
    ),
    "beta": (
        lambda f: (
            returns(f).rolling(60).cov(f.index_close.pct_change(), ddof=0)
            / f.index_close.pct_change().rolling(60).var(ddof=0)
        ),
        1e-7,  # the variance of squared returns again
    ),
    "cusum_move": (cusum_move, SQUARED_RETURNS),
    "donchian_break": (
        lambda f: (
            (f.close - f.close.clip(f.low.shift().rolling(20).min(), f.high.shift().rolling(20).max()))
            / (f.close * returns(f).rolling(20).std(ddof=0))
        ),
        SQUARED_RETURNS,
    ),
}
"""What a feature is, written with pandas, and to what relative (or absolute) tolerance it must agree."""

TALIB: dict[str, tuple[Oracle, float]] = {
    "momentum": (lambda f: talib.ROCP(f.close, 10), FIXED_POINT),
    "long_momentum": (lambda f: talib.ROCP(f.close, 60), FIXED_POINT),
    "volatility": (lambda f: talib.STDDEV(returns(f).fillna(0.0), 20), FLOAT_SUMS),
    "ema_spread": (lambda f: (talib.EMA(f.close, 5) - talib.EMA(f.close, 20)) / f.close, FIXED_POINT),
    "adx": (lambda f: talib.ADX(f.high, f.low, f.close, 14), FIXED_POINT),
    "trend_slope": (lambda f: talib.LINEARREG_SLOPE(f.close, 20) / f.close, FIXED_POINT),
    "trend_r_squared": (lambda f: talib.CORREL(f.close, pd.Series(np.arange(len(f)) * 1.0), 20) ** 2, 1e-4),
    "efficiency_ratio": (lambda f: talib.ER(f.close, 20), FIXED_POINT),
    "z_score": (lambda f: (f.close - talib.SMA(f.close, 20)) / talib.STDDEV(f.close, 20), FLOAT_SUMS),
    "rsi": (lambda f: talib.RSI(f.close, 14), FIXED_POINT),
    "bollinger_percent_b": (bollinger, FLOAT_SUMS),
    "donchian_position": (
        lambda f: (f.close - talib.MIN(f.low, 20)) / (talib.MAX(f.high, 20) - talib.MIN(f.low, 20)),
        FIXED_POINT,
    ),
    "mean_range": (lambda f: talib.SMA(f.high - f.low, 10) / f.close, FIXED_POINT),
    "atr_ratio": (
        lambda f: (
            talib.SMA(talib.TRANGE(f.high, f.low, f.close), 5) / talib.SMA(talib.TRANGE(f.high, f.low, f.close), 20)
        ),
        FIXED_POINT,
    ),
    "average_true_range": (lambda f: talib.NATR(f.high, f.low, f.close, 14) / 100, FIXED_POINT),
    "obv_slope": (
        lambda f: talib.LINEARREG_SLOPE(talib.OBV(f.close, f.volume * 1.0), 20) / talib.SMA(f.volume * 1.0, 20),
        FLOAT_SUMS,
    ),
    "beta": (lambda f: talib.BETA(f.index_close, f.close, 60), FLOAT_SUMS),
}

WITHOUT_PANDAS = {
    "adx": "pandas has no directional index; TA-Lib has",
    "bollinger_percent_b": "the same bands as z_score; TA-Lib has them",
    "average_true_range": "TA-Lib has it",
}
STREAMS: dict[str, tuple[Callable[[pd.DataFrame], "stream.Stream"], tuple[str, ...], Callable[..., float], float]] = {
    "momentum": (lambda f: stream.ROCP(f.close, 10), ("close",), lambda out, bar: out, FIXED_POINT),
    "adx": (
        lambda f: stream.ADX(f.high, f.low, f.close, 14), ("high", "low", "close"), lambda out, bar: out, FIXED_POINT
    ),
    "trend_slope": (
        lambda f: stream.LINEARREG_SLOPE(f.close, 20), ("close",), lambda out, bar: out / bar.close, FIXED_POINT
    ),
    "efficiency_ratio": (lambda f: stream.ER(f.close, 20), ("close",), lambda out, bar: out, FIXED_POINT),
    "rsi": (lambda f: stream.RSI(f.close, 14), ("close",), lambda out, bar: out, FIXED_POINT),
    "bollinger_percent_b": (
        lambda f: stream.BBANDS(f.close, 20, 2.0, 2.0), ("close",),
        lambda out, bar: (bar.close - out[2]) / (out[0] - out[2]), FLOAT_SUMS,
    ),
    "donchian_position": (
        lambda f: stream.DONCHIAN(f.high, f.low, 20), ("high", "low"),
        lambda out, bar: (bar.close - out[2]) / (out[0] - out[2]), FIXED_POINT,
    ),
    "average_true_range": (
        lambda f: stream.NATR(f.high, f.low, f.close, 14), ("high", "low", "close"), lambda out, bar: out / 100,
        FIXED_POINT,
    ),
    "beta": (lambda f: stream.BETA(f.index_close, f.close, 60), ("index_close", "close"), lambda out, bar: out, 1e-6),
}  # fmt: skip
"""TA-Lib's streaming handle, what it takes of a bar, and the feature out of what it gives."""


@pytest.fixture(scope="module")
def market() -> FeatureMarket:
    return feature_market(5, stocks=2, sessions=5)


@pytest.fixture(scope="module")
def gappy() -> FeatureMarket:
    """A market in which a tenth of the bars, and of the bars that have one, of the quotes, is not there."""
    return feature_market(6, stocks=2, sessions=5, missing=0.1)


def frame_of(market: FeatureMarket, symbol: str) -> pd.DataFrame:
    """One stock's bars, with the index's close of the same end."""
    bars = market.bars[market.of(symbol)]
    index = market.bars[market.of(INDEX)]
    frame = pd.DataFrame(
        {name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume", "spread_bps", "imbalance")}
    )
    frame["end"] = pd.to_datetime(bars.end_ns, utc=True).tz_convert("Asia/Kolkata")
    frame["index_close"] = pd.Series(index.close, index=index.end_ns).reindex(bars.end_ns).to_numpy()
    return frame


def check(name: str, market: FeatureMarket, oracle: Oracle, tolerance: float) -> None:
    rows, _ = feature_table(market.bars, feature_schema([name], 1), market.universe)
    agreed = 0
    for symbol in ("STOCK0", "STOCK1"):
        mine = rows[market.of(symbol), 0]
        expected = np.asarray(oracle(frame_of(market, symbol)), dtype=np.float64)
        there = ~np.isnan(mine)
        np.testing.assert_allclose(mine[there], expected[there], rtol=tolerance, atol=tolerance)
        agreed += int(np.isfinite(mine).sum())
    assert agreed > 500


def test_every_feature_has_an_oracle() -> None:
    names = {spec.name for spec in FEATURES}
    assert set(PANDAS) | set(TALIB) == names
    assert names - set(PANDAS) == set(WITHOUT_PANDAS)
    assert set(STREAMS) <= set(TALIB)


@pytest.mark.parametrize("name", PANDAS)
def test_a_feature_agrees_with_pandas(name: str, market: FeatureMarket) -> None:
    check(name, market, *PANDAS[name])


@pytest.mark.parametrize("name", PANDAS)
def test_a_feature_agrees_with_pandas_where_bars_are_missing(name: str, gappy: FeatureMarket) -> None:
    oracle, tolerance = PANDAS[name]
    rows, _ = feature_table(gappy.bars, feature_schema([name], 1), gappy.universe)
    mine = rows[gappy.of("STOCK0"), 0]
    frame = frame_of(gappy, "STOCK0")
    with np.errstate(all="ignore"):
        expected = np.asarray(oracle(frame), dtype=np.float64)
    both = ~np.isnan(mine) & ~np.isnan(expected)
    np.testing.assert_allclose(mine[both], expected[both], rtol=tolerance, atol=tolerance)
    assert (~np.isnan(mine) == both).all()
    assert both.sum() > 500 or name == "beta"


@pytest.mark.parametrize("name", TALIB)
def test_a_feature_agrees_with_talib(name: str, market: FeatureMarket) -> None:
    check(name, market, *TALIB[name])


@pytest.mark.parametrize("name", STREAMS)
def test_bar_by_bar_the_engine_agrees_with_talibs_streaming_handle(name: str, market: FeatureMarket) -> None:
    opened, inputs, feature, tolerance = STREAMS[name]
    mine, frame = market.of("STOCK0"), frame_of(market, "STOCK0")
    begin = len(frame) - 60
    engine = FeatureEngine(feature_schema([name], 1), market.universe)
    engine.step(market.bars[: mine[begin]])
    handle = opened(frame[:begin])
    for k in range(begin, len(frame)):
        last = mine[k + 1] if k + 1 < len(frame) else len(market.bars)
        found, _ = engine.step(market.bars[mine[k] : last])
        bar = frame.iloc[k]
        expected = feature(handle.update(*(float(bar[column]) for column in inputs)), bar)
        assert found[0, 0] == pytest.approx(expected, rel=tolerance, abs=tolerance)


@pytest.mark.parametrize("name", [spec.name for spec in FEATURES if spec.memory == "recursive"])
def test_with_the_fewest_bars_between_anchors_truncation_stays_below_half_a_percent(name: str) -> None:
    """(13 / 14) ** 128 of the oldest value is left out: 8e-5 of it; ADX smooths twice and leaves out 2e-3."""
    market = feature_market(8, stocks=2, sessions=90, clock="60m")
    rows, warm = feature_table(market.bars, feature_schema([name], "60m"), market.universe)
    for symbol in ("STOCK0", "STOCK1"):
        frame = frame_of(market, symbol)
        mine = market.of(symbol)
        expected = np.asarray(TALIB[name][0](frame))[warm[mine]]
        scale = np.abs(expected).mean()
        assert len(expected) > 150
        tolerance = 5e-3 if name == "adx" else 1e-3
        np.testing.assert_allclose(rows[mine, 0][warm[mine]], expected, rtol=0, atol=tolerance * scale)


FLAT = {
    "volatility_ratio": 1.0, "trend_r_squared": 0.0, "efficiency_ratio": 0.0, "z_score": 0.0, "rsi": 50.0,
    "bollinger_percent_b": 0.5, "vwap_distance": 0.0, "rolling_vwap_distance": 0.0, "donchian_position": 0.5,
    "session_range_position": 0.5, "range_expansion": 1.0, "atr_ratio": 1.0, "relative_volume": 1.0, "obv_slope": 0.0,
    "last_return": 0.0, "momentum": 0.0, "long_momentum": 0.0, "session_return": 0.0, "overnight_gap": 0.0,
    "volatility": 0.0, "parkinson_volatility": 0.0, "garman_klass_volatility": 0.0, "ema_spread": 0.0, "adx": 0.0,
    "trend_slope": 0.0, "mean_range": 0.0, "average_true_range": 0.0, "relative_strength": 0.0, "beta": 1.0,
    "relative_spread": 1.0, "cusum_move": 0.0, "donchian_break": 0.0,
}  # fmt: skip
"""What the declarations say of prices that never move, without volume, beside an index that does not either."""


def test_flat_prices_without_volume_give_the_neutral_values_that_are_declared(market: FeatureMarket) -> None:
    bars = market.bars
    still, none = np.full(len(bars), 1234.55), np.zeros(len(bars), dtype=np.int64)
    flat = Bars(
        bars.instrument, bars.start_ns, bars.end_ns, still, still, still, still, none, none.astype(np.int32),
        none.astype(np.float64), none.astype(np.float64),
    )  # fmt: skip
    schema = feature_schema(None, 1)
    rows, warm = feature_table(flat, schema, market.universe)
    last = dict(zip(schema.names, rows[warm][-1].tolist(), strict=True))
    assert {name: last[name] for name in FLAT} == FLAT
    assert np.isfinite(rows[warm]).all()
