"""The sign of a process that it gets on: a file under ``{home}/run/progress``, touched after commits.

The keeper takes it away before it starts a process again; whether it is there at the next death tells a process that
got on from one that dies where it died before.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path
from typing import Final

_TOUCH_SECONDS: Final = 1.0


def progress_directory(home: Path) -> Path:
    """Give where the marks of a home lie; it is there while a stack runs on it."""
    return home / "run" / "progress"


def process_name(service: str, scope: str) -> str:
    """Name a process as the supervisor does; a broker's name comes first."""
    return service if scope == "shared" else f"{scope}.{service}"


class ProgressMark:
    """The mark of one process; without a supervisor on its home it does nothing.

    Parameters
    ----------
    home
        State directory of the desk.
    name
        As `process_name` gives it.
    """

    def __init__(self, home: Path, name: str) -> None:
        directory = progress_directory(home)
        self._path = directory / name if directory.is_dir() else None
        self._due = 0.0

    def got_on(self) -> None:
        """Leave the mark, at most once a second."""
        now = time.monotonic()
        if self._path is None or now < self._due:
            return
        self._due = now + _TOUCH_SECONDS
        with suppress(OSError):  # a full disk must not stop trading; the death after it counts for one more
            self._path.touch()
