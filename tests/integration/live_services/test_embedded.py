"""Kafka and Valkey of this machine: they start, survive a kill, stop, and leave nothing behind."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import psutil
import pytest
import redis

from live_services.machine.embedded import (
    PortInUse,
    embedded_valkey,
    kafka_answers,
    kafka_spec,
    log_file,
    redis_answers,
    running,
    valkey_spec,
)

pytestmark = pytest.mark.integration


async def _produce(bootstrap_servers: str, value: bytes) -> None:
    from aiokafka import AIOKafkaProducer
    from aiokafka.admin import AIOKafkaAdminClient, NewTopic

    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap_servers)
    await admin.start()
    await admin.create_topics([NewTopic("t", num_partitions=1, replication_factor=1)])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap_servers, transactional_id="x", retry_backoff_ms=5)
    await producer.start()
    async with producer.transaction():
        await producer.send_and_wait("t", value, partition=0)
    await producer.stop()


async def _first_value(bootstrap_servers: str) -> bytes:
    from aiokafka import AIOKafkaConsumer

    consumer = AIOKafkaConsumer(
        "t", bootstrap_servers=bootstrap_servers, auto_offset_reset="earliest", isolation_level="read_committed"
    )
    await consumer.start()
    try:
        record = await asyncio.wait_for(consumer.getone(), 60)
        return record.value
    finally:
        await consumer.stop()


def test_kafka_keeps_a_committed_record_over_sigkill_and_leaves_no_process(tmp_path: Path) -> None:
    spec = kafka_spec(tmp_path / "kafka")
    with running(spec) as process:
        asyncio.run(_produce(spec.endpoint, b"kept"))
        # Readers see it only when the commit's marker is written, which is after the producer's commit returns.
        assert asyncio.run(_first_value(spec.endpoint)) == b"kept"
        process.kill()
        process.wait(10)
        assert not kafka_answers(spec.endpoint)
    with running(spec) as process:
        assert asyncio.run(_first_value(spec.endpoint)) == b"kept"
        pid = process.pid
    assert not psutil.pid_exists(pid)
    assert not kafka_answers(spec.endpoint)


def test_valkey_keeps_keys_over_sigkill(tmp_path: Path) -> None:
    spec = valkey_spec(tmp_path)
    with running(spec) as process:
        client = redis.Redis.from_url(spec.endpoint)
        client.set("k", "v")
        client.close()
        process.kill()
        process.wait(10)
    with running(spec):
        client = redis.Redis.from_url(spec.endpoint)
        assert client.get("k") == b"v"
        client.close()
    assert not redis_answers(spec.endpoint)


def test_a_server_that_dies_at_its_start_shows_its_last_words(tmp_path: Path) -> None:
    with embedded_valkey(tmp_path / "first") as url:
        second = valkey_spec(tmp_path / "second", int(url.rsplit(":", 1)[1].split("/")[0]))
        unanswered = dataclasses.replace(second, ready=lambda: False)  # the first one would answer on that port
        with pytest.raises(PortInUse, match="its port was taken"), running(unanswered):
            pass
    assert log_file(second).exists()
