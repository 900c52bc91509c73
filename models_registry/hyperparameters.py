"""Which hyperparameters an estimator has, by scikit-learn's names."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Final

from models_registry.specification import Estimator

_OURS: Final = {
    "random_state": "set seed instead",
    "early_stopping": "a fit that stops early holds back rows of its own, across sessions",
    "n_jobs": "a fit runs on one thread, so that equal data give an equal model",
}
"""Decided by the platform, each for a reason."""


class UnknownHyperparameter(ValueError):
    """A hyperparameter that the estimator does not have; names near ones."""


def refuse_unknown(estimator: Estimator, names: Iterable[str]) -> None:
    """Refuse names that are no hyperparameter of the estimator; imports scikit-learn only if there is a name.

    Raises
    ------
    UnknownHyperparameter
        Naming the first.
    """
    asked = tuple(names)
    if not asked:
        return
    known = hyperparameter_names(estimator)
    for name in asked:
        if name in _OURS:
            raise UnknownHyperparameter(f"{name} cannot be set: {_OURS[name]}")
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
            raise UnknownHyperparameter(f"{estimator} has no hyperparameter {name!r}; {hint}")


def hyperparameter_names(estimator: Estimator) -> tuple[str, ...]:
    """Give the names that may be set, in alphabetical order."""
    from models_registry.estimators.families import FAMILIES

    family = FAMILIES[estimator]
    names = family.hyperparameters(family.build(0, 1, {}))
    return tuple(name for name in sorted(names) if name not in _OURS)
