"""A fitted model as files that travel: the canonical skops bytes, the flat arrays, and golden rows.

Live code calls ``load`` and nothing else here: it never deserialises ``model.skops``. The errors a load can raise are
``refusals.ModelRefusedError`` and its children (re-exported here):

    ModelRefusedError ⊃ TamperedModel, FeatureSchemaMismatch, GoldenRowsDiffer, UnknownModelVersion, GateNotPassed
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from models_registry.estimators.families import FAMILIES
from models_registry.estimators.family import Unpackable
from models_registry.flat import (
    FlatModel,
    compile_kernels,
    dump_arrays,
    flatten,
    load_arrays,
    load_flat,
)
from models_registry.refusals import (
    FLAT_FILE,
    GOLDEN_FILE,
    MODEL_FILE,
    FeatureSchemaMismatch,
    GateNotPassed,
    GoldenRowsDiffer,
    ModelRefusedError,
    TamperedModel,
    UnknownModelVersion,
    sha256_of,
    verify_digests,
)
from models_registry.sidecar import Sidecar

__all__ = [
    "FeatureSchemaMismatch",
    "FlatModel",
    "GateNotPassed",
    "GoldenRowsDiffer",
    "ModelRefusedError",
    "Packed",
    "Parity",
    "TamperedModel",
    "UnknownModelVersion",
    "Unpackable",
    "compile_kernels",
    "load",
    "pack",
    "parity",
]

MINIMUM_GOLDEN_ROWS: Final = 64
_GOLDEN_LAYOUT: Final = {"X": ("<f8", 2), "score": ("<f8", 1)}

TRUSTED_TYPES: Final = (
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "sklearn.tree._tree.Tree",
)
"""Types beyond skops' own list that our estimators contain; any other is refused when MLflow reads them."""


@dataclass(frozen=True)
class Packed:
    """The artifact files of a version, and the SHA-256 of each."""

    files: dict[str, bytes]
    sha256: dict[str, str]


@dataclass(frozen=True)
class Parity:
    """How far the packed model is from the estimator it was packed from."""

    rows: int
    largest_difference: float
    bit_equal: bool
    allowed_difference: float
    """0 for families of trees, 1e-12 for logistic_regression."""

    @property
    def holds(self) -> bool:
        """Whether the packed model says what the trained one said."""
        return self.rows > 0 and (self.bit_equal or self.largest_difference <= self.allowed_difference)


def pack(estimator: Any, golden_rows: NDArray[np.float64]) -> Packed:
    """Pack a fitted estimator.

    Parameters
    ----------
    estimator : fitted estimator of one of `FAMILIES`
        What ``training.train`` returns as ``estimator``.
    golden_rows : ndarray of float64, shape (n, F), n ≥ 64
        Realistic feature rows without NaN. For trees, rows with missing values and rows exactly on a split are added.

    Raises
    ------
    ValueError
        If there are too few golden rows, or one is not finite.
    Unpackable
        If the estimator is not as a family of ours builds it: another scaler, more classes, a regressor, a coefficient
        that is no number.
    GoldenRowsDiffer
        If the flat form does not score them as the estimator does.
    """
    import skops.io

    if len(golden_rows) < MINIMUM_GOLDEN_ROWS or not np.all(np.isfinite(golden_rows)):
        raise ValueError(f"pack needs at least {MINIMUM_GOLDEN_ROWS} finite golden rows, got {golden_rows.shape}")
    kind, arrays = flatten(estimator)
    if problem := FAMILIES[kind].problem(arrays, golden_rows.shape[1]):
        raise Unpackable(f"the fitted {kind} cannot be run: {problem}. Look at its training rows, and train again")
    rows = np.ascontiguousarray(golden_rows, dtype=np.float64)
    rows = np.concatenate([rows, FAMILIES[kind].edge_rows(rows, arrays)])
    score = _reference_score(estimator, rows)
    files = {
        MODEL_FILE: bytes(skops.io.dumps(estimator)),
        FLAT_FILE: dump_arrays(arrays),
        GOLDEN_FILE: dump_arrays({"X": rows, "score": score}),
    }
    model = load_flat(files[FLAT_FILE], kind, rows.shape[1])
    _compare_golden(model, rows, score)
    return Packed(files, {name: sha256_of(value) for name, value in files.items()})


def _reference_score(estimator: Any, rows: NDArray[np.float64]) -> NDArray[np.float64]:
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):
        return np.ascontiguousarray(estimator.predict_proba(rows)[:, 1], dtype=np.float64)


def parity(packed: Packed, estimator: Any, rows: NDArray[np.float64]) -> Parity:
    """Compare the packed model, read back from its bytes, with the estimator on ``rows`` (shape ``(n, F)``)."""
    kind, _ = flatten(estimator)
    ours = load_flat(packed.files[FLAT_FILE], kind, rows.shape[1]).score(np.ascontiguousarray(rows, dtype=np.float64))
    theirs = _reference_score(estimator, rows)
    difference = float(np.max(np.abs(ours - theirs))) if len(rows) else 0.0
    return Parity(len(rows), difference, ours.tobytes() == theirs.tobytes(), FAMILIES[kind].tolerance)


def load(files: Mapping[str, bytes], sidecar: Sidecar, *, expected_feature_schema_hash: str) -> FlatModel:
    """Verify a version and give the model that live code may run; deserialises no objects.

    The order is part of the promise: digests of all files before any is parsed, then structure, then the feature
    schema, then the golden rows.

    Parameters
    ----------
    files : mapping of bytes
        ``model.skops``, ``flat.npz``, ``golden.npz``.
    sidecar : Sidecar
        The version's sidecar.
    expected_feature_schema_hash : str
        Hash of the features that the caller computes.

    Raises
    ------
    TamperedModel
        If a digest, a name, a dtype, a shape or a node does not fit.
    FeatureSchemaMismatch
        If the model was trained on another feature schema.
    GoldenRowsDiffer
        If the golden rows score differently on this machine.
    """
    verify_digests(files, sidecar.artifact_sha256)
    n_features = len(sidecar.feature_schema)
    model = load_flat(files[FLAT_FILE], sidecar.algorithm, n_features, FLAT_FILE)
    golden = load_arrays(files[GOLDEN_FILE], _GOLDEN_LAYOUT, GOLDEN_FILE)
    rows, score = golden["X"], golden["score"]
    if rows.shape[1] != n_features or len(rows) != len(score) or len(rows) < MINIMUM_GOLDEN_ROWS:
        raise TamperedModel(f"{GOLDEN_FILE} has rows {rows.shape} and {len(score)} scores for {n_features} features")
    if sidecar.feature_schema_hash != expected_feature_schema_hash:
        raise FeatureSchemaMismatch(
            f"{sidecar.model_name} was trained on feature schema {sidecar.feature_schema_hash[:16]}…, this process "
            f"computes {expected_feature_schema_hash[:16]}…. Train the model on the current features, or run the code "
            "that it was trained with."
        )
    _compare_golden(model, np.ascontiguousarray(rows), score)
    return model


def _compare_golden(model: FlatModel, rows: NDArray[np.float64], expected: NDArray[np.float64]) -> None:
    found = model.score(rows)
    tolerance = FAMILIES[model.kind].tolerance
    same = np.abs(found - expected) <= tolerance if tolerance else found.view(np.int64) == expected.view(np.int64)
    if not np.all(same):
        raise GoldenRowsDiffer(
            f"{int(np.sum(~same))} of {len(rows)} golden rows score differently from the trained model (largest "
            f"difference {float(np.nanmax(np.abs(found - expected))):.3g}). This platform or its library versions "
            "compute other numbers: train the model here, or run it where it was trained."
        )


def library_versions() -> dict[str, str]:
    """Versions of the libraries that decide what a score is."""
    import platform
    from importlib.metadata import version

    names = ("numpy", "scipy", "scikit-learn", "skops", "numba")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}
