"""What a running service says about itself: metrics and health, by one port that the runtime reports to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Protocol, Self

from live_services.adapters.health import HealthReporter, TaskHealth
from live_services.adapters.health_server import HealthServer
from live_services.adapters.metrics import Metrics
from live_services.adapters.process_health import ProcessHealth
from live_services.adapters.scrape_targets import ScrapeTarget
from live_services.domain.events import Event
from live_services.domain.log import TaskId
from live_services.domain.topics import Scope
from live_services.settings import Settings

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


class NoTelemetry:
    """Says nothing."""

    def report(self, health: TaskHealth) -> None:
        """Ignore it."""

    def committed(self, events: Sequence[Event]) -> None:
        """Ignore them."""

    def withdraw(self, task: TaskId) -> None:
        """Ignore it."""


class LiveTelemetry:
    """Metrics and health together, for the process of that name; an async context manager, which serves them."""

    def __init__(self, settings: Settings, process: str, scope: Scope = "shared") -> None:
        self._metrics = Metrics()
        self._process = ProcessHealth(settings, process, scope)
        self._server = HealthServer(settings.runtime.metrics_port, self._process, self._metrics.registry)
        self._health = HealthReporter(settings, self._server.port)
        self._turning: asyncio.Task[None] | None = None
        self._target = ScrapeTarget(settings.alpha_panda_home, process, scope, self.port)

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
        self._metrics.report(health)
        self._health.report(health)

    def committed(self, events: Sequence[Event]) -> None:
        """Pass committed events on."""
        self._metrics.committed(events)
        self._health.committed(events)

    def online_block(self, broker: str, outcome: str) -> None:
        """Count a block that was offered to the online store."""
        self._metrics.online_block(broker, outcome)

    def withdraw(self, task: TaskId) -> None:
        """Forget a task."""
        self._process.withdraw(task)
        self._metrics.withdraw(task)
        self._health.withdraw(task)

    async def __aenter__(self) -> Self:
        self._target.write()
        self._turning = asyncio.create_task(self._turn(), name="turning")
        await self._health.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._health.__aexit__(kind, error, trace)
        if self._turning is not None:
            self._turning.cancel()
            await asyncio.gather(self._turning, return_exceptions=True)
        if kind is None:
            self._target.remove()
        self._server.close()

    async def _turn(self) -> None:
        while True:
            self._process.turned()
            await asyncio.sleep(_TURN_SECONDS)
