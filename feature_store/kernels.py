"""The features themselves, and the compiled step that computes them for history and live alike.

To add a feature, write one decorated function here and nothing else. It gets a `Window` with exactly the last
``warm_up`` bars of one instrument, oldest first, and returns a float. It can see no other bar, so its memory is finite
by construction and its value cannot depend on where a run began. Keyword defaults are its parameters and go into the
feature schema's hash; raise ``version`` when the arithmetic changes. The parity tests find it by themselves.

Features and step share this file because numba's cache notices changes of a function's own file only.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

_IST_OFFSET_NS = 19_800_000_000_000  # India has had no daylight saving time since 1945
_DAY_NS = 86_400_000_000_000
_OPEN_NS = 33_300_000_000_000  # 09:15
_SESSION_NS = 22_500_000_000_000  # 09:15 to 15:30


def kernel_input(array: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """Give an array as a contiguous, read-only one of a type, so that each kernel is compiled for one signature only.

    Arrays decoded from Arrow are read-only; without this their first batch would wait for a compilation.
    """
    view = np.ascontiguousarray(array, dtype=dtype).view()
    view.flags.writeable = False
    return view


class Window(NamedTuple):
    """The last bars of one instrument in one session, oldest first; every array has shape ``(warm_up,)``."""

    open: NDArray[np.float64]
    high: NDArray[np.float64]
    low: NDArray[np.float64]
    close: NDArray[np.float64]
    volume: NDArray[np.float64]
    end_ns: NDArray[np.int64]


@dataclass(frozen=True)
class FeatureSpec:
    """The declaration of one feature."""

    name: str
    parameters: dict[str, int | float | str]
    warm_up: int
    """Bars of the session the value depends on, its own bar included."""
    units: str
    source: str
    version: int
    dtype: str = "float64"


_SPECS: list[FeatureSpec] = []
_FUNCTIONS: list[Callable[[Window], float]] = []


def feature(
    *, warm_up: int, units: str, source: str, version: int = 1
) -> Callable[[Callable[..., float]], Callable[..., float]]:
    """Declare the decorated function as a feature; its name, and the defaults of its keywords, are the feature's."""

    def declare(function: Callable[..., float]) -> Callable[..., float]:
        keywords = list(inspect.signature(function).parameters.values())[1:]
        parameters = {keyword.name: keyword.default for keyword in keywords}
        _SPECS.append(FeatureSpec(function.__name__, parameters, warm_up, units, source, version))
        compiled: Callable[..., float] = njit(function)
        _FUNCTIONS.append(compiled)
        return compiled

    return declare


@feature(warm_up=11, units="fraction", source="close / close 10 bars ago - 1")
def momentum(bars: Window) -> float:
    """Return over the last ten bars."""
    return float(bars.close[-1] / bars.close[0] - 1.0)


@feature(warm_up=21, units="fraction per bar", source="population standard deviation of 20 simple returns")
def volatility(bars: Window) -> float:
    """Standard deviation of the bar-to-bar returns."""
    n = len(bars.close) - 1
    mean = 0.0
    for k in range(n):
        mean += bars.close[k + 1] / bars.close[k] - 1.0
    mean /= n
    total = 0.0
    for k in range(n):
        difference = bars.close[k + 1] / bars.close[k] - 1.0 - mean
        total += difference * difference
    return math.sqrt(total / n)


@feature(warm_up=30, units="fraction of close", source="EMA(5) - EMA(20), alpha = 2 / (span + 1), truncated at 30 bars")
def ema_spread(bars: Window, fast: int = 5, slow: int = 20) -> float:
    """Fast minus slow exponential moving average of the close, each begun at the window's oldest close."""
    fast_mean = slow_mean = bars.close[0]
    fast_weight, slow_weight = 2.0 / (fast + 1.0), 2.0 / (slow + 1.0)
    for k in range(1, len(bars.close)):
        fast_mean += fast_weight * (bars.close[k] - fast_mean)
        slow_mean += slow_weight * (bars.close[k] - slow_mean)
    return float((fast_mean - slow_mean) / bars.close[-1])


@feature(warm_up=30, units="0 to 100", source="Wilder 1978, smoothing over 14 bars, truncated at 30 bars; flat = 50")
def rsi(bars: Window, period: int = 14) -> float:
    """Relative strength index; the first ``period`` changes of the window seed Wilder's averages."""
    gain = loss = 0.0
    for k in range(1, len(bars.close)):
        change = bars.close[k] - bars.close[k - 1]
        weight = period if k > period else k
        gain += (max(change, 0.0) - gain) / weight
        loss += (max(-change, 0.0) - loss) / weight
    return 50.0 if gain + loss == 0.0 else float(100.0 * gain / (gain + loss))


@feature(warm_up=20, units="standard deviations", source="(close - mean) / population standard deviation; flat = 0")
def z_score(bars: Window) -> float:
    """Distance of the close from its mean over 20 bars."""
    n = len(bars.close)
    mean = 0.0
    for k in range(n):
        mean += bars.close[k]
    mean /= n
    total = 0.0
    for k in range(n):
        total += (bars.close[k] - mean) * (bars.close[k] - mean)
    deviation = math.sqrt(total / n)
    # below this the window is flat and what is left is rounding of the mean
    return 0.0 if deviation <= 1e-12 * mean else float((bars.close[-1] - mean) / deviation)


@feature(warm_up=20, units="fraction", source="close / VWAP of typical price over 20 bars - 1; no volume = plain mean")
def vwap_distance(bars: Window) -> float:
    """Distance of the close from the rolling volume-weighted average price."""
    total = shares = plain = 0.0
    for k in range(len(bars.close)):
        typical = (bars.high[k] + bars.low[k] + bars.close[k]) / 3.0
        total += typical * bars.volume[k]
        shares += bars.volume[k]
        plain += typical
    average = total / shares if shares > 0.0 else plain / len(bars.close)
    return float(bars.close[-1] / average - 1.0)


@feature(warm_up=20, units="0 to 1", source="Donchian channel over 20 bars; flat = 0.5")
def donchian_position(bars: Window) -> float:
    """Where the close stands between the lowest low and the highest high."""
    lowest, highest = bars.low[0], bars.high[0]
    for k in range(1, len(bars.low)):
        lowest = min(lowest, bars.low[k])
        highest = max(highest, bars.high[k])
    return 0.5 if highest == lowest else float((bars.close[-1] - lowest) / (highest - lowest))


@feature(warm_up=20, units="ratio", source="volume / mean volume of 20 bars; no volume = 1")
def relative_volume(bars: Window) -> float:
    """Volume of the bar against its mean."""
    total = 0.0
    for k in range(len(bars.volume)):
        total += bars.volume[k]
    return 1.0 if total == 0.0 else float(bars.volume[-1] * len(bars.volume) / total)


@feature(warm_up=10, units="fraction of close", source="mean of high - low over 10 bars, over the close")
def mean_range(bars: Window) -> float:
    """Mean high-to-low range."""
    total = 0.0
    for k in range(len(bars.high)):
        total += bars.high[k] - bars.low[k]
    return float(total / len(bars.high) / bars.close[-1])


@feature(warm_up=1, units="0 to 1", source="regular NSE session, 09:15 to 15:30 IST")
def time_of_day(bars: Window) -> float:
    """Part of the session that has passed at the end of the bar."""
    return float(((bars.end_ns[-1] + _IST_OFFSET_NS) % _DAY_NS - _OPEN_NS) / _SESSION_NS)


def _chain(functions: list[Callable[[Window], float]]) -> Callable[[int, Window], float]:
    """Link functions into one compiled ``evaluate(which, window)``: numba cannot index a list of functions."""
    first = functions[0]
    if len(functions) == 1:

        @njit
        def only(which, window):  # type: ignore[no-untyped-def]  # noqa: ARG001
            return first(window)

        return only  # type: ignore[no-any-return]
    others = _chain(functions[1:])

    @njit
    def link(which, window):  # type: ignore[no-untyped-def]
        return first(window) if which == 0 else others(which - 1, window)

    return link  # type: ignore[no-any-return]


SPECS: tuple[FeatureSpec, ...] = tuple(_SPECS)
_evaluate = _chain(_FUNCTIONS)


@njit(cache=True)
def step_bars(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    instrument, start_ns, end_ns, opens, highs, lows, closes, volumes,
    which, warm_up, ring, ring_end_ns, seen, date, out, warm,
):  # fmt: skip
    """Step the state over bars and write their feature rows; rows that are not warm are left as they are.

    ``ring`` has shape ``(n_instruments, 5, 2 K)`` and holds every bar twice, K apart, so that the last K bars always
    lie contiguous, oldest first. ``which`` and ``warm_up`` name the schema's features. Returns -1 at an index that is
    outside the universe, else 0.
    """
    capacity = ring_end_ns.shape[1] // 2
    for row in range(len(instrument)):
        i = instrument[row]
        if i < 0 or i >= len(seen):
            return -1
        day = (start_ns[row] + _IST_OFFSET_NS) // _DAY_NS
        if date[i] != day:
            date[i], seen[i] = day, 0
        at = seen[i] % capacity
        for place in (at, at + capacity):
            ring[i, 0, place], ring[i, 1, place] = opens[row], highs[row]
            ring[i, 2, place], ring[i, 3, place] = lows[row], closes[row]
            ring[i, 4, place] = volumes[row]
            ring_end_ns[i, place] = end_ns[row]
        seen[i] += 1
        if seen[i] < capacity:
            continue
        end = at + capacity + 1
        for k in range(len(which)):
            begin = end - warm_up[k]
            window = Window(
                ring[i, 0, begin:end], ring[i, 1, begin:end], ring[i, 2, begin:end], ring[i, 3, begin:end],
                ring[i, 4, begin:end], ring_end_ns[i, begin:end],
            )  # fmt: skip
            out[row, k] = _evaluate(which[k], window)
        warm[row] = True
    return 0
