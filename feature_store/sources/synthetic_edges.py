"""Planted edges of a generated market beside its bursts: overshoots that come back, and breaks that start a drift.

They move the log price and what is traded, and nothing says where: a model that finds one found it in prices and
volumes. A session is 375 minutes of 30 slots of 2 s; log prices have shape ``(n_instruments, 11250)``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

MINUTES: Final = 375
TICKS_PER_MINUTE: Final = 30
SLOTS: Final = MINUTES * TICKS_PER_MINUTE

_OUT_MINUTES: Final = 2
_BACK_MINUTES: Final = 10
_OVERSHOOT_BEGINS: Final = 0.03  # of the minutes that are in none
_OVERSHOOT_VOLUME: Final = 0.85  # in thin trading a price goes too far
_RANGE_MINUTES: Final = 60
_DRIFT_MINUTES: Final = 15
_TRUE_BREAKS: Final = 0.3
_BREAK_VOLUME: Final = 1.3  # what starts a drift is traded


class Planted(NamedTuple):
    """A walk with what edges made of it."""

    log_price: NDArray[np.float64]
    """Shape ``(n, 375 * 30)``."""
    volume: NDArray[np.float64]
    """What the volume of each minute is multiplied by, shape ``(n, 375)``."""


Plant = Callable[[NDArray[np.float64]], Planted]
"""Takes the log prices of a session's walk, shape ``(n, 375 * 30)``."""


def with_overshoots(rng: np.random.Generator, walked: Planted, edge_bps: float) -> Planted:
    """Let prices go too far, up or down with equal odds, in 2 minutes of thin trading, and come back in the next 10.

    They fill a quarter of the time; none is left at the close.

    Parameters
    ----------
    rng : Generator
        Its draws depend on the number of instruments alone.
    walked : Planted
    edge_bps : float
        The way back per minute, basis points; the way out is as long.
    """
    log_price, volume = walked.log_price.copy(), walked.volume.copy()
    shape, lasts = volume.shape, _OUT_MINUTES + _BACK_MINUTES
    begins, sides = rng.random(shape) < _OVERSHOOT_BEGINS, np.where(rng.random(shape) < 0.5, -1.0, 1.0)
    out, back = (minutes * TICKS_PER_MINUTE for minutes in (_OUT_MINUTES, _BACK_MINUTES))
    way = np.concatenate([np.arange(1, out + 1) / out, np.arange(back - 1, -1, -1) / back])
    way *= edge_bps * 1e-4 * _BACK_MINUTES
    for i in range(len(volume)):
        over = 0
        for minute in np.flatnonzero(begins[i, : MINUTES - lasts + 1]).tolist():
            if minute >= over:
                over, slot = minute + lasts, minute * TICKS_PER_MINUTE
                log_price[i, slot : slot + len(way)] += sides[i, minute] * way
                volume[i, minute : minute + _OUT_MINUTES] *= _OVERSHOOT_VOLUME
    return Planted(log_price, volume)


def with_breakouts(rng: np.random.Generator, walked: Planted, edge_bps: float) -> Planted:
    """Let three in ten closes outside the closes of the last hour start a drift of 15 minutes, in much trading.

    A drift goes on where the break went; from its start, an hour and a quarter passes before the next one.

    Parameters
    ----------
    rng : Generator
        Its draws depend on the number of instruments alone.
    walked : Planted
    edge_bps : float
        The drift per minute, basis points, from the minute after the break on.
    """
    closes, volume = walked.log_price[:, TICKS_PER_MINUTE - 1 :: TICKS_PER_MINUTE].copy(), walked.volume.copy()
    n = len(closes)
    true, drift = rng.random(closes.shape) < _TRUE_BREAKS, np.zeros_like(closes)
    side, started = np.zeros(n), np.full(n, -MINUTES)
    for minute in range(_RANGE_MINUTES, MINUTES):
        drifts = minute - started <= _DRIFT_MINUTES
        drift[:, minute] = np.where(drifts, side * edge_bps * 1e-4, 0.0)
        closes[:, minute:] += drift[:, [minute]]
        before = closes[:, minute - _RANGE_MINUTES : minute]
        above, below = closes[:, minute] > before.max(axis=1), closes[:, minute] < before.min(axis=1)
        broke = np.where(above, 1.0, np.where(below, -1.0, 0.0))
        starts = true[:, minute] & (broke != 0.0) & (minute - started > _DRIFT_MINUTES + _RANGE_MINUTES)
        side, started = np.where(starts, broke, side), np.where(starts, minute, started)
        volume[drifts | starts, minute] *= _BREAK_VOLUME
    steps = np.repeat(drift / TICKS_PER_MINUTE, TICKS_PER_MINUTE, axis=1)
    return Planted(walked.log_price + np.cumsum(steps, axis=1), volume)
