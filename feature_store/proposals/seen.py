"""Feature rows seen from the side of a trade: a short is judged as the long that it is in the mirror. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from feature_store.features.library import FeatureSpec
from feature_store.features.schema import FeatureSchema


class NotMirrored(ValueError):
    """A feature that does not say what becomes of it in a mirrored market."""


def seen_from(side: NDArray[np.int8], X: NDArray[np.float64], schema: FeatureSchema) -> NDArray[np.float64]:  # noqa: N803
    """Give feature rows as a trade on their side sees them.

    Parameters
    ----------
    side : array of int8, shape (n,)
        -1: the row is mirrored, feature by feature (`FeatureSpec.mirror`); any other: it stays as it is.
    X : array of float64, shape (n, F)
        Feature rows; they are not changed.
    schema : FeatureSchema
        What their columns mean.

    Returns
    -------
    array of float64, shape (n, F)
        NaN stays NaN.

    Raises
    ------
    NotMirrored
        If a row is to be mirrored and a feature declares no mirror image.
    """
    seen, short = np.array(X, dtype=np.float64, order="C"), np.asarray(side) == -1
    if not short.any():
        return seen
    require_mirrors(schema.features)
    mirrored = seen[short]
    for column, spec in enumerate(schema.features):
        if spec.mirror != "same":
            mirrored[:, column] = (0.0 if spec.top is None else spec.top) - mirrored[:, column]
    seen[short] = mirrored
    return seen


def require_mirrors(features: Sequence[FeatureSpec]) -> None:
    """Refuse features that a model cannot see from the side of a trade.

    Raises
    ------
    NotMirrored
        If one declares no mirror image; names all of them, and the way out.
    """
    if without := [spec.name for spec in features if spec.mirror == "none"]:
        raise NotMirrored(
            f"{', '.join(without)}: nothing says what becomes of it where rises are falls, so no short can be judged "
            'by it; declare mirror="same", "sign" or "complement" of the feature, or leave it out of the strategy'
        )
