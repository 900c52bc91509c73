"""Connecting again to a broker that is away."""

from __future__ import annotations

import asyncio
import itertools
import time

from live_services.adapters.reconnects import Reconnects


class Node:
    """A node that is away for the first attempts to connect to it."""

    def __init__(self, away: int) -> None:
        self.attempts_s: list[float] = []
        self._away = away

    async def connect(self, node_id: int, *, group: int = 0) -> str | None:
        self.attempts_s.append(time.monotonic())
        return "connection" if len(self.attempts_s) > self._away else None


async def test_each_failure_doubles_the_wait_up_to_the_longest() -> None:
    node = Node(away=5)
    connect = Reconnects(node.connect, first_seconds=0.01, longest_seconds=0.03)
    while await connect(1, group=0) is None:
        pass
    at_s = node.attempts_s
    waits_s = [later - earlier for earlier, later in itertools.pairwise(at_s)]
    assert all(waited >= wanted for waited, wanted in zip(waits_s, (0.01, 0.02, 0.03, 0.03, 0.03), strict=True))


async def test_many_callers_ask_for_a_node_that_is_away_one_at_a_time_and_share_the_wait() -> None:
    node = Node(away=3)
    connect = Reconnects(node.connect, first_seconds=0.01, longest_seconds=0.01)
    assert await connect(1) is None
    found = await asyncio.gather(*(connect(1) for _ in range(20)))
    assert found.count(None) == 2
    assert node.attempts_s[2] - node.attempts_s[1] >= 0.01


async def test_a_node_that_was_there_is_asked_for_at_once() -> None:
    node = Node(away=0)
    connect = Reconnects(node.connect, first_seconds=60, longest_seconds=60)
    assert [await connect(1) for _ in range(3)] == ["connection"] * 3


async def test_another_node_does_not_wait_for_one_that_is_away() -> None:
    connect = Reconnects(Node(away=1).connect, first_seconds=60, longest_seconds=60)
    assert await connect(1) is None
    assert await connect(2) == "connection"
