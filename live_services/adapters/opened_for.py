"""For which brokers the strategy runner's newest session was opened, as its control records say."""

from __future__ import annotations

from contextlib import aclosing

from live_services.adapters.look_back import newest_first
from live_services.domain.events import StrategiesConfigured, event_or_none
from live_services.domain.sequence import stamp_of
from live_services.domain.topics import STRATEGIES_CONTROL
from live_services.settings import KafkaSettings
from models_registry.specification import Broker


async def brokers_opened_for(kafka: KafkaSettings) -> tuple[Broker, ...]:
    """Name the brokers; none before the first session.

    Raises
    ------
    live_services.adapters.kafka.KafkaSetupError
        If no Kafka answers, or it does not have the topic.
    """
    async with aclosing(newest_first(kafka, STRATEGIES_CONTROL.name)) as records:
        async for record in records:
            stamp = stamp_of(record.headers)
            if stamp is None or stamp.source != STRATEGIES_CONTROL.writer:
                continue  # no runner wrote it
            if isinstance(event := event_or_none(record.value), StrategiesConfigured):
                return event.config.brokers
    return ()
