"""A watch over the topics that a chain alone may write: whoever else writes there is heard of, and trades nothing.

What a chain says on an inner topic it has handled already, in memory; it never reads it back. A foreign record there
changes nothing in the account, but everybody who reads the topic takes it for the account's word: so it is an alarm.
So it is on what the chain says last, and on its control topic, which a successor reads.
"""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Collection, Iterable
from typing import Final

import structlog
from aiokafka import AIOKafkaConsumer, TopicPartition

from live_services.adapters.kafka import connection
from live_services.domain.events import DifferenceAccepted, event_or_none
from live_services.domain.log import TaskId
from live_services.runtime.handover import Output
from live_services.runtime.received import Received, received
from live_services.settings import KafkaSettings

_log = structlog.get_logger("application")

_POLL_MS: Final = 200


class InnerWatch:
    """Follows inner topics outside the merge, from the moment at which the predecessor was fenced.

    Parameters
    ----------
    kafka : KafkaSettings
    topics : collection of str
        Each with one partition; none makes the watch do nothing.
    task : TaskId
        Whose they are.
    """

    def __init__(self, kafka: KafkaSettings, topics: Collection[str], task: TaskId) -> None:
        self._kafka = kafka
        self._topics = frozenset(topics)
        self._task = task
        self._expected: Counter[tuple[str, str]] = Counter()
        self._foreign: Counter[str] = Counter()
        self._consumer: AIOKafkaConsumer | None = None
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Stand at the end of the topics, and follow them from there."""
        if not self._topics:
            return
        self._consumer = AIOKafkaConsumer(**connection(self._kafka), isolation_level="read_committed")
        await self._consumer.start()
        partitions = [TopicPartition(topic, 0) for topic in sorted(self._topics)]
        self._consumer.assign(partitions)
        for partition, end in (await self._consumer.end_offsets(partitions)).items():
            self._consumer.seek(partition, end)
        self._following = asyncio.create_task(self._follow(self._consumer), name="inner_watch")

    def expect(self, outputs: Iterable[Output]) -> None:
        """Take note of what this task is about to commit; raises what ended the watch, if anything did."""
        if self._following is not None and self._following.done():
            self._following.result()
        self._expected.update((o.topic, o.event.event_id) for o in outputs if o.topic in self._topics)

    def foreign_on(self, topics: Collection[str]) -> int:
        """Count the records on these topics that this task did not write."""
        return sum(count for topic, count in self._foreign.items() if topic in topics)

    async def stop(self) -> None:
        """End it."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if self._consumer is not None:
            await self._consumer.stop()

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            for records in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
                for record in records:
                    self.look_at(received(record))

    def look_at(self, record: Received) -> None:
        """Take a record that stands on one of the topics: it was expected, or it is an alarm."""
        key = (record.topic, _event_id(record))
        if self._expected[key] > 0:
            self._expected[key] -= 1
            if not self._expected[key]:
                del self._expected[key]
            return
        event = event_or_none(record.value)
        if isinstance(event, DifferenceAccepted) and event.task == str(self._task):  # a person's, for a successor
            _log.info("accept_noted", task=event.task, event_id=event.event_id, by=event.accepted_by)
            return
        self._foreign[record.topic] += 1
        _log.error(
            "foreign_record",
            task=str(self._task),
            topic=record.topic,
            offset=record.offset,
            event_id=key[1],
            consequence="it trades nothing; find out who writes there",
        )


def _event_id(record: Received) -> str:
    if not record.value:  # a watermark
        return dict(record.headers).get("event_id", b"").decode(errors="replace")
    try:
        return str(json.loads(record.value)["event_id"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return ""
