"""A model that says how long each of its calls took; what it answers is the model's own."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from live_services.domain.strategy.loaded_model import ScoringModel

Inferred = Callable[[str, int, float], None]
"""``(strategy, rows, seconds)``: hears of each call."""


class TimedModel:
    """A strategy's model, watched.

    Parameters
    ----------
    model
    strategy
        Who asks it.
    inferred
        Hears of each call; returns at once and never raises.
    """

    def __init__(self, model: ScoringModel, strategy: str, inferred: Inferred) -> None:
        self._model: Final = model
        self._strategy: Final = strategy
        self._inferred: Final = inferred

    def score(self, X: NDArray[np.float64], /) -> NDArray[np.float64]:  # noqa: N803
        """Score feature rows, as the model does."""
        begun = time.perf_counter()
        scores = self._model.score(X)
        self._inferred(self._strategy, len(X), time.perf_counter() - begun)
        return scores
