"""What families of trees share: binary trees in one row of nodes, their check, and the walk that sums their leaves.

A child stands behind its parent, so that every walk ends. A row goes left at a split where its value is at most the
threshold, and where the fit sent missing values if it has none.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
from numba import njit
from numpy.typing import NDArray

from models_registry.estimators.family import Arrays

NODES: Final[dict[str, tuple[str, int]]] = {
    "tree_start": ("<i8", 1),
    "feature": ("<i4", 1),
    "threshold": ("<f8", 1),
    "missing_left": ("|u1", 1),
    "left": ("<i4", 1),
    "right": ("<i4", 1),
    "is_leaf": ("|u1", 1),
    "value": ("<f8", 1),
}
"""``tree_start`` has the first node of each tree and, last, the number of nodes; children count from their tree's
first node; a leaf has zeros where a split has feature, threshold and children."""

_WALKED: Final = ("feature", "threshold", "missing_left", "left", "right", "is_leaf", "value")
_EDGE_ROWS: Final = 64


def joined(trees: Sequence[Mapping[str, NDArray[Any]]]) -> Arrays:
    """Lay trees one after another, in the order in which their leaves are added up.

    Parameters
    ----------
    trees : sequence of mapping
        The arrays of `NODES` but ``tree_start``, each of one tree's nodes, of any dtype.
    """
    leaf = np.concatenate([tree["is_leaf"] for tree in trees]).astype(bool)
    split = {name: np.concatenate([tree[name] for tree in trees]) for name in ("feature", "threshold", "left", "right")}
    return {
        "tree_start": np.cumsum([0] + [len(tree["value"]) for tree in trees], dtype=np.int64),
        **{name: np.where(leaf, 0, values).astype(NODES[name][0]) for name, values in split.items()},
        "missing_left": np.concatenate([tree["missing_left"] for tree in trees]).astype(np.uint8),
        "is_leaf": leaf.astype(np.uint8),
        "value": np.concatenate([tree["value"] for tree in trees]).astype(np.float64),
    }


def problem_of_nodes(arrays: Arrays, n_features: int) -> str | None:  # noqa: PLR0911
    """Prove that every walk goes forward, ends inside its tree and meets a number; say what forbids it, or None.

    Parameters
    ----------
    arrays : dict of ndarray
        With dtypes and dimensions as in `NODES`.
    n_features : int
        Columns of the rows that will be walked.
    """
    a, n_nodes, start = arrays, len(arrays["value"]), arrays["tree_start"]
    if any(len(a[name]) != n_nodes for name in _WALKED):
        return "node arrays have different lengths"
    if len(start) < 2 or start[0] != 0 or start[-1] != n_nodes or np.any(start[1:] <= start[:-1]):
        return "trees do not cover the nodes, each its own"
    if not np.all(np.isfinite(a["value"])) or np.any(np.isnan(a["threshold"])):
        return "a value or threshold is not a number"
    if np.any(a["is_leaf"] > 1) or np.any(a["missing_left"] > 1):
        return "a flag is neither 0 nor 1"
    size = np.diff(start)
    first, limit = np.repeat(start[:-1], size), np.repeat(size, size)
    own = np.arange(n_nodes) - first
    split = a["is_leaf"] == 0
    parents = np.zeros(n_nodes, dtype=np.int64)
    for side in ("left", "right"):
        child = a[side].astype(np.int64)
        if np.any(split & ((child <= own) | (child >= limit))):
            return f"a {side} child is not forward and inside its tree"
        parents += np.bincount((first + child)[split], minlength=n_nodes)
    if np.any(parents != (own > 0)):
        return "a node is the child of two splits or of none"
    if np.any(split & ((a["feature"] < 0) | (a["feature"] >= n_features))):
        return "a node asks for a feature that does not exist"
    return None


def rows_on_splits(rows: NDArray[np.float64], arrays: Arrays) -> NDArray[np.float64]:
    """Give rows that real ones almost never are: exactly on a threshold, and with missing values.

    They are the two places where a walker goes wrong.

    Parameters
    ----------
    rows : ndarray of float64, shape (n, F)
        Finite rows, which lend the other values.
    arrays : dict of ndarray
        A form without a problem.
    """
    splits = np.flatnonzero((arrays["is_leaf"] == 0) & np.isfinite(arrays["threshold"]))[:_EDGE_ROWS]
    edges = rows[np.arange(len(splits)) % len(rows)].copy()
    edges[np.arange(len(splits)), arrays["feature"][splits]] = arrays["threshold"][splits]
    missing = rows[np.arange(rows.shape[1]) % len(rows)].copy()
    np.fill_diagonal(missing, np.nan)
    return np.concatenate([edges, missing, np.full((1, rows.shape[1]), np.nan)])


def sum_of_leaves(X: NDArray[np.float64], arrays: Arrays, begin: float) -> NDArray[np.float64]:  # noqa: N803
    """Add the value of each tree's leaf to ``begin``, in the order of trees; shape ``(n,)``, one sum for each row."""
    sums: NDArray[np.float64] = _walk(X, arrays["tree_start"], *(arrays[name] for name in _WALKED), begin)
    return sums


def compile_walk() -> None:
    """Fill numba's cache."""
    zero, flag, index = np.zeros(1), np.ones(1, dtype=np.uint8), np.zeros(1, dtype=np.int32)
    _walk(np.zeros((1, 1)), np.array([0, 1]), index, zero, flag, index, index, flag, zero, 0.0)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _walk(  # noqa: PLR0917
    X: NDArray[np.float64],  # noqa: N803
    tree_start: NDArray[np.int64],
    feature: NDArray[np.int32],
    threshold: NDArray[np.float64],
    missing_left: NDArray[np.uint8],
    left: NDArray[np.int32],
    right: NDArray[np.int32],
    is_leaf: NDArray[np.uint8],
    value: NDArray[np.float64],
    begin: float,
) -> NDArray[np.float64]:
    # Without a sign an index needs no look at whether it counts from the end: a third of the time.
    sums = np.empty(X.shape[0], dtype=np.float64)
    for row in range(X.shape[0]):
        total, values = begin, X[row]
        for tree in range(tree_start.shape[0] - 1):
            start = np.uint64(tree_start[tree])
            node = start
            while not is_leaf[node]:
                x = values[np.uint64(feature[node])]
                goes_left = missing_left[node] != 0 if np.isnan(x) else x <= threshold[node]
                node = start + np.uint64(left[node] if goes_left else right[node])
            total += value[node]
        sums[row] = total
    return sums
