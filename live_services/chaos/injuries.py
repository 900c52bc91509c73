"""Faults done to processes by signals: an episode is begun, and over when the last of its injuries is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from typing import Final

from live_services.chaos.faults import Episode, Injury
from live_services.machine.supervision import SupervisionError, Supervisor

_UNTIL_ALIVE_SECONDS: Final = 10.0
_LOOK_SECONDS: Final = 0.1
_DUTY_S: Final = (0.27, 0.03)
"""Stopped and running in turn: a tenth of the speed, in pieces that no timeout sees."""
_LEAVE_SECONDS: Final = 30.0
JOINS: Final = {"RUNTIME__MEMBER": "a-second-member"}
"""Environment of a second member: by the name of the first one it would take its place and not join it."""


@dataclass
class Injuries:
    """Does injuries to the processes of a supervisor.

    Parameters
    ----------
    supervisor : Supervisor
        Of the desk.
    environment : mapping
        Added to that of a second member.
    """

    supervisor: Supervisor
    environment: Mapping[str, str]
    _over: threading.Event = field(default_factory=threading.Event)

    def inflict(self, episode: Episode) -> tuple[Injury, ...]:
        """Do all injuries of an episode and wait until they are over; gives those that found their process alive.

        Whatever happens, nothing stays frozen and no second member stays behind.
        """
        self._over.clear()
        with ThreadPoolExecutor(len(episode.injuries)) as pool:
            try:
                done = list(pool.map(self._inflict, episode.injuries))
            finally:
                self._over.set()  # on Ctrl-C, so that the threads thaw what they froze at once
        return tuple(injury for injury, was_done in zip(episode.injuries, done, strict=True) if was_done)

    @contextmanager
    def held(self, program: str) -> Iterator[None]:
        """Freeze a process for as long as the block lasts."""
        pid = self._pid_of(program)
        with _stopped(pid) if pid else nullcontext():
            yield

    def _inflict(self, injury: Injury) -> bool:
        self._over.wait(injury.after_s)
        if injury.kind == "join":
            return self._join(injury)
        pid = self._pid_of(injury.target)
        if pid == 0 or self._over.is_set():
            return False
        try:
            if injury.kind == "kill":
                os.kill(pid, signal.SIGKILL)
            elif injury.kind == "slow":
                self._slow(pid, injury.seconds)
            else:
                self._freeze(pid, injury.seconds)
        except ProcessLookupError:  # it ended by itself in between
            return False
        return True

    def _pid_of(self, program: str) -> int:
        """Wait until a process is there, which it is not while it rests before its next start; 0 if it stays away."""
        deadline = time.monotonic() + _UNTIL_ALIVE_SECONDS
        while True:
            try:
                pid = next(state.pid for state in self.supervisor.states() if state.name == program)
            except SupervisionError:
                pid = 0
            if pid or time.monotonic() > deadline or self._over.wait(_LOOK_SECONDS):
                return pid

    def _freeze(self, pid: int, seconds: float) -> None:
        with _stopped(pid):
            self._over.wait(seconds)

    def _slow(self, pid: int, seconds: float) -> None:
        stopped_s, running_s = _DUTY_S
        until = time.monotonic() + seconds
        while time.monotonic() < until and not self._over.is_set():
            self._freeze(pid, stopped_s)
            self._over.wait(running_s)

    def _join(self, injury: Injury) -> bool:
        member = subprocess.Popen(
            [sys.executable, "-m", "live_services.process", injury.target],
            env=os.environ | dict(self.environment) | JOINS,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            self._over.wait(injury.seconds)
            if not injury.ends_by_kill:
                member.terminate()
                member.wait(_LEAVE_SECONDS)
        except subprocess.TimeoutExpired:
            pass  # it is killed then, as one that was told to
        finally:
            member.kill()
            member.wait()
        return True


@contextmanager
def _stopped(pid: int) -> Iterator[None]:
    """Stop a process and its children for as long as the block lasts; supervisord made it the leader of their group."""
    os.killpg(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):  # it was killed as it stood
            os.killpg(pid, signal.SIGCONT)
