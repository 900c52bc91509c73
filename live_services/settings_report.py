"""Where each setting came from, and what is wrong with one, for a person. Secrets are never shown."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_settings import EnvSettingsSource

from live_services.settings import Settings, config_file, endpoints_file, home_directory, load_settings

HIDDEN: Final = "(set, hidden)"
_ALIKE: Final = 0.8  # nearer than this: MARKT__SPEED; other programs have variables with __ too
_SECRET_KEYS: Final = frozenset({"redis.url", "kafka.sasl_password", "ledger.url"})


@dataclass(frozen=True, slots=True)
class SettingLine:
    """One setting as it holds now."""

    key: str
    value: str
    origin: str
    """``option``, ``environment NAME``, ``file PATH``, ``running stack`` or ``default``."""


def report(options: Mapping[str, Any]) -> tuple[SettingLine, ...]:
    """Give every setting with its value and where it came from, in the order of declaration."""
    settings = load_settings(**options)
    sources = tuple(_sources(options))
    return tuple(SettingLine(key, _shown(value), _origin(key, sources)) for key, value in _leaves(settings))


def _sources(options: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield "option", options
    yield "environment", EnvSettingsSource(Settings)()
    yield f"file {config_file()}", _toml(config_file())
    yield "running stack", _toml(endpoints_file(home_directory()))


def _toml(path: Path) -> dict[str, Any]:
    return tomllib.loads(path.read_text()) if path.exists() else {}


def _leaves(model: BaseModel, prefix: str = "") -> Iterator[tuple[str, object]]:
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, BaseModel):
            yield from _leaves(value, f"{prefix}{name}.")
        elif isinstance(value, tuple) and value and isinstance(value[0], BaseModel):
            for index, item in enumerate(value):
                yield from _leaves(item, f"{prefix}{name}.{index}.")
        else:
            yield f"{prefix}{name}", value


def _shown(value: object) -> str:
    if isinstance(value, SecretStr):
        return HIDDEN if value.get_secret_value() else ""
    if isinstance(value, tuple):
        return ", ".join(str(item) for item in value)
    if isinstance(value, dict):
        return ", ".join(f"{name} = {item}" for name, item in value.items())
    if isinstance(value, str) and "://" in value:
        from models_registry.addresses import without_credentials

        return without_credentials(value)
    return "" if value is None else str(value)


def _origin(key: str, sources: tuple[tuple[str, Mapping[str, Any]], ...]) -> str:
    steps = key.split(".")
    whole = next((k for k, step in enumerate(steps) if step.isdigit()), len(steps))  # lists are not merged: one is it
    for name, values in sources:
        if whole < len(steps) and _holds(values, steps[:whole]) and not _holds(values, steps):
            break
        if _holds(values, steps):
            return f"environment {_variable(key)}" if name == "environment" else name
    return "market.bar_minutes" if re.fullmatch(r"strategies\.\d+\.bar_minutes", key) else "default"


def _variable(key: str) -> str:
    """Name the environment variable that holds a key: its own, or one above it that is written as JSON."""
    steps = key.upper().split(".")
    names = ["__".join(steps[:count]) for count in range(len(steps), 0, -1)]
    there = {name.upper() for name in os.environ}
    return next((name for name in names if name in there), names[0])


def _holds(values: object, path: list[str]) -> bool:
    for step in path:
        if isinstance(values, Mapping) and step in values:
            values = values[step]
        elif isinstance(values, list | tuple) and step.isdigit() and int(step) < len(values):
            values = values[int(step)]
        else:
            return False
    return True


def describe_error(error: ValidationError) -> str:
    """Say for each wrong setting its key, what is wrong, and where it was set."""
    sources = tuple(_sources({}))
    lines = []
    for problem in error.errors(include_url=False, include_context=False):
        key = ".".join(str(step) for step in problem["loc"])
        origin = _origin(key, sources)
        hidden = key in _SECRET_KEYS or problem["type"] == "extra_forbidden"
        plain = isinstance(problem["input"], str | int | float)  # a whole table would bury the message
        seen = f" (it is {problem['input']!r})" if plain and not hidden else ""
        message = problem["msg"].removeprefix("Value error, ")
        if problem["type"] == "extra_forbidden":
            message = f"there is no such setting{_instead(problem['loc'])}"
        lines.append(f"  {key} (from {origin}): {message}{seen}")
    return "Wrong settings:\n" + "\n".join(lines) + "\nCorrect or remove them; what is not set has a default."


def _instead(place: tuple[int | str, ...]) -> str:
    """Say which keys there are beside a wrong one, nearest first."""
    section: object = Settings
    for step in place[:-1]:
        if isinstance(section, type) and issubclass(section, BaseModel) and step in section.model_fields:
            annotation = section.model_fields[str(step)].annotation
            section = next((a for a in get_args(annotation) if a is not Ellipsis), annotation)
    if not (isinstance(section, type) and issubclass(section, BaseModel)):
        return ""
    known = list(section.model_fields)
    near = get_close_matches(str(place[-1]), known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"


def misspelt_environment() -> tuple[str, ...]:
    """Give a line for each environment variable that looks like a setting with its section misspelt."""
    sections = [name.upper() for name in Settings.model_fields]
    lines = []
    for name in sorted(os.environ):
        section, separator, rest = name.partition("__")
        near = get_close_matches(section, sections, n=1, cutoff=_ALIKE) if separator and rest else []
        if near and section.upper() not in sections:
            lines.append(f"{name} is no setting and is not used; did you mean {near[0]}__{rest}?")
    return tuple(lines)
