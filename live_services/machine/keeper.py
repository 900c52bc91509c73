"""Brings back what died: ``python -m live_services.machine.keeper HOME``, one of supervisord's own processes.

supervisord starts and stops, and brings back nothing but this. The keeper looks what died, says why in
``{home}/run/restarts.json``, rests longer after each death in a row, and gives up after the limit of the settings.
"""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Final

import structlog

from live_services.adapters.progress_marks import progress_directory
from live_services.machine.keeper_answers import KeeperAnswers
from live_services.machine.last_words import end_of, reason_of_end, tail_of
from live_services.machine.ports import taken_by
from live_services.machine.programs import SERVERS, KeptProgram, Plan, read_plan, write_private
from live_services.machine.restarts import (
    Death,
    Restarts,
    after_death,
    read_restarts,
    restarts_file,
    restarts_json,
    started_again,
)
from live_services.machine.supervision import NotRunning, ProcessState, Refused, SupervisionError, Supervisor

_log = structlog.get_logger("application")

_LOOK_SECONDS: Final = 0.5
_DEAD: Final = frozenset({"EXITED", "FATAL"})
"""FATAL: it could not even be started."""
_UP: Final = frozenset({"RUNNING", "STARTING"})
_PORT_PAUSE_SECONDS: Final = 5.0
_NEEDED: Final = frozenset({"kafka", "valkey", "mlflow"})
"""Servers that a service uses: without one its death is not its own fault. Dagster is none of them."""
_SERVER_WELL_SECONDS: Final = 60.0  # a server that ran so long had come up; it commits nothing by which one could tell

Away = Callable[[], str]
"""Names a server outside this stack that does not answer; empty if all do."""


class Keeper:
    """What was seen of the processes of one home, and what is to be done next.

    Parameters
    ----------
    supervisor
        Of the home.
    plan
        What is kept, and how.
    external_away
        Asked at a death while every server of the stack runs.
    """

    def __init__(self, supervisor: Supervisor, plan: Plan, external_away: Away) -> None:
        self._supervisor = supervisor
        self._plan = plan
        self._external_away = external_away
        self._programs = {program.name: program for program in plan.programs}
        self._known = {one.name: one for one in read_restarts(supervisor.home)}
        self._written: tuple[Restarts, ...] = tuple(self._known.values())
        self._log_begins = {name: _size(supervisor.log_of(name)) for name in self._programs}
        self._runs: dict[str, bool] = {}

    @property
    def down(self) -> dict[str, bool]:
        """Whether each process did not run at the last look, though it is not over."""
        return {one.name: not self._runs.get(one.name, True) and one.state != "over" for one in self.restarts}

    @property
    def restarts(self) -> tuple[Restarts, ...]:
        """What became of each process that it keeps."""
        return tuple(self._known.get(name, Restarts(name)) for name in self._programs)

    def look(self, now: float) -> None:
        """Note what died and what is up again, and start what is due; ``now`` is in seconds since 1970."""
        states = {state.name: state for state in self._supervisor.states() if state.name in self._programs}
        self._runs = {name: state.state in _UP for name, state in states.items()}
        for name, state in states.items():
            known = self._known.get(name, Restarts(name))
            died_anew = state.state in _DEAD and state.since_s > known.died_at
            if known.state != "running" and (state.state in _UP or died_anew):  # a person, or `up`, started it
                known = self._known[name] = replace(
                    known, state="running", count=0, in_a_row=0, next_try=0.0, in_the_way=""
                )
            if state.state == "STOPPED":
                self._forget(name)
            elif state.state in _DEAD and known.state == "running":
                self._known[name] = self._judge(self._programs[name], state, known, states.values(), now)
            elif state.state in _DEAD and known.state == "waiting" and self._is_due(known, now):
                self._known[name] = self._bring_back(self._programs[name], state, known, now)
        self._write()

    def _is_due(self, known: Restarts, now: float) -> bool:
        """Whether the pause of a process is over; one longer than any pause is of a clock that was set back."""
        longest = max(self._plan.processes.backoff_max_seconds, _PORT_PAUSE_SECONDS)
        return not now < known.next_try <= now + longest

    def _forget(self, name: str) -> None:
        """Begin anew with what a person stopped."""
        self._known.pop(name, None)
        self._mark_of(name).unlink(missing_ok=True)

    def _mark_of(self, name: str) -> Path:
        return progress_directory(self._supervisor.home) / name

    def _judge(
        self, program: KeptProgram, state: ProcessState, known: Restarts, all_states: Iterable[ProcessState], now: float
    ) -> Restarts:
        ended = state.state == "EXITED"  # else it could not be started, and its last end is of long ago
        died_at = float(state.since_s) if ended and state.since_s else now
        if program.may_be_over and ended and state.exit_code == 0:
            return replace(known, state="over", died_at=died_at, count=0, in_a_row=0, next_try=0.0)
        is_server = state.group == SERVERS
        if is_server:
            got_on = died_at - state.started_s >= _SERVER_WELL_SECONDS
        else:
            got_on = self._mark_of(program.name).exists()
        away = "" if is_server or got_on else self._away(state, all_states)
        found = after_death(known, Death(died_at, self._reason(program, state), got_on, away), self._plan.processes)
        _log.error("process_ended", process=program.name, becomes=found.state, reason=found.last_error, away=away)
        return found

    def _away(self, of: ProcessState, states: Iterable[ProcessState]) -> str:
        """Name a server that is down, or was started after the process that died, and so was away in its life."""
        for server in states:
            if server.name in _NEEDED and (server.state not in _UP or server.started_s > of.started_s):
                return server.name
        return self._external_away()

    def _reason(self, program: KeptProgram, state: ProcessState) -> str:
        supervisor = self._supervisor
        if state.state == "FATAL":
            return state.description or "it could not be started"
        end = end_of(program.name, tail_of(supervisor.logs / "supervisord.log"))
        return reason_of_end(tail_of(supervisor.log_of(program.name), self._log_begins[program.name]), end)

    def _bring_back(self, program: KeptProgram, state: ProcessState, known: Restarts, now: float) -> Restarts:
        if program.port and (holder := taken_by(program.port, self._supervisor.socket_path, program.name)):
            # Not its own fault: it waits as long as that lasts.
            why = f"its port {program.port} is taken by {holder}: end that, and it starts by itself"
            return replace(known, in_the_way=why, next_try=now + _PORT_PAUSE_SECONDS)
        self._mark_of(program.name).unlink(missing_ok=True)
        self._log_begins[program.name] = _size(self._supervisor.log_of(program.name))
        with suppress(Refused):  # it ended at once, which the next look judges, or supervisord is stopping
            self._supervisor.start_program(state.group, program.name)
        return started_again(known)

    def _write(self) -> None:
        known = tuple(self._known.values())
        if known != self._written:
            write_private(restarts_file(self._supervisor.home), restarts_json(known))
            self._written = known


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _server_away() -> str:
    from live_services.machine.stack import servers_away
    from live_services.messages import expected_failures
    from live_services.settings import load_settings

    try:
        return servers_away(load_settings())
    except expected_failures():  # the settings were broken meanwhile, which the service's own last words say
        return ""


def _log_to_the_channels(home: Path) -> None:
    from live_services.adapters.logs import log_beside
    from live_services.adapters.redaction import secrets_of
    from live_services.messages import expected_failures
    from live_services.settings import load_settings

    try:
        settings = load_settings()
    except expected_failures():
        log_beside("keeper", home)
    else:
        log_beside("keeper", home, settings.logging, secrets=secrets_of(settings))


def keep(home: Path, stop: threading.Event) -> None:
    """Look after the processes of a home until told to stop, or supervisord is gone."""
    supervisor = Supervisor(home)
    plan = read_plan(supervisor.home)
    keeper, said = Keeper(supervisor, plan, _server_away), ""
    with KeeperAnswers(supervisor.home, plan.processes.stall_seconds) as answers:
        while not stop.wait(_LOOK_SECONDS):
            try:
                keeper.look(time.time())
            except NotRunning:
                return
            except (SupervisionError, OSError) as problem:  # a full disk: what it could not write it still knows
                before, said = said, f"error: {problem}"
                if said != before:
                    print(said, file=sys.stderr)  # noqa: T201 (supervisord keeps it as this process' log)
            answers.looked(keeper.restarts, keeper.down)
        answers.withdraw()


def main() -> None:
    """Keep the home that the command line names."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    _log_to_the_channels(Path(sys.argv[1]))
    keep(Path(sys.argv[1]), stop)


if __name__ == "__main__":
    main()
