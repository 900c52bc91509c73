"""Whether a version is what a strategy trades: its features, its clock, and what its scores foretell. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from feature_store.features.schema import UnknownFeature
from models_registry.sidecar import Sidecar
from models_registry.specification import NOT_OF_THE_MODEL, StrategySpec


def disagreement(sidecar: Sidecar, version: str, strategy: StrategySpec) -> str | None:
    """Say how a version is not what a strategy trades, naming both sides and the way out; None if it is."""
    try:
        schema = strategy.feature_schema()
    except UnknownFeature as unknown:
        return f"the features of strategy {strategy.name!r} are not there: {unknown}"
    asked, trained = f"strategy {strategy.name!r}", f"{sidecar.model_name} version {version}"
    if sidecar.bar_clock != schema.bar_clock:
        return (
            f"{trained} was trained on bars of {sidecar.bar_clock}, {asked} trades on {schema.bar_clock}: set "
            f"market.bar_minutes to what it was trained on, or {_training(strategy)}"
        )
    if sidecar.feature_schema_hash != schema.hash:
        names = [column.name for column in sidecar.feature_schema]
        return (
            f"{trained} was trained on other features than {asked} names: {_features_differ(names, schema.names)}; "
            f"set its features to those of the model, or {_training(strategy)}"
        )
    if differs := label_difference(sidecar, strategy):
        return (
            f"{trained} foretells another label than {asked} trades: {differs}; set holding_bars, "
            f"exit_minutes_before_close and, of a rule, its barriers to those of the model, or {_training(strategy)}"
        )
    if differs := proposals_difference(sidecar, strategy):
        return (
            f"{trained} judges other proposals than {asked} makes: {differs}; set rule and rule_parameters to those of "
            f"the model, or {_training(strategy)}"
        )
    return None


def proposals_difference(sidecar: Sidecar, strategy: StrategySpec) -> str:
    """Say in what the proposals that a version judges are not those that a strategy makes; empty if they are."""
    asks = strategy.proposer()
    return _values_differ(sidecar.proposals, asks.identity() if asks else {})


def label_difference(sidecar: Sidecar, strategy: StrategySpec) -> str:
    """Say in what the label of a version is not what a strategy trades; empty if it is.

    A sidecar of version 1 says no more than the horizon in bars and their clock, and is compared by these.
    """
    if sidecar.label_identity:
        return _values_differ(sidecar.label_identity, strategy.label().identity())
    theirs = {"horizon_bars": sidecar.label_horizon_bars, "bar_clock": sidecar.bar_clock}
    ours = {"horizon_bars": strategy.holding_bars, "bar_clock": strategy.feature_schema().bar_clock}
    return _values_differ(theirs, ours)


def not_as_judged(sidecar: Sidecar, version: str, strategy: StrategySpec) -> str | None:
    """Say how a strategy trades otherwise now than its version was judged for real money, and the way out; None if not.

    That verdict is on model and configuration together: another size, stop or product makes other trades.
    """
    names = sorted(NOT_OF_THE_MODEL - {"name", "model", "brokers", "priority"})
    judged, now = sidecar.specification, strategy.model_dump(mode="json")
    differs = _values_differ({n: judged[n] for n in names if n in judged}, {n: now[n] for n in names if n in judged})
    if not differs:
        return None
    return (
        f"{sidecar.model_name} version {version} was judged for real money as it traded then, and strategy "
        f"{strategy.name!r} trades otherwise: {differs}; set these back, or {_training(strategy)}"
    )


def _training(strategy: StrategySpec) -> str:
    return f"launch {strategy.training_job} to train a version as the strategy is now"


def _values_differ(theirs: Mapping[str, object], ours: Mapping[str, object]) -> str:
    names = [name for name in {**ours, **theirs} if theirs.get(name) != ours.get(name)]
    return ", ".join(f"{name} is {theirs.get(name, 'none')} there and {ours.get(name, 'none')} here" for name in names)


def _features_differ(theirs: Sequence[str], ours: Sequence[str]) -> str:
    more, fewer = [n for n in theirs if n not in ours], [n for n in ours if n not in theirs]
    if more or fewer:
        parts = [f"it has {', '.join(more)} more" if more else "", f"it lacks {', '.join(fewer)}" if fewer else ""]
        return " and ".join(part for part in parts if part)
    if list(theirs) != list(ours):
        return f"the same in another order ({', '.join(theirs)})"
    return "the same names, with other parameters or of another version of this code"
