"""Prometheus metrics of one process."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge

from live_services.adapters.health import TaskHealth
from live_services.domain.events import Event, FeatureSkewMeasured
from live_services.domain.log import TaskId


class Metrics:
    """Prometheus metrics of one process; `live_services.adapters.health_server` serves its registry."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        labels = ["broker", "service", "partition"]
        self._watermark = Gauge("alpha_panda_watermark_seconds", "Event time reached", labels, registry=registry)
        self._handled = Gauge("alpha_panda_records_handled", "Records since the start", labels, registry=registry)
        self._lag = Gauge("alpha_panda_lag_records", "Records not fetched yet", labels, registry=registry)
        self._dead = Gauge("alpha_panda_dead_letters", "Records sent to a DLQ", labels, registry=registry)
        self._warming = Gauge(
            "alpha_panda_warming_instruments", "Instruments without full-history features", labels, registry=registry
        )
        self._events = Counter(
            "alpha_panda_events_committed", "Events on the log", ["broker", "event_type"], registry=registry
        )
        self._skew = Counter(
            "alpha_panda_feature_skew_rows", "Live rows computed again", ["broker", "result"], registry=registry
        )
        self._blocks = Counter(
            "alpha_panda_online_feature_blocks", "Feature blocks by outcome", ["broker", "outcome"], registry=registry
        )

    def report(self, health: TaskHealth) -> None:
        """Set the gauges of a task."""
        labels = (health.task.scope, health.task.service, str(health.task.partition))
        self._watermark.labels(*labels).set(health.watermark_ns / 1e9)
        self._handled.labels(*labels).set(health.records_handled)
        self._lag.labels(*labels).set(health.lag_records)
        self._dead.labels(*labels).set(health.dead_letters)
        if health.readiness is not None:
            self._warming.labels(*labels).set(len(health.readiness.warming))

    def committed(self, events: Sequence[Event]) -> None:
        """Count events."""
        for event in events:
            self._events.labels(event.broker, event.event_type).inc()
            if isinstance(event, FeatureSkewMeasured):
                for result in ("equal", "different", "unverified"):
                    self._skew.labels(event.broker, result).inc(getattr(event, f"rows_{result}"))

    def online_block(self, broker: str, outcome: str) -> None:
        """Count a block that was offered to the online store: written, replaced by a newer one, or failed."""
        self._blocks.labels(broker, outcome).inc()

    def withdraw(self, task: TaskId) -> None:
        """Drop the gauges of a task."""
        for gauge in (self._watermark, self._handled, self._lag, self._dead, self._warming):
            gauge.remove_by_labels({"broker": task.scope, "service": task.service, "partition": str(task.partition)})
