"""A desk as `status` sees it: what its tasks report, and what is drawn of it."""

from __future__ import annotations

import io
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console, RenderableType

from live_services.cli.status import print_status
from live_services.cli.status_view import ServiceProcess, StatusView
from live_services.cli.strategy_states import StrategyRow, strategy_rows
from live_services.cli.task_health import Health, ProcessReport
from live_services.domain.events import SessionOpened, self_caused
from live_services.domain.log import StrategyRuntime
from live_services.machine.supervision import ProcessState
from live_services.settings import Settings
from tests.account_log import SESSIONS, STRATEGIES, two_sessions
from tests.live_world import OPEN, UNIVERSE

EVENTS = two_sessions()
SETTINGS = Settings(strategies=STRATEGIES)
LAST = SESSIONS[1]


def drawn(*shown: RenderableType) -> str:
    out = io.StringIO()
    for one in shown:
        Console(file=out, width=100).print(one)
    return out.getvalue()


def told() -> SessionOpened:
    return SessionOpened(
        **self_caused("session", LAST.open_ns),
        event_time_ns=LAST.open_ns,
        session_date=LAST.date.isoformat(),
        session_open_ns=LAST.open_ns,
        session_close_ns=LAST.close_ns,
        universe_digest=UNIVERSE.digest,
        instruments=UNIVERSE.instruments,
    )


RUNNER = "strategy_runner"


def task(service: str, broker: str = "paper", foreign: int = 0) -> dict[str, object]:
    return {
        "task": f"{broker}.{service}[0]",
        "service": service,
        "broker": broker,
        "watermark_ns": OPEN,
        "records_handled": 12,
        "lag_records": 0,
        "dead_letters": 0,
        "foreign_records": foreign,
        "readiness": "",
        "waiting_for": "",
    }


def runner(
    *said: tuple[str, str, str, str], rung: str = "champion", partition: int = 0, note: str = ""
) -> dict[str, object]:
    strategies = [
        asdict(StrategyRuntime(name, rung, state, "momentum", version, reason, note))  # type: ignore[arg-type]
        for name, state, version, reason in said
    ]
    name = f"shared.{RUNNER}[{partition}]"
    return task(RUNNER, "shared") | {"task": name, "strategies": strategies, "partition": partition}


def rows_of(*tasks: dict[str, object], states: object = (), skip: str | None = None) -> tuple[StrategyRow, ...]:
    return strategy_rows(STRATEGIES, lambda _: skip, tasks, states)  # type: ignore[arg-type]


AT_S = OPEN / 1_000_000_000
BOTH_READY = runner(("momentum", "ready", "3", ""), ("patient", "ready", "3", ""))


def process(name: str, state: str = "RUNNING", why: str = "", group: str = "services") -> ProcessState:
    return ProcessState(name, group, state, 7, why, OPEN // 1_000_000_000)


def report(name: str, scope: str = "shared", **says: object) -> ProcessReport:
    document = {"live": True, "ready": True, "lacks": [], "loop_turned_seconds_ago": 0.1, "tasks": []} | says
    return ProcessReport(name, scope, "127.0.0.1:1", document)


def view(**other: Any) -> StatusView:
    tasks = other.pop("tasks", (BOTH_READY,))
    of_a_well_desk: dict[str, Any] = {
        "home": Path("home"),
        "at_s": AT_S,
        "processes": (process("kafka", group="servers"), process("strategy_runner"), process("paper.account")),
        "restarts": (),
        "trading_states": (),
        "services": (
            ServiceProcess("strategy_runner", "shared", "strategy_runner"),
            ServiceProcess("account", "paper", "paper.account"),
        ),
        "skipped": ("zerodha is skipped",),
        "addresses": {"MLflow": "http://x"},
        "lacking": None,
        "reports": (report("strategy_runner"), report("account", "paper")),
        "health": Health(tasks, {}),
        "strategies": rows_of(*tasks),
        "accounts": (),
        "redis_problem": "",
        "log_problem": "",
    }
    return StatusView(**of_a_well_desk | other)


def printed(seen: StatusView) -> str:
    out = io.StringIO()
    print_status(seen, SETTINGS, Console(file=out, width=100))
    return out.getvalue()
