"""A candidate against the version that holds the rung: when there is something to beat, and how it is compared. Pure.

A champion's market is its instruments and the digests of its sessions, never the name of a file. It is the candidate's
if instruments overlap and more than half of the dates that both have are the same sessions; a champion of another
market is nothing to beat, except that generated data never replaces real.

* The same recipe scores the same, so where something about it is new, a later session, its folds, thresholds or the
  version of a feature, there is nothing to beat: the skill checks decide.
* Another recipe must be better: the champion's recipe is run in the candidate's folds, and both are compared on the
  decisions that both made, paired and clustered by session.
* Where the recipe cannot be run (a version-1 sidecar), the champion's registered model scores the rows later than its
  training end plus the embargo, which neither it nor the candidate's fold had seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import is_generated
from models_registry.agreement import label_difference, proposals_difference
from models_registry.gates.evidence import NO_CHAMPION, ChampionComparison
from models_registry.sidecar import DataLineage, Sidecar
from models_registry.specification import StrategySpec
from models_registry.validation.pairing import paired_rows
from models_registry.validation.statistics import ranking_difference
from models_registry.validation.trade_skill import gain_ranking_difference

_BESIDE_THE_RECIPE: Final = ("folds", "embargo_sessions", "buy_quantile", "sell_quantile", "accept_quantile")

Floats = NDArray[np.float64]


class ScoredRows(Protocol):
    """Scores of decisions, arrays of shape ``(m,)``; `training.OutOfFold` is one."""

    @property
    def score(self) -> Floats:
        """Probability of an up move."""
        ...

    @property
    def base_rate(self) -> Floats:
        """Share of up moves in the training rows of the row's model."""
        ...

    @property
    def decision_ns(self) -> NDArray[np.int64]:
        """The decision."""
        ...

    @property
    def instrument(self) -> NDArray[np.int32]:
        """Index of its instrument, in one universe for all that is compared."""
        ...


class TestedRows(ScoredRows, Protocol):
    """Scored decisions with what came of them."""

    @property
    def up(self) -> Floats:
        """1, 0, or 0.5 for a return of zero."""
        ...

    @property
    def weight(self) -> Floats:
        """Of the row."""
        ...

    @property
    def gain(self) -> Floats:
        """What the trade gained, where rows are proposals."""
        ...

    @property
    def day(self) -> NDArray[np.int64]:
        """Its session, as an IST day counted from the epoch."""
        ...


def settled(
    champion: Sidecar | None,
    version: str | None,
    spec: StrategySpec,
    lineage: DataLineage,
    instruments: Sequence[str],
) -> ChampionComparison | None:
    """Say how a candidate stands where no score has to be compared; None where one must.

    Parameters
    ----------
    champion, version
        What holds the rung now.
    spec : StrategySpec
        The candidate's specification.
    lineage : DataLineage
        The sessions that the candidate was trained on.
    instruments : sequence of str
        The symbols that it was trained on.
    """
    if champion is None:
        return NO_CHAMPION
    who = f"champion v{version}"
    generated = champion.lineage.generated if champion.lineage else is_generated(champion.market)
    if lineage.generated and not generated:
        how = f"{who} was trained on real data; generated data does not replace it"
        return ChampionComparison(outcome="not_better", how=how)
    if generated and not lineage.generated:
        how = f"{who} was trained on generated data: the skill checks decide"
        return ChampionComparison(outcome="nothing_to_beat", how=how)
    if reason := _no_rival(champion, spec, lineage, instruments):
        return ChampionComparison(outcome="nothing_to_beat", how=f"{who} {reason}: the skill checks decide")
    theirs = _as_read_today(champion)
    if theirs is None or theirs.recipe_digest() != spec.recipe_digest():
        return None
    return _same_recipe(champion, theirs, who, spec, lineage)


def _same_recipe(
    champion: Sidecar, theirs: StrategySpec, who: str, spec: StrategySpec, lineage: DataLineage
) -> ChampionComparison:
    new = _new(champion, theirs, spec, lineage)
    if not new:
        how = f"the same recipe as {who}, trained to {max(lineage.sessions)} and no further than it: nothing new"
        return ChampionComparison(outcome="not_better", how=how)
    how = f"the same recipe as {who}, {', '.join(new)}: the skill checks decide"
    return ChampionComparison(outcome="nothing_to_beat", how=how)


def _no_rival(champion: Sidecar, spec: StrategySpec, lineage: DataLineage, instruments: Sequence[str]) -> str:
    """Say why a champion is no rival: it is not loaded for the strategy, or of another market; empty if it is one."""
    if differs := label_difference(champion, spec) or proposals_difference(champion, spec):
        return f"foretells something else than this strategy trades ({differs}), and is not loaded"
    if champion.lineage is None:  # version 1 does not say
        return ""
    common = set(instruments) & set(champion.instruments)
    if not common:
        return "is of another market, with none of these instruments"
    theirs = champion.lineage.sessions
    dates = lineage.sessions.keys() & theirs.keys()
    other = sum(lineage.sessions[date] != theirs[date] for date in dates)
    if dates and 2 * other >= len(dates):
        return f"is of another market, with other bars in {other} of {len(dates)} sessions"
    if not dates and 2 * len(common) <= len({*instruments, *champion.instruments}):
        return "is of another market, with other sessions and mostly other instruments"
    return ""


def _as_read_today(champion: Sidecar) -> StrategySpec | None:
    """Its specification, if this code can still make its recipe."""
    try:
        theirs = StrategySpec.of_model(champion.specification)
        theirs.feature_schema()
    except ValueError:  # ValidationError, UnknownFeature
        return None
    return theirs


def _new(champion: Sidecar, theirs: StrategySpec, spec: StrategySpec, lineage: DataLineage) -> list[str]:
    """Say what is new about a candidate of the champion's recipe."""
    new = []
    through, before = max(lineage.sessions), champion.train_through
    if through > before:
        new.append(f"trained to {through} instead of {before}")
    sessions = champion.lineage.sessions if champion.lineage else {}
    if changed := sum(lineage.sessions[date] != sessions[date] for date in lineage.sessions.keys() & sessions.keys()):
        new.append(f"with other bars now in {changed} of the sessions that it was trained on")
    if differing := [name for name in _BESIDE_THE_RECIPE if getattr(theirs, name) != getattr(spec, name)]:
        new.append(f"with other {' and '.join(differing)}")
    if champion.recipe_digest != theirs.recipe_digest():
        new.append("with newer versions of its features")
    return new


def not_comparable(version: str | None, reason: str) -> ChampionComparison:
    """Say why a candidate could not be compared with the champion; the check fails with it."""
    how = f"champion v{version} cannot be compared: {reason}"
    return ChampionComparison(outcome="not_comparable", how=how)


def compare_in_folds(
    candidate: TestedRows, champion: ScoredRows, version: str | None, *, judged: bool = False
) -> ChampionComparison:
    """Compare with what the champion's recipe said of the same decisions in the same folds.

    ``judged`` says that rows are proposals, which are weighed by what their trades gained.
    """
    how = f"the recipe of champion v{version}, run in the same folds"
    return _compare(candidate, champion, np.ones(len(candidate.day), dtype=np.bool_), version, how, judged=judged)


def compare_on_later_rows(
    candidate: TestedRows,
    champion: ScoredRows,
    version: str | None,
    *,
    trained_through_day: int,
    embargo_sessions: int,
    minimum_sessions: int,
    judged: bool = False,
) -> ChampionComparison:
    """Compare with what the champion's registered model says of decisions later than it knows anything of.

    Parameters
    ----------
    candidate : TestedRows
        Out of fold.
    champion : ScoredRows
        The registered model's scores; rows that it may know are left out here.
    version : str or None
        The champion's.
    trained_through_day : int
        The last session that the champion's labels reach, as an IST day counted from the epoch.
    embargo_sessions : int
        Sessions after it that are left out.
    minimum_sessions : int
        Fewer cannot be compared.
    judged : bool
        Rows are proposals, which are weighed by what their trades gained.
    """
    later = np.unique(candidate.day[candidate.day > trained_through_day])[embargo_sessions:]
    if len(later) < minimum_sessions:
        reason = (
            f"its recipe cannot be run, and {len(later)} sessions of the test are later than its training, at least "
            f"{minimum_sessions} are needed; promote by name and reason, or train when there are more"
        )
        return not_comparable(version, reason)
    how = f"the registered model of champion v{version}, on sessions later than its training"
    return _compare(candidate, champion, np.isin(candidate.day, later), version, how, judged=judged)


def _compare(
    candidate: TestedRows,
    champion: ScoredRows,
    mine: NDArray[np.bool_],
    version: str | None,
    how: str,
    *,
    judged: bool,
) -> ChampionComparison:
    kept = np.flatnonzero(mine)
    rows, theirs = paired_rows(
        candidate.decision_ns[kept], candidate.instrument[kept], champion.decision_ns, champion.instrument
    )
    if not len(rows):
        return not_comparable(version, "the two have no decision in common")
    ours = kept[rows]
    scores = (candidate.score[ours], candidate.base_rate[ours], champion.score[theirs], champion.base_rate[theirs])
    if judged:
        bound = gain_ranking_difference(*scores, candidate.gain[ours], candidate.day[ours])
    else:
        bound = ranking_difference(*scores, candidate.up[ours], candidate.weight[ours], candidate.day[ours])
    return ChampionComparison(
        outcome="compared",
        how=how,
        improvement=bound.estimate,
        lower_bound=bound.lower,
        confidence=bound.confidence,
        rows=len(ours),
        sessions=bound.sessions,
    )
