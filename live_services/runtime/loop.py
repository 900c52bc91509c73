"""The only consume → handle → produce → commit loop.

A task's outputs and its input positions are committed in one Kafka transaction; a successor runs the session again up
to the committed watermark without producing, and goes on from there. Failures: `live_services.runtime.failures`.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import structlog
from aiokafka import (
    AIOKafkaConsumer,
    AIOKafkaProducer,
    TopicPartition,
)
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import IllegalStateError, InvalidProducerEpoch, ProducerFenced

from live_services.adapters.assignor import OneMemberAssignor
from live_services.adapters.groups import begins_ns
from live_services.adapters.health import TaskHealth
from live_services.adapters.kafka import (
    MAX_POLL_RECORDS,
    commit_together,
    committed_offsets,
    connection,
    read_topic,
    transactional_producer,
)
from live_services.adapters.progress_marks import ProgressMark, process_name
from live_services.adapters.sessions import MarketSessions
from live_services.adapters.spans import NoTracing, Tracing, trace_headers
from live_services.adapters.telemetry import Telemetry
from live_services.domain.events import headers_of, value_of
from live_services.domain.frame_rows import kernel_of_ticks
from live_services.domain.frames import universe_digest_of
from live_services.domain.letters import LetterFlood
from live_services.domain.log import TaskId
from live_services.domain.topics import BROKERS, Topic, broker_topics, consumer_group, transactional_id
from live_services.runtime.arrivals import Arrivals
from live_services.runtime.assignment import Assignment
from live_services.runtime.chain import Chain, check_shape
from live_services.runtime.failures import CommitTimedOut, TaskFenced, WrongShape
from live_services.runtime.inbox import Inbox
from live_services.runtime.inner_watch import InnerWatch
from live_services.runtime.merge import BEGINNING_NS, Source
from live_services.runtime.positions import decode_position, encode_position, watermark_of
from live_services.runtime.received import Received, received
from live_services.runtime.service import MayBeHalted, RunsStrategies, Service, WarmsUp
from live_services.runtime.task import (
    TASK_HEADER,
    Committed,
    Output,
    Resume,
    TaskRun,
    TopicPartitionKey,
    control_of,
)
from live_services.settings import Settings

_log = structlog.get_logger("application")

# Queues longer than this stop being fetched; bounds a task's memory when one input runs ahead of another.
_MAX_PENDING_ROWS: Final = 200_000
_MAX_PENDING_RECORDS: Final = 5_000
_STEP_RECORDS: Final = 50  # handled before the heartbeat has its turn: a successor has a whole session to run again
_IDLE_POLL_MS: Final = 50
# getmany does not return while a rebalance is under way; the loop must still see `stop`.
_FETCH_SECONDS: Final = 1.0
# The least that brokers allow by default; a killed member's successor waits this long.
_SESSION_TIMEOUT_MS: Final = 6_000
_HEARTBEAT_MS: Final = 1_500
_REPORT_SECONDS: Final = 1.0
_PROPOSALS: Final = frozenset(broker_topics(broker).signals_raw.name for broker in BROKERS)
_STOP_SECONDS: Final = 5.0
_START_SECONDS: Final = 60.0


async def run_chain(
    chain: Chain,
    settings: Settings,
    sessions: MarketSessions,
    telemetry: Telemetry,
    stop: asyncio.Event,
    *,
    tracing: Tracing | None = None,
) -> None:
    """Run a chain of services until ``stop`` is set, then finish the batch, commit and leave the group.

    Raises
    ------
    RuntimeFailure
        When this process cannot go on; a restart takes over from what is committed.
    """
    kernel_of_ticks()  # compiled or loaded now, not at the first frame
    await _Runtime(chain, settings, sessions, telemetry, stop, tracing=tracing or NoTracing()).run()


@dataclass(slots=True)
class _Running:
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


class _Runtime:
    def __init__(
        self,
        chain: Chain,
        settings: Settings,
        sessions: MarketSessions,
        telemetry: Telemetry,
        stop: asyncio.Event,
        *,
        tracing: Tracing,
    ) -> None:
        self._chain = chain
        self._settings = settings
        self._sessions = sessions
        self._telemetry = telemetry
        self._tracing = tracing
        self._stop = stop
        self._group = consumer_group(chain.name, chain.scope)
        self._mark = ProgressMark(settings.alpha_panda_home, process_name(chain.name, chain.scope))
        self._assignment = Assignment()
        self._generation = 0
        self._tasks: dict[int, _Running] = {}
        self._owners: dict[TopicPartition, _Running] = {}
        self._inputs = {i.topic.name: rank for rank, i in enumerate(chain.inputs) if i.role == "gating"}
        self._controls = [i.topic for i in chain.inputs if i.role == "control"]
        self._commands = [i.topic for i in chain.inputs if i.role == "command"]
        self._consumer: AIOKafkaConsumer = None
        check_shape(chain, settings.kafka.market_partitions)

    async def run(self) -> None:
        self._consumer = AIOKafkaConsumer(
            **connection(self._settings.kafka),
            group_id=self._group,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_records=MAX_POLL_RECORDS,
            session_timeout_ms=_SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=_HEARTBEAT_MS,
            partition_assignment_strategy=(OneMemberAssignor if self._chain.single_task else RangePartitionAssignor,),
        )
        try:
            await self._consumer.start()
            await self._check_topics()
            self._consumer.subscribe(list(self._inputs), listener=self._assignment)
            while not self._stop.is_set():
                await self._cycle()
            await self._flush_all(force=True)
            _log.info("service_stopped", process=self._chain.name, scope=self._chain.scope)
        finally:
            await self._release_tasks()
            await _within(_STOP_SECONDS, self._consumer.stop())

    async def _cycle(self) -> None:
        if self._assignment.generation != self._generation:
            await self._take_over()
            return
        fetched = await self._fetch()
        # What was fetched before a rebalance is not this member's any more.
        if self._assignment.generation != self._generation:
            return
        for partition, records in fetched.items():
            owner = self._owners[partition]
            for first in range(0, len(records), _STEP_RECORDS):
                step = records[first : first + _STEP_RECORDS]
                owner.arrivals.came(partition.topic, step)
                for record in map(received, step):
                    await self._learn_universe(record)
                    owner.run.receive(record)
                owner.run.step()
                owner.arrivals.handled(has_events=owner.run.has_events)
                await asyncio.sleep(0)
        for running in self._tasks.values():
            for command in running.inbox.take():
                running.run.receive_command(command)
            running.run.step()
        await self._flush_all(force=False)
        if self._assignment.generation == self._generation:
            self._pause_long_queues()
            await self._report()

    async def _fetch(self) -> Mapping[TopicPartition, Sequence[Any]]:
        wait_ms = min((self._wait_ms(running) for running in self._tasks.values()), default=_IDLE_POLL_MS)
        try:
            async with asyncio.timeout(_FETCH_SECONDS):
                fetched: Mapping[TopicPartition, Sequence[Any]] = await self._consumer.getmany(timeout_ms=wait_ms)
        except TimeoutError:
            return {}
        if not self._tasks:
            await asyncio.sleep(_IDLE_POLL_MS / 1000)
        return fetched

    async def _learn_universe(self, record: Received) -> None:
        """Read what the feed has told of its sessions, when a record names a universe that is new here."""
        digest = universe_digest_of(record.headers)
        if digest and self._sessions.universe(digest) is None:
            await self._sessions.refresh()

    # --- taking over --------------------------------------------------------------------------------------------

    async def _take_over(self) -> None:
        generation, partitions = self._assignment.generation, self._assignment.partitions
        await self._release_tasks()
        try:
            await self._sessions.refresh()
            for index, ours in sorted(self._shared_out(partitions).items()):
                running = await self._start_task(index, ours)
                self._tasks[index] = running
                self._owners.update(dict.fromkeys(ours, running))
        except (IllegalStateError, ProducerFenced, InvalidProducerEpoch):
            # The group moved on in the meantime: the next cycle takes over what it gave.
            if self._assignment.generation == generation:
                raise
            return
        self._generation = generation
        self._telemetry.rebalanced(self._group, [(tp.topic, tp.partition) for tp in sorted(partitions)])
        for service in self._chain.services:
            self._telemetry.active(service.name, self._chain.scope)
        _log.info(
            "tasks_taken_over",
            process=self._chain.name,
            scope=self._chain.scope,
            group=self._group,
            partitions=[f"{tp.topic}[{tp.partition}]" for tp in sorted(partitions)],
            tasks=[str(running.run.task) for running in self._tasks.values()],
        )

    def _shared_out(self, partitions: Iterable[TopicPartition]) -> dict[int, list[TopicPartition]]:
        shares: dict[int, list[TopicPartition]] = defaultdict(list)
        for tp in sorted(partitions):
            shares[0 if self._chain.single_task else tp.partition].append(tp)
        for index, ours in shares.items():
            if missing := set(self._inputs) - {tp.topic for tp in ours}:
                raise WrongShape(
                    f"{self._chain.name} task {index} has no partition of {sorted(missing)}: the topics have "
                    "different numbers of partitions, or members of the group run different versions"
                )
        return shares

    async def _start_task(self, index: int, partitions: Sequence[TopicPartition]) -> _Running:
        task = TaskId(self._chain.name, self._chain.scope, index)
        kafka, runtime, floods = self._settings.kafka, self._settings.runtime, self._settings.dead_letters
        # Started first: it fences the predecessor and waits until what that committed can be read.
        identity = transactional_id(task.service, task.scope, task.partition)
        producer = transactional_producer(kafka, identity, runtime.transaction_timeout_ms)
        inner, inbox = InnerWatch(kafka, self._chain.inner, task), Inbox(kafka, self._commands)
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
            for tp in partitions:
                known = committed.get((tp.topic, tp.partition))
                if known is not None:
                    self._consumer.seek(tp, known.session_open_offset)
                else:
                    await self._consumer.seek_to_beginning(tp)
            starts = {(tp.topic, tp.partition): await self._consumer.position(tp) for tp in partitions}
            if not committed:
                await self._begin(producer, starts, resume.begin_ns)
        except BaseException:
            await _stop_all(producer, inner, inbox)
            raise
        run = TaskRun(
            self._chain,
            task,
            [Source(tp.topic, tp.partition, self._inputs[tp.topic]) for tp in partitions],
            self._sessions.universe,
            starts=starts,
            resume=resume,
            market_partitions=kafka.market_partitions,
            spans=self._tracing.task(task, self._chain.outputs),
            flood=LetterFlood(floods.flood_letters, floods.flood_seconds),
        )
        return _Running(run, producer, inner, inbox, resume.watermark_ns)

    async def _begin(self, producer: AIOKafkaProducer, starts: Mapping[TopicPartitionKey, int], begin_ns: int) -> None:
        """Commit where a new group begins, so that it is known to be there, and begins there again if it is killed."""
        positions = {key: Committed(offset, BEGINNING_NS, offset, begin_ns) for key, offset in starts.items()}
        async with asyncio.timeout(_START_SECONDS):
            await self._commit(producer, (), positions)

    async def _resume(self, task: TaskId, committed: Mapping[TopicPartitionKey, Committed]) -> Resume:
        """Say where to go on: behind what is committed, or, for a new group, with the session that is under way."""
        if not committed:
            return Resume(BEGINNING_NS, await begins_ns(self._settings.kafka, self._sessions))
        newest = max(committed.values(), key=lambda c: c.watermark_ns)
        control = [
            control_of(task, topic, record.headers, record.value)
            for topic in self._controls
            async for record in read_topic(self._settings.kafka, topic.name, self._partition(task, topic))
        ]
        ours = (
            e for e in control if e is not None and newest.session_open_ns <= e.event_time_ns <= newest.watermark_ns
        )
        return Resume(newest.watermark_ns, newest.session_open_ns, tuple(ours))

    def _partition(self, task: TaskId, topic: Topic) -> int:
        return task.partition if topic.per_market_partition else 0

    async def _release_tasks(self) -> None:
        tasks, self._tasks, self._owners = self._tasks, {}, {}
        for running in tasks.values():
            for service in self._chain.services:
                self._telemetry.withdraw(replace(running.run.task, service=service.name))
            await _stop_all(running.producer, running.inner, running.inbox)

    # --- committing ---------------------------------------------------------------------------------------------

    async def _flush_all(self, *, force: bool) -> None:
        due = [running for running in self._tasks.values() if force or self._wait_ms(running) == 0]
        await asyncio.gather(*(self._flush(running) for running in due))

    def _wait_ms(self, running: _Running) -> int:
        """Milliseconds until something of this task is due to be committed."""
        run, runtime, now = running.run, self._settings.runtime, time.monotonic()
        since_commit, since_forward = (now - running.committed_at) * 1000, (now - running.forwarded_at) * 1000
        waits = [float(_IDLE_POLL_MS)]
        if run.has_events:
            waits.append(runtime.commit_interval_ms - since_commit)
        if run.owes_watermark:
            every_ms = runtime.commit_interval_ms if run.is_waited_for else runtime.watermark_interval_ms
            waits.append(every_ms - since_forward)
        if run.live and run.session is not None and run.now_ns != watermark_of(running.positions):
            waits.append(runtime.offsets_interval_ms - since_commit)
        return max(0, round(min(waits)))

    async def _flush(self, running: _Running) -> None:
        run, limit_ms = running.run, self._settings.runtime.transaction_timeout_ms
        run.forward()
        outputs, positions = run.take_outputs(), run.positions()
        if not outputs and positions == running.positions:
            return
        running.inner.expect(outputs)
        running.committed_at = running.forwarded_at = begun = time.monotonic()
        try:
            async with asyncio.timeout(limit_ms / 1000):
                await self._commit(running.producer, outputs, positions)
        except TimeoutError as cause:
            raise CommitTimedOut(
                f"{run.task}: Kafka did not finish a transaction in {limit_ms} ms; this process ends and its successor "
                "goes on from the last commit"
            ) from cause
        except (ProducerFenced, InvalidProducerEpoch) as cause:
            if self._assignment.generation != self._generation:
                return  # revoked meanwhile; the next cycle drops everything
            raise TaskFenced(
                f"{run.task}: another process runs this task now (transactional id taken over); this one ends"
            ) from cause
        running.positions = positions
        if run.now_ns > running.begun_ns:  # what every start commits again is no progress
            self._mark.got_on()
        self._telemetry.commit_took(self._chain.name, self._chain.scope, time.monotonic() - begun)
        self._tell(running, outputs)

    def _tell(self, running: _Running, outputs: Sequence[Output]) -> None:
        """Report what is on the log now."""
        running.run.spans.committed()
        said, now_s = [output for output in outputs if output.event.event_type != "watermark"], time.time()
        running.last_outputs_s |= dict.fromkeys((output.topic for output in said), now_s)
        events, topics = [output.event for output in said], {output.topic for output in outputs}
        self._telemetry.committed(events)
        for service in self._chain.services:
            if any(topic.name in topics for topic in service.outputs):
                self._telemetry.active(service.name, self._chain.scope)
        for latency in running.arrivals.committed(events, running.run.now_ns, now_s):
            told = self._telemetry.signal_latency if latency.of == "signal" else self._telemetry.order_latency
            told(latency.broker, latency.seconds)
            longest_s, at_s = running.latencies_s.get(latency.topic, (0.0, 0.0))
            running.latencies_s[latency.topic] = (max(latency.seconds, longest_s if at_s == now_s else 0.0), now_s)

    async def _commit(
        self,
        producer: AIOKafkaProducer,
        outputs: Sequence[Output],
        positions: Mapping[TopicPartitionKey, Committed],
    ) -> None:
        records = [(o.topic, o.partition, value_of(o.event), _headers(o)) for o in outputs]
        offsets = {TopicPartition(*key): encode_position(p) for key, p in positions.items()}
        await commit_together(producer, records, offsets, self._group)

    # --- housekeeping -------------------------------------------------------------------------------------------

    def _pause_long_queues(self) -> None:
        paused = self._consumer.paused()
        for tp, running in self._owners.items():
            rows, records = running.run.merge.backlog(tp.topic, tp.partition)
            long = rows > _MAX_PENDING_ROWS or records > _MAX_PENDING_RECORDS
            wanted = long and running.run.merge.may_pause(tp.topic, tp.partition)
            if wanted and tp not in paused:
                self._consumer.pause(tp)
            elif not wanted and tp in paused:
                self._consumer.resume(tp)

    async def _report(self) -> None:
        now = time.monotonic()
        for running in self._tasks.values():
            if now - running.reported_at < _REPORT_SECONDS:
                continue
            running.reported_at = now
            lags = await self._lags(running.run.sources)
            self._telemetry.lag(self._group, lags)
            for service in self._chain.services:
                self._telemetry.report(_health(running, service, sum(lags.values())))

    async def _lags(self, sources: Iterable[Source]) -> dict[TopicPartitionKey, int]:
        """Give how many records of each partition were not fetched yet."""
        lags = {}
        for source in sources:
            tp = TopicPartition(source.topic, source.partition)
            end = self._consumer.highwater(tp)
            if end is not None:
                lags[source.topic, source.partition] = max(0, end - await self._consumer.position(tp))
        return lags

    async def _check_topics(self) -> None:
        known = await self._consumer.topics()
        names = {i.topic.name for i in self._chain.inputs} | {t.name for t in self._chain.outputs}
        if missing := sorted(names - set(known)):
            raise WrongShape(f"{self._chain.name}: no topic {', '.join(missing)}; alpha-panda up creates the topics")


def _health(running: _Running, service: Service[Any], lag: int) -> TaskHealth:
    """Give the row of one service of a task: what the chain shares, and what the service itself put out."""
    run, own = running.run, {topic.name for topic in service.outputs}
    newest = (running.latencies_s[topic] for topic in own if topic in running.latencies_s)
    latency_s, answered_s = max(newest, key=lambda answer: answer[1], default=(0.0, 0.0))
    return TaskHealth(
        task=replace(run.task, service=service.name),
        watermark_ns=max(run.now_ns, 0),
        session=run.session.date.isoformat() if run.session is not None else "",
        live=run.live,
        records_handled=run.records_handled,
        outputs={kind: count for (topic, kind), count in run.outputs.items() if topic in own},
        dead_letters=run.dead_letters_of(service.name),
        foreign_records=running.inner.foreign_on(own),
        lag_records=lag,
        waiting_for=run.merge.waiting_for(),
        pid=os.getpid(),
        readiness=run.readiness if isinstance(service, WarmsUp) else None,
        last_output_s=max((running.last_outputs_s.get(topic, 0.0) for topic in own), default=0.0),
        strategies=run.strategies if isinstance(service, RunsStrategies) else (),
        trading_states=run.trading_states if isinstance(service, MayBeHalted) else None,
        latency_s=latency_s,
        answered_s=answered_s,
    )


def _headers(output: Output) -> list[tuple[str, bytes]]:
    headers = [*headers_of(output.event), *trace_headers(output.traceparent)]
    if output.control_of is not None:
        headers.append((TASK_HEADER, str(output.control_of).encode()))
    return headers


async def _stop_all(*ours: AIOKafkaProducer | InnerWatch | Inbox) -> None:
    for one in ours:
        await _within(_STOP_SECONDS, one.stop())


async def _within(seconds: float, awaited: Any) -> None:
    """Wait for something whose end matters less than our own."""
    try:
        async with asyncio.timeout(seconds):
            await awaited
    except TimeoutError:
        _log.warning("gave_up_waiting", seconds=seconds)
