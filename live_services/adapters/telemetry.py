"""What a running service says about itself: metrics and health, by one port that the runtime reports to."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

from live_services.adapters.health import HealthReporter, TaskHealth
from live_services.adapters.metrics import Metrics
from live_services.adapters.work_lines import WorkLines
from live_services.domain.events import Event
from live_services.domain.log import TaskId
from live_services.settings import Settings


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


class NoTelemetry:
    """Says nothing."""

    def report(self, health: TaskHealth) -> None:
        """Ignore it."""

    def committed(self, events: Sequence[Event]) -> None:
        """Ignore them."""

    def withdraw(self, task: TaskId) -> None:
        """Ignore it."""


class LiveTelemetry:
    """Metrics, health and log lines together, for a service process; an async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._metrics = Metrics(settings.runtime.metrics_port)
        self._health = HealthReporter(settings, self._metrics.port)
        self._lines = WorkLines()

    def report(self, health: TaskHealth) -> None:
        """Pass a task's health on."""
        self._metrics.report(health)
        self._health.report(health)
        self._lines.report(health)

    def committed(self, events: Sequence[Event]) -> None:
        """Pass committed events on."""
        self._metrics.committed(events)
        self._health.committed(events)
        self._lines.committed(events)

    def online_block(self, broker: str, outcome: str) -> None:
        """Count a block that was offered to the online store."""
        self._metrics.online_block(broker, outcome)

    def withdraw(self, task: TaskId) -> None:
        """Forget a task."""
        self._metrics.withdraw(task)
        self._health.withdraw(task)
        self._lines.withdraw(task)

    async def __aenter__(self) -> Self:
        await self._health.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._health.__aexit__(kind, error, trace)
        self._metrics.close()
