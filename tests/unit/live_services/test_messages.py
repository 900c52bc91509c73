"""What a process says last is what a person reads in `status`."""

from __future__ import annotations

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError

from feature_store.proposals.rules import RuleFailed
from live_services.messages import expected_failures, message_of


async def test_a_kafka_that_is_away_is_named_by_its_address_in_words():
    producer = AIOKafkaProducer(bootstrap_servers="127.0.0.1:1")
    with pytest.raises(KafkaConnectionError) as away:
        await producer.start()
    await producer.stop()
    assert isinstance(away.value, expected_failures())
    said = message_of(away.value)
    assert said.startswith("no Kafka broker answers at 127.0.0.1:1 (kafka.bootstrap_servers). Is it running? See `")


def test_a_rule_that_raises_is_said_in_its_own_sentence_and_not_as_a_crash():
    assert isinstance(RuleFailed("the rule raises failed in row 1"), expected_failures())


def test_a_wait_that_took_too_long_says_more_than_the_name_of_its_exception():
    assert message_of(TimeoutError()).startswith("a server, most likely Kafka, did not answer in time. See `")
    assert message_of(TimeoutError("the clock stopped")) == "the clock stopped"


def test_a_broker_that_takes_connections_and_answers_nothing_is_named_as_what_it_is() -> None:
    said = message_of(KafkaError("Unable to get cluster metadata over all known brokers"))
    assert said.startswith("no broker of kafka.bootstrap_servers tells of its cluster. Is Kafka running? See ")
