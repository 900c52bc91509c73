"""What a running service says about itself: JSON log lines, Prometheus metrics, and task health in Redis.

Nothing here may stop trading: a Redis that is away is logged once and tried again.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from threading import Thread
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Protocol, Self
from wsgiref.simple_server import WSGIServer

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server

from live_services.domain import keys
from live_services.domain.events import Event, FeatureSkewMeasured
from live_services.domain.log import Readiness, TaskId
from live_services.settings import Settings

if TYPE_CHECKING:
    from redis.asyncio import Redis

HEALTH_TTL_SECONDS: Final = 15
_REPORT_SECONDS: Final = 1.0
# Longer than a slow answer on loopback, shorter than the health's time to live.
_REDIS_TIMEOUT_SECONDS: Final = 2.0


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


def configure_logging(service: str, level: int = logging.INFO) -> None:
    """Write structured log lines (JSON) to stderr, the standard library's among them."""
    before: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processor=structlog.processors.JSONRenderer(),
            foreign_pre_chain=before,
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # Every reconnect and rebalance is INFO there; what matters comes from the runtime.
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
    # Kafka verifies a transaction at its first produce and answers "NotEnoughReplicas" meanwhile, many times a minute;
    # a delivery that really fails ends the commit, and with it the process, with its own message.
    logging.getLogger("aiokafka.producer.sender").setLevel(logging.ERROR)
    structlog.contextvars.bind_contextvars(service=service)


class Metrics:
    """Prometheus metrics of one process, on a loopback port.

    Parameters
    ----------
    port
        0 picks a free one; ``Metrics.port`` says which.
    """

    def __init__(self, port: int = 0) -> None:
        registry = CollectorRegistry()
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
        self._server: tuple[WSGIServer, Thread] = start_http_server(port, addr="127.0.0.1", registry=registry)

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._server[0].server_port

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

    def close(self) -> None:
        """Stop listening."""
        server, thread = self._server
        server.shutdown()
        server.server_close()
        thread.join()


class HealthReporter:
    """Writes task health, and each broker's newest portfolio, to Redis; away from the trading loop.

    Use as an async context manager; without a Redis URL it does nothing. ``values`` holds what the next write sends, by
    key.
    """

    def __init__(self, settings: Settings, metrics_port: int = 0) -> None:
        self._url = settings.redis.url.get_secret_value()
        self._metrics_port = metrics_port
        self.values: dict[str, str] = {}
        self._portfolios: dict[str, str] = {}
        self._gone: set[str] = set()
        self._writer: asyncio.Task[None] | None = None
        self._away = False
        self._log = structlog.get_logger(__name__)

    def report(self, health: TaskHealth) -> None:
        """Keep a task's newest health for the next write."""
        task = health.task
        content = {
            **asdict(health),
            "task": str(task),
            "service": task.service,
            "broker": task.scope,
            "partition": task.partition,
            "metrics_port": self._metrics_port,
            "readiness": str(health.readiness) if health.readiness is not None else "",
            "warming": len(health.readiness.warming) if health.readiness is not None else 0,
        }
        self.values[keys.task_health(task.scope, task.service, task.partition)] = json.dumps(content)

    def committed(self, events: Sequence[Event]) -> None:
        """Keep the newest portfolio for the next write."""
        for event in events:
            if event.event_type == "pnl.snapshot":
                self._portfolios[keys.portfolio(event.broker)] = event.model_dump_json()

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
        portfolios, self._portfolios = self._portfolios, {}
        try:
            async with client.pipeline(transaction=False) as pipe:
                for key in gone:
                    pipe.delete(key)
                for key, content in self.values.items():
                    pipe.set(key, content, ex=HEALTH_TTL_SECONDS)
                for key, content in portfolios.items():
                    pipe.set(key, content)
                await pipe.execute()
        except (RedisError, OSError) as failure:
            if not self._away:
                self._log.warning("redis_is_away", failure=str(failure), consequence="no health and portfolio shown")
            self._away = True
            self._gone |= gone
            self._portfolios = portfolios | self._portfolios
        else:
            if self._away:
                self._log.info("redis_is_back")
            self._away = False


class LiveTelemetry:
    """Metrics and health together, for a service process; an async context manager."""

    def __init__(self, settings: Settings) -> None:
        self._metrics = Metrics(settings.runtime.metrics_port)
        self._health = HealthReporter(settings, self._metrics.port)

    def report(self, health: TaskHealth) -> None:
        """Pass a task's health on."""
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
        self._metrics.withdraw(task)
        self._health.withdraw(task)

    async def __aenter__(self) -> Self:
        await self._health.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._health.__aexit__(kind, error, trace)
        self._metrics.close()
