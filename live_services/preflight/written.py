"""What preflight found last, as it stands in ``{home}/logs/preflight_summary.json``: written, and read again."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from live_services.home import owned_home
from live_services.preflight.findings import LIVE_SERVICES, sentence

SUMMARY_NAME: Final = "preflight_summary.json"


def summary_file(home: Path) -> Path:
    """Give where the summary of a home is written."""
    return home / "logs" / SUMMARY_NAME


def write_summary(home: Path, document: Mapping[str, Any]) -> None:
    """Write the summary whole; makes the home and its log folder. Raises OSError where nothing can be written."""
    path = summary_file(home)
    if not path.parent.exists():
        owned_home(home)
        path.parent.mkdir()
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".json")
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(json.dumps(document, indent=1, ensure_ascii=False))
    Path(name).replace(path)


@dataclass(frozen=True, slots=True)
class Written:
    """What of the last summary is told again later."""

    at: str
    """When preflight asked, IST."""
    held_back: tuple[str, ...]
    """What held the live services back, one line each; empty if nothing did."""
    failed: Mapping[str, str]
    """By the name of each check: what its failure holds back; empty text: it did not fail."""


def read_written(home: Path) -> Written | None:
    """Read the last summary; None if there is none, or one of another version."""
    try:
        document = json.loads(summary_file(home).read_text(encoding="utf-8"))
        checks = document["checks"]
        return Written(
            document["at"],
            tuple(_line(one) for one in checks if one["blocks"] == LIVE_SERVICES),
            _failed(checks),
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def read_held_back(home: Path) -> tuple[str, ...]:
    """Say from the last summary what held the live services back, one line each; empty if nothing did."""
    written = read_written(home)
    return () if written is None else written.held_back


def _line(check: Mapping[str, str]) -> str:
    return f"{check['check']}: {sentence(check['reason'])} {check['way_out']}".rstrip()


def _failed(checks: list[dict[str, str]]) -> dict[str, str]:
    found = {one["check"]: "" for one in checks}
    return found | {one["check"]: one["blocks"] for one in checks if one["status"] == "failed"}
