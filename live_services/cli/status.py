"""``alpha-panda status``: processes as supervisord sees them, tasks as Redis has them, accounts and strategies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape

from feature_store.market.types import SECOND_NS, ist_text
from live_services.adapters.readiness import missing
from live_services.cli import account_view
from live_services.cli.account_view import AccountView, read_account
from live_services.cli.log_view import LogBackwards, log_backwards
from live_services.cli.output import Document, Field, FittingTable
from live_services.cli.strategy_states import StrategyState, read_strategy_states, strategies_table
from live_services.composition import SERVICES
from live_services.domain import keys
from live_services.domain.events import PnlSnapshot
from live_services.domain.topics import BROKERS, Scope
from live_services.machine.stack import Stack, program_name
from live_services.machine.supervision import ProcessState
from live_services.messages import expected_failures, message_of
from live_services.settings import Settings
from models_registry.addresses import without_credentials
from models_registry.specification import Broker

_SCOPES: Final[tuple[Scope, ...]] = ("shared", *BROKERS)
_HOSTED: Final = [(scope, name) for entry in SERVICES for scope in _SCOPES for name in entry.hosts(scope)]
_PLACES: Final = {service: place for place, service in enumerate(_HOSTED)}


@dataclass(frozen=True, slots=True)
class Health:
    """What Redis knows: the newest health of each task (JSON documents), and each broker's newest snapshot."""

    tasks: tuple[dict[str, Any], ...]
    portfolios: Mapping[Broker, PnlSnapshot]

    def task(self, service: str, broker: str) -> dict[str, Any] | None:
        """Give the task of a service that is furthest behind."""
        mine = [t for t in self.tasks if t["service"] == service and t["broker"] == broker]
        return min(mine, key=lambda t: int(t["watermark_ns"]), default=None)


@dataclass(frozen=True, slots=True)
class DeskView:
    """What the log knows: the accounts, and what each strategy runs."""

    accounts: tuple[AccountView, ...]
    strategies: tuple[StrategyState, ...]


def read_health(settings: Settings) -> Health:
    """Read health and portfolios; empty when no Redis is set.

    Raises
    ------
    redis.RedisError
        If Redis does not answer.
    """
    import redis

    url = settings.redis.url.get_secret_value()
    if not url:
        return Health((), {})
    client = redis.Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3)
    try:
        tasks = [client.get(key) for key in sorted(client.scan_iter(keys.task_health_pattern(), count=200))]
        portfolios = {broker: client.get(keys.portfolio(broker)) for broker in BROKERS}
    finally:
        client.close()
    read = ((broker, _snapshot(value)) for broker, value in portfolios.items())
    return Health(
        tuple(json.loads(task) for task in tasks if task is not None),
        {broker: snapshot for broker, snapshot in read if snapshot is not None},
    )


def _snapshot(value: Any) -> PnlSnapshot | None:
    """Read a snapshot; None for none, and for that of another version, which the log replaces."""
    try:
        return PnlSnapshot.model_validate_json(value) if value is not None else None
    except ValidationError:
        return None


async def read_desk(log: LogBackwards, settings: Settings, portfolios: Mapping[Broker, PnlSnapshot]) -> DeskView:
    """Read accounts and strategies off the log."""
    read = [await read_account(log, broker, portfolios.get(broker)) for broker in settings.active_brokers]
    return DeskView(
        tuple(account for account in read if account is not None),
        await read_strategy_states(log, settings.strategies),
    )


@dataclass(frozen=True, slots=True)
class StatusView:
    """All that `status` knows."""

    home: Path
    processes: tuple[ProcessState, ...]
    skipped: tuple[str, ...]
    addresses: Mapping[str, str]
    lacking: str | None
    """What the desk waits for before it trades."""
    health: Health
    desk: DeskView
    log_problem: str
    """Why the log could not be read; empty if it was."""


def read_status(settings: Settings) -> StatusView:
    """Ask what runs and how it does.

    Raises
    ------
    live_services.machine.supervision.NotRunning
        If nothing runs on this home.
    """
    stack = Stack(settings)
    order = {program_name(*process): place for place, process in enumerate(stack.desk.processes)}
    running = sorted(stack.supervisor.processes(), key=lambda p: (p.group, order.get(p.name, -1), p.name))
    health, log_problem = read_health(settings), ""
    try:
        desk = asyncio.run(read_desk(log_backwards(settings), settings, health.portfolios))
    except expected_failures() as problem:
        log_problem = message_of(problem)
        desk = DeskView(tuple(AccountView(s, None, None) for s in health.portfolios.values()), ())
    addresses = {
        "MLflow": without_credentials(settings.mlflow.tracking_uri),
        "Dagster": settings.dagster.url,
        "Kafka": settings.kafka.bootstrap_servers,
    }
    lacking = missing(settings)
    return StatusView(stack.home, tuple(running), stack.desk.skipped, addresses, lacking, health, desk, log_problem)


def status_record(view: StatusView) -> Document:
    """Give it as one JSON object; amounts ``_inr_e4`` are exact, integers of 1/10,000 rupee."""
    return {
        "home": str(view.home),
        "processes": [
            asdict(process) | {"since": _since(process) or None, "gave_up": process.gave_up}
            for process in view.processes
        ],
        "skipped": list(view.skipped),
        "addresses": {name.lower(): address for name, address in view.addresses.items()},
        "waits_for": view.lacking,
        "tasks": list(view.health.tasks),
        "alarms": [*foreign_records(view.health), *dead_letters(view.health)],
        "strategies": [
            {
                "strategy": state.strategy,
                "rung": state.rung,
                "is_disabled": state.is_disabled,
                "assigned": [event.model_dump(mode="json") for event in state.assigned],
                "refused": None if state.refused is None else state.refused.model_dump(mode="json"),
            }
            for state in view.desk.strategies
        ],
        "accounts": [
            {
                "snapshot": account.snapshot.model_dump(mode="json"),
                "verdicts": None
                if account.verdicts is None
                else {one.name: getattr(account.verdicts, one.name) for one in fields(account.verdicts)},
                "session_close_ns": account.close_ns,
            }
            for account in view.desk.accounts
        ],
        "log_problem": view.log_problem or None,
    }


def print_status(view: StatusView, settings: Settings, console: Console) -> None:
    """Show what runs and how it does."""
    console.print(processes_table(view))
    for reason in view.skipped:
        console.print(reason, markup=False)
    console.print(" · ".join(f"{name} {a}" for name, a in view.addresses.items()), markup=False, soft_wrap=True)
    if view.lacking is not None:
        console.print(view.lacking, markup=False, soft_wrap=True)
    if view.health.tasks:
        console.print(tasks_table(view.health))
        for alarm in (*foreign_records(view.health), *dead_letters(view.health)):
            console.print(f"[bold red]ALARM:[/] {escape(alarm)}", soft_wrap=True)
    if view.log_problem:
        console.print(f"the log cannot be read: {view.log_problem}", markup=False, soft_wrap=True)
    if view.desk.strategies:
        console.print(strategies_table(view.desk.strategies))
    for account in view.desk.accounts:
        console.print(account_view.render(account, settings))


_COLOURS: Final = {"RUNNING": "green", "EXITED": "dim", "FATAL": "bold red", "BACKOFF": "red"}


def processes_table(view: StatusView) -> FittingTable:
    """Lay out the processes; times are IST."""
    table = FittingTable(
        (
            Field("process"),
            Field("state"),
            Field("pid", leave_out=1, right=True),
            Field("since (IST)"),
            Field("because", text=True),
        ),
        title=escape(str(view.home)),
    )
    for process in view.processes:
        colour = _COLOURS.get(process.state)
        state = f"[{colour}]{process.state}[/]" if colour else process.state
        table.add_row(
            process.name,
            state,
            str(process.pid) if process.pid else "",
            _since(process).removesuffix(" IST"),
            escape(process.description),
        )
    return table


def _since(process: ProcessState) -> str:
    return ist_text(process.since_s * SECOND_NS) if process.since_s else ""


def dead_letters(health: Health) -> list[str]:
    """Say which tasks could not read records of others."""
    return [
        f"{task['task']} put {task['dead_letters']:,} records aside that it could not read; they are on the topics "
        "that end in .dlq, with their reasons"
        for task in health.tasks
        if task["dead_letters"]
    ]


def foreign_records(health: Health) -> list[str]:
    """Say which topics hold records that only a task may write there and that it did not write."""
    return [
        f"{task['foreign_records']:,} records on what only {task['task']} may write are not its own. They trade "
        "nothing, but whoever reads there takes them for its word: find out who writes there (log line foreign_record)"
        for task in health.tasks
        if task["foreign_records"]
    ]


def tasks_table(health: Health) -> FittingTable:
    """Lay out every service of every task, in the order in which a tick meets them.

    It says where each stands, which of its instruments are WARMING, and what it waits for.
    """
    table = FittingTable(
        (
            Field("task"),
            Field("watermark (IST)"),
            Field("handled", leave_out=3, right=True),
            Field("lag", leave_out=2, right=True),
            Field("dead\nletters", leave_out=1, right=True),
            Field("features", text=True),
            Field("waits for", text=True),
        )
    )
    for task in sorted(health.tasks, key=lambda t: _PLACES.get((t["broker"], t["service"]), len(_PLACES))):
        table.add_row(
            task["task"],
            ist_text(int(task["watermark_ns"])).removesuffix(" IST") if task["watermark_ns"] > 0 else "none yet",
            f"{task['records_handled']:,}",
            f"{task['lag_records']:,}",
            str(task["dead_letters"]),
            f"[yellow]{escape(task['readiness'])}[/]" if task.get("warming") else escape(task.get("readiness", "")),
            escape(task["waiting_for"]),
        )
    return table
