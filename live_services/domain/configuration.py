"""Configurations by which a session is run: their digests, and what another one would change. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict

from models_registry.specification import Broker, StrategySpec


class StrategiesConfig(BaseModel):
    """By what a strategy runner proposes; addresses, files and speed decide nothing and are no part of it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    strategies: tuple[StrategySpec, ...]
    bar_minutes: int
    """Length of the bars that features stand on."""
    brokers: tuple[Broker, ...]
    """Those whose accounts run: a strategy speaks to the ones of them that it names."""


def config_digest(config: BaseModel) -> str:
    """SHA-256 of a configuration's JSON, hexadecimal."""
    return hashlib.sha256(config.model_dump_json().encode()).hexdigest()


def changes(running: BaseModel, configured: BaseModel) -> tuple[str, ...]:
    """Say what one configuration would change of another, a line for each value.

    Items of a list that have a name are told apart by it.
    """
    before, after = _values(running), _values(configured)
    return tuple(
        f"{key}: {_shown(before, key)} now, {_shown(after, key)} then"
        for key in dict.fromkeys([*before, *after])
        if before.get(key, _ABSENT) != after.get(key, _ABSENT)
    )


_ABSENT = object()


def _values(config: BaseModel) -> dict[str, Any]:
    return dict(_leaves("", config.model_dump(mode="json")))


def _leaves(key: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list) and value and all(isinstance(one, Mapping) and "name" in one for one in value):
        value = {one["name"]: one for one in value}
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(f"{key}.{name}" if key else str(name), inner)
        return
    yield key, value


def _shown(values: Mapping[str, Any], key: str) -> str:
    return json.dumps(values[key]) if key in values else "not there"
