"""A generated market with a planted edge, for the demo and for tests; always labelled SYNTHETIC.

One price path process makes everything. Each instrument's log price is a random walk sampled every 2 s. Bursts of order
flow, hidden from the features, come and go: while one lasts, the price drifts by ``edge_bps`` per minute up or down and
volume is higher. ``edge_bps=0`` leaves a random walk. Bars of the training sessions are exactly the bars that
`feature_store.bars` would build from that session's ticks; only the last session's ticks are kept.
"""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from feature_store.calendar import nse_session
from feature_store.market import MINUTE_NS, SECOND_NS, Bars, Session, Ticks, Universe

_MINUTES = 375
_TICKS_PER_MINUTE = 30
_SLOT_MS = 2000
_TICK_SIZE_INR = 0.05
_NOISE_BPS_PER_MINUTE = 12.0
_GAP_BPS = 40.0
_BURST_HALF_LIFE_MINUTES = 15.0
_BURST_SHARE = 0.25  # part of the time that an instrument is in a burst
_BURST_VOLUME = 1.3


@dataclass(frozen=True, eq=False)
class SyntheticMarket:
    """A generated market: sessions of one-minute bars, then one later session of ticks."""

    name: str
    """Starts with ``SYNTHETIC`` and names everything that determines the data."""
    universe: Universe
    sessions: tuple[Session, ...]
    bars: tuple[Bars, ...]
    """One-minute bars of each of ``sessions``."""
    tick_session: Session
    """The session after the last of ``sessions``."""
    ticks: Ticks


def synthetic_market(
    instruments: int = 20,
    sessions: int = 30,
    first_session: str | dt.date = "2026-01-05",
    edge_bps: float = 6.0,
    seed: int = 7,
) -> SyntheticMarket:
    """Generate a market; the same arguments give the same bytes.

    Parameters
    ----------
    instruments : int
        Number of instruments, named ``SYN001``, ``SYN002``, …
    sessions : int
        Sessions of one-minute bars, on the exchange's calendar; one more session of ticks follows.
    first_session : str or date
        Date of the first session; a day without trading moves it to the next session.
    edge_bps : float
        Drift per minute while a burst lasts, basis points; up or down with equal odds. Bursts fill a quarter of the
        time and have a half-life of 15 minutes.
    seed : int
        Seed of numpy's PCG64.
    """
    first = dt.date.fromisoformat(first_session) if isinstance(first_session, str) else first_session
    universe = Universe.from_symbols([f"SYN{k:03d}" for k in range(1, instruments + 1)])
    calendar = synthetic_sessions(first, sessions + 1)
    rng = np.random.Generator(np.random.PCG64(seed))
    log_price = rng.uniform(np.log(200.0), np.log(4000.0), instruments)
    shares_per_tick = rng.lognormal(5.0, 0.7, instruments)
    bars: list[Bars] = []
    for session in calendar[:-1]:
        prices, shares, log_price = _session_path(rng, log_price, shares_per_tick, edge_bps)
        bars.append(_bars_of_path(session, prices, shares))
    prices, shares, _ = _session_path(rng, log_price, shares_per_tick, edge_bps)
    return SyntheticMarket(
        name=f"SYNTHETIC instruments={instruments} sessions={sessions} first={first} edge_bps={edge_bps:g} seed={seed}",
        universe=universe,
        sessions=calendar[:-1],
        bars=tuple(bars),
        tick_session=calendar[-1],
        ticks=_ticks_of_path(rng, calendar[-1], prices, shares),
    )


def synthetic_sessions(first: dt.date, count: int) -> tuple[Session, ...]:
    """Give the first ``count`` NSE sessions of regular length from a date on.

    Raises
    ------
    UnverifiedDate
        If the calendar ends before that.
    """
    days = (first + dt.timedelta(days=k) for k in itertools.count())
    sessions = (session for day in days if (session := nse_session(day)) is not None)
    regular = (session for session in sessions if session.close_ns - session.open_ns == _MINUTES * MINUTE_NS)
    return tuple(itertools.islice(regular, count))


def _bursts(rng: np.random.Generator, instruments: int) -> NDArray[np.int8]:
    """Hidden state by instrument and minute: +1 and -1 in a burst, else 0; shape ``(n_instruments, 375)``."""
    leave = 1.0 - 0.5 ** (1.0 / _BURST_HALF_LIFE_MINUTES)
    enter = leave * _BURST_SHARE / (1.0 - _BURST_SHARE)
    draws = rng.random((_MINUTES, instruments))
    sides = np.where(rng.random((_MINUTES, instruments)) < 0.5, -1, 1).astype(np.int8)
    state = np.where(draws[0] < _BURST_SHARE, sides[0], 0).astype(np.int8)
    states = [state]
    for minute in range(1, _MINUTES):
        begins = (state == 0) & (draws[minute] < enter)
        ends = (state != 0) & (draws[minute] < leave)
        state = np.where(begins, sides[minute], np.where(ends, 0, state)).astype(np.int8)
        states.append(state)
    return np.stack(states, axis=1)


def _session_path(
    rng: np.random.Generator, log_price: NDArray[np.float64], shares_per_tick: NDArray[np.float64], edge_bps: float
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]:
    """Prices (rounded to the tick size) and shares of each tick, ``(n, 375, 30)``, and the log prices at the close."""
    n = len(log_price)
    state = _bursts(rng, n)
    steps = rng.standard_normal((n, _MINUTES, _TICKS_PER_MINUTE))
    steps *= _NOISE_BPS_PER_MINUTE * 1e-4 / np.sqrt(_TICKS_PER_MINUTE)
    steps += state[:, :, None] * (edge_bps * 1e-4 / _TICKS_PER_MINUTE)
    steps[:, 0, 0] += rng.standard_normal(n) * (_GAP_BPS * 1e-4)
    path = log_price[:, None] + np.cumsum(steps.reshape(n, -1), axis=1)
    prices = np.maximum(np.round(np.exp(path) / _TICK_SIZE_INR), 1.0) * _TICK_SIZE_INR
    hours = np.linspace(-1.0, 1.0, _MINUTES)
    level = shares_per_tick[:, None] * (0.6 + 1.2 * hours**2) * np.where(state == 0, 1.0, _BURST_VOLUME)
    level *= rng.lognormal(0.0, 0.4, (n, _MINUTES))
    shares = (rng.standard_exponential(steps.shape) * level[:, :, None]).astype(np.int64)
    return np.round(prices, 2).reshape(steps.shape), shares, path[:, -1]


def _bars_of_path(session: Session, prices: NDArray[np.float64], shares: NDArray[np.int64]) -> Bars:
    n = len(prices)
    start_ns = np.repeat(session.open_ns + np.arange(_MINUTES, dtype=np.int64) * MINUTE_NS, n)

    def by_time(column: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.ascontiguousarray(column.T).ravel()

    return Bars(
        instrument=np.tile(np.arange(n, dtype=np.int32), _MINUTES),
        start_ns=start_ns,
        end_ns=start_ns + MINUTE_NS,
        open=by_time(prices[:, :, 0]),
        high=by_time(prices.max(axis=2)),
        low=by_time(prices.min(axis=2)),
        close=by_time(prices[:, :, -1]),
        volume=np.ascontiguousarray(shares.sum(axis=2).T).ravel(),
        tick_count=np.full(n * _MINUTES, _TICKS_PER_MINUTE, dtype=np.int32),
    )


def _ticks_of_path(
    rng: np.random.Generator, session: Session, prices: NDArray[np.float64], shares: NDArray[np.int64]
) -> Ticks:
    n, slots = len(prices), _MINUTES * _TICKS_PER_MINUTE
    time_ms = np.arange(slots) * _SLOT_MS + rng.integers(0, _SLOT_MS, (n, slots))
    order = np.argsort(time_ms.ravel(), kind="stable")
    return Ticks(
        instrument=np.repeat(np.arange(n, dtype=np.int32), slots)[order],
        event_time_ns=session.open_ns + time_ms.ravel()[order] * (SECOND_NS // 1000),
        last_price=prices.reshape(-1)[order],
        day_volume=np.cumsum(shares.reshape(n, -1), axis=1).ravel()[order],
    )
