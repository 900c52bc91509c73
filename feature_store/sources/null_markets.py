"""Markets in which nothing can be foretold, and the same markets with a planted edge of stated size.

They judge the judges: a skill check that passes models on these without an edge is wrong. Each kind has what makes
honest statistics lie: a drifting walk in which any measure that knows a session's mean finds skill; one factor that
moves everything at once, with fat tails, volatility regimes and overnight gaps, so that a session is little more than
one observation; prices that bounce between bid and ask, so that the last close says something about the next close
and nothing about the next trade; and hours that move more than others, so that the hour and a volatility that lags say
how a trade with a stop and a target ends, and nothing about what it gains.

Prices are log-normal steps on a tick size of 0.05 rupees. A bar's open is a trade of its own, some time after the close
before it. Moves are symmetric: up and down are equally likely whatever came before.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import MINUTE_NS, Bars, Session, Universe
from feature_store.sources.synthetic import synthetic_sessions

Floats = NDArray[np.float64]
NullKind = Literal["random walk", "one factor", "bid-ask bounce", "volatile hours"]
EdgeKind = Literal["momentum", "reversal", "market momentum"]
NULL_KINDS: Final[tuple[NullKind, ...]] = get_args(NullKind)
INDEX_SYMBOL: Final = "NULL INDEX"

_STEP_PER_MINUTE = 12e-4  # standard deviation of a log price over a minute
_BETWEEN = 0.05  # part of a bar's variance between a close and the next open
_OVERNIGHT = {"random walk": 40e-4, "one factor": 80e-4, "bid-ask bounce": 40e-4, "volatile hours": 40e-4}
_BY_HOUR = (2.0, 0.6, 1.2)  # volatility at the open, at noon and at the close
_REGIMES = (0.6, 1.0, 2.2)  # volatility: calm, usual, stressed
_REGIME_BARS = 5
_REGIME_SWITCHES = 0.05  # of blocks of so many bars
_HALF_SPREAD = 8e-4
_TICK_SIZE_INR = 0.05
_EDGE_BARS = 10  # the move that a planted edge looks at
_PRICES_INR = {
    "random walk": (200.0, 4000.0),
    "one factor": (200.0, 4000.0),
    "bid-ask bounce": (60.0, 600.0),
    "volatile hours": (200.0, 4000.0),
}


@dataclass(frozen=True, eq=False)
class NullMarket:
    """A generated market of time bars without holes."""

    name: str
    """Starts with ``SYNTHETIC`` and names everything that determines the data."""
    universe: Universe
    """An index that is not tradable, then the instruments."""
    sessions: tuple[Session, ...]
    bars: Bars
    """Of all sessions, in order of ``(end_ns, instrument)``."""
    bars_per_session: int


@dataclass(frozen=True, eq=False)
class _Steps:
    """Log moves, shape ``(bars, instruments)``: from the close before to the open, and from the open to the close."""

    between: Floats
    within: Floats
    volatility: Floats
    """Of the market at each bar, shape ``(bars, 1)``; 1 is usual."""


def null_market(
    kind: NullKind,
    seed: int,
    *,
    instruments: int = 10,
    sessions: int = 32,
    bar_minutes: int = 5,
    edge: EdgeKind | None = None,
    edge_bps: float = 0.0,
) -> NullMarket:
    """Generate a market; the same arguments give the same bytes.

    Parameters
    ----------
    kind : {'random walk', 'one factor', 'bid-ask bounce', 'volatile hours'}
    seed : int
        Seed of numpy's PCG64.
    instruments, sessions : int
        How many; the sessions are the exchange's from 2026-01-05 on.
    bar_minutes : int
        Length of a bar; divides 375.
    edge : {'momentum', 'reversal', 'market momentum'}, optional
        What the drift of a bar follows: the instrument's own move over the last ten bars, against it, or the mean of
        all instruments' moves.
    edge_bps : float
        Drift per bar, basis points, where that move is large; it is ``edge_bps · tanh(move / its deviation)``.
    """
    days = synthetic_sessions(dt.date(2026, 1, 5), sessions)
    rng = np.random.Generator(np.random.PCG64([seed, NULL_KINDS.index(kind)]))
    a_session = 375 // bar_minutes
    deviation = _STEP_PER_MINUTE * bar_minutes**0.5
    opening = np.arange(sessions * a_session)[:, None] % a_session == 0
    steps = _steps(rng, kind, opening, instruments, deviation)
    if edge is not None:
        steps.within[:] += _drift(steps.between + steps.within, edge, edge_bps * 1e-4, deviation)
    name = f"SYNTHETIC {kind}, seed {seed}, {instruments} instruments, {sessions} sessions of {bar_minutes}-minute bars"
    if edge is not None:
        name += f", {edge} of {edge_bps:g} bps a bar"
    universe = Universe.from_symbols(
        [INDEX_SYMBOL, *(f"NULL{k:02d}" for k in range(instruments))], frozenset({INDEX_SYMBOL})
    )
    start_ns = np.concatenate([day.open_ns + np.arange(a_session) * bar_minutes * MINUTE_NS for day in days])
    bars = _bars(rng, kind, steps, start_ns, bar_minutes * MINUTE_NS, deviation)
    return NullMarket(name, universe, days, bars, a_session)


def _steps(
    rng: np.random.Generator, kind: NullKind, opening: NDArray[np.bool_], instruments: int, deviation: float
) -> _Steps:
    shape = (len(opening), instruments)
    if kind == "one factor":
        volatility = _regimes(rng, len(opening))
        exposure = rng.uniform(0.6, 1.4, instruments)
        between, within = (_one_factor(rng, shape, exposure, 4) * volatility for _ in range(2))
        overnight = _one_factor(rng, shape, exposure, 3)
    else:
        volatility = _hours(opening) if kind == "volatile hours" else np.ones((len(opening), 1))
        between, within, overnight = rng.standard_normal((3, *shape))
        between, within = between * volatility, within * volatility
    return _Steps(
        np.where(opening, overnight * _OVERNIGHT[kind], between * deviation * _BETWEEN**0.5),
        within * deviation * (1.0 - _BETWEEN) ** 0.5,
        volatility,
    )


def _one_factor(rng: np.random.Generator, shape: tuple[int, int], exposure: Floats, degrees: int) -> Floats:
    """Student's t moves, half of their variance from the factor; variance about 1."""
    factor, own = rng.standard_t(degrees, (shape[0], 1)), rng.standard_t(degrees, shape)
    moves: Floats = (factor * exposure + own) * (0.5 * (degrees - 2) / degrees) ** 0.5
    return moves


def _regimes(rng: np.random.Generator, bars: int) -> Floats:
    blocks = -(-bars // _REGIME_BARS)
    moved = np.where(rng.random(blocks) < _REGIME_SWITCHES, rng.integers(1, len(_REGIMES), blocks), 0)
    regime = (1 + np.cumsum(moved)) % len(_REGIMES)
    return np.repeat(np.array(_REGIMES)[regime], _REGIME_BARS)[:bars, None]


def _hours(opening: NDArray[np.bool_]) -> Floats:
    """Volatility by the hour, shape ``(bars, 1)``."""
    a_session = int(np.flatnonzero(opening[1:, 0])[0]) + 1
    by_hour = np.interp(np.linspace(-1.0, 1.0, a_session), (-1.0, 0.0, 1.0), _BY_HOUR)
    return np.tile(by_hour, len(opening) // a_session)[:, None]


def _drift(moves: Floats, edge: EdgeKind, size: float, deviation: float) -> Floats:
    """What the edge adds to each bar; it follows prices that it has moved itself, so bars go one after another."""
    drift, sign = np.zeros_like(moves), -1.0 if edge == "reversal" else 1.0
    moved = moves.copy()
    usual = deviation * _EDGE_BARS**0.5
    if edge == "market momentum":
        usual *= float(np.std(moves.mean(axis=1)) / np.std(moves))
    for bar in range(1, len(moves)):
        past = moved[max(bar - _EDGE_BARS, 0) : bar].sum(axis=0)
        if edge == "market momentum":
            past = np.full_like(past, past.mean())
        drift[bar] = sign * size * np.tanh(past / usual)
        moved[bar] += drift[bar]
    return drift


def _bars(  # noqa: PLR0917
    rng: np.random.Generator, kind: NullKind, steps: _Steps, start_ns: NDArray[np.int64], bar_ns: int, deviation: float
) -> Bars:
    shape = n, instruments = steps.within.shape
    cheapest, dearest = _PRICES_INR[kind]
    first = rng.uniform(np.log(cheapest), np.log(dearest), instruments)
    path = first + np.cumsum(np.stack([steps.between, steps.within], axis=1).reshape(2 * n, instruments), axis=0)
    opened, closed = path[0::2], path[1::2]
    reach = (deviation * steps.volatility) ** 2 * (1.0 - _BETWEEN)
    high, low = (_extreme(rng, opened, closed, reach, side) for side in (1.0, -1.0))
    index = [20_000.0 * np.exp((each - first).mean(axis=1)) for each in (opened, high, low, closed)]
    if kind == "bid-ask bounce":
        opened, closed = (each + _HALF_SPREAD * rng.choice([-1.0, 1.0], shape) for each in (opened, closed))
        high, low = high + _HALF_SPREAD, low - _HALF_SPREAD
    hours = np.linspace(-1.0, 1.0, int(np.sum(start_ns < start_ns[0] + 375 * MINUTE_NS)))
    by_hour = np.tile(0.6 + 1.2 * hours**2, n // len(hours))[:, None]
    shares = np.exp(rng.normal(8.0, 0.5, shape)) * by_hour * (1.0 + np.abs(steps.within) / deviation)
    o, h, low_, c = (
        np.concatenate([np.round(level, 2)[:, None], _on_tick_size(np.exp(each))], axis=1)
        for level, each in zip(index, (opened, high, low, closed), strict=True)
    )
    return Bars(
        instrument=np.tile(np.arange(instruments + 1, dtype=np.int32), n),
        start_ns=np.repeat(start_ns, instruments + 1),
        end_ns=np.repeat(start_ns + bar_ns, instruments + 1),
        open=o.ravel(),
        high=np.maximum(h, np.maximum(o, c)).ravel(),
        low=np.minimum(low_, np.minimum(o, c)).ravel(),
        close=c.ravel(),
        volume=np.concatenate([np.zeros((n, 1)), 1.0 + np.floor(shares)], axis=1).astype(np.int64).ravel(),
        tick_count=np.ones(n * (instruments + 1), dtype=np.int32),
    )


def _extreme(rng: np.random.Generator, opened: Floats, closed: Floats, variance: Floats, side: float) -> Floats:
    """Draw the highest (1) or lowest (-1) point of a Brownian bridge from open to close.

    Its reflection principle: Karatzas & Shreve, "Brownian Motion and Stochastic Calculus" (1991), §2.8.
    """
    draw = -2.0 * variance * np.log1p(-rng.random(opened.shape))
    point: Floats = 0.5 * (opened + closed + side * np.sqrt((closed - opened) ** 2 + draw))
    return point


def _on_tick_size(prices: Floats) -> Floats:
    return np.asarray(
        np.round(np.maximum(np.round(prices / _TICK_SIZE_INR), 1.0) * _TICK_SIZE_INR, 2), dtype=np.float64
    )
