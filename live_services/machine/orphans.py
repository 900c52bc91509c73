"""Processes of a home whose supervisord was killed: nobody restarts or stops them, and they hold the home's files."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import psutil

_MARK: Final = "SUPERVISOR_SERVER_URL"
"""supervisord gives it to each child; it holds the control socket, and so the home."""
_TERM_SECONDS: Final = 15.0
_KILL_SECONDS: Final = 5.0


def orphans(socket_path: Path) -> tuple[psutil.Process, ...]:
    """Find this user's processes that the supervisord of a control socket started; call it when that one is gone."""
    url, me = f"unix://{socket_path}", os.getuid()
    found = []
    for process in psutil.process_iter():
        try:
            if process.uids().real == me and process.environ().get(_MARK) == url:
                found.append(process)
        except (psutil.Error, OSError):
            continue  # it ended, or it is not ours to see
    return tuple(found)


def names(processes: tuple[psutil.Process, ...]) -> str:
    """Name them as supervisord did, each once."""
    return ", ".join(sorted({name for process in processes if (name := name_of(process))}))


def name_of(process: psutil.Process) -> str:
    """Name one as supervisord did; empty if it ended."""
    try:
        return str(process.environ().get("SUPERVISOR_PROCESS_NAME", "unknown"))
    except (psutil.Error, OSError):
        return ""


def stop_orphans(socket_path: Path) -> str:
    """Stop them all, with SIGKILL those that do not listen; gives their names, or nothing if there were none.

    They are asked at once: there is no order left to keep, and Kafka waits for nobody here.
    """
    left = orphans(socket_path)
    told = names(left)
    for process in left:
        _signal(process, kill=False)
    _, alive = psutil.wait_procs(left, timeout=_TERM_SECONDS)
    for process in (*alive, *orphans(socket_path)):  # a child that one of them started in the meantime
        _signal(process, kill=True)
    psutil.wait_procs(alive, timeout=_KILL_SECONDS)
    return told


def _signal(process: psutil.Process, *, kill: bool) -> None:
    try:
        if kill:
            process.kill()
        else:
            process.terminate()
    except psutil.NoSuchProcess:
        return
