"""From a generated market to out-of-fold scores, as training does it: features, labels, weights, walk-forward."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from feature_store.features.engine import FeatureEngine
from feature_store.features.schema import MOMENTUM_FEATURES, feature_schema
from feature_store.sources.null_markets import NullMarket
from models_registry.estimators.families import FAMILIES
from models_registry.specification import Estimator
from models_registry.validation.uniqueness import row_weights

Floats = NDArray[np.float64]
Density = Literal["every decision", "one in 30"]

WARM_UP_SESSIONS = 7  # what the recursive features need on five-minute bars before their first row is warm
HORIZON_BARS = 10
FOLDS = 4
FEATURE_SETS: dict[str, tuple[str, ...]] = {
    "all": MOMENTUM_FEATURES,
    "session_return": ("session_return",),
    "vwap_distance": ("vwap_distance",),
    "session_return, vwap_distance": ("session_return", "vwap_distance"),
    "momentum": ("momentum",),
    "last_return": ("last_return",),
    "overnight_gap, volatility": ("overnight_gap", "volatility"),
}


@dataclass(frozen=True, eq=False)
class Rows:
    """Decisions with their features and what came of them, in order of ``(time, instrument)``."""

    X: Floats
    up: Floats
    """1, 0, and 0.5 for a return of zero."""
    weight: Floats
    day: NDArray[np.int64]
    """Sessions counted from 0."""
    instant: NDArray[np.int64]
    """Bars counted over all sessions."""
    instrument: NDArray[np.int64]

    def part(self, rows: NDArray[np.bool_]) -> Rows:
        """Give some rows, weighed among themselves."""
        kept = [column[rows] for column in (self.X, self.up, self.day, self.instant, self.instrument)]
        return _weighed(*kept)


@dataclass(frozen=True, eq=False)
class Scores:
    """What models said about rows they had not seen."""

    rows: Rows
    score: Floats
    base_rate: Floats


def rows_of(market: NullMarket, density: Density = "every decision", seed: int = 0) -> Rows:
    """Make the rows of a market, all of them or one in 30 at random.

    A label enters at the next bar's open and ends at the open ten bars later, inside the session.
    """
    n, a_session = len(market.universe), market.bars_per_session
    minutes = int(market.bars.end_ns[0] - market.bars.start_ns[0]) // 60_000_000_000
    features, warm = FeatureEngine(feature_schema(MOMENTUM_FEATURES, minutes), market.universe).step(market.bars)
    if not warm.reshape(-1, a_session, n)[WARM_UP_SESSIONS:, :, 1:].all():
        raise ValueError(f"rows are not warm after {WARM_UP_SESSIONS} sessions: give longer sessions")
    opened = market.bars.open.reshape(-1, a_session, n)[WARM_UP_SESSIONS:, :, 1:]
    decisions = a_session - HORIZON_BARS - 1
    returns = opened[:, HORIZON_BARS + 1 :] / opened[:, 1:-HORIZON_BARS] - 1.0
    columns = features.reshape(-1, a_session, n, features.shape[1])[WARM_UP_SESSIONS:, :decisions, 1:]
    day, bar, instrument = np.indices(returns.shape).reshape(3, -1)
    rows = _weighed(
        np.ascontiguousarray(columns).reshape(-1, features.shape[1]),
        (np.sign(returns).ravel() + 1.0) / 2.0,
        day,
        day * a_session + bar,
        instrument,
    )
    if density == "every decision":
        return rows
    return rows.part(np.random.Generator(np.random.PCG64([seed, 30])).random(len(rows.up)) < 1.0 / 30.0)


def _weighed(
    X: Floats,  # noqa: N803
    up: Floats,
    day: NDArray[np.int64],
    instant: NDArray[np.int64],
    instrument: NDArray[np.int64],
) -> Rows:
    weight = row_weights(instrument, instant, instant + 1 + HORIZON_BARS, day)
    return Rows(X, up, weight, day, instant, instrument)


def out_of_fold(rows: Rows, algorithm: Estimator, features: tuple[str, ...], seed: int) -> Scores:
    """Fit on the sessions before each block and score the block; labels end inside their session, so none is purged."""
    columns = [MOMENTUM_FEATURES.index(name) for name in features]
    blocks = np.array_split(np.unique(rows.day), FOLDS + 1)
    score, base_rate = np.full((2, len(rows.up)), np.nan)
    for block in blocks[1:]:
        train, test = rows.day < block[0], np.isin(rows.day, block)
        family = FAMILIES[algorithm]
        estimator = family.build(seed, int(train.sum()), {})
        family.fit(estimator, *_both_classes(rows.X[train][:, columns], rows.up[train], rows.weight[train]))
        score[test] = estimator.predict_proba(rows.X[test][:, columns])[:, 1]
        base_rate[test] = np.average(rows.up[train], weights=rows.weight[train])
    tested = np.isfinite(score)
    kept = Rows(*(column[tested] for column in (rows.X, rows.up, rows.weight, rows.day, rows.instant, rows.instrument)))
    return Scores(kept, score[tested], base_rate[tested])


def _both_classes(X: Floats, up: Floats, weight: Floats) -> tuple[Floats, NDArray[np.bool_], Floats]:  # noqa: N803
    halves = up == 0.5
    weight = np.concatenate([np.where(halves, weight / 2.0, weight), weight[halves] / 2.0])
    target = np.concatenate([up > 0.25, np.zeros(int(halves.sum()), dtype=np.bool_)])
    return np.concatenate([X, X[halves]]), target, weight / weight.mean()
