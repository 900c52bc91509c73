"""Everything that a state holds, taken apart down to its bits, so that two of them can be compared field by field."""

from __future__ import annotations

import datetime as dt
import struct
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import is_dataclass
from decimal import Decimal
from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import BaseModel

from feature_store.features.schema import FeatureSchema
from feature_store.market.types import Bars, Session, Ticks, Universe
from live_services.domain.log import MarketSlice
from live_services.domain.strategy.loaded_model import LoadedModel
from live_services.services.session_plans import SessionPlan
from models_registry.specification import StrategySpec

REMADE = {
    "Books.marked": "what is said of a position, made again from it",
    "Books._said": "the totals as they are said, made again from them",
    "PaperExchange._market": "the market at hand was handled",
    "PaperExchange._rows": "of the market at hand",
    "PaperExchange._hits": "of the market at hand",
    "PaperExchange._unscanned": "all that is live is looked for in the next market",
    "BarBuilder._room": "memory that is written before it is read",
}
"""Fields that are not written down, and why nothing is lost."""
_TABLES_IN_ANY_PARTS = {"SessionBars._own", "StrategyDesk._waiting", "SkewState.market"}
_UNORDERED = {"PaperExchange._of"}
_VALUES = (str, int, bool, bytes, type(None), dt.date, Decimal, Enum, Session, StrategySpec)

Facts = dict[str, tuple[str, Any]]
"""By path: the field that it belongs to, as ``Class.field``, and what is there."""


def facts_of(state: Any) -> Facts:
    """Take a state apart."""
    return {path: (field, value) for path, field, value in _parts("", "", state, ())}


def differences(one: Any, other: Any) -> list[str]:
    """Name every path at which two states are not the same to the bit."""
    these, those = facts_of(one), facts_of(other)
    return [path for path in sorted(these.keys() | those.keys()) if these.get(path) != those.get(path)]


def changed_fields(before: Any, after: Any) -> set[str]:
    """Name the fields, as ``Class.field``, in which a state is not what another one was."""
    these, those = facts_of(before), facts_of(after)
    found = {path for path in these.keys() | those.keys() if these.get(path) != those.get(path)}
    return {(these.get(path) or those[path])[0] for path in found} - {""}


def fields_in(state: Any) -> set[str]:
    """Name every field of a state, and of every object that it is made of and that may change."""
    return {field for field, _ in facts_of(state).values()} - {""}


def _parts(path: str, field: str, thing: Any, above: tuple[int, ...]) -> Iterator[tuple[str, str, Any]]:
    if id(thing) in above:
        return
    above = (*above, id(thing))
    if isinstance(thing, np.ndarray):
        yield path, field, (thing.dtype.str, thing.shape, thing.tobytes())
    elif isinstance(thing, float):
        yield path, field, "nan" if thing != thing else struct.pack("d", thing)
    elif isinstance(thing, Universe):
        yield path, field, thing.digest
    elif isinstance(thing, LoadedModel):
        yield path, field, (thing.identity, thing.schema.hash, type(thing.model).__name__)
    elif isinstance(thing, SessionPlan):  # what follows its models is the process's
        yield path, field, thing.config.model_dump_json()
    elif isinstance(thing, FeatureSchema):
        yield path, field, thing.hash
    elif isinstance(thing, MarketSlice | Ticks | Bars):
        yield from _attributes(path, field, thing, above)
    elif isinstance(thing, _VALUES):
        yield path, field, (type(thing).__name__, thing)
    elif isinstance(thing, Mapping):
        yield path, field, (type(thing).__name__, sorted(map(repr, thing)) if field in _UNORDERED else list(thing))
        for key, value in thing.items():
            yield from _parts(f"{path}[{key!r}]", field, value, above)
    elif isinstance(thing, set | frozenset):
        yield path, field, (type(thing).__name__, sorted(map(repr, thing)))
    elif isinstance(thing, list | tuple | deque):
        rows = [type(thing[0]).concatenate(list(thing))] if field in _TABLES_IN_ANY_PARTS and thing else thing
        yield path, field, (type(thing).__name__, len(rows))
        for k, value in enumerate(rows):
            yield from _parts(f"{path}[{k}]", field, value, above)
    elif isinstance(thing, type) or callable(thing):
        yield path, field, getattr(thing, "__qualname__", type(thing).__name__)
    else:
        yield from _attributes(path, field, thing, above)


def _attributes(path: str, field: str, thing: Any, above: tuple[int, ...]) -> Iterator[tuple[str, str, Any]]:
    kind, is_value = type(thing), _is_frozen(thing)
    yield path, field if is_value else "", kind.__name__
    slots = [name for base in kind.__mro__ for name in _slots(base) if hasattr(thing, name)]
    for name in dict.fromkeys([*getattr(thing, "__dict__", {}), *slots]):
        own = f"{kind.__name__}.{name}"
        if own not in REMADE and not isinstance(getattr(kind, name, None), cached_property):
            yield from _parts(f"{path}.{name}", field if is_value else own, getattr(thing, name), above)


def _is_frozen(thing: Any) -> bool:
    """Whether it is a value: what stands in it can only change with the field that holds it."""
    if isinstance(thing, BaseModel):
        return bool(thing.model_config.get("frozen"))
    return is_dataclass(thing) and bool(type(thing).__dataclass_params__.frozen)  # type: ignore[attr-defined]


def _slots(kind: type) -> tuple[str, ...]:
    slots = vars(kind).get("__slots__", ())
    return (slots,) if isinstance(slots, str) else tuple(one for one in slots if not one.startswith("__"))
