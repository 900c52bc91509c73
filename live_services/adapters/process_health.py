"""What one process knows of its own health, told from any thread; `health_server` serves it.

Alive is a process whose event loop turned lately. Ready is one that waits for nothing, has taken over its tasks, has
run again what was handled before a restart, and, where it runs strategies, knows of each what it is to run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from threading import Lock
from typing import Any, Final

from live_services.adapters.health import TaskHealth, task_record
from live_services.adapters.logs import wiring
from live_services.domain.log import StrategyRuntime, TaskId
from live_services.domain.topics import Scope
from live_services.settings import Settings
from models_registry.specification import RUNG_OF_BROKER, Broker, StrategySpec

Configured = Mapping[Broker, Sequence[str]]
"""Names of the strategies by broker."""


class ProcessHealth:
    """The health of one process.

    Parameters
    ----------
    settings
        Of them: the strategies, the active brokers, and after how many seconds a loop that does not turn has stalled.
    process, scope
        Its name in the table of processes, and whose it is.
    clock
        Monotonic seconds.
    """

    def __init__(
        self, settings: Settings, process: str, scope: Scope, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.process: Final = process
        self.scope: Final = scope
        self._strategies: Final = settings.strategies
        self._brokers: Final = settings.active_brokers
        self._stall_seconds: Final = settings.processes.stall_seconds
        self._clock: Final = clock
        self._lock: Final = Lock()
        self._turned = clock()
        self._waits_for = ""
        self._tasks: dict[TaskId, TaskHealth] = {}

    # --- what the process says ------------------------------------------------------------------------------------

    def turned(self) -> None:
        """Note that the event loop turned."""
        self._turned = self._clock()

    def waits(self, reason: str) -> None:
        """Note what the process waits for before it begins; empty: for nothing any more."""
        self._waits_for = reason

    def report(self, health: TaskHealth) -> None:
        """Keep a task's newest health."""
        with self._lock:
            self._tasks[health.task] = health

    def withdraw(self, task: TaskId) -> None:
        """Forget a task."""
        with self._lock:
            self._tasks.pop(task, None)

    # --- what is asked --------------------------------------------------------------------------------------------

    def live(self) -> dict[str, Any]:
        """Say whether the loop turned lately, and how long ago."""
        seconds = self._clock() - self._turned
        return {"live": seconds < self._stall_seconds, "loop_turned_seconds_ago": round(seconds, 1)}

    def ready(self) -> dict[str, Any]:
        """Say whether the process does its work, and what it lacks if not."""
        lacks = self._lacks(self._known())
        return {"ready": not lacks, "lacks": lacks}

    def document(self) -> dict[str, Any]:
        """Say all of it: what is configured and what runs side by side, and every task."""
        tasks = self._known()
        lacks, wired = self._lacks(tasks), wiring()
        return {
            "process": self.process,
            "broker": self.scope,
            "pid": os.getpid(),
            **self.live(),
            "ready": not lacks,
            "lacks": lacks,
            "log_lines_lost": wired.lost if wired is not None and wired.is_failing else 0,
            "strategy_config": configured(self._strategies, self._brokers),
            "strategy_runtime": runtime(self._brokers, [task.strategies for task in tasks]),
            "tasks": [task_record(task).model_dump(mode="json") for task in tasks],
        }

    def _known(self) -> tuple[TaskHealth, ...]:
        with self._lock:
            return tuple(self._tasks.values())

    def _lacks(self, tasks: Sequence[TaskHealth]) -> list[str]:
        if self._waits_for:
            return [self._waits_for]
        return list(dict.fromkeys(_lacks_of(tasks))) if tasks else ["no task was taken over yet"]


def _lacks_of(tasks: Iterable[TaskHealth]) -> Iterator[str]:
    for task in tasks:
        if not task.live:
            yield f"{task.task} runs again what was handled before the restart"
        for strategy in task.strategies:
            if strategy.state == "waiting" and strategy.rung != "challenger":  # nobody waits for a challenger
                yield f"{strategy.strategy} on {strategy.rung}: {strategy.reason}"


def configured(strategies: Sequence[StrategySpec], brokers: Sequence[Broker]) -> dict[Broker, list[str]]:
    """Name the strategies that the settings give each broker, whether they run or not."""
    return {broker: [one.name for one in strategies if broker in one.brokers] for broker in brokers}


def runtime(
    brokers: Sequence[Broker], of_tasks: Sequence[Sequence[StrategyRuntime]]
) -> dict[Broker, dict[str, list[dict[str, str]]]]:
    """Say by broker and strategy what is loaded and ready; one entry, unless market partitions run different things.

    Only what a task said stands here, and nothing of a process that runs no strategies.
    """
    said = dict.fromkeys(one for task in of_tasks for one in task)
    found: dict[Broker, dict[str, list[dict[str, str]]]] = {broker: {} for broker in brokers}
    for broker in brokers:
        for one in said:
            if one.rung == RUNG_OF_BROKER[broker]:
                entry = {"state": one.state, "model": one.model_name, "version": one.version, "reason": one.reason}
                found[broker].setdefault(one.strategy, []).append(entry)
    return found
