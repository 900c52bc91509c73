"""What the keeper answers by HTTP: ``/metrics`` with what is down, how often it was brought back and what preflight
found, and its own health.

The keeper tells it, because of all processes it alone is there when any other is not, and supervisord keeps the keeper.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import structlog
from prometheus_client import CollectorRegistry, Gauge

from live_services.adapters.health_server import HealthServer
from live_services.adapters.scrape_targets import ScrapeTarget
from live_services.machine.programs import KEEPER
from live_services.machine.restarts import Restarts
from live_services.preflight.findings import NOTHING
from live_services.preflight.written import Written, read_written, summary_file

_log = structlog.get_logger("monitoring")


class KeeperMetrics:
    """A home's processes and its last preflight; ``process`` is a name that the supervisor has, ``paper.account``.

    A process that never came to answer at a port of its own stands here too.
    """

    def __init__(self) -> None:
        self.registry: Final = CollectorRegistry()
        self._restarts = self._gauge(
            "alpha_panda_process_restarts", "How often the keeper started it again since it was started", "process"
        )
        self._given_up = self._gauge(
            "alpha_panda_process_given_up", "1 while it died too often in a row and stays down until up", "process"
        )
        self._down = self._gauge(
            "alpha_panda_process_down",
            "1 while it does not run: it ended, was never started, or was stopped; 0 also for a replay that is over",
            "process",
        )
        self._failed = self._gauge(
            "alpha_panda_preflight_failed",
            "1 for a check that failed when preflight was asked last, with what that holds back",
            "check",
            "holds_back",
        )

    def _gauge(self, name: str, says: str, *labels: str) -> Gauge:
        return Gauge(name, says, labels, registry=self.registry)

    def show(self, restarts: Iterable[Restarts]) -> None:
        """Set how often each process was brought back, and whether it stays down."""
        for one in restarts:
            self._restarts.labels(one.name).set(one.restarts)
            self._given_up.labels(one.name).set(one.state == "gave up")

    def show_down(self, down: Mapping[str, bool]) -> None:
        """Set which processes do not run."""
        for name, is_down in down.items():
            self._down.labels(name).set(is_down)

    def show_preflight(self, written: Written | None) -> None:
        """Set what failed in the last preflight; nothing of the one before stays."""
        self._failed.clear()
        for check, holds_back in (written.failed if written is not None else {}).items():
            self._failed.labels(check, holds_back or NOTHING).set(bool(holds_back))


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
        self._metrics: Final = KeeperMetrics()
        self._preflight_at_ns = -1
        self._server: HealthServer | None = None
        self._target: ScrapeTarget | None = None

    def looked(self, restarts: Iterable[Restarts], down: Mapping[str, bool]) -> None:
        """Show what a look found, and what preflight did if it was asked since."""
        self._metrics.show(restarts)
        self._metrics.show_down(down)
        if (at_ns := _changed_ns(summary_file(self._home))) != self._preflight_at_ns:
            self._preflight_at_ns = at_ns
            self._metrics.show_preflight(read_written(self._home))
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


def _changed_ns(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:  # there is none, or the folder cannot be read
        return 0
