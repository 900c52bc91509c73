"""A version that was proved, and what it says of feature rows: a side of its own, or a verdict on a rule's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from feature_store.features.schema import FeatureSchema
from feature_store.proposals.rules import Proposer, RuleFailed
from feature_store.proposals.seen import seen_from
from models_registry.refs import ModelIdentity


class ScoringModel(Protocol):
    """What a strategy needs of a model; a row's score depends on that row alone."""

    def score(self, X: NDArray[np.float64], /) -> NDArray[np.float64]:  # noqa: N803
        """Score feature rows ``(n, F)`` in schema order; shape ``(n,)``, finite for finite rows."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class LoadedModel:
    """A version that was proved and is ready to score."""

    identity: ModelIdentity
    schema: FeatureSchema
    model: ScoringModel
    buy_threshold: float
    """Open long at or above. Of a model that judges proposals: accept at or above."""
    sell_threshold: float | None
    """Open short at or below. None of a model that judges proposals."""
    artifact_sha256: str = ""
    sidecar_sha256: str = ""
    training_end_ns: int = 0
    """When the last label that it was trained on ended; a session that opened before is no test of it."""


def said(model: LoadedModel, rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Score rows by a model that says the side: scores and sides."""
    score, sell = model.model.score(rows), model.sell_threshold
    side = (score >= model.buy_threshold).astype(np.int8)
    return score, side if sell is None else np.where(side == 0, -(score <= sell).astype(np.int8), side)


def judged(
    model: LoadedModel, proposer: Proposer, rows: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int8], str]:
    """Let a model judge what the rule proposes at rows: scores, NaN where it proposes nothing, and accepted sides.

    A row at which the rule fails proposes nothing, and what was wrong with the first of them is the third value.
    """
    side, failed = _proposed(proposer, rows, model)
    score = np.full(len(rows), np.nan)
    asked = np.flatnonzero(side)
    if len(asked):
        score[asked] = model.model.score(seen_from(side[asked], rows[asked], model.schema))
    return score, np.where(score >= model.buy_threshold, side, np.int8(0)), failed


def _proposed(proposer: Proposer, rows: NDArray[np.float64], model: LoadedModel) -> tuple[NDArray[np.int8], str]:
    try:
        return proposer.sides(rows, model.schema), ""
    except RuleFailed as failed:
        if len(rows) == 1:
            return np.zeros(1, dtype=np.int8), str(failed)
    found = [_proposed(proposer, rows[row : row + 1], model) for row in range(len(rows))]
    return np.concatenate([side for side, _ in found]), next((failed for _, failed in found if failed), "")
