"""The flat form of a fitted model: arrays without code, checked, and scored by one compiled walker.

A tree ensemble is the concatenation of its trees' nodes in the order in which scikit-learn adds them; a linear model is
its scaler and its coefficients. The walker does no bounds check, so a form is checked whole before its first score.
"""

from __future__ import annotations

import io
import tokenize
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy.special import expit

from models_registry.refusals import TamperedModel

FlatKind = Literal["hist_gradient_boosting", "logistic_regression"]
Arrays = dict[str, NDArray[Any]]

FORMAT_VERSION: Final = 1
LINEAR_TOLERANCE: Final = 1e-12
"""Largest difference to scikit-learn's own probability; its BLAS sum depends on the batch, ours has a fixed order."""

_COMMON: Final = {"format_version": ("<i8", 0), "n_features": ("<i8", 0)}
_TREES: Final = _COMMON | {
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
_LINEAR: Final = _COMMON | {"mean": ("<f8", 1), "scale": ("<f8", 1), "coef": ("<f8", 1), "intercept": ("<f8", 0)}
LAYOUT: Final[dict[str, dict[str, tuple[str, int]]]] = {
    "hist_gradient_boosting": _TREES,
    "logistic_regression": _LINEAR,
}
"""dtype and number of dimensions of every array, by kind."""


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
            total += (X[row, column] - mean[column]) / scale[column] * coef[column]
        raw[row] = total + intercept
    return raw


@dataclass(frozen=True, eq=False)
class FlatModel:
    """A model that live code may run: verified arrays, no deserialised objects."""

    kind: FlatKind
    n_features: int
    arrays: Arrays

    def raw_score(self, X: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: N803
        """Log-odds of an up move for each row of ``X``, shape ``(n,)``."""
        X = self._checked(X)  # noqa: N806
        a = self.arrays
        scores: NDArray[np.float64]
        if self.kind == "hist_gradient_boosting":
            scores = _walk_trees(
                X,
                a["tree_start"],
                a["feature"],
                a["threshold"],
                a["missing_left"],
                a["left"],
                a["right"],
                a["is_leaf"],
                a["value"],
                float(a["baseline"]),
            )
        else:
            scores = _sum_linear(X, a["mean"], a["scale"], a["coef"], float(a["intercept"]))
        return scores

    def score(self, X: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: N803
        """Probability that the forward return is positive.

        Parameters
        ----------
        X : ndarray of float64, shape (n, F)
            Feature rows in schema order. NaN: a tree sends it where it was trained to; a linear score becomes NaN.

        Returns
        -------
        ndarray of float64, shape (n,)
            Bit-equal to scikit-learn's ``predict_proba`` for hist_gradient_boosting, within 1e-12 for
            logistic_regression; independent of how rows are batched.

        Raises
        ------
        ValueError
            If ``X`` has another dtype or width.
        """
        probability: NDArray[np.float64] = expit(self.raw_score(X))
        return probability

    def _checked(self, X: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: N803
        if X.dtype != np.float64 or X.ndim != 2 or X.shape[1] != self.n_features:
            raise ValueError(f"score needs float64 rows of {self.n_features} features, got {X.dtype} {X.shape}")
        return np.ascontiguousarray(X)


def flatten(estimator: Any) -> tuple[FlatKind, Arrays]:
    """Take a fitted estimator of ``training.py`` apart into arrays.

    Raises
    ------
    TypeError
        If the estimator is neither of the two kinds that training writes.
    """
    if hasattr(estimator, "_predictors"):
        return "hist_gradient_boosting", _flatten_trees(estimator)
    if hasattr(estimator, "named_steps"):
        return "logistic_regression", _flatten_linear(estimator)
    raise TypeError(f"no flat form for {type(estimator).__name__}; train with one of {sorted(LAYOUT)}")


def _flatten_trees(estimator: Any) -> Arrays:
    if estimator.n_trees_per_iteration_ != 1 or getattr(estimator, "is_categorical_", None) is not None:
        raise TypeError("only two classes and numeric features have a flat form; train without categorical_features")
    trees = [iteration[0].nodes for iteration in estimator._predictors]
    nodes = np.concatenate(trees)
    leaf = nodes["is_leaf"].astype(bool)
    return {
        "format_version": np.array(FORMAT_VERSION, dtype=np.int64),
        "n_features": np.array(estimator.n_features_in_, dtype=np.int64),
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


def _flatten_linear(estimator: Any) -> Arrays:
    scaler, linear = (step for _, step in estimator.steps)
    return {
        "format_version": np.array(FORMAT_VERSION, dtype=np.int64),
        "n_features": np.array(scaler.n_features_in_, dtype=np.int64),
        "mean": np.asarray(scaler.mean_, dtype=np.float64),
        "scale": np.asarray(scaler.scale_, dtype=np.float64),
        "coef": np.asarray(linear.coef_, dtype=np.float64).reshape(-1),
        "intercept": np.array(np.asarray(linear.intercept_).item(), dtype=np.float64),
    }


def dump_arrays(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    """Write arrays as an npz without pickle; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def load_arrays(value: bytes, layout: Mapping[str, tuple[str, int]], file: str) -> Arrays:
    """Read an npz without pickle and compare names, dtypes and dimensions with ``layout``.

    Raises
    ------
    TamperedModel
        If the archive is broken or not of this layout; names the array.
    """
    try:
        with np.load(io.BytesIO(value), allow_pickle=False) as archive:
            if len(archive.files) != len(layout) or set(archive.files) != set(layout):
                raise TamperedModel(f"{file} holds {sorted(archive.files)}, expected {sorted(layout)}")
            arrays = {name: archive[name] for name in layout}
    except (
        ValueError, OSError, EOFError, KeyError, NotImplementedError, MemoryError, SyntaxError, zipfile.BadZipFile,
        tokenize.TokenError,
    ) as error:  # fmt: skip
        raise TamperedModel(f"{file} is not a readable npz without pickle: {error}") from error
    for name, (dtype, ndim) in layout.items():
        found = arrays[name]
        if found.dtype.str != dtype or found.ndim != ndim:
            raise TamperedModel(f"{file}: {name} is {found.dtype.str} with {found.ndim} axes, expected {dtype}, {ndim}")
    return arrays


def load_flat(value: bytes, kind: FlatKind, n_features: int, file: str = "flat.npz") -> FlatModel:
    """Read the flat form and prove that the walker cannot leave it.

    Raises
    ------
    TamperedModel
        If an array is missing, has another type or length, is not finite, or a node points backwards or outside.
    """
    arrays = load_arrays(value, LAYOUT[kind], file)
    if int(arrays["format_version"]) != FORMAT_VERSION:
        raise TamperedModel(f"{file} has format {int(arrays['format_version'])}, this code reads {FORMAT_VERSION}")
    if int(arrays["n_features"]) != n_features:
        raise TamperedModel(f"{file} has {int(arrays['n_features'])} features, the sidecar names {n_features}")
    problem = _tree_problem(arrays, n_features) if kind == "hist_gradient_boosting" else _linear_problem(arrays)
    if problem is not None:
        raise TamperedModel(f"{file}: {problem}")
    return FlatModel(kind, n_features, {name: np.asarray(array, order="C") for name, array in arrays.items()})


def _tree_problem(a: Arrays, n_features: int) -> str | None:  # noqa: PLR0911
    n_nodes, start = len(a["value"]), a["tree_start"]
    if any(len(a[name]) != n_nodes for name in ("feature", "threshold", "missing_left", "left", "right", "is_leaf")):
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


def _linear_problem(a: Arrays) -> str | None:
    n_features = int(a["n_features"])
    if any(len(a[name]) != n_features for name in ("mean", "scale", "coef")):
        return "coefficients do not match the number of features"
    if not all(np.all(np.isfinite(a[name])) for name in ("mean", "scale", "coef", "intercept")):
        return "a coefficient is not finite"
    if np.any(a["scale"] <= 0):
        return "a scale is not positive"
    return None


def compile_kernels() -> None:
    """Fill numba's cache, so that the first score of a live process does not wait for a compiler."""
    row = np.zeros((1, 1))
    one, zero = np.ones(1), np.zeros(1)
    flag, index = np.ones(1, dtype=np.uint8), np.zeros(1, dtype=np.int32)
    _walk_trees(row, np.array([0, 1]), index, zero, flag, index, index, flag, zero, 0.0)
    _sum_linear(row, zero, one, one, 0.0)
