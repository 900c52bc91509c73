"""The state directory of one desk: for its user only, and marked with the layout of what is kept in it.

One that a demo made is marked so too, and the next demo wipes it; unless a person has taken it for their own.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, Final

import tomli_w

from live_services.failures import CommandFailed
from live_services.next_steps import of_home, program

LAYOUT: Final = 3
"""Raise it when ids, money or topics change so that this code would misread what an earlier one left on Kafka."""
_MARKER: Final = "layout.toml"
DEMO_MARKER: Final = ".alpha-panda-demo"
"""In a home that a demo made: TOML, with ``kept`` (why no demo may wipe it any more) and what the demo did itself."""


class OtherLayout(CommandFailed):
    """A home holds a log of another version; the message says what to do."""


def owned_home(home: Path) -> Path:
    """Create a home directory that only this user can enter."""
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    return home


def require_layout(home: Path) -> None:
    """Refuse a home whose Kafka was written by a version with another layout; one without a Kafka is never refused.

    Raises
    ------
    OtherLayout
        Says which version wrote it and what to do.
    """
    kafka = home / "kafka"
    if not kafka.exists():
        return
    found = _layout_of(home)
    if found == LAYOUT:
        return
    if found is not None and found > LAYOUT:
        raise OtherLayout(
            f"{home} was written by a later version of Alpha Panda (layout {found}, this one knows {LAYOUT}): use that "
            f"version, or another home (`{program()} --home DIR`)"
        )
    raise OtherLayout(
        f"{home} was written by an earlier version of Alpha Panda: ids, money and topics on its Kafka are not those of "
        f"this one. Use another home (`{program()} --home DIR`), or stop what runs (`{of_home(home)} down`) and "
        f"delete {kafka} and {home / 'valkey'}: the market data, models and promotions in it stay good"
    )


def mark_layout(home: Path) -> None:
    """Write into a home which layout what is kept there has. Raises as `require_layout`."""
    require_layout(home)
    (home / _MARKER).write_text(f"# of what Alpha Panda keeps in this directory\nlayout = {LAYOUT}\n")


def demo_mark(home: Path) -> dict[str, Any] | None:
    """Read a demo's mark; None if no demo made this home."""
    try:
        return tomllib.loads((home / DEMO_MARKER).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None


def mark_demo(home: Path, **facts: str | int) -> None:
    """Mark a home as made by a demo, and keep what stands in the mark already."""
    (home / DEMO_MARKER).write_text(tomli_w.dumps((demo_mark(home) or {}) | facts), encoding="utf-8")


def _layout_of(home: Path) -> int | None:
    """Give the number in the marker; None if no version that marks its home wrote this one."""
    try:
        found = tomllib.loads((home / _MARKER).read_text(encoding="utf-8")).get("layout")
    except (FileNotFoundError, tomllib.TOMLDecodeError, UnicodeDecodeError):
        return None
    return found if isinstance(found, int) else None
