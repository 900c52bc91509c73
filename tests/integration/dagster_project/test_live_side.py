"""What Dagster says to the live side over Kafka, and what it hears."""

import asyncio
import datetime as dt

import dagster as dg
import pytest

from dagster_project.definitions import definitions, resources
from dagster_project.resources import PromotionAnnouncer
from dagster_project.sensors.live import live_model_observations
from live_services.adapters.kafka import EventProducer, create_topics, read_topic
from live_services.domain.events import ModelLoaded, ModelRefused, decode_event
from live_services.domain.topics import MODELS_PROMOTED
from live_services.settings import KafkaSettings, load_settings
from models_registry.promotion import PromotionRecord

pytestmark = pytest.mark.integration

RECORD = PromotionRecord(
    model_name="momentum",
    model_version="2",
    alias="champion",
    previous_version="1",
    action="promote",
    promoted_by="Asha",
    reason="better",
    override=False,
    at_ns=1_000,
    ledger_number=1,
    feature_schema_hash="f" * 64,
)
_SAID = {
    "correlation_id": "c",
    "causation_id": "c",
    "strategy": "momentum",
    "model_name": "momentum",
    "model_version": "2",
    "rung": "champion",
    "task": "shared.strategy_runner[0]",
}
LOADED = ModelLoaded(event_id="l", event_time_ns=2_000, feature_schema_hash="f" * 64, artifact_sha256="a" * 64, **_SAID)
REFUSED = ModelRefused(event_id="r", event_time_ns=3_000, reason="tampered", running_version="1", **_SAID)


@pytest.fixture
def settings(kafka_servers, tmp_path):
    return load_settings(alpha_panda_home=tmp_path, kafka={"bootstrap_servers": kafka_servers})


def _look(settings, cursor=None):
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(
            instance=instance,
            cursor=cursor,
            resources=resources(settings),
            definitions=definitions(settings, dt.date(2027, 1, 1)),
        )
        return live_model_observations(context)


def _publish(kafka, *events):
    async def publish():
        async with EventProducer(kafka) as producer:
            for event in events:
                await producer.produce(event)

    asyncio.run(publish())


def test_what_the_live_side_says_is_observed_once(settings):
    asyncio.run(create_topics(settings))
    assert isinstance(_look(settings), dg.SkipReason)
    _publish(settings.kafka, LOADED, REFUSED)
    first = _look(settings)
    assert [event.metadata["state"].value for event in first.asset_events] == ["loaded", "REFUSED"]
    assert isinstance(_look(settings, first.cursor), dg.SkipReason)
    _publish(settings.kafka, LOADED)
    assert len(_look(settings, first.cursor).asset_events) == 1


def test_a_promotion_is_announced(settings):
    asyncio.run(create_topics(settings))
    assert PromotionAnnouncer(settings.kafka).announce(RECORD) is None

    async def read():
        return [decode_event(record.value) async for record in read_topic(settings.kafka, MODELS_PROMOTED.name)]

    event = asyncio.run(read())[-1]
    assert (event.model_version, event.previous_version, event.alias) == ("2", "1", "champion")
    assert (event.promoted_by, event.reason) == ("Asha", "better")


@pytest.mark.parametrize("servers", ["", "127.0.0.1:9"])
def test_a_promotion_stands_without_kafka_and_says_so(servers):
    assert PromotionAnnouncer(KafkaSettings(bootstrap_servers=servers)).announce(RECORD)


def test_a_kafka_that_is_gone_is_a_reason_to_skip(tmp_path):
    settings = load_settings(alpha_panda_home=tmp_path, kafka={"bootstrap_servers": "127.0.0.1:9"})
    assert "could not be read" in _look(settings).skip_message
