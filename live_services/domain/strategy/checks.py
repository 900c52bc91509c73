"""Names in a strategy's settings, checked against what there is: features, rules and hyperparameters.

Every process reads the settings, and that must not import a library; commands check names before they start anything.
Instruments are asked of the store by the training: a symbol may come in with the next market.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from models_registry.hyperparameters import WrongHyperparameter, refuse_wrong
from models_registry.specification import StrategySpec

if TYPE_CHECKING:
    from feature_store.features.schema import FeatureSchema


class WrongStrategy(Exception):
    """A strategy's settings name something that there is not; says which are near."""


def require_known_names(strategies: Sequence[StrategySpec]) -> None:
    """Refuse strategies that name a feature, a rule or a hyperparameter that there is not.

    Takes a second to import the features, and another for scikit-learn where a strategy sets hyperparameters.

    Raises
    ------
    WrongStrategy
        One line for each strategy and kind of name, with the nearest names.
    """
    if wrong := list(_unknown_names(strategies)):
        raise WrongStrategy("\n".join(wrong))


def strategy_schema(strategy: StrategySpec) -> FeatureSchema:
    """Give the feature schema of a strategy.

    Raises
    ------
    WrongStrategy
        If a name of its features or of its rule has no declaration, or its clock does not fit.
    """
    from feature_store.features.schema import UnknownFeature

    try:
        strategy.proposer()
    except ValueError as unknown:
        raise WrongStrategy(f"strategies: rule of {strategy.name!r}: {unknown}") from unknown
    try:
        return strategy.feature_schema()
    except UnknownFeature as unknown:
        raise WrongStrategy(f"strategies: features of {strategy.name!r}: {unknown}") from unknown


def stored_schema(strategies: Sequence[StrategySpec]) -> FeatureSchema:
    """Give the features that the store keeps: what any strategy asks, each once.

    Raises
    ------
    WrongStrategy
        As `strategy_schema`.
    """
    from feature_store.features.projection import union_schema

    return union_schema([strategy_schema(strategy) for strategy in strategies])


def _unknown_names(strategies: Sequence[StrategySpec]) -> Iterator[str]:
    for strategy in strategies:
        try:
            strategy_schema(strategy)
        except WrongStrategy as wrong:
            yield str(wrong)
        try:
            refuse_wrong(strategy.estimator, strategy.hyperparameters)
        except WrongHyperparameter as unknown:
            yield f"strategies: hyperparameters of {strategy.name!r}: {unknown}"
