"""``alpha-panda status``: processes as supervisord sees them, tasks and portfolios as Redis has them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Final

from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from feature_store.market.types import ist_text
from live_services.adapters.readiness import missing
from live_services.composition import SERVICES
from live_services.domain import keys
from live_services.domain.topics import BROKERS
from live_services.machine.stack import Stack, program_name
from live_services.settings import Settings
from models_registry.registry import without_credentials

_PLACES: Final = {name: place for place, name in enumerate(name for entry in SERVICES for name in entry.hosts)}


@dataclass(frozen=True, slots=True)
class Health:
    """What Redis knows: the newest health of each task, and each broker's portfolio (JSON documents)."""

    tasks: tuple[dict[str, Any], ...]
    portfolios: dict[str, dict[str, Any]]

    def task(self, service: str, broker: str) -> dict[str, Any] | None:
        """Give the task of a service that is furthest behind."""
        mine = [t for t in self.tasks if t["service"] == service and t["broker"] == broker]
        return min(mine, key=lambda t: int(t["watermark_ns"]), default=None)


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
    return Health(
        tuple(json.loads(task) for task in tasks if task is not None),
        {broker: json.loads(value) for broker, value in portfolios.items() if value is not None},
    )


def print_status(settings: Settings, console: Console) -> None:
    """Show what runs and how it does.

    Raises
    ------
    live_services.machine.supervision.NotRunning
        If nothing runs on this home.
    """
    stack = Stack(settings)
    processes = Table(Column("process", overflow="fold"), "state", Column(overflow="fold"), title=str(stack.home))
    order = {program_name(*process): place for place, process in enumerate(stack.desk.processes)}
    for process in sorted(stack.supervisor.processes(), key=lambda p: (p.group, order.get(p.name, -1), p.name)):
        colour = {"RUNNING": "green", "EXITED": "dim", "FATAL": "bold red", "BACKOFF": "red"}.get(process.state, "")
        processes.add_row(
            process.name, f"[{colour}]{process.state}[/]" if colour else process.state, process.description
        )
    console.print(processes)
    for reason in stack.desk.skipped:
        console.print(reason, markup=False)
    urls = (without_credentials(settings.mlflow.tracking_uri), settings.dagster.url, settings.kafka.bootstrap_servers)
    console.print("MLflow {} · Dagster {} · Kafka {}".format(*urls), markup=False)
    lacking = missing(settings)
    if lacking is not None:
        console.print(lacking, markup=False, soft_wrap=True)
    health = read_health(settings)
    if health.tasks:
        console.print(tasks_table(health))
    for broker, portfolio in health.portfolios.items():
        console.print(_portfolio(broker, portfolio))


def tasks_table(health: Health) -> Table:
    """Lay out every task, in the order in which a tick meets them.

    It says where each stands, which of its instruments are WARMING, and what it waits for.
    """
    headers = ("task", "watermark", "handled", "lag", "dead letters", "features", "waits for")
    table = Table(*(Column(header, overflow="fold") for header in headers))
    for task in sorted(health.tasks, key=lambda task: _PLACES.get(task["service"], len(_PLACES))):
        table.add_row(
            task["task"],
            ist_text(int(task["watermark_ns"])) if task["watermark_ns"] > 0 else "none yet",
            f"{task['records_handled']:,}",
            f"{task['lag_records']:,}",
            str(task["dead_letters"]),
            f"[yellow]{escape(task['readiness'])}[/]" if task.get("warming") else task.get("readiness", ""),
            task["waiting_for"],
        )
    return table


def _portfolio(broker: str, portfolio: dict[str, Any]) -> Table:
    title = (
        f"{broker} at {ist_text(int(portfolio['event_time_ns']))}: net {portfolio['net_pnl_inr']:,.2f} INR, "
        f"costs {portfolio['costs_inr']:,.2f} INR, {portfolio['fills']} fills"
    )
    table = Table("symbol", "quantity", "average", "mark", "realized", "unrealized", "costs", title=title)
    for p in portfolio["positions"]:
        amounts = [p[k] for k in ("average_price", "mark_price", "realized_pnl_inr", "unrealized_pnl_inr", "costs_inr")]
        table.add_row(p["symbol"], str(p["quantity"]), *(f"{amount:,.2f}" for amount in amounts))
    return table
