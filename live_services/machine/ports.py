"""Whether a server's port is free for it, and who has it."""

from __future__ import annotations

from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psutil

from live_services.machine.embedded import free_port
from live_services.machine.orphans import name_of, orphans

_KILL_SECONDS: Final = 5.0


def port_of(endpoint: str) -> int:
    """Give the port of an address with or without a scheme; 0 for none.

    Examples
    --------
    >>> port_of("127.0.0.1:9092"), port_of("redis://127.0.0.1:6379/0"), port_of("")
    (9092, 6379, 0)
    """
    return urlsplit(endpoint if "://" in endpoint else f"//{endpoint}").port or 0


def port_is_free(port: int) -> bool:
    """Whether a server on this machine's loopback could listen there now."""
    return free_port(port) == port


def taken_by(port: int, socket_path: Path, name: str) -> str:
    """Say who listens on a port, empty if nobody does; what is left of the program itself is stopped.

    A server's child that outlives it goes on listening; nobody else would end it.

    Parameters
    ----------
    port
        On which the program is to listen.
    socket_path
        Of the supervisord that starts the program.
    name
        Of the program.
    """
    if port_is_free(port):
        return ""
    left = [process for process in orphans(socket_path) if name_of(process) == name and _listens(process, port)]
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=_KILL_SECONDS)
    if port_is_free(port):
        return ""
    for process in psutil.process_iter():
        if _listens(process, port):
            return f"{process.name()} (pid {process.pid})"
    return "a program of another user"


def _listens(process: psutil.Process, port: int) -> bool:
    try:
        return any(
            connection.status == psutil.CONN_LISTEN and connection.laddr.port == port
            for connection in process.net_connections("tcp")
        )
    except (psutil.Error, OSError):
        return False  # it ended, or it is not ours to see
