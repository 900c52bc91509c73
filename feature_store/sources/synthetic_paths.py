"""Paths of a generated market: prices, shares and quotes of each tick, and where ticks fail to come.

A session is 375 minutes of 30 slots of 2 s; arrays have shape ``(n_instruments, 375, 30)``. What an option adds draws
from a stream of its own, keyed by seed, session and purpose, so that options do not move each other's numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import MINUTE_NS, SECOND_NS, Bars, Session, Ticks
from feature_store.sources.synthetic_edges import MINUTES, SLOTS, TICKS_PER_MINUTE, Plant

_SLOT_MS = 2000
_TICK_SIZE_INR = 0.05
_NOISE_BPS_PER_MINUTE = 12.0
_GAP_BPS = 40.0
_BURST_HALF_LIFE_MINUTES = 15.0
_BURST_SHARE = 0.25  # part of the time that an instrument is in a burst
_BURST_VOLUME = 1.3
_REGIME_VOLATILITY = (0.6, 1.0, 2.2)
_REGIME_MINUTES = 25  # 15 blocks in a session
_REGIME_SWITCHES = 0.05  # of blocks
_AUCTION_VOLATILITY = (3.0, 2.2, 1.7, 1.3, 1.1)
_AUCTION_VOLUME = (8.0, 4.0, 2.5, 1.8, 1.3)
_AUCTION_SHARES = 100  # of the opening price, times those of a usual tick
_HALT_MINUTES = (15, 45)
_OUTAGE_MINUTES = (5, 20)
_BEST_SPREAD_BPS = 1.0
_SPREAD_PER_MOVE = 0.3  # of the move since the minute began
_BURST_IMBALANCE = 0.15
_INDEX_LEVEL_INR = 20_000.0

PURPOSES: Final = (
    "gaps",
    "regimes",
    "interruptions",
    "times",
    "last quotes",
    "other quotes",
    "splits",
    "overshoots",
    "breakouts",
)


def stream(seed: int, session: int, purpose: str) -> np.random.Generator:
    """Give the random numbers of one purpose in one session."""
    return np.random.Generator(np.random.PCG64([seed, session, PURPOSES.index(purpose)]))


@dataclass(frozen=True, eq=False)
class SessionPath:
    """What happens in one session, tick by tick, whether a tick of it comes or not."""

    prices: NDArray[np.float64]
    """Rupees, on the tick size; shape ``(n, 375, 30)``."""
    shares: NDArray[np.int64]
    state: NDArray[np.int8]
    """+1 and -1 in a burst, else 0; shape ``(n, 375)``."""
    log_close: NDArray[np.float64]
    """Before rounding; shape ``(n,)``."""
    moves: NDArray[np.float64]
    """Mean over the instruments of the log price, shape ``(375 * 30,)``."""


def _bursts(rng: np.random.Generator, instruments: int) -> NDArray[np.int8]:
    """Hidden state by instrument and minute: +1 and -1 in a burst, else 0; shape ``(n_instruments, 375)``."""
    leave = 1.0 - 0.5 ** (1.0 / _BURST_HALF_LIFE_MINUTES)
    enter = leave * _BURST_SHARE / (1.0 - _BURST_SHARE)
    draws = rng.random((MINUTES, instruments))
    sides = np.where(rng.random((MINUTES, instruments)) < 0.5, -1, 1).astype(np.int8)
    state = np.where(draws[0] < _BURST_SHARE, sides[0], 0).astype(np.int8)
    states = [state]
    for minute in range(1, MINUTES):
        begins = (state == 0) & (draws[minute] < enter)
        ends = (state != 0) & (draws[minute] < leave)
        state = np.where(begins, sides[minute], np.where(ends, 0, state)).astype(np.int8)
        states.append(state)
    return np.stack(states, axis=1)


def session_path(
    rng: np.random.Generator,
    log_price: NDArray[np.float64],
    shares_per_tick: NDArray[np.float64],
    edge_bps: float,
    *,
    gap: NDArray[np.float64] | None = None,
    volatility: NDArray[np.float64] | None = None,
    auction: bool = False,
    scale: NDArray[np.float64] | None = None,
    plant: Plant | None = None,
) -> SessionPath:
    """Walk one session.

    Parameters
    ----------
    log_price : float64, shape (n,)
        At the last close, as if there had been no splits.
    gap : float64, shape (n,), optional
        Log move between the sessions, beside the usual one.
    volatility : float64, shape (375,), optional
        What the noise is multiplied by.
    auction : bool
        Whether the session opens with the burst of an opening auction.
    scale : float64, shape (n,), optional
        What a share is worth of one before the splits so far.
    plant : callable, optional
        What further edges make of the walk; see `feature_store.sources.synthetic_edges`.
    """
    n = len(log_price)
    state = _bursts(rng, n)
    steps = rng.standard_normal((n, MINUTES, TICKS_PER_MINUTE))
    steps *= _NOISE_BPS_PER_MINUTE * 1e-4 / np.sqrt(TICKS_PER_MINUTE)
    if volatility is not None:
        steps *= volatility[None, :, None]
    if auction:
        steps[:, : len(_AUCTION_VOLATILITY)] *= np.array(_AUCTION_VOLATILITY)[None, :, None]
    steps += state[:, :, None] * (edge_bps * 1e-4 / TICKS_PER_MINUTE)
    steps[:, 0, 0] += rng.standard_normal(n) * (_GAP_BPS * 1e-4)
    if gap is not None:
        steps[:, 0, 0] += gap
    path, busy = log_price[:, None] + np.cumsum(steps.reshape(n, -1), axis=1), None
    if plant is not None:
        path, busy = plant(path)
    scale = np.ones(n) if scale is None else scale
    hours = np.linspace(-1.0, 1.0, MINUTES)
    level = shares_per_tick[:, None] * (0.6 + 1.2 * hours**2) * np.where(state == 0, 1.0, _BURST_VOLUME)
    level *= rng.lognormal(0.0, 0.4, (n, MINUTES)) / scale[:, None]
    if busy is not None:
        level *= busy
    if auction:
        level[:, : len(_AUCTION_VOLUME)] *= _AUCTION_VOLUME
    shares = (rng.standard_exponential(steps.shape) * level[:, :, None]).astype(np.int64)
    if auction:
        shares[:, 0, 0] += (_AUCTION_SHARES * shares_per_tick / scale).astype(np.int64)
    prices = on_tick_size(np.exp(path) * scale[:, None]).reshape(steps.shape)
    return SessionPath(prices, shares, state, path[:, -1], path.mean(axis=0))


def on_tick_size(prices: NDArray[np.float64]) -> NDArray[np.float64]:
    """Round prices to the tick size; at least one tick."""
    return np.round(np.maximum(np.round(prices / _TICK_SIZE_INR), 1.0) * _TICK_SIZE_INR, 2)


def with_index(path: SessionPath, base: float) -> SessionPath:
    """Put an index before the instruments: the mean of their log moves since ``base``, without shares or bursts."""
    level = on_tick_size(_INDEX_LEVEL_INR * np.exp(path.moves - base)).reshape(1, MINUTES, TICKS_PER_MINUTE)
    return SessionPath(
        np.concatenate([level, path.prices]),
        np.concatenate([np.zeros(level.shape, dtype=np.int64), path.shares]),
        np.concatenate([np.zeros((1, MINUTES), dtype=np.int8), path.state]),
        path.log_close,
        path.moves,
    )


def overnight_gap(rng: np.random.Generator, n: int, gap_bps: float) -> NDArray[np.float64]:
    """Log moves between sessions, half of their variance common to all: Student's t with 3 degrees of freedom."""
    common, own = rng.standard_t(3), rng.standard_t(3, n)
    return np.asarray((common + own) * np.sqrt(0.5 / 3.0) * gap_bps * 1e-4, dtype=np.float64)


def regimes_of_session(rng: np.random.Generator, regime: int) -> tuple[NDArray[np.float64], int]:
    """Volatility of each minute and the regime at the close, from the one at the last close."""
    blocks = []
    for _ in range(MINUTES // _REGIME_MINUTES):
        if rng.random() < _REGIME_SWITCHES:
            regime = (regime + int(rng.integers(1, 3))) % len(_REGIME_VOLATILITY)
        blocks.append(_REGIME_VOLATILITY[regime])
    return np.repeat(blocks, _REGIME_MINUTES), regime


def halted_slots(rng: np.random.Generator, n: int, halts: int) -> list[tuple[int, int, int]]:
    """Instrument, first slot and slot after the last of each halt of a session; an instrument halts once at most."""
    spans = []
    for i in rng.permutation(n)[:halts].tolist():
        first = int(rng.integers(10, MINUTES - 60))
        spans.append(
            (
                i,
                first * TICKS_PER_MINUTE,
                (first + int(rng.integers(_HALT_MINUTES[0], _HALT_MINUTES[1]))) * TICKS_PER_MINUTE,
            )
        )
    return sorted(spans)


def outage_slots(rng: np.random.Generator, outages: int) -> list[tuple[int, int]]:
    """First slot and slot after the last of each outage of a session; they begin and end inside minutes."""
    spans = []
    for _ in range(outages):
        first = int(rng.integers(10 * TICKS_PER_MINUTE, SLOTS - 30 * TICKS_PER_MINUTE))
        minutes = rng.uniform(_OUTAGE_MINUTES[0], _OUTAGE_MINUTES[1])
        spans.append((first, first + int(minutes * TICKS_PER_MINUTE)))
    return sorted(spans)


@dataclass(frozen=True, eq=False)
class Quotes:
    """Best quotes, of the shape of the prices that they stand beside."""

    bid_price: NDArray[np.float64]
    ask_price: NDArray[np.float64]
    bid_quantity: NDArray[np.int64]
    ask_quantity: NDArray[np.int64]


def quotes_of(
    draws: NDArray[np.float64],
    prices: NDArray[np.float64],
    minute_open: NDArray[np.float64],
    state: NDArray[np.int8],
    depth: NDArray[np.float64],
) -> Quotes:
    """Quote each price, which is one side of the quote; the first row without depth is an index and has no quote.

    The spread grows with the move since the minute began; the quantities lean weakly towards a burst.

    Parameters
    ----------
    draws : float64, shape (3, …)
        Uniform numbers.
    prices, minute_open, state
        Broadcast against each other.
    depth : float64
        Shares at the best prices, about; 0 for an index.
    """
    ticks = np.rint(prices / _TICK_SIZE_INR)
    move_bps = np.abs(prices / minute_open - 1.0) * 1e4
    spread = np.maximum(np.rint(ticks * (_BEST_SPREAD_BPS + _SPREAD_PER_MOVE * move_bps) * 1e-4), 1.0)
    bought = draws[0] < 0.5 + 0.05 * state
    bid = np.maximum(np.where(bought, ticks - spread, ticks), 1.0)
    lean = np.clip(_BURST_IMBALANCE * state + 1.6 * (draws[1] - 0.5), -0.95, 0.95)
    total = depth * (0.5 + draws[2])
    there = np.broadcast_to(depth > 0, prices.shape)
    return Quotes(
        np.where(there, np.round(bid * _TICK_SIZE_INR, 2), np.nan),
        np.where(there, np.round((bid + spread) * _TICK_SIZE_INR, 2), np.nan),
        np.where(there, np.maximum(total * (1.0 + lean), 1.0), 0.0).astype(np.int64),
        np.where(there, np.maximum(total * (1.0 - lean), 1.0), 0.0).astype(np.int64),
    )


def last_quotes(rng: np.random.Generator, path: SessionPath, depth: NDArray[np.float64]) -> Quotes:
    """Quote the last tick of each minute, ``(n, 375)``."""
    draws = rng.random((3, len(path.prices), MINUTES))
    return quotes_of(draws, path.prices[:, :, -1], path.prices[:, :, 0], path.state, depth[:, None])


def all_quotes(
    last: np.random.Generator, others: np.random.Generator, path: SessionPath, depth: NDArray[np.float64]
) -> Quotes:
    """Quote each tick, ``(n, 375, 30)``; the last of each minute as `last_quotes` does."""
    n = len(path.prices)
    draws = np.concatenate(
        [others.random((3, n, MINUTES, TICKS_PER_MINUTE - 1)), last.random((3, n, MINUTES))[..., None]], axis=3
    )
    return quotes_of(draws, path.prices, path.prices[:, :, :1], path.state[:, :, None], depth[:, None, None])


def bars_of_path(session: Session, path: SessionPath, quotes: Quotes | None) -> Bars:
    """Give the one-minute bars of a path of which every tick comes, with the quotes of each minute's last tick."""
    n = len(path.prices)
    start_ns = np.repeat(session.open_ns + np.arange(MINUTES, dtype=np.int64) * MINUTE_NS, n)

    def by_time(column: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.ascontiguousarray(column.T).ravel()

    spread_bps, imbalance = np.full((2, n, MINUTES), np.nan)
    if quotes is not None:
        bid, ask, bids, asks = quotes.bid_price, quotes.ask_price, quotes.bid_quantity, quotes.ask_quantity
        spread_bps = (ask - bid) / (0.5 * (ask + bid)) * 1e4
        imbalance = np.divide(bids - asks, bids + asks, out=imbalance, where=bids + asks > 0)
    return Bars(
        instrument=np.tile(np.arange(n, dtype=np.int32), MINUTES),
        start_ns=start_ns,
        end_ns=start_ns + MINUTE_NS,
        open=by_time(path.prices[:, :, 0]),
        high=by_time(path.prices.max(axis=2)),
        low=by_time(path.prices.min(axis=2)),
        close=by_time(path.prices[:, :, -1]),
        volume=np.ascontiguousarray(path.shares.sum(axis=2).T).ravel(),
        tick_count=np.full(n * MINUTES, TICKS_PER_MINUTE, dtype=np.int32),
        spread_bps=by_time(spread_bps),
        imbalance=by_time(imbalance),
    )


def ticks_of_path(
    rng: np.random.Generator,
    session: Session,
    path: SessionPath,
    quotes: Quotes | None,
    *,
    comes: NDArray[np.bool_] | None = None,
    index: bool = False,
) -> Ticks:
    """Give the ticks of a path, each at a random time in its slot; an index at the end of it, after what it sums up.

    Parameters
    ----------
    comes : bool, shape (n, 375 * 30), optional
        Which ticks come at all; default: all.
    """
    n = len(path.prices)
    time_ms = np.arange(SLOTS) * _SLOT_MS + rng.integers(0, _SLOT_MS, (n, SLOTS))
    if index:
        time_ms[0] = np.arange(SLOTS) * _SLOT_MS + _SLOT_MS - 1
    kept = np.arange(n * SLOTS) if comes is None else np.flatnonzero(comes)
    order = kept[np.argsort(time_ms.ravel()[kept], kind="stable")]
    day_volume = np.cumsum(path.shares.reshape(n, -1), axis=1)
    ticks = Ticks(
        instrument=np.repeat(np.arange(n, dtype=np.int32), SLOTS)[order],
        event_time_ns=session.open_ns + time_ms.ravel()[order] * (SECOND_NS // 1000),
        last_price=path.prices.ravel()[order],
        day_volume=day_volume.ravel()[order],
    )
    if quotes is None:
        return ticks
    return Ticks(
        ticks.instrument,
        ticks.event_time_ns,
        ticks.last_price,
        ticks.day_volume,
        quotes.bid_price.ravel()[order],
        quotes.ask_price.ravel()[order],
        quotes.bid_quantity.ravel()[order],
        quotes.ask_quantity.ravel()[order],
    )
