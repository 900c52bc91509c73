"""What a running service says about itself: metrics and health, by one port that the runtime reports to."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Final, Protocol, Self

from live_services.adapters.health import HealthReporter, TaskHealth
from live_services.adapters.health_server import HealthServer
from live_services.adapters.metrics import Metrics
from live_services.adapters.process_health import ProcessHealth, configured
from live_services.adapters.scrape_targets import ScrapeTarget
from live_services.adapters.work_lines import WorkLines
from live_services.domain.events import Event
from live_services.domain.letters import LetterFlood
from live_services.domain.log import RUNNER, TaskId
from live_services.domain.topics import Scope
from live_services.settings import Settings
from models_registry.specification import Broker

_TURN_SECONDS: Final = 0.5


class Telemetry(Protocol):
    """Where the runtime reports; every call returns at once and never raises."""

    def report(self, health: TaskHealth) -> None:
        """Take a task's newest health (about once a second)."""
        ...

    def committed(self, events: Sequence[Event]) -> None:
        """Take events that are now on the log."""
        ...

    def withdraw(self, task: TaskId) -> None:
        """Forget a task that this process no longer runs."""
        ...

    def rebalanced(self, group: str, partitions: Collection[tuple[str, int]]) -> None:
        """Take the partitions, by topic and number, that the group gave this member."""
        ...

    def lag(self, group: str, lags: Mapping[tuple[str, int], int]) -> None:
        """Take how many records of each partition were not fetched yet (about once a second)."""
        ...

    def active(self, service: str, scope: Scope) -> None:
        """Note that a service began, or that an output of it was committed."""
        ...

    def commit_took(self, service: str, scope: Scope, seconds: float) -> None:
        """Take the duration of a transaction of a process."""
        ...

    def signal_latency(self, broker: Broker, seconds: float) -> None:
        """Take the time from a frame's arrival on Kafka to the commit of a proposal that answers it."""
        ...

    def order_latency(self, broker: Broker, seconds: float) -> None:
        """Take the time from a proposal's arrival on Kafka to the commit of its order."""
        ...


class NoTelemetry:
    """Says nothing."""

    def report(self, health: TaskHealth) -> None:
        """Ignore it."""

    def committed(self, events: Sequence[Event]) -> None:
        """Ignore them."""

    def withdraw(self, task: TaskId) -> None:
        """Ignore it."""

    def rebalanced(self, group: str, partitions: Collection[tuple[str, int]]) -> None:
        """Ignore it."""

    def lag(self, group: str, lags: Mapping[tuple[str, int], int]) -> None:
        """Ignore it."""

    def active(self, service: str, scope: Scope) -> None:
        """Ignore it."""

    def commit_took(self, service: str, scope: Scope, seconds: float) -> None:
        """Ignore it."""

    def signal_latency(self, broker: Broker, seconds: float) -> None:
        """Ignore it."""

    def order_latency(self, broker: Broker, seconds: float) -> None:
        """Ignore it."""


class LiveTelemetry:
    """Metrics, health and log lines together, for the process of that name; a context manager, which serves them.

    Parameters
    ----------
    settings
    process, scope
        Its name in the table of processes, and whose it is; Prometheus and `status` find it by them while it runs.

    Attributes
    ----------
    metrics : Metrics
        What services count beside what the runtime reports.
    """

    def __init__(self, settings: Settings, process: str, scope: Scope = "shared") -> None:
        self.metrics: Final = Metrics(
            [strategy.name for strategy in settings.strategies], settings.monitoring.prometheus_buckets
        )
        if process == RUNNER:
            self.metrics.to_run(configured(settings.strategies, settings.active_brokers))
        self._process = ProcessHealth(settings, process, scope)
        self._server = HealthServer(settings.runtime.metrics_port, self._process, self.metrics.registry)
        self._health = HealthReporter(settings, self._server.port, self.metrics.redis_answered)
        self._target = ScrapeTarget(settings.alpha_panda_home, process, scope, self._server.port)
        floods = settings.dead_letters
        self._lines = WorkLines(flood=LetterFlood(floods.flood_letters, floods.flood_seconds))
        self._turning: asyncio.Task[None] | None = None

    @property
    def port(self) -> int:
        """Loopback port of health and metrics."""
        return self._server.port

    def waits(self, reason: str) -> None:
        """Say what the process waits for before it begins; empty: for nothing any more."""
        self._process.waits(reason)

    def report(self, health: TaskHealth) -> None:
        """Pass a task's health on."""
        self._process.report(health)
        self.metrics.report(health)
        self._health.report(health)
        self._lines.report(health)

    def committed(self, events: Sequence[Event]) -> None:
        """Pass committed events on."""
        self.metrics.committed(events)
        self._health.committed(events)
        self._lines.committed(events)

    def withdraw(self, task: TaskId) -> None:
        """Forget a task."""
        self._process.withdraw(task)
        self.metrics.withdraw(task)
        self._health.withdraw(task)
        self._lines.withdraw(task)

    def rebalanced(self, group: str, partitions: Collection[tuple[str, int]]) -> None:
        """Count an assignment."""
        self.metrics.rebalanced(group, partitions)

    def lag(self, group: str, lags: Mapping[tuple[str, int], int]) -> None:
        """Show the lag of each partition."""
        self.metrics.lag(group, lags)

    def active(self, service: str, scope: Scope) -> None:
        """Show when a service was active last."""
        self.metrics.active(service, scope)

    def commit_took(self, service: str, scope: Scope, seconds: float) -> None:
        """Count a transaction."""
        self.metrics.commit_took(service, scope, seconds)

    def signal_latency(self, broker: Broker, seconds: float) -> None:
        """Measure a proposal."""
        self.metrics.signal_latency(broker, seconds)

    def order_latency(self, broker: Broker, seconds: float) -> None:
        """Measure an order."""
        self.metrics.order_latency(broker, seconds)

    async def __aenter__(self) -> Self:
        self._turning = asyncio.create_task(self._turn(), name="turning")
        await self._health.__aenter__()
        self._target.write()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:  # a process that failed stays among the targets, so that Prometheus shows it as down
            self._target.remove()
        await self._health.__aexit__(kind, error, trace)
        if self._turning is not None:
            self._turning.cancel()
            await asyncio.gather(self._turning, return_exceptions=True)
        self._server.close()

    async def _turn(self) -> None:
        while True:
            self._process.turned()
            await asyncio.sleep(_TURN_SECONDS)
