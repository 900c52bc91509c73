"""What the keeper brings back, on a supervisord that says what the test says."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import structlog

from live_services.adapters.progress_marks import progress_directory
from live_services.adapters.scrape_targets import read_targets
from live_services.machine import keeper as keeper_module
from live_services.machine.keeper import Keeper, keep
from live_services.machine.keeper_answers import KeeperHealth, KeeperMetrics
from live_services.machine.programs import SERVERS, SERVICES, KeptProgram, Plan, write_plan
from live_services.machine.restarts import read_restarts, restarts_file
from live_services.machine.supervision import NotRunning, ProcessState
from live_services.operations_settings import ProcessesSettings
from live_services.preflight.written import Written

PLAN = Plan((KeptProgram("account", 0, False),), ProcessesSettings(restart_limit=2, backoff_max_seconds=5.0))


@dataclass
class Supervised:
    """One process, which runs once it is started, and ends when the test says so."""

    home: Path
    ended_s: int = 1_000
    state: str = "EXITED"
    started: list[str] = field(default_factory=list)
    looks_left: int = 1_000
    exit_code: int = 1
    server: str = ""
    """One that gave up."""
    socket_path = Path("no-socket")

    @property
    def logs(self) -> Path:
        return self.home / "logs"

    def log_of(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def states(self) -> tuple[ProcessState, ...]:
        if not self.looks_left:
            raise NotRunning("it is gone")
        self.looks_left -= 1
        code = 0 if self.state == "FATAL" else self.exit_code  # supervisord's word of one that it could not start
        one = ProcessState("account", SERVICES, self.state, 0, "", self.ended_s, self.ended_s - 1, code)
        return (one, ProcessState(self.server, SERVERS, "FATAL", 0, "", 1, 1)) if self.server else (one,)

    def start_program(self, _group: str, name: str) -> None:
        self.started.append(name)
        self.state = "RUNNING"

    def ends(self, at_s: int) -> None:
        self.state, self.ended_s = "EXITED", at_s


@pytest.fixture
def supervised(tmp_path: Path) -> Supervised:
    progress_directory(tmp_path).mkdir(parents=True)
    return Supervised(tmp_path)


def test_a_clock_that_is_set_back_puts_no_restart_off(supervised: Supervised) -> None:
    kept = Keeper(supervised, PLAN, str)  # type: ignore[arg-type]
    kept.look(1_000.5)
    assert supervised.started == []
    kept.look(1_001.0)
    assert supervised.started == ["account"]
    supervised.ends(1_002)
    kept.look(1_002.5)
    for now in (400.0, 400.5):  # ten minutes earlier
        kept.look(now)
    assert supervised.started == ["account"] * 2
    supervised.ends(402)
    kept.look(402.0)
    (known,) = read_restarts(supervised.home)
    assert (known.state, known.count) == ("gave up", 3)


@pytest.mark.parametrize(("server", "counts"), [("kafka", 0), ("valkey", 0), ("mlflow", 0), ("dagster-web", 1)])
def test_only_a_server_that_services_use_excuses_their_deaths(supervised: Supervised, server: str, counts: int) -> None:
    supervised.server = server
    plan = Plan((*PLAN.programs, KeptProgram(server, 0, False)), PLAN.processes)
    Keeper(supervised, plan, str).look(1_000.5)  # type: ignore[arg-type]
    known = read_restarts(supervised.home)[0]
    assert known.name == "account"
    assert (known.count, f"{server} was away" in known.last_error) == (counts, not counts)


def test_a_disk_that_takes_nothing_keeps_nothing_down(
    supervised: Supervised, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_plan(supervised.home, PLAN)
    file = restarts_file(supervised.home)
    file.with_name(f".{file.name}.{os.getpid()}").mkdir()  # in the place of what it would write first
    monkeypatch.setattr(keeper_module, "Supervisor", lambda _home: supervised)
    monkeypatch.setattr(keeper_module, "_LOOK_SECONDS", 0.0)
    monkeypatch.setattr(keeper_module, "_server_away", str)
    supervised.looks_left = 20
    keep(supervised.home, threading.Event())
    assert supervised.started == ["account"]
    assert capsys.readouterr().err.count("error: ") == 1


def test_what_cannot_be_started_is_tried_again_with_growing_pauses_and_is_never_over(supervised: Supervised) -> None:
    kept = Keeper(supervised, Plan((KeptProgram("account", 0, True),), PLAN.processes), str)  # type: ignore[arg-type]
    starts = []
    for now in range(2_000, 2_020):
        supervised.state = "FATAL"
        kept.look(float(now))
        starts.append(len(supervised.started))
    assert starts[:5] == [0, 1, 1, 1, 2]
    (known,) = read_restarts(supervised.home)
    assert (known.state, known.count, known.restarts) == ("gave up", 3, 2)


def test_restarts_and_what_stays_down_are_metrics_and_so_is_what_never_died(supervised: Supervised) -> None:
    plan = Plan((*PLAN.programs, KeptProgram("strategy_runner", 0, False)), PLAN.processes)
    kept, metrics = Keeper(supervised, plan, str), KeeperMetrics()  # type: ignore[arg-type]

    def shown(process: str) -> list[float | None]:
        metrics.show(kept.restarts)
        metrics.show_down(kept.down)
        names = ("alpha_panda_process_restarts", "alpha_panda_process_given_up", "alpha_panda_process_down")
        return [metrics.registry.get_sample_value(name, {"process": process}) for name in names]

    assert shown("account") == [0.0, 0.0, 0.0]
    supervised.state = "STOPPED"  # preflight holds it back, and it never ran
    kept.look(1_999.0)
    assert shown("account") == [0.0, 0.0, 1.0]
    for now in range(2_000, 2_020):
        supervised.state = "FATAL"
        kept.look(float(now))
    assert shown("account") == [2.0, 1.0, 1.0]
    assert shown("strategy_runner") == [0.0, 0.0, 0.0]
    supervised.state = "RUNNING"  # a person mended it
    kept.look(2_021.0)
    assert shown("account") == [2.0, 0.0, 0.0]


def test_a_replay_that_is_over_is_not_down(supervised: Supervised) -> None:
    kept = Keeper(supervised, Plan((KeptProgram("account", 0, True),), PLAN.processes), str)  # type: ignore[arg-type]
    supervised.exit_code = 0
    kept.look(1_000.5)
    assert kept.down == {"account": False}


def test_what_failed_in_the_last_preflight_is_a_metric_until_it_is_asked_again() -> None:
    metrics = KeeperMetrics()

    def shown() -> dict[str, tuple[str, float]]:
        (family,) = (one for one in metrics.registry.collect() if one.name == "alpha_panda_preflight_failed")
        return {one.labels["check"]: (one.labels["holds_back"], one.value) for one in family.samples}

    metrics.show_preflight(Written("", (), {"topics": "live services", "disk": "", "redis": "nothing"}))
    assert shown() == {"topics": ("live services", 1.0), "disk": ("nothing", 0.0), "redis": ("nothing", 1.0)}
    metrics.show_preflight(Written("", (), {"topics": ""}))
    assert shown() == {"topics": ("nothing", 0.0)}
    metrics.show_preflight(None)
    assert shown() == {}


@pytest.mark.parametrize("told", [True, False])
def test_a_keeper_is_a_target_of_prometheus_until_it_is_told_to_stop_also_if_its_supervisor_is_gone(
    supervised: Supervised, monkeypatch: pytest.MonkeyPatch, told: bool
) -> None:
    write_plan(supervised.home, PLAN)
    monkeypatch.setattr(keeper_module, "Supervisor", lambda _home: supervised)
    monkeypatch.setattr(keeper_module, "_LOOK_SECONDS", 0.0)
    supervised.looks_left, stop = 0, threading.Event()
    if told:
        stop.set()
    keep(supervised.home, stop)
    assert [process for process, _, _ in read_targets(supervised.home)] == ([] if told else ["keeper"])


def test_a_keeper_that_looks_no_more_is_not_well() -> None:
    now = [0.0]
    health = KeeperHealth(30.0, lambda: now[0])
    assert (health.live()["live"], health.ready()) == (True, {"ready": True, "lacks": []})
    now[0] = 31.0
    document = health.document()
    assert (document["live"], document["lacks"]) == (False, ["it does not look after the processes"])
    health.looked()
    assert health.document()["ready"]


def test_a_death_is_a_line_in_the_log_with_what_becomes_of_it(supervised: Supervised) -> None:
    supervised.logs.mkdir()
    with structlog.testing.capture_logs() as said:
        Keeper(supervised, PLAN, str).look(1_000.5)  # type: ignore[arg-type]
    (line,) = said
    assert (line["event"], line["log_level"], line["process"]) == ("process_ended", "error", "account")
    assert line["becomes"] == "waiting"
    assert line["reason"] == read_restarts(supervised.home)[0].last_error
