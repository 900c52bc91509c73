"""supervisord brings a process back that was killed, and leaves nothing behind."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import psutil
import pytest

from live_services.machine.supervision import SERVICES, AlreadyRunning, ProcessFailed, Program, Supervisor

pytestmark = pytest.mark.integration


def _until(condition, seconds=20.0):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "gave up waiting"
        time.sleep(0.05)


def test_a_killed_process_comes_back_and_shutdown_leaves_nothing(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    sleeper = Program("sleeper", (sys.executable, "-c", "import time; time.sleep(600)"))
    supervisor.start({SERVICES: [sleeper]}, {})
    try:
        supervisor.start_group(SERVICES)
        _until(lambda: supervisor.processes()[0].state == "RUNNING")
        with pytest.raises(AlreadyRunning, match=f"--home {tmp_path} down`"):
            supervisor.start({SERVICES: [sleeper]}, {})
        first = supervisor.processes()[0].pid
        psutil.Process(first).kill()
        _until(lambda: supervisor.processes()[0].pid not in (0, first))
        second = supervisor.processes()[0].pid
    finally:
        supervisor.shutdown()
    assert not psutil.pid_exists(second)
    assert not supervisor.running


def test_a_process_that_ends_badly_is_named_with_its_last_words(tmp_path: Path) -> None:
    supervisor = Supervisor(tmp_path)
    supervisor.start({SERVICES: [Program("broken", (sys.executable, "-c", "raise SystemExit('no such topic')"))]}, {})
    try:
        supervisor.start_group(SERVICES)
        _until(lambda: supervisor.processes()[0].state == "FATAL", 60)
        with pytest.raises(ProcessFailed, match="no such topic"):
            supervisor.require_alive(SERVICES)
    finally:
        supervisor.shutdown()
