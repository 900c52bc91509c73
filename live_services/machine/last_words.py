"""Why a process ended, in one line: from what it wrote last, and from what supervisord saw of its end."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any, Final

_TAIL_BYTES: Final = 64 * 1024
_LONGEST: Final = 300
_LONGEST_FAREWELL: Final = 2000  # ours end with the way out, which must not be cut off
_STALLED: Final = re.compile(r"^Timeout \((?P<time>\d+:\d\d:\d\d(?:\.\d+)?)\)!$")
"""How the stacks begin that faulthandler writes before it ends a process."""
_FAULT: Final = re.compile(r"^(?:Fatal Python error: .*|.*\bOutOfMemoryError\b.*)$")
_ERROR: Final = re.compile(
    r"^(?:[\w.]*(?:Error|Exception|Refused|Failed)\b: ?.*|.*\[error.*|.*\b(?:ERROR|FATAL|CRITICAL)\b.*)$"
)
_FAREWELL: Final = "error: "
"""How a process of ours says why it ends; what its libraries complain of afterwards is not the reason."""
_EXIT: Final = "exited: {name} ("


def reason_of_end(log: str, end: str) -> str:
    """Give the last error line of what a process wrote in its life, or else how it ended.

    Parameters
    ----------
    log
        What it wrote since it was started.
    end
        What supervisord saw, as ``exit status 1`` or ``terminated by SIGKILL``; may be empty.
    """
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    for line in reversed(lines):
        if stalled := _STALLED.match(line):
            return f"its loop had not turned for {stalled['time']}, or it did not stop in time; its log has the stacks"
        if _FAULT.match(line):
            return _short(line)
    if end.startswith("terminated by"):  # it had no time to say anything; what stands there is of before
        return end
    for line in reversed(lines):
        if line.startswith(_FAREWELL):
            return _short(line, _LONGEST_FAREWELL)
    for line in reversed(lines):
        if (said := _structured_error(line)) or _ERROR.match(line):
            return _short(said or line)
    return _short(lines[-1]) if lines and "status 0" not in end else end or "it ended"


def _structured_error(line: str) -> str:
    """Read a line of JSON of level error or worse; empty for any other."""
    if not line.startswith("{"):
        return ""
    try:
        said: dict[str, Any] = json.loads(line)
    except ValueError:
        return ""
    if said.get("level") not in ("error", "critical"):
        return ""
    failure = str(said.get("exception") or said.get("failure") or said.get("reason") or "").strip()
    return " ".join(part for part in (str(said.get("event", "")), failure.splitlines()[-1] if failure else "") if part)


def _short(line: str, longest: int = _LONGEST) -> str:
    return line if len(line) <= longest else line[: longest - 1] + "…"


def tail_of(path: Path, since: int = 0) -> str:
    """Read the end of a log, at most 64 kB of it, from a byte on; a log that was rotated is read from its beginning."""
    try:
        with path.open("rb") as log:
            size = log.seek(0, os.SEEK_END)
            log.seek(max(since if since <= size else 0, size - _TAIL_BYTES))
            return log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""


def end_of(name: str, supervisor_log: str) -> str:
    """Find how a process ended last in what supervisord logs: an exit status or a signal; empty if it is not there."""
    mark = _EXIT.format(name=name)
    for line in reversed(supervisor_log.splitlines()):
        if mark in line:
            return line.partition(mark)[2].rpartition(";")[0]
    return ""
