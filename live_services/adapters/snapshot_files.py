"""The newest snapshot of each task, kept on this machine: a restart goes on from it, and without it only takes longer.

A snapshot is written beside the one before and takes its place once the positions that it belongs to are committed. So
what stands there is never later than the log. What another code wrote, and what is damaged, is passed over.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import structlog

from live_services.adapters.snapshot_bytes import pack_into, unpack_from
from live_services.domain.log import TaskId
from live_services.domain.snapshot import CorruptSnapshot, Tree

_log = structlog.get_logger("application")


class SnapshotFiles:
    """One file for each task, in one folder.

    Parameters
    ----------
    folder : Path
        Made when the first snapshot is written; for this user only.
    code : str
        Digest of the code that runs: only its own snapshots are read.
    """

    def __init__(self, folder: Path, code: str) -> None:
        self._folder: Final = folder
        self._code: Final = code

    def write(self, task: TaskId, tree: Tree) -> int:
        """Write a snapshot beside the one before; give its size in bytes.

        Raises
        ------
        OSError
            If there is no room, or no right to write.
        TypeError
            If the tree cannot be written: a mistake of the code.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with self._next(task).open("wb") as file:
            pack_into(file, {"code": self._code, "task": str(task), "state": tree})
            return file.tell()

    def publish(self, task: TaskId) -> None:
        """Let what `write` wrote last take its place; its positions are committed."""
        os.replace(self._next(task), self._path(task))  # noqa: PTH105 (said as what it is: one step)

    def read(
        self, task: TaskId, *, of_other_code: Callable[[Mapping[str, Any]], bool] = lambda _: False
    ) -> Mapping[str, Tree] | None:
        """Give a task's snapshot; None if there is none that this code can go on from.

        Parameters
        ----------
        of_other_code : callable
            Says of one that other code wrote, by what it holds, whether it will do; default: none will.
        """
        path = self._path(task)
        for left in set(self._folder.glob(f"{path.stem}.*.next")) - {self._next(task)}:  # by processes before this one
            left.unlink(missing_ok=True)
        try:
            with path.open("rb") as file:
                whole = unpack_from(file)
            if not isinstance(whole, Mapping) or whole.get("task") != str(task):
                raise CorruptSnapshot("it is not of this task")
            if not isinstance(state := whole.get("state"), Mapping):
                raise CorruptSnapshot("it holds no state")
            if whole.get("code") != self._code and not of_other_code(state):
                raise CorruptSnapshot("other code wrote it")
        except FileNotFoundError:
            return None
        except (CorruptSnapshot, OSError) as failure:
            again = "the session is run again from its open"
            _log.warning("snapshot_passed_over", task=str(task), path=str(path), reason=str(failure), consequence=again)
            return None
        return state

    def forget(self, task: TaskId) -> None:
        """Take a task's snapshot away, so that the session is run again from its open."""
        self._path(task).unlink(missing_ok=True)

    def _path(self, task: TaskId) -> Path:
        return self._folder / f"{task.scope}.{task.service}.{task.partition}.npz"

    def _next(self, task: TaskId) -> Path:
        # A process that was fenced may still write: it does not write into its successor's file.
        return self._path(task).with_suffix(f".{os.getpid()}.next")
