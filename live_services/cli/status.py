"""``alpha-panda status``: processes as supervisord sees them, tasks as Redis has them, accounts and strategies."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from pydantic import ValidationError
from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from feature_store.market.types import ist_text
from live_services.adapters.readiness import missing
from live_services.cli import account_view
from live_services.cli.account_view import AccountView, read_account
from live_services.cli.log_view import LogBackwards, log_backwards
from live_services.cli.strategy_states import StrategyState, read_strategy_states, strategies_table
from live_services.composition import SERVICES
from live_services.domain import keys
from live_services.domain.events import PnlSnapshot
from live_services.domain.topics import BROKERS, Scope
from live_services.machine.stack import Stack, program_name
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


def print_status(settings: Settings, console: Console) -> None:
    """Show what runs and how it does.

    Raises
    ------
    live_services.machine.supervision.NotRunning
        If nothing runs on this home.
    """
    stack = Stack(settings)
    running = Table(Column("process", overflow="fold"), "state", Column(overflow="fold"), title=str(stack.home))
    order = {program_name(*process): place for place, process in enumerate(stack.desk.processes)}
    for process in sorted(stack.supervisor.processes(), key=lambda p: (p.group, order.get(p.name, -1), p.name)):
        colour = {"RUNNING": "green", "EXITED": "dim", "FATAL": "bold red", "BACKOFF": "red"}.get(process.state, "")
        state = f"[{colour}]{process.state}[/]" if colour else process.state
        running.add_row(process.name, state, process.description)
    console.print(running)
    for reason in stack.desk.skipped:
        console.print(reason, markup=False)
    urls = (without_credentials(settings.mlflow.tracking_uri), settings.dagster.url, settings.kafka.bootstrap_servers)
    console.print("MLflow {} · Dagster {} · Kafka {}".format(*urls), markup=False, soft_wrap=True)
    lacking = missing(settings)
    if lacking is not None:
        console.print(lacking, markup=False, soft_wrap=True)
    health = read_health(settings)
    if health.tasks:
        console.print(tasks_table(health))
        for alarm in foreign_records(health):
            console.print(f"[bold red]ALARM:[/] {escape(alarm)}", soft_wrap=True)
    _print_desk(settings, health, console)


def _print_desk(settings: Settings, health: Health, console: Console) -> None:
    try:
        desk = asyncio.run(read_desk(log_backwards(settings), settings, health.portfolios))
    except expected_failures() as problem:
        console.print(f"the log cannot be read: {message_of(problem)}", markup=False, soft_wrap=True)
        desk = DeskView(tuple(AccountView(s, None, None) for s in health.portfolios.values()), ())
    if desk.strategies:
        console.print(strategies_table(desk.strategies))
    for account in desk.accounts:
        console.print(account_view.render(account, settings))


def foreign_records(health: Health) -> list[str]:
    """Say which topics hold records that only a task may write there and that it did not write."""
    return [
        f"{task['foreign_records']:,} records on what only {task['task']} may write are not its own. They trade "
        "nothing, but whoever reads there takes them for its word: find out who writes there (log line foreign_record)"
        for task in health.tasks
        if task["foreign_records"]
    ]


def tasks_table(health: Health) -> Table:
    """Lay out every service of every task, in the order in which a tick meets them.

    It says where each stands, which of its instruments are WARMING, and what it waits for.
    """
    table = Table(
        *(Column(header, no_wrap=True) for header in ("task", "watermark (IST)")),
        *(Column(header, justify="right", no_wrap=True) for header in ("handled", "lag", "dead\nletters")),
        *(Column(header, overflow="fold") for header in ("features", "waits for")),
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        show_edge=False,
        collapse_padding=True,
    )
    for task in sorted(health.tasks, key=lambda t: _PLACES.get((t["broker"], t["service"]), len(_PLACES))):
        table.add_row(
            task["task"],
            ist_text(int(task["watermark_ns"])).removesuffix(" IST") if task["watermark_ns"] > 0 else "none yet",
            f"{task['records_handled']:,}",
            f"{task['lag_records']:,}",
            str(task["dead_letters"]),
            f"[yellow]{escape(task['readiness'])}[/]" if task.get("warming") else task.get("readiness", ""),
            task["waiting_for"],
        )
    return table
