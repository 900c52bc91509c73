"""Markets for tests of features: random, small, and with everything in them that real ones have.

Prices are multiples of 0.25 rupee and volumes whole, so that a split of one share into five leaves both exact.
"""

import datetime as dt
from dataclasses import dataclass, replace

import numpy as np

from feature_store.features.schema import feature_schema
from feature_store.market.clocks import BarClock
from feature_store.market.corporate_actions import CorporateAction, CorporateActions
from feature_store.market.types import Bars, Session, Universe

INDEX = "SYN INDEX"
SPLIT = 0.2
"""Factor of a split of one share into five."""
ALL = feature_schema(None, 1)
MIXED = feature_schema(["momentum", "rsi", "trend_slope@5m", "z_score@15m", "beta", "spread"], 1)


@dataclass(frozen=True, eq=False)
class FeatureMarket:
    """Bars of an index and of stocks."""

    universe: Universe
    sessions: tuple[Session, ...]
    bars: Bars

    def of(self, symbol: str) -> np.ndarray:
        """Rows of an instrument."""
        return np.flatnonzero(self.bars.instrument == self.universe.index_of_symbol[symbol])


def sessions_from(first: dt.date, count: int) -> tuple[Session, ...]:
    """Weekdays, as regular sessions."""
    days = (first + dt.timedelta(days=k) for k in range(2 * count + 5))
    return tuple(Session.regular(day) for day in days if day.weekday() < 5)[:count]


def feature_market(
    seed: int = 1,
    *,
    stocks: int = 2,
    sessions: int = 4,
    bars_per_session: int | None = None,
    clock: str = "1m",
    first: dt.date = dt.date(2026, 1, 5),
    missing: float = 0.0,
    odd: bool = False,
) -> FeatureMarket:
    """Draw a market.

    Parameters
    ----------
    missing : float
        Share of bars that are not there, of the index too.
    odd : bool
        Also flat prices, no volume, halts, a stock that is absent for a session, and bars without depth.
    """
    rng = np.random.default_rng(seed)
    bar_clock = BarClock.parse(clock)
    universe = Universe.from_symbols([INDEX, *(f"STOCK{k}" for k in range(stocks))], untradable=frozenset({INDEX}))
    n, level = len(universe), rng.integers(400, 4000, stocks + 1)
    flat, idle = (rng.random(n) < 0.2, rng.random(n) < 0.2) if odd else (np.zeros(n, bool), np.zeros(n, bool))
    days = sessions_from(first, sessions)
    parts = []
    for session in days:
        for i in range(n):
            start, end = _times(rng, session, bar_clock, bars_per_session)
            count = len(start)
            move = np.rint(rng.normal(0.0, 3.0, count)).astype(np.int64) * (not flat[i])
            move[0] += 0 if flat[i] else int(rng.normal(0.0, 12.0))
            close = np.maximum(level[i] + np.cumsum(move), 60)
            opened = np.maximum(close - move // 2, 60)
            wide = rng.integers(0, 5, (2, count)) * (not flat[i])
            there = rng.random(count) >= missing
            if odd and rng.random() < 0.4:  # a halt
                begin = int(rng.integers(0, count))
                there[begin : begin + int(rng.integers(1, 30))] = False
            if odd and rng.random() < 0.1:
                there[:] = False
            depth = rng.random(count) >= (0.1 if odd else 0.0)
            volume = rng.integers(0, 10_000, count) * (rng.random(count) > (0.2 if odd else 0.02)) * (not idle[i])
            volume *= universe.instruments[i].tradable
            bars = Bars(
                instrument=np.full(count, i, dtype=np.int32),
                start_ns=start,
                end_ns=end,
                open=opened * 0.25,
                high=(np.maximum(opened, close) + wide[0]) * 0.25,
                low=(np.minimum(opened, close) - wide[1]) * 0.25,
                close=close * 0.25,
                volume=volume.astype(np.int64),
                tick_count=np.ones(count, dtype=np.int32),
                spread_bps=np.where(depth, rng.integers(0, 400, count) / 16.0, np.nan),
                imbalance=np.where(depth, rng.integers(-64, 65, count) / 64.0, np.nan),
            )
            level[i] = close[-1]
            parts.append(bars[there])
    return FeatureMarket(universe, days, in_order(Bars.concatenate(parts)))


def in_order(bars: Bars) -> Bars:
    """Sort by ``(end_ns, instrument)``."""
    return bars[np.lexsort((bars.instrument, bars.end_ns))]


def with_split(market: FeatureMarket, symbol: str, ex_date: dt.date) -> tuple[Bars, CorporateActions]:
    """Split a stock one into five: the bars as they were traded, and the action."""
    bars = market.bars
    after = (bars.instrument == market.universe.index_of_symbol[symbol]) & (
        bars.start_ns >= Session.regular(ex_date).open_ns
    )
    prices = {name: np.where(after, getattr(bars, name) / 5.0, getattr(bars, name)) for name in _PRICES}
    traded = replace(bars, volume=np.where(after, bars.volume * 5, bars.volume), **prices)
    return traded, CorporateActions((CorporateAction(symbol, ex_date, "split", SPLIT),))


_PRICES = ("open", "high", "low", "close")


def _times(
    rng: np.random.Generator, session: Session, clock: BarClock, count: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Starts and ends of the bars of one instrument."""
    length = session.close_ns - session.open_ns
    if clock.kind == "session":
        return np.array([session.open_ns]), np.array([session.close_ns])
    if clock.kind == "ticks":
        edges = session.open_ns + np.sort(rng.choice(length // 10**9, (count or 60) + 1, replace=False)) * 10**9
        return edges[:-1], edges[1:]
    start = session.open_ns + np.arange(min(-(-length // clock.size), count or 10**9)) * clock.size
    return start, np.minimum(start + clock.size, session.close_ns)
