"""``alpha-panda status``: what `read_status` found, and whether the desk is well, as tables or as one JSON object."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import asdict, fields
from typing import Final

from rich.console import Console, RenderableType
from rich.markup import escape
from rich.text import Text

from feature_store.market.types import GENERATED_MARKET, SECOND_NS, ist_text
from live_services.cli import account_view
from live_services.cli.ailments import ailments, is_over
from live_services.cli.output import Document, Field, FittingTable, tell_json
from live_services.cli.pipeline_findings import pipeline_records, pipeline_table
from live_services.cli.status_view import StatusView, read_status
from live_services.cli.strategy_states import strategies_table, strategy_record
from live_services.cli.task_health import Health
from live_services.cli.trading_states import trading_states_record, trading_states_table
from live_services.composition import SERVICES
from live_services.domain.topics import BROKERS, Scope
from live_services.machine.restarts import Restarts
from live_services.machine.supervision import ProcessState
from live_services.settings import Settings

NOT_WELL: Final = 3
"""Exit code of a desk with an alarm; 1 and 2 are a command that failed."""
_LOOK_AGAIN_SECONDS: Final = 2.0
_SCOPES: Final[tuple[Scope, ...]] = ("shared", *BROKERS)
_HOSTED: Final = [(scope, name) for entry in SERVICES for scope in _SCOPES for name in entry.hosts(scope)]
_PLACES: Final = {service: place for place, service in enumerate(_HOSTED)}


def show_status(settings: Settings, console: Console, *, as_json: bool, watch: bool) -> int:
    """Show the desk once, or every two seconds until Ctrl-C; gives the exit code: 0 it is well, 3 it is not.

    Watched as JSON, each look is one line.

    Raises
    ------
    live_services.machine.supervision.NotRunning
        If nothing runs on this home, or not any more.
    """
    code = 0
    try:
        while True:
            view = read_status(settings)
            code = NOT_WELL if ailments(view) else 0
            if watch and console.is_terminal and not as_json:
                console.clear()
            if as_json and watch:
                console.print(json.dumps(status_record(view)), soft_wrap=True, markup=False)
            elif as_json:
                tell_json(status_record(view))
            else:
                print_status(view, settings, console)
            if not watch:
                return code
            time.sleep(_LOOK_AGAIN_SECONDS)
    except KeyboardInterrupt:
        return code


def status_record(view: StatusView) -> Document:
    """Give it as one JSON object; amounts ``_inr_e4`` are exact, integers of 1/10,000 rupee."""
    alarms = ailments(view)
    return {
        "home": str(view.home),
        "at_s": round(view.at_s, 3),
        "generated_market": view.generated,
        "is_well": not alarms,
        "alarms": alarms,
        "processes": [
            asdict(process)
            | {"since": _since(process) or None, "gave_up": process.gave_up}
            | {"restarts": _restarts(view, process).restarts, "last_error": _restarts(view, process).last_error or None}
            for process in view.processes
        ],
        "skipped": list(view.skipped),
        "addresses": {name.lower(): address for name, address in view.addresses.items()},
        "waits_for": view.lacking,
        "health": {f"{report.scope}.{report.process}": report.document for report in view.reports},
        "tasks": list(view.health.tasks),
        "pipeline": pipeline_records(view.health.pipeline),
        "strategies": [strategy_record(row) for row in view.strategies],
        "accounts": [
            {
                "snapshot": account.snapshot.model_dump(mode="json"),
                "verdicts": None
                if account.verdicts is None
                else {one.name: getattr(account.verdicts, one.name) for one in fields(account.verdicts)},
                "session_close_ns": account.close_ns,
            }
            for account in view.accounts
        ],
        "trading_states": trading_states_record(view.trading_states),
        "settings_that_wait": list(settings_that_wait(view.health)),
        "open_dead_letters": view.open_letters,
        "redis_problem": view.redis_problem or None,
        "log_problem": view.log_problem or None,
    }


def print_status(view: StatusView, settings: Settings, console: Console) -> None:
    """Show what runs and how it does; the alarms come last, where a person looks first.

    Lines of words are left to the terminal to break: what can be typed in them can be copied.
    """
    for part in _parts(view, settings):
        console.print(part, soft_wrap=isinstance(part, Text))


def _parts(view: StatusView, settings: Settings) -> Iterator[RenderableType]:
    yield processes_table(view)
    yield from map(Text, view.skipped)
    yield Text(" · ".join(f"{name} {address}" for name, address in view.addresses.items()))
    if view.health.tasks:
        yield tasks_table(view.health, view.at_s)
    if view.health.pipeline:
        yield pipeline_table(view.health.pipeline)
    if view.strategies:
        yield strategies_table(view.strategies)
    if view.trading_states:
        yield trading_states_table(view.trading_states)
    for account in view.accounts:
        yield account_view.render(account, settings)
    if view.generated:
        yield Text(GENERATED_MARKET, style="bold yellow")
    for line in settings_that_wait(view.health):
        yield Text.assemble(("FROM THE NEXT SESSION ON: ", "bold yellow"), line)
    for alarm in ailments(view):
        yield Text.assemble(("ALARM: ", "bold red"), alarm)


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
            escape(_because(view, process)),
        )
    return table


def _because(view: StatusView, process: ProcessState) -> str:
    """Say why a process is down, or what it was brought back from."""
    if is_over(process):
        return "the replay is over"
    if process.description:
        return process.description
    known = _restarts(view, process)
    if not known.restarts:
        return ""
    return (
        f"started again {known.restarts} {'time' if known.restarts == 1 else 'times'}, last after: {known.last_error}"
    )


def _restarts(view: StatusView, process: ProcessState) -> Restarts:
    return next((one for one in view.restarts if one.name == process.name), Restarts(process.name))


def _since(process: ProcessState) -> str:
    return ist_text(process.since_s * SECOND_NS) if process.since_s else ""


def tasks_table(health: Health, at_s: float) -> FittingTable:
    """Lay out every service of every task, in the order in which a tick meets them.

    It says where each stands, when it last put an event out, which of its instruments are WARMING, and what it waits
    for.
    """
    table = FittingTable(
        (
            Field("task"),
            Field("watermark (IST)"),
            Field("handled", leave_out=4, right=True),
            Field("lag", leave_out=1, right=True),
            Field("last output\nago", leave_out=2, right=True),
            Field("dead\nletters", leave_out=3, right=True),
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
            _ago(at_s - task["last_output_s"]) if task.get("last_output_s") else "",
            str(task["dead_letters"]),
            f"[yellow]{escape(task['readiness'])}[/]" if task.get("warming") else escape(task.get("readiness", "")),
            escape(task["waiting_for"]) if task.get("live", True) else "running the past again",
        )
    return table


def settings_that_wait(health: Health) -> tuple[str, ...]:
    """Say what the settings change of accounts and strategies once the session at hand has ended, each line once."""
    of_tasks = ((task["broker"], line) for task in health.tasks for line in task.get("settings_wait", ()))
    return tuple(dict.fromkeys(line if scope == "shared" else f"{scope}: {line}" for scope, line in of_tasks))


def _ago(seconds: float) -> str:
    for unit, name in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{max(seconds, 0):.0f} s"
