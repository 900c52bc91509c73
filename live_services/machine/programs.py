"""What supervisord is to run, as values and as its configuration file, and what the keeper is told of it."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter

from live_services.failures import CommandFailed
from live_services.operations_settings import ProcessesSettings

SERVERS: Final = "servers"
SERVICES: Final = "services"
KEEPER: Final = "keeper"
RUN: Final = "run"
LOGS: Final = "logs"


@dataclass(frozen=True)
class Program:
    """One supervised process."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    stop_seconds: float = 15.0
    port: int = 0
    """On which it listens, and which it cannot do without; 0 for none."""
    may_be_over: bool = False
    """Whether it has done all it had to do when it ends with 0, and is not started again."""


@dataclass(frozen=True, slots=True)
class KeptProgram:
    """What the keeper has to know of a program."""

    name: str
    port: int
    may_be_over: bool


@dataclass(frozen=True, slots=True)
class Plan:
    """What the keeper keeps, and how; it does not read the settings, which may be wrong by the time it is needed."""

    programs: tuple[KeptProgram, ...]
    processes: ProcessesSettings


def plan_file(home: Path) -> Path:
    """Give where the keeper reads what it keeps."""
    return home / RUN / "keeper.json"


def read_plan(home: Path) -> Plan:
    """Read what the keeper of a home keeps."""
    return TypeAdapter(Plan).validate_json(plan_file(home).read_bytes())


def write_plan(home: Path, plan: Plan) -> None:
    """Tell the keeper of a home what it keeps."""
    write_private(plan_file(home), TypeAdapter(Plan).dump_json(plan).decode())


def log_file(home: Path, name: str) -> Path:
    """Give where a process writes."""
    return home / LOGS / f"{name}.log"


def supervisor_configuration(home: Path, socket_path: Path, groups: Mapping[str, Sequence[Program]]) -> str:
    """Write supervisord's configuration: the keeper restarts when it dies, nothing outlives its group.

    Raises
    ------
    CommandFailed
        A program is to have an environment variable that supervisord cannot pass on.
    """
    sections: dict[str, dict[str, object]] = {
        "supervisord": {
            "nodaemon": "true",
            "logfile": home / LOGS / "supervisord.log",
            "logfile_maxbytes": "5MB",
            "pidfile": home / RUN / "supervisord.pid",
            "identifier": "alpha-panda",
            "strip_ansi": "true",
            "umask": "077",
        },
        "unix_http_server": {"file": socket_path, "chmod": "0700"},
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
        "supervisorctl": {"serverurl": f"unix://{socket_path}"},
    }
    keeper = Program(KEEPER, (sys.executable, "-m", "live_services.machine.keeper", str(home)))
    for group, programs in {KEEPER: [keeper], **groups}.items():
        sections[f"group:{group}"] = {"programs": ",".join(p.name for p in programs)}
        for program in programs:
            restarting = _KEEPER_RESTARTS if group == KEEPER else _NO_RESTARTS
            log = log_file(home, program.name)
            sections[f"program:{program.name}"] = _program_section(program, log) | restarting
    text = "; written by `alpha-panda up`; changes are lost at the next start\n"
    for name, values in sections.items():
        lines = "".join(f"{key}={_escaped(str(value))}\n" for key, value in values.items())
        text += f"\n[{name}]\n{lines}"
    return text


_NO_RESTARTS: Final = {"autorestart": "false", "startsecs": 0, "startretries": 0}
"""What ends has EXITED, however soon; whether it comes back is the keeper's to say."""
_KEEPER_RESTARTS: Final = {"autorestart": "true", "startsecs": 1, "startretries": 1_000_000}


def _program_section(program: Program, log: Path) -> dict[str, object]:
    environment = ",".join(f'{key}="{_quotable(key, value)}"' for key, value in sorted(program.env.items()))
    return {
        "command": shlex.join(program.argv),
        "environment": environment,
        "autostart": "false",  # `up` starts the servers first, creates the topics, then starts the services
        "exitcodes": "0",
        "stopsignal": "TERM",
        "stopwaitsecs": round(program.stop_seconds),
        "stopasgroup": "true",
        "killasgroup": "true",
        "redirect_stderr": "true",
        "stdout_logfile": log,
        "stdout_logfile_maxbytes": "20MB",
        "stdout_logfile_backups": "3",
    }


def _escaped(value: str) -> str:
    return value.replace("%", "%%")  # supervisord expands %(name)s


def _quotable(key: str, value: str) -> str:
    if '"' in value or "\n" in value:
        raise CommandFailed(f"{key} has a quote or a line break in it, which supervisord cannot pass on: {value!r}")
    return value


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read, at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.touch(mode=0o600)
    temporary.write_text(text)
    temporary.replace(path)
