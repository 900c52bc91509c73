"""The flat form of a fitted model: arrays without code, checked, and scored by its family's compiled walker.

The walker does no bounds check, so a form is checked whole before its first score.
"""

from __future__ import annotations

import io
import tokenize
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models_registry.estimators.families import FAMILIES, family_of
from models_registry.estimators.family import FORMAT_VERSION, Arrays, Layout, misfit
from models_registry.refusals import TamperedModel
from models_registry.specification import Estimator


@dataclass(frozen=True, eq=False)
class FlatModel:
    """A model that live code may run: verified arrays, no deserialised objects."""

    kind: Estimator
    n_features: int
    arrays: Arrays

    def score(self, X: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: N803
        """Probability that the forward return is positive.

        Parameters
        ----------
        X : ndarray of float64, shape (n, F)
            Feature rows in schema order. NaN: a tree sends it where it was trained to; a linear score becomes NaN.

        Returns
        -------
        ndarray of float64, shape (n,)
            Bit-equal to scikit-learn's ``predict_proba`` for families of trees, within 1e-12 for
            logistic_regression; independent of how rows are batched.

        Raises
        ------
        ValueError
            If ``X`` has another dtype or width.
        """
        return FAMILIES[self.kind].probability(self._checked(X), self.arrays)

    def _checked(self, X: NDArray[np.float64]) -> NDArray[np.float64]:  # noqa: N803
        if X.dtype != np.float64 or X.ndim != 2 or X.shape[1] != self.n_features:
            raise ValueError(f"score needs float64 rows of {self.n_features} features, got {X.dtype} {X.shape}")
        return np.ascontiguousarray(X)


def flatten(estimator: Any) -> tuple[Estimator, Arrays]:
    """Take a fitted estimator apart into arrays, and name its family.

    Raises
    ------
    models_registry.estimators.family.Unpackable
        If it is not as a family of ours builds it.
    """
    name = family_of(estimator)
    return name, FAMILIES[name].flatten(estimator)


def dump_arrays(arrays: Mapping[str, NDArray[Any]], *, compressed: bool = False) -> bytes:
    """Write arrays as an npz without pickle; equal arrays give equal bytes."""
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, allow_pickle=False, **arrays)
    return buffer.getvalue()


def load_arrays(value: bytes, layout: Layout, file: str) -> Arrays:
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
    if (problem := misfit(arrays, layout)) is not None:
        raise TamperedModel(f"{file}: {problem}")
    return arrays


def load_flat(value: bytes, kind: Estimator, n_features: int, file: str = "flat.npz") -> FlatModel:
    """Read the flat form and prove that the walker cannot leave it.

    Raises
    ------
    TamperedModel
        If an array is missing, has another type or length, is not finite, or a node points backwards or outside.
    """
    arrays = load_arrays(value, FAMILIES[kind].layout, file)
    if int(arrays["format_version"]) != FORMAT_VERSION:
        raise TamperedModel(f"{file} has format {int(arrays['format_version'])}, this code reads {FORMAT_VERSION}")
    if int(arrays["n_features"]) != n_features:
        raise TamperedModel(f"{file} has {int(arrays['n_features'])} features, the sidecar names {n_features}")
    problem = FAMILIES[kind].problem(arrays, n_features)
    if problem is not None:
        raise TamperedModel(f"{file}: {problem}")
    return FlatModel(kind, n_features, {name: np.asarray(array, order="C") for name, array in arrays.items()})


def compile_kernels() -> None:
    """Compile every family's kernel, or load it from numba's cache."""
    for family in FAMILIES.values():
        family.compile()
