"""A snapshot only makes a restart shorter: one that cannot be taken or read ends nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import structlog

from feature_store.features.engine import StateMismatch
from feature_store.market.types import SECOND_NS
from live_services.adapters.snapshot_files import SnapshotFiles
from live_services.domain.events import StrategiesDifferenceAccepted, self_caused
from live_services.domain.snapshot import CorruptSnapshot, Tree
from live_services.runtime.chain import Chain
from live_services.runtime.failures import RuntimeFailure
from live_services.runtime.local import MemoryTask
from live_services.runtime.service import Opening
from live_services.runtime.snapshots import Snapshots
from live_services.services.session_history import HistoryChanged
from tests.toy_chain import StrategyState, ToyStrategy, toy_market


class Odd(ToyStrategy):
    """Fails on its snapshots."""

    failure: Exception | None = None

    def snapshot(self, state: StrategyState) -> Tree:
        if self.failure is not None:
            raise self.failure
        return super().snapshot(state)

    def restore(self, opening: Opening[StrategyState], kept: Any) -> StrategyState:
        assert self.failure is not None
        raise self.failure


def task_with(service: Odd) -> MemoryTask:
    task = MemoryTask(lambda: Chain("toy_strategy", (service,)), toy_market(SECOND_NS))
    for key in task.next:
        task.fetch(key, 20)
    task.step()
    task.commit()
    return task


def test_a_state_that_cannot_be_written_down_is_said_and_trading_goes_on(tmp_path: Path) -> None:
    service = Odd()
    task, files = task_with(service), SnapshotFiles(tmp_path, "this code")
    service.failure = KeyError("a state that nobody foresaw")
    with structlog.testing.capture_logs() as lines:
        assert Snapshots(files).begin(task.run, last=True) is None
    assert [line["event"] for line in lines] == ["snapshot_not_written"]


async def test_a_tree_that_cannot_be_packed_is_said_and_takes_no_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, files = task_with(Odd()), SnapshotFiles(tmp_path, "this code")
    snapshots = Snapshots(files)
    monkeypatch.setattr(ToyStrategy, "snapshot", lambda _self, _state: {"seen": float("nan"), "n": 10**5000})
    with structlog.testing.capture_logs() as lines:
        writing = snapshots.begin(task.run, last=True)
        assert writing is not None
        snapshots.publish(task.run.task, writing)
        await snapshots.settled(task.run.task)
    assert [line["event"] for line in lines] == ["snapshot_not_written"]
    assert files.read(task.run.task) is None


async def test_while_a_snapshot_is_being_written_no_other_is_begun(tmp_path: Path) -> None:
    task, files = task_with(Odd()), SnapshotFiles(tmp_path, "this code")
    snapshots = Snapshots(files)
    writing = snapshots.begin(task.run, last=True)
    assert writing is not None
    snapshots.publish(task.run.task, writing)
    assert snapshots.begin(task.run, last=True) is None
    await snapshots.settled(task.run.task)
    assert files.read(task.run.task) is not None
    another = snapshots.begin(task.run, last=True)
    assert another is not None
    await another


@pytest.mark.parametrize("failure", [StateMismatch("of other feature code"), ZeroDivisionError(), KeyError("field")])
def test_what_a_state_of_other_code_makes_a_service_meet_is_a_corrupt_snapshot(failure: Exception) -> None:
    service = Odd()
    task = task_with(service)
    task.keep()
    service.failure = failure
    with pytest.raises(CorruptSnapshot, match=type(failure).__name__):
        task.kill()


def test_what_would_end_a_run_from_the_open_as_well_ends_the_process_by_its_name() -> None:
    service = Odd()
    task = task_with(service)
    task.keep()
    service.failure = HistoryChanged("the bars are others by now")
    with pytest.raises(RuntimeFailure, match="the bars are others"):
        task.kill()


async def test_what_other_code_wrote_will_do_up_to_where_a_person_let_it_stand_and_no_further(tmp_path: Path) -> None:
    task = task_with(Odd())
    writing = Snapshots(SnapshotFiles(tmp_path, "other code"))
    taken = writing.begin(task.run, last=True)
    assert taken is not None
    writing.publish(task.run.task, taken)
    await writing.settled(task.run.task)
    mine, committed = Snapshots(SnapshotFiles(tmp_path, "this code")), next(iter(task.committed.values()))
    assert await mine.of(task.run.task, committed, None) is None
    assert await mine.of(task.run.task, committed, let_stand_at(task, task.run.now_ns)) is not None
    assert await mine.of(task.run.task, committed, let_stand_at(task, task.run.now_ns - 1)) is None
    task.run.said.accept(accepted := let_stand_at(task, task.run.now_ns))
    taken = writing.begin(task.run, last=True)
    assert taken is not None
    writing.publish(task.run.task, taken)
    await writing.settled(task.run.task)
    assert await mine.of(task.run.task, committed, accepted) is None


def let_stand_at(task: MemoryTask, at_ns: int) -> StrategiesDifferenceAccepted:
    return StrategiesDifferenceAccepted(
        **self_caused("difference_accepted", at_ns),
        event_time_ns=at_ns,
        session_date="2026-01-05",
        task=str(task.run.task),
        outputs_digest="of what was said",
        taken_as_said={},
        accepted_by="a test",
        accepted_at_ns=1,
        reason="it is meant",
    )
