"""What supervisord is told, and what a home without one answers."""

from __future__ import annotations

import configparser
import shlex
import socketserver
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from xmlrpc.client import Fault, dumps

import pytest
from rich.console import Console

from live_services.demo.demo_home import fresh_home
from live_services.demo.run import DemoOptions, run_demo
from live_services.failures import CommandFailed
from live_services.home import DEMO_MARKER
from live_services.machine.programs import SERVERS, SERVICES, Program, supervisor_configuration, write_private
from live_services.machine.stack import Stack
from live_services.machine.supervision import (
    AlreadyRunning,
    NotRunning,
    Refused,
    Supervisor,
    start_lock,
)
from live_services.machine.supervisord import Unending
from live_services.machine.up import start_everything
from live_services.settings import endpoints_file, load_settings


def _read(text: str) -> configparser.RawConfigParser:
    parser = configparser.RawConfigParser()
    parser.read_string(text)
    return parser


def test_a_program_is_started_with_its_own_words_and_environment(tmp_path):
    program = Program("feed", ("/py thon", "-m", "live_services", "100%"), {"KEY": "va lue"}, stop_seconds=7.0)
    text = supervisor_configuration(tmp_path, tmp_path / "s.sock", {SERVERS: [], SERVICES: [program]})
    section = _read(text)["program:feed"]
    assert shlex.split(section["command"].replace("%%", "%")) == list(program.argv)
    assert section["environment"] == 'KEY="va lue"'
    assert (section["stopasgroup"], section["killasgroup"], section["autostart"]) == ("true", "true", "false")
    assert section["stopwaitsecs"] == "7"
    assert (section["autorestart"], section["startsecs"]) == ("false", "0")
    assert _read(text)["program:keeper"]["autorestart"] == "true"
    assert _read(text)["group:services"]["programs"] == "feed"


def test_a_value_that_supervisord_cannot_pass_on_is_refused(tmp_path):
    program = Program("feed", ("x",), {"KEY": 'a"b'})
    with pytest.raises(CommandFailed, match="KEY has a quote"):
        supervisor_configuration(tmp_path, tmp_path / "s.sock", {SERVICES: [program]})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a disk that is full")
def test_a_full_disk_under_its_own_stderr_does_not_end_supervisord():
    with Path("/dev/full").open("w") as full:
        assert Unending(full).write("its log cannot be written") == 25


def test_the_control_socket_of_a_deep_home_still_fits(tmp_path):
    deep = tmp_path / ("d" * 120)
    assert len(str(Supervisor(deep).socket_path)) <= 100
    assert Supervisor(deep).socket_path != Supervisor(tmp_path / ("e" * 120)).socket_path


def test_a_home_where_nothing_runs_says_how_to_start(tmp_path):
    supervisor = Supervisor(tmp_path)
    assert not supervisor.running
    with pytest.raises(NotRunning, match=f"--home {tmp_path} up`"):
        supervisor.processes()


def test_endpoints_are_private(tmp_path: Path):
    path = tmp_path / "run" / "endpoints.toml"
    write_private(path, "a = 1\n")
    write_private(path, "a = 2\n")
    assert path.read_text() == "a = 2\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@contextmanager
def _faulty_supervisord(supervisor: Supervisor, fault: Fault, answers: int) -> Iterator[None]:
    """Refuse so many requests on the control socket, then be gone."""
    body = dumps(fault).encode()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            nonlocal answers
            length = 0
            while (line := self.rfile.readline().strip()) != b"":
                if line.lower().startswith(b"content-length:"):
                    length = int(line.split(b":")[1])
            if not length:
                return  # somebody only asks whether we are here
            self.rfile.read(length)
            head = f"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: {len(body)}\r\n\r\n"
            self.wfile.write(head.encode() + body)
            answers -= 1
            if answers == 0:
                supervisor.socket_path.unlink()

    supervisor.run_directory.mkdir(parents=True, exist_ok=True)
    with socketserver.UnixStreamServer(str(supervisor.socket_path), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def test_a_refusal_of_supervisord_is_a_supervision_error(tmp_path):
    supervisor = Supervisor(tmp_path)
    with (
        _faulty_supervisord(supervisor, Fault(10, "BAD_NAME: x"), 3),
        pytest.raises(Refused, match="refused startProcess: BAD_NAME"),
    ):
        supervisor.start_program(SERVICES, "x")
    supervisor.socket_path.unlink(missing_ok=True)
    with _faulty_supervisord(supervisor, Fault(60, "ALREADY_STARTED: x"), 3):
        supervisor.start_program(SERVICES, "x")


def test_stopping_a_stack_that_is_stopping_already_still_leaves_nothing_behind(tmp_path, monkeypatch):
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path))
    stopped: list[Path] = []
    monkeypatch.setattr("live_services.machine.stack.stop_orphans", stopped.append)
    stack = Stack(load_settings())
    write_private(endpoints_file(tmp_path), "")
    with _faulty_supervisord(stack.supervisor, Fault(6, "SHUTDOWN_STATE"), 1):
        stack.stop()
    assert stopped == [stack.supervisor.socket_path]
    assert not endpoints_file(tmp_path).exists()


def test_of_two_starts_on_one_home_the_second_is_refused_and_touches_nothing(tmp_path, monkeypatch):
    home = tmp_path / "home"
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(home))
    stopped: list[Path] = []
    monkeypatch.setattr("live_services.machine.stack.stop_orphans", stopped.append)
    with start_lock(home):
        (home / DEMO_MARKER).touch()
        (home / "work").touch()
        with pytest.raises(AlreadyRunning, match="another command is starting"):
            start_everything(load_settings(), tell=print)
        with pytest.raises(AlreadyRunning, match="another command is starting"):
            run_demo(DemoOptions(home=home), Console())
        assert (home / "work").exists()
    assert not stopped
    with start_lock(home):
        fresh_home(home)
        assert not (home / "work").exists()
        with pytest.raises(AlreadyRunning), start_lock(home):  # wiping the home did not open it
            pass


def test_a_failed_start_does_not_stop_the_stack_of_another_command(tmp_path, monkeypatch):
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path))
    stack = Stack(load_settings())
    write_private(endpoints_file(tmp_path), "")
    with _faulty_supervisord(stack.supervisor, Fault(1, "UNKNOWN_METHOD"), 1):
        with pytest.raises(AlreadyRunning):
            stack.start_servers(tell=print)
        stack.stop_own()
        assert stack.supervisor.running
    assert endpoints_file(tmp_path).exists()
