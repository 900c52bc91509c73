"""What a person changes for one backtest (``--set stop_bps=30``): how it is traded, never what the model is. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ValidationError

from live_services.backtest.versions import THRESHOLDS, BacktestRefused
from live_services.domain.limits import AccountConfig, RiskLimits
from models_registry.specification import NOT_OF_THE_MODEL, StrategySpec

_Model = TypeVar("_Model", bound=BaseModel)
_OF_THE_STRATEGY: Final = NOT_OF_THE_MODEL - {"name", "model", "brokers"}
_OF_THE_ACCOUNT: Final = frozenset(AccountConfig.model_fields) - {"risk"}
_OF_THE_LIMITS: Final = frozenset(RiskLimits.model_fields)
_CUT_AT: Final = {name.replace("threshold", "quantile"): name for name in THRESHOLDS}


@dataclass(frozen=True, slots=True)
class Changed:
    """Strategies and account with what a person changed laid over them."""

    strategies: tuple[StrategySpec, ...]
    account: AccountConfig
    thresholds: Mapping[str, float]


def read_changes(texts: Sequence[str]) -> dict[str, Any]:
    """Read ``field=value``, the value as JSON or else as text; ``none`` is None. Raises BacktestRefused."""
    found: dict[str, Any] = {}
    for text in texts:
        field, equals, value = text.partition("=")
        if not equals or not field.strip():
            raise BacktestRefused(f"{text!r} is no change: write FIELD=VALUE, for example stop_bps=30")
        try:
            found[field.strip()] = None if value.strip().lower() == "none" else json.loads(value)
        except json.JSONDecodeError:
            found[field.strip()] = value.strip()
    return found


def changed(strategies: Sequence[StrategySpec], account: AccountConfig, changes: Mapping[str, Any]) -> Changed:
    """Lay changes over strategies and their account.

    Parameters
    ----------
    strategies : sequence of StrategySpec
        Side by side on the account.
    account : AccountConfig
        By which limits they trade.
    changes : mapping
        Values by field: of a strategy (for all of them, or for one as ``breakout.stop_bps``), of the account, of its
        risk limits, or of `THRESHOLDS`.

    Raises
    ------
    BacktestRefused
        If there is no such field, it makes the model, or the value is not of its kind; says the way out.
    """
    of_account: dict[str, Any] = {}
    of_limits: dict[str, Any] = {}
    thresholds: dict[str, float] = {}
    of_strategy: dict[str, dict[str, Any]] = {spec.name: {} for spec in strategies}
    for key, value in changes.items():
        named, dot, rest = key.rpartition(".")
        field = rest if dot else key
        _refuse_unknown(field, named, of_strategy)
        if field in _OF_THE_STRATEGY:
            for name in [named] if named else of_strategy:
                of_strategy[name][field] = value
        elif named:
            raise BacktestRefused(f"{key}: {field} is one for all strategies of a backtest; write {field}={value}")
        elif field in THRESHOLDS:
            thresholds[field] = _threshold(field, value)
        else:
            (of_limits if field in _OF_THE_LIMITS else of_account)[field] = value
    limits = _laid_over(account.risk, of_limits, "the account's limits")
    return Changed(
        tuple(_laid_over(spec, of_strategy[spec.name], f"strategy {spec.name!r}") for spec in strategies),
        _laid_over(account, of_account | {"risk": limits}, "the account"),
        thresholds,
    )


def _refuse_unknown(field: str, named: str, names: Mapping[str, object]) -> None:
    if named and named not in names:
        raise BacktestRefused(f"{named}.{field}: {named!r} is not in this backtest; there is {', '.join(names)}")
    known = sorted({*_OF_THE_STRATEGY, *_OF_THE_ACCOUNT, *_OF_THE_LIMITS, *THRESHOLDS})
    if field in known:
        return
    if field in {"name", "model", "brokers"}:
        raise BacktestRefused(
            f"{field} is not changed for a backtest: name strategies, and versions with --model NAME@7"
        )
    if threshold := _CUT_AT.get(field):
        raise BacktestRefused(
            f"{field} is where the training cut this version's scores: set the threshold that came of it "
            f"({threshold}=0.6), or set {field} in [[strategies]] of alpha-panda.toml, train, and backtest "
            "the version that comes of it"
        )
    if field in StrategySpec.model_fields:
        raise BacktestRefused(
            f"{field} makes the model, so this version says nothing of it: set it in [[strategies]] of "
            "alpha-panda.toml, train, and backtest the version that comes of it"
        )
    near = get_close_matches(field, known, n=2)
    raise BacktestRefused(
        f"there is no field {field!r} to change; "
        + (f"did you mean {' or '.join(near)}?" if near else f"there is {', '.join(known)}")
    )


def _threshold(field: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1:
        raise BacktestRefused(f"{field}: a threshold is a probability between 0 and 1, not {value!r}")
    return float(value)


def _laid_over(base: _Model, changes: Mapping[str, Any], what: str) -> _Model:
    if not changes:
        return base
    kept = {name: getattr(base, name) for name in type(base).model_fields}
    try:
        return type(base).model_validate(kept | dict(changes))
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors(include_url=False))
        raise BacktestRefused(f"{what}: {said}") from error
