"""The health of tasks, and each broker's newest portfolio, in Redis; what a process says by HTTP is in `health_server`.

Nothing here may stop trading: a Redis that is away is logged once and tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from socket import gethostname
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

import structlog

from live_services.domain import keys
from live_services.domain.account.trading_states import TradingStates
from live_services.domain.events import Event, PnlSnapshot, StrategiesSummarized
from live_services.domain.keys import TaskRecord
from live_services.domain.log import Readiness, StrategyRuntime, TaskId
from live_services.settings import Settings

if TYPE_CHECKING:
    from redis import Redis as SyncRedis
    from redis.asyncio import Redis

HEALTH_TTL_SECONDS: Final = 15
_REPORT_SECONDS: Final = 1.0
# Longer than a slow answer on loopback, shorter than the health's time to live.
_REDIS_TIMEOUT_SECONDS: Final = 2.0
# Fields of `TaskHealth` that a record has in other words, or not at all.
_OF_ITS_OWN: Final = frozenset({"task", "readiness", "trading_states"})


@dataclass(frozen=True, slots=True)
class TaskHealth:
    """One task at one moment."""

    task: TaskId
    watermark_ns: int
    session: str
    """Date of the open session, or empty."""
    live: bool
    """False while what was handled before a restart is run again."""
    records_handled: int
    outputs: dict[str, int]
    """Events committed by event type."""
    dead_letters: int
    foreign_records: int
    """On topics that only this task may write, by somebody else."""
    lag_records: int
    """Records on the log that were not fetched yet."""
    waiting_for: str
    """Input partition that holds the merge, or empty."""
    pid: int
    readiness: Readiness | None = None
    """Which instruments are WARMING; None for a service without features."""
    last_output_s: float = 0.0
    """Wall clock of the last commit with an event of this service, seconds since 1970; 0: none since the start."""
    strategies: tuple[StrategyRuntime, ...] = ()
    """What it runs of each strategy on each rung; empty for all but a strategy runner."""
    latency_s: float = 0.0
    """Of its newest answer, from Kafka's time of what it answers to its commit, seconds of wall clock."""
    answered_s: float = 0.0
    """Wall clock of that commit, seconds since 1970; 0: it has answered nothing since the start."""
    settings_wait: tuple[str, ...] = ()
    """What the settings would change of the configuration that the session was opened with, from the next one on."""
    trading_states: TradingStates | None = None
    """Who may trade, for metrics; None for all but the account's risk, and before that knows it."""


def task_record(health: TaskHealth, metrics_port: int = 0) -> TaskRecord:
    """Give a task's health as it is written to Redis and told by HTTP."""
    task, readiness = health.task, health.readiness
    said = {one.name: getattr(health, one.name) for one in fields(health) if one.name not in _OF_ITS_OWN}
    return TaskRecord(
        **said,
        task=str(task),
        service=task.service,
        broker=task.scope,
        partition=task.partition,
        host=gethostname(),
        metrics_port=metrics_port,
        readiness=str(readiness) if readiness is not None else "",
        warming=len(readiness.warming) if readiness is not None else 0,
    )


def read_tasks(client: SyncRedis) -> tuple[TaskRecord, ...]:
    """Read the health of every task in a Redis, in the order of their keys.

    Raises
    ------
    redis.RedisError
        If Redis does not answer.
    """
    found = [name.decode() for name in sorted(client.scan_iter(keys.task_health_pattern(), count=200))]
    records = (keys.Key(name, TaskRecord).read_or_none(client.get(name)) for name in found)
    return tuple(record for record in records if record is not None)


class HealthReporter:
    """Writes task health, and each broker's newest portfolio, to Redis; away from the trading loop.

    Use as an async context manager; without a Redis URL it does nothing. ``values`` holds what the next write sends, by
    key. ``answered`` is told after each write whether Redis took it.
    """

    def __init__(
        self, settings: Settings, metrics_port: int = 0, answered: Callable[[bool], None] | None = None
    ) -> None:
        self._url = settings.redis.url.get_secret_value()
        self._metrics_port = metrics_port
        self._answered = answered
        self.values: dict[str, str] = {}
        self._newest: dict[str, str] = {}
        self._gone: set[str] = set()
        self._writer: asyncio.Task[None] | None = None
        self._away = False
        self._log = structlog.get_logger("monitoring")

    def report(self, health: TaskHealth) -> None:
        """Keep a task's newest health for the next write."""
        key = keys.task_health(health.task.scope, health.task.service, health.task.partition)
        self.values[key] = key.write(task_record(health, self._metrics_port))

    def committed(self, events: Sequence[Event]) -> None:
        """Keep the newest portfolio and what strategies run for the next write."""
        for event in events:
            if isinstance(event, PnlSnapshot):
                newest = keys.portfolio(event.broker)
                self._newest[newest] = newest.write(event)
            elif isinstance(event, StrategiesSummarized):
                for one in event.brokers:
                    standing = keys.strategies(one.broker)
                    self._newest[standing] = standing.write(one)

    def withdraw(self, task: TaskId) -> None:
        """Have a task's health removed."""
        key = keys.task_health(task.scope, task.service, task.partition)
        self.values.pop(key, None)
        self._gone.add(key)

    async def __aenter__(self) -> Self:
        if self._url:
            self._writer = asyncio.create_task(self._write_forever(), name="health")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)

    async def _write_forever(self) -> None:
        from redis.asyncio import Redis

        client = Redis.from_url(
            self._url, socket_timeout=_REDIS_TIMEOUT_SECONDS, socket_connect_timeout=_REDIS_TIMEOUT_SECONDS
        )
        try:
            while True:
                await self._write(client)
                await asyncio.sleep(_REPORT_SECONDS)
        finally:
            await self._write(client)
            await client.aclose()

    async def _write(self, client: Redis) -> None:
        from redis.exceptions import RedisError

        gone, self._gone = self._gone, set()  # what comes in while Redis answers waits for the next write
        newest, self._newest = self._newest, {}
        try:
            async with client.pipeline(transaction=False) as pipe:
                for key in gone:
                    pipe.delete(key)
                for key, content in self.values.items():
                    pipe.set(key, content, ex=HEALTH_TTL_SECONDS)
                for key, content in newest.items():
                    pipe.set(key, content)
                await pipe.execute()
        except (RedisError, OSError) as failure:
            if not self._away:
                self._log.warning("redis_is_away", failure=str(failure), consequence="no health and portfolio shown")
            self._away = True
            self._gone |= gone
            self._newest = newest | self._newest
        else:
            if self._away:
                self._log.info("redis_is_back")
            self._away = False
        if self._answered is not None:
            self._answered(not self._away)
