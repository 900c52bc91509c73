"""How long topics keep their records: one setting, given to topics when they are created and to those that are there.

Sessions, configurations, commands, promotions and dead letters stay for ever whatever the setting says: they are few,
and what a day was, or waits for a person, is read from them. A topic's own settings that are not ours stay as they are.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import structlog
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import KafkaError, for_code

from live_services.domain.topics import (
    BROKERS,
    DLQ_DECISIONS,
    MARKET_SESSIONS,
    MODELS_PROMOTED,
    STRATEGIES_CONTROL,
    broker_topics,
)
from live_services.settings import KafkaSettings

_log = structlog.get_logger("application")

RETENTION: Final = "retention.ms"
FOR_EVER: Final = -1
_HOUR_MS: Final = 3_600_000
_LASTING: Final = frozenset(
    topic.name
    for topic in (
        MARKET_SESSIONS,
        STRATEGIES_CONTROL,
        MODELS_PROMOTED,
        DLQ_DECISIONS,
        *(topic for broker in BROKERS for topic in (broker_topics(broker).control, broker_topics(broker).commands)),
    )
)
_SET_ON_THE_TOPIC: Final = 1  # `ConfigSource.TOPIC_CONFIG` of Kafka's DescribeConfigs


def retention_ms(kafka: KafkaSettings, name: str) -> int:
    """Give for how many milliseconds a topic is to keep a record; `FOR_EVER` if it is not to drop any."""
    lasting = name in _LASTING or name.endswith(".dlq")
    return FOR_EVER if lasting or not kafka.retention_hours else kafka.retention_hours * _HOUR_MS


def retention_text(milliseconds: int) -> str:
    """Say a retention in hours, as the setting does."""
    return "for ever" if milliseconds == FOR_EVER else f"{milliseconds / _HOUR_MS:g} h"


async def set_retention(admin: AIOKafkaAdminClient, kafka: KafkaSettings, names: Collection[str]) -> tuple[str, ...]:
    """Give topics that exist the retention of the settings; gives the names of those that had another one.

    A Kafka that does not let this user do it is logged, and preflight says it: trading does not wait for that.
    """
    try:
        own = await described(admin, names, only_own=True)
        wrong = {name: configs for name, configs in own.items() if _of(configs) != retention_ms(kafka, name)}
        if wrong:
            await _alter(admin, {name: c | {RETENTION: str(retention_ms(kafka, name))} for name, c in wrong.items()})
    except KafkaError as problem:
        _log.warning("retention_not_set", reason=repr(problem), consequence="topics keep their records as before")
        return ()
    if wrong:
        _log.info("retention_set", hours=kafka.retention_hours or "for ever", topics=len(wrong))
    return tuple(sorted(wrong))


async def retentions(admin: AIOKafkaAdminClient, names: Collection[str]) -> dict[str, int]:
    """Give for how many milliseconds each topic keeps a record.

    Raises
    ------
    aiokafka.errors.KafkaError
        If Kafka does not say it to this user.
    """
    return {name: _of(configs) for name, configs in (await described(admin, names)).items()}


def _of(configs: Mapping[str, str]) -> int:
    return int(configs.get(RETENTION, 0))


async def described(
    admin: AIOKafkaAdminClient, names: Collection[str], *, only_own: bool = False
) -> dict[str, dict[str, str]]:
    """Give topics' settings by name: all of them, or those that were set on the topic itself.

    Raises
    ------
    aiokafka.errors.KafkaError
        If Kafka does not say them to this user.
    """
    if not names:
        return {}
    asked = [ConfigResource(ConfigResourceType.TOPIC, name) for name in names]
    found: dict[str, dict[str, str]] = {}
    for answer in await admin.describe_configs(asked):
        for code, message, _, name, entries in answer.resources:
            _require(code, message)
            found[name] = {
                key: value or "" for key, value, _, source, *_ in entries if source == _SET_ON_THE_TOPIC or not only_own
            }
    return found


async def _alter(admin: AIOKafkaAdminClient, configs: Mapping[str, Mapping[str, str]]) -> None:
    """Set all settings of topics: the request drops those that it does not name."""
    changed = [ConfigResource(ConfigResourceType.TOPIC, name, configs=dict(own)) for name, own in configs.items()]
    for answer in await admin.alter_configs(changed):
        resources: Iterable[tuple[int, str, Any, Any]] = answer.resources
        for code, message, *_ in resources:
            _require(code, message)


def _require(code: int, message: str | None) -> None:
    if code:
        raise for_code(code)(message or "")
