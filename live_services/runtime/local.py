"""The very tasks of the live services on a log in memory: no Kafka, no clock, one process.

What tests and the replay of a recorded day use. A task commits as it does on Kafka, outputs and positions together;
``kill`` forgets everything that it did not commit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from feature_store.market.types import Universe
from live_services.adapters.spans import NoTracing, Tracing, trace_headers
from live_services.domain.events import (
    Event,
    SessionOpened,
    Watermark,
    decode_event,
    event_or_none,
    headers_of,
    value_of,
)
from live_services.domain.frames import Headers
from live_services.domain.letters import LetterFlood
from live_services.domain.log import TaskId
from live_services.domain.topics import MARKET_SESSIONS, Topic
from live_services.operations_settings import DeadLettersSettings
from live_services.runtime.chain import Chain
from live_services.runtime.inbox import command_of
from live_services.runtime.merge import BEGINNING_NS, Source
from live_services.runtime.received import Received
from live_services.runtime.task import Committed, Output, Resume, TaskRun, TopicPartitionKey

MakeChain = Callable[[], Chain]
"""Builds a chain as a new process would."""


@dataclass
class MemoryLog:
    """Topics by partition, in order."""

    market_partitions: int = 1
    partitions: dict[TopicPartitionKey, list[Received]] = field(default_factory=lambda: defaultdict(list))
    tasks_of_control: list[tuple[str, Event]] = field(default_factory=list)
    """Control records, with the task whose own they are."""

    def append(self, topic: str, partition: int, value: bytes, headers: Headers) -> None:
        """Put a record at the end of a partition."""
        there = self.partitions[topic, partition]
        there.append(Received(topic, partition, len(there), None, value, tuple(headers)))

    def append_event(self, topic: Topic, partition: int, event: Event) -> None:
        """Put an event at the end of a partition."""
        self.append(topic.name, partition, value_of(event), headers_of(event))

    def events(self, topic: Topic | str) -> list[Event]:
        """Give a topic's events without its watermarks, partition after partition."""
        name = topic if isinstance(topic, str) else topic.name
        found = [
            decode_event(record.value, record.headers)
            for key in sorted(self.partitions)
            if key[0] == name
            for record in self.partitions[key]
        ]
        return [event for event in found if not isinstance(event, Watermark)]

    @property
    def topics(self) -> frozenset[str]:
        """Names of the topics with a record."""
        return frozenset(name for (name, _), records in self.partitions.items() if records)

    def universe(self, digest: str) -> Universe | None:
        """Give the universe that a session was told with."""
        told = (event_or_none(record.value) for record in self.partitions[MARKET_SESSIONS.name, 0])
        return next(
            (
                Universe(instruments=event.instruments)
                for event in told
                if isinstance(event, SessionOpened) and event.universe_digest == digest
            ),
            None,
        )


class MemoryTask:
    """One task of a chain on a log in memory.

    Parameters
    ----------
    make : callable
        Builds the chain; called again after each kill, as a new process would.
    log : MemoryLog
    partition : int
        Of the task; a single task has 0 and reads every partition.
    dead_letters : DeadLettersSettings, optional
        When they are a flood.
    tracing : Tracing, optional
        Who hears of its work; default: nobody.
    """

    def __init__(
        self,
        make: MakeChain,
        log: MemoryLog,
        partition: int = 0,
        *,
        dead_letters: DeadLettersSettings | None = None,
        tracing: Tracing | None = None,
    ) -> None:
        self._dead_letters: Final = dead_letters or DeadLettersSettings()
        self._make: Final = make
        self._tracing: Final = tracing or NoTracing()
        self.log: Final = log
        self._partition: Final = partition
        self.committed: dict[TopicPartitionKey, Committed] = {}
        self.kill()

    def kill(self) -> None:
        """End the process and start its successor from what is committed."""
        chain = self._make()
        self._task = TaskId(chain.name, chain.scope, self._partition)
        ranks = {i.topic: rank for rank, i in enumerate(chain.inputs) if i.role == "gating"}
        sources = [
            Source(topic.name, partition, rank)
            for topic, rank in ranks.items()
            for partition in self._partitions(topic, chain.single_task)
        ]
        starts = {key: position.session_open_offset for key, position in self.committed.items()}
        self._next_command = {i.topic: 0 for i in chain.inputs if i.role == "command"}
        self.next = {(s.topic, s.partition): starts.get((s.topic, s.partition), 0) for s in sources}
        self.run = TaskRun(
            chain,
            self._task,
            sources,
            self.log.universe,
            starts=dict(self.next),
            resume=self._resume(),
            market_partitions=self.log.market_partitions,
            spans=self._tracing.task(self._task, chain.outputs),
            flood=LetterFlood(self._dead_letters.flood_letters, self._dead_letters.flood_seconds),
        )

    def _partitions(self, topic: Topic, single_task: bool) -> Sequence[int]:
        if not topic.per_market_partition:
            return (0,)
        return range(self.log.market_partitions) if single_task else (self._partition,)

    def _resume(self) -> Resume:
        if not self.committed:
            return Resume(BEGINNING_NS)
        newest = max(self.committed.values(), key=lambda position: position.watermark_ns)
        control = tuple(
            event
            for task, event in self.log.tasks_of_control
            if task == str(self._task) and newest.session_open_ns <= event.event_time_ns <= newest.watermark_ns
        )
        return Resume(newest.watermark_ns, newest.session_open_ns, control)

    @property
    def control(self) -> tuple[Event, ...]:
        """The control records that a successor would get ready with."""
        return self._resume().control

    def fetch(self, key: TopicPartitionKey, most: int) -> int:
        """Take so many records of a partition at most; give how many there were."""
        records = self.log.partitions[key][self.next[key] : self.next[key] + most]
        for record in records:
            self.run.receive(record)
        self.next[key] += len(records)
        return len(records)

    def step(self) -> None:
        """Handle what is due; commands come first, as they do on arrival."""
        for topic, first in self._next_command.items():
            records = self.log.partitions[topic.name, 0][first:]
            for record in records:
                self.run.receive_command(command_of(record, topic))
            self._next_command[topic] += len(records)
        self.run.step()

    def commit(self) -> bool:
        """Put the outputs on the log and the positions with them; whether there were outputs."""
        self.run.forward()
        outputs, positions = self.run.take_outputs(), self.run.positions()
        if positions:
            self.committed = positions
        for output in outputs:
            self._put(output)
        self.run.spans.committed()
        return bool(outputs)

    def _put(self, output: Output) -> None:
        headers = [*headers_of(output.event), *trace_headers(output.traceparent)]
        self.log.append(output.topic, output.partition, value_of(output.event), headers)
        if output.control_of is not None:
            self.log.tasks_of_control.append((str(output.control_of), output.event))

    @property
    def is_behind(self) -> bool:
        """Whether there are records that it did not fetch."""
        return any(at < len(self.log.partitions[key]) for key, at in self.next.items())
