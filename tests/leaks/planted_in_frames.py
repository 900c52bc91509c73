"""Leaks as people write them, on data frames: features, bars, rules and scores that know what came after."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from feature_store.features.guards import TableFeature
from feature_store.market.types import Bars
from live_services.audit.findings import LeakKind


def honest_return(f: pd.DataFrame) -> Any:
    return f.close / f.close.shift() - 1


def honest_range(f: pd.DataFrame) -> Any:
    return (f.high - f.low).rolling(5).mean()


HONEST: dict[str, TableFeature] = {
    "last_return": honest_return,
    "range": honest_range,
    "z": lambda f: (f.close - f.close.rolling(10).mean()) / f.close.rolling(10).std(),
    "so far": lambda f: (f.close - f.close.expanding().mean()) / f.close.expanding().std(),
    "forward fill": lambda f: f.close.where(f.index % 4 == 3).ffill(),
    "time": lambda f: (f.end - f.start).dt.total_seconds(),
}


def early_resample(f: pd.DataFrame) -> Any:
    """Stamped with their starts, as pandas does, five-minute bars are known before they end."""
    longer = f.set_index("start").close.resample("5min").last().dropna()
    return longer.reindex(f.start, method="ffill").reset_index(drop=True)


def late_resample(f: pd.DataFrame) -> Any:
    longer = f.set_index("start").close.resample("5min").last().dropna()
    ended = longer.set_axis(longer.index + pd.Timedelta("5min"))
    return ended.reindex(f.end, method="ffill").reset_index(drop=True)


def sparse(f: pd.DataFrame) -> Any:
    """In one row of a hundred, by its time, the close of the next."""
    chosen = (f.end.astype("int64") // 60_000_000_000) % 100 == 7
    return f.close.where(~chosen, f.close.shift(-1))


def residual_of_all_rows(f: pd.DataFrame) -> Any:
    """A regression of the close on time, fitted once on every row."""
    slope, level = np.polyfit(np.arange(len(f)), f.close, 1)
    return f.close - (level + slope * np.arange(len(f)))


def bars_of_five(bars: Bars, *, stamped_early: bool) -> Bars:
    """Five-minute bars of one-minute bars; stamped early, each is given out when it begins."""
    frame = pd.DataFrame({name: getattr(bars, name) for name in bars.__dataclass_fields__})
    frame["bucket"] = (frame.start_ns - frame.start_ns.min()) // 300_000_000_000
    longer = frame.groupby(["instrument", "bucket"], as_index=False).agg(
        start_ns=("start_ns", "first"), end_ns=("end_ns", "last"), open=("open", "first"), high=("high", "max"),
        low=("low", "min"), close=("close", "last"), volume=("volume", "sum"), tick_count=("tick_count", "sum"),
        minutes=("close", "size"), first_end_ns=("end_ns", "first"),
    )  # fmt: skip
    longer = longer[longer.minutes == 5] if not stamped_early else longer
    longer = longer.assign(end_ns=longer.first_end_ns if stamped_early else longer.end_ns)
    longer = longer.sort_values(["end_ns", "instrument"])
    types = {"instrument": np.int32, "tick_count": np.int32}
    columns = [name for name in Bars.__dataclass_fields__ if name not in {"spread_bps", "imbalance"}]
    return Bars(**{name: longer[name].to_numpy(types.get(name)) for name in columns})


def whole_bars_of_five(bars: Bars) -> Bars:
    return bars_of_five(bars, stamped_early=False)


def entry_that_peeks(f: pd.DataFrame) -> Any:
    """Buy where the range is wide, unless the next bar falls."""
    wide = f["range"] > f["range"].rolling(20).mean()
    return np.where(wide & (f.open.shift(-1) >= f.close), 1, 0)


def entry_of_ranks(f: pd.DataFrame) -> Any:
    """Sell what is among the dearest tenth of all rows."""
    return np.where(f["z"] > f["z"].quantile(0.9), -1, 0)


def honest_entry(f: pd.DataFrame) -> Any:
    return np.where(f["z"] > 1.5, -1, np.where(f["z"] < -1.5, 1, 0))


def ranked_score(rows: np.ndarray) -> np.ndarray:
    """Scores as ranks among all rows that were scored."""
    return np.asarray(pd.DataFrame(rows).iloc[:, 0].rank(pct=True))


def honest_score(rows: np.ndarray) -> np.ndarray:
    return np.asarray(1.0 / (1.0 + np.exp(-np.nan_to_num(rows[:, 0]) * 100)))


@dataclass(frozen=True)
class Planted:
    """One leak, where it is planted, and what it must be called."""

    kind: LeakKind
    stage: str
    column: str
    features: dict[str, TableFeature] = field(default_factory=lambda: HONEST)
    bars_of: Callable[[Bars], Bars] | None = None
    rule: Callable[[pd.DataFrame], Any] | None = None
    score: Callable[[np.ndarray], np.ndarray] | None = None


def _feature(kind: LeakKind, name: str, function: TableFeature) -> Planted:
    return Planted(kind, "features", name, {"last_return": honest_return, name: function, "range": honest_range})


def _mean_of_all(f: pd.DataFrame) -> Any:
    return (f.close - f.close.mean()) / f.close.std()


PLANTED: dict[str, Planted] = {
    "shift(-1)": _feature(LeakKind.FEATURE_LOOKS_AHEAD, "tomorrow", lambda f: f.close.shift(-1) / f.close - 1),
    "centred rolling": _feature(
        LeakKind.FEATURE_LOOKS_AHEAD, "smooth", lambda f: f.close.rolling(5, center=True).mean()
    ),
    "full-sample z-score": _feature(LeakKind.FULL_SAMPLE_STATISTIC, "z_score", _mean_of_all),
    "regression fitted on all rows": _feature(LeakKind.FULL_SAMPLE_STATISTIC, "residual", residual_of_all_rows),
    "backward fill": _feature(LeakKind.BACKWARD_FILL, "filled", lambda f: f.close.where(f.index % 4 == 3).bfill()),
    "early resample": _feature(LeakKind.RESAMPLED_EARLY, "five_minutes", early_resample),
    "sparse, one row of a hundred": _feature(LeakKind.SPARSE_LEAK, "rarely", sparse),
    "interpolation": _feature(
        LeakKind.FEATURE_LOOKS_AHEAD, "between", lambda f: f.close.where(f.index % 3 != 1).interpolate()
    ),
    "rank in the whole sample": _feature(LeakKind.FULL_SAMPLE_STATISTIC, "rank", lambda f: f.close.rank(pct=True)),
    "bars stamped with their start": Planted(
        LeakKind.BAR_EARLY, "bars", "close", bars_of=lambda bars: bars_of_five(bars, stamped_early=True)
    ),
    "entry rule that sees the next open": Planted(
        LeakKind.RULE_LOOKS_AHEAD, "proposals", "side", rule=entry_that_peeks
    ),
    "entry rule with a quantile of all rows": Planted(
        LeakKind.RULE_LOOKS_AHEAD, "proposals", "side", rule=entry_of_ranks
    ),
    "scores ranked in the batch": Planted(
        LeakKind.SCORE_LOOKS_AHEAD, "scores", "score", rule=honest_entry, score=ranked_score
    ),
}
