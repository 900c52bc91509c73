"""Apache Kafka: connections, topics, producers of what no task says, and readers of what is on the log.

KafkaSetupError
├── NoBroker          no address is set, or nothing answers there
├── TopicMismatch     a topic exists with another number of partitions
└── TopicNotCreated   the brokers refused to create a topic
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, OffsetAndMetadata, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import (
    GroupCoordinatorNotAvailableError,
    GroupLoadInProgressError,
    IllegalOperation,
    InvalidProducerEpoch,
    KafkaConnectionError,
    KafkaError,
    NotCoordinatorForGroupError,
    ProducerFenced,
    TopicAlreadyExistsError,
    for_code,
)

from live_services.adapters.header_names import accept_any_header_name
from live_services.adapters.reconnects import reconnect_slowly
from live_services.adapters.retention import RETENTION, retention_ms, set_retention
from live_services.adapters.transactions import offsets_behind_records
from live_services.domain.events import Event, headers_of, topic_of, value_of
from live_services.domain.topics import Topic, all_topics
from live_services.next_steps import to_type
from live_services.settings import KafkaSettings, Settings

# With the default of 100 ms the first produce of a transaction often waits that long for the markers of the last one.
_TRANSACTION_RETRY_BACKOFF_MS: Final = 5
# Larger polls make garbage that costs more than it saves.
MAX_POLL_RECORDS: Final = 500
_MAX_FRAME_BYTES: Final = 8 * 1024 * 1024
# A dead letter holds the bytes of any record in base64, a third longer, and must never be what cannot be sent.
_MAX_LETTER_BYTES: Final = 2 * _MAX_FRAME_BYTES
_SENT_IN_A_TURN: Final = 200  # an instant may be thousands of records, and the heartbeat has its turn
_REPLICATION: Final = 3
_NEVER_COMPACTED: Final = {"cleanup.policy": "delete", "retention.bytes": "-1"}  # records have no keys, and each counts
_READ_TIMEOUT_MS: Final = 500
_CREATE_SECONDS: Final = 30.0
_POLL_SECONDS: Final = 0.05
_COORDINATOR_SECONDS: Final = 30.0
NO_COORDINATOR_YET: Final = (GroupCoordinatorNotAvailableError, GroupLoadInProgressError, NotCoordinatorForGroupError)


class KafkaSetupError(Exception):
    """Kafka is not as the platform needs it; the message says what to do."""


class NoBroker(KafkaSetupError):
    """No broker is configured or none answers."""


class TopicMismatch(KafkaSetupError):
    """A topic exists with another number of partitions."""


class TopicNotCreated(KafkaSetupError):
    """The brokers refused to create a topic."""


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """One committed record as it is on the log."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    """Kafka's own, wall clock."""
    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...]


def connection(kafka: KafkaSettings) -> dict[str, Any]:
    """Give the arguments that every aiokafka client of these settings shares; the only place that opens the secret.

    Consumers read a record whatever bytes its header names are, see `live_services.adapters.header_names`.

    Raises
    ------
    NoBroker
        If no address is set.
    """
    if not kafka.bootstrap_servers:
        raise NoBroker(
            f"kafka.bootstrap_servers is empty: start the embedded Kafka ({to_type('up')}) or set the address"
        )
    accept_any_header_name()
    arguments: dict[str, Any] = {
        "bootstrap_servers": kafka.bootstrap_servers,
        "security_protocol": kafka.security_protocol,
    }
    if kafka.security_protocol in ("SSL", "SASL_SSL"):
        arguments["ssl_context"] = ssl.create_default_context(cafile=kafka.ssl_cafile)
    if kafka.security_protocol.startswith("SASL"):
        arguments["sasl_mechanism"] = kafka.sasl_mechanism
        arguments["sasl_plain_username"] = kafka.sasl_username
        arguments["sasl_plain_password"] = kafka.sasl_password.get_secret_value()
    return arguments


# --- topics -------------------------------------------------------------------------------------------------------


def topic_configs(kafka: KafkaSettings, name: str) -> dict[str, str]:
    """Give the configuration with which a topic of the platform is created."""
    largest = _MAX_LETTER_BYTES if name.endswith(".dlq") else _MAX_FRAME_BYTES
    return {**_NEVER_COMPACTED, RETENTION: str(retention_ms(kafka, name)), "max.message.bytes": str(largest)}


async def create_topics(settings: Settings, topics: Iterable[Topic] | None = None) -> tuple[str, ...]:
    """Create the topics that are missing, and their dead-letter topics; give the names of those created.

    Those that are there get the retention of the settings.

    Parameters
    ----------
    topics
        Default: the shared topics and those of the active brokers.

    Raises
    ------
    TopicMismatch
        If a topic exists with another number of partitions.
    TopicNotCreated
        If the brokers refuse.
    """
    wanted = _partitions_by_name(settings, all_topics(settings.active_brokers) if topics is None else topics)
    async with admin_client(settings.kafka) as admin:
        existing = {t["topic"]: len(t["partitions"]) for t in await admin.describe_topics(None)}
        wrong = [
            f"{name} has {existing[name]} partitions instead of {count}"
            for name, count in wanted.items()
            if existing.get(name, count) != count
        ]
        if wrong:
            raise TopicMismatch(
                f"{'; '.join(wrong)}. Set kafka.market_partitions to what exists, or use another Kafka: "
                "instruments have fixed partitions, so topics are not repartitioned"
            )
        brokers = len((await admin.describe_cluster())["brokers"])
        missing = {name: count for name, count in wanted.items() if name not in existing}
        await _create(admin, settings.kafka, missing, min(_REPLICATION, brokers))
        await _until_known(admin, missing)
        await set_retention(admin, settings.kafka, wanted.keys() & existing.keys())
    return tuple(missing)


async def _create(
    admin: AIOKafkaAdminClient, kafka: KafkaSettings, missing: Mapping[str, int], replication: int
) -> None:
    if not missing:
        return
    topics = [
        NewTopic(name, count, replication, topic_configs=topic_configs(kafka, name)) for name, count in missing.items()
    ]
    response = await admin.create_topics(topics)
    for name, code, *message in response.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            raise TopicNotCreated(f"{name}: {error.__name__} {' '.join(str(m) for m in message)}")


async def _until_known(admin: AIOKafkaAdminClient, created: Mapping[str, int]) -> None:
    """Wait until the brokers' metadata shows what was created: the answer to the request comes before that."""
    missing = list(created)
    try:
        async with asyncio.timeout(_CREATE_SECONDS):
            while missing:
                known = {t["topic"]: len(t["partitions"]) for t in await admin.describe_topics(None)}
                if missing := [name for name, count in created.items() if known.get(name) != count]:
                    await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError as cause:
        raise TopicNotCreated(
            f"after {_CREATE_SECONDS:.0f} s Kafka still does not show {', '.join(missing)}"
        ) from cause


def _partitions_by_name(settings: Settings, topics: Iterable[Topic]) -> dict[str, int]:
    wanted: dict[str, int] = {}
    for topic in topics:
        wanted[topic.name] = topic.partitions(settings.kafka.market_partitions)
        wanted[topic.dlq] = 1
    return wanted


@asynccontextmanager
async def admin_client(kafka: KafkaSettings) -> AsyncIterator[AIOKafkaAdminClient]:
    """Run a client that asks for and changes topics and groups for as long as the block lasts.

    Raises
    ------
    NoBroker
        If none answers.
    """
    admin = AIOKafkaAdminClient(**connection(kafka))
    try:
        await admin.start()
    except KafkaConnectionError as cause:
        await admin.close()
        raise NoBroker(
            f"no Kafka broker answers at {kafka.bootstrap_servers} (kafka.bootstrap_servers). Is it running? "
            f"See {to_type('status')}; {to_type('config show')} tells where the address came from"
        ) from cause
    try:
        yield admin
    finally:
        await admin.close()


# --- producing ----------------------------------------------------------------------------------------------------


def transactional_producer(kafka: KafkaSettings, transactional_id: str, timeout_ms: int) -> AIOKafkaProducer:
    """Build (not start) a task's producer; starting it fences the predecessor with the same id."""
    producer = AIOKafkaProducer(
        **connection(kafka),
        transactional_id=transactional_id,
        transaction_timeout_ms=timeout_ms,
        retry_backoff_ms=_TRANSACTION_RETRY_BACKOFF_MS,
        acks="all",
        max_request_size=_MAX_LETTER_BYTES,
    )
    reconnect_slowly(producer.client)
    offsets_behind_records(producer)
    return producer


async def start_producer(producer: AIOKafkaProducer) -> None:
    """Start a producer; one that cannot be started is stopped, so that nothing of it stays open."""
    try:
        await producer.start()
    except BaseException:
        await producer.stop()
        raise


async def commit_together(
    producer: AIOKafkaProducer,
    outputs: Iterable[tuple[str, int, bytes, list[tuple[str, bytes]]]],
    offsets: Mapping[TopicPartition, OffsetAndMetadata],
    group: str,
) -> None:
    """Commit records (topic, partition, value, headers) and a group's offsets in one transaction.

    Raises
    ------
    ProducerFenced, InvalidProducerEpoch
        If a producer with the same transactional id was started after this one.
    aiokafka.errors.KafkaError
        If the transaction failed for another reason.
    """
    sent: list[asyncio.Future[Any]] = []
    try:
        await producer.begin_transaction()
        for topic, partition, value, headers in outputs:
            sent.append(await producer.send(topic, value=value, partition=partition, headers=headers))
            if len(sent) % _SENT_IN_A_TURN == 0:
                await asyncio.sleep(0)
        if offsets:
            await producer.send_offsets_to_transaction(offsets, group)
        await producer.commit_transaction()
        await asyncio.gather(*sent)
    except KafkaError as failure:
        failures = [f.exception() for f in sent if f.done() and not f.cancelled()]
        # aiokafka never reads this future of a transaction that failed; unread it would complain when it is collected.
        waiter = producer._txn_manager.wait_for_transaction_end()
        if waiter is not None and waiter.done():
            waiter.exception()
        fenced = [f for f in failures if isinstance(f, ProducerFenced | InvalidProducerEpoch)]
        # A producer that was fenced between two sends says "not in a transaction" at the second.
        if fenced and isinstance(failure, IllegalOperation):
            raise fenced[0] from failure
        raise


class EventProducer:
    """Idempotent producer of announcements and tools: events only, so nothing without a type and a broker goes out."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._producer = AIOKafkaProducer(
            **connection(kafka), enable_idempotence=True, acks="all", max_request_size=_MAX_FRAME_BYTES
        )

    async def __aenter__(self) -> Self:
        await start_producer(self._producer)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._producer.stop()

    async def produce(self, event: Event, partition: int = 0) -> None:
        """Send an event to the one topic it belongs to and wait until the brokers have it.

        Raises
        ------
        aiokafka.errors.KafkaError
            If it could not be delivered.
        """
        topic = topic_of(event).name
        await self._producer.send_and_wait(topic, value_of(event), partition=partition, headers=headers_of(event))


# --- reading ------------------------------------------------------------------------------------------------------


async def committed_offsets(
    kafka: KafkaSettings, group: str, partitions: Sequence[TopicPartition]
) -> dict[TopicPartition, tuple[int, str]]:
    """Give the committed offset and its metadata of those partitions that have one.

    Waits while no broker can answer for the group: Kafka is new, or a broker has just restarted.

    Raises
    ------
    KafkaSetupError
        If none can after half a minute.
    """
    try:
        async with admin_client(kafka) as admin, asyncio.timeout(_COORDINATOR_SECONDS):
            while True:
                with suppress(*NO_COORDINATOR_YET):
                    found = await admin.list_consumer_group_offsets(group, partitions=list(partitions))
                    # A broker that is still loading names no partition; of one without a commit it says -1.
                    if len(found) == len(partitions):
                        return {tp: (o.offset, o.metadata) for tp, o in found.items() if o.offset >= 0}
                await asyncio.sleep(_POLL_SECONDS)
    except TimeoutError as cause:
        raise KafkaSetupError(
            f"after {_COORDINATOR_SECONDS:.0f} s no broker answers for the group {group}: see the brokers' logs"
        ) from cause


def read_committed(kafka: KafkaSettings) -> AIOKafkaConsumer:
    """Build (not start) a consumer without a group that sees committed records only."""
    consumer = AIOKafkaConsumer(
        **connection(kafka),
        isolation_level="read_committed",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        max_poll_records=MAX_POLL_RECORDS,
        max_partition_fetch_bytes=_MAX_FRAME_BYTES,
    )
    reconnect_slowly(consumer._client)
    return consumer


async def read_topic(
    kafka: KafkaSettings, topic: str, partition: int | None = None, *, first_offset: int = 0
) -> AsyncIterator[StoredRecord]:
    """Give a topic's committed records from its beginning to the end it has now, each partition in order.

    Parameters
    ----------
    partition
        Default: all of them.
    first_offset
        Where to begin in each partition.

    Raises
    ------
    KafkaSetupError
        If the topic does not exist.
    """
    ours = await topic_partitions(kafka, [topic], partition)
    consumer = read_committed(kafka)
    await consumer.start()
    try:
        ends = await consumer.end_offsets(ours)
        consumer.assign(ours)
        begins = await consumer.beginning_offsets(ours)
        for tp in ours:
            consumer.seek(tp, max(begins[tp], first_offset))
        while behind := [tp for tp in ours if await consumer.position(tp) < ends[tp]]:
            fetched = await consumer.getmany(*behind, timeout_ms=_READ_TIMEOUT_MS)
            for records in fetched.values():
                for record in records:
                    if record.offset < ends[TopicPartition(record.topic, record.partition)]:
                        yield stored_record(record)
    finally:
        await consumer.stop()


async def follow(
    kafka: KafkaSettings, topics: Sequence[str], *, from_beginning: bool = False
) -> AsyncIterator[StoredRecord]:
    """Give the committed records of topics as they come, until the caller stops asking.

    Raises
    ------
    KafkaSetupError
        If a topic does not exist.
    """
    ours = await topic_partitions(kafka, topics)
    consumer = read_committed(kafka)
    await consumer.start()
    try:
        consumer.assign(ours)
        await (consumer.seek_to_beginning(*ours) if from_beginning else consumer.seek_to_end(*ours))
        while True:
            fetched = await consumer.getmany(timeout_ms=_READ_TIMEOUT_MS)
            for records in fetched.values():
                for record in records:
                    yield stored_record(record)
    finally:
        await consumer.stop()


async def topic_partitions(
    kafka: KafkaSettings, topics: Sequence[str], partition: int | None = None
) -> tuple[TopicPartition, ...]:
    """Give the partitions that topics have on this Kafka, by default all of them.

    Raises
    ------
    KafkaSetupError
        If a topic does not exist.
    """
    async with admin_client(kafka) as admin:
        known = {t["topic"]: sorted(p["partition"] for p in t["partitions"]) for t in await admin.describe_topics()}
    if missing := [topic for topic in topics if topic not in known]:
        creates = f"{to_type('up')} creates them, a broker's own if it is in ACTIVE_BROKERS"
        raise KafkaSetupError(f"no topic {', '.join(missing)} on this Kafka; {creates}")
    return tuple(TopicPartition(t, p) for t in topics for p in known[t] if partition in (None, p))


def stored_record(record: Any) -> StoredRecord:
    """Give what a consumer fetched as a value of our own."""
    headers = tuple((name, value or b"") for name, value in record.headers)  # Kafka allows null for a value
    place = record.topic, record.partition, record.offset, record.timestamp
    return StoredRecord(*place, record.key, record.value or b"", headers)
