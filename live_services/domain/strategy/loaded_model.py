"""A version that was proved, and what it says of feature rows: a side of its own, or a verdict on a rule's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from feature_store.features.schema import FeatureSchema
from feature_store.proposals.rules import Proposer, RuleFailed
from feature_store.proposals.seen import seen_from
from models_registry.refs import Alias, ModelIdentity, overruled


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
    refused_by: Mapping[Alias, tuple[str, ...]] = field(default_factory=dict)
    """Checks that it failed, by the rung whose gate asked them; where it runs there, a person overruled the gate."""

    def against_gate(self, rung: Alias) -> str:
        """Say that its gate refused it for a rung; empty if it did not."""
        return overruled(self.refused_by.get(rung, ()))


@dataclass(frozen=True, slots=True)
class RuleFailures:
    """At how many rows a rule failed, and what was wrong with the first; such rows propose nothing."""

    rows: int
    first: str

    def __add__(self, later: RuleFailures) -> RuleFailures:
        """Take those of later rows in."""
        return RuleFailures(self.rows + later.rows, self.first)

    def __str__(self) -> str:
        """Say it in words that change with each further power of ten only, since each change is told on the log."""
        many = f"{10 ** (len(str(self.rows)) - 1):,} rows or more" if self.rows > 1 else "1 row"
        return f"its rule failed on {many}, which proposed nothing; the first: {self.first}"


def said(model: LoadedModel, rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int8]]:
    """Score rows by a model that says the side: scores and sides."""
    score, sell = model.model.score(rows), model.sell_threshold
    side = (score >= model.buy_threshold).astype(np.int8)
    return score, side if sell is None else np.where(side == 0, -(score <= sell).astype(np.int8), side)


def judged(
    model: LoadedModel, proposer: Proposer, rows: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.int8], RuleFailures | None]:
    """Let a model judge what the rule proposes at rows: scores, NaN where it proposes nothing, and accepted sides.

    Rows at which the rule fails propose nothing, and are counted in the third value; None if there is none.
    """
    side, failed = _proposed(proposer, rows, model)
    score = np.full(len(rows), np.nan)
    asked = np.flatnonzero(side)
    if len(asked):
        score[asked] = model.model.score(seen_from(side[asked], rows[asked], model.schema))
    return score, np.where(score >= model.buy_threshold, side, np.int8(0)), failed


def _proposed(
    proposer: Proposer, rows: NDArray[np.float64], model: LoadedModel
) -> tuple[NDArray[np.int8], RuleFailures | None]:
    try:
        return proposer.sides(rows, model.schema), None
    except RuleFailed as failed:
        if len(rows) == 1:
            return np.zeros(1, dtype=np.int8), RuleFailures(1, str(failed))
    found = [_proposed(proposer, rows[row : row + 1], model) for row in range(len(rows))]
    amiss = [failures for _, failures in found if failures is not None]
    return np.concatenate([side for side, _ in found]), RuleFailures(len(amiss), amiss[0].first)
