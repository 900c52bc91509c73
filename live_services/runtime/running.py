"""A task of this process with what belongs to it alone: its producer, its watch and inbox, its last commits."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from live_services.adapters.health import TaskHealth
from live_services.domain.frames import Headers
from live_services.domain.topics import BROKERS, broker_topics
from live_services.runtime.arrivals import Arrivals
from live_services.runtime.chain import ChainState
from live_services.runtime.failures import SlowOpening, SlowStep
from live_services.runtime.handover import Committed, TopicPartitionKey
from live_services.runtime.inbox import Inbox
from live_services.runtime.inner_watch import InnerWatch
from live_services.runtime.received import received
from live_services.runtime.service import KeepsConfiguration, MayBeHalted, RunsStrategies, Service, WarmsUp
from live_services.runtime.task import TaskRun

_log = structlog.get_logger("application")

_PROPOSALS: Final = frozenset(broker_topics(broker).signals_raw.name for broker in BROKERS)
_STOP_SECONDS: Final = 5.0
_OPEN_SECONDS: Final = 300.0
_STEP_SECONDS: Final = 60.0  # of a step in a thread, where the watchdog does not see that it hangs
_MOST_RECORDS: Final = 50
_TURN_SECONDS: Final = 0.001
"""A step that takes longer of the processor pauses, and smaller ones follow it: a commit's answers, the heartbeat and
the other tasks have their turn. Time in which others had the processor does not count: smaller steps would not help.
"""
_APART_SECONDS: Final = 1.0  # fills follow orders with the next ticks of their instruments


@dataclass(slots=True)
class Running:
    """A task with its producer and the times at which its last commits began (monotonic seconds)."""

    run: TaskRun
    producer: AIOKafkaProducer
    inner: InnerWatch
    inbox: Inbox
    begun_ns: int
    """Watermark that was committed when it was taken over."""
    next_offsets: dict[TopicPartition, int]
    """Of each of its partitions, the record that it takes next."""
    positions: dict[TopicPartitionKey, Committed]
    """What is committed."""
    arrivals: Arrivals = field(default_factory=lambda: Arrivals(_PROPOSALS))
    last_outputs_s: dict[str, float] = field(default_factory=dict)
    """By topic, wall clock of the last commit with an event on it."""
    latencies_s: dict[str, tuple[float, float]] = field(default_factory=dict)
    """By topic, the longest latency of the newest commit that answered something there, and its wall clock."""
    committed_at: float = 0.0
    forwarded_at: float = 0.0
    reported_at: float = 0.0
    lost: bool = False
    """Whether another process has taken it over."""
    openings: int = 0
    """Sessions whose states were built."""
    _step_records: int = _MOST_RECORDS
    _apart_until: float = 0.0
    """Until then its steps leave the loop (monotonic seconds)."""
    _opening: asyncio.Task[ChainState] | None = None

    async def take(
        self, partition: TopicPartition, records: Sequence[Any], learn: Callable[[Headers], Awaitable[None]]
    ) -> None:
        """Take the records of a partition, and handle what is due, in steps between which other work has its turn.

        ``learn`` is waited for before each record: it reads what the record refers to.
        """
        first = 0
        while first < len(records):
            part, begun = records[first : first + self._step_records], time.thread_time()
            first += len(part)
            self.arrivals.came(partition.topic, part)
            for record in map(received, part):
                await learn(record.headers)
                self.run.receive(record)
            self.next_offsets[partition] = part[-1].offset + 1
            await asyncio.sleep(0)
            await self.step()
            self.arrivals.handled(has_events=self.run.has_events)
            took_s = time.thread_time() - begun
            if took_s > _TURN_SECONDS:
                self._step_records = max(1, len(part) // 2)
            elif took_s < _TURN_SECONDS / 4:
                self._step_records = min(_MOST_RECORDS, 2 * self._step_records)
            await asyncio.sleep(0)

    async def step(self) -> None:
        """Handle what is due, with pauses in which other work has its turn: a partition far ahead of another leaves a
        backlog of minutes. While the states of a session are being built, nothing is due.
        """
        if self._opening is not None:
            if not self._opening.done():
                return
            state, self._opening = self._opening.result(), None
            self.run.opened(state)
            self.openings += 1
        while not await self._stepped():
            await asyncio.sleep(0)
        if self.run.opening is not None:
            self._opening = asyncio.create_task(self._open(self.run.opening), name=f"opening {self.run.task}")

    async def _stepped(self) -> bool:
        """Handle a part of what is due, in a thread while many proposals may come to one instant: what a chain
        makes of it, and of the fills that follow, is one piece that would hold the loop.
        """
        if self.run.is_crowded:
            self._apart_until = time.monotonic() + _APART_SECONDS
        if time.monotonic() < self._apart_until:
            return await self._part_apart()
        return self._part()

    async def _part_apart(self) -> bool:
        try:
            async with asyncio.timeout(_STEP_SECONDS):
                return await asyncio.to_thread(self._part)
        except TimeoutError as cause:
            raise SlowStep(
                f"{self.run.task}: a record, a timer or a watermark was not handled in {_STEP_SECONDS:.0f} s; this "
                "process ends. Its stacks, on stderr, say where it hangs"
            ) from cause

    def _part(self) -> bool:
        return self.run.step(_for_a_while())  # by the clock of the thread that it runs in: each has its own

    def has(self, partitions: Sequence[TopicPartition] | None) -> bool:
        """Whether these are its partitions."""
        return partitions is not None and self.next_offsets.keys() == set(partitions)

    @property
    def is_opening(self) -> bool:
        """Whether the states of a session are being built: there is nothing to commit until they are."""
        return self._opening is not None

    async def _open(self, opening: Callable[[], ChainState]) -> ChainState:
        task, begun = str(self.run.task), time.monotonic()
        try:
            async with asyncio.timeout(_OPEN_SECONDS):
                state = await asyncio.to_thread(opening)
        except TimeoutError as cause:
            raise SlowOpening(
                f"{task}: the session's states were not built in {_OPEN_SECONDS:.0f} s; this process ends. Look at "
                "the disk of the offline store, and at how many sessions of history the features need"
            ) from cause
        _log.info("session_states_built", task=task, seconds=round(time.monotonic() - begun, 3))
        return state

    async def stop(self) -> None:
        """Close its connections, and wait no longer for a session's states."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.gather(self._opening, return_exceptions=True)
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
            settings_wait=run.settings_wait if isinstance(service, KeepsConfiguration) else (),
            latency_s=latency_s,
            answered_s=answered_s,
        )


def _for_a_while() -> Callable[[], bool]:
    """Give what says whether a step that begins now may go on."""
    ends = time.thread_time() + _TURN_SECONDS
    return lambda: time.thread_time() < ends


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
    except KafkaError as failure:  # a producer that was fenced says so once more when it is closed
        _log.info("closed_with_a_failure", failure=repr(failure))
