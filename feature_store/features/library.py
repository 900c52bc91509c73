"""The features. To add one, write one decorated function here and nothing else: see CONTRIBUTING.md.

A function gets the `Window` of one instrument at the end of a bar and returns a float. Keyword defaults are its
parameters and go into the feature schema's hash; raise ``version`` when the arithmetic changes. ``warm_up`` is how many
bars it looks at, its own bar included, and one more for every return, which needs the close before. ``mirror`` lets
a model judge a short by what it learned of longs; without it, a strategy with a rule cannot look at the feature. All
guards of `feature_store.features.audit.audit` find a new function by themselves and run on it in `make test`.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Literal

from feature_store.features.window import (
    CLOSE,
    COUNT_DEPTH,
    COUNT_INDEX,
    DEPTH_UNITS,
    EMA_5,
    EMA_20,
    HIGH,
    IMBALANCE,
    INDEX_CLOSE,
    LOW,
    PREVIOUS_CLOSE,
    RETURN_UNITS,
    SESSION_HIGH,
    SESSION_LOW,
    SESSION_OPEN,
    SESSION_TURNOVER,
    SESSION_VOLUME,
    SPREAD,
    SQUARE_UNITS,
    SUM_GARMAN_KLASS,
    SUM_IMBALANCE,
    SUM_INDEX_RETURN,
    SUM_INDEX_RETURN_SQUARED,
    SUM_MOVE,
    SUM_PARKINSON,
    SUM_RANGE,
    SUM_RETURN,
    SUM_RETURN_PRODUCT,
    SUM_SPREAD,
    SUM_TRUE_RANGE,
    SUM_TURNOVER,
    SUM_VOLUME,
    VOLUME,
    WILDER_DX,
    WILDER_GAIN,
    WILDER_LOSS,
    WILDER_TRUE_RANGE,
    Window,
    compiled,
    highest,
    lowest,
    mean_price,
    obv_slope_shares,
    of_session,
    price,
    price_deviation,
    price_slope,
    return_deviation,
    smoothed,
    total,
    total_of_session,
    units,
)
from feature_store.market.arrays import compiled_ist_time_of_day
from feature_store.market.types import REGULAR_OPEN_NS, REGULAR_SESSION_NS

Memory = Literal["window", "session", "recursive"]
"""What a value depends on: the last ``warm_up`` bars; those since the session's open (and the close before it); or the
bars since the last anchor but one."""
NanPolicy = Literal["never", "without_index", "without_depth"]
"""When a warm value may be NaN: never, or while an input of the window is not there. Nothing is ever filled in."""
Mirror = Literal["same", "sign", "complement", "none"]
"""What becomes of a value where the market is mirrored, so that each rise is a fall as large: nothing, the other sign,
the rest up to ``top``, or what the value does not tell. Up to terms of second order in the moves."""

_FOUR_LOG_TWO: Final = 4.0 * math.log(2.0)


@dataclass(frozen=True)
class FeatureSpec:
    """The declaration of one feature."""

    name: str
    parameters: dict[str, int | float | str]
    warm_up: int
    """Bars the value depends on, its own bar included; fewer give NaN."""
    units: str
    source: str
    """Paper or book of the formula."""
    version: int
    memory: Memory = "window"
    nan_policy: NanPolicy = "never"
    dtype: str = "float64"
    mirror: Mirror = "none"
    top: float | None = None
    """Of a complement: a value and its mirror image add up to it."""

    def __post_init__(self) -> None:
        if (self.mirror == "complement") != (self.top is not None):
            raise ValueError(
                f'{self.name}: mirror="{self.mirror}" and top={self.top}; a complement names what a value and its '
                "mirror image add up to, and nothing else does"
            )


DECLARED: list[tuple[FeatureSpec, Callable[[Window], float]]] = []
"""Every feature and its compiled function, in the order of declaration."""


def declare(
    function: Callable[..., float],
    *,
    warm_up: int,
    units: str,
    source: str,
    version: int = 1,
    memory: Memory = "window",
    nan_policy: NanPolicy = "never",
    mirror: Mirror = "none",
    top: float | None = None,
) -> tuple[FeatureSpec, Callable[[Window], float]]:
    """Compile a function and describe it; its name, and the defaults of its keywords, are the feature's."""
    keywords = list(inspect.signature(function).parameters.values())[1:]
    parameters = {keyword.name: keyword.default for keyword in keywords}
    spec = FeatureSpec(
        function.__name__, parameters, warm_up, units, source, version, memory, nan_policy, mirror=mirror, top=top
    )
    return spec, compiled(function)


def feature(mirror: Mirror = "none", **declaration: Any) -> Callable[[Callable[..., float]], Callable[..., float]]:
    """Make the decorated function a feature of the platform; mirror and the keywords are those of `declare`."""

    def add(function: Callable[..., float]) -> Callable[..., float]:
        DECLARED.append(declare(function, mirror=mirror, **declaration))
        return DECLARED[-1][1]

    return add


# --- returns and momentum ---------------------------------------------------------------------------------------------


@feature("sign", warm_up=2, units="fraction", source="Tsay, Analysis of Financial Time Series (2010), section 1.1")
def last_return(bars: Window) -> float:
    """Return of the newest bar."""
    return units(bars, CLOSE) / units(bars, CLOSE, 1) - 1.0


@feature("sign", warm_up=11, units="fraction", source="Jegadeesh and Titman (1993): return over the formation period")
def momentum(bars: Window, period: int = 10) -> float:
    """Return over the last ``period`` bars."""
    return units(bars, CLOSE) / units(bars, CLOSE, period) - 1.0


@feature("sign", warm_up=61, units="fraction", source="Jegadeesh and Titman (1993): return over the formation period")
def long_momentum(bars: Window, period: int = 60) -> float:
    """Return over the last ``period`` bars."""
    return units(bars, CLOSE) / units(bars, CLOSE, period) - 1.0


@feature(
    "sign", warm_up=1, memory="session", units="fraction", source="Gao, Han, Li and Zhou (2018): intraday momentum"
)
def session_return(bars: Window) -> float:
    """Close against the first open of the session."""
    return units(bars, CLOSE) / of_session(bars, SESSION_OPEN) - 1.0


@feature("sign", warm_up=2, memory="session", units="fraction", source="Lou, Polk and Skouras (2019): overnight return")
def overnight_gap(bars: Window) -> float:
    """First open of the session against the close before it."""
    return of_session(bars, SESSION_OPEN) / of_session(bars, PREVIOUS_CLOSE) - 1.0


# --- volatility, per bar ----------------------------------------------------------------------------------------------


@feature("same", warm_up=21, units="fraction per bar", source="close to close: population deviation of simple returns")
def volatility(bars: Window, period: int = 20) -> float:
    """Standard deviation of the bar-to-bar returns."""
    return return_deviation(bars, period)


@feature("same", warm_up=20, units="fraction per bar", source="Parkinson (1980), Journal of Business 53")
def parkinson_volatility(bars: Window, period: int = 20) -> float:
    """Root of the mean of ln(high/low)² / (4 ln 2)."""
    mean = total(bars, SUM_PARKINSON, period) / SQUARE_UNITS / period
    return math.sqrt(mean / _FOUR_LOG_TWO)


@feature("same", warm_up=20, units="fraction per bar", source="Garman and Klass (1980), Journal of Business 53")
def garman_klass_volatility(bars: Window, period: int = 20) -> float:
    """Root of the mean of 0.5 ln(high/low)² − (2 ln 2 − 1) ln(close/open)²."""
    mean = total(bars, SUM_GARMAN_KLASS, period) / SQUARE_UNITS / period
    return math.sqrt(max(mean, 0.0))


@feature("same", warm_up=61, units="ratio", source="short over long close-to-close volatility; flat = 1")
def volatility_ratio(bars: Window, short: int = 10, long: int = 60) -> float:
    """Recent volatility against its longer level."""
    level = return_deviation(bars, long)
    return return_deviation(bars, short) / level if level > 0.0 else 1.0


# --- trend ------------------------------------------------------------------------------------------------------------


@feature("sign", warm_up=1, memory="recursive", units="fraction of close", source="Appel (1979): EMA(5) - EMA(20)")
def ema_spread(bars: Window) -> float:
    """Fast minus slow exponential moving average of the close."""
    return (smoothed(bars, EMA_5) - smoothed(bars, EMA_20)) / units(bars, CLOSE)


@feature("same", warm_up=2, memory="recursive", units="0 to 100", source="Wilder (1978): ADX, smoothing over 14 bars")
def adx(bars: Window) -> float:
    """Average directional index: strength of a trend, whichever way."""
    return smoothed(bars, WILDER_DX)


@feature("sign", warm_up=20, units="fraction of close per bar", source="least-squares line through the close")
def trend_slope(bars: Window, period: int = 20) -> float:
    """Slope of the regression of the close on time."""
    return price_slope(bars, period) / price(bars, CLOSE)


@feature("same", warm_up=20, units="0 to 1", source="coefficient of determination of that line; flat = 0")
def trend_r_squared(bars: Window, period: int = 20) -> float:
    """Share of the close's variance that the regression line explains."""
    deviation = price_deviation(bars, period)
    slope = price_slope(bars, period)
    of_time = (period * period - 1.0) / 12.0  # variance of 0, 1, …, period - 1
    return min(slope * slope * of_time / (deviation * deviation), 1.0) if deviation > 0.0 else 0.0


@feature("same", warm_up=21, units="0 to 1", source="Kaufman (1995): efficiency ratio; flat = 0")
def efficiency_ratio(bars: Window, period: int = 20) -> float:
    """Net move over the sum of all moves."""
    path = total(bars, SUM_MOVE, period)
    return abs(units(bars, CLOSE) - units(bars, CLOSE, period)) / path if path > 0 else 0.0


# --- mean reversion ---------------------------------------------------------------------------------------------------


@feature(
    "sign", warm_up=20, units="standard deviations", source="(close - mean) / population standard deviation; flat = 0"
)
def z_score(bars: Window, period: int = 20) -> float:
    """Distance of the close from its mean."""
    deviation = price_deviation(bars, period)
    return (price(bars, CLOSE) - mean_price(bars, period)) / deviation if deviation > 0.0 else 0.0


@feature(
    "complement",
    top=100.0,
    warm_up=2,
    memory="recursive",
    units="0 to 100",
    source="Wilder (1978): RSI over 14 bars; flat = 50",
)
def rsi(bars: Window) -> float:
    """Relative strength index."""
    gain, loss = smoothed(bars, WILDER_GAIN), smoothed(bars, WILDER_LOSS)
    return 100.0 * gain / (gain + loss) if gain + loss > 0.0 else 50.0


@feature(
    "complement",
    top=1.0,
    warm_up=20,
    units="ratio",
    source="Bollinger (2001): %b with 2 population deviations; flat = 0.5",
)
def bollinger_percent_b(bars: Window, period: int = 20, width: float = 2.0) -> float:
    """Where the close stands between the bands: 0 at the lower, 1 at the upper one."""
    deviation = price_deviation(bars, period)
    if deviation == 0.0:
        return 0.5
    return (price(bars, CLOSE) - mean_price(bars, period)) / (2.0 * width * deviation) + 0.5


@feature(
    "sign", warm_up=1, memory="session", units="fraction", source="Berkowitz, Logue and Noser (1988); no volume = 0"
)
def vwap_distance(bars: Window) -> float:
    """Close against the session's volume-weighted average of the typical price."""
    shares = total_of_session(bars, SUM_VOLUME, SESSION_VOLUME)
    turnover = total_of_session(bars, SUM_TURNOVER, SESSION_TURNOVER)
    return 3.0 * units(bars, CLOSE) * float(shares) / turnover - 1.0 if turnover > 0 else 0.0


@feature(
    "sign", warm_up=20, units="fraction", source="volume-weighted typical price over a rolling window; no volume = 0"
)
def rolling_vwap_distance(bars: Window, period: int = 20) -> float:
    """Close against the rolling volume-weighted average of the typical price."""
    shares, turnover = total(bars, SUM_VOLUME, period), total(bars, SUM_TURNOVER, period)
    return 3.0 * units(bars, CLOSE) * float(shares) / turnover - 1.0 if turnover > 0 else 0.0


# --- breakout ---------------------------------------------------------------------------------------------------------


@feature("complement", top=1.0, warm_up=20, units="0 to 1", source="Donchian channel (Donchian 1960); flat = 0.5")
def donchian_position(bars: Window, period: int = 20) -> float:
    """Where the close stands between the lowest low and the highest high."""
    low, high = lowest(bars, period), highest(bars, period)
    return (units(bars, CLOSE) - low) / (high - low) if high > low else 0.5


@feature(
    "complement",
    top=1.0,
    warm_up=1,
    memory="session",
    units="0 to 1",
    source="close within the session's range so far; flat = 0.5",
)
def session_range_position(bars: Window) -> float:
    """Where the close stands between the session's low and high."""
    low, high = of_session(bars, SESSION_LOW), of_session(bars, SESSION_HIGH)
    return (units(bars, CLOSE) - low) / (high - low) if high > low else 0.5


@feature("same", warm_up=20, units="ratio", source="Crabel (1990): range against its mean; flat = 1")
def range_expansion(bars: Window, period: int = 20) -> float:
    """Range of the newest bar against the mean range."""
    mean = total(bars, SUM_RANGE, period)
    return (units(bars, HIGH) - units(bars, LOW)) * period / mean if mean > 0 else 1.0


@feature("same", warm_up=10, units="fraction of close", source="mean of high - low")
def mean_range(bars: Window, period: int = 10) -> float:
    """Mean high-to-low range."""
    return total(bars, SUM_RANGE, period) / (period * units(bars, CLOSE))


@feature("same", warm_up=21, units="ratio", source="mean true range (Wilder 1978) of 5 over that of 20 bars; flat = 1")
def atr_ratio(bars: Window, short: int = 5, long: int = 20) -> float:
    """Recent true range against its longer level."""
    level = total(bars, SUM_TRUE_RANGE, long) * short
    return total(bars, SUM_TRUE_RANGE, short) * long / level if level > 0 else 1.0


@feature("same", warm_up=2, memory="recursive", units="fraction of close", source="Wilder (1978): ATR over 14 bars")
def average_true_range(bars: Window) -> float:
    """Wilder's average true range."""
    return smoothed(bars, WILDER_TRUE_RANGE) / units(bars, CLOSE)


# --- volume -----------------------------------------------------------------------------------------------------------


@feature("same", warm_up=20, units="ratio", source="Lo and Wang (2000): volume against its mean; no volume = 1")
def relative_volume(bars: Window, period: int = 20) -> float:
    """Volume of the bar against its mean."""
    shares = total(bars, SUM_VOLUME, period)
    return units(bars, VOLUME) * float(period) / shares if shares > 0 else 1.0


@feature("sign", warm_up=21, units="mean volumes per bar", source="Granville (1963): on-balance volume; no volume = 0")
def obv_slope(bars: Window, period: int = 20) -> float:
    """Slope of on-balance volume, against the mean volume of a bar."""
    shares = total(bars, SUM_VOLUME, period)
    return obv_slope_shares(bars, period) * period / shares if shares > 0 else 0.0


# --- microstructure, where the source has depth -----------------------------------------------------------------------


@feature(
    "same", warm_up=1, nan_policy="without_depth", units="basis points", source="Roll (1984): quoted spread over mid"
)
def spread(bars: Window) -> float:
    """Quoted spread at the end of the bar."""
    return units(bars, SPREAD) / DEPTH_UNITS if total(bars, COUNT_DEPTH, 1) == 1 else math.nan


@feature(
    "same",
    warm_up=10,
    nan_policy="without_depth",
    units="ratio",
    source="quoted spread against its mean; zero mean = 1",
)
def relative_spread(bars: Window, period: int = 10) -> float:
    """Quoted spread against its mean at the ends of the last bars."""
    if total(bars, COUNT_DEPTH, period) < period:
        return math.nan
    level = total(bars, SUM_SPREAD, period)
    return units(bars, SPREAD) * float(period) / level if level > 0 else 1.0


@feature("sign", warm_up=1, nan_policy="without_depth", units="-1 to 1", source="Cont, Kukanov and Stoikov (2014)")
def depth_imbalance(bars: Window) -> float:
    """Imbalance of the best quantities at the end of the bar."""
    return units(bars, IMBALANCE) / DEPTH_UNITS if total(bars, COUNT_DEPTH, 1) == 1 else math.nan


@feature(
    "sign", warm_up=5, nan_policy="without_depth", units="-1 to 1", source="Cont, Kukanov and Stoikov (2014), mean of 5"
)
def mean_imbalance(bars: Window, period: int = 5) -> float:
    """Mean imbalance at the ends of the last bars."""
    if total(bars, COUNT_DEPTH, period) < period:
        return math.nan
    return total(bars, SUM_IMBALANCE, period) / DEPTH_UNITS / period


# --- time of day ------------------------------------------------------------------------------------------------------


@feature(
    "same", warm_up=1, units="0 to 1, more in the evening", source="part of a regular NSE session, 09:15 to 15:30 IST"
)
def time_of_day(bars: Window) -> float:
    """Part of the session that has passed at the end of the bar."""
    return (compiled_ist_time_of_day(bars.end_ns) - REGULAR_OPEN_NS) / REGULAR_SESSION_NS


# --- against the market's index ---------------------------------------------------------------------------------------


@feature(
    "sign", warm_up=21, nan_policy="without_index", units="fraction", source="Levy (1967): return minus the index's"
)
def relative_strength(bars: Window, period: int = 20) -> float:
    """Return over the window minus that of the index, bars matched by their end."""
    before, now = units(bars, INDEX_CLOSE, period), units(bars, INDEX_CLOSE)
    if before == 0 or now == 0:
        return math.nan
    return units(bars, CLOSE) / units(bars, CLOSE, period) - now / before


@feature(
    "same", warm_up=61, nan_policy="without_index", units="ratio", source="Sharpe (1964): slope on the index; flat = 1"
)
def beta(bars: Window, period: int = 60) -> float:
    """Covariance with the index's returns over their variance; NaN while an index bar of the window is missing."""
    if total(bars, COUNT_INDEX, period) < period:
        return math.nan
    mean = total(bars, SUM_INDEX_RETURN, period) / RETURN_UNITS / period
    variance = total(bars, SUM_INDEX_RETURN_SQUARED, period) / SQUARE_UNITS / period - mean * mean
    if variance <= 1e-15:  # a flat index; what is left is rounding
        return 1.0
    product = total(bars, SUM_RETURN_PRODUCT, period) / SQUARE_UNITS / period
    return (product - mean * total(bars, SUM_RETURN, period) / RETURN_UNITS / period) / variance


# --- events: what the rules of `feature_store.proposals` wait for -----------------------------------------------------


@feature(
    "sign",
    warm_up=21,
    units="volatilities per bar",
    source="López de Prado (2018), section 2.5.2.1: symmetric CUSUM, within a window and without its reset; flat = 0",
)
def cusum_move(bars: Window, period: int = 20) -> float:
    """The larger of the rise from the lowest and the fall from the highest of the last closes, in volatilities."""
    close, deviation = units(bars, CLOSE), return_deviation(bars, period)
    low, high = close, close
    for ago in range(1, period + 1):
        before = units(bars, CLOSE, ago)
        low, high = min(low, before), max(high, before)
    if deviation == 0.0 or close - low == high - close:
        return 0.0
    move = close - low if close - low > high - close else close - high
    return move / (close * deviation)


@feature(
    "sign",
    warm_up=21,
    units="volatilities per bar",
    source="Donchian (1960): how far the close broke out of the channel of the bars before; inside, or flat = 0",
)
def donchian_break(bars: Window, period: int = 20) -> float:
    """Distance of the close above the highest high, or below the lowest low, of the bars before the newest."""
    close, deviation = units(bars, CLOSE), return_deviation(bars, period)
    high, low = highest(bars, period, 1), lowest(bars, period, 1)
    if deviation == 0.0 or low <= close <= high:
        return 0.0
    return (close - high if close > high else close - low) / (close * deviation)


SPECS: Final[tuple[FeatureSpec, ...]] = tuple(spec for spec, _ in DECLARED)
