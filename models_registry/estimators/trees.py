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
_BLOCK: Final = 256
"""Rows that are scanned together: their columns and what is left for each stay in the nearest cache."""


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
    """Add the value of each tree's leaf to ``begin``, in the order of trees; shape ``(n,)``, one sum for each row.

    Few rows walk each tree. Many are scanned: every split is asked of a block of rows at once, and takes out the leaves
    that it rules out; what is left first is the leaf of the walk. The sums are the same bits.
    """
    trees = tuple(arrays[name] for name in _WALKED)
    sums: NDArray[np.float64]
    if len(X) >= _BLOCK:
        kept, leaves, fits = _lay_out(arrays["tree_start"], *(arrays[n] for n in ("left", "right", "is_leaf", "value")))
        if fits:
            split = (arrays[name] for name in ("feature", "threshold", "missing_left", "is_leaf"))
            sums = _scan(X, arrays["tree_start"], *split, kept, leaves, begin)
            return sums
    sums = _walk(X, arrays["tree_start"], *trees, begin)
    return sums


def compile_walk() -> None:
    """Fill numba's cache."""
    zero, flag, index = np.zeros(1), np.ones(1, dtype=np.uint8), np.zeros(1, dtype=np.int32)
    start = np.array([0, 1])
    _walk(np.zeros((1, 1)), start, index, zero, flag, index, index, flag, zero, 0.0)
    kept, leaves, _ = _lay_out(start, index, index, flag, zero)
    _scan(np.zeros((1, 1)), start, index, zero, flag, flag, kept, leaves, 0.0)


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


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _place(bit: np.uint64) -> np.uint64:
    """Give a number below 64 to a word with one bit set, another one for each.

    By a de Bruijn sequence: Leiserson, Prokop and Randall (1998), Using de Bruijn sequences to index a 1 in a computer
    word.
    """
    return (bit * np.uint64(0x03F79D71B4CB0A89)) >> np.uint64(58)


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _lay_out(
    tree_start: NDArray[np.int64],
    left: NDArray[np.int32],
    right: NDArray[np.int32],
    is_leaf: NDArray[np.uint8],
    value: NDArray[np.float64],
) -> tuple[NDArray[np.uint64], NDArray[np.float64], bool]:
    """Number each tree's leaves from the left, a bit each (Lucchese et al. 2015, QuickScorer, SIGIR, section 3).

    Gives the leaves that a row keeps which goes right at a split, the values of each tree's leaves by `_place`, and
    whether every tree has as many as there are bits.
    """
    n, one = value.shape[0], np.uint64(1)
    count, first = np.ones(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    kept, leaves = np.zeros(n, dtype=np.uint64), np.zeros((tree_start.shape[0] - 1, 64))
    for tree in range(tree_start.shape[0] - 1):
        start, end = tree_start[tree], tree_start[tree + 1]
        for node in range(end - 1, start - 1, -1):  # a child stands behind its parent
            if not is_leaf[node]:
                count[node] = count[start + left[node]] + count[start + right[node]]
        if count[start] > 64:
            return kept, leaves, False
        for node in range(start, end):
            if is_leaf[node]:
                leaves[tree, _place(one << np.uint64(first[node]))] = value[node]
                continue
            to_left, to_right = start + left[node], start + right[node]
            first[to_left], first[to_right] = first[node], first[node] + count[to_left]
            kept[node] = ~(((one << np.uint64(count[to_left])) - one) << np.uint64(first[node]))
    return kept, leaves, True


@njit(cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _scan(  # noqa: PLR0917
    X: NDArray[np.float64],  # noqa: N803
    tree_start: NDArray[np.int64],
    feature: NDArray[np.int32],
    threshold: NDArray[np.float64],
    missing_left: NDArray[np.uint8],
    is_leaf: NDArray[np.uint8],
    kept: NDArray[np.uint64],
    leaves: NDArray[np.float64],
    begin: float,
) -> NDArray[np.float64]:
    n, n_features = X.shape
    every = ~np.uint64(0)
    sums, columns = np.empty(n, dtype=np.float64), np.zeros((n_features, _BLOCK))
    left, totals = np.empty(_BLOCK, dtype=np.uint64), np.empty(_BLOCK, dtype=np.float64)
    for first in range(0, n, _BLOCK):
        rows = min(_BLOCK, n - first)
        columns[:, :rows] = X[first : first + rows].T
        totals[:] = begin
        for tree in range(tree_start.shape[0] - 1):
            left[:] = every
            for node in range(tree_start[tree], tree_start[tree + 1]):
                if is_leaf[node]:
                    continue
                values, cut, those = columns[feature[node]], threshold[node], kept[node]
                if missing_left[node]:  # the two differ where a value is NaN; each is one loop without a branch
                    for row in range(_BLOCK):
                        left[row] &= those if values[row] > cut else every
                else:
                    for row in range(_BLOCK):
                        left[row] &= every if values[row] <= cut else those
            of_tree = leaves[tree]
            for row in range(_BLOCK):
                totals[row] += of_tree[_place(left[row] & (~left[row] + np.uint64(1)))]
        sums[first : first + rows] = totals[:rows]
    return sums
