"""What a transaction of aiokafka sends when, so that no request of it is refused for another one.

A broker lets the transaction's coordinator verify the first records of a transaction on a partition, and its offsets,
before it appends them. It asks in batches, in which a transactional id has one place: a second question takes that
place, and the first one is refused ("one request will be in the map and one will return to the producer", Kafka's
``AddPartitionsToTxnManager``). To the client that is NOT_ENOUGH_REPLICAS of its records or COORDINATOR_NOT_AVAILABLE of
its offsets: it waits, looks for the coordinator again, and repeats the request.
"""

from __future__ import annotations

from typing import Any

from aiokafka import AIOKafkaProducer


def offsets_behind_records(producer: AIOKafkaProducer) -> None:
    """Let a transactional producer commit offsets when the records that it sent are acknowledged, not meanwhile.

    The group is added to the transaction meanwhile, so that it takes no longer.
    """
    sender, transaction = producer._sender, producer._txn_manager
    next_request = sender._maybe_do_transactional_request

    def next_that_is_alone() -> Any:
        offsets_are_next = not transaction.partitions_to_add() and transaction.offsets_to_commit() is not None
        return None if offsets_are_next and sender._in_flight else next_request()

    sender._maybe_do_transactional_request = next_that_is_alone
