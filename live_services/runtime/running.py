"""A task of this process with what belongs to it alone: its producer, its watch and inbox, its last commits."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer

from live_services.adapters.health import TaskHealth
from live_services.domain.topics import BROKERS, broker_topics
from live_services.runtime.arrivals import Arrivals
from live_services.runtime.inbox import Inbox
from live_services.runtime.inner_watch import InnerWatch
from live_services.runtime.service import MayBeHalted, RunsStrategies, Service, WarmsUp
from live_services.runtime.task import Committed, TaskRun, TopicPartitionKey

_log = structlog.get_logger("application")

_PROPOSALS: Final = frozenset(broker_topics(broker).signals_raw.name for broker in BROKERS)
_STOP_SECONDS: Final = 5.0


@dataclass(slots=True)
class Running:
    """A task with its producer and the times at which its last commits began (monotonic seconds)."""

    run: TaskRun
    producer: AIOKafkaProducer
    inner: InnerWatch
    inbox: Inbox
    begun_ns: int
    """Watermark that was committed when it was taken over."""
    arrivals: Arrivals = field(default_factory=lambda: Arrivals(_PROPOSALS))
    positions: dict[TopicPartitionKey, Committed] = field(default_factory=dict)
    last_outputs_s: dict[str, float] = field(default_factory=dict)
    """By topic, wall clock of the last commit with an event on it."""
    latencies_s: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By topic, the longest latency of the newest commit that answered something there, and its wall clock."""
    committed_at: float = 0.0
    forwarded_at: float = 0.0
    reported_at: float = 0.0

    async def stop(self) -> None:
        """Close its connections."""
        await stop_all(self.producer, self.inner, self.inbox)

    def health(self, service: Service[Any], lag: int) -> TaskHealth:
        """Give the row of one service of the task: what the chain shares, and what the service itself put out."""
        run, own = self.run, {topic.name for topic in service.outputs}
        newest = (self.latencies_s[topic] for topic in own if topic in self.latencies_s)
        latency_s, answered_s = max(newest, key=lambda answer: answer[1], default=(0.0, 0.0))
        return TaskHealth(
            task=replace(run.task, service=service.name),
            watermark_ns=max(run.now_ns, 0),
            session=run.session.date.isoformat() if run.session is not None else "",
            live=run.live,
            records_handled=run.records_handled,
            outputs={kind: count for (topic, kind), count in run.outputs.items() if topic in own},
            dead_letters=run.dead_letters_of(service.name),
            foreign_records=self.inner.foreign_on(own),
            lag_records=lag,
            waiting_for=run.merge.waiting_for(),
            pid=os.getpid(),
            readiness=run.readiness if isinstance(service, WarmsUp) else None,
            last_output_s=max((self.last_outputs_s.get(topic, 0.0) for topic in own), default=0.0),
            strategies=run.strategies if isinstance(service, RunsStrategies) else (),
            trading_states=run.trading_states if isinstance(service, MayBeHalted) else None,
            latency_s=latency_s,
            answered_s=answered_s,
        )


async def stop_all(*ours: AIOKafkaProducer | InnerWatch | Inbox) -> None:
    """Stop clients one after the other, each within a few seconds."""
    for one in ours:
        await within(_STOP_SECONDS, one.stop())


async def within(seconds: float, awaited: Awaitable[None]) -> None:
    """Wait for something whose end matters less than our own."""
    try:
        async with asyncio.timeout(seconds):
            await awaited
    except TimeoutError:
        _log.warning("gave_up_waiting", seconds=seconds)
