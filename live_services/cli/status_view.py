"""What there is to know of a desk, put together: supervisor, processes, Redis and the log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from feature_store.market.types import is_generated
from live_services.adapters.letters import count_open
from live_services.adapters.readiness import missing
from live_services.adapters.stored_market import market_name
from live_services.cli.account_view import AccountView, read_account
from live_services.cli.log_view import LogBackwards, log_backwards
from live_services.cli.strategy_states import StrategyRow, StrategyState, read_strategy_states, strategy_rows
from live_services.cli.task_health import Health, ProcessReport, ask_processes, read_health, together
from live_services.cli.trading_states import TradingStatesView, read_trading_states
from live_services.composition import skip_reason
from live_services.domain.log import RUNNER
from live_services.domain.topics import Scope
from live_services.failures import CommandFailed
from live_services.machine.restarts import Restarts, read_restarts
from live_services.machine.stack import Stack, program_name
from live_services.machine.supervision import NotRunning, ProcessState, SupervisionError
from live_services.messages import expected_failures, message_of
from live_services.preflight.findings import sentence
from live_services.preflight.own_needs import require_folders
from live_services.preflight.servers import start_again
from live_services.preflight.written import read_held_back, read_written
from live_services.settings import Settings
from models_registry.addresses import without_credentials

FEED: Final = "market_feed"
# A session's verdicts are read in a few seconds; a broker that hangs answers never.
_LOG_SECONDS: Final = 30.0
MOST_COUNTED: Final = 1_000
"""Dead letters that are counted; a flood of them is not read to its end."""


@dataclass(frozen=True, slots=True)
class DeskView:
    """What the log knows: the accounts, what each strategy was given to run, and who may trade."""

    accounts: tuple[AccountView, ...]
    strategies: tuple[StrategyState, ...]
    trading_states: tuple[TradingStatesView, ...]
    open_letters: int = 0
    """Dead letters that nobody has decided on, where a task says that it has put records aside."""


@dataclass(frozen=True, slots=True)
class ServiceProcess:
    """A process of the table, and what it is called there and by the supervisor."""

    process: str
    scope: Scope
    program: str


@dataclass(frozen=True, slots=True)
class StatusView:
    """All that `status` knows."""

    home: Path
    at_s: float
    """When it was looked; wall clock, seconds since 1970."""
    processes: tuple[ProcessState, ...]
    restarts: tuple[Restarts, ...]
    """How often each was brought back, and why."""
    services: tuple[ServiceProcess, ...]
    """Those that the settings have run."""
    skipped: tuple[str, ...]
    addresses: Mapping[str, str]
    lacking: str | None
    """What the desk waits for before it trades."""
    reports: tuple[ProcessReport, ...]
    """What processes of this home say of themselves."""
    health: Health
    strategies: tuple[StrategyRow, ...]
    accounts: tuple[AccountView, ...]
    trading_states: tuple[TradingStatesView, ...]
    redis_problem: str
    """Why Redis could not be read; empty if it was."""
    log_problem: str
    """Why the log could not be read; empty if it was."""
    open_letters: int = 0
    """Dead letters that nobody has decided on."""
    generated: bool = False
    """Whether its market was generated."""
    held_back: tuple[str, ...] = ()
    """Why preflight did not let the services start; empty while they run."""


async def read_desk(log: LogBackwards, settings: Settings, health: Health) -> DeskView:
    """Read accounts, strategies, trading states and open dead letters off the log."""
    read = [await read_account(log, broker, health.portfolios.get(broker)) for broker in settings.active_brokers]
    return DeskView(
        tuple(account for account in read if account is not None),
        await read_strategy_states(log, settings.strategies),
        await read_trading_states(log, settings.active_brokers),
        await count_open(settings.kafka, MOST_COUNTED) if _put_aside(health) else 0,
    )


def read_status(settings: Settings) -> StatusView:
    """Ask what runs and how it does; what does not answer is part of what is seen.

    Raises
    ------
    live_services.machine.supervision.NotRunning
        If nothing runs on this home.
    """
    stack = Stack(settings)
    services = tuple(ServiceProcess(e.name, scope, program_name(e, scope)) for e, scope in stack.desk.processes)
    order = {service.program: place for place, service in enumerate(services)}
    _require_running(stack, settings)  # before the servers are waited for
    reports = ask_processes(stack.home)
    in_redis, redis_problem = _read_health(settings)
    health = together(in_redis, reports)
    desk, log_problem = _read_desk(settings, health)
    # Asked last: a replay that ended meanwhile is over, and not a process that says nothing.
    running = sorted(stack.supervisor.processes(), key=lambda p: (p.group, order.get(p.name, -1), p.name))
    return StatusView(
        home=stack.home,
        at_s=time.time(),
        processes=tuple(running),
        restarts=read_restarts(stack.home),
        services=services,
        skipped=stack.desk.skipped,
        addresses={
            "MLflow": without_credentials(settings.mlflow.tracking_uri),
            "Dagster": settings.dagster.url,
            "Kafka": settings.kafka.bootstrap_servers,
        },
        lacking=missing(settings),
        reports=reports,
        health=health,
        strategies=strategy_rows(
            settings.strategies,
            lambda broker: skip_reason(settings, broker),
            health.tasks,
            desk.strategies,
            runner_answers=any(report.process == RUNNER and report.document is not None for report in reports),
        ),
        accounts=desk.accounts,
        trading_states=desk.trading_states,
        redis_problem=redis_problem,
        log_problem=log_problem,
        open_letters=desk.open_letters,
        generated=is_generated(market_name(settings)),
        held_back=read_held_back(stack.home) if any(p.state == "STOPPED" for p in running) else (),
    )


def _require_running(stack: Stack, settings: Settings) -> None:
    """Raise where nothing runs; says too what would keep it from running, as it is now or as preflight found it."""
    try:
        stack.supervisor.states()
    except SupervisionError as absent:
        said = sentence(str(absent))
        try:
            require_folders(settings)
        except CommandFailed as closed:  # then no summary could be written either
            raise NotRunning(f"{said} {closed}") from absent
        written = read_written(stack.home)
        if written is None or not written.held_back:
            raise
        why = "; ".join(written.held_back)
        raise NotRunning(f"{said} Preflight held the live services back at {written.at}: {why}") from absent


def _read_health(settings: Settings) -> tuple[Health, str]:
    import redis

    try:
        return read_health(settings), ""
    except redis.RedisError as problem:
        way_out = start_again(settings, "REDIS__URL")
        return Health((), {}), f"Redis does not answer: {sentence(str(problem))} {way_out}"


def _read_desk(settings: Settings, health: Health) -> tuple[DeskView, str]:
    try:
        return asyncio.run(_read_in_time(settings, health)), ""
    except TimeoutError:
        why = f"{settings.kafka.bootstrap_servers} did not give what was asked within {_LOG_SECONDS:.0f} s"
    except expected_failures() as problem:
        why = message_of(problem)
    accounts = tuple(AccountView(snapshot, None, None) for snapshot in health.portfolios.values())
    return DeskView(accounts, (), (), _put_aside(health)), why


def _put_aside(health: Health) -> int:
    return sum(int(task["dead_letters"]) for task in health.tasks)


async def _read_in_time(settings: Settings, health: Health) -> DeskView:
    async with asyncio.timeout(_LOG_SECONDS):
        return await read_desk(log_backwards(settings), settings, health)
