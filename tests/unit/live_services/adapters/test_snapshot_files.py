"""A snapshot takes its place when it is published, and what this code did not write whole is passed over."""

from __future__ import annotations

from pathlib import Path

import pytest

from live_services.adapters.snapshot_files import SnapshotFiles
from live_services.domain.log import TaskId

TASK = TaskId("strategy_runner", "shared", 1)


@pytest.fixture
def files(tmp_path: Path) -> SnapshotFiles:
    return SnapshotFiles(tmp_path / "snapshots", "this code")


def test_the_one_before_stands_until_the_next_is_published(files: SnapshotFiles) -> None:
    assert files.read(TASK) is None
    files.write(TASK, {"at": 1})
    assert files.read(TASK) is None
    files.publish(TASK)
    files.write(TASK, {"at": 2})
    assert files.read(TASK) == {"at": 1}
    files.publish(TASK)
    assert files.read(TASK) == {"at": 2}


def test_what_another_process_did_not_publish_is_cleared_away_and_never_written_into(
    files: SnapshotFiles, tmp_path: Path
) -> None:
    left = tmp_path / "snapshots" / "shared.strategy_runner.1.999999999.next"
    files.write(TASK, {"at": 1})
    left.write_bytes(b"half of a snapshot")
    files.publish(TASK)
    assert left.read_bytes() == b"half of a snapshot"
    assert files.read(TASK) == {"at": 1}
    assert not left.exists()


def test_each_task_has_its_own(files: SnapshotFiles) -> None:
    files.write(TASK, {"at": 1})
    files.publish(TASK)
    assert files.read(TaskId("strategy_runner", "shared", 0)) is None


def test_a_forgotten_one_is_gone(files: SnapshotFiles) -> None:
    files.write(TASK, {"at": 1})
    files.publish(TASK)
    files.forget(TASK)
    files.forget(TASK)
    assert files.read(TASK) is None


def test_other_code_does_not_go_on_from_it(files: SnapshotFiles, tmp_path: Path) -> None:
    files.write(TASK, {"at": 1})
    files.publish(TASK)
    other = SnapshotFiles(tmp_path / "snapshots", "other code")
    assert other.read(TASK) is None
    assert other.read(TASK, of_other_code=lambda state: state["at"] == 1) == {"at": 1}
    assert other.read(TASK, of_other_code=lambda state: state["at"] == 2) is None


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04 and no more"])
def test_a_damaged_one_is_passed_over(files: SnapshotFiles, tmp_path: Path, content: bytes) -> None:
    files.write(TASK, {"at": 1})
    files.publish(TASK)
    (path,) = (tmp_path / "snapshots").iterdir()
    path.write_bytes(content)
    assert files.read(TASK) is None


def test_a_file_of_another_task_is_passed_over(files: SnapshotFiles, tmp_path: Path) -> None:
    files.write(TASK, {"at": 1})
    files.publish(TASK)
    (path,) = (tmp_path / "snapshots").iterdir()
    path.rename(path.with_name("shared.strategy_runner.0.npz"))
    assert files.read(TaskId("strategy_runner", "shared", 0)) is None
