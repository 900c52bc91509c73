"""The very tasks of the live services on a log in memory: no Kafka, no clock, one process.

What tests and the replay of a recorded day use. A task commits as it does on Kafka, outputs and positions together;
``kill`` forgets everything that it did not commit, and goes on from the snapshot that `MemoryTask.keep` wrote last.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from feature_store.market.types import MarketDataError, Universe
from live_services.adapters.snapshot_bytes import pack, unpack
from live_services.adapters.spans import NoTracing, Tracing
from live_services.domain.clock import session_of
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
from live_services.domain.letters import FloodLimits
from live_services.domain.log import TaskId
from live_services.domain.sequence import Stamp, stamp_of
from live_services.domain.topics import MARKET_SESSIONS, Topic
from live_services.operations_settings import DeadLettersSettings
from live_services.runtime.chain import Chain
from live_services.runtime.control import OwnControl, own_control
from live_services.runtime.handover import Committed, Output, Resume, TopicPartitionKey, is_of_session
from live_services.runtime.inbox import command_of
from live_services.runtime.merge import BEGINNING_NS, Source
from live_services.runtime.received import Received
from live_services.runtime.rerun import compared_partitions, settle
from live_services.runtime.said import LogRecord
from live_services.runtime.task import TaskRun
from live_services.runtime.written_task import restore_task, written_task

_IDLE_ROUNDS: Final = 8  # a task that chose not to commit is not done yet
_COMMIT_SHARE: Final = 0.7

MakeChain = Callable[[], Chain]
"""Builds a chain as a new process would."""


@dataclass
class MemoryLog:
    """Topics by partition, in order."""

    market_partitions: int = 1
    partitions: dict[TopicPartitionKey, list[Received]] = field(default_factory=lambda: defaultdict(list))
    _sessions: dict[int, SessionOpened] = field(default_factory=dict, init=False, repr=False, compare=False)
    _universes: dict[str, Universe] = field(default_factory=dict, init=False, repr=False, compare=False)
    _sessions_read: int = field(default=0, init=False, repr=False, compare=False)

    def append(self, topic: str, partition: int, value: bytes, headers: Headers) -> None:
        """Put a record at the end of a partition."""
        there = self.partitions[topic, partition]
        there.append(Received(topic, partition, len(there), None, value, tuple(headers)))

    def append_event(self, topic: Topic, partition: int, event: Event) -> None:
        """Put an event at the end of a partition, as who writes there does: what a task says to others is numbered."""
        stamp = self._next_stamp(topic, partition, event) if topic.writer else None
        stamped = [] if stamp is None else [stamp.header]
        self.append(topic.name, partition, value_of(event), [*headers_of(event), *stamped])

    def _next_stamp(self, topic: Topic, partition: int, event: Event) -> Stamp | None:
        stamps = (stamp_of(record.headers) for record in reversed(self.partitions[topic.name, partition]))
        last = next((one for one in stamps if one is not None and one.source == topic.writer), None)
        if isinstance(event, Watermark) and (last is None or last.session_open_ns != event.session_open_ns):
            return Stamp(topic.writer, event.session_open_ns, 0)
        return last and last._replace(number=last.number + 1)

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
        self._read_sessions()
        return self._universes.get(digest)

    def session(self, open_ns: int) -> SessionOpened | None:
        """Give what was told of the session with this open; the first word stands."""
        self._read_sessions()
        return self._sessions.get(open_ns)

    def _read_sessions(self) -> None:
        records = self.partitions[MARKET_SESSIONS.name, 0]
        for record in records[self._sessions_read :]:
            event = event_or_none(record.value)
            universe = _universe_of(event) if isinstance(event, SessionOpened) else None
            if isinstance(event, SessionOpened) and universe is not None:
                self._sessions.setdefault(event.session_open_ns, event)
                self._universes.setdefault(event.universe_digest, universe)
        self._sessions_read = len(records)


def _universe_of(told: SessionOpened) -> Universe | None:
    """Give the universe of a session that was told; None of one that cannot be, which nobody takes."""
    try:
        session_of(told)
        universe = Universe(instruments=told.instruments)
    except (ValueError, MarketDataError):
        return None
    return universe if universe.digest == told.universe_digest else None


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
        self._kept: bytes | None = None
        self.kill()

    def kill(self) -> None:
        """End the process and start its successor from what is committed."""
        chain = self._chain = self._make()
        self._task = TaskId(chain.name, chain.scope, self._partition)
        self._inputs = frozenset(i.topic for i in chain.inputs)
        self._controls = [i.topic for i in chain.inputs if i.role == "control"]
        ranks = {i.topic: rank for rank, i in enumerate(chain.inputs) if i.role == "gating"}
        sources = [
            Source(topic.name, partition, rank)
            for topic, rank in ranks.items()
            for partition in self._partitions(topic, chain.single_task)
        ]
        starts, resume = {key: one.session_open_offset for key, one in self.committed.items()}, self._resume()
        self._next_command = {i.topic: 0 for i in chain.inputs if i.role == "command"}
        self.next = {(s.topic, s.partition): starts.get((s.topic, s.partition), 0) for s in sources}
        self.run = TaskRun(
            chain,
            self._task,
            sources,
            self.log.universe,
            starts=dict(self.next),
            resume=resume,
            told=self.log.session,
            market_partitions=self.log.market_partitions,
            spans=self._tracing.task(self._task, chain.outputs),
            flood=FloodLimits(self._dead_letters.flood_letters, self._dead_letters.flood_seconds),
        )
        if resume.snapshot is not None:
            restore_task(self.run, resume.snapshot)
        self.next |= self.run.read_from

    async def prepare(self) -> None:
        """Get the services ready with the control records, as a process does before the first record."""
        await self._chain.prepare(self._task, self.control)

    def _partitions(self, topic: Topic, single_task: bool) -> Sequence[int]:
        if not topic.per_market_partition:
            return (0,)
        return range(self.log.market_partitions) if single_task else (self._partition,)

    def _resume(self) -> Resume:
        if not self.committed:
            return Resume(BEGINNING_NS)
        newest = max(self.committed.values(), key=lambda position: position.watermark_ns)
        control = OwnControl()
        for topic in self._controls:
            records = self.log.partitions[topic.name, self._partition if topic.per_market_partition else 0]
            control += own_control(self._task, topic, records, newest)
        kept: Any = None if self._kept is None else unpack(self._kept)
        usable = kept is not None and is_of_session(kept, newest)
        return Resume(
            newest.watermark_ns,
            newest.session_open_ns,
            control.events,
            newest.said,
            snapshot=kept if usable else None,
            numbers=newest.numbers,
            flood=newest.flood,
            foreign=control.foreign,
        )

    def reads(self, topic: Topic) -> bool:
        """Whether a topic is an input of it, whatever for."""
        return topic in self._inputs

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
        if self.run.differs:
            partitions = self.log.partitions
            keys = compared_partitions(self.run)
            settle(self.run, {key[0]: [LogRecord(one.offset, one.value) for one in partitions[key]] for key in keys})
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

    def keep(self) -> bool:
        """Write down the state that was committed just now, as the runtime does; whether the chain keeps one."""
        kept = written_task(self.run)
        if kept is not None:
            self._kept = pack(kept)
        return kept is not None

    def _put(self, output: Output) -> None:
        self.log.append(output.topic, output.partition, value_of(output.event), output.headers)

    @property
    def is_behind(self) -> bool:
        """Whether there are records that it did not fetch."""
        return any(at < len(self.log.partitions[key]) for key, at in self.next.items())


def run_to_the_end(tasks: Sequence[MemoryTask], most: int = 10_000) -> None:
    """Let tasks of one log work in turn until none has anything left to read, to handle or to say.

    Parameters
    ----------
    tasks : sequence of MemoryTask
        In the order of their turns.
    most : int
        Records that a turn takes of each partition.
    """
    got_on = True
    while got_on:
        got_on = False
        for task in tasks:
            got_on |= sum(task.fetch(key, most) for key in task.next) > 0
            task.step()
            got_on |= task.commit()


def run_by_chance(
    tasks: Sequence[MemoryTask],
    choose: random.Random,
    *,
    most: int = 12,
    kills: int = 0,
    kill_share: float = 0.1,
    meanwhile: Callable[[], None] = lambda: None,
    committed: Callable[[MemoryTask], object] = lambda _: None,
) -> None:
    """Let tasks of one log work in any order and die at any moment, until none has anything left to say.

    Parameters
    ----------
    tasks : sequence of MemoryTask
    choose : random.Random
        Decides who is next, how much it reads, and whether it commits, waits or dies.
    most : int
        Records that a turn takes of each partition, or fewer.
    kills : int
        How many processes die at most.
    kill_share : float
        Of the turns that end by a death, while there are deaths left.
    meanwhile : callable
        Called in every turn, after it read and before it works: what happens in the world.
    committed : callable
        Hears of each commit, for example to let the task keep a snapshot.
    """
    idle = 0
    while idle < _IDLE_ROUNDS:
        got_on = False
        for task in choose.sample(tasks, len(tasks)):
            for key in task.next:
                got_on |= task.fetch(key, choose.randint(0, most)) > 0 or task.is_behind
            meanwhile()
            task.step()
            if kills and choose.random() < kill_share:
                kills -= 1
                task.kill()
                got_on = True
            elif choose.random() < _COMMIT_SHARE:
                got_on |= task.commit()
                committed(task)
            else:
                got_on |= bool(task.run.has_events or task.run.owes_watermark)
        idle = 0 if got_on else idle + 1
