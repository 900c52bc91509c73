"""Whether a desk is well: every reason why it is not, in words, from what `status` sees."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from live_services.cli.account_view import open_after_close
from live_services.cli.pipeline_findings import pipeline_ailments
from live_services.cli.status_view import FEED, MOST_COUNTED, StatusView
from live_services.cli.strategy_states import StrategyRow
from live_services.cli.trading_states import halted_by_letters, not_in_force
from live_services.machine.programs import SERVICES
from live_services.machine.restarts import Restarts
from live_services.machine.supervision import ProcessState
from live_services.next_steps import of_home, to_type

_UP: Final = ("RUNNING", "STARTING")


def ailments(view: StatusView) -> list[str]:
    """Give every reason why the desk is not well, each with what it means or where to look; empty: it is well.

    Wrong is what is down, does not answer, is not ready or was put aside, and a configured strategy that does not run.
    Not wrong are WARMING instruments, a replay that is over, what the settings leave out, and a halt: a person's word.
    """
    found = [
        *(f"preflight holds the live services back: {line}" for line in view.held_back),
        *_down(view),  # what is down comes before what it lets nobody answer
        *_unanswered(view),
        *([view.lacking] if view.lacking is not None else ()),
        *_not_ready(view),
        *_lost_lines(view),
        *pipeline_ailments(view.health.pipeline),
        *foreign_records(view.health.tasks),
        *_dead_letters(view),
        *(line for row in view.strategies if not view.held_back for line in _strategy(row)),
        *not_in_force(view.trading_states),
        *halted_by_letters(view.trading_states),
        *(line for account in view.accounts if (line := open_after_close(account))),
    ]
    return list(dict.fromkeys(found))


def _unanswered(view: StatusView) -> Iterator[str]:
    if view.redis_problem:
        yield (
            f"{view.redis_problem}. Trading goes on without it; nobody else sees the health of these tasks, and no "
            "newest feature rows are kept"
        )
    if view.log_problem:
        yield f"the log cannot be read, so verdicts and what was assigned are not shown: {view.log_problem}"


def is_over(process: ProcessState) -> bool:
    """Whether it is a replay that came to its end."""
    return process.name == FEED and process.state == "EXITED" and not process.description


def _down(view: StatusView) -> Iterator[str]:
    for process in view.processes:
        held = view.held_back and process.group == SERVICES and process.state == "STOPPED"
        if process.state not in _UP and not is_over(process) and not held:
            why = f": {process.description}" if process.description else ""
            yield f"{process.name} is {process.state}{why}; it wrote {view.home / 'logs' / f'{process.name}.log'}"
    known = {process.name for process in view.processes}
    for service in view.services:
        if service.program not in known:
            again = of_home(view.home)
            yield f"{service.program} is configured and was not when this stack started: `{again} down`, `{again} up`"


def _not_ready(view: StatusView) -> Iterator[str]:
    running = {process.name for process in view.processes if process.state == "RUNNING"}
    said = {(report.process, report.scope): report.document for report in view.reports}
    for service in view.services:
        if service.program not in running:
            continue
        document = said.get((service.process, service.scope))
        if document is None or not document["ready"]:
            yield from _keeps_dying(service.program, view.restarts)
        if document is None:
            yield f"{service.program} runs, but says nothing of its health: it is starting, or stands still"
        elif not document["live"]:
            yield f"{service.program}: its event loop has not turned for {document['loop_turned_seconds_ago']:.0f} s"
        elif not document["ready"]:
            yield from _lacks(service.program, document["lacks"], view.lacking)


def _keeps_dying(program: str, restarts: Sequence[Restarts]) -> Iterator[str]:
    """Say of a process that runs again, and does its work not yet, that it died more than once before it got on."""
    return (
        f"{program} ended {one.in_a_row} times in a row before it did its work, and was started again: {one.last_error}"
        for one in restarts
        if one.name == program and one.in_a_row > 1
    )


def _lacks(program: str, lacks: Sequence[str], known: str | None) -> Iterator[str]:
    return (f"{program} is not ready: {reason}" for reason in lacks if reason != known)


def _lost_lines(view: StatusView) -> Iterator[str]:
    """Say whose log cannot be written; the work goes on without it."""
    losing = {one.process: lost for one in view.reports if (lost := (one.document or {}).get("log_lines_lost"))}
    if losing:
        whose, folder = ", ".join(f"{name} {lost:,}" for name, lost in losing.items()), view.home / "logs"
        yield (
            f"lines of the log are lost ({whose}): the disk of {folder} is full, or may not be written. Trading goes "
            "on; mend that, and lines are written again"
        )


def _dead_letters(view: StatusView) -> Iterator[str]:
    """Say that tasks could not handle records, until somebody has decided on each."""
    if view.open_letters:
        tasks = ", ".join(task["task"] for task in view.health.tasks if task["dead_letters"])
        many = f"{view.open_letters:,}{' or more' if view.open_letters >= MOST_COUNTED else ''}"
        yield (
            f"{many} dead letters are open, and {tasks} put such records aside; {to_type('dlq list')} tells them with "
            "their reasons, and each stays open until it is replayed or dropped"
        )


def foreign_records(tasks: Sequence[dict[str, Any]]) -> list[str]:
    """Say which topics hold records that only a task may write there and that it did not write."""
    return [
        f"{task['foreign_records']:,} records on what only {task['task']} may write are not its own. They trade "
        "nothing, but whoever reads there takes them for its word: find out who writes there (log line foreign_record)"
        for task in tasks
        if task["foreign_records"]
    ]


def _strategy(row: StrategyRow) -> Iterator[str]:
    if row.state == "skipped":
        return
    reasons = "; ".join(row.reasons)
    if row.state == "ready":
        if reasons:
            runs = " and ".join(f"v{version}" for version in row.versions)
            yield f"{row.strategy} for {row.broker} goes on with {row.model_name} {runs}, but {reasons}"
        return
    yield f"{row.strategy} for {row.broker} is {row.state.upper()}: {reasons}"
