"""Checks of this computer: folders that can be written, disk and memory."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from live_services.home import OtherLayout, require_layout
from live_services.preflight.findings import Finding, ok
from live_services.settings import Settings

_STATE_FOLDERS: Final = ("run", "models", "store")
_LEAST_DISK_MB: Final = 500  # below it the embedded Kafka refuses to start, and any other log would soon end
_MB: Final = 2**20


_NO_FOLDER: Final = "not a folder"
_FULL: Final = os.strerror(errno.ENOSPC)
_PROBE: Final = b" " * 4096


def unwritable(folder: Path) -> str | None:
    """Say why nothing can be written in a folder, or in the one above that it would be made in; None if it can."""
    place = folder
    try:
        while not _is_there(place):
            place = place.parent
        if not place.is_dir():
            return f"{place} is {_NO_FOLDER}"
        with tempfile.TemporaryFile(dir=place, buffering=0) as probe:
            probe.write(_PROBE)  # a full disk takes a file, and nothing in it
            return None
    except OSError as problem:
        return f"{place} cannot be written: {problem.strerror}"


def _is_there(path: Path) -> bool:
    """Whether something is there, a broken link too; raises `OSError` if it cannot be known."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def home_finding(settings: Settings) -> Iterator[Finding]:
    """Say whether the home is of this version, and the folders of its state can be written."""
    home = settings.alpha_panda_home.absolute()
    try:
        require_layout(home)
    except OtherLayout as other:
        yield Finding("home", "failed", str(other), policy="always")
        return
    if problems := [why for folder in (home, *(home / name for name in _STATE_FOLDERS)) if (why := unwritable(folder))]:
        yield Finding("home", "failed", "; ".join(dict.fromkeys(problems)), _writing(home, problems[0]), "always")
        return
    yield ok("home", f"{home} can be written")


def logs_finding(settings: Settings) -> Iterator[Finding]:
    """Say whether the log folder and the files in it can be written."""
    logs = settings.alpha_panda_home.absolute() / "logs"
    problem = unwritable(logs)
    closed = [path.name for path in sorted(logs.glob("*.log")) if not os.access(path, os.W_OK)] if not problem else []
    if problem or closed:
        reason = problem or f"{', '.join(closed)} in {logs} cannot be written"
        yield Finding("logs", "failed", reason, _writing(logs, reason), "always")
        return
    yield ok("logs", f"{logs} can be written")


def _writing(folder: Path, problem: str) -> str:
    if problem.endswith(_NO_FOLDER):
        return f"Move {problem.removesuffix(f' is {_NO_FOLDER}')} away, or name another home with ALPHA_PANDA_HOME"
    if problem.endswith(_FULL):
        return "Free some of that disk, or name another home with ALPHA_PANDA_HOME"
    return (
        f"Give this user the right to write there (`sudo chown -R $USER {folder}`), or name another home with "
        "ALPHA_PANDA_HOME"
    )


def disk_finding(settings: Settings) -> Iterator[Finding]:
    """Compare the free disk where the home lies with ``preflight.min_free_disk_mb``."""
    place = settings.alpha_panda_home.absolute()
    while not place.exists():
        place = place.parent
    free, least = shutil.disk_usage(place).free // _MB, settings.preflight.min_free_disk_mb
    if free >= max(least, _LEAST_DISK_MB):
        yield ok("disk", f"{free:,} MB free")
        return
    yield Finding(
        "disk",
        "failed",
        f"{place} has {free:,} MB free, {max(least, _LEAST_DISK_MB):,} are asked for (preflight.min_free_disk_mb)",
        "Free some, or choose another disk with ALPHA_PANDA_HOME",
        "always" if free < _LEAST_DISK_MB else "production",
    )


def memory_finding(settings: Settings) -> Iterator[Finding]:
    """Compare the memory that can be had without swapping with ``preflight.min_free_memory_mb``."""
    import psutil

    free, least = psutil.virtual_memory().available // _MB, settings.preflight.min_free_memory_mb
    if free >= least:
        yield ok("memory", f"{free:,} MB free")
        return
    yield Finding(
        "memory",
        "failed",
        f"{free:,} MB of memory are free, {least:,} are asked for (preflight.min_free_memory_mb)",
        "End other programs, or run servers elsewhere (KAFKA__BOOTSTRAP_SERVERS, MLFLOW__TRACKING_URI)",
    )
