"""The processes of ``alpha-panda up``: supervisord with a generated configuration, groups of servers and services.

SupervisionError
├── AlreadyRunning      a stack runs on this home, or another command is starting one
├── NotRunning          none does
├── Refused             supervisord answers, but does not do what was asked (it may be shutting down)
└── ProcessFailed       a process gave up; the message has its last log lines
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shlex
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from xmlrpc.client import Error as XmlRpcError
from xmlrpc.client import Fault, ServerProxy

from live_services.failures import CommandFailed
from live_services.machine.embedded import death, stop
from live_services.machine.orphans import names, orphans
from live_services.next_steps import of_home

SERVERS: Final = "servers"
SERVICES: Final = "services"
START_LOCK: Final = "start.lock"
"""In the home; it stays there, for a lock on a file that is removed keeps nobody out."""
_SOCKET_PATH_LIMIT: Final = 100  # of a Unix socket: 104 bytes on macOS, 108 on Linux


class SupervisionError(CommandFailed):
    """The processes are not as asked; the message says what to do."""


class AlreadyRunning(SupervisionError):
    """A stack runs on this home already."""


class NotRunning(SupervisionError):
    """No stack runs on this home."""


class Refused(SupervisionError):
    """supervisord answers, but does not do what was asked."""


class ProcessFailed(SupervisionError):
    """A process ended and was not brought back."""


@dataclass(frozen=True)
class Program:
    """One supervised process."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    stop_seconds: float = 15.0


@dataclass(frozen=True, slots=True)
class ProcessState:
    """What supervisord says of a process: RUNNING, STARTING, BACKOFF, STOPPING, EXITED, STOPPED or FATAL."""

    name: str
    group: str
    state: str
    pid: int
    description: str
    """Why it does not run, in supervisord's words; empty while it does."""
    since_s: int
    """When it started, or ended; seconds since 1970, 0 if it never did."""

    @property
    def gave_up(self) -> bool:
        """Whether it failed and nobody will start it again; a replay that is over (EXITED) did not fail."""
        return self.state in {"FATAL", "UNKNOWN"}


class Supervisor:
    """supervisord of one home directory: configured, started, asked and shut down.

    Its control socket, its configuration and its pid lie in ``{home}/run`` (mode 0700), the logs in ``{home}/logs``.
    """

    def __init__(self, home: Path) -> None:
        self.home = home.absolute()
        self.run_directory = self.home / "run"
        self.logs = self.home / "logs"
        self.configuration = self.run_directory / "supervisord.conf"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def socket_path(self) -> Path:
        """Control socket; under the temporary directory when the home's path is too long for one."""
        path = self.run_directory / "supervisor.sock"
        if len(str(path)) <= _SOCKET_PATH_LIMIT:
            return path
        digest = hashlib.sha256(str(self.home).encode()).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"alpha-panda-{os.getuid()}-{digest}.sock"

    @property
    def running(self) -> bool:
        """Whether supervisord of this home answers."""
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(str(self.socket_path))
            except OSError:
                return False
        return True

    @property
    def started_here(self) -> bool:
        """Whether this very object started the supervisord that runs."""
        return self._process is not None and self._process.poll() is None

    def start(self, groups: Mapping[str, Sequence[Program]], environment: Mapping[str, str]) -> None:
        """Start supervisord; the programs themselves start with ``start_group``.

        Raises
        ------
        AlreadyRunning
            If one answers on this home.
        """
        if self.running:
            raise AlreadyRunning(
                f"a stack is running on {self.home}: see `{of_home(self.home)} status`, stop it with "
                f"`{of_home(self.home)} down`"
            )
        self.run_directory.mkdir(parents=True, exist_ok=True)
        self.run_directory.chmod(0o700)
        self.logs.mkdir(parents=True, exist_ok=True)
        write_private(self.configuration, supervisor_configuration(self, groups))
        with (self.logs / "supervisord.out").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "supervisor.supervisord", "-n", "-c", str(self.configuration)],
                env=os.environ | dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + 20
        while not self.running:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise death("supervisord", self.logs / "supervisord.out", self._process.poll())
            time.sleep(0.05)

    def start_group(self, group: str) -> None:
        """Start all programs of a group, without waiting."""
        self._call("startProcessGroup", group, False)

    def stop_group(self, group: str) -> None:
        """Stop all programs of a group and wait until they have ended."""
        self._call("stopProcessGroup", group, True)

    def start_program(self, group: str, name: str) -> None:
        """Start one program, without waiting; nothing happens if it runs."""
        try:
            self._call("startProcess", f"{group}:{name}", False)
        except Refused as refusal:
            if "ALREADY_STARTED" not in str(refusal):
                raise

    def processes(self) -> tuple[ProcessState, ...]:
        """Ask for the state of every process.

        Raises
        ------
        NotRunning
            If no supervisord answers on this home.
        """
        return tuple(_process_state(process) for process in self._call("getAllProcessInfo"))

    def log_of(self, name: str) -> Path:
        """Where a process writes."""
        return self.logs / f"{name}.log"

    def require_alive(self, group: str) -> None:
        """Raise if a process of the group gave up.

        Raises
        ------
        ProcessFailed
            With the last lines of its log.
        """
        for process in self.processes():
            if process.group == group and process.gave_up:
                raise ProcessFailed(str(death(process.name, self.log_of(process.name), None)))

    def shutdown(self, budget_seconds: float = 60.0) -> None:
        """Stop every process, services before servers, then supervisord; kill what is left after the budget.

        Raises
        ------
        NotRunning
            If no supervisord answers on this home.
        SupervisionError
            It does not take orders. If that is because it is shutting down already, its end was waited for.
        """
        try:
            self._shutdown(budget_seconds)
        except Refused:
            deadline = time.monotonic() + budget_seconds
            while self.running and time.monotonic() < deadline:
                time.sleep(0.05)
            raise

    def _shutdown(self, budget_seconds: float) -> None:
        processes = self.processes()
        pids = [p.pid for p in processes if p.pid]
        supervisor_pid = int(self._call("getPID"))
        deadline = time.monotonic() + budget_seconds
        present = {p.group for p in processes}
        for group in (g for g in (SERVICES, SERVERS) if g in present):
            self.stop_group(group)
        self._call("shutdown")
        while _alive(supervisor_pid) and time.monotonic() < deadline:
            if self._process is not None:
                self._process.poll()  # reaps it
            time.sleep(0.05)
        for pid in [*pids, supervisor_pid]:
            if _alive(pid):
                os.killpg(os.getpgid(pid), signal.SIGKILL)
        self.socket_path.unlink(missing_ok=True)

    def kill(self) -> None:
        """End supervisord that was started here but never answered."""
        if self._process is not None:
            stop(self._process, 10.0)

    def wait(self, seconds: float) -> bool:
        """Wait for supervisord's end; whether it came."""
        if self._process is None:  # another command started it
            time.sleep(seconds)
            return not self.running
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _absence(self) -> str:
        left = names(orphans(self.socket_path))
        if left:
            return (
                f"the supervisor of {self.home} was killed, but what it started still runs ({left}): stop that with "
                f"`{of_home(self.home)} down`; `{of_home(self.home)} up` does so too and starts afresh"
            )
        return f"nothing is running on {self.home}; start it with `{of_home(self.home)} up`"

    def _call(self, method: str, *arguments: object) -> Any:
        from supervisor.xmlrpc import SupervisorTransport

        transport = SupervisorTransport(None, None, serverurl=f"unix://{self.socket_path}")
        try:
            with ServerProxy("http://127.0.0.1", transport=transport) as proxy:
                return getattr(proxy.supervisor, method)(*arguments)
        except (ConnectionError, FileNotFoundError) as problem:
            raise NotRunning(self._absence()) from problem
        except Fault as fault:
            why = "it is shutting down" if "SHUTDOWN_STATE" in fault.faultString else fault.faultString
            raise Refused(
                f"the supervisor of {self.home} refused {method}: {why}; see `{of_home(self.home)} status`"
            ) from fault
        except (XmlRpcError, HTTPException, OSError) as problem:
            raise SupervisionError(
                f"the supervisor of {self.home} did not answer {method} as it should: {problem!r}; see "
                f"{self.logs / 'supervisord.log'}"
            ) from problem
        finally:
            transport.close()


@contextmanager
def start_lock(home: Path) -> Iterator[None]:
    """Be the only one who starts a stack on this home for as long as the block lasts; makes the home.

    The lock goes with the process, however that ends; processes started in the block do not inherit it.

    Raises
    ------
    AlreadyRunning
        If another command is starting one.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (home / START_LOCK).open("ab") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as held:
            raise AlreadyRunning(
                f"another command is starting a stack on {home.absolute()}: wait for it, then see "
                f"`{of_home(home)} status`"
            ) from held
        yield


def _process_state(said: Mapping[str, Any]) -> ProcessState:
    """Read supervisord's word; what it says of times is in the machine's zone, so they are taken as numbers."""
    running = said["statename"] in {"RUNNING", "STARTING"}
    since_s = int(said["start"] if running else said["stop"])
    why = str(said["spawnerr"]) or (f"exit code {said['exitstatus']}" if said["exitstatus"] else "")
    return ProcessState(
        said["name"], said["group"], said["statename"], int(said["pid"]), "" if running else why, since_s
    )


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def supervisor_configuration(supervisor: Supervisor, groups: Mapping[str, Sequence[Program]]) -> str:
    """Write supervisord's configuration: everything restarts when it dies, nothing outlives its group."""
    sections: dict[str, dict[str, object]] = {
        "supervisord": {
            "nodaemon": "true",
            "logfile": supervisor.logs / "supervisord.log",
            "logfile_maxbytes": "5MB",
            "pidfile": supervisor.run_directory / "supervisord.pid",
            "identifier": "alpha-panda",
            "strip_ansi": "true",
            "umask": "077",
        },
        "unix_http_server": {"file": supervisor.socket_path, "chmod": "0700"},
        "rpcinterface:supervisor": {
            "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
        },
        "supervisorctl": {"serverurl": f"unix://{supervisor.socket_path}"},
    }
    for group, programs in groups.items():
        sections[f"group:{group}"] = {"programs": ",".join(p.name for p in programs)}
        for program in programs:
            sections[f"program:{program.name}"] = _program_section(program, supervisor.log_of(program.name))
    text = "; written by `alpha-panda up`; changes are lost at the next start\n"
    for name, values in sections.items():
        lines = "".join(f"{key}={_escaped(str(value))}\n" for key, value in values.items())
        text += f"\n[{name}]\n{lines}"
    return text


def _program_section(program: Program, log: Path) -> dict[str, object]:
    environment = ",".join(f'{key}="{_quotable(key, value)}"' for key, value in sorted(program.env.items()))
    return {
        "command": shlex.join(program.argv),
        "environment": environment,
        "autostart": "false",  # `up` starts the servers first, creates the topics, then starts the services
        "autorestart": "unexpected",  # a replay that is over exits with 0 and stays over
        "exitcodes": "0",
        "startsecs": "1",
        "startretries": "5",
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
        raise SupervisionError(f"{key} has a quote or a line break in it, which supervisord cannot pass on: {value!r}")
    return value


def write_private(path: Path, text: str) -> None:
    """Write a file that only this user can read, at once or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.touch(mode=0o600)
    temporary.write_text(text)
    temporary.replace(path)
