"""The families there are, by the name that a specification and a sidecar give them."""

from __future__ import annotations

from typing import Any, Final

from models_registry.estimators.boosted_trees import BoostedTrees
from models_registry.estimators.family import Family, Unpackable
from models_registry.estimators.logistic import Logistic
from models_registry.estimators.random_forest import RandomForest
from models_registry.specification import Estimator

FAMILIES: Final[dict[Estimator, Family]] = {
    "hist_gradient_boosting": BoostedTrees(),
    "random_forest": RandomForest(),
    "logistic_regression": Logistic(),
}


def family_of(estimator: Any) -> Estimator:
    """Name the family of a fitted estimator.

    Raises
    ------
    Unpackable
        If it is of none.
    """
    for name, family in FAMILIES.items():
        if family.made(estimator):
            return name
    made_of = [type(step).__name__ for _, step in getattr(estimator, "steps", ())]
    what = type(estimator).__name__ + (f" of {' and '.join(made_of)}" if made_of else "")
    raise Unpackable(f"there is no flat form for {what}: train with one of {', '.join(sorted(FAMILIES))}")
