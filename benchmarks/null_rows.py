"""From a generated market to out-of-fold scores, by the very functions that training runs."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from feature_store.features.engine import FeatureEngine
from feature_store.features.schema import MOMENTUM_FEATURES, feature_schema
from feature_store.labels.barrier_return import VOLATILITY, BarrierLabels, BarrierReturn
from feature_store.labels.forward_return import Labels
from feature_store.offline.training_frames import TrainingFrame
from feature_store.proposals.seen import seen_from
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
        side=np.ones(int(kept.sum()), dtype=np.int8),
        **_labelled(market, labels, kept),
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


def frame_of_proposals(market: NullMarket, spec: StrategySpec) -> TrainingFrame:
    """Make the training frame of a market with the proposals of a strategy's rule, labelled by its barriers."""
    schema, label, asks = spec.feature_schema(), spec.label(), spec.proposer()
    if asks is None or not isinstance(label, BarrierReturn):
        raise ValueError(f"{spec.name!r} has no rule")
    rows, warm = FeatureEngine(schema, market.universe).step(market.bars)
    sessions = market.sessions[WARM_UP_SESSIONS:]
    here = (market.bars.start_ns >= sessions[0].open_ns) & (market.bars.instrument > 0) & warm
    side = np.where(here, asks.sides(rows, schema), 0).astype(np.int8)
    volatility = rows[:, schema.names.index(VOLATILITY)]
    labels = label.of(market.bars, len(market.universe), market.sessions, side, volatility)
    kept = np.isfinite(labels.forward_return) & np.isfinite(rows).all(axis=1)
    return TrainingFrame(
        X=seen_from(side[kept], rows[kept], schema),
        side=side[kept],
        **_labelled(market, labels, kept),
        schema=schema,
        label=label,
        digest="",
        start_ns=sessions[0].open_ns,
        end_ns=sessions[-1].close_ns,
        market=market.name,
    )


def _labelled(market: NullMarket, labels: Labels | BarrierLabels, kept: NDArray[np.bool_]) -> dict[str, Any]:
    return {
        "forward_return": labels.forward_return[kept],
        "decision_ns": market.bars.end_ns[kept],
        "entry_ns": labels.entry_ns[kept],
        "label_end_ns": labels.label_end_ns[kept],
        "instrument": market.bars.instrument[kept],
    }


def judged_out_of_fold(frame: TrainingFrame, spec: StrategySpec) -> OutOfFold:
    """Run the recipe of a strategy with a rule on its proposals."""
    return evaluate(frame, spec, np.unique(session_days(frame.decision_ns)))
