"""From a generated market to out-of-fold scores, by the very functions that training runs."""

from __future__ import annotations

from typing import Literal

import numpy as np

from feature_store.features.engine import FeatureEngine
from feature_store.features.schema import MOMENTUM_FEATURES, feature_schema
from feature_store.offline.training_frames import TrainingFrame
from feature_store.sources.null_markets import NullMarket
from models_registry.specification import Estimator, StrategySpec
from models_registry.training import OutOfFold, evaluate, session_days

Density = Literal["every decision", "one in 30"]

WARM_UP_SESSIONS = 7  # what the recursive features need on five-minute bars before their first row is warm
FEATURE_SETS: dict[str, tuple[str, ...]] = {
    "all": MOMENTUM_FEATURES,
    "session_return": ("session_return",),
    "vwap_distance": ("vwap_distance",),
    "session_return, vwap_distance": ("session_return", "vwap_distance"),
    "momentum": ("momentum",),
    "last_return": ("last_return",),
    "overnight_gap, volatility": ("overnight_gap", "volatility"),
}


def frame_of(market: NullMarket, density: Density = "every decision", seed: int = 0) -> TrainingFrame:
    """Make the training frame of a market with every feature: all of its decisions, or one in 30 at random.

    The label is the platform's own, ten bars long. Sessions in which not every row is warm are left out.
    """
    minutes = int(market.bars.end_ns[0] - market.bars.start_ns[0]) // 60_000_000_000
    spec = StrategySpec(name="null", bar_minutes=minutes)
    label = spec.label()
    rows, warm = FeatureEngine(spec.feature_schema(), market.universe).step(market.bars)
    labels = label.of(market.bars, len(market.universe), market.sessions)
    sessions = market.sessions[WARM_UP_SESSIONS:]
    here = (market.bars.start_ns >= sessions[0].open_ns) & (market.bars.instrument > 0)  # 0 is the index
    if not warm[here].all():
        raise ValueError(f"rows are not warm after {WARM_UP_SESSIONS} sessions: give longer sessions")
    kept = here & np.isfinite(labels.forward_return)
    if density == "one in 30":
        kept &= np.random.Generator(np.random.PCG64([seed, 30])).random(len(kept)) < 1.0 / 30.0
    return TrainingFrame(
        X=rows[kept],
        forward_return=labels.forward_return[kept],
        side=np.ones(int(kept.sum()), dtype=np.int8),
        decision_ns=market.bars.end_ns[kept],
        entry_ns=labels.entry_ns[kept],
        label_end_ns=labels.label_end_ns[kept],
        instrument=market.bars.instrument[kept],
        schema=spec.feature_schema(),
        label=label,
        digest="",
        start_ns=sessions[0].open_ns,
        end_ns=sessions[-1].close_ns,
        market=market.name,
    )


def out_of_fold(frame: TrainingFrame, estimator: Estimator, features: tuple[str, ...], seed: int) -> OutOfFold:
    """Run the recipe of some of the frame's features on it."""
    columns = [frame.schema.names.index(name) for name in features]
    facts = {name: getattr(frame, name) for name in frame.__dataclass_fields__}
    facts |= {"X": frame.X[:, columns], "schema": feature_schema(features, frame.schema.bar_clock)}
    spec = StrategySpec(name="null", features=features, estimator=estimator, seed=seed)
    return evaluate(TrainingFrame(**facts), spec, np.unique(session_days(frame.decision_ns)))
