"""The order of a transaction's requests."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from live_services.adapters.transactions import offsets_behind_records

RECORDS, OFFSETS = TopicPartition("signals", 0), TopicPartition("market", 0)


@dataclass
class Broker:
    """Answers a producer's requests as well as can be, its records only when it is let, and notes their order."""

    producer: AIOKafkaProducer
    takes_records: asyncio.Event = field(default_factory=asyncio.Event)
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        sender = self.producer._sender
        sender._do_add_partitions_to_txn = self.add_partitions
        sender._do_add_offsets_to_txn = self.add_group
        sender._do_txn_offset_commit = self.commit_offsets

    async def add_partitions(self, partitions: set[TopicPartition]) -> None:
        self.asked.append("partitions")
        for partition in tuple(partitions):
            self.producer._txn_manager.partition_added(partition)

    async def add_group(self, group: str) -> None:
        self.asked.append("group")
        self.producer._txn_manager.consumer_group_added(group)

    async def commit_offsets(self, offsets: dict[TopicPartition, OffsetAndMetadata], group: str) -> None:
        self.asked.append("offsets")
        for partition, one in tuple(offsets.items()):
            self.producer._txn_manager.offset_committed(partition, one.offset, group)

    async def produce(self) -> None:
        """Be a request with records that is under way until it is let through."""
        self.producer._sender._in_flight.add(1)
        await self.takes_records.wait()
        self.asked.append("records")
        self.producer._sender._in_flight.remove(1)


async def test_offsets_follow_the_records_and_the_group_is_added_meanwhile() -> None:
    producer = AIOKafkaProducer(bootstrap_servers="127.0.0.1:9", transactional_id="a task")
    transaction, sender = producer._txn_manager, producer._sender
    offsets_behind_records(producer)
    broker = Broker(producer)
    transaction.set_pid_and_epoch(1, 0)
    transaction.begin_transaction()
    transaction.maybe_add_partition_to_txn(RECORDS)
    committed = transaction.add_offsets_to_txn({OFFSETS: OffsetAndMetadata(7, "")}, "a group")
    await sender._maybe_do_transactional_request()
    producing = asyncio.create_task(broker.produce())
    await asyncio.sleep(0)
    await sender._maybe_do_transactional_request()
    assert sender._maybe_do_transactional_request() is None
    broker.takes_records.set()
    await producing
    await sender._maybe_do_transactional_request()
    assert broker.asked == ["partitions", "group", "records", "offsets"]
    assert committed.done()
    await producer.stop()
