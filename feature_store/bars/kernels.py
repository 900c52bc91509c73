"""The compiled steps of `feature_store.bars.builder` over its state arrays.

They share this file because numba's cache notices changes of a function's own file only.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from feature_store.market.arrays import compiled_ist_time_of_day
from feature_store.market.types import DAY_NS

# places in the array of scalars
INTERVAL, HANDLED, NEWEST, LATE, OUTSIDE, DECREASES, RESETS, REPEATS, REORDERED = range(9)
# columns of the whole numbers and of the prices of an instrument; eight of each fill one cache line
BASE, HIGHEST, LOW, VOLUME, LAST, COUNT, START, END = range(8)
OPENED, HIGH_PRICE, LOW_PRICE, CLOSED, SPREAD, IMBALANCE = range(6)
# rows of the two output arrays
BAR_WHOLES, BAR_PRICES = 5, 6  # instrument, start, end, volume, tick count; then the prices as above
BEFORE_OPEN = -1  # the interval of a session that has seen nothing
NEVER = np.iinfo(np.int64).max


@njit(cache=True)
def day_end(close_ns):  # type: ignore[no-untyped-def]
    """Midnight IST after a session's close: a tick beyond it has a wrong time, which must not move the market's."""
    return close_ns + DAY_NS - compiled_ist_time_of_day(close_ns)


@njit(cache=True)
def _write_bar(i, end_ns, wholes, prices, at, out_wholes, out_prices):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Write an instrument's open bar and start its next one."""
    out_wholes[0, at] = i
    out_wholes[1, at] = wholes[i, START]
    out_wholes[2, at] = end_ns
    out_wholes[3, at] = wholes[i, HIGHEST] - wholes[i, BASE]
    out_wholes[4, at] = wholes[i, COUNT]
    for k in range(BAR_PRICES):
        out_prices[k, at] = prices[i, k]
    wholes[i, BASE] = wholes[i, HIGHEST]
    wholes[i, COUNT] = 0
    wholes[i, END] = end_ns


@njit(cache=True)
def close_bars(end_ns, wholes, prices, at, out_wholes, out_prices):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """Write every open bar, in order of instrument, as number ``at`` and on; give the number written by then."""
    for i in range(len(wholes)):
        if wholes[i, COUNT] > 0:
            _write_bar(i, max(end_ns, wholes[i, START] + 1), wholes, prices, at, out_wholes, out_prices)
            at += 1
    return at


@njit(cache=True)
def _add_volume(i, volume, scalars, wholes):  # type: ignore[no-untyped-def]
    highest = wholes[i, HIGHEST]
    if volume >= highest:
        wholes[i, HIGHEST] = volume
        wholes[i, LOW] = -1
        return
    scalars[DECREASES] += 1
    if 2 * volume > highest:
        wholes[i, LOW] = -1
    elif wholes[i, LOW] < 0 or volume <= wholes[i, LOW]:
        wholes[i, LOW] = volume
    else:
        scalars[RESETS] += 1
        wholes[i, BASE] -= highest
        wholes[i, HIGHEST] = volume
        wholes[i, LOW] = -1


@njit(cache=True)
def step_ticks(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    tick_instrument, event_time_ns, last_price, day_volume, bid_price, ask_price, bid_quantity, ask_quantity,
    open_ns, close_ns, bar_ns, per_bar, scalars, wholes, prices, out_wholes, out_prices,
):  # fmt: skip
    """Step the state over ticks; give the number of bars written, or -1, before any tick, for an unknown instrument."""
    for t in range(len(tick_instrument)):
        if tick_instrument[t] < 0 or tick_instrument[t] >= len(wholes):
            return -1
    at = 0
    has_quote, midnight = len(bid_price) > 0, day_end(close_ns)
    handled, interval, last = scalars[HANDLED], scalars[INTERVAL], -((open_ns - close_ns) // bar_ns)
    boundary = NEVER if interval == last else min(open_ns + (interval + 1) * bar_ns, close_ns)
    for t in range(len(event_time_ns)):
        i, now, price, volume = tick_instrument[t], event_time_ns[t], last_price[t], day_volume[t]
        if boundary <= now < midnight:
            at = close_bars(boundary, wholes, prices, at, out_wholes, out_prices)
            interval = last if now >= close_ns else (now - open_ns) // bar_ns
            boundary = NEVER if interval == last else min(open_ns + (interval + 1) * bar_ns, close_ns)
        if now < open_ns or now >= close_ns:
            scalars[OUTSIDE] += 1
            handled = max(handled, now if now < midnight else handled)
            continue
        if now < handled:
            scalars[LATE] += 1
            continue
        handled = now
        if wholes[i, LAST] == now and prices[i, CLOSED] == price and wholes[i, VOLUME] == volume:
            scalars[REPEATS] += 1
        if wholes[i, COUNT] == 0:
            prices[i, OPENED], prices[i, HIGH_PRICE], prices[i, LOW_PRICE] = price, price, price
            prices[i, SPREAD], prices[i, IMBALANCE] = np.nan, np.nan
            wholes[i, START] = max(now, wholes[i, END]) if per_bar else open_ns + interval * bar_ns
        else:
            prices[i, HIGH_PRICE] = max(prices[i, HIGH_PRICE], price)
            prices[i, LOW_PRICE] = min(prices[i, LOW_PRICE], price)
        prices[i, CLOSED] = price
        wholes[i, LAST], wholes[i, VOLUME] = now, volume
        wholes[i, COUNT] += 1
        _add_volume(i, volume, scalars, wholes)
        if has_quote:
            bid, ask, bids, asks = bid_price[t], ask_price[t], bid_quantity[t], ask_quantity[t]
            if bid > 0.0 and ask > 0.0 and bids > 0 and asks > 0:  # an empty side is NaN or 0
                prices[i, SPREAD] = (ask - bid) / (0.5 * (ask + bid)) * 1e4
                prices[i, IMBALANCE] = (bids - asks) / (bids + asks)
        if wholes[i, COUNT] == per_bar:
            end_ns = max(now, wholes[i, START]) + 1
            _write_bar(i, end_ns, wholes, prices, at, out_wholes, out_prices)
            at += 1
    scalars[HANDLED], scalars[INTERVAL] = handled, interval
    scalars[NEWEST] = max(scalars[NEWEST], handled)
    return at
