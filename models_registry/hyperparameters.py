"""Which hyperparameters an estimator takes, by scikit-learn's names and bounds."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Final

from models_registry.specification import Estimator

_OURS: Final = {
    "random_state": "set seed instead",
    "early_stopping": "a fit that stops early holds back rows of its own, across sessions",
    "n_jobs": "a fit runs on one thread, so that equal data give an equal model",
}
"""Decided by the platform, each for a reason."""


class WrongHyperparameter(ValueError):
    """A hyperparameter that the estimator does not have, or a value that it does not take."""


def refuse_wrong(estimator: Estimator, hyperparameters: Mapping[str, bool | int | float]) -> None:
    """Refuse what the estimator does not take; imports scikit-learn only if anything is set.

    Raises
    ------
    WrongHyperparameter
        Naming the first: near names of one that there is not, or what scikit-learn asks of its value.
    """
    if not hyperparameters:
        return
    known = hyperparameter_names(estimator)
    for name in hyperparameters:
        if name in _OURS:
            raise WrongHyperparameter(f"{name} cannot be set: {_OURS[name]}")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
            raise WrongHyperparameter(f"{estimator} has no hyperparameter {name!r}; {hint}")
    from models_registry.estimators.families import FAMILIES

    family = FAMILIES[estimator]
    try:
        family.refuse_values(family.build(0, 1, hyperparameters))
    except ValueError as wrong:
        raise WrongHyperparameter(str(wrong)) from wrong


def hyperparameter_names(estimator: Estimator) -> tuple[str, ...]:
    """Give the names that may be set, in alphabetical order."""
    from models_registry.estimators.families import FAMILIES

    family = FAMILIES[estimator]
    names = family.hyperparameters(family.build(0, 1, {}))
    return tuple(name for name in sorted(names) if name not in _OURS)
