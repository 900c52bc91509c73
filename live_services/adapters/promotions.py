"""Announcing promotions on Kafka, for callers without an event loop: Dagster and the CLI."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiokafka.errors import KafkaError

from live_services.adapters.kafka import EventProducer, KafkaSetupError
from live_services.domain.events import ModelPromoted, event_id
from live_services.settings import KafkaSettings

if TYPE_CHECKING:
    from models_registry.promotion import PromotionRecord

_ANNOUNCE_SECONDS: Final = 10.0
"""A promotion stands without its announcement; a broker that does not answer must not hold anybody for long."""


def promoted_event(record: PromotionRecord) -> ModelPromoted:
    """Build the event that announces a promotion."""
    identity = event_id("model.promoted", record.model_name, record.alias, record.model_version, record.at_ns)
    return ModelPromoted(
        event_id=identity,
        correlation_id=identity,
        causation_id=identity,
        event_time_ns=record.at_ns,
        model_name=record.model_name,
        model_version=record.model_version,
        alias=record.alias,
        previous_version=record.previous_version,
        reason=record.reason,
        promoted_by=record.promoted_by,
    )


def announce_promotion(kafka: KafkaSettings, record: PromotionRecord) -> str | None:
    """Publish ``models.promoted``; give the reason if Kafka is absent or silent, None if it was published.

    A nudge: the ledger decides, and live services poll it anyway.
    """

    async def publish() -> None:
        async with asyncio.timeout(_ANNOUNCE_SECONDS), EventProducer(kafka) as producer:
            await producer.produce(promoted_event(record))

    if not kafka.bootstrap_servers:
        return "no Kafka is set"
    try:
        asyncio.run(publish())
    except (KafkaSetupError, KafkaError, OSError, TimeoutError) as problem:
        return str(problem) or type(problem).__name__
    return None
