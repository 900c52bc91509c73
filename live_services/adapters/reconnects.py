"""Waits between attempts to connect to a broker that is away; aiokafka has the backoff of requests only.

Kafka's own clients call it ``reconnect.backoff.ms`` (https://kafka.apache.org/documentation/#producerconfigs). Without
it a transaction's short backoff is that of its connections too: a broker that is away is asked for two hundred times a
second by every task, each with a line in the log.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiokafka.client import AIOKafkaClient

FIRST_SECONDS: Final = 0.05
LONGEST_SECONDS: Final = 1.0


class Reconnects:
    """Asks for a connection to a broker, later and later the more often it failed.

    Parameters
    ----------
    connect : callable
        Gives a connection to a node of a group of connections, a new one if there is none; None if it failed.
    first_seconds, longest_seconds
        The wait after the first failure, which doubles with each, and the longest one.
    """

    def __init__(
        self,
        connect: Callable[..., Awaitable[Any]],
        *,
        first_seconds: float = FIRST_SECONDS,
        longest_seconds: float = LONGEST_SECONDS,
    ) -> None:
        self._connect = connect
        self._first_seconds = first_seconds
        self._longest_seconds = longest_seconds
        self._waits_s: defaultdict[Any, float] = defaultdict(float)
        self._not_before: dict[Any, float] = {}
        self._locks: defaultdict[Any, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def __call__(self, node_id: Any, **which: Any) -> Any:
        """Give a connection, or None; while the node is away it is asked for by one caller at a time."""
        if node_id not in self._not_before:
            return self._note(node_id, await self._connect(node_id, **which))
        async with self._locks[node_id]:
            if node_id in self._not_before:
                await asyncio.sleep(self._not_before[node_id] - time.monotonic())
            return self._note(node_id, await self._connect(node_id, **which))

    def _note(self, node_id: Any, found: Any) -> Any:
        if found is not None:
            self._not_before.pop(node_id, None)
            self._waits_s.pop(node_id, None)
            return found
        wait_s = min(max(2 * self._waits_s[node_id], self._first_seconds), self._longest_seconds)
        self._waits_s[node_id], self._not_before[node_id] = wait_s, time.monotonic() + wait_s
        return None


def reconnect_slowly(client: AIOKafkaClient) -> None:
    """Let a client of aiokafka wait before it connects again to a node that was away."""
    client._get_conn = Reconnects(client._get_conn)
