"""What the keeper answers by HTTP: ``/metrics`` with how often it brought back each process, and its own health.

The keeper tells it, because of all processes it alone is there when any other is not, and supervisord keeps the keeper.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import structlog
from prometheus_client import CollectorRegistry, Gauge

from live_services.adapters.health_server import HealthServer
from live_services.adapters.scrape_targets import ScrapeTarget
from live_services.machine.programs import KEEPER
from live_services.machine.restarts import Restarts

_log = structlog.get_logger("monitoring")


class RestartMetrics:
    """The restarts of a home's processes; ``process`` is a name that the supervisor has, ``paper.account``."""

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        self._restarts = Gauge(
            "alpha_panda_process_restarts",
            "How often the keeper started it again since it was started",
            ["process"],
            registry=self.registry,
        )
        self._given_up = Gauge(
            "alpha_panda_process_given_up",
            "1 while it died too often in a row and stays down until up",
            ["process"],
            registry=self.registry,
        )

    def show(self, restarts: Iterable[Restarts]) -> None:
        """Set the gauges of each process."""
        for one in restarts:
            self._restarts.labels(one.name).set(one.restarts)
            self._given_up.labels(one.name).set(one.state == "gave up")


class KeeperHealth:
    """The keeper's own health: it is well as long as it looks.

    Parameters
    ----------
    stall_seconds
        After how long without a look it stands still.
    clock
        Monotonic seconds.
    """

    def __init__(self, stall_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._stall_seconds: Final = stall_seconds
        self._clock: Final = clock
        self._looked = clock()

    def looked(self) -> None:
        """Note that it looked."""
        self._looked = self._clock()

    def live(self) -> dict[str, Any]:
        """Say whether it looked lately, and how long ago."""
        seconds = self._clock() - self._looked
        return {"live": seconds < self._stall_seconds, "loop_turned_seconds_ago": round(seconds, 1)}

    def ready(self) -> dict[str, Any]:
        """Say the same: it waits for nothing."""
        well = bool(self.live()["live"])
        return {"ready": well, "lacks": [] if well else ["it does not look after the processes"]}

    def document(self) -> dict[str, Any]:
        """Say both, as a process without tasks."""
        return {"process": KEEPER, "broker": "shared", "pid": os.getpid(), **self.live(), **self.ready(), "tasks": []}


class KeeperAnswers:
    """Serves both on a free loopback port that Prometheus and `status` find, within a ``with`` block.

    Without a port it keeps all the same, and says so in the log.
    """

    def __init__(self, home: Path, stall_seconds: float) -> None:
        self._home: Final = home
        self._health: Final = KeeperHealth(stall_seconds)
        self._metrics: Final = RestartMetrics()
        self._server: HealthServer | None = None
        self._target: ScrapeTarget | None = None

    def looked(self, restarts: Iterable[Restarts]) -> None:
        """Show what a look found."""
        self._metrics.show(restarts)
        self._health.looked()

    def __enter__(self) -> Self:
        try:
            self._server = HealthServer(0, self._health, self._metrics.registry)
        except OSError as problem:
            _log.warning("keeper_answers_not", reason=str(problem), consequence="no restarts among the metrics")
            return self
        self._target = ScrapeTarget(self._home, KEEPER, "shared", self._server.port)
        self._target.write()
        return self

    def withdraw(self) -> None:
        """Be no target any more; without this Prometheus shows the keeper as down once the block has ended."""
        if self._target is not None:
            self._target.remove()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.close()
