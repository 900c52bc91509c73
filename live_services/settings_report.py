"""Where each setting came from, and what is wrong with one, for a person. Secrets are never shown."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_settings import EnvSettingsSource

from live_services.settings import Settings, config_file, endpoints_file, home_directory, load_settings

HIDDEN: Final = "(set, hidden)"
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
    return "" if value is None else str(value)


def _origin(key: str, sources: tuple[tuple[str, Mapping[str, Any]], ...]) -> str:
    for name, values in sources:
        if _holds(values, key.split(".")):
            return f"environment {key.upper().replace('.', '__')}" if name == "environment" else name
    return "default"


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
        seen = "" if key in _SECRET_KEYS or problem["type"] == "extra_forbidden" else f" (it is {problem['input']!r})"
        message = "there is no such setting" if problem["type"] == "extra_forbidden" else problem["msg"]
        lines.append(f"  {key}: {message}{seen}, from {origin}")
    return "Wrong settings:\n" + "\n".join(lines) + "\n`alpha-panda config show` lists every key in force."
