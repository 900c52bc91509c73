"""The keeper brings back what died and says why; supervisord leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from live_services.adapters.progress_marks import progress_directory
from live_services.cli.task_health import ask_processes
from live_services.machine.embedded import PortInUse, free_port
from live_services.machine.programs import KEEPER, SERVERS, SERVICES, Program
from live_services.machine.restarts import Restarts, read_restarts
from live_services.machine.stack import Stack
from live_services.machine.supervision import AlreadyRunning, ProcessFailed, ProcessState, Supervisor
from live_services.operations_settings import ProcessesSettings
from live_services.settings import load_settings
from tests.prometheus_server import prometheus_of

pytestmark = pytest.mark.integration

_QUICK = ProcessesSettings(restart_limit=2, backoff_seconds=0.1, backoff_max_seconds=0.4)
_SLEEP = "import time; time.sleep(600)"
_LISTEN = "import socket, sys, time; s = socket.create_server(('127.0.0.1', int(sys.argv[1]))); time.sleep(600)"
_LISTEN_IN_A_CHILD = (
    f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {_LISTEN!r}, sys.argv[1]]); time.sleep(600)"
)


def _until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "gave up waiting"
        time.sleep(0.05)


def _python(name: str, code: str, *arguments: str, port: int = 0, may_be_over: bool = False) -> Program:
    return Program(name, (sys.executable, "-c", code, *arguments), port=port, may_be_over=may_be_over)


class _Kept:
    """A supervisor with its keeper, and what they say of one process."""

    def __init__(self, supervisor: Supervisor) -> None:
        self.supervisor = supervisor

    def state(self, name: str) -> ProcessState:
        return next(process for process in self.supervisor.processes() if process.name == name)

    def restarts(self, name: str) -> Restarts:
        return {one.name: one for one in read_restarts(self.supervisor.home)}.get(name, Restarts(name))

    def runs_anew(self, name: str, before: int) -> bool:
        process = self.state(name)
        return process.state == "RUNNING" and process.pid not in (0, before)

    def end(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        pid = self.state(name).pid
        os.kill(pid, number)
        return pid


@contextmanager
def _kept(home: Path, servers: Sequence[Program] = (), services: Sequence[Program] = ()) -> Iterator[_Kept]:
    supervisor = Supervisor(home)
    groups = {group: programs for group, programs in {SERVERS: servers, SERVICES: services}.items() if programs}
    supervisor.start(groups, {}, _QUICK)
    try:
        for group in groups:
            supervisor.start_group(group)
        yield _Kept(supervisor)
    finally:
        supervisor.shutdown()


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Kept]:
    """Services that end in their several ways, with no server beside them."""
    home = tmp_path_factory.mktemp("services")
    mark = progress_directory(home) / "worker"
    programs = [
        _python("sleeper", _SLEEP),
        _python("broken", "print('error: no such topic'); raise SystemExit(1)"),
        _python("worker", f"import pathlib; pathlib.Path({str(mark)!r}).touch(); raise SystemExit(1)"),
        _python("market_feed", "", may_be_over=True),
    ]
    with _kept(home, services=programs) as kept:
        yield kept


def test_a_killed_process_comes_back_and_so_does_the_keeper(services: _Kept) -> None:
    with pytest.raises(AlreadyRunning, match=f"--home {services.supervisor.home} down`"):
        services.supervisor.start({}, {})
    first = services.end("sleeper")
    _until(lambda: services.restarts("sleeper").restarts == 1)
    told = services.restarts("sleeper")
    assert (told.state, told.count, told.restarts, told.last_error) == ("running", 1, 1, "terminated by SIGKILL")
    keeper = services.end(KEEPER)  # supervisord itself keeps the keeper
    _until(lambda: services.runs_anew(KEEPER, keeper))
    second = services.end("sleeper")
    _until(lambda: services.restarts("sleeper").restarts == 2)
    assert services.state("sleeper").pid not in (first, second)
    assert services.restarts("sleeper").count == 2


def test_what_ends_badly_stays_down_after_the_limit_and_is_named_with_its_last_error(services: _Kept) -> None:
    _until(lambda: services.state("broken").state == "FATAL")
    told = services.restarts("broken")
    assert (told.state, told.count, told.restarts) == ("gave up", 3, 2)
    assert services.state("broken").description == (
        "ended 3 times in a row and stays down until `up`: error: no such topic"
    )
    with pytest.raises(ProcessFailed, match="no such topic"):
        services.supervisor.require_alive(SERVICES)
    _until(
        lambda: time.time() >= told.died_at + 1.0
    )  # supervisord counts whole seconds: one that ends in them is the same
    services.supervisor.start_group(SERVICES)  # as `up` does
    _until(lambda: services.restarts("broken").state != "gave up")
    _until(lambda: services.restarts("broken").state == "gave up")


def test_prometheus_is_told_by_the_keeper_how_often_each_process_was_brought_back(
    services: _Kept, tmp_path: Path
) -> None:
    _until(lambda: services.restarts("broken").state == "gave up")
    with prometheus_of(services.supervisor.home, tmp_path) as prometheus:

        def shown(what: str) -> dict[str, float]:
            series = prometheus.query(f"alpha_panda_process_{what}")
            return {one["metric"]["process"]: float(one["value"][1]) for one in series}

        _until(lambda: shown("given_up"))
        assert {name for name, down in shown("given_up").items() if down} == {"broken"}
        assert shown("restarts").keys() == {"sleeper", "broken", "worker", "market_feed"}
        assert shown("restarts")["broken"] >= _QUICK.restart_limit
        (up,) = prometheus.query("up")
        assert (up["metric"]["process"], up["value"][1]) == (KEEPER, "1")
    (keeper,) = ask_processes(services.supervisor.home)
    assert keeper.document is not None
    assert (keeper.process, keeper.document["live"], keeper.document["ready"]) == (KEEPER, True, True)


def test_a_process_that_gets_on_between_its_deaths_is_started_again_without_end(services: _Kept) -> None:
    _until(lambda: services.restarts("worker").restarts > _QUICK.restart_limit + 1)
    assert services.restarts("worker").count == 0


def test_a_replay_that_is_over_stays_over(services: _Kept) -> None:
    _until(lambda: services.restarts("market_feed").state == "over")
    assert services.state("market_feed").state == "EXITED"


def test_what_is_down_when_its_group_is_stopped_stays_down_until_it_is_started(services: _Kept) -> None:
    services.end("sleeper")
    services.supervisor.stop_group(SERVICES)
    time.sleep(_QUICK.backoff_max_seconds + 1.0)  # the keeper has looked, and all pauses are over
    states = {process.state for process in services.supervisor.processes() if process.group == SERVICES}
    assert states <= {"STOPPED", "EXITED", "FATAL"}
    services.supervisor.start_group(SERVICES)
    _until(lambda: services.state("sleeper").state == "RUNNING" and services.restarts("sleeper").state == "running")


def test_servers_come_back_and_what_dies_without_them_is_not_to_blame(tmp_path: Path) -> None:
    port, taken = free_port(), socket.create_server(("127.0.0.1", 0))
    servers = [
        _python("mlflow", _LISTEN_IN_A_CHILD, str(port), port=port),
        _python("kafka", _LISTEN, str(taken.getsockname()[1]), port=taken.getsockname()[1]),
        _python("valkey", ""),
    ]
    account = _python("account", "raise SystemExit('error: no Kafka')")
    with taken, _kept(tmp_path, servers=servers, services=[account]) as kept:
        _until(lambda: _listening(port))
        first = kept.end("mlflow")
        _until(lambda: kept.runs_anew("mlflow", first) and _listening(port))  # its child had the port

        stranger = f"its port {taken.getsockname()[1]} is taken by"
        _until(lambda: stranger in kept.restarts("kafka").in_the_way)
        assert f"pid {os.getpid()}" in kept.restarts("kafka").in_the_way
        assert kept.restarts("kafka").state == "waiting"
        assert kept.restarts("kafka").last_error.startswith("exit status")  # why it died stays beside it

        _until(lambda: kept.restarts("valkey").state == "gave up")
        assert (kept.restarts("valkey").restarts, kept.restarts("valkey").last_error) == (2, "exit status 0")

        _until(lambda: kept.restarts("account").restarts > _QUICK.restart_limit + 1)
        assert kept.restarts("account").count <= _QUICK.restart_limit
        assert kept.restarts("account").last_error.startswith("error: no Kafka (")
        stack, told = Stack(load_settings(alpha_panda_home=tmp_path)), []
        with pytest.raises(PortInUse, match=f"kafka: its port {taken.getsockname()[1]} is taken by"):
            stack.bring_back_servers(tell=told.append)
        taken.close()
        kept.supervisor.stop_group(SERVERS)
        stack.bring_back_servers(tell=told.append)
        assert "mlflow is back" in told
        assert {"mlflow is down and is started again: it was stopped", "kafka is back"} <= {*told}
        pids = [process.pid for process in kept.supervisor.processes() if process.pid]
    assert not kept.supervisor.running
    assert not any(psutil.pid_exists(pid) for pid in pids)


def _listening(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0
