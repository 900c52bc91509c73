"""The only consume → handle → produce → commit loop.

A task's outputs and its input positions are committed in one Kafka transaction; a successor runs the session again up
to the committed watermark without producing, and goes on from there. Failures: `live_services.runtime.failures`.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from live_services.adapters.assignor import OneMemberAssignor, tasks_assignor
from live_services.adapters.kafka import MAX_POLL_RECORDS, connection
from live_services.adapters.reconnects import reconnect_slowly
from live_services.adapters.sessions import MarketSessions
from live_services.adapters.snapshot_files import SnapshotFiles
from live_services.adapters.spans import NoTracing, Tracing
from live_services.adapters.telemetry import Telemetry
from live_services.domain.frame_rows import kernel_of_ticks
from live_services.domain.topics import consumer_group
from live_services.runtime.assignment import Assignment
from live_services.runtime.chain import Chain, check_shape
from live_services.runtime.committing import IDLE_POLL_MS, Commits, fenced
from live_services.runtime.failures import WrongShape
from live_services.runtime.handover import TopicPartitionKey
from live_services.runtime.merge import Source
from live_services.runtime.rerun import settle_by_kafka
from live_services.runtime.running import Running, within
from live_services.runtime.snapshots import Snapshots
from live_services.runtime.takeover import TakeOver
from live_services.settings import Settings

_log = structlog.get_logger("application")

# Queues longer than this stop being fetched; bounds a task's memory when one input runs ahead of another.
_MAX_PENDING_ROWS: Final = 200_000
_MAX_PENDING_RECORDS: Final = 5_000
# getmany does not return while a rebalance is under way; the loop must still see `stop`.
_FETCH_SECONDS: Final = 1.0
# aiokafka has one fetch under way at a time: while it waits for proposals, of which there are none, the market of a day
# that is run again is not asked for. With the default of 500 ms that was half of such a restart.
_FETCH_WAIT_MS: Final = 50
# The least that brokers allow by default; a killed member's successor waits this long.
_SESSION_TIMEOUT_MS: Final = 6_000
_HEARTBEAT_MS: Final = 1_500
_REPORT_SECONDS: Final = 1.0
# With Python's 5 ms a thread that proves a model or reads history keeps the loop waiting so long at each of its turns.
_SWITCH_SECONDS: Final = 0.0005
_STOP_SECONDS: Final = 5.0


def _nothing() -> None:
    """Do nothing."""


async def run_chain(
    chain: Chain,
    settings: Settings,
    sessions: MarketSessions,
    telemetry: Telemetry,
    stop: asyncio.Event,
    *,
    tracing: Tracing | None = None,
    member: str = "",
    settled: Callable[[], None] = _nothing,
    snapshots: SnapshotFiles | None = None,
) -> None:
    """Run a chain of services until ``stop`` is set, then finish the batch and commit.

    Parameters
    ----------
    member : str
        This process's name in the chain's group, which no other one may have: a successor of the same name goes on at
        once, and the group is not shared out anew as long as it comes within the session timeout. Default: none, so
        that the group waits for whoever was killed, and shares out anew when a process leaves.
    settled : callable
        Called whenever what stays in memory has changed: tasks began to run, or the states of a session were built.
    snapshots : SnapshotFiles, optional
        Where states are kept that a successor goes on from; default: it runs the session again from its open.

    Raises
    ------
    RuntimeFailure
        When this process cannot go on; a restart takes over from what is committed.
    """
    sys.setswitchinterval(_SWITCH_SECONDS)
    kernel_of_ticks()  # compiled or loaded now, not at the first frame
    await _Runtime(
        chain,
        settings,
        sessions,
        telemetry,
        stop,
        tracing=tracing or NoTracing(),
        member=member,
        settled=settled,
        snapshots=snapshots,
    ).run()


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
        member: str,
        settled: Callable[[], None],
        snapshots: SnapshotFiles | None,
    ) -> None:
        self._chain = chain
        self._settings = settings
        self._sessions = sessions
        self._telemetry = telemetry
        self._tracing = tracing
        self._member = member
        self._settled = settled
        self._stop = stop
        self._group = consumer_group(chain.name, chain.scope)
        self._assignment = Assignment()
        self._generation = 0
        self._tasks: dict[int, Running] = {}
        self._owners: dict[TopicPartition, Running] = {}
        self._starting: dict[int, asyncio.Task[Running]] = {}
        self._inputs = {i.topic.name: rank for rank, i in enumerate(chain.inputs) if i.role == "gating"}
        self._consumer: AIOKafkaConsumer = None
        self._snapshots = Snapshots(snapshots, settings.runtime.snapshot_interval_seconds)
        self._commits = Commits(chain, settings, telemetry, self._snapshots, self._has_moved_on)
        check_shape(chain, settings.kafka.market_partitions)

    async def run(self) -> None:
        assignor = OneMemberAssignor if self._chain.single_task else tasks_assignor(lambda: self._tasks)
        self._consumer = AIOKafkaConsumer(
            **connection(self._settings.kafka),
            group_id=self._group,
            group_instance_id=self._member or None,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_poll_records=MAX_POLL_RECORDS,
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            session_timeout_ms=_SESSION_TIMEOUT_MS,
            heartbeat_interval_ms=_HEARTBEAT_MS,
            partition_assignment_strategy=(assignor,),
        )
        reconnect_slowly(self._consumer._client)
        taking_over = TakeOver(
            self._chain,
            self._settings,
            self._sessions,
            self._consumer,
            self._commits,
            snapshots=self._snapshots,
            tracing=self._tracing,
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
            await self._give_up_starts()
            await self._release(list(self._tasks))
            await within(_STOP_SECONDS, self._consumer.stop())

    async def _cycle(self, taking_over: TakeOver) -> None:
        if not self._assignment.is_settled:
            await self._flush_all(force=False)
            await self._fetch()  # gives nothing meanwhile, but raises what the group refuses
            return
        if self._has_moved_on():
            await self._settle(taking_over)
            return
        self._adopt()
        fetched = await self._fetch()
        # What was fetched before a rebalance is fetched again: each task knows which record it takes next.
        if self._has_moved_on():
            return
        learn, openings = self._sessions.learner(), self._openings()
        for partition, records in fetched.items():
            if partition in self._owners:
                await self._owners[partition].take(partition, records, learn)
        for running in self._tasks.values():
            for command in running.inbox.take():
                running.run.receive_command(command)
            await running.step()
            if running.run.differs:
                await settle_by_kafka(running.run, self._settings.kafka)
        if self._openings() > openings:
            self._settled()
        await self._flush_all(force=False)
        await asyncio.sleep(0)  # a cycle in which everything was there at once waits for nothing else
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

    def _openings(self) -> int:
        return sum(running.openings for running in self._tasks.values())

    def _has_moved_on(self) -> bool:
        """Whether the group was shared out anew since this member settled its tasks."""
        return self._assignment.generation != self._generation

    # --- what the group gives and takes -------------------------------------------------------------------------

    async def _settle(self, taking_over: TakeOver) -> None:
        """Keep the tasks that are still ours, release the others, and begin to take over what is new."""
        generation, partitions = self._assignment.generation, self._assignment.partitions
        await self._give_up_starts()
        shares = taking_over.shared_out(partitions)
        await self._release([index for index, running in self._tasks.items() if not running.has(shares.get(index))])
        await self._release(await self._lost())
        new = {index: ours for index, ours in shares.items() if index not in self._tasks}
        if new:
            await self._sessions.refresh()
        if self._assignment.generation != generation:
            return
        for running in self._tasks.values():
            self._seek(running)
        for index, ours in sorted(new.items()):
            self._consumer.pause(*ours)
            self._starting[index] = asyncio.create_task(taking_over.start(index, ours), name=f"start of task {index}")
        self._generation = generation
        self._telemetry.rebalanced(self._group, [(tp.topic, tp.partition) for tp in sorted(partitions)])
        for service in self._chain.services:
            self._telemetry.active(service.name, self._chain.scope)
        self._say("partitions_assigned", partitions, kept=[str(running.run.task) for running in self._tasks.values()])

    async def _lost(self) -> list[int]:
        """Give the tasks that another process has taken over while the group was shared out.

        Raises
        ------
        TaskFenced
            If this member has a name: the other process may have it too, and the group would go from one to the other
            for ever.
        """
        proved = await asyncio.gather(*(self._commits.prove(running) for running in self._tasks.values()))
        lost = [index for index, ours in zip(self._tasks, proved, strict=True) if not ours]
        if lost and self._member:
            raise fenced(self._tasks[lost[0]])
        return lost

    def _adopt(self) -> None:
        """Let the tasks run that are taken over by now."""
        for index in [index for index, starting in self._starting.items() if starting.done()]:
            running = self._starting.pop(index).result()
            self._tasks[index] = running
            self._owners.update(dict.fromkeys(running.next_offsets, running))
            self._seek(running)
            self._consumer.resume(*running.next_offsets)
            kept = bool(running.run.read_from)
            self._say("task_taken_over", running.next_offsets, task=str(running.run.task), from_snapshot=kept)
            self._settled()

    def _seek(self, running: Running) -> None:
        for partition, offset in running.next_offsets.items():
            self._consumer.seek(partition, offset)

    async def _give_up_starts(self) -> None:
        starting, self._starting = self._starting, {}
        for one in starting.values():
            one.cancel()
        for ended in await asyncio.gather(*starting.values(), return_exceptions=True):
            if isinstance(ended, Running):
                await ended.stop()

    async def _release(self, indices: Iterable[int]) -> None:
        released = [self._tasks.pop(index) for index in indices]
        for running in released:
            for partition in running.next_offsets:
                del self._owners[partition]
            for service in self._chain.services:
                self._telemetry.withdraw(replace(running.run.task, service=service.name))
        await asyncio.gather(*(running.stop() for running in released))

    def _say(self, what: str, partitions: Iterable[TopicPartition], **more: Any) -> None:
        named = [f"{tp.topic}[{tp.partition}]" for tp in sorted(partitions)]
        _log.info(what, process=self._chain.name, scope=self._chain.scope, group=self._group, partitions=named, **more)

    async def _flush_all(self, *, force: bool) -> None:
        due = [
            running
            for running in self._tasks.values()
            if not running.is_opening and (force or self._commits.wait_ms(running) == 0)
        ]
        await asyncio.gather(*(self._commits.flush(running, last=force) for running in due))

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
