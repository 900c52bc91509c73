"""The runtime on a real Kafka: exactly once across kills, clean stops, and a new group's beginning."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import structlog

from feature_store.market.types import SECOND_NS
from live_services.adapters.groups import groups_begin
from live_services.cli.accepting import accept_task
from live_services.domain.events import Event, SignalGenerated, decode_event
from live_services.domain.log import Record, TaskId
from live_services.domain.topics import MARKET_TICKS, STRATEGIES_CONTROL, consumer_group
from live_services.machine.ports import port_of
from live_services.runtime.chain import Chain
from live_services.runtime.failures import DayDiffers
from live_services.settings import KafkaSettings
from tests.toy_chain import (
    NEXT_SESSION,
    PAPER,
    SESSION,
    StrategyState,
    ToyStrategy,
    toy_account,
    toy_settings,
    toy_snapshots,
    toy_strategy,
)
from tests.toy_desk import (
    COMPARED,
    SIGNALS,
    all_outputs,
    chain_on,
    events,
    feed,
    recreate,
    running,
    start,
    until_ended,
    until_settled,
    until_validated,
)

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]
ROOT = Path(__file__).parents[3]


async def test_frames_of_different_sizes_give_the_same_outputs(kafka: KafkaSettings) -> None:
    whole_seconds = await chain_on(kafka, SECOND_NS)
    assert len(whole_seconds[PAPER.signals_validated.name]) == SIGNALS
    await recreate(kafka)
    odd = await chain_on(kafka, 370_000_000)
    assert odd == whole_seconds


async def test_killed_processes_leave_the_same_log_as_one_that_was_never_killed(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    expected = await chain_on(kafka, SECOND_NS)
    await recreate(kafka)
    feeding = asyncio.create_task(feed(kafka, 250_000_000, pace=0.06))
    for lives in (asyncio.sleep(3.0), until_validated(kafka)):
        child = await start_child(kafka, tmp_path)
        await lives
        os.kill(child.pid, signal.SIGKILL)
        assert await child.wait() == -signal.SIGKILL
    before = len(await events(kafka, PAPER.signals_validated.name))
    child = await start_child(kafka, tmp_path)
    try:
        await until_ended(kafka)
    finally:
        child.terminate()
        exit_code = await asyncio.wait_for(child.wait(), 20)
    await feeding
    assert exit_code == 0
    assert 0 < before < SIGNALS, "the kills came when there was work behind and ahead"
    assert await all_outputs(kafka) == expected


class Otherwise(ToyStrategy):
    """Other code: it scores higher."""

    def handle(self, record: Record, state: StrategyState, now_ns: int) -> Iterator[Event]:
        for event in super().handle(record, state, now_ns):
            assert isinstance(event, SignalGenerated)
            yield event.model_copy(update={"score": event.score + 1})


async def test_code_that_says_otherwise_ends_until_a_person_lets_stand_what_was_said(kafka: KafkaSettings) -> None:
    async with running(kafka, toy_strategy(), toy_account()):
        feeding = asyncio.create_task(feed(kafka, SECOND_NS, pace=0.05))
        await until_validated(kafka)
    await feeding
    await until_settled(kafka, *COMPARED)
    said = await events(kafka, PAPER.signals_raw.name)
    for _ in range(2):
        with pytest.raises(DayDiffers, match=r"paper\.signals\.raw at offset \d+, field score: said"):
            async with asyncio.timeout(30):
                await start(kafka, Chain("toy_strategy", (Otherwise(),)), asyncio.Event())
    settings, task = toy_settings(kafka.bootstrap_servers), TaskId("toy_strategy", "shared", 0)
    accepted = await accept_task(settings, task, MARKET_TICKS, "the higher score is meant")
    assert accepted.taken_as_said[PAPER.signals_raw.name] >= len(said)
    async with running(kafka, Chain("toy_strategy", (Otherwise(),)), toy_account()):
        await until_ended(kafka)
    await until_settled(kafka, *COMPARED)
    signals = await events(kafka, PAPER.signals_raw.name)
    assert signals[: len(said)] == said
    assert len(signals) == SIGNALS > len(said)
    (record,) = (decode_event(value) for value in (await events(kafka, STRATEGIES_CONTROL.name))[1:])
    assert record == accepted


async def start_child(kafka: KafkaSettings, snapshots: Path, stop_seconds: float = 20.0) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.toy_chain",
        kafka.bootstrap_servers,
        str(stop_seconds),
        str(snapshots),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "."},
    )


@contextlib.contextmanager
def hanging(kafka: KafkaSettings) -> Iterator[None]:
    """Stop the broker's process for as long as the block lasts: its connections stand, and nothing answers."""
    broker = psutil.Process(listener_on(port_of(kafka.bootstrap_servers)))
    broker.suspend()
    try:
        yield
    finally:
        broker.resume()


def listener_on(port: int) -> int:
    listening = (c for c in psutil.net_connections("tcp") if c.status == psutil.CONN_LISTEN and c.laddr.port == port)
    return next(c.pid for c in listening if c.pid is not None)


@pytest.mark.parametrize("brokers_hang", [False, True])
async def test_a_stopped_process_ends_and_its_successor_goes_on(
    kafka: KafkaSettings, tmp_path: Path, brokers_hang: bool
) -> None:
    expected = await chain_on(kafka, SECOND_NS)
    await recreate(kafka)
    child = await start_child(kafka, tmp_path, stop_seconds=1.0 if brokers_hang else 20.0)
    groups = [consumer_group(chain.name, chain.scope) for chain in (toy_strategy(), toy_account())]
    for group, topic in zip(groups, (MARKET_TICKS, PAPER.signals_raw), strict=True):
        await groups_begin(kafka, topic, [group], asyncio.Event())
    feeding = asyncio.create_task(feed(kafka, SECOND_NS, pace=0.15))
    await until_validated(kafka)
    with hanging(kafka) if brokers_hang else contextlib.nullcontext():
        child.terminate()
        # Its batch is committed; or it does not wait for brokers that answer nobody, and its successor runs that again.
        assert await asyncio.wait_for(child.wait(), 20) == (1 if brokers_hang else 0)
    assert len(await events(kafka, PAPER.signals_validated.name)) < SIGNALS
    with structlog.testing.capture_logs() as lines:
        async with running(kafka, toy_strategy(), toy_account(), snapshots=toy_snapshots(tmp_path)):
            await feeding
            await until_ended(kafka)
    assert await all_outputs(kafka) == expected
    if not brokers_hang:  # its snapshot is of its last commit
        assert [line["from_snapshot"] for line in lines if line["event"] == "task_taken_over"] == [True, True]


async def test_a_new_group_begins_with_the_session_under_way(kafka: KafkaSettings) -> None:
    """Retained days are not issued as orders when a group is new, also where the next one is still to come."""
    await feed(kafka, SECOND_NS, session=SESSION)
    async with running(kafka, toy_strategy(), toy_account()):
        await feed(kafka, SECOND_NS, session=NEXT_SESSION)
        await until_ended(kafka, NEXT_SESSION)
    for topic, values in (await all_outputs(kafka)).items():
        times = [decode_event(value).event_time_ns for value in values]
        assert times, topic
        assert min(times) >= NEXT_SESSION.open_ns, topic
    assert len(await events(kafka, PAPER.signals_validated.name)) == SIGNALS
