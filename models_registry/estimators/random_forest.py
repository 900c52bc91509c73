"""A forest of classification trees on bootstrap samples (scikit-learn's RandomForestClassifier).

A leaf holds a probability, and the forest says the mean over its trees. scikit-learn rounds features to 32 bits
before it compares them, and adds trees up in their order on one thread; so does this, for equal bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from models_registry.estimators.family import (
    COMMON,
    Arrays,
    Layout,
    Span,
    Unpackable,
    header,
    misfit,
    plain_values,
    refuse_other_classes,
)
from models_registry.estimators.trees import (
    NODES,
    compile_walk,
    joined,
    problem_of_nodes,
    rows_on_splits,
    sum_of_leaves,
)

_MOST_DRAWN: Final = 10_000
"""Rows drawn for a tree. 200 trees draw each of 540,000 rows four times, and a fit stays below half a minute."""


class RandomForest:
    """The family ``random_forest``."""

    layout: Final[Layout] = COMMON | NODES
    tolerance: Final = 0.0

    def build(self, seed: int, rows: int, hyperparameters: Mapping[str, bool | int | float]) -> Any:
        """Give an unfitted classifier; raises TypeError for a hyperparameter that it does not have."""
        from sklearn.ensemble import RandomForestClassifier

        drawn = max(1, min(rows, _MOST_DRAWN))
        defaults: dict[str, Any] = {
            "n_estimators": 200,
            "max_depth": 5,  # deeper ones foretold worse than the base rate where the edge was small
            "max_features": "sqrt",
            # rows of neighbouring minutes say much the same: trees that draw few of them differ more
            "max_samples": drawn,
            # leaves of single rows learn the noise of minutes by heart
            "min_samples_leaf": int(np.clip(drawn // 200, 5, 50)),
        }
        if hyperparameters.get("bootstrap") is False:
            del defaults["max_samples"]
        return RandomForestClassifier(**(defaults | dict(hyperparameters) | {"n_jobs": 1, "random_state": seed}))

    def fit(self, estimator: Any, X: NDArray[np.float64], up: NDArray[np.bool_], weight: NDArray[np.float64]) -> Any:  # noqa: N803
        """Fit and give it back; rows are drawn by their weight."""
        return estimator.fit(X, up, sample_weight=weight)

    def refuse_values(self, estimator: Any) -> None:
        """Raise ValueError for a value that a fit would refuse."""
        estimator._validate_params()

    def hyperparameters(self, estimator: Any) -> dict[str, Any]:
        """Give every hyperparameter that is a plain value."""
        return plain_values(estimator.get_params())

    def search_space(self) -> Mapping[str, Span]:
        """Say how deep trees are, and of how many features at a split."""
        return {"max_depth": Span(2, 12), "max_features": Span(0.1, 1.0)}

    def made(self, estimator: Any) -> bool:
        """Whether it is the classifier of drawn samples; one of wholly random splits is another class."""
        from sklearn.ensemble import RandomForestClassifier

        return type(estimator) is RandomForestClassifier

    def flatten(self, estimator: Any) -> Arrays:
        """Join the trees' nodes."""
        refuse_other_classes(estimator)
        if estimator.n_outputs_ != 1:
            raise Unpackable(f"the forest says {estimator.n_outputs_} things of a row, a score is one: train on one")
        return header(estimator.n_features_in_) | joined([_nodes(tree.tree_) for tree in estimator.estimators_])

    def problem(self, arrays: Arrays, n_features: int) -> str | None:
        """Prove that every walk goes forward and ends inside its tree, at a probability."""
        problem = misfit(arrays, self.layout) or problem_of_nodes(arrays, n_features)
        if problem is None and np.any((arrays["value"] < 0.0) | (arrays["value"] > 1.0)):
            return "a value is no probability"
        return problem

    def edge_rows(self, rows: NDArray[np.float64], arrays: Arrays) -> NDArray[np.float64]:
        """Rows on a threshold and with missing values."""
        return rows_on_splits(rows, arrays)

    def compile(self) -> None:
        """Fill numba's cache."""
        compile_walk()
        _rounded(np.zeros((1, 1)))

    def probability(self, X: NDArray[np.float64], arrays: Arrays) -> NDArray[np.float64]:  # noqa: N803
        """Average the leaves that a row comes to; NaN for one with a value beyond 32 bits, missing ones are walked."""
        rounded, beyond = _rounded(X)
        mean = sum_of_leaves(rounded, arrays, 0.0) / (len(arrays["tree_start"]) - 1)
        mean[beyond] = np.nan
        return mean


def _nodes(tree: Any) -> dict[str, NDArray[Any]]:
    return {
        "feature": tree.feature,
        "threshold": tree.threshold,
        "missing_left": tree.missing_go_to_left,
        "left": tree.children_left,
        "right": tree.children_right,
        "is_leaf": tree.children_left == tree.children_right,  # both are -1
        "value": tree.value[:, 0, 1],
    }


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _rounded(X: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:  # noqa: N803
    """Values rounded to 32 bits, in 64; and whether one of a row became infinite."""
    rounded = np.empty_like(X)
    beyond = np.zeros(X.shape[0], dtype=np.bool_)
    for row in range(X.shape[0]):
        for column in range(X.shape[1]):
            value = np.float64(np.float32(X[row, column]))
            rounded[row, column] = value
            beyond[row] |= np.isinf(value)
    return rounded, beyond
