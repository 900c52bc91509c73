"""Gradient-boosted trees on histograms (scikit-learn's HistGradientBoostingClassifier).

The flat form is the concatenation of the trees' nodes in the order in which scikit-learn adds them up, so that the
walker's sum has the same bits.
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
    Unpackable,
    header,
    plain_values,
    refuse_other_classes,
)


class BoostedTrees:
    """The family ``hist_gradient_boosting``."""

    layout: Final[Layout] = COMMON | {
        "tree_start": ("<i8", 1),
        "feature": ("<i4", 1),
        "threshold": ("<f8", 1),
        "missing_left": ("|u1", 1),
        "left": ("<i4", 1),
        "right": ("<i4", 1),
        "is_leaf": ("|u1", 1),
        "value": ("<f8", 1),
        "baseline": ("<f8", 0),
    }
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

    def flatten(self, estimator: Any) -> Arrays:
        """Concatenate the trees' nodes."""
        refuse_other_classes(estimator)
        if getattr(estimator, "is_categorical_", None) is not None:
            raise Unpackable("trees that split categories have no flat form: train on numbers alone")
        trees = [iteration[0].nodes for iteration in estimator._predictors]
        nodes = np.concatenate(trees)
        leaf = nodes["is_leaf"].astype(bool)
        return header(estimator.n_features_in_) | {
            "tree_start": np.cumsum([0] + [len(tree) for tree in trees], dtype=np.int64),
            "feature": np.where(leaf, 0, nodes["feature_idx"]).astype(np.int32),
            "threshold": np.where(leaf, 0.0, nodes["num_threshold"]),
            "missing_left": nodes["missing_go_to_left"].astype(np.uint8),
            "left": np.where(leaf, 0, nodes["left"]).astype(np.int32),
            "right": np.where(leaf, 0, nodes["right"]).astype(np.int32),
            "is_leaf": nodes["is_leaf"].astype(np.uint8),
            "value": nodes["value"].astype(np.float64),
            "baseline": np.array(estimator._baseline_prediction.item(), dtype=np.float64),
        }

    def problem(self, arrays: Arrays, n_features: int) -> str | None:  # noqa: PLR0911
        """Prove that every walk goes forward and ends inside its tree."""
        a, n_nodes, start = arrays, len(arrays["value"]), arrays["tree_start"]
        if any(
            len(a[name]) != n_nodes for name in ("feature", "threshold", "missing_left", "left", "right", "is_leaf")
        ):
            return "node arrays have different lengths"
        if len(start) < 2 or start[0] != 0 or start[-1] != n_nodes or np.any(np.diff(start) < 1):
            return "trees do not cover the nodes"
        if not (np.all(np.isfinite(a["value"])) and np.isfinite(a["baseline"])) or np.any(np.isnan(a["threshold"])):
            return "a value, threshold or the baseline is not a number"
        if np.any(a["is_leaf"] > 1) or np.any(a["missing_left"] > 1):
            return "a flag is neither 0 nor 1"
        size = np.diff(start)
        own = np.arange(n_nodes) - np.repeat(start[:-1], size)
        split = a["is_leaf"] == 0
        limit = np.repeat(size, size)
        for side in ("left", "right"):
            child = a[side]
            if np.any(split & ((child <= own) | (child >= limit))):
                return f"a {side} child is not forward and inside its tree"
        if np.any(split & ((a["feature"] < 0) | (a["feature"] >= n_features))):
            return "a node asks for a feature that does not exist"
        return None

    def compile(self) -> None:
        """Fill numba's cache."""
        zero, flag, index = np.zeros(1), np.ones(1, dtype=np.uint8), np.zeros(1, dtype=np.int32)
        _walk_trees(np.zeros((1, 1)), np.array([0, 1]), index, zero, flag, index, index, flag, zero, 0.0)

    def raw_score(self, X: NDArray[np.float64], arrays: Arrays) -> NDArray[np.float64]:  # noqa: N803
        """Walk every tree for every row."""
        a = arrays
        nodes = (a["feature"], a["threshold"], a["missing_left"], a["left"], a["right"], a["is_leaf"], a["value"])
        scores: NDArray[np.float64] = _walk_trees(X, a["tree_start"], *nodes, float(a["baseline"]))
        return scores


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _walk_trees(  # noqa: PLR0917
    X: NDArray[np.float64],  # noqa: N803
    tree_start: NDArray[np.int64],
    feature: NDArray[np.int32],
    threshold: NDArray[np.float64],
    missing_left: NDArray[np.uint8],
    left: NDArray[np.int32],
    right: NDArray[np.int32],
    is_leaf: NDArray[np.uint8],
    value: NDArray[np.float64],
    baseline: float,
) -> NDArray[np.float64]:
    raw = np.empty(X.shape[0], dtype=np.float64)
    for row in range(X.shape[0]):
        total = baseline
        for tree in range(tree_start.shape[0] - 1):
            start = tree_start[tree]
            node = start
            while not is_leaf[node]:
                x = X[row, feature[node]]
                goes_left = missing_left[node] != 0 if np.isnan(x) else x <= threshold[node]
                node = start + (left[node] if goes_left else right[node])
            total += value[node]
        raw[row] = total
    return raw
