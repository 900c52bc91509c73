"""The only consume → handle → produce → commit loop.

A task's outputs and its input positions are committed in one Kafka transaction; a successor runs the session again up
to the committed watermark without producing, and goes on from there. Failures: `live_services.runtime.failures`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import IllegalStateError, InvalidProducerEpoch, ProducerFenced

from live_services.adapters.assignor import OneMemberAssignor
from live_services.adapters.kafka import MAX_POLL_RECORDS, connection
from live_services.adapters.sessions import MarketSessions
from live_services.adapters.spans import NoTracing, Tracing
from live_services.adapters.telemetry import Telemetry
from live_services.domain.frames import universe_digest_of
from live_services.domain.topics import consumer_group
from live_services.runtime.assignment import Assignment
from live_services.runtime.chain import Chain, check_shape
from live_services.runtime.committing import IDLE_POLL_MS, Commits
from live_services.runtime.failures import WrongShape
from live_services.runtime.merge import Source
from live_services.runtime.received import Received, received
from live_services.runtime.running import Running, within
from live_services.runtime.takeover import TakeOver
from live_services.runtime.task import TopicPartitionKey
from live_services.settings import Settings

_log = structlog.get_logger("application")

# Queues longer than this stop being fetched; bounds a task's memory when one input runs ahead of another.
_MAX_PENDING_ROWS: Final = 200_000
_MAX_PENDING_RECORDS: Final = 5_000
_STEP_RECORDS: Final = 50  # handled before the heartbeat has its turn: a successor has a whole session to run again
# getmany does not return while a rebalance is under way; the loop must still see `stop`.
_FETCH_SECONDS: Final = 1.0
# The least that brokers allow by default; a killed member's successor waits this long.
_SESSION_TIMEOUT_MS: Final = 6_000
_HEARTBEAT_MS: Final = 1_500
_REPORT_SECONDS: Final = 1.0
_STOP_SECONDS: Final = 5.0


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
    await _Runtime(chain, settings, sessions, telemetry, stop, tracing=tracing or NoTracing()).run()


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
        self._assignment = Assignment()
        self._generation = 0
        self._tasks: dict[int, Running] = {}
        self._owners: dict[TopicPartition, Running] = {}
        self._inputs = {i.topic.name: rank for rank, i in enumerate(chain.inputs) if i.role == "gating"}
        self._consumer: AIOKafkaConsumer = None
        self._commits = Commits(chain, settings, telemetry, self._has_moved_on)
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
        taking_over = TakeOver(
            self._chain, self._settings, self._sessions, self._consumer, self._commits, tracing=self._tracing
        )
        try:
            await self._consumer.start()
            await self._check_topics()
            self._consumer.subscribe(list(self._inputs), listener=self._assignment)
            while not self._stop.is_set():
                await self._cycle(taking_over)
            await self._flush_all(force=True)
            _log.info("service_stopped", process=self._chain.name, scope=self._chain.scope)
        finally:
            await self._release_tasks()
            await within(_STOP_SECONDS, self._consumer.stop())

    async def _cycle(self, taking_over: TakeOver) -> None:
        if self._has_moved_on():
            await self._take_over(taking_over)
            return
        fetched = await self._fetch()
        # What was fetched before a rebalance is not this member's any more.
        if self._has_moved_on():
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
        if not self._has_moved_on():
            self._pause_long_queues()
            await self._report()

    async def _fetch(self) -> Mapping[TopicPartition, Sequence[Any]]:
        wait_ms = min((self._commits.wait_ms(running) for running in self._tasks.values()), default=IDLE_POLL_MS)
        try:
            async with asyncio.timeout(_FETCH_SECONDS):
                fetched: Mapping[TopicPartition, Sequence[Any]] = await self._consumer.getmany(timeout_ms=wait_ms)
        except TimeoutError:
            return {}
        if not self._tasks:
            await asyncio.sleep(IDLE_POLL_MS / 1000)
        return fetched

    async def _learn_universe(self, record: Received) -> None:
        """Read what the feed has told of its sessions, when a record names a universe that is new here."""
        digest = universe_digest_of(record.headers)
        if digest and self._sessions.universe(digest) is None:
            await self._sessions.refresh()

    def _has_moved_on(self) -> bool:
        """Whether the group took this member's tasks, or gave it others."""
        return self._assignment.generation != self._generation

    # --- taking over --------------------------------------------------------------------------------------------

    async def _take_over(self, taking_over: TakeOver) -> None:
        generation, partitions = self._assignment.generation, self._assignment.partitions
        await self._release_tasks()
        try:
            await self._sessions.refresh()
            for index, ours in sorted(taking_over.shared_out(partitions).items()):
                running = await taking_over.start(index, ours)
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

    async def _release_tasks(self) -> None:
        tasks, self._tasks, self._owners = self._tasks, {}, {}
        for running in tasks.values():
            for service in self._chain.services:
                self._telemetry.withdraw(replace(running.run.task, service=service.name))
            await running.stop()

    async def _flush_all(self, *, force: bool) -> None:
        due = [running for running in self._tasks.values() if force or self._commits.wait_ms(running) == 0]
        await asyncio.gather(*(self._commits.flush(running) for running in due))

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
                self._telemetry.report(running.health(service, sum(lags.values())))

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
