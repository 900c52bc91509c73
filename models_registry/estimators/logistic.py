"""Logistic regression on standardised features (scikit-learn's StandardScaler and LogisticRegression)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
from numba import njit
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


class Logistic:
    """The family ``logistic_regression``."""

    layout: Final[Layout] = COMMON | {
        "mean": ("<f8", 1),
        "scale": ("<f8", 1),
        "coef": ("<f8", 1),
        "intercept": ("<f8", 0),
    }
    tolerance: Final = 1e-12
    """scikit-learn's BLAS sum depends on the batch; ours has a fixed order."""

    def build(self, seed: int, rows: int, hyperparameters: Mapping[str, bool | int | float]) -> Any:
        """Give an unfitted pipeline; raises TypeError for a hyperparameter that LogisticRegression does not have."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import Pipeline
        from sklearn.preprocessing import StandardScaler

        chosen: dict[str, Any] = {"max_iter": 500} | dict(hyperparameters) | {"random_state": seed}
        return Pipeline([("scale", StandardScaler()), ("logistic", LogisticRegression(**chosen))])

    def fit(self, estimator: Any, X: NDArray[np.float64], up: NDArray[np.bool_], weight: NDArray[np.float64]) -> Any:  # noqa: N803
        """Fit and give it back; a feature that never changes gets a scale of 1."""
        with np.errstate(
            invalid="ignore"
        ):  # rounding makes its weighted variance less than 0, and the root is not used
            return estimator.fit(X, up, scale__sample_weight=weight, logistic__sample_weight=weight)

    def refuse_values(self, estimator: Any) -> None:
        """Raise ValueError for a value that a fit would refuse."""
        estimator.named_steps["logistic"]._validate_params()

    def hyperparameters(self, estimator: Any) -> dict[str, Any]:
        """Give every hyperparameter of the regression that is a plain value."""
        return plain_values(estimator.named_steps["logistic"].get_params())

    def made(self, estimator: Any) -> bool:
        """Whether it is a pipeline of a StandardScaler and a LogisticRegression."""
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        return [type(step) for _, step in getattr(estimator, "steps", ())] == [StandardScaler, LogisticRegression]

    def search_space(self) -> Mapping[str, Span]:
        """Say how far coefficients are drawn to zero; of more rows than were searched, the same C draws them less."""
        return {"C": Span(1e-5, 10.0, log=True)}

    def flatten(self, estimator: Any) -> Arrays:
        """Take means, scales and coefficients."""
        scaler, linear = (step for _, step in estimator.steps)
        refuse_other_classes(linear)
        if not (scaler.with_mean and scaler.with_std):
            raise Unpackable(
                f"the flat form subtracts a mean and divides by a deviation, {scaler} does not: train with "
                "StandardScaler() as it is by default"
            )
        return header(scaler.n_features_in_) | {
            "mean": np.asarray(scaler.mean_, dtype=np.float64),
            "scale": np.asarray(scaler.scale_, dtype=np.float64),
            "coef": np.asarray(linear.coef_, dtype=np.float64).reshape(-1),
            "intercept": np.array(np.asarray(linear.intercept_).item(), dtype=np.float64),
        }

    def problem(self, arrays: Arrays, n_features: int) -> str | None:
        """Prove that lengths fit and every number is one."""
        if (problem := misfit(arrays, self.layout)) is not None:
            return problem
        if any(len(arrays[name]) != n_features for name in ("mean", "scale", "coef")):
            return "coefficients do not match the number of features"
        if not all(np.all(np.isfinite(arrays[name])) for name in ("mean", "scale", "coef", "intercept")):
            return "a coefficient is not finite"
        if np.any(arrays["scale"] <= 0):
            return "a scale is not positive"
        return None

    def edge_rows(self, rows: NDArray[np.float64], arrays: Arrays) -> NDArray[np.float64]:
        """Give none: a sum has no edges."""
        return rows[:0]

    def compile(self) -> None:
        """Fill numba's cache."""
        _sum_linear(np.zeros((1, 1)), np.zeros(1), np.ones(1), np.ones(1), 0.0)

    def margin(self, X: NDArray[np.float64], arrays: Arrays) -> NDArray[np.float64]:  # noqa: N803
        """Log-odds of an up move: standardised features times coefficients, summed in order; shape ``(n,)``.

        scikit-learn's sum has another order, which depends on the batch. The two differ by at most ``2 (F + 2) u``
        times the sum of the terms' absolute values, u = 2⁻⁵³ (Higham, "Accuracy and Stability of Numerical
        Algorithms", 2002, §3.1), and probabilities by a quarter of that.
        """
        a = arrays
        margins: NDArray[np.float64] = _sum_linear(X, a["mean"], a["scale"], a["coef"], float(a["intercept"]))
        return margins

    def probability(self, X: NDArray[np.float64], arrays: Arrays) -> NDArray[np.float64]:  # noqa: N803
        """Take the logistic function of the sum; NaN for a row that is not finite as it is, or once standardised."""
        probability: NDArray[np.float64] = expit(self.margin(X, arrays))
        return probability


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _sum_linear(
    X: NDArray[np.float64],  # noqa: N803
    mean: NDArray[np.float64],
    scale: NDArray[np.float64],
    coef: NDArray[np.float64],
    intercept: float,
) -> NDArray[np.float64]:
    raw = np.empty(X.shape[0], dtype=np.float64)
    for row in range(X.shape[0]):
        total = 0.0
        for column in range(X.shape[1]):
            standard = (X[row, column] - mean[column]) / scale[column]
            total += standard * coef[column] if np.isfinite(standard) else np.nan
        raw[row] = total + intercept
    return raw
