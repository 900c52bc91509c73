"""A generated market with planted edges, for the demo and for tests; always labelled SYNTHETIC.

One price path process makes everything. Each instrument's log price is a random walk sampled every 2 s. Bursts of order
flow, hidden from the features, come and go: while one lasts, the price drifts by ``edge_bps`` per minute up or down and
volume is higher. Two further edges are there as options, and off: overshoots that come back (``reversion_bps``) and
breaks out of a range that start a drift (``breakout_bps``). Without edges it is a random walk. Bars of the training
sessions are exactly the bars that the bar builder would build from that session's ticks; of the sessions after them the
ticks are kept. What makes a real market hard (regimes, gaps, auctions, halts, outages, splits) is there as options, and
off.
"""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from feature_store.bars.builder import bars_of_session
from feature_store.market.calendar import nse_session
from feature_store.market.clocks import BarClock
from feature_store.market.corporate_actions import CorporateAction, CorporateActions
from feature_store.market.types import MINUTE_NS, SYNTHETIC, Bars, Session, Ticks, Universe
from feature_store.sources.synthetic_edges import MINUTES, SLOTS, Planted, with_breakouts, with_overshoots
from feature_store.sources.synthetic_paths import (
    Quotes,
    SessionPath,
    all_quotes,
    bars_of_path,
    halted_slots,
    last_quotes,
    outage_slots,
    overnight_gap,
    regimes_of_session,
    session_path,
    stream,
    ticks_of_path,
    with_index,
)

INDEX_SYMBOL = "SYN INDEX"
_SPLIT_FACTORS = (0.5, 0.2, 0.1)
_DEPTH_TICKS = 20.0  # shares at the best prices, in shares of a usual tick


@dataclass(frozen=True, slots=True)
class Interruption:
    """A time in which no tick came, because an instrument was halted or the feed was out."""

    symbol: str | None
    """None: the whole feed."""
    start_ns: int
    end_ns: int
    """The first instant at which ticks came again."""


@dataclass(frozen=True, eq=False)
class SyntheticMarket:
    """A generated market: sessions of one-minute bars, then later sessions of ticks."""

    name: str
    """``SYNTHETIC`` and eight hexadecimal digits of what determines the data."""
    details: dict[str, JsonValue]
    """Everything that determines the data, by the parameters' names."""
    universe: Universe
    sessions: tuple[Session, ...]
    bars: tuple[Bars, ...]
    """One-minute bars of each of ``sessions``."""
    tick_sessions: tuple[Session, ...]
    """The sessions after the last of ``sessions``: they are there to be replayed, and are never trained on."""
    ticks: tuple[Ticks, ...]
    """Ticks of each of ``tick_sessions``."""
    actions: CorporateActions
    """The splits; prices and volumes of bars and ticks are raw."""
    interruptions: tuple[Interruption, ...]
    """Halts and outages, in order of time."""


def synthetic_market(
    instruments: int = 20,
    sessions: int = 30,
    first_session: str | dt.date = "2026-01-05",
    edge_bps: float = 6.0,
    seed: int = 7,
    *,
    tick_sessions: int = 1,
    index: bool = True,
    quotes: bool = True,
    volatility_regimes: bool = False,
    overnight_gap_bps: float = 0.0,
    opening_auction: bool = False,
    halts: int = 0,
    outages: int = 0,
    splits: int = 0,
    reversion_bps: float = 0.0,
    breakout_bps: float = 0.0,
) -> SyntheticMarket:
    """Generate a market; the same arguments give the same bytes.

    Parameters
    ----------
    instruments : int
        Number of instruments, named ``SYN001``, ``SYN002``, …
    sessions : int
        Sessions of one-minute bars, on the exchange's calendar; sessions of ticks follow.
    first_session : str or date
        Date of the first session; a day without trading moves it to the next session.
    edge_bps : float
        Drift per minute while a burst lasts, basis points; up or down with equal odds. Bursts fill a quarter of the
        time and have a half-life of 15 minutes.
    seed : int
        Seed of numpy's PCG64.
    tick_sessions : int
        Sessions of ticks after those of bars. One more changes nothing in those before it.
    index : bool
        Add ``SYN INDEX``, which is not tradable: the mean of the instruments' log moves.
    quotes : bool
        Give ticks the best quote, and so bars their spread and imbalance. The spread grows with volatility, the
        quantities lean weakly towards a burst. An index has none.
    volatility_regimes : bool
        Let volatility change between calm, usual and stressed, for the whole market.
    overnight_gap_bps : float
        Standard deviation of further moves between sessions, fat-tailed and half common to all.
    opening_auction : bool
        Begin sessions with the volume of an auction and five wild minutes.
    halts : int
        Instruments that are halted in each session, for 15 to 45 minutes.
    outages : int
        Outages of the whole feed in each session, of 5 to 20 minutes; trading goes on unseen.
    splits : int
        Splits of one share into 2, 5 or 10, one in about three sessions while the market lasts.
    reversion_bps : float
        What an overshoot comes back per minute, basis points; see `synthetic_edges.with_overshoots`.
    breakout_bps : float
        Drift per minute after a break out of the last hour's range, basis points; see
        `synthetic_edges.with_breakouts`.
    """
    names = [f"SYN{k:03d}" for k in range(1, instruments + 1)] + [INDEX_SYMBOL] * index
    generator = _Generator(
        universe=Universe.from_symbols(names, frozenset({INDEX_SYMBOL})),
        seed=seed,
        edge_bps=edge_bps,
        index=index,
        quotes=quotes,
        volatility_regimes=volatility_regimes,
        overnight_gap_bps=overnight_gap_bps,
        opening_auction=opening_auction,
        halts=halts,
        outages=outages,
        splits=splits,
        reversion_bps=reversion_bps,
        breakout_bps=breakout_bps,
    )
    return generator.market(_date(first_session), sessions, tick_sessions)


@dataclass(frozen=True)
class _Generator:
    """The options of a market, and what they make of it, session by session."""

    universe: Universe
    seed: int
    edge_bps: float
    index: bool
    quotes: bool
    volatility_regimes: bool
    overnight_gap_bps: float
    opening_auction: bool
    halts: int
    outages: int
    splits: int
    reversion_bps: float
    breakout_bps: float

    @property
    def instruments(self) -> int:
        return len(self.universe) - self.index

    def market(self, first: dt.date, sessions: int, tick_sessions: int) -> SyntheticMarket:
        calendar = market_sessions(sessions, first, tick_sessions)
        symbols = [instrument.symbol for instrument in self.universe.instruments if instrument.tradable]
        planned = _planned_splits(self.seed, self.splits, self.instruments)
        bars: list[Bars] = []
        ticks: list[Ticks] = []
        interruptions: list[Interruption] = []
        for k, (session, path, depth) in enumerate(self.paths(calendar, planned)):
            comes, stopped = self.interruptions(k, session)
            interruptions += stopped
            if k < sessions:
                bars.append(self.bars(k, session, path, depth, comes))
            else:
                ticks.append(self.ticks(k, session, path, depth, comes))
        actions = [
            CorporateAction(symbols[i], calendar[k].date, "split", factor)
            for k in sorted(planned)
            if k < len(calendar)
            for i, factor in planned[k]
        ]
        details = self.details(first, sessions, tick_sessions)
        return SyntheticMarket(
            name=f"{SYNTHETIC} {hashlib.sha256(json.dumps(details, sort_keys=True).encode()).hexdigest()[:8]}",
            details=details,
            universe=self.universe,
            sessions=calendar[:sessions],
            bars=tuple(bars),
            tick_sessions=calendar[sessions:],
            ticks=tuple(ticks),
            actions=CorporateActions(tuple(actions)),
            interruptions=tuple(interruptions),
        )

    def details(self, first: dt.date, sessions: int, tick_sessions: int) -> dict[str, JsonValue]:
        return {
            "instruments": self.instruments,
            "sessions": sessions,
            "first_session": first.isoformat(),
            "edge_bps": float(self.edge_bps),
            "seed": self.seed,
            "tick_sessions": tick_sessions,
            "index": self.index,
            "quotes": self.quotes,
            "volatility_regimes": self.volatility_regimes,
            "overnight_gap_bps": float(self.overnight_gap_bps),
            "opening_auction": self.opening_auction,
            "halts": self.halts,
            "outages": self.outages,
            "splits": self.splits,
            "reversion_bps": float(self.reversion_bps),
            "breakout_bps": float(self.breakout_bps),
        }

    def paths(
        self, calendar: Sequence[Session], planned: Mapping[int, Sequence[tuple[int, float]]]
    ) -> Iterator[tuple[Session, SessionPath, NDArray[np.float64]]]:
        """Walk every session's prices; with each, the usual depth of its book in shares, of every instrument."""
        rng = np.random.Generator(np.random.PCG64(self.seed))
        log_price = rng.uniform(np.log(200.0), np.log(4000.0), self.instruments)
        shares_per_tick = rng.lognormal(5.0, 0.7, self.instruments)
        base, regime, scale = float(log_price.mean()), 1, np.ones(self.instruments)
        for k, session in enumerate(calendar):
            for i, factor in planned.get(k, ()):
                scale[i] *= factor
            path, regime = self.path(rng, k, log_price, shares_per_tick, scale, regime)
            log_price = path.log_close
            depth = np.concatenate([[0.0] * self.index, _DEPTH_TICKS * shares_per_tick / scale])
            yield session, with_index(path, base) if self.index else path, depth

    def path(  # noqa: PLR0917
        self,
        rng: np.random.Generator,
        k: int,
        log_price: NDArray[np.float64],
        shares_per_tick: NDArray[np.float64],
        scale: NDArray[np.float64],
        regime: int,
    ) -> tuple[SessionPath, int]:
        gap = volatility = None
        if self.overnight_gap_bps:
            gap = overnight_gap(stream(self.seed, k, "gaps"), len(log_price), self.overnight_gap_bps)
        if self.volatility_regimes:
            volatility, regime = regimes_of_session(stream(self.seed, k, "regimes"), regime)
        walked = session_path(
            rng,
            log_price,
            shares_per_tick,
            self.edge_bps,
            gap=gap,
            volatility=volatility,
            auction=self.opening_auction,
            scale=scale,
            plant=functools.partial(self.planted, k),
        )
        return walked, regime

    def planted(self, k: int, walked: NDArray[np.float64]) -> Planted:
        """Plant the edges that are no bursts in the walk of a session."""
        made = Planted(walked, np.ones((len(walked), MINUTES)))
        if self.reversion_bps:
            made = with_overshoots(stream(self.seed, k, "overshoots"), made, self.reversion_bps)
        if self.breakout_bps:
            made = with_breakouts(stream(self.seed, k, "breakouts"), made, self.breakout_bps)
        return made

    def interruptions(self, k: int, session: Session) -> tuple[NDArray[np.bool_] | None, list[Interruption]]:
        """Which ticks come, None for all; shape ``(n, 375 * 30)``."""
        if not self.halts and not self.outages:
            return None, []
        rng, n = stream(self.seed, k, "interruptions"), len(self.universe)
        comes = np.ones((n, SLOTS), dtype=np.bool_)
        stopped: list[tuple[str | None, int, int]] = []
        slot_ns = MINUTES * MINUTE_NS // SLOTS
        for i, begin, end in halted_slots(rng, self.instruments, self.halts):
            comes[i + self.index, begin:end] = False
            stopped.append((self.universe.instruments[i + self.index].symbol, begin, end))
        for begin, end in outage_slots(rng, self.outages):
            comes[:, begin:end] = False
            stopped.append((None, begin, end))
        stopped.sort(key=lambda stop: stop[1])
        return comes, [
            Interruption(symbol, session.open_ns + begin * slot_ns, session.open_ns + end * slot_ns)
            for symbol, begin, end in stopped
        ]

    def bars(
        self,
        k: int,
        session: Session,
        path: SessionPath,
        depth: NDArray[np.float64],
        comes: NDArray[np.bool_] | None,
    ) -> Bars:
        if comes is not None:
            ticks = self.ticks(k, session, path, depth, comes)
            return bars_of_session(ticks, session, len(self.universe), BarClock.minutes(1))
        last = last_quotes(stream(self.seed, k, "last quotes"), path, depth) if self.quotes else None
        return bars_of_path(session, path, last)

    def ticks(
        self,
        k: int,
        session: Session,
        path: SessionPath,
        depth: NDArray[np.float64],
        comes: NDArray[np.bool_] | None,
    ) -> Ticks:
        quotes: Quotes | None = None
        if self.quotes:
            last, others = stream(self.seed, k, "last quotes"), stream(self.seed, k, "other quotes")
            quotes = all_quotes(last, others, path, depth)
        times = stream(self.seed, k, "times")
        return ticks_of_path(times, session, path, quotes, comes=comes, index=self.index)


def _planned_splits(seed: int, splits: int, instruments: int) -> dict[int, list[tuple[int, float]]]:
    """Instrument and factor of the splits of each session, counted from 0."""
    rng, planned = stream(seed, 0, "splits"), {}
    for k in range(splits):
        session = 1 + 3 * k + int(rng.integers(3))
        planned[session] = [(int(rng.integers(instruments)), float(rng.choice(_SPLIT_FACTORS)))]
    return planned


def _date(text: str | dt.date) -> dt.date:
    return dt.date.fromisoformat(text) if isinstance(text, str) else text


def market_sessions(
    sessions: int = 30, first_session: str | dt.date = "2026-01-05", tick_sessions: int = 1
) -> tuple[Session, ...]:
    """Give the sessions of a market: those of its bars, then those of its ticks. Raises as `synthetic_sessions`."""
    return synthetic_sessions(_date(first_session), sessions + tick_sessions)


def synthetic_sessions(first: dt.date, count: int) -> tuple[Session, ...]:
    """Give the first ``count`` NSE sessions of regular length from a date on.

    Raises
    ------
    UnverifiedDate
        If the calendar ends before that.
    """
    days = (first + dt.timedelta(days=k) for k in itertools.count())
    sessions = (session for day in days if (session := nse_session(day)) is not None)
    regular = (session for session in sessions if session.close_ns - session.open_ns == MINUTES * MINUTE_NS)
    return tuple(itertools.islice(regular, count))
