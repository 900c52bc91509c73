"""Checks of market data, as plain functions; Dagster shows them as asset checks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from feature_store.checks import CheckResult
from feature_store.market import Bars, Session, Universe, ist_text

_EXAMPLES = 5


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


def missing_intervals(
    bars: Bars, sessions: Sequence[Session], bar_ns: int, *, largest_gap: int = 5, allowed_share: float = 0.02
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
    for session in sessions:
        count = -((session.open_ns - session.close_ns) // bar_ns)
        of_session = (bars.start_ns >= session.open_ns) & (bars.start_ns < session.close_ns)
        present = np.zeros(count + 2, dtype=np.bool_)
        present[[0, -1]] = True
        present[(bars.start_ns[of_session] - session.open_ns) // bar_ns + 1] = True
        places = np.flatnonzero(present)
        gaps = np.diff(places) - 1
        expected, missing = expected + count, missing + int(gaps.sum())
        if int(gaps.max()) > longest:
            longest = int(gaps.max())
            example = ist_text(session.open_ns + int(places[gaps.argmax()]) * bar_ns)
    share = missing / expected if expected else 1.0
    return CheckResult(
        "missing_intervals",
        share <= allowed_share and longest <= largest_gap,
        {"expected": expected, "missing": missing, "share": share, "longest_gap": longest, "longest_gap_at": example},
    )


def instrument_coverage(
    bars: Bars, universe: Universe, sessions: Sequence[Session], bar_ns: int, *, least_share: float = 0.8
) -> CheckResult:
    """Every tradable instrument has a bar in at least ``least_share`` of the sessions' intervals."""
    expected = sum(-((s.open_ns - s.close_ns) // bar_ns) for s in sessions)
    share = np.bincount(bars.instrument, minlength=len(universe)) / max(expected, 1)
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


def _by_rows(name: str, bars: Bars, wrong: NDArray[np.bool_]) -> CheckResult:
    rows = np.flatnonzero(wrong)
    examples = "; ".join(f"row {r} at {ist_text(int(bars.start_ns[r]))}" for r in rows[:_EXAMPLES])
    passed = len(rows) == 0 and len(bars) > 0
    return CheckResult(name, passed, {"rows": len(bars), "wrong": len(rows), "examples": examples})
