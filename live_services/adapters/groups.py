"""Whether the consumer groups of a desk are there: each commits where it begins as soon as it has its partitions."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import structlog
from aiokafka import TopicPartition

from live_services.adapters.kafka import committed_offsets
from live_services.domain.topics import Topic
from live_services.settings import KafkaSettings

_log = structlog.get_logger(__name__)

_LOOK_AGAIN_SECONDS: Final = 0.25
_WAIT_SECONDS: Final = 60.0  # a group whose process cannot start must not hold the market of the others for ever


async def groups_begin(kafka: KafkaSettings, market: Topic, groups: Sequence[str], stop: asyncio.Event) -> None:
    """Wait until every group has a position on the market topic, or a minute; says which one is missing then.

    A new group begins with the session that is under way, so a session must not begin without it.
    """
    partitions = [TopicPartition(market.name, p) for p in range(market.partitions(kafka.market_partitions))]
    deadline = time.monotonic() + _WAIT_SECONDS
    while not stop.is_set():
        missing = [
            group for group in groups if len(await committed_offsets(kafka, group, partitions)) < len(partitions)
        ]
        if not missing:
            return
        if time.monotonic() > deadline:
            _log.warning("groups_missing", groups=missing, consequence="they begin with the session that is under way")
            return
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
