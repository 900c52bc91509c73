"""What a process logs of its work: each step of a proposal's life once it is on the log, letters, and its pace."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import structlog

from feature_store.market.types import ist_text
from live_services.adapters.health import TaskHealth
from live_services.domain.events import DeadLetter, Event
from live_services.domain.letters import LetterFlood
from live_services.domain.log import TaskId

_trading = structlog.get_logger("trading")
_application = structlog.get_logger("application")
_performance = structlog.get_logger("performance")

_PACE_SECONDS: Final = 60.0
_TOO_MANY: Final = frozenset({"pnl.snapshot", "feature.skew_measured", "watermark"})
"""One a second and more, and no step of a proposal's life; their topics have them all."""
_TOLD: Final = (
    "strategy",
    "rung",
    "symbol",
    "side",
    "intent",
    "quantity",
    "reason",
    "rule",
    "limit",
    "observed",
    "score",
    "signal_id",
    "order_id",
    "price_inr_e4",
    "remaining_quantity",
    "charges_inr_e4",
    "why",
    "model_name",
    "model_version",
    "session_date",
    "until_ns",
)
"""Fields that a line repeats; the event on its topic has the rest."""


@dataclass(frozen=True, slots=True)
class _Pace:
    at: float
    records: int


class WorkLines:
    """Logs what a process committed, and once a minute how fast each of its tasks goes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, flood: LetterFlood | None = None) -> None:
        self._clock = clock
        self._flood = flood or LetterFlood()
        self._paces: dict[tuple[str, int], _Pace] = {}
        """By scope and partition: the services of a chain go at one pace."""

    def committed(self, events: Sequence[Event]) -> None:
        """Log events that are on the log now; a dead letter as a warning with ``dlq=true``, a flood of them as one."""
        for event in events:
            if isinstance(event, DeadLetter):
                self._letter(event)
            elif event.event_type not in _TOO_MANY:
                _trading.info(event.event_type, **_step(event))

    def _letter(self, letter: DeadLetter) -> None:
        if self._flood.begins_with(letter.event_time_ns):
            _application.error(
                "dead_letters_flood",
                dlq=True,
                letters=self._flood.letters,
                seconds=self._flood.seconds,
                last=_letter(letter),
                consequence="no further letter of it is logged; they are all on their topics: alpha-panda dlq list",
            )
        elif not self._flood.is_on:
            _application.warning("dead_letter", dlq=True, **_letter(letter))

    def report(self, health: TaskHealth) -> None:
        """Log a task's pace if a minute is over; said once for all services of its chain."""
        key, now = (health.task.scope, health.task.partition), self._clock()
        before = self._paces.get(key)
        if before is not None and now - before.at < _PACE_SECONDS:
            return
        self._paces[key] = _Pace(now, health.records_handled)
        if before is not None:
            _performance.info(
                "pace",
                task=str(health.task),
                records_per_second=round((health.records_handled - before.records) / (now - before.at), 1),
                lag_records=health.lag_records,
                waiting_for=health.waiting_for,
                watermark=ist_text(health.watermark_ns) if health.watermark_ns else "",
            )

    def withdraw(self, task: TaskId) -> None:
        """Forget a task."""
        self._paces.pop((task.scope, task.partition), None)


def _ids(event: Event) -> dict[str, Any]:
    return {
        "correlation_id": event.correlation_id,
        "event_id": event.event_id,
        "causation_id": event.causation_id,
        "broker": event.broker,
        "event_time": ist_text(event.event_time_ns),
        "event_time_ns": event.event_time_ns,
    }


def _step(event: Event) -> dict[str, Any]:
    told = {name: value for name in _TOLD if (value := getattr(event, name, None)) is not None}
    return _ids(event) | told


def _letter(event: DeadLetter) -> dict[str, Any]:
    return _ids(event) | {
        "topic": event.topic,
        "partition": event.partition,
        "offset": event.offset,
        "stage": event.service,
        "reason": event.reason,
        "failure": event.failure,
    }
