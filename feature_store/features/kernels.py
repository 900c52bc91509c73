"""The compiled step that turns bars into feature rows, one and the same for history and for the live stream."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from types import FunctionType
from typing import Any

import numpy as np
from numba import boolean, float64, int32, int64
from numpy.typing import NDArray

from feature_store.features.library import DECLARED, FeatureSpec
from feature_store.features.source import compiled_once, keep_compiled_code
from feature_store.features.window import (
    ALPHA,
    ANCHORS,
    BLOCK,
    CAPACITY,
    CLOSE,
    COLUMNS,
    COUNT_DEPTH,
    COUNT_INDEX,
    DAY,
    DEPTH_UNITS,
    HEADER,
    HIGH,
    HIGHEST,
    IMBALANCE,
    INDEX_CLOSE,
    LARGEST_MOVE,
    LAST_END,
    LOW,
    LOWEST,
    NEXT_ACTION,
    OBV,
    OPEN,
    PREVIOUS_CLOSE,
    PRICE_UNITS,
    RETURN_UNITS,
    SEEN,
    SESSION_HIGH,
    SESSION_LOW,
    SESSION_OPEN,
    SESSION_TURNOVER,
    SESSION_VOLUME,
    SESSIONS,
    SMOOTHED,
    SPREAD,
    SQUARE_UNITS,
    SUM_CLOSE,
    SUM_CLOSE_BY_TIME,
    SUM_CLOSE_SQUARED,
    SUM_GARMAN_KLASS,
    SUM_IMBALANCE,
    SUM_INDEX_RETURN,
    SUM_INDEX_RETURN_SQUARED,
    SUM_MOVE,
    SUM_OBV,
    SUM_OBV_BY_TIME,
    SUM_PARKINSON,
    SUM_RANGE,
    SUM_RETURN,
    SUM_RETURN_PRODUCT,
    SUM_RETURN_SQUARED,
    SUM_SPREAD,
    SUM_TRUE_RANGE,
    SUM_TURNOVER,
    SUM_VOLUME,
    VOLUME,
    WILDER_DX,
    Window,
    compiled,
)
from feature_store.market.arrays import compiled_ist_day

_MASK = CAPACITY - 1
_TWO_LOG_TWO_MINUS_ONE = 2.0 * math.log(2.0) - 1.0
_GROUPED_FROM_BARS = 8
_GROUP = 128
"""Tables of at least so many bars an instrument are taken in groups of so many neighbouring instruments: the state of a
group (20 kB each) stays in the cache, and its bars of one instant lie beside each other. Measured over 3,000
instruments: 128 and 256 are alike, 64 is about a tenth slower."""

keep_compiled_code()  # before anything below is compiled
_kernel: Any = compiled  # what is compiled here takes a dozen arrays, and their types stand below


@_kernel
def _fixed(value, scale):  # type: ignore[no-untyped-def]
    return math.floor(value * scale + 0.5)


@_kernel
def _sum(ring, i, at, last, column, value):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Add up modulo 2**64: of signed numbers numba tells LLVM that they never overflow."""
    ring[i, at, column] = np.int64(np.uint64(ring[i, last, column]) + np.uint64(value))


@_kernel
def _append(ring, i, t, o, h, low, c, volume, index_close, spread, imbalance, has_depth):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Write bar ``t`` of an instrument behind bar ``t - 1``: its values, the sums so far, the extremes."""
    at, last = t & _MASK, (t - 1) & _MASK
    previous = ring[i, last, CLOSE]
    first = previous == 0
    if first:
        previous = c
    (
        ring[i, at, OPEN],
        ring[i, at, HIGH],
        ring[i, at, LOW],
        ring[i, at, CLOSE],
        ring[i, at, VOLUME],
        ring[i, at, INDEX_CLOSE],
    ) = o, h, low, c, volume, index_close
    ring[i, at, SPREAD], ring[i, at, IMBALANCE] = spread, imbalance
    ring[i, at, OBV] = ring[i, last, OBV] + (volume if c > previous else (-volume if c < previous else 0))

    simple = min((c - previous) / previous, LARGEST_MOVE)
    range_ = min(math.log(h / low), LARGEST_MOVE)
    body = max(min(math.log(c / o), range_), -range_)
    _sum(ring, i, at, last, SUM_CLOSE, c)
    _sum(ring, i, at, last, SUM_CLOSE_SQUARED, c * c)
    _sum(ring, i, at, last, SUM_CLOSE_BY_TIME, t * c)
    _sum(ring, i, at, last, SUM_VOLUME, volume)
    _sum(ring, i, at, last, SUM_TURNOVER, (h + low + c) * volume)
    _sum(ring, i, at, last, SUM_RETURN, _fixed(simple, RETURN_UNITS))
    _sum(ring, i, at, last, SUM_RETURN_SQUARED, _fixed(simple * simple, SQUARE_UNITS))
    _sum(ring, i, at, last, SUM_PARKINSON, _fixed(range_ * range_, SQUARE_UNITS))
    garman_klass = 0.5 * range_ * range_ - _TWO_LOG_TWO_MINUS_ONE * body * body
    _sum(ring, i, at, last, SUM_GARMAN_KLASS, _fixed(garman_klass, SQUARE_UNITS))
    _sum(ring, i, at, last, SUM_RANGE, h - low)
    _sum(ring, i, at, last, SUM_TRUE_RANGE, max(h, previous) - min(low, previous))
    _sum(ring, i, at, last, SUM_MOVE, abs(c - previous))
    _sum(ring, i, at, last, SUM_OBV, ring[i, at, OBV])
    _sum(ring, i, at, last, SUM_OBV_BY_TIME, t * ring[i, at, OBV])

    of_index, matched = 0.0, 0
    if index_close > 0 and ring[i, last, INDEX_CLOSE] > 0 and not first:
        of_index, matched = (index_close - ring[i, last, INDEX_CLOSE]) / ring[i, last, INDEX_CLOSE], 1
        of_index = min(of_index, LARGEST_MOVE)
    _sum(ring, i, at, last, SUM_INDEX_RETURN, _fixed(of_index, RETURN_UNITS))
    _sum(ring, i, at, last, SUM_INDEX_RETURN_SQUARED, _fixed(of_index * of_index, SQUARE_UNITS))
    _sum(ring, i, at, last, SUM_RETURN_PRODUCT, _fixed(simple * of_index, SQUARE_UNITS))
    _sum(ring, i, at, last, COUNT_INDEX, matched)
    _sum(ring, i, at, last, SUM_SPREAD, spread)
    _sum(ring, i, at, last, SUM_IMBALANCE, imbalance)
    _sum(ring, i, at, last, COUNT_DEPTH, has_depth)

    top, bottom, span = h, low, 1
    for level in range(5):
        over, under = HIGHEST + level - 1, LOWEST + level - 1
        other = (t - span) & _MASK
        top = max(top, ring[i, other, HIGH] if level == 0 else ring[i, other, over])
        bottom = min(bottom, ring[i, other, LOW] if level == 0 else ring[i, other, under])
        ring[i, at, HIGHEST + level], ring[i, at, LOWEST + level] = top, bottom
        span *= 2


@_kernel
def _begin_session(ring, smoothed, header, i, t, day, block, o, h, low):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Note where the session begins; at an anchor, let the younger generation become the one that is read."""
    mine, last = header[i], ring[i, (t - 1) & _MASK]
    mine[SESSIONS] += mine[DAY] >= 0
    if mine[BLOCK] != block:
        mine[ANCHORS] += mine[BLOCK] >= 0
        smoothed[i, 0] = smoothed[i, 1]
        smoothed[i, 1] = 0.0
    mine[DAY], mine[BLOCK] = day, block
    mine[SESSION_OPEN], mine[SESSION_HIGH], mine[SESSION_LOW] = o, h, low
    mine[SESSION_VOLUME], mine[SESSION_TURNOVER] = last[SUM_VOLUME], last[SUM_TURNOVER]
    mine[PREVIOUS_CLOSE] = last[CLOSE]


@_kernel
def _smooth(ring, smoothed, i, t):  # type: ignore[no-untyped-def]
    """Step both generations of the recursive averages by bar ``t``."""
    at, last = t & _MASK, (t - 1) & _MASK
    c, h, low = ring[i, at, CLOSE], ring[i, at, HIGH], ring[i, at, LOW]
    previous = ring[i, last, CLOSE] if ring[i, last, CLOSE] > 0 else c
    up = h - ring[i, last, HIGH] if ring[i, last, CLOSE] > 0 else 0
    down = ring[i, last, LOW] - low if ring[i, last, CLOSE] > 0 else 0
    plus = float(up) if up > down and up > 0 else 0.0
    minus = float(down) if down > up and down > 0 else 0.0
    true_range = float(max(h, previous) - min(low, previous))
    change = float(c - previous)
    inputs = (float(c), float(c), max(change, 0.0), max(-change, 0.0), true_range, plus, minus)
    for generation in range(2):
        smoothed[i, generation, 0] += 1.0
        plain = 1.0 / smoothed[i, generation, 0]
        for k in range(SMOOTHED - 1):
            smoothed[i, generation, 1 + k] += max(ALPHA[k], plain) * (inputs[k] - smoothed[i, generation, 1 + k])
        both = smoothed[i, generation, 1 + WILDER_DX - 2] + smoothed[i, generation, 1 + WILDER_DX - 1]
        directional = (
            100.0 * abs(smoothed[i, generation, 1 + WILDER_DX - 2] - smoothed[i, generation, 1 + WILDER_DX - 1]) / both
            if both > 0.0
            else 0.0
        )
        smoothed[i, generation, 1 + WILDER_DX] += max(ALPHA[WILDER_DX], plain) * (
            directional - smoothed[i, generation, 1 + WILDER_DX]
        )


@_kernel
def _adjust(ring, smoothed, header, i, factors):  # type: ignore[no-untyped-def]
    """Express what is held of an instrument in the prices and shares after a corporate action, by its two factors."""
    of_price, of_volume = factors[0], factors[1]
    seen = header[i, SEEN]
    held = min(seen, CAPACITY)
    rows = np.empty((held, COLUMNS), np.int64)
    depth = np.empty(held, np.int64)
    for k in range(held):
        t = seen - held + k
        rows[k] = ring[i, t & _MASK]
        depth[k] = rows[k, COUNT_DEPTH] - ring[i, (t - 1) & _MASK, COUNT_DEPTH] if k > 0 else 0
    ring[i] = 0
    for k in range(held):
        _append(
            ring, i, seen - held + k, _fixed(rows[k, OPEN], of_price), _fixed(rows[k, HIGH], of_price),
            _fixed(rows[k, LOW], of_price), _fixed(rows[k, CLOSE], of_price), _fixed(rows[k, VOLUME], of_volume),
            rows[k, INDEX_CLOSE], rows[k, SPREAD], rows[k, IMBALANCE], depth[k],
        )  # fmt: skip
    for generation in range(2):
        for k in range(SMOOTHED - 1):  # the directional index has no price in it
            smoothed[i, generation, 1 + k] *= of_price


@_kernel
def _of_instruments(instrument, first, last, order):  # type: ignore[no-untyped-def]
    """List the rows of instruments ``first`` to ``last - 1`` as they come; give how many there are."""
    found = 0
    for row in range(len(instrument)):
        if first <= instrument[row] < last:
            order[found] = row
            found += 1
    return found


@_kernel
def _by_group(instrument, first, last, order):  # type: ignore[no-untyped-def]
    """List them by groups of neighbouring instruments, those of a group as they come (a counting sort)."""
    starts = np.zeros((last - first) // _GROUP + 2, np.int64)
    for i in instrument:
        if first <= i < last:
            starts[(i - first) // _GROUP + 1] += 1
    for group in range(1, len(starts)):
        starts[group] += starts[group - 1]
    for row in range(len(instrument)):
        if first <= instrument[row] < last:
            group = (instrument[row] - first) // _GROUP
            order[starts[group]] = row
            starts[group] += 1
    return starts[-1]


_evaluate: Any = None  # `uncompiled_step` puts the one of its features here, in a copy of the step


def _step(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    instrument, start_ns, end_ns, opens, highs, lows, closes, volumes, spreads, imbalances, first, last,
    column, warm_after, anchor_days, market_index, is_index, context, first_action, ex_ns, factors,
    ring, smoothed, header, out, warm,
):  # fmt: skip
    """Step the state of instruments ``first`` to ``last - 1`` over their bars and write their feature rows.

    Rows are NaN where not warm; those of other instruments are left alone, so that several threads can share the work.
    ``column`` names for each declared feature its column in ``out``, or -1; ``warm_after`` the bars, sessions and
    anchors after which a row is warm. What ``is_index`` has no volume, for its level times shares is no turnover.
    ``context`` holds the end and the close of the index's newest bar: each thread
    needs its own. Returns -1 at an index outside the universe, ``-2 - row`` at a bar that ends no later than its
    instrument's one before, else 0.
    """
    n, instruments = len(instrument), len(header)
    index_close = np.zeros(n, np.int64)
    index_end, newest_close = context[0], context[1]
    for row in range(n):
        i = instrument[row]
        if i < 0 or i >= instruments:
            return -1
        if i == market_index:
            index_end, newest_close = end_ns[row], _fixed(closes[row], PRICE_UNITS)
        if index_end == end_ns[row]:
            index_close[row] = newest_close
    context[0], context[1] = index_end, newest_close

    order = np.empty(n, np.int64)
    if n >= _GROUPED_FROM_BARS * instruments:
        places = _by_group(instrument, first, last, order)
    else:
        places = _of_instruments(instrument, first, last, order)
    for place in range(places):
        row = order[place]
        i = instrument[row]
        if end_ns[row] <= header[i, LAST_END]:
            return -2 - row
        header[i, LAST_END] = end_ns[row]
        while header[i, NEXT_ACTION] < first_action[i + 1] and ex_ns[header[i, NEXT_ACTION]] <= start_ns[row]:
            _adjust(ring, smoothed, header, i, factors[header[i, NEXT_ACTION]])
            header[i, NEXT_ACTION] += 1
        t = header[i, SEEN]
        o, h = _fixed(opens[row], PRICE_UNITS), _fixed(highs[row], PRICE_UNITS)
        low, c = _fixed(lows[row], PRICE_UNITS), _fixed(closes[row], PRICE_UNITS)
        day = compiled_ist_day(start_ns[row])
        if day != header[i, DAY]:
            _begin_session(ring, smoothed, header, i, t, day, day // anchor_days, o, h, low)
        has_depth = not (math.isnan(spreads[row]) or math.isnan(imbalances[row]))
        _append(
            ring, i, t, o, h, low, c, 0 if is_index[i] else volumes[row], index_close[row],
            _fixed(spreads[row], DEPTH_UNITS) if has_depth else 0,
            _fixed(imbalances[row], DEPTH_UNITS) if has_depth else 0, int(has_depth),
        )  # fmt: skip
        _smooth(ring, smoothed, i, t)
        header[i, SESSION_HIGH], header[i, SESSION_LOW] = (
            max(header[i, SESSION_HIGH], h),
            min(header[i, SESSION_LOW], low),
        )
        header[i, SEEN] = t + 1
        seen, sessions, anchors = header[i, SEEN], header[i, SESSIONS], header[i, ANCHORS]
        _evaluate(Window(ring, smoothed, header, i, t, end_ns[row]), seen, sessions, anchors, column, out, row)
        warm[row] = seen >= warm_after[0] and sessions >= warm_after[1] and anchors >= warm_after[2]
    return 0


_steps: dict[tuple[Any, ...], Any] = {}

_INPUT = (int32[::1], int64[::1], int64[::1], *[float64[::1]] * 4, int64[::1], float64[::1], float64[::1])
_RANGE = (int64, int64)
_CONSTANTS = (
    int64[::1], int64[::1], int64, int64, boolean[::1], int64[::1], int64[::1], int64[::1], float64[:, ::1],
)  # fmt: skip
_STATE = (int64[:, :, ::1], float64[:, :, ::1], int64[:, ::1], float64[:, ::1], boolean[::1])


def step_of(declared: Sequence[tuple[FeatureSpec, Callable[[Window], float]]] = DECLARED) -> Any:
    """Give the step over features, those of the platform or others (see `library.declare`), ready to be called.

    It is compiled, or loaded from disk, for contiguous, writable arrays of the right types, and raises TypeError for
    any others, so that nothing ever waits for a compilation in the middle of a session. It holds no lock of the
    interpreter while it runs.
    """
    key = tuple((spec.warm_up, spec.memory, function) for spec, function in declared)
    if key not in _steps:
        text, step = uncompiled_step(declared)
        _steps[key] = compiled_once(step, text, (*_INPUT, *_RANGE, *_CONSTANTS, *_STATE))
    return _steps[key]


def uncompiled_step(
    declared: Sequence[tuple[FeatureSpec, Callable[[Window], float]]],
) -> tuple[str, Callable[..., int]]:
    """Give the step that is compiled for features, and the text of the part of it that was written for them.

    That is one ``evaluate(bars, …, column, out, row)`` that calls each feature in turn. numba can neither index a list
    of functions nor afford the copies of a chain of closures, so the calls are written out, one line for each feature;
    and all stores come last, or each would have the compiler read the ring again.
    """
    lines = ["def evaluate(bars, bars_seen, sessions_seen, anchors_seen, column, out, row):"]
    for k, (spec, _) in enumerate(declared):
        warm = f"bars_seen >= {spec.warm_up}"
        warm += {"window": "", "session": " and sessions_seen >= 1", "recursive": " and anchors_seen >= 2"}[spec.memory]
        lines.append(f" value_{k} = feature_{k}(bars) if column[{k}] >= 0 and {warm} else nan  # {spec.name}")
    lines += [f" if column[{k}] >= 0: out[row, column[{k}]] = value_{k}" for k in range(len(declared))]
    functions: dict[str, Any] = {f"feature_{k}": function for k, (_, function) in enumerate(declared)}
    functions["nan"] = math.nan
    text = "\n".join(lines) + "\n"
    exec(text, functions)  # noqa: S102 (the text is the one above)
    known = {**_step.__globals__, "_evaluate": _kernel(functions["evaluate"])}
    return text, FunctionType(_step.__code__, known, "step")


def empty_header(n_instruments: int, first_action: NDArray[np.int64]) -> NDArray[np.int64]:
    """Give the header of instruments that have seen nothing; their first corporate actions are still to come."""
    header = np.zeros((n_instruments, HEADER), dtype=np.int64)
    header[:, [DAY, BLOCK]] = -1
    header[:, NEXT_ACTION] = first_action[:-1]
    header[:, LAST_END] = np.iinfo(np.int64).min
    return header
