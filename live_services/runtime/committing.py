"""What a task said goes to Kafka with its positions, in one transaction, when it is due."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import InvalidProducerEpoch, ProducerFenced

from live_services.adapters.kafka import commit_together
from live_services.adapters.progress_marks import ProgressMark, process_name
from live_services.adapters.telemetry import Telemetry
from live_services.domain.events import value_of
from live_services.domain.topics import consumer_group
from live_services.runtime.chain import Chain
from live_services.runtime.failures import CommitTimedOut, TaskFenced
from live_services.runtime.handover import Committed, Output, TopicPartitionKey
from live_services.runtime.positions import encode_position, watermark_of
from live_services.runtime.running import Running
from live_services.runtime.snapshots import Snapshots
from live_services.settings import Settings

IDLE_POLL_MS: Final = 50
_TOLD_IN_A_TURN: Final = 4  # of events, a line in the log each: 0.1 ms


class Commits:
    """Commits the tasks of one process.

    Parameters
    ----------
    chain, settings, telemetry
        Of the process.
    snapshots : Snapshots
        Where the states are kept.
    revoked : callable
        Says whether the group has moved on since this member settled its tasks.
    """

    def __init__(
        self, chain: Chain, settings: Settings, telemetry: Telemetry, snapshots: Snapshots, revoked: Callable[[], bool]
    ) -> None:
        self._chain = chain
        self._runtime = settings.runtime
        self._telemetry = telemetry
        self._snapshots = snapshots
        self._revoked = revoked
        self._group = consumer_group(chain.name, chain.scope)
        self._mark = ProgressMark(settings.alpha_panda_home, process_name(chain.name, chain.scope))

    def wait_ms(self, running: Running) -> int:
        """Give the milliseconds until something of this task is due to be committed."""
        if running.is_opening:
            return IDLE_POLL_MS
        run, runtime, now = running.run, self._runtime, time.monotonic()
        since_commit, since_forward = (now - running.committed_at) * 1000, (now - running.forwarded_at) * 1000
        waits = [float(IDLE_POLL_MS)]
        if run.has_events:
            waits.append(runtime.commit_interval_ms - since_commit)
        if run.owes_watermark:
            every_ms = runtime.commit_interval_ms if run.is_waited_for else runtime.watermark_interval_ms
            waits.append(every_ms - since_forward)
        if run.live and run.session is not None and run.now_ns != watermark_of(running.positions):
            waits.append(runtime.offsets_interval_ms - since_commit)
        return max(0, round(min(waits)))

    async def flush(self, running: Running, *, last: bool = False) -> None:
        """Commit what a task has said and where it stands, if that is anything new; keep its state now and then.

        Parameters
        ----------
        last
            Whether the task ends here.

        Raises
        ------
        CommitTimedOut
            If Kafka did not finish in time.
        TaskFenced
            If another process runs this task now, though the group has not moved on.
        """
        run = running.run
        if last:
            await self._snapshots.settled(run.task)
        run.forward()
        outputs, positions = run.take_outputs(), run.positions()
        if not outputs and positions == running.positions and not last:
            return
        await asyncio.sleep(0)  # here, and below, other work has its turn between what takes a millisecond each
        writing = self._snapshots.begin(run, last=last)
        if writing is not None:
            await asyncio.sleep(0)
        running.inner.expect(outputs)
        running.committed_at = running.forwarded_at = begun = time.monotonic()
        try:
            await self._commit_in_time(running, outputs, positions)
        except (ProducerFenced, InvalidProducerEpoch) as cause:
            running.lost = True
            if self._revoked():
                return  # it is dropped when the group has settled
            raise fenced(running) from cause
        running.positions = positions
        if writing is not None:
            self._snapshots.publish(run.task, writing)
            if last:
                await self._snapshots.settled(run.task)
        if run.now_ns > running.begun_ns:  # what every start commits again is no progress
            self._mark.got_on()
        self._telemetry.commit_took(self._chain.name, self._chain.scope, time.monotonic() - begun)
        await asyncio.sleep(0)
        await self._tell(running, outputs)

    async def prove(self, running: Running) -> bool:
        """Say whether a task is still this process's, by committing once more where it stood last.

        Raises
        ------
        CommitTimedOut
            If Kafka did not finish in time.
        """
        if not running.lost:
            try:
                await self._commit_in_time(running, (), running.positions)
            except (ProducerFenced, InvalidProducerEpoch):
                running.lost = True
        return not running.lost

    async def _commit_in_time(
        self, running: Running, outputs: Sequence[Output], positions: Mapping[TopicPartitionKey, Committed]
    ) -> None:
        limit_ms = self._runtime.transaction_timeout_ms
        try:
            async with asyncio.timeout(limit_ms / 1000):
                await self.commit(running.producer, outputs, positions)
        except TimeoutError as cause:
            raise CommitTimedOut(
                f"{running.run.task}: Kafka did not finish a transaction in {limit_ms} ms; this process ends and its "
                "successor goes on from the last commit"
            ) from cause

    async def commit(
        self,
        producer: AIOKafkaProducer,
        outputs: Sequence[Output],
        positions: Mapping[TopicPartitionKey, Committed],
    ) -> None:
        """Commit outputs and positions in one transaction."""
        records = ((o.topic, o.partition, value_of(o.event), o.headers) for o in outputs)
        offsets = {TopicPartition(*key): encode_position(p) for key, p in positions.items()}
        await commit_together(producer, records, offsets, self._group)

    async def _tell(self, running: Running, outputs: Sequence[Output]) -> None:
        """Report what is on the log now."""
        running.run.spans.committed()
        said, now_s = [output for output in outputs if output.event.event_type != "watermark"], time.time()
        running.last_outputs_s |= dict.fromkeys((output.topic for output in said), now_s)
        events, topics = [output.event for output in said], {output.topic for output in outputs}
        for first in range(0, len(events), _TOLD_IN_A_TURN):
            self._telemetry.committed(events[first : first + _TOLD_IN_A_TURN])
            await asyncio.sleep(0)
        for service in self._chain.services:
            if any(topic.name in topics for topic in service.outputs):
                self._telemetry.active(service.name, self._chain.scope)
        for latency in running.arrivals.committed(events, running.run.now_ns, now_s):
            told = self._telemetry.signal_latency if latency.of == "signal" else self._telemetry.order_latency
            told(latency.broker, latency.seconds)
            longest_s, at_s = running.latencies_s.get(latency.topic, (0.0, 0.0))
            running.latencies_s[latency.topic] = (max(latency.seconds, longest_s if at_s == now_s else 0.0), now_s)


def fenced(running: Running) -> TaskFenced:
    """Say of a task that it is another process's."""
    return TaskFenced(
        f"{running.run.task}: another process runs this task now (transactional id taken over); this one ends"
    )
