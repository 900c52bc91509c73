"""Dead letters as they stand on Kafka, and the one order in which people decide on them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Final, Self

from aiokafka import TopicPartition
from aiokafka.errors import InvalidProducerEpoch, ProducerFenced

from live_services.adapters.kafka import (
    StoredRecord,
    commit_together,
    read_committed,
    start_producer,
    topic_partitions,
    transactional_producer,
)
from live_services.adapters.look_back import records_between
from live_services.domain.events import (
    DeadLetter,
    DeadLetterDecided,
    Event,
    RecordHandedIn,
    event_or_none,
    headers_of,
    topic_of,
    value_of,
)
from live_services.domain.topics import DLQ_DECISIONS, all_topics, transactional_id
from live_services.failures import CommandFailed
from live_services.settings import KafkaSettings

_TRANSACTION_MS: Final = 10_000


class DecidedMeanwhile(CommandFailed):
    """Somebody else began to decide on dead letters at the same time; nothing of this decision is on the log."""


async def stored_letters(kafka: KafkaSettings, topics: Sequence[str]) -> AsyncGenerator[DeadLetter, None]:
    """Give the dead letters of topics, each topic in order; a letter that was written twice comes once.

    Whoever stops before the end closes it (``contextlib.aclosing``).

    Parameters
    ----------
    topics
        Names of topics of dead letters; those that this Kafka does not have hold none.

    Raises
    ------
    KafkaSetupError
        If Kafka does not answer, or does not give them.
    """
    known: set[str] = set()
    async with aclosing(_records(kafka, topics)) as records:
        async for record in records:
            event = event_or_none(record.value)
            if isinstance(event, DeadLetter) and event.event_id not in known:
                known.add(event.event_id)
                yield event


async def decisions_made(kafka: KafkaSettings) -> dict[str, DeadLetterDecided]:
    """Give the decision on each letter by its id: the first one on the log.

    Raises
    ------
    KafkaSetupError
        If Kafka does not answer, or does not give them.
    """
    made: dict[str, DeadLetterDecided] = {}
    async for record in _records(kafka, [DLQ_DECISIONS.name]):
        event = event_or_none(record.value)
        if isinstance(event, DeadLetterDecided):
            made.setdefault(event.letter_id, event)
    return made


async def count_open(kafka: KafkaSettings, at_most: int) -> int:
    """Count the letters that nobody has decided on, but no further than so many.

    Raises
    ------
    KafkaSetupError
        If Kafka does not answer, or does not give them.
    """
    made, count = await decisions_made(kafka), 0
    async with aclosing(stored_letters(kafka, [topic.dlq for topic in all_topics()])) as letters:
        async for letter in letters:
            count += letter.event_id not in made
            if count == at_most:
                break
    return count


async def _records(kafka: KafkaSettings, topics: Sequence[str]) -> AsyncGenerator[StoredRecord, None]:
    """Give the committed records of topics of one partition, as far as there are such topics."""
    await topic_partitions(kafka, [])  # says in words that no broker answers
    consumer = read_committed(kafka)
    await consumer.start()
    try:
        there = await consumer.topics()
        ours = [TopicPartition(name, 0) for name in topics if name in there]
        begins, ends = await consumer.beginning_offsets(ours), await consumer.end_offsets(ours)
        for partition in ours:
            if ends[partition] > begins[partition]:
                consumer.assign([partition])
                async for record in records_between(consumer, partition, begins[partition], ends[partition]):
                    yield record
    finally:
        await consumer.stop()


class LetterDecisions:
    """Whoever decides on dead letters: entering it fences everybody else who does, so what it reads stays so.

    A decision and what it hands in are one transaction, so there is neither without the other.
    """

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._producer = transactional_producer(kafka, transactional_id("dlq", "shared", 0), _TRANSACTION_MS)

    async def __aenter__(self) -> Self:
        await start_producer(self._producer)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._producer.stop()

    async def made(self) -> dict[str, DeadLetterDecided]:
        """Give the decisions there are; while nobody fences this one, there will be no others."""
        return await decisions_made(self._kafka)

    async def decide(self, decided: Sequence[DeadLetterDecided], command: RecordHandedIn | None = None) -> None:
        """Put decisions on the log, with the command that hands a record in if there is one.

        Raises
        ------
        DecidedMeanwhile
            If somebody else has begun to decide since this one was entered.
        aiokafka.errors.KafkaError
            If it could not be delivered.
        """
        said: list[Event] = [*decided, *([command] if command is not None else [])]
        records = [(topic_of(event).name, 0, value_of(event), headers_of(event)) for event in said]
        try:
            await commit_together(self._producer, records, {}, "")
        except (ProducerFenced, InvalidProducerEpoch) as failure:
            raise DecidedMeanwhile(
                "somebody else decided on dead letters at the same moment, so nothing was decided here; look again"
            ) from failure
