"""What a Redis that hangs, or is not there, does to a strategy runner: nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import numpy as np
import pytest
from pydantic import SecretStr

from feature_store.features.schema import FeatureSchema
from feature_store.online.blocks import Block
from live_services.adapters import online_features
from live_services.adapters.online_features import OnlinePublisher
from live_services.domain.basis import Stamp
from live_services.domain.events import Event
from live_services.domain.log import LogPosition, MarketSlice, TaskId
from live_services.domain.strategy.asked import Assignment
from live_services.runtime.service import Opening
from live_services.services.strategy_runner import RowSink, StrategyRunner
from live_services.settings import RedisSettings, Settings
from models_registry.specification import StrategySpec
from tests.live_world import MINUTE, OPEN, SESSION, UNIVERSE, loaded_model, random_walk

WALK = random_walk(3, minutes=40, per_minute=20, seed=3)
AT = LogPosition("market.ticks", 0, 0)
DIRECT = (StrategySpec(name="momentum"),)


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_TIMEOUT_SECONDS", "_RETRY_SECONDS", "_LAST_SECONDS"):
        monkeypatch.setattr(online_features, name, 0.05)


@asynccontextmanager
async def stalled_server() -> AsyncIterator[str]:
    """A server that takes connections and bytes and never says anything."""

    async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.read(65_536):
            pass
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()


def settings_of(url: str) -> Settings:
    return Settings(redis=RedisSettings(url=SecretStr(url)), strategies=DIRECT)


def trade(rows: RowSink | None) -> list[Event]:
    """Run a session without ever giving the event loop a turn."""
    runner = StrategyRunner(Settings(strategies=DIRECT), None, Stamp(), rows=rows)  # type: ignore[arg-type]
    state = runner.open_session(Opening(SESSION, UNIVERSE, TaskId("strategy_runner", "shared", 0)))
    state.desk.assign(Assignment(OPEN, "momentum", loaded_model()))
    said: list[Event] = []
    for minute in range(40):
        part = WALK[
            (WALK.event_time_ns >= OPEN + minute * MINUTE) & (WALK.event_time_ns < OPEN + (minute + 1) * MINUTE)
        ]
        said += runner.handle(MarketSlice(part, AT), state, int(part.event_time_ns[-1]))
        said += runner.advance(state, OPEN + (minute + 1) * MINUTE)
    return said


async def until(counts: Counter[str], outcome: str) -> None:
    async with asyncio.timeout(20):
        while not counts[outcome]:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("away", [False, True])
async def test_a_redis_that_hangs_or_is_away_costs_rows_that_are_counted_and_not_one_signal(away: bool) -> None:
    counts: Counter[str] = Counter()
    expected = trade(None)
    assert len(expected) > 10
    async with stalled_server() as url:
        where = "redis://127.0.0.1:1/0" if away else url
        async with OnlinePublisher(settings_of(where), lambda o: counts.update([o])) as rows:
            assert trade(rows) == expected
            assert counts["replaced"] == 39  # of 40 decisions; one block waits
            await until(counts, "failed")
            assert trade(rows) == expected
            assert counts["replaced"] >= 39 + 39
            await until(counts, "failed")
    assert counts["written"] == 0


async def test_a_block_that_failed_gives_way_to_a_newer_one_and_never_to_an_older() -> None:
    schema = loaded_model().schema
    counts: Counter[str] = Counter()
    blocks: list[int] = []

    class Sink:
        def offer(self, schema, block) -> None:  # type: ignore[no-untyped-def]
            self.block = block

    sink = Sink()
    trade(sink)
    async with (
        stalled_server() as url,
        OnlinePublisher(settings_of(url), lambda o: counts.update([o])) as rows,
    ):
        rows.offer(schema, sink.block)
        await until(counts, "failed")
        newer = replace(sink.block, end_ns=sink.block.end_ns + MINUTE)
        rows.offer(schema, newer)
        await until(counts, "replaced")
        blocks = [block.end_ns for _, block in rows._waiting.values()]
        counts.clear()
        await until(counts, "failed")
    assert set(blocks) <= {newer.end_ns}


async def test_without_a_redis_rows_are_offered_to_nobody() -> None:
    counts: Counter[str] = Counter()
    async with OnlinePublisher(Settings(strategies=DIRECT), lambda o: counts.update([o])) as rows:
        trade(rows)
    assert not counts


def empty_block(partition: int, end_ns: int) -> Block:
    none = np.empty(0, dtype=np.int64)
    return Block("of one schema", partition, end_ns, none, none, np.empty(0, dtype=np.bool_), np.empty((0, 1)))


async def test_rows_that_come_while_another_partitions_are_written_are_the_ones_written_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publisher = OnlinePublisher(settings_of("redis://127.0.0.1:1/0"), lambda _outcome: None)
    schema, written = loaded_model().schema, []

    async def write(_client: object, _schema: FeatureSchema, block: Block) -> None:
        written.append((block.partition, block.end_ns))
        if len(written) == 1:
            publisher.offer(schema, empty_block(1, 2))

    monkeypatch.setattr(online_features, "_write", write)
    async with publisher:
        publisher.offer(schema, empty_block(0, 1))
        publisher.offer(schema, empty_block(1, 1))
        await asyncio.sleep(0)
    assert written == [(0, 1), (1, 2)]


async def test_rows_may_be_offered_by_a_step_that_runs_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[int] = []

    async def write(_client: object, _schema: FeatureSchema, block: Block) -> None:
        written.append(block.end_ns)

    monkeypatch.setattr(online_features, "_write", write)
    asyncio.get_running_loop().set_debug(True)  # it then refuses what another thread may not do
    async with OnlinePublisher(settings_of("redis://127.0.0.1:1/0"), lambda _outcome: None) as rows:
        await asyncio.sleep(0)  # the writer waits
        await asyncio.to_thread(rows.offer, loaded_model().schema, empty_block(0, 1))
        async with asyncio.timeout(20):
            while not written:
                await asyncio.sleep(0.01)
    assert written == [1]
