"""The processes of ``alpha-panda up``: supervisord with a generated configuration, groups of servers and services.

What dies is brought back by a keeper (`live_services.machine.keeper`), which supervisord runs beside them.

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
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from xmlrpc.client import Error as XmlRpcError
from xmlrpc.client import Fault, ServerProxy

from live_services.adapters.progress_marks import progress_directory
from live_services.failures import CommandFailed
from live_services.machine.embedded import death, stop
from live_services.machine.orphans import names, orphans
from live_services.machine.programs import (
    KEEPER,
    LOGS,
    RUN,
    SERVERS,
    SERVICES,
    KeptProgram,
    Plan,
    Program,
    log_file,
    supervisor_configuration,
    write_plan,
    write_private,
)
from live_services.machine.restarts import Restarts, read_restarts, restarts_file, restarts_json, told
from live_services.next_steps import of_home
from live_services.operations_settings import ProcessesSettings

_DEAD: Final = frozenset({"EXITED", "FATAL"})
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


@dataclass(frozen=True, slots=True)
class ProcessState:
    """What supervisord says of a process, and the keeper of one that ended.

    RUNNING, STARTING, STOPPING, STOPPED, EXITED (it is over, or the keeper has not looked yet), BACKOFF (it died and is
    started again) or FATAL (it died too often).
    """

    name: str
    group: str
    state: str
    pid: int
    description: str
    """Why it does not run; empty while it does."""
    since_s: int
    """When it started, or ended; seconds since 1970, 0 if it never did."""
    started_s: int = 0
    """When it started last; seconds since 1970, 0 if it never did."""
    exit_code: int = 0
    """Of its last end; -1 for a signal. It means nothing while it runs."""

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
        self.run_directory = self.home / RUN
        self.logs = self.home / LOGS
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

    def start(
        self,
        groups: Mapping[str, Sequence[Program]],
        environment: Mapping[str, str],
        processes: ProcessesSettings | None = None,
    ) -> None:
        """Start supervisord and the keeper; the programs themselves start with ``start_group``.

        Parameters
        ----------
        groups
            Programs by group.
        environment
            Added to that of every program.
        processes
            How what dies is brought back; default: as settings have it that say nothing of it.

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
        self._begin_keeping(groups, processes or ProcessesSettings())
        write_private(self.configuration, supervisor_configuration(self.home, self.socket_path, groups))
        with (self.logs / "supervisord.out").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "live_services.machine.supervisord", "-n", "-c", str(self.configuration)],
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
        self.start_program(KEEPER, KEEPER)

    def _begin_keeping(self, groups: Mapping[str, Sequence[Program]], processes: ProcessesSettings) -> None:
        """Forget the deaths of an earlier stack, and write down what the keeper is to keep."""
        restarts_file(self.home).unlink(missing_ok=True)
        marks = progress_directory(self.home)
        shutil.rmtree(marks, ignore_errors=True)
        marks.mkdir()
        kept = tuple(KeptProgram(p.name, p.port, p.may_be_over) for programs in groups.values() for p in programs)
        write_plan(self.home, Plan(kept, processes))

    def start_group(self, group: str) -> None:
        """Start all programs of a group that do not run, without waiting."""
        self._call("startProcessGroup", group, False)

    def stop_group(self, group: str) -> None:
        """Stop all programs of a group and wait until they have ended; what is down there stays down."""
        self._call("stopProcessGroup", group, True)
        left = [state for state in self.states() if state.group == group and state.state != "STOPPED"]
        known = self._restarts(state.name for state in left)
        if all(state.state in _DEAD and known[state.name].state not in {"running", "waiting"} for state in left):
            return
        self._call("stopProcessGroup", KEEPER, True)  # it would bring back what it waits to, or has by now
        self._call("stopProcessGroup", group, True)
        down = {s.name: float(s.since_s) for s in self.states() if s.group == group and s.state in _DEAD}
        known = self._restarts(down)
        for name, died_at in down.items():  # with this death, or the keeper would take it for one that came later
            known[name] = replace(known[name], state="stopped", died_at=died_at, next_try=0.0, in_the_way="")
        write_private(restarts_file(self.home), restarts_json(tuple(known.values())))
        self.start_program(KEEPER, KEEPER)

    def _restarts(self, names: Iterable[str]) -> dict[str, Restarts]:
        """Give what the keeper knows, by name, and of the names what it has not looked at yet."""
        return {name: Restarts(name) for name in names} | {one.name: one for one in read_restarts(self.home)}

    def start_program(self, group: str, name: str) -> None:
        """Start one program, without waiting; nothing happens if it runs."""
        try:
            self._call("startProcess", f"{group}:{name}", False)
        except Refused as refusal:
            if "ALREADY_STARTED" not in str(refusal):
                raise

    def processes(self) -> tuple[ProcessState, ...]:
        """Ask for the state of every process, and why it is down if it is.

        Raises
        ------
        NotRunning
            If no supervisord answers on this home.
        """
        restarts, now = {one.name: one for one in read_restarts(self.home)}, time.time()
        return tuple(
            _kept_state(state, restarts[state.name], now) if state.name in restarts else state
            for state in self.states()
        )

    def states(self) -> tuple[ProcessState, ...]:
        """Ask supervisord alone; raises as `processes`."""
        return tuple(_process_state(process) for process in self._call("getAllProcessInfo"))

    def log_of(self, name: str) -> Path:
        """Where a process writes."""
        return log_file(self.home, name)

    def require_alive(self, group: str) -> None:
        """Raise if a process of the group is down for good.

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
        for group in (g for g in (KEEPER, SERVICES, SERVERS) if g in present):
            self._call("stopProcessGroup", group, True)
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


def _kept_state(state: ProcessState, restarts: Restarts, now: float) -> ProcessState:
    """Say of a process that ended what the keeper made of it."""
    named = {"waiting": "BACKOFF", "stopped": "STOPPED", "gave up": "FATAL"}.get(restarts.state)
    if state.state not in _DEAD or named is None:
        return state
    return replace(state, state=named, description=told(restarts, now))


def _process_state(said: Mapping[str, Any]) -> ProcessState:
    """Read supervisord's word; what it says of times is in the machine's zone, so they are taken as numbers."""
    running = said["statename"] in {"RUNNING", "STARTING"}
    since_s = int(said["start"] if running else said["stop"])
    ended = "ended by a signal" if said["exitstatus"] == -1 else f"exit code {said['exitstatus']}"
    why = str(said["spawnerr"]) or (ended if said["exitstatus"] else "")
    return ProcessState(
        said["name"],
        said["group"],
        said["statename"],
        int(said["pid"]),
        "" if running or said["statename"] == "STOPPED" else why,
        since_s,
        int(said["start"]),
        int(said["exitstatus"]),
    )


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
