"""The checks of the gates: each looks at the evidence and the rung's limits and says what it saw and what it asks for.

Pure. The figure that is shown is the figure that is judged, with as many digits as it takes to see which side of the
limit it is on. A check that cannot be made fails and says why.
"""

from __future__ import annotations

import datetime as dt
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from feature_store.market.types import IST
from models_registry.gates.evidence import Evidence
from models_registry.gates.limits import GateLimits
from models_registry.refs import FoldResult, GateCheck, bars_in_words

Check = Callable[[Evidence, GateLimits], GateCheck]

_NO_TRADES: Final = "no trades were made of it"
_MOST_DIGITS: Final = 17  # a float64 has no more


@dataclass(frozen=True, slots=True)
class SkillStatistic:
    """A statistic of skill by the names of its metrics; a model must show it in its lower bound."""

    check: str
    words: str
    value: str
    lower_bound: str
    smallest_visible: str
    """The smallest value that would have been seen with the sessions there were."""
    chance: float


SKILL_STATISTICS: Final = (
    (
        SkillStatistic("ranks_above_chance", "AUC", "auc", "auc_lower_bound", "smallest_visible_auc", 0.5),
        SkillStatistic(
            "ranks_above_chance",
            "AUC weighed by gains",
            "gain_auc",
            "gain_auc_lower_bound",
            "smallest_visible_gain_auc",
            0.5,
        ),
    ),
    (
        SkillStatistic(
            "direction_above_chance",
            "hits above the base rate",
            "hit_surplus",
            "hit_surplus_lower_bound",
            "smallest_visible_hit_surplus",
            0.0,
        ),
        SkillStatistic(
            "direction_above_chance",
            "volatilities a trade gained by its lean above the base",
            "gain_surplus",
            "gain_surplus_lower_bound",
            "smallest_visible_gain_surplus",
            0.0,
        ),
    ),
)
"""All of them must hold: of a model that says the side itself the first of each pair (`validation.statistics.skill`),
of one that judges proposals the second (`validation.trade_skill.trade_skill`), which its metrics then have."""
SKILL_CONFIDENCE: Final = "skill_confidence"


def shown(value: float, limit: float, digits: int = 4) -> tuple[str, str]:
    """Write a figure and its limit with as many digits as tell them apart, at least ``digits``."""
    while round(value, digits) == round(limit, digits) and value != limit and digits < _MOST_DIGITS:
        digits += 1
    return f"{value:.{digits}f}", f"{limit:.{digits}f}"


def finite_metrics(evidence: Evidence, _limits: GateLimits) -> GateCheck:
    """Every metric is a number."""
    bad = sorted(name for name, value in evidence.metrics.items() if not math.isfinite(value))
    observed = f"not finite: {', '.join(bad)}" if bad else "all finite" if evidence.metrics else "no metrics"
    return GateCheck(
        name="finite_metrics",
        passed=not bad and bool(evidence.metrics),
        observed=observed,
        required="every metric is a number",
    )


def enough_test_rows(evidence: Evidence, limits: GateLimits) -> GateCheck:
    """There is enough that the model had not seen."""
    rows, sessions = (evidence.metrics.get(name, math.nan) for name in ("rows", "test_sessions"))
    return GateCheck(
        name="enough_test_rows",
        passed=rows >= limits.minimum_test_rows and sessions >= limits.minimum_test_sessions,
        observed=f"{rows:.0f} rows in {sessions:.0f} sessions",
        required=f"≥ {limits.minimum_test_rows} out-of-fold rows in ≥ {limits.minimum_test_sessions} sessions",
    )


def no_leak(evidence: Evidence, _limits: GateLimits) -> GateCheck:
    """No training label, and no session of the embargo, reaches into a test."""
    folds, embargo = evidence.folds, evidence.embargo_sessions
    leaking = [fold.fold for fold in folds if fold.train_end_ns > fold.test_start_ns]
    near = [fold.fold for fold in folds if _sessions_between(fold, evidence.sessions) < embargo]
    overlapping = [
        after.fold for before, after in itertools.pairwise(folds) if before.test_end_ns > after.test_start_ns
    ]
    observed = "every training label ends before its test begins"
    if not folds:
        observed = "no folds"
    elif leaking:
        observed = f"training labels reach into the test of folds {leaking}"
    elif near:
        observed = f"fewer than {embargo} sessions lie between training and test of folds {near}"
    elif overlapping:
        observed = f"tests of folds {overlapping} overlap the ones before"
    return GateCheck(
        name="no_leak",
        passed=bool(folds) and not leaking and not near and not overlapping,
        observed=observed,
        required="train end" + (f" + {embargo} sessions" if embargo else "") + " ≤ test start, tests in order",
    )


def _sessions_between(fold: FoldResult, sessions: tuple[str, ...]) -> int:
    trained, tested = _date(fold.train_end_ns - 1), _date(fold.test_start_ns)
    return sum(trained < date < tested for date in sessions)


def _date(time_ns: int) -> str:
    return f"{dt.datetime.fromtimestamp(time_ns // 1_000_000_000, IST):%Y-%m-%d}"


def shows_skill(of_moves: SkillStatistic, of_trades: SkillStatistic) -> Check:
    """Make the check of one statistic of skill: its lower bound over sessions is above chance."""

    def check(evidence: Evidence, _limits: GateLimits) -> GateCheck:
        statistic = of_trades if of_trades.value in evidence.metrics else of_moves
        value, bound, confidence, smallest = (
            evidence.metrics.get(name, math.nan)
            for name in (statistic.value, statistic.lower_bound, SKILL_CONFIDENCE, statistic.smallest_visible)
        )
        bound_text, chance_text = shown(bound, statistic.chance)
        sessions = evidence.metrics.get("test_sessions", math.nan)
        seen = f"with {sessions:.0f} sessions {smallest:.4f} is seen 4 times in 5"
        return GateCheck(
            name=statistic.check,
            passed=bound > statistic.chance,
            observed=f"{statistic.words} {value:.4f}, {100 * confidence:g}% lower bound {bound_text}",
            required=f"lower bound > {chance_text}, clustered by session; {seen}",
        )

    return check


def log_loss_below_naive(evidence: Evidence, _limits: GateLimits) -> GateCheck:
    """The scores are worth more as probabilities than the base rate is."""
    ours, naive = (evidence.metrics.get(name, math.nan) for name in ("log_loss", "naive_log_loss"))
    ours_text, naive_text = shown(ours, naive, 6)
    return GateCheck(
        name="log_loss_below_naive",
        passed=ours < naive,
        observed=f"log loss {ours_text}",
        required=f"< {naive_text}, the loss of always saying the training base rate",
    )


def auc_plausible(evidence: Evidence, limits: GateLimits) -> GateCheck:
    """The ranking is not better than any is."""
    auc = evidence.metrics.get("auc", math.nan)
    auc_text, limit_text = shown(auc, limits.maximum_auc)
    return GateCheck(
        name="auc_plausible",
        passed=auc <= limits.maximum_auc,
        observed=f"AUC {auc_text}",
        required=f"≤ {limit_text}: a higher one means that a feature has seen the label",
    )


def no_feature_carries_it(evidence: Evidence, limits: GateLimits) -> GateCheck:
    """No single feature tells so much that no other does: a feature that has seen the label does.

    Where the fair shares that are allowed are all the skill there is, it cannot fail, and is a warning instead.
    """
    found = evidence.plausibility
    allowed = limits.maximum_feature_importance / found.features if found else math.nan
    check = _plausible(
        "no_feature_carries_it",
        evidence,
        limits,
        value=found.importance if found else math.nan,
        limit=allowed,
        below=True,
        words=f"{found.feature} alone carries {{}} of the skill (AUC less 0.5)" if found else "",
        asked=f"≤ {{}}, {limits.maximum_feature_importance:g} fair shares: more is what a feature that has seen the "
        "label looks like",
    )
    if found is None or found.auc < limits.suspicious_auc or allowed < 1.0:
        return check
    seen = (
        f"cannot be made with so few features: {limits.maximum_feature_importance:g} fair shares of {found.features} "
        f"are all the skill; {check.observed}"
    )
    return check.model_copy(update={"passed": False, "blocking": False, "observed": seen})


def skill_outlives_a_bar(evidence: Evidence, limits: GateLimits) -> GateCheck:
    """The same scores are of use one bar later: what a leak knows of the next bar is gone by then.

    Of a rule's proposals it cannot be asked, and is a warning instead.
    """
    found = evidence.plausibility
    check = _plausible(
        "skill_outlives_a_bar",
        evidence,
        limits,
        value=found.shift_retention if found else math.nan,
        limit=limits.minimum_shift_retention,
        below=False,
        words=f"{{}} of the skill is left on the labels of one bar later ({found.shifted_rows} rows)" if found else "",
        asked="≥ {}: skill fades, knowledge of the next bar is gone at once",
    )
    if found is None or not found.events or found.auc < limits.suspicious_auc:
        return check
    seen = f"AUC {found.auc:.4f}, and it cannot be asked: a rule proposes nothing one bar later; look at its features"
    return check.model_copy(update={"passed": False, "blocking": False, "observed": seen})


def _plausible(
    name: str,
    evidence: Evidence,
    limits: GateLimits,
    *,
    value: float,
    limit: float,
    below: bool,
    words: str,
    asked: str,
) -> GateCheck:
    value_text, limit_text = shown(value, limit, 2)
    required = asked.format(limit_text)
    found = evidence.plausibility
    if found is None:
        return GateCheck(name=name, passed=False, observed="it was not looked for", required=required)
    if found.auc < limits.suspicious_auc:
        auc_text, from_text = shown(found.auc, limits.suspicious_auc)
        observed = f"AUC {auc_text}: too little to tell a leak from skill"
        return GateCheck(name=name, passed=True, observed=observed, required=f"{required}; from AUC {from_text} on")
    if math.isnan(value):
        observed = "too few rows have a row of their instrument one bar later"
        return GateCheck(name=name, passed=False, observed=observed, required=required)
    passed = value <= limit if below else value >= limit
    return GateCheck(name=name, passed=passed, observed=words.format(value_text), required=required)


def better_than_champion(evidence: Evidence, _limits: GateLimits) -> GateCheck:
    """It is better than what holds the rung, where there is something to beat."""
    found, name = evidence.champion, "better_than_champion"
    if found.outcome != "compared":
        passed = found.outcome == "nothing_to_beat"
        required = "nothing to beat" if passed else "a lower bound > 0 of the difference to the champion"
        return GateCheck(name=name, passed=passed, observed=found.how, required=required)
    bound_text, none_text = shown(found.lower_bound, 0.0)
    return GateCheck(
        name=name,
        passed=found.lower_bound > 0.0,
        observed=f"AUC {found.improvement:+.4f} to it, {found.confidence:.0%} lower bound {bound_text}; {found.how}",
        required=f"lower bound > {none_text}, paired on {found.rows} rows of {found.sessions} sessions",
    )


def packed_parity(evidence: Evidence, _limits: GateLimits) -> GateCheck:
    """The packed model says what the trained one said."""
    parity = evidence.parity
    within = (
        f"≤ {parity.allowed_difference:g} from the estimator's scores" if parity.allowed_difference else "the scores"
    )
    return GateCheck(
        name="packed_parity",
        passed=parity.holds,
        observed="bit-equal" if parity.bit_equal else f"differs by up to {parity.largest_difference:.3g}",
        required=f"{within} of {parity.rows} rows",
    )


def same_bar_source(evidence: Evidence, _limits: GateLimits) -> GateCheck:
    """The bars it trades on are made as those that it was trained on."""
    trained, trades = evidence.bar_source, evidence.trades_on
    same = trained == trades != "unknown"
    return GateCheck(
        name="bar_source",
        passed=same,
        observed=f"trained on {bars_in_words(trained)}" + ("" if same else f", trades on {bars_in_words(trades)}"),
        required=f"{bars_in_words(trades)}, as it trades on; another source is a warning: compare the bars",
    )


def trades_earn(evidence: Evidence, limits: GateLimits) -> GateCheck:
    """A trade of the account earns more than it costs."""
    found, limit = evidence.trades, limits.minimum_net_expectancy_bps
    net = found.net_expectancy_bps if found else math.nan
    net_text, limit_text = shown(net, limit, 2)
    observed = _NO_TRADES
    if found is not None and found.trades:
        observed = (
            f"{net_text} bps a trade net, {found.gross_expectancy_bps:.2f} before costs, ₹{found.net_pnl_inr:,.0f} in "
            f"all; long {found.long_net_expectancy_bps:.2f}, short {found.short_net_expectancy_bps:.2f}"
        )
        if found.left_open:
            observed += f"; {found.left_open} left open where bars ended, at the last price"
    return GateCheck(
        name="trades_earn",
        passed=net > limit,
        observed=observed,
        required=f"> {limit_text} bps of its entry's notional, next-open fills and costs included",
    )


def enough_trades(evidence: Evidence, limits: GateLimits) -> GateCheck:
    """There are enough trades for their mean to say something."""
    found = evidence.trades
    observed = _NO_TRADES
    if found is not None:
        refused = sum(found.entries_refused.values())
        observed = (
            f"{found.trades} trades in {found.sessions} sessions ({found.long_trades} long, {found.short_trades} short)"
            f"; {refused} of {found.entries_proposed} entries refused by risk, {found.left_open} left open"
        )
    return GateCheck(
        name="enough_trades",
        passed=found is not None and found.trades >= limits.minimum_trades,
        observed=observed,
        required=f"≥ {limits.minimum_trades} trades",
    )
