"""What a family of estimators gives: everything that training, packing and live scoring need to know of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[Any]]
Layout = Mapping[str, tuple[str, int]]
"""dtype and number of dimensions of every array, by name."""

FORMAT_VERSION: Final = 1
COMMON: Final = {"format_version": ("<i8", 0), "n_features": ("<i8", 0)}


@dataclass(frozen=True)
class Span:
    """Where a search looks for a hyperparameter; both ends included, whole numbers if both ends are."""

    low: float
    high: float
    log: bool = False
    """Whether equal ratios are equally likely, and not equal differences."""


class Unpackable(TypeError):
    """A fitted estimator without a flat form, which live code could not run; the message says why and what to train."""


class Family(Protocol):
    """One family; its modules import scikit-learn only inside functions, so that live processes never do."""

    @property
    def layout(self) -> Layout:
        """The arrays of its flat form."""
        ...

    @property
    def tolerance(self) -> float:
        """Largest difference of our score to scikit-learn's own probability; 0 asks for equal bits."""
        ...

    def build(self, seed: int, rows: int, hyperparameters: Mapping[str, bool | int | float]) -> Any:
        """Give an unfitted estimator for so many training rows, hyperparameters laid over the defaults."""
        ...

    def fit(self, estimator: Any, X: NDArray[np.float64], up: NDArray[np.bool_], weight: NDArray[np.float64]) -> Any:  # noqa: N803
        """Fit it on rows ``(n, F)`` with weights ``(n,)`` of mean 1; give it back."""
        ...

    def refuse_values(self, estimator: Any) -> None:
        """Raise ValueError, with scikit-learn's sentence, if a hyperparameter has a value that a fit would refuse."""
        ...

    def hyperparameters(self, estimator: Any) -> dict[str, Any]:
        """Give every hyperparameter of an estimator, by scikit-learn's names."""
        ...

    def search_space(self) -> Mapping[str, Span]:
        """Hyperparameters that a small search tries; none that counts rows, of which a search sees few."""
        ...

    def made(self, estimator: Any) -> bool:
        """Whether an estimator is of the kind that this family builds."""
        ...

    def flatten(self, estimator: Any) -> Arrays:
        """Take a fitted estimator apart; raises Unpackable for one that is not as this family builds it."""
        ...

    def problem(self, arrays: Arrays, n_features: int) -> str | None:
        """Say why the walker may not run on these arrays, or None."""
        ...

    def edge_rows(self, rows: NDArray[np.float64], arrays: Arrays) -> NDArray[np.float64]:
        """Rows, made of finite ones ``(n, F)``, at which a score jumps: what realistic rows would leave untried."""
        ...

    def compile(self) -> None:
        """Fill numba's cache, so that the first score of a live process does not wait for a compiler."""
        ...

    def probability(self, X: NDArray[np.float64], arrays: Arrays) -> NDArray[np.float64]:  # noqa: N803
        """Probability of an up move for each row of a C-ordered ``(n, F)``, whatever its batch; shape ``(n,)``.

        A row that scikit-learn would refuse scores NaN.
        """
        ...


def misfit(arrays: Arrays, layout: Layout) -> str | None:
    """Say which array of a layout is missing, unexpected, or of another dtype or number of dimensions, or None."""
    if arrays.keys() != layout.keys():
        return f"it holds {sorted(arrays)}, expected {sorted(layout)}"
    for name, (dtype, ndim) in layout.items():
        found = arrays[name]
        if found.dtype.str != dtype or found.ndim != ndim:
            return f"{name} is {found.dtype.str} with {found.ndim} axes, expected {dtype}, {ndim}"
    return None


def plain_values(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Keep the parameters that are plain values, as JSON has them."""
    return {name: value for name, value in parameters.items() if isinstance(value, bool | int | float | str | None)}


def refuse_other_classes(estimator: Any) -> None:
    """Refuse what does not tell two classes apart, or was not fitted.

    Raises
    ------
    Unpackable
        With the classes that it knows.
    """
    classes = getattr(estimator, "classes_", None)
    if classes is None:
        raise Unpackable(f"{type(estimator).__name__} is not fitted: fit it before it is packed")
    if len(classes) != 2:
        known = ", ".join(map(str, classes))
        raise Unpackable(
            f"{type(estimator).__name__} knows {len(classes)} {'class' if len(classes) == 1 else 'classes'} ({known}), "
            "a score tells two apart: train on whether a return is positive"
        )


def header(n_features: int) -> Arrays:
    """Arrays that every flat form begins with."""
    return {
        "format_version": np.array(FORMAT_VERSION, dtype=np.int64),
        "n_features": np.array(n_features, dtype=np.int64),
    }
