"""Checks of market data, as plain functions; Dagster shows them as asset checks.

What is missing is measured against the sessions that are handed in: give those of the exchange's calendar in the
period and a day without a row is found too. An instrument is expected from the first session in which it has a bar to
the last one; nobody knows whether it was listed before or after.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_store.market.checks import CheckResult
from feature_store.market.clocks import BarClock
from feature_store.market.types import (
    IST,
    SECOND_NS,
    Bars,
    Session,
    Ticks,
    Universe,
    ist_day,
    ist_text,
)

_EXAMPLES = 5
_MAD_TO_SIGMA = 1.4826  # of a normal distribution: 1 / the 75 % quantile


def price_sanity(bars: Bars) -> CheckResult:
    """Prices are finite and positive, open and close lie within low and high, and no volume is negative."""
    prices = np.stack([bars.open, bars.high, bars.low, bars.close])
    finite = (np.isfinite(prices) & (prices > 0)).all(axis=0)
    inside = ((prices >= bars.low) & (prices <= bars.high)).all(axis=0)
    return _by_rows("price_sanity", bars, ~(finite & inside & (bars.volume >= 0)))


def monotone_times(bars: Bars) -> CheckResult:
    """Bars are in order of ``(end_ns, instrument)``, unique, end after they start, and do not overlap."""
    wrong = bars.end_ns <= bars.start_ns
    step, instrument_step = np.diff(bars.end_ns), np.diff(bars.instrument)
    wrong[1:] |= (step < 0) | ((step == 0) & (instrument_step <= 0))
    order = np.lexsort((bars.start_ns, bars.instrument))
    ordered = bars[order]
    overlaps = (np.diff(ordered.instrument) == 0) & (ordered.start_ns[1:] < ordered.end_ns[:-1])
    wrong[order[1:][overlaps]] = True
    return _by_rows("monotone_times", bars, wrong)


def inside_sessions(bars: Bars, sessions: Sequence[Session]) -> CheckResult:
    """Every bar lies within one of the sessions."""
    inside = np.zeros(len(bars), dtype=np.bool_)
    for session in sessions:
        inside |= (bars.start_ns >= session.open_ns) & (bars.end_ns <= session.close_ns)
    return _by_rows("inside_sessions", bars, ~inside)


def missing_sessions(bars: Bars, sessions: Sequence[Session]) -> CheckResult:
    """Every session has a bar, and every bar lies in a session."""
    parts = list(_by_session(bars, sessions))
    missing = [str(session.date) for session, part in parts if not len(part)]
    strays = len(bars) - sum(len(part) for _, part in parts)
    return CheckResult(
        "missing_sessions",
        bool(parts) and not missing and not strays,
        {
            "sessions": len(parts),
            "missing": len(missing),
            "bars_without_session": strays,
            "examples": ", ".join(missing[:_EXAMPLES]),
        },
    )


def missing_intervals(
    bars: Bars, sessions: Sequence[Session], clock: BarClock, *, largest_gap: int = 5, allowed_share: float = 0.02
) -> CheckResult:
    """Few intervals of the sessions are without a bar of any instrument, and no gap of the market is long.

    Parameters
    ----------
    largest_gap : int
        Longest allowed run of intervals, in bars, without a bar of any instrument.
    allowed_share : float
        Largest allowed share of such intervals.
    """
    expected = missing = longest = 0
    example = ""
    for session, part in _by_session(bars, sessions):
        absent = np.asarray(~_presence(part, session, clock, _width(bars)).any(axis=1), dtype=np.bool_)
        expected, missing = expected + len(absent), missing + int(absent.sum())
        for begin, end in _runs(absent):
            if end - begin > longest:
                longest, example = end - begin, ist_text(_edge_ns(session, clock, begin))
    share = missing / expected if expected else 1.0
    return CheckResult(
        "missing_intervals",
        share <= allowed_share and longest <= largest_gap,
        {"expected": expected, "missing": missing, "share": share, "longest_gap": longest, "longest_gap_at": example},
    )


def coverage(bars: Bars, sessions: Sequence[Session], clock: BarClock, universe: Universe) -> pd.DataFrame:
    """Share of each session's intervals in which each instrument has a bar.

    Returns
    -------
    DataFrame, shape (n_instruments, n_sessions)
        Symbols by session dates; 0 to 1. An instrument without a bar has 0, whether it was expected or not.
    """
    shares = {
        session.date: _presence(part, session, clock, len(universe)).mean(axis=0)
        for session, part in _by_session(bars, sessions)
    }
    return pd.DataFrame(shares, index=pd.Index([i.symbol for i in universe.instruments], name="symbol"))


def instrument_coverage(
    bars: Bars, universe: Universe, sessions: Sequence[Session], clock: BarClock, *, least_share: float = 0.8
) -> CheckResult:
    """Every tradable instrument has a bar in at least ``least_share`` of the sessions' intervals."""
    counts, expected = np.zeros(len(universe)), 0
    for session, part in _by_session(bars, sessions):
        present = _presence(part, session, clock, len(universe))
        counts, expected = counts + present.sum(axis=0), expected + len(present)
    share = counts / max(expected, 1)
    thin = [i.symbol for i, part in zip(universe.instruments, share, strict=True) if i.tradable and part < least_share]
    return CheckResult(
        "instrument_coverage",
        not thin and expected > 0,
        {
            "instruments": len(universe),
            "below": len(thin),
            "examples": ", ".join(thin[:_EXAMPLES]),
            "least": float(share.min(initial=1.0)),
        },
    )


def outages(
    bars: Bars, sessions: Sequence[Session], clock: BarClock, universe: Universe, *, least_share: float = 0.5
) -> pd.DataFrame:
    """List when much of the market had no bars.

    Parameters
    ----------
    bars : Bars
        Of any sessions; those outside ``sessions`` are not looked at.
    sessions : sequence of Session
        The sessions that should be there.
    clock : BarClock
        What the bars are counted by; time or session.
    universe : Universe
        What their indices refer to.
    least_share : float
        Share of the expected instruments without a bar from which on an interval is part of an outage.

    Returns
    -------
    DataFrame
        One row for each run of such intervals, in order of time: ``date``; ``start`` and ``end``, its first instant and
        the first one after it (``HH:MM`` IST); ``intervals``; ``missing``, instruments without a bar at any time of it;
        ``expected``; ``whole_market``, whether nobody had a bar; ``symbols``, the missing ones, a tuple.

    Raises
    ------
    ValueError
        If the clock counts ticks.
    """
    symbols, rows = np.array([i.symbol for i in universe.instruments], dtype=object), []
    for session, present, expected in _expected(bars, sessions, clock, len(universe)):
        absent = ~present[:, expected]
        missing = absent.sum(axis=1)
        for begin, end in _runs(missing >= max(least_share * absent.shape[1], 1)):
            without = absent[begin:end].any(axis=0)
            rows.append(
                {
                    **_span(session, clock, begin, end),
                    "missing": int(without.sum()),
                    "expected": int(absent.shape[1]),
                    "whole_market": bool(absent[begin:end].all()),
                    "symbols": tuple(symbols[expected][without]),
                }
            )
    return pd.DataFrame(rows, columns=[*_SPAN, "missing", "expected", "whole_market", "symbols"])


def thin_days(bars: Bars, sessions: Sequence[Session], clock: BarClock, *, least_share: float = 0.5) -> pd.DataFrame:
    """List sessions with far fewer instruments, or far fewer bars in an interval, than is usual.

    Parameters
    ----------
    sessions : sequence of Session
        Those without a bar are not looked at: they are missing, not thin.
    least_share : float
        A session is thin below this share of the median session.

    Returns
    -------
    DataFrame
        One row for each thin session, in order of time: ``date``; ``instruments`` and ``bars``, as they are;
        ``usual_instruments`` and ``usual_bars``, the median session's, the latter for a session as long as this one.
    """
    seen = pd.DataFrame(
        [
            (session.date, len(np.unique(part.instrument)), len(part), _interval_count(session, clock))
            for session, part in _by_session(bars, sessions)
            if len(part)
        ],
        columns=["date", "instruments", "bars", "intervals"],
    )
    usual_instruments = seen["instruments"].median()
    usual_bars = (seen["bars"] / seen["intervals"]).median() * seen["intervals"]
    thin = (seen["instruments"] < least_share * usual_instruments) | (seen["bars"] < least_share * usual_bars)
    found = seen.assign(usual_instruments=usual_instruments, usual_bars=usual_bars.round())[thin]
    return found[["date", "instruments", "usual_instruments", "bars", "usual_bars"]].reset_index(drop=True)


def instrument_gaps(
    bars: Bars, sessions: Sequence[Session], clock: BarClock, universe: Universe, *, least_intervals: int = 10
) -> pd.DataFrame:
    """List when an instrument had no bar for long, outages of the whole market included.

    Returns
    -------
    DataFrame
        One row for each run of at least ``least_intervals`` intervals: ``symbol``, ``date``, ``start``, ``end`` and
        ``intervals`` as in `outages`.
    """
    rows = []
    for session, present, expected in _expected(bars, sessions, clock, len(universe)):
        for k in np.flatnonzero(expected):
            for begin, end in _runs(~present[:, k]):
                if end - begin >= least_intervals or end - begin == len(present):
                    rows.append({"symbol": universe.instruments[k].symbol, **_span(session, clock, begin, end)})
    return pd.DataFrame(rows, columns=["symbol", *_SPAN])


def no_outages(
    bars: Bars, sessions: Sequence[Session], clock: BarClock, universe: Universe, *, least_share: float = 0.5
) -> CheckResult:
    """No interval lacks the bars of half the market; see `outages`."""
    found = outages(bars, sessions, clock, universe, least_share=least_share)
    examples = [f"{row.date} {row.start} to {row.end} ({row.missing} of {row.expected})" for row in found.itertuples()]
    return CheckResult(
        "no_outages",
        found.empty,
        {
            "outages": len(found),
            "sessions": int(found["date"].nunique()),
            "intervals": int(found["intervals"].sum()),
            "whole_market": int(found["whole_market"].sum()),
            "examples": "; ".join(examples[:_EXAMPLES]),
        },
    )


def stale_prices(bars: Bars, universe: Universe, *, longest: int = 30) -> CheckResult:
    """No close stands still for more than ``longest`` bars of a session.

    A close that stands still while shares change hands is a frozen feed; one without volume may be an illiquid
    instrument, an index, or a circuit limit. Both are counted.
    """
    order = np.lexsort((bars.end_ns, bars.instrument))
    ordered, day = bars[order], ist_day(bars.start_ns)[order]
    same = np.zeros(len(ordered), dtype=np.bool_)
    same[1:] = (np.diff(ordered.instrument) == 0) & (np.diff(day) == 0) & (np.diff(ordered.close) == 0)
    traded = np.concatenate([[0], np.cumsum(ordered.volume)])
    counts, examples = {True: 0, False: 0}, []
    for begin, end in _runs(same):
        if end - begin + 1 > longest:  # the bar before the run has that close too
            with_volume = bool(traded[end] > traded[begin])
            counts[with_volume] += 1
            symbol = universe.instruments[int(ordered.instrument[begin])].symbol
            examples.append(f"{symbol} {end - begin + 1} bars from {ist_text(int(ordered.start_ns[begin - 1]))}")
    return CheckResult(
        "stale_prices",
        not examples and len(bars) > 0,
        {
            "bars": len(bars),
            "with_volume": counts[True],
            "without_volume": counts[False],
            "examples": "; ".join(examples[:_EXAMPLES]),
        },
    )


def outliers(bars: Bars, universe: Universe, *, limit: float = 40.0, least_return: float = 0.02) -> CheckResult:
    """No return from bar to bar of a session is far outside what its instrument does.

    Parameters
    ----------
    limit : float
        Allowed distance from the instrument's median return, in robust standard deviations (1.4826 × the median
        absolute deviation).
    least_return : float
        A return whose absolute value is below this fraction is no outlier, however still the instrument is.

    Notes
    -----
    The median absolute deviation does not move with the outliers it is to find (Hampel 1974). Returns of one-minute
    bars have heavy tails: 40 deviations and 2 % flag prints that are wrong, not news.
    """
    order = np.lexsort((bars.end_ns, bars.instrument))
    ordered, day = bars[order], ist_day(bars.start_ns)[order]
    follows = (np.diff(ordered.instrument) == 0) & (np.diff(day) == 0)
    returns = (ordered.close[1:] / ordered.close[:-1] - 1.0)[follows]
    instrument, row = ordered.instrument[1:][follows], order[1:][follows]
    frame = pd.DataFrame({"instrument": instrument, "return": returns})
    distance = (frame["return"] - frame.groupby("instrument")["return"].transform("median")).abs()
    deviation = _MAD_TO_SIGMA * distance.groupby(frame["instrument"]).transform("median")
    far = ((distance > limit * deviation) & (frame["return"].abs() >= least_return)).to_numpy()
    examples = [
        f"{universe.instruments[i].symbol} {r:+.2%} at {ist_text(int(bars.start_ns[at]))}"
        for i, r, at in zip(instrument[far], returns[far], row[far], strict=True)
    ]
    return CheckResult(
        "outliers",
        not examples and len(bars) > 0,
        {
            "returns": len(returns),
            "outliers": len(examples),
            "largest": float(np.abs(returns).max(initial=0.0)),
            "examples": "; ".join(examples[:_EXAMPLES]),
        },
    )


def duplicate_seconds(ticks: Ticks, *, allowed_share: float = 0.05) -> CheckResult:
    """Few ticks repeat an instrument's second, and how many repeat its price and volume as well.

    A second with two ticks is ordinary where a source stamps whole seconds; many of them say that a file was joined
    with itself.
    """
    order = np.lexsort((np.arange(len(ticks)), ticks.event_time_ns // SECOND_NS, ticks.instrument))
    ordered = ticks[order]
    repeated = (np.diff(ordered.instrument) == 0) & (np.diff(ordered.event_time_ns // SECOND_NS) == 0)
    alike = repeated & (np.diff(ordered.last_price) == 0) & (np.diff(ordered.day_volume) == 0)
    share = float(repeated.sum()) / max(len(ticks), 1)
    return CheckResult(
        "duplicate_seconds",
        share <= allowed_share and len(ticks) > 0,
        {"ticks": len(ticks), "repeated": int(repeated.sum()), "alike": int(alike.sum()), "share": share},
    )


_SPAN = ("date", "start", "end", "intervals")


def _span(session: Session, clock: BarClock, begin: int, end: int) -> dict[str, object]:
    first, last = (pd.Timestamp(_edge_ns(session, clock, k), tz=IST) for k in (begin, end))
    values = (session.date, f"{first:%H:%M}", f"{last:%H:%M}", end - begin)
    return dict(zip(_SPAN, values, strict=True))


def _expected(
    bars: Bars, sessions: Sequence[Session], clock: BarClock, n_instruments: int
) -> Iterator[tuple[Session, NDArray[np.bool_], NDArray[np.bool_]]]:
    """Give each session, which intervals each instrument has (intervals × instruments), and who is expected in it."""
    parts = list(_by_session(bars, sessions))
    seen = np.array([np.bincount(part.instrument, minlength=n_instruments) > 0 for _, part in parts])
    if not len(seen):
        return
    expected = np.logical_or.accumulate(seen) & np.logical_or.accumulate(seen[::-1])[::-1]
    for (session, part), listed in zip(parts, expected, strict=True):
        yield session, _presence(part, session, clock, n_instruments), listed


def _presence(part: Bars, session: Session, clock: BarClock, n_instruments: int) -> NDArray[np.bool_]:
    present = np.zeros((_interval_count(session, clock), n_instruments), dtype=np.bool_)
    present[(part.start_ns - session.open_ns) // _size_ns(session, clock), part.instrument] = True
    return present


def _interval_count(session: Session, clock: BarClock) -> int:
    return -((session.open_ns - session.close_ns) // _size_ns(session, clock))


def _size_ns(session: Session, clock: BarClock) -> int:
    if clock.kind == "ticks":
        raise ValueError(f"bars of {clock.short} have no intervals that could be missing; check bars of time")
    return clock.size if clock.kind == "time" else session.close_ns - session.open_ns


def _edge_ns(session: Session, clock: BarClock, interval: int) -> int:
    return min(session.open_ns + interval * _size_ns(session, clock), session.close_ns)


def _by_session(bars: Bars, sessions: Sequence[Session]) -> Iterator[tuple[Session, Bars]]:
    ordered = sorted(sessions, key=lambda session: session.open_ns)
    if not ordered:
        return
    place = np.searchsorted([session.open_ns for session in ordered], bars.start_ns, side="right") - 1
    inside = (place >= 0) & (bars.start_ns < np.array([session.close_ns for session in ordered])[place])
    rows = np.flatnonzero(inside)
    rows = rows[np.argsort(place[rows], kind="stable")]
    edges = np.searchsorted(place[rows], np.arange(len(ordered) + 1))
    for k, session in enumerate(ordered):
        yield session, bars[rows[edges[k] : edges[k + 1]]]


def _width(bars: Bars) -> int:
    return int(bars.instrument.max(initial=0)) + 1


def _runs(marked: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Give begin and end (exclusive) of each run of marked places."""
    edges = np.flatnonzero(np.diff(marked.astype(np.int8), prepend=0, append=0))
    return [(int(begin), int(end)) for begin, end in edges.reshape(-1, 2)]


def _by_rows(name: str, bars: Bars, wrong: NDArray[np.bool_]) -> CheckResult:
    rows = np.flatnonzero(wrong)
    examples = "; ".join(f"row {r} at {ist_text(int(bars.start_ns[r]))}" for r in rows[:_EXAMPLES])
    passed = len(rows) == 0 and len(bars) > 0
    return CheckResult(name, passed, {"rows": len(bars), "wrong": len(rows), "examples": examples})
