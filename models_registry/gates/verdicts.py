"""The gates: which checks a rung asks for, and the verdict on a candidate. Pure.

``champion`` asks for *skill*: a ranking and a direction better than the base rate, out of sample, clustered by session,
by a model that is no leak and better than the champion; that its trades earn is a warning, so that costs do not hide
what the statistics say. ``live`` asks for *economics*: that the trades of sessions that no model had seen earn more
than they cost, more than luck would after so many tries, for long enough, without falling too deep or being too much
of the market. It opens real money to a person's word, never by itself.

A verdict is on what was judged together: the model, the configuration that its strategy traded by, the account's limits
and what made the bars.
"""

from __future__ import annotations

from typing import Final, Literal

from models_registry.gates import checks, economics_checks
from models_registry.gates.evidence import Evidence
from models_registry.gates.limits import GateLimits
from models_registry.refs import GateResult

GatedRung = Literal["champion", "live"]

SKILL: Final[tuple[checks.Check, ...]] = tuple(checks.shows_skill(*pair) for pair in checks.SKILL_STATISTICS)
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
    "live": (
        checks.trades_earn,
        checks.enough_trades,
        economics_checks.beats_the_tries,
        economics_checks.record_is_long_enough,
        economics_checks.choice_is_not_overfitted,
        economics_checks.falls_not_too_deep,
        economics_checks.small_beside_the_market,
    ),
}
_WARNINGS: Final[dict[GatedRung, tuple[checks.Check, ...]]] = {
    # a model too sure of itself ranks all the same: as a condition the log loss hides a third of what is seen
    "champion": (checks.log_loss_below_naive, checks.trades_earn, checks.enough_trades, checks.same_bar_source),
    "live": (checks.same_bar_source, economics_checks.holdout_is_fresh),
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
