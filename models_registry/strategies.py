"""The strategies that a desk has before it writes its own: specifications as any other, nothing knows them by name.

Each bets on one thing, which its rule proposes and its model judges; docs/strategies.md says in words what, and what
the real minutes say of it.
"""

from __future__ import annotations

from typing import Final

from models_registry.specification import StrategySpec

MOMENTUM: Final = StrategySpec(
    name="momentum",
    rule="volatility_move",
    stop_volatility=1.0,
    target_volatility=1.5,
    holding_bars=15,
    estimator="hist_gradient_boosting",
    sizing="risk_per_trade",
)
"""A move that is large for the volatility of the hour goes on."""

MEAN_REVERSION: Final = StrategySpec(
    name="mean_reversion",
    rule="stretch",
    stop_volatility=1.5,
    target_volatility=1.0,
    holding_bars=15,
    estimator="logistic_regression",
    sizing="risk_per_trade",
)
"""A price that is stretched away from its mean comes back."""

BREAKOUT: Final = StrategySpec(
    name="breakout",
    rule="donchian_break",
    stop_volatility=1.0,
    target_volatility=2.0,
    holding_bars=20,
    estimator="random_forest",
    sizing="risk_per_trade",
)
"""A price that leaves the range of its last bars keeps going."""

BUILT_IN: Final[tuple[StrategySpec, ...]] = (MOMENTUM, MEAN_REVERSION, BREAKOUT)
