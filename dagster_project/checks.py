"""What must hold before anything is trained, as functions of data that say in words what they found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
from numpy.typing import NDArray

from feature_store.market import Bars, Session, Universe, ist_text

if TYPE_CHECKING:
    from feature_store.features import FeatureSchema

_LARGEST_STEP: Final = 0.25
"""Close to close inside a session, as a fraction: beyond NSE's widest regular price band of 20 % with room for rounding."""
_LEAST_COVERAGE: Final = 0.5
_MICRO_BATCHES: Final = (1, 7, 2, 19, 5, 3)
"""Rows handed to the live engine at a time, in turn: nothing that divides a minute's bars evenly."""


@dataclass(frozen=True)
class Finding:
    """The result of a check; ``observed`` holds the numbers it looked at."""

    passed: bool
    says: str
    observed: dict[str, int | float | str]


def prices_are_sane(bars: Bars) -> Finding:
    """Finite positive prices, high and low around open and close, no negative volume, no impossible step."""
    prices = np.stack([bars.open, bars.high, bars.low, bars.close])
    not_positive = int(np.sum(~np.all(np.isfinite(prices) & (prices > 0.0), axis=0)))
    crossed = int(
        np.sum((bars.high < np.maximum(bars.open, bars.close)) | (bars.low > np.minimum(bars.open, bars.close)))
    )
    negative = int(np.sum(bars.volume < 0))
    step = _largest_step(bars)
    observed: dict[str, int | float | str] = {
        "bars": len(bars),
        "prices_not_positive": not_positive,
        "high_low_crossed": crossed,
        "negative_volumes": negative,
        "largest_step_percent": round(step * 100.0, 3),
    }
    passed = not_positive == crossed == negative == 0 and step <= _LARGEST_STEP
    says = f"{len(bars):,} bars are sane" if passed else "impossible prices: correct or remove these rows in the source"
    return Finding(passed, says, observed)


def _largest_step(bars: Bars) -> float:
    order = np.lexsort((bars.end_ns, bars.instrument))
    instrument, close, day = bars.instrument[order], bars.close[order], _day(bars.end_ns[order])
    same = (instrument[1:] == instrument[:-1]) & (day[1:] == day[:-1])
    steps = np.abs(close[1:] / close[:-1] - 1.0)[same]
    return float(steps.max()) if len(steps) else 0.0


def sessions_are_covered(bars: Bars, sessions: Sequence[Session], universe: Universe, bar_ns: int) -> Finding:
    """Every session has bars, and at least half of those that its instruments could have; names the thinnest."""
    coverage = {s.date.isoformat(): _coverage(bars, s, len(universe), bar_ns) for s in sessions}
    if not coverage:
        return Finding(False, "no session came in: look at the quarantine of market_data", {"sessions": 0})
    thinnest = min(coverage, key=lambda date: coverage[date])
    thin = [date for date, share in coverage.items() if share < _LEAST_COVERAGE]
    observed: dict[str, int | float | str] = {
        "sessions": len(coverage),
        "first": min(coverage),
        "last": max(coverage),
        "thinnest_session": thinnest,
        "thinnest_percent": round(coverage[thinnest] * 100.0, 2),
        "sessions_below_half": len(thin),
    }
    says = f"{len(coverage)} sessions, the thinnest ({thinnest}) has {coverage[thinnest]:.1%} of its bars"
    return Finding(not thin, says, observed)


def _coverage(bars: Bars, session: Session, instruments: int, bar_ns: int) -> float:
    inside = int(np.sum((bars.start_ns >= session.open_ns) & (bars.end_ns <= session.close_ns)))
    return inside / (-(-(session.close_ns - session.open_ns) // bar_ns) * instruments)


def history_equals_live(bars: Bars, schema: FeatureSchema, n_instruments: int) -> Finding:
    """The features of a session, computed at once and in micro-batches as live, are equal bit for bit."""
    from feature_store.features import FeatureEngine, feature_table

    history, warm = feature_table(bars, schema, n_instruments)
    engine, parts, at = FeatureEngine(schema, n_instruments), [], 0
    while at < len(bars):
        size = _MICRO_BATCHES[len(parts) % len(_MICRO_BATCHES)]
        parts.append(engine.step(bars[at : at + size]))
        at += size
    live = np.concatenate([part for part, _ in parts]) if parts else history
    live_warm = np.concatenate([part for _, part in parts]) if parts else warm
    different = int(np.sum(_differs(history, live)))
    passed = different == 0 and bool(np.array_equal(warm, live_warm)) and len(bars) > 0
    says = (
        f"{len(bars):,} rows in {len(parts):,} micro-batches are equal bit for bit"
        if passed
        else "history and live differ"
    )
    return Finding(passed, says, {"rows": len(bars), "micro_batches": len(parts), "different_values": different})


def rows_ignore_the_future(bars: Bars, schema: FeatureSchema, n_instruments: int) -> Finding:
    """The features of a prefix of a session do not change when the rest of the session is known."""
    from feature_store.features import feature_table

    whole, _ = feature_table(bars, schema, n_instruments)
    cuts = [len(bars) * tenths // 10 for tenths in (2, 5, 8)]
    different = sum(
        int(np.sum(_differs(feature_table(bars[:cut], schema, n_instruments)[0], whole[:cut]))) for cut in cuts
    )
    says = f"rows before {len(cuts)} cuts do not know what follows" if different == 0 else "a feature looks ahead"
    return Finding(
        different == 0 and len(bars) > 0, says, {"rows": len(bars), "cuts": len(cuts), "different_values": different}
    )


def labels_end_in_time(
    decision_ns: NDArray[np.int64],
    label_end_ns: NDArray[np.int64],
    labelled: NDArray[np.bool_],
    replay_open_ns: int | None,
) -> Finding:
    """A label ends after its decision, on the same day, and before the replayed session opens."""
    decision, end = decision_ns[labelled], label_end_ns[labelled]
    backwards = int(np.sum(end <= decision))
    overnight = int(np.sum(_day(decision - 1) != _day(end - 1)))
    late = int(np.sum(end > replay_open_ns)) if replay_open_ns is not None else 0
    observed: dict[str, int | float | str] = {
        "labels": len(decision),
        "not_after_decision": backwards,
        "over_night": overnight,
        "inside_replay": late,
        "last_label_ends": ist_text(int(end.max())) if len(end) else "none",
        "replay_opens": ist_text(replay_open_ns) if replay_open_ns is not None else "nothing is replayed",
    }
    passed = backwards == overnight == late == 0 and len(decision) > 0
    says = f"{len(decision):,} labels end in time" if passed else "labels reach where they must not, or there are none"
    return Finding(passed, says, observed)


def _differs(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.bool_]:
    # Bits, not values: NaN equals NaN and 0.0 differs from -0.0.
    return np.ascontiguousarray(one).view(np.int64) != np.ascontiguousarray(other).view(np.int64)


def _day(time_ns: NDArray[np.int64]) -> NDArray[np.int64]:
    return (time_ns + 19_800_000_000_000) // 86_400_000_000_000  # UTC+05:30
