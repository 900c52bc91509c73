"""The commands of a chain, read on arrival.

No watermark is waited for, so they come through while the market stalls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Final

from aiokafka import AIOKafkaConsumer, TopicPartition

from live_services.adapters.kafka import read_committed
from live_services.domain.events import Command, decode_event
from live_services.domain.log import EventRecord, LogPosition
from live_services.domain.topics import Topic
from live_services.runtime.chain import WrongTopic, check_place
from live_services.runtime.letters import NotUnderstood
from live_services.runtime.received import Received, received
from live_services.settings import KafkaSettings

_POLL_MS: Final = 200


class Inbox:
    """Follows topics of commands outside the merge and outside the group, from their earliest record.

    What was answered before a restart the task knows from its control records.

    Parameters
    ----------
    kafka : KafkaSettings
    topics : collection of Topic
        Each with one partition; none makes the inbox do nothing.
    """

    def __init__(self, kafka: KafkaSettings, topics: Collection[Topic]) -> None:
        self._kafka = kafka
        self._topics = {topic.name: topic for topic in topics}
        self._partitions = [TopicPartition(name, 0) for name in sorted(self._topics)]
        self._arrived: list[EventRecord | NotUnderstood] = []
        self._consumer: AIOKafkaConsumer | None = None
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Read what is there, so that a task which goes live knows what was commanded meanwhile; follow from there."""
        if not self._partitions:
            return
        self._consumer = read_committed(self._kafka)
        await self._consumer.start()
        ends = await self._consumer.end_offsets(self._partitions)
        self._consumer.assign(self._partitions)
        await self._consumer.seek_to_beginning(*self._partitions)
        while [tp for tp in self._partitions if await self._consumer.position(tp) < ends[tp]]:
            await self._fetch(self._consumer)
        self._following = asyncio.create_task(self._follow(self._consumer), name="inbox")

    def take(self) -> list[EventRecord | NotUnderstood]:
        """Give what came since the last call, in order; raises what ended the inbox, if anything did."""
        if self._following is not None and self._following.done():
            self._following.result()
        arrived, self._arrived = self._arrived, []
        return arrived

    async def stop(self) -> None:
        """End it."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if self._consumer is not None:
            await self._consumer.stop()

    async def _follow(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            await self._fetch(consumer)

    async def _fetch(self, consumer: AIOKafkaConsumer) -> None:
        for records in (await consumer.getmany(timeout_ms=_POLL_MS)).values():
            self._arrived += (command_of(received(record), self._topics[record.topic]) for record in records)


def command_of(record: Received, topic: Topic) -> EventRecord | NotUnderstood:
    """Read a command; what is none of this topic becomes a dead letter in its place, and nobody waits behind it."""
    try:
        event = decode_event(record.value, record.headers)
        check_place(event, topic)
        if not isinstance(event, Command):
            raise WrongTopic(f"{event.event_type} is no command")
    except (WrongTopic, ValueError) as failure:
        return NotUnderstood(record, f"{type(failure).__name__}: {failure}")
    return EventRecord(event, LogPosition(record.topic, record.partition, record.offset))
