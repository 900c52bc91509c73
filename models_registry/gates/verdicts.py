"""The gates: which checks a rung asks for, and the verdict on a candidate. Pure.

``champion`` asks for *skill*: a ranking and a direction better than the base rate, out of sample, clustered by session,
by a model that is no leak and better than the champion; that its trades earn is a warning, so that costs do not hide
what the statistics say. ``live`` asks for *economics*, which is not built whole yet: a person's word is needed.
"""

from __future__ import annotations

from typing import Final, Literal

from models_registry.gates import checks
from models_registry.gates.evidence import Evidence
from models_registry.gates.limits import GateLimits
from models_registry.refs import GateResult

GatedRung = Literal["champion", "live"]

SKILL: Final[tuple[checks.Check, ...]] = tuple(checks.shows_skill(statistic) for statistic in checks.SKILL_STATISTICS)
"""The skill checks alone; on markets without an edge they are what keeps a model out."""

_BLOCKING: Final[dict[GatedRung, tuple[checks.Check, ...]]] = {
    "champion": (
        checks.finite_metrics,
        checks.enough_test_rows,
        checks.no_leak,
        *SKILL,
        checks.auc_plausible,
        checks.no_feature_carries_it,
        checks.skill_outlives_a_bar,
        checks.better_than_champion,
        checks.packed_parity,
    ),
    "live": (checks.trades_earn, checks.enough_trades, checks.economics_complete),
}
_WARNINGS: Final[dict[GatedRung, tuple[checks.Check, ...]]] = {
    # a model too sure of itself ranks all the same: as a condition the log loss hides a third of what is seen
    "champion": (checks.log_loss_below_naive, checks.trades_earn, checks.enough_trades, checks.same_bar_source),
    "live": (checks.same_bar_source,),
}


def judge(
    evidence: Evidence, rung: GatedRung, limits: GateLimits, *, champion_version: str | None = None
) -> GateResult:
    """Judge a candidate for a rung.

    Parameters
    ----------
    evidence : Evidence
        Everything that was found out about it.
    rung : {'champion', 'live'}
    limits : GateLimits
        The rung's.
    champion_version : str, optional
        The version that ``evidence.champion`` compares with; ``promote`` refuses the verdict once another holds the
        alias.
    """
    blocking = tuple(check(evidence, limits) for check in _BLOCKING[rung])
    warning = tuple(check(evidence, limits).model_copy(update={"blocking": False}) for check in _WARNINGS[rung])
    return GateResult(rung=rung, checks=blocking + warning, judged_against=champion_version)
