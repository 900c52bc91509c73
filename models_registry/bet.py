"""What a version bets on, in words: its rule, side, model, exits and size, from what its sidecar states. Pure."""

from __future__ import annotations

import math
import re
from typing import Final

from pydantic import ValidationError

from feature_store.labels.barrier_return import VOLATILITY
from feature_store.market.types import is_generated
from models_registry.sidecar import Sidecar
from models_registry.specification import StrategySpec
from models_registry.tables import Row, number_of

_MEDIAN: Final = 5  # of the eleven edges of a distribution
_PROPOSES: Final = "Propose "


def market_in_words(sidecar: Sidecar) -> str:
    """Name the market: a generated one by that alone, since its parameters stand where its data is told."""
    return "a SYNTHETIC market" if is_generated(sidecar.market) else sidecar.market


def headline(sidecar: Sidecar) -> str:
    """Say in one clause what it is: a model that judges a rule, or one that says the side itself."""
    by = _in_words(sidecar.algorithm)
    rule = sidecar.proposals.get("rule")
    does = f"judges what the rule {_in_words(str(rule))} proposes" if rule else "says the side at every bar"
    return f"{sidecar.model_name} {does}, by {by} on {market_in_words(sidecar)}"


def bet(sidecar: Sidecar) -> list[Row]:
    """Tell what it bets on.

    Returns
    -------
    list of Row
        ``what`` and ``in words``: what says the side, the model, what ends a trade, and its size. Typical distances
        are those at the median volatility of its training rows.
    """
    spec = _specification(sidecar)
    said = {"Side": _side(sidecar, spec), "Model": _model(sidecar)}
    if spec is not None:
        said |= {"Ends": _ends(sidecar, spec), "Size": _size(sidecar, spec)}
    return [{"what": what, "in words": words} for what, words in said.items()]


def _specification(sidecar: Sidecar) -> StrategySpec | None:
    """What the sidecar carries, if it carries one that this code still reads."""
    try:
        return StrategySpec.model_validate(sidecar.specification)
    except ValidationError:
        return None


def _side(sidecar: Sidecar, spec: StrategySpec | None) -> str:
    accepts, sells = sidecar.buy_threshold, sidecar.sell_threshold
    if sells is not None:
        return f"the model, at every bar: long at a score of {accepts:.4f} or more, short at {sells:.4f} or less"
    rule = str(sidecar.proposals.get("rule", "without a name"))
    told = _rule_in_words(spec) if spec is not None else ""
    accepted = f"The model accepts a proposal at a score of {accepts:.4f} or more"
    return f"the rule {rule} proposes {told or 'a side on its events'}, long or short. {accepted}"


def _rule_in_words(spec: StrategySpec) -> str:
    """First sentence of the rule's own words, with its parameters put in; empty if there is no such rule any more."""
    try:
        asks = spec.proposer()
    except ValueError:
        return ""
    first = re.split(r"\.(?:\s|$)", (asks.rule.function.__doc__ or "").strip())[0] if asks else ""
    if asks is None or not first.startswith(_PROPOSES):
        return ""
    words = " ".join(first.removeprefix(_PROPOSES).split())
    for name, value in asks.parameters.items():
        words = words.replace(f"``{name}``", f"{value:g}")
    return words


def _model(sidecar: Sidecar) -> str:
    says = "that the proposed trade gains" if sidecar.proposals else "of an up move"
    return f"{_in_words(sidecar.algorithm)} gives the probability {says}, from {len(sidecar.feature_schema)} features"


def _ends(sidecar: Sidecar, spec: StrategySpec) -> str:
    volatility = _holding_volatility(sidecar, spec)
    barriers = []
    for name, of_volatility, bps in (
        ("stop", spec.stop_volatility, spec.stop_bps),
        ("target", spec.target_volatility, spec.target_bps),
    ):
        if of_volatility is not None:
            typical = f" (typically {of_volatility * volatility * 1e4:.0f} bps)" if math.isfinite(volatility) else ""
            barriers.append(f"{name} at {of_volatility:g} × the volatility of the holding{typical}")
        elif bps is not None:
            barriers.append(f"{name} at {bps:g} bps")
    clock = f"{number_of(spec.holding_bars, 'bar')} of {number_of(spec.bar_minutes, 'minute')}"
    time = f"after {clock} at the latest, and {spec.exit_minutes_before_close} minutes before the close"
    return "; ".join([*barriers, time])


def _size(sidecar: Sidecar, spec: StrategySpec) -> str:
    most, volatility, stop = spec.notional_per_trade_inr, _holding_volatility(sidecar, spec), _stop(sidecar, spec)
    if spec.sizing == "fixed":
        said, notional = f"₹{most:,.0f} a trade", most
    elif spec.sizing == "volatility_target":
        aims = spec.volatility_target_inr
        said = f"the outcome spreads by ₹{aims:,.0f} (one standard deviation), ₹{most:,.0f} a trade at most"
        notional = _capped(aims, volatility, most)
    else:
        said = f"the stop loses ₹{spec.risk_per_trade_inr:,.0f}, ₹{most:,.0f} a trade at most"
        notional = _capped(spec.risk_per_trade_inr, stop, most)
    return said + _typical(sidecar, spec, notional)


def _typical(sidecar: Sidecar, spec: StrategySpec, notional: float) -> str:
    """Say in rupees what is at stake in a typical trade; empty where no barrier tells it."""
    stop, target = _stop(sidecar, spec), _barrier(sidecar, spec, spec.target_volatility, spec.target_bps)
    if not math.isfinite(notional) or not (math.isfinite(stop) or math.isfinite(target)):
        return ""
    at = " and ".join(
        f"₹{notional * width:,.0f} at the {name}"
        for name, width in (("stop", stop), ("target", target))
        if math.isfinite(width)
    )
    return f"; typically a trade of ₹{notional:,.0f} with {at}"


def _capped(aim_inr: float, width: float, most: float) -> float:
    return min(most, aim_inr / width) if width > 0.0 else math.nan


def _stop(sidecar: Sidecar, spec: StrategySpec) -> float:
    return _barrier(sidecar, spec, spec.stop_volatility, spec.stop_bps)


def _barrier(sidecar: Sidecar, spec: StrategySpec, of_volatility: float | None, bps: float | None) -> float:
    """Distance from the opening fill as a fraction; NaN where there is none."""
    if of_volatility is not None:
        return of_volatility * _holding_volatility(sidecar, spec)
    return math.nan if bps is None else bps / 1e4


def _holding_volatility(sidecar: Sidecar, spec: StrategySpec) -> float:
    """Median volatility of the holding over the training rows, a fraction; NaN where no feature tells it."""
    found = next((one for one in sidecar.feature_distributions if one.name == VOLATILITY), None)
    return math.nan if found is None else found.edges[_MEDIAN] * math.sqrt(spec.holding_bars)


def _in_words(name: str) -> str:
    return name.replace("_", " ")
