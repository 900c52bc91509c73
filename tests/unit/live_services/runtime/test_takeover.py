"""A task whose snapshot cannot be gone on from begins as if there had been none."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from aiokafka import TopicPartition

from live_services.adapters.kafka import StoredRecord
from live_services.adapters.sessions import MarketSessions
from live_services.adapters.snapshot_files import SnapshotFiles
from live_services.adapters.spans import NoTracing
from live_services.adapters.telemetry import NoTelemetry
from live_services.domain.frames import Headers
from live_services.domain.log import TaskId
from live_services.domain.topics import MARKET_SESSIONS, MARKET_TICKS
from live_services.runtime.chain import Chain
from live_services.runtime.committing import Commits
from live_services.runtime.handover import Resume
from live_services.runtime.local import MemoryTask
from live_services.runtime.received import Received
from live_services.runtime.running import Running
from live_services.runtime.service import Opening
from live_services.runtime.snapshots import Snapshots
from live_services.runtime.takeover import TakeOver
from live_services.runtime.written_task import written_task
from live_services.settings import Settings
from tests.toy_chain import OPEN_NS, SECOND_NS, StrategyState, ToyStrategy, toy_market, toy_strategy


class Forgetful(ToyStrategy):
    """Cannot read its state any more."""

    def restore(self, opening: Opening[StrategyState], kept: Any) -> StrategyState:
        raise KeyError("a field that was renamed")


async def test_nothing_of_a_snapshot_that_fails_half_way_stays(tmp_path: Path) -> None:
    log = toy_market(SECOND_NS)
    before = MemoryTask(toy_strategy, log)
    before.fetch((MARKET_TICKS.name, 0), 20)
    before.step()
    before.commit()
    kept: Any = written_task(before.run)
    kept["letters"]["flood"] = {"is_on": True, "times": [OPEN_NS] * 100}
    kept["letters"]["counted"] = {"toy_strategy": 100}
    task, files = TaskId("toy_strategy", "shared", 0), SnapshotFiles(tmp_path, "this code")
    files.write(task, kept)
    files.publish(task)

    run = await _take_over(log.partitions[MARKET_SESSIONS.name, 0], files)._built(
        task,
        {(MARKET_TICKS.name, 0): 0},
        Resume(before.run.now_ns, OPEN_NS, snapshot=kept),
    )

    assert files.read(task) is None
    assert (run.session, run.read_from, dict(run.outputs), run.dead_letters_of("toy_strategy")) == (None, {}, {}, 0)
    assert run._letters._flood.snapshot() == {"is_on": False, "times": []}


def _take_over(told: Any, files: SnapshotFiles) -> TakeOver:
    settings, chain, snapshots = Settings(), Chain("toy_strategy", (Forgetful(),)), Snapshots(files)
    sessions = MarketSessions(settings.kafka)
    for record in told:
        sessions.take(StoredRecord(record.topic, 0, record.offset, 0, None, record.value, record.headers))
    commits = Commits(chain, settings, NoTelemetry(), snapshots, lambda: False)
    return TakeOver(chain, settings, sessions, None, commits, snapshots=snapshots, tracing=NoTracing())


async def test_a_session_that_is_built_while_records_are_taken_is_counted(tmp_path: Path) -> None:
    log = toy_market(SECOND_NS)
    market, sessions = log.partitions[MARKET_TICKS.name, 0], log.partitions[MARKET_SESSIONS.name, 0]
    partition = TopicPartition(MARKET_TICKS.name, 0)
    run = _take_over(sessions, SnapshotFiles(tmp_path, "this code"))._run_of(
        TaskId("toy_strategy", "shared", 0), {(MARKET_TICKS.name, 0): 0}, Resume(-1)
    )
    nobody: Any = None
    running = Running(run, nobody, nobody, nobody, -1, {partition: 0}, {})

    async def learned(_: Headers) -> None:
        """The sessions are told already."""

    for first in range(0, 40, 20):
        await running.take(partition, [_fetched(one) for one in market[first : first + 20]], learned)
        if running._opening is not None:
            await running._opening
    assert (running.openings, run.session is not None) == (1, True)


def _fetched(record: Received) -> SimpleNamespace:
    return SimpleNamespace(timestamp=0, **asdict(record))
