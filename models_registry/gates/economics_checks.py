"""The checks of economics: what real money asks of a record of trades. Pure; as `models_registry.gates.checks`."""

from __future__ import annotations

import math
from typing import Final

from models_registry.gates.checks import shown
from models_registry.gates.economics import CONFIDENCE, Economics
from models_registry.gates.evidence import Evidence
from models_registry.gates.limits import GateLimits
from models_registry.refs import GateCheck
from models_registry.validation.overfitting import NotApplicable

_NOT_JUDGED: Final = "no trades were judged"
_NO_RATIO: Final = "no Sharpe ratio: the sessions are fewer than three, or their profit never varies"


def beats_the_tries(evidence: Evidence, limits: GateLimits) -> GateCheck:
    """The Sharpe ratio is more than the best of so many tries without an edge would show."""
    found = evidence.economics
    probability = found.deflated.probability if found else math.nan
    text, limit = shown(probability, limits.minimum_deflated_sharpe, 2)
    return GateCheck(
        name="beats_the_tries",
        passed=probability >= limits.minimum_deflated_sharpe,
        observed=f"deflated Sharpe probability {text}: {_ratio(found)}" if found and _has(found) else _without(found),
        required=f"≥ {limit}, net of charges, over what luck makes of the tries",
    )


def record_is_long_enough(evidence: Evidence, _limits: GateLimits) -> GateCheck:
    """There are as many sessions as a ratio like this needs to be told from luck."""
    found = evidence.economics
    if found is None or not _has(found):
        observed, passed, needed = _without(found), False, ""
    elif math.isinf(found.track_record_sessions):
        observed, passed = f"{found.sessions} sessions: {_ratio(found)}", False
        needed = "; no number of sessions like these would do"
    else:
        passed, missing = found.sessions_missing == 0, found.sessions_missing
        observed = f"{found.sessions} sessions" if passed else f"{found.sessions} sessions, {missing:,.0f} too few"
        needed = f": {found.track_record_sessions:,.0f} sessions"
        needed += "" if passed else f", {missing:,.0f} more if they go on like these"
    required = f"the minimum track record, at {CONFIDENCE:.0%} above what luck makes of the tries{needed}"
    return GateCheck(name="record_is_long_enough", passed=passed, observed=observed, required=required)


def choice_is_not_overfitted(evidence: Evidence, limits: GateLimits) -> GateCheck:
    """To choose the best of the configurations was worth something; a warning where that cannot be asked."""
    name, found = "choice_is_not_overfitted", evidence.economics
    _, limit = shown(math.nan, limits.maximum_overfitting, 2)
    required = f"probability of overfitting ≤ {limit}, of choosing the best configuration on half of the sessions"
    if found is None:
        return GateCheck(name=name, passed=False, observed=_NOT_JUDGED, required=required)
    asked = found.overfitting
    if isinstance(asked, NotApplicable):
        observed = f"not applicable: {asked.reason}"
        return GateCheck(name=name, passed=False, observed=observed, required=required, blocking=False)
    text, limit = shown(asked.probability, limits.maximum_overfitting, 2)
    observed = (
        f"{text}, of {asked.configurations} configurations on {asked.sessions} sessions; the chosen one lost money in "
        f"{asked.loss_probability:.0%} of the other halves"
    )
    return GateCheck(
        name=name, passed=asked.probability <= limits.maximum_overfitting, observed=observed, required=required
    )


def falls_not_too_deep(evidence: Evidence, limits: GateLimits) -> GateCheck:
    """The account never fell too far below what it had been."""
    found = evidence.economics
    share = found.drawdown_share if found and found.sessions else math.nan
    text, limit = shown(100.0 * share, 100.0 * limits.maximum_drawdown, 2)
    observed = _NOT_JUDGED
    if found and found.sessions:
        fall = found.drawdown
        observed = (
            f"{text} % of ₹{found.capital_inr:,.0f} (₹{fall.largest_inr:,.0f}) at most; {fall.longest_under_water} "
            "sessions in a row below an earlier height"
        )
    return GateCheck(
        name="falls_not_too_deep",
        passed=share <= limits.maximum_drawdown,
        observed=observed,
        required=f"≤ {limit} % of what the account began with, from session to session",
    )


def small_beside_the_market(evidence: Evidence, limits: GateLimits) -> GateCheck:
    """The trades are a small part of what was traded in the bars that they entered in."""
    found, limit = evidence.trades, limits.maximum_participation
    share = found.high_participation if found else math.nan
    text, limit_text = shown(100.0 * share, 100.0 * limit, 2)
    observed = "not known: no trade was made in a bar whose traded value is known"
    if found is not None and not math.isnan(share):
        observed = (
            f"{text} % of the bar's traded value in 95 of 100 trades, {100 * found.median_participation:.2f} % in half"
        )
        observed += f"; there is room for ₹{found.largest_notional_inr:,.0f} a trade"
    return GateCheck(
        name="small_beside_the_market",
        passed=share <= limit,
        observed=observed,
        required=f"≤ {limit_text} %",
    )


def holdout_is_fresh(evidence: Evidence, _limits: GateLimits) -> GateCheck:
    """Nobody has looked at the sessions that were held out: each look makes them worth less."""
    found = evidence.economics
    looks = found.looks if found else None
    observed = "not known"
    if looks is not None:
        how = ", ".join(f"{number} by {kind}" for kind, number in looks.by_kind.items())
        observed = f"sessions after {looks.since} were looked at {looks.times} times" + (f" ({how})" if how else "")
    return GateCheck(
        name="holdout_is_fresh",
        passed=looks is not None and looks.times == 0,
        observed=observed,
        required="no look at the sessions that were held out: what is chosen by them is no more unseen",
    )


def _has(found: Economics) -> bool:
    return not math.isnan(found.deflated.probability)


def _without(found: Economics | None) -> str:
    return _NOT_JUDGED if found is None else _NO_RATIO


def _ratio(found: Economics) -> str:
    deflated = found.deflated
    sharpe = deflated.sharpe
    tries = (
        f"the best of {found.configurations} configurations, worth {deflated.n_trials:.1f} independent ones, shows "
        f"{deflated.benchmark:.3f} by luck"
        if found.configurations > 1
        else "no other configuration was tried"
    )
    return (
        f"Sharpe ratio {sharpe.per_session:.3f} a session ± {sharpe.standard_error:.3f} ({sharpe.annual:.2f} ± "
        f"{sharpe.annual_standard_error:.2f} a year) in {sharpe.n} sessions; {tries}"
    )
