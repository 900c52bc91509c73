"""Gradient-boosted trees on histograms (scikit-learn's HistGradientBoostingClassifier).

Trees are added up in scikit-learn's order, so that the sum has the same bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit

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


class BoostedTrees:
    """The family ``hist_gradient_boosting``."""

    layout: Final[Layout] = COMMON | NODES | {"baseline": ("<f8", 0)}
    tolerance: Final = 0.0

    def build(self, seed: int, rows: int, hyperparameters: Mapping[str, bool | int | float]) -> Any:
        """Give an unfitted classifier; raises TypeError for a hyperparameter that it does not have."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        defaults: dict[str, Any] = {
            "max_iter": 100,
            "learning_rate": 0.05,
            "max_leaf_nodes": 15,
            # a leaf of fewer than about 0.2 % of the rows fits noise of single minutes; 20 keeps small frames trainable
            "min_samples_leaf": int(np.clip(rows // 500, 20, 200)),
        }
        fixed = {"early_stopping": False, "random_state": seed}
        return HistGradientBoostingClassifier(**(defaults | dict(hyperparameters) | fixed))

    def fit(self, estimator: Any, X: NDArray[np.float64], up: NDArray[np.bool_], weight: NDArray[np.float64]) -> Any:  # noqa: N803
        """Fit and give it back."""
        return estimator.fit(X, up, sample_weight=weight)

    def refuse_values(self, estimator: Any) -> None:
        """Raise ValueError for a value that a fit would refuse."""
        estimator._validate_params()

    def hyperparameters(self, estimator: Any) -> dict[str, Any]:
        """Give every hyperparameter that is a plain value."""
        return plain_values(estimator.get_params())

    def made(self, estimator: Any) -> bool:
        """Whether it is the classifier; the regressor's trees say no probability."""
        from sklearn.ensemble import HistGradientBoostingClassifier

        return type(estimator) is HistGradientBoostingClassifier

    def search_space(self) -> Mapping[str, Span]:
        """Say how fast it learns, how deep, and of how many features at a split."""
        return {
            "learning_rate": Span(0.01, 0.2, log=True),
            "max_leaf_nodes": Span(3, 31, log=True),
            "max_features": Span(0.3, 1.0),
        }

    def flatten(self, estimator: Any) -> Arrays:
        """Join the trees' nodes."""
        refuse_other_classes(estimator)
        if getattr(estimator, "is_categorical_", None) is not None:
            raise Unpackable("trees that split categories have no flat form: train on numbers alone")
        of = {"feature": "feature_idx", "threshold": "num_threshold", "missing_left": "missing_go_to_left"}
        trees = [
            {name: iteration[0].nodes[of.get(name, name)] for name in NODES if name != "tree_start"}
            for iteration in estimator._predictors
        ]
        baseline = np.array(estimator._baseline_prediction.item(), dtype=np.float64)
        return header(estimator.n_features_in_) | joined(trees) | {"baseline": baseline}

    def problem(self, arrays: Arrays, n_features: int) -> str | None:
        """Prove that every walk goes forward and ends inside its tree, and that the sum begins at a number."""
        problem = misfit(arrays, self.layout) or problem_of_nodes(arrays, n_features)
        if problem is None and not np.isfinite(arrays["baseline"]):
            return "the baseline is not a number"
        return problem

    def edge_rows(self, rows: NDArray[np.float64], arrays: Arrays) -> NDArray[np.float64]:
        """Rows on a threshold and with missing values."""
        return rows_on_splits(rows, arrays)

    def compile(self) -> None:
        """Fill numba's cache."""
        compile_walk()

    def margin(self, X: NDArray[np.float64], arrays: Arrays) -> NDArray[np.float64]:  # noqa: N803
        """Log-odds of an up move for each row, bit-equal to scikit-learn's ``decision_function``; shape ``(n,)``."""
        return sum_of_leaves(X, arrays, float(arrays["baseline"]))

    def probability(self, X: NDArray[np.float64], arrays: Arrays) -> NDArray[np.float64]:  # noqa: N803
        """Walk every tree for every row; an infinite value lies beyond every threshold, as for scikit-learn."""
        probability: NDArray[np.float64] = expit(self.margin(X, arrays))
        return probability
