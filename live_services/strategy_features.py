"""Which features a strategy's model looks at, checked against what is declared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from live_services.settings import Settings
from models_registry.specification import StrategySpec

if TYPE_CHECKING:
    from feature_store.features.schema import FeatureSchema


class WrongFeatures(Exception):
    """A strategy's settings name a feature that there is not; says which are near."""


def training_schema(settings: Settings) -> FeatureSchema:
    """Give the schema that is trained: the first strategy's; raises as `strategy_schema`."""
    return strategy_schema(settings, next(iter(settings.strategies), StrategySpec(name="momentum")))


def strategy_schema(settings: Settings, strategy: StrategySpec) -> FeatureSchema:
    """Give the feature schema that a strategy's models are trained on (live, a model's own sidecar decides).

    Raises
    ------
    WrongFeatures
        If a name of ``strategies.features`` has no declaration, or its clock does not fit.
    """
    from feature_store.features.schema import MOMENTUM_FEATURES, UnknownFeature, feature_schema

    try:
        return feature_schema(strategy.features or MOMENTUM_FEATURES, settings.market.bar_minutes)
    except UnknownFeature as unknown:
        raise WrongFeatures(
            f"strategies: features of {strategy.name!r}: {unknown} (bars of {settings.market.bar_minutes} minutes; "
            "longer clocks are written trend_slope@5m)"
        ) from unknown
