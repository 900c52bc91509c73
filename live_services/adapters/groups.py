"""Where a new consumer group begins, and whether those of a desk are there: each commits that as soon as it can."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

import structlog
from aiokafka import TopicPartition

from live_services.adapters.kafka import committed_offsets
from live_services.adapters.market_log import last_watermarks
from live_services.adapters.sessions import MarketSessions
from live_services.domain.clock import session_end_ns, session_of
from live_services.domain.topics import MARKET_BARS, MARKET_TICKS, Topic
from live_services.settings import KafkaSettings

_log = structlog.get_logger("application")

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


async def begins_ns(kafka: KafkaSettings, sessions: MarketSessions) -> int:
    """Give the instant at which a new group begins: the open of the session that is under way.

    If the newest session is over it is that session's end, and -1 if none was told yet.
    """
    newest = sessions.newest()
    if newest is None:
        return -1
    end_ns = session_end_ns(session_of(newest))
    for topic in (MARKET_TICKS, MARKET_BARS):
        reached = await last_watermarks(kafka, topic, sessions)
        if reached and min(reached.values()) >= (newest.session_open_ns, end_ns):
            return end_ns
    return newest.session_open_ns
