"""A real desk dies in the last minute of a real day: from SIGKILL to caught up, with snapshots and without.

    ALPHA_PANDA_TEST_DATA=FOLDER make bench NAME=restart_day

The day of `benchmarks.live_day` is played in two minutes through the services of a desk on a real Kafka. Strategy
runner and account are killed together when the market has a minute to go, and started again at once (the keeper's first
pause, a second, would come on top). They have caught up when their topics have the watermark of the session's end. Then
they are killed once more without their snapshots, and run the whole session again before they are live.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from aiokafka import TopicPartition

from benchmarks.live_day import HOW_TO_ADD_DATA, STRATEGIES, real_data, store_real_day
from benchmarks.live_desk import BenchDesk, Check, all_of, bench_desk
from benchmarks.live_processes import reached_by
from benchmarks.measuring import Figure, at_most, report
from benchmarks.restart import WITH_SECONDS, WITHOUT_SECONDS
from feature_store.market.types import MINUTE_NS, SECOND_NS, Session
from live_services.adapters.kafka import read_committed
from live_services.domain.topics import MARKET_TICKS, broker_topics

_WALL_SECONDS: Final = 120.0
_LONGEST_SECONDS: Final = 300.0
_PAPER: Final = broker_topics("paper")
_SPEAKS_ON: Final = {"strategy_runner": _PAPER.signals_raw.name, "account": _PAPER.pnl_snapshots.name}


def measure(tell: Callable[[str], None]) -> list[Figure]:
    """Play the day once; nothing without the files."""
    data = real_data()
    if data is None:
        tell(HOW_TO_ADD_DATA)
        return []
    with bench_desk(tell, STRATEGIES) as desk:
        tell("a real day: its market and its model")
        session, ticks = store_real_day(desk, data)
        desk.configure([session], speed=(session.close_ns - session.open_ns) / SECOND_NS / _WALL_SECONDS)
        return asyncio.run(_killed_twice(desk, session, f"a real day of {ticks:,} ticks", tell))


async def _killed_twice(desk: BenchDesk, session: Session, day: str, tell: Callable[[str], None]) -> list[Figure]:
    chains = {name: desk.argv(name) for name in _SPEAKS_ON}
    others = {name: desk.argv(name) for name in ("market_feed", "skew_monitor")}
    figures: list[Figure] = []
    with desk.running(others) as (_, others_alive):
        with desk.running(chains) as (first, alive):
            tell(f"{day}, up to its last minute")
            await _reach(desk, [MARKET_TICKS.name], session.close_ns - MINUTE_NS, all_of(alive, others_alive))
            killed = _kill(first)
        with desk.running(chains) as (second, alive):
            tell(f"{day}: back from snapshots")
            reached = await _reach(desk, _SPEAKS_ON.values(), session.close_ns, all_of(alive, others_alive))
            for name, topic in _SPEAKS_ON.items():
                took = reached[topic] - killed
                figures.append(at_most(f"{day}, {name}, from its snapshot", took, "s", WITH_SECONDS))
            lives, killed = _lives(desk), _kill(second)
        shutil.rmtree(desk.home / "snapshots")
        with desk.running(chains) as (_, alive):
            tell(f"{day}: back without snapshots")
            for name, at in (await _live_again(desk, lives, all_of(alive, others_alive))).items():
                figures.append(at_most(f"{day}, {name}, run again", at - killed, "s", WITHOUT_SECONDS))
    return figures


def _kill(processes: Mapping[str, subprocess.Popen[bytes]]) -> float:
    for process in processes.values():
        process.kill()
    return time.monotonic()


async def _reach(desk: BenchDesk, topics: Iterable[str], time_ns: int, check: Check) -> dict[str, float]:
    """Wait until each topic is past a time; give when (`time.monotonic`)."""
    at, deadline = dict[str, float](), time.monotonic() + _LONGEST_SECONDS
    async with read_committed(desk.settings.kafka) as consumer:
        partitions = [TopicPartition(topic, 0) for topic in topics]
        consumer.assign(partitions)
        await consumer.seek_to_beginning(*partitions)
        while len(at) < len(partitions):
            _still_in_time(deadline, check)
            for (topic, _), records in (await consumer.getmany(timeout_ms=20)).items():
                if any(reached_by(record) > time_ns for record in records):
                    at.setdefault(topic, time.monotonic())
    return at


async def _live_again(desk: BenchDesk, lives: Mapping[str, int], check: Check) -> dict[str, float]:
    """Wait until each task of the chains has said once more that it is live; give when (`time.monotonic`)."""
    at, deadline = dict[str, float](), time.monotonic() + _LONGEST_SECONDS
    while len(at) < len(lives):
        _still_in_time(deadline, check)
        for name, count in _lives(desk).items():
            if count > lives[name]:
                at.setdefault(name, time.monotonic())
        await asyncio.sleep(0.05)
    return at


def _still_in_time(deadline: float, check: Check) -> None:
    check()
    if time.monotonic() > deadline:
        raise RuntimeError(f"the desk was not there after {_LONGEST_SECONDS:.0f} s")


def _lives(desk: BenchDesk) -> dict[str, int]:
    """Count how often a task of each chain has said that it is live."""
    lines = (desk.home / "logs" / "application.log").read_text(encoding="utf-8").splitlines()
    said = [json.loads(line)["task"] for line in lines if '"task_is_live"' in line]
    return {name: sum(name in task for task in said) for name in _SPEAKS_ON}


if __name__ == "__main__":
    report("restart_day", measure, ["aiokafka", "numpy", "numba", "pyarrow", "pydantic"])
