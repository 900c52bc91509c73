"""Checks against leaks and of parity, as plain functions; Dagster shows them as asset checks.

Those of market data stand in `feature_store.quality`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from feature_store.features import FeatureEngine, FeatureSchema, feature_table
from feature_store.market import Bars


@dataclass(frozen=True)
class CheckResult:
    """What one check saw."""

    name: str
    passed: bool
    details: dict[str, int | float | str] = field(default_factory=dict)


def features_know_no_future(bars: Bars, schema: FeatureSchema, n_instruments: int, *, cuts: int = 8) -> CheckResult:
    """Features of ``bars[:t]`` are, bit for bit, the first ``t`` rows of the features of all bars."""
    rows, warm = feature_table(bars, schema, n_instruments)
    different = 0
    for cut in np.linspace(0, len(bars), cuts + 2, dtype=np.int64)[1:-1]:
        part, part_warm = feature_table(bars[: int(cut)], schema, n_instruments)
        different += _different(part, rows[:cut]) + int((part_warm != warm[:cut]).sum())
    return CheckResult("features_know_no_future", different == 0, {"cuts": cuts, "different": different})


def history_equals_live(
    bars: Bars, schema: FeatureSchema, n_instruments: int, *, sample: int = 20_000, seed: int = 7
) -> CheckResult:
    """Features stepped in micro-batches of random sizes equal, bit for bit, those of one step over history."""
    bars = bars[:sample]
    rows, warm = feature_table(bars, schema, n_instruments)
    engine = FeatureEngine(schema, n_instruments)
    rng = np.random.default_rng(seed)
    begin = different = batches = 0
    while begin < len(bars):
        end = begin + int(rng.integers(1, 2 * n_instruments + 2))
        part, part_warm = engine.step(bars[begin:end])
        different += _different(part, rows[begin:end]) + int((part_warm != warm[begin:end]).sum())
        begin, batches = end, batches + 1
    return CheckResult(
        "history_equals_live", different == 0, {"rows": len(bars), "batches": batches, "different": different}
    )


def warm_rows_finite(rows: NDArray[np.float64], warm: NDArray[np.bool_]) -> CheckResult:
    """Warm feature rows are finite, and rows that are not warm are NaN."""
    bad = int((~np.isfinite(rows[warm])).sum())
    filled = int((~np.isnan(rows[~warm])).sum())
    return CheckResult(
        "warm_rows_finite",
        bad + filled == 0,
        {"warm": int(warm.sum()), "not_finite": bad, "filled_before_warm": filled},
    )


def _different(left: NDArray[np.float64], right: NDArray[np.float64]) -> int:
    return int((np.ascontiguousarray(left).view(np.int64) != np.ascontiguousarray(right).view(np.int64)).sum())
