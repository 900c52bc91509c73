"""What a running service says about itself: metrics and health, by one port that the runtime reports to."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from types import TracebackType
from typing import Final, Protocol, Self

from prometheus_client import start_http_server

from live_services.adapters.health import HealthReporter, TaskHealth
from live_services.adapters.metrics import Metrics
from live_services.adapters.scrape_targets import ScrapeTarget
from live_services.domain.events import Event
from live_services.domain.log import TaskId
from live_services.domain.topics import Scope
from live_services.settings import Settings
from models_registry.specification import Broker


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
    """Metrics and health together, for a service process; an async context manager.

    Parameters
    ----------
    settings
    process, scope
        Its name in the table of processes, and whose it is; Prometheus finds it by them while it runs. Without a name
        it is not to be found.

    Attributes
    ----------
    metrics : Metrics
        What services count beside what the runtime reports.
    """

    def __init__(self, settings: Settings, process: str = "", scope: Scope = "shared") -> None:
        self.metrics: Final = Metrics(
            [strategy.name for strategy in settings.strategies], settings.monitoring.prometheus_buckets
        )
        self._server = start_http_server(
            settings.runtime.metrics_port, addr="127.0.0.1", registry=self.metrics.registry
        )
        self._health = HealthReporter(settings, self.port)
        self._target = ScrapeTarget(settings.alpha_panda_home, process, scope, self.port) if process else None

    @property
    def port(self) -> int:
        """The port of ``/metrics``, on loopback."""
        return self._server[0].server_port

    def report(self, health: TaskHealth) -> None:
        """Pass a task's health on."""
        self.metrics.report(health)
        self._health.report(health)

    def committed(self, events: Sequence[Event]) -> None:
        """Pass committed events on."""
        self.metrics.committed(events)
        self._health.committed(events)

    def withdraw(self, task: TaskId) -> None:
        """Forget a task."""
        self.metrics.withdraw(task)
        self._health.withdraw(task)

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
        await self._health.__aenter__()
        if self._target is not None:
            self._target.write()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._target is not None and kind is None:
            self._target.remove()
        await self._health.__aexit__(kind, error, trace)
        server, thread = self._server
        server.shutdown()
        server.server_close()
        thread.join()
