"""Names that settings had in earlier versions: each is refused by name, with the one that took its place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from live_services.failures import CommandFailed

REPLACED: Final[Mapping[str, str]] = {
    "broker_namespace": "active_brokers",
    "paper.enabled": "trading.paper.enabled",
    "paper_trading.enabled": "trading.paper.enabled",
    "zerodha.enabled": "trading.zerodha.enabled",
    "redpanda.bootstrap_servers": "kafka.bootstrap_servers",
}
"""Keys as the settings file has them; in the environment they are in capitals, with ``__`` for a dot."""
_EXAMPLES: Final = {"active_brokers": 'it is a list now: ["paper"]'}


class ReplacedSetting(CommandFailed):
    """Settings are written under names that they do not have any more; says which, where, and the new names."""


def refuse_replaced_names(environment: Mapping[str, str], written: Mapping[str, object], file: Path) -> None:
    """Refuse the names of earlier versions: what stands under them would silently not be used.

    Parameters
    ----------
    environment
        Variables of this process; empty ones are not set.
    written
        What the settings file holds.
    file
        The settings file, for the message.

    Raises
    ------
    ReplacedSetting
        One line for each name.
    """
    if found := [*_in_environment(environment), *_in_file(written, file)]:
        raise ReplacedSetting("\n".join(found))


def _in_environment(environment: Mapping[str, str]) -> Iterator[str]:
    old = {_variable(key): _variable(new) for key, new in REPLACED.items()}
    for name in sorted(environment):
        new = old.get(name.upper())
        if new is not None and environment[name]:
            yield f"the environment sets {name}, which is no setting any more: set {new} instead{_example(new.lower())}"


def _in_file(written: Mapping[str, object], file: Path) -> Iterator[str]:
    for key, new in REPLACED.items():
        section, _, name = key.partition(".")
        held = written.get(section)
        if section in written and (not name or (isinstance(held, Mapping) and name in held)):
            yield f"{file} sets {key}, which is no setting any more: set {new} instead{_example(new)}"


def _variable(key: str) -> str:
    return key.upper().replace(".", "__")


def _example(new: str) -> str:
    return f" ({_EXAMPLES[new]})" if new in _EXAMPLES else ""
