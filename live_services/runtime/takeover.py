"""How a task is taken over: its predecessor is fenced, and what that committed says where it begins."""

from __future__ import annotations

import asyncio
import copy
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from live_services.adapters.groups import begins_ns
from live_services.adapters.kafka import committed_offsets, read_topic, transactional_producer
from live_services.adapters.market_log import log_ends
from live_services.adapters.sessions import MarketSessions
from live_services.adapters.spans import Tracing
from live_services.domain.events import DifferenceAccepted
from live_services.domain.letters import FloodLimits
from live_services.domain.log import TaskId
from live_services.domain.snapshot import CorruptSnapshot
from live_services.domain.topics import Topic, consumer_group, transactional_id
from live_services.runtime.chain import Chain
from live_services.runtime.committing import Commits
from live_services.runtime.control import OwnControl, number_left_out, own_control
from live_services.runtime.failures import WrongShape
from live_services.runtime.handover import Committed, Resume, TopicPartitionKey
from live_services.runtime.inbox import Inbox
from live_services.runtime.inner_watch import InnerWatch
from live_services.runtime.merge import BEGINNING_NS, Source
from live_services.runtime.positions import decode_position
from live_services.runtime.received import Received
from live_services.runtime.running import Running, stop_all
from live_services.runtime.snapshots import Snapshots
from live_services.runtime.task import TaskRun
from live_services.runtime.written_task import restore_task
from live_services.settings import Settings

_START_SECONDS: Final = 60.0


class TakeOver:
    """Starts tasks of a chain where their predecessors stopped.

    Parameters
    ----------
    chain, settings, sessions, tracing, commits, snapshots
        Of the process.
    consumer : AIOKafkaConsumer
        Asked where partitions begin.
    """

    def __init__(
        self,
        chain: Chain,
        settings: Settings,
        sessions: MarketSessions,
        consumer: AIOKafkaConsumer,
        commits: Commits,
        *,
        snapshots: Snapshots,
        tracing: Tracing,
    ) -> None:
        self._chain = chain
        self._settings = settings
        self._sessions = sessions
        self._consumer = consumer
        self._commits = commits
        self._snapshots = snapshots
        self._tracing = tracing
        self._group = consumer_group(chain.name, chain.scope)
        self._ranks = {i.topic.name: rank for rank, i in enumerate(chain.inputs) if i.role == "gating"}
        self._controls = [i.topic for i in chain.inputs if i.role == "control"]
        self._commands = [i.topic for i in chain.inputs if i.role == "command"]

    def shared_out(self, partitions: Iterable[TopicPartition]) -> dict[int, list[TopicPartition]]:
        """Give the partitions of each task, by its index.

        Raises
        ------
        WrongShape
            If a task would lack a partition of one of its inputs.
        """
        shares: dict[int, list[TopicPartition]] = defaultdict(list)
        for tp in sorted(partitions):
            shares[0 if self._chain.single_task else tp.partition].append(tp)
        for index, ours in shares.items():
            if missing := set(self._ranks) - {tp.topic for tp in ours}:
                raise WrongShape(
                    f"{self._chain.name} task {index} has no partition of {sorted(missing)}: the topics have "
                    "different numbers of partitions, or members of the group run different versions"
                )
        return shares

    async def start(self, index: int, partitions: Sequence[TopicPartition]) -> Running:
        """Take over a task; it may take long, and nothing of the consumer is changed.

        Raises
        ------
        aiokafka.errors.ProducerFenced, aiokafka.errors.InvalidProducerEpoch
            If another process takes it over meanwhile.
        """
        task = TaskId(self._chain.name, self._chain.scope, index)
        kafka, runtime = self._settings.kafka, self._settings.runtime
        # Started first: it fences the predecessor and waits until what that committed can be read.
        identity = transactional_id(task.service, task.scope, task.partition)
        producer = transactional_producer(kafka, identity, runtime.transaction_timeout_ms)
        inner, inbox = InnerWatch(kafka, self._chain.watched, task), Inbox(kafka, self._commands)
        try:
            async with asyncio.timeout(_START_SECONDS):
                await producer.start()
                await inner.start()
                await inbox.start()
            committed = {
                (tp.topic, tp.partition): decode_position(self._group, tp, *position)
                for tp, position in (await committed_offsets(kafka, self._group, partitions)).items()
            }
            resume = await self._resume(task, committed)
            await self._chain.prepare(task, resume.control)
            first = await self._consumer.beginning_offsets(partitions)
            starts = {
                (tp.topic, tp.partition): known.session_open_offset if known is not None else first[tp]
                for tp in partitions
                for known in (committed.get((tp.topic, tp.partition)),)
            }
            require_whole_session(task, committed, first, resume)
            if not committed:
                committed = await self._begin(producer, starts, resume)
            run = await self._built(task, starts, resume)
        except BaseException:
            await stop_all(producer, inner, inbox)
            raise
        offsets = {TopicPartition(*key): offset for key, offset in (starts | run.read_from).items()}
        return Running(run, producer, inner, inbox, resume.watermark_ns, offsets, committed)

    async def _built(self, task: TaskId, starts: Mapping[TopicPartitionKey, int], resume: Resume) -> TaskRun:
        """Build a task in a thread, which takes long when it goes on from a snapshot of many states."""
        try:
            return await asyncio.to_thread(self._run_of, task, starts, resume)
        except CorruptSnapshot as damage:
            self._snapshots.forget(task, damage)
            return self._run_of(task, starts, replace(resume, snapshot=None))

    def _run_of(self, task: TaskId, starts: Mapping[TopicPartitionKey, int], resume: Resume) -> TaskRun:
        floods = self._settings.dead_letters
        run = TaskRun(
            copy.copy(self._chain),  # what becomes of a failed event is the task's own affair
            task,
            [Source(topic, partition, self._ranks[topic]) for topic, partition in starts],
            self._sessions.universe,
            starts=starts,
            resume=resume,
            told=self._sessions.session,
            market_partitions=self._settings.kafka.market_partitions,
            spans=self._tracing.task(task, self._chain.outputs),
            flood=FloodLimits(floods.flood_letters, floods.flood_seconds),
            opens_apart=True,
        )
        if resume.snapshot is not None:
            restore_task(run, resume.snapshot)
        return run

    async def _begin(
        self, producer: AIOKafkaProducer, starts: Mapping[TopicPartitionKey, int], resume: Resume
    ) -> dict[TopicPartitionKey, Committed]:
        """Commit where a new group begins, so that it is known to be there, and begins there again if it is killed."""
        begin_ns, numbers = resume.begin_ns, resume.numbers
        positions = {
            key: Committed(offset, BEGINNING_NS, offset, begin_ns, numbers=numbers) for key, offset in starts.items()
        }
        async with asyncio.timeout(_START_SECONDS):
            await self._commits.commit(producer, (), positions)
        return positions

    async def _resume(self, task: TaskId, committed: Mapping[TopicPartitionKey, Committed]) -> Resume:
        """Say where to go on: behind what is committed, or, for a new group, with the session that is under way."""
        if not committed:
            begin_ns = await begins_ns(self._settings.kafka, self._sessions)
            return Resume(BEGINNING_NS, begin_ns, numbers=await self._numbers(task, begin_ns))
        newest = max(committed.values(), key=lambda c: c.watermark_ns)
        control = OwnControl()
        for topic in self._controls:
            stored = [
                Received(one.topic, one.partition, one.offset, one.key, one.value, one.headers)
                async for one in read_topic(self._settings.kafka, topic.name, _partition(task, topic))
            ]
            control += own_control(task, topic, stored, newest)
        let_stand = [event for event in control.events if isinstance(event, DifferenceAccepted)]
        kept = await self._snapshots.of(task, newest, let_stand[-1] if let_stand else None)
        where = newest.watermark_ns, newest.session_open_ns
        return Resume(
            *where,
            control.events,
            newest.said,
            snapshot=kept,
            numbers=newest.numbers,
            flood=newest.flood,
            foreign=control.foreign,
        )

    async def _numbers(self, task: TaskId, open_ns: int) -> dict[str, int]:
        """Give the number of a session's last record on each numbered topic; one without a group may be there."""
        found = {}
        for topic in (topic for topic in self._chain.outputs if topic.writer):
            end = (await log_ends(self._settings.kafka, topic, self._sessions)).get(_partition(task, topic))
            if end is not None and end.open_ns == open_ns:
                found[topic.name] = end.number
        for topic in self._controls:
            read = read_topic(self._settings.kafka, topic.name, _partition(task, topic))
            left_out = number_left_out(topic, open_ns, [record.headers async for record in read])
            if left_out is not None:
                found[topic.name] = left_out
        return found


def require_whole_session(
    task: TaskId,
    committed: Mapping[TopicPartitionKey, Committed],
    first: Mapping[TopicPartition, int],
    resume: Resume,
) -> None:
    """Check that the session that is to be run again is on the log from its open; a snapshot needs less of it.

    Raises
    ------
    WrongShape
        If Kafka has dropped a part of it.
    """
    gone = [str(tp) for tp, offset in first.items() if (c := committed.get(tp)) and c.session_open_offset < offset]
    if gone and resume.snapshot is None and resume.watermark_ns != BEGINNING_NS:
        raise WrongShape(
            f"{task}: the session that it was in is to be run again from its open, and Kafka has dropped the beginning "
            f"of it on {', '.join(gone)} (kafka.retention_hours). Raise the retention before a desk rests for longer; "
            "this one begins anew with an empty Kafka"
        )


def _partition(task: TaskId, topic: Topic) -> int:
    return task.partition if topic.per_market_partition else 0
