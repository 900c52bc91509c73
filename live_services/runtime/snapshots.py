"""The states of this process's tasks on this machine, so that a restart goes on from them and not from the open.

A snapshot is taken behind the positions of a commit, written in a thread while that commit is under way and the task
goes on, and takes its place once the commit succeeded: it is never later than the log. Without one, or with one that
cannot be read, a task runs its session again from the open; nothing that it says depends on which of the two it was.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import structlog

from live_services.adapters.snapshot_files import SnapshotFiles
from live_services.domain.events import DifferenceAccepted
from live_services.domain.log import TaskId
from live_services.domain.snapshot import Tree
from live_services.runtime.handover import Committed, is_let_stand, is_of_session
from live_services.runtime.task import TaskRun
from live_services.runtime.written_task import written_task

_log = structlog.get_logger("application")


class Snapshots:
    """Keeps the newest snapshot of each task.

    Parameters
    ----------
    files : SnapshotFiles, optional
        Default: none, and nothing is kept.
    every_seconds : float
        At least so long between two of a task.
    """

    def __init__(self, files: SnapshotFiles | None = None, every_seconds: float = 15.0) -> None:
        self._files = files
        self._every_seconds = every_seconds
        self._taken_at: dict[TaskId, float] = {}
        self._under_way: dict[TaskId, asyncio.Task[None]] = {}

    async def settled(self, task: TaskId) -> None:
        """Wait until what is being written of a task has taken its place."""
        if (under_way := self._under_way.get(task)) is not None:
            await under_way

    def begin(self, run: TaskRun, *, last: bool) -> asyncio.Task[bool] | None:
        """Take a snapshot if one is due, and begin to write it; None if none is due, or the task keeps no state.

        While one is being written no other is due: parts of it may be those of the next one, brought up to date.

        Parameters
        ----------
        last
            Whether the task ends here, so that one is due in any case.
        """
        now = time.monotonic()
        due = now - self._taken_at.setdefault(run.task, now) >= self._every_seconds
        under_way = self._under_way.get(run.task)
        if self._files is None or not (due or last) or (under_way is not None and not under_way.done()):
            return None
        self._taken_at[run.task] = now
        try:
            tree = written_task(run)
        except Exception as failure:  # noqa: BLE001 - as in `_write`
            _say_not_written(run.task, failure)
            return None
        loop_ms = round((time.monotonic() - now) * 1000, 1)
        return None if tree is None else asyncio.create_task(self._write(self._files, run.task, tree, loop_ms))

    async def _write(self, files: SnapshotFiles, task: TaskId, tree: Tree, loop_ms: float) -> bool:
        begun = time.monotonic()
        try:
            size = await asyncio.to_thread(files.write, task, tree)
        except Exception as failure:  # noqa: BLE001 - no room, or a state that cannot be written: trading goes on
            _say_not_written(task, failure)
            return False
        seconds = round(time.monotonic() - begun, 3)
        _log.debug("snapshot_written", task=str(task), bytes=size, seconds=seconds, loop_ms=loop_ms)
        return True

    def publish(self, task: TaskId, writing: asyncio.Task[bool]) -> None:
        """Let what is being written take its place when it is there; its positions are committed."""
        if self._files is not None:
            self._under_way[task] = asyncio.create_task(self._publish(self._files, task, writing))

    async def _publish(self, files: SnapshotFiles, task: TaskId, writing: asyncio.Task[bool]) -> None:
        if not await writing:
            return
        try:
            files.publish(task)
        except OSError as failure:
            _say_not_written(task, failure)

    async def of(
        self, task: TaskId, committed: Committed, let_stand: DifferenceAccepted | None
    ) -> Mapping[str, Tree] | None:
        """Give what a task may go on from behind a commit; None if there is nothing.

        ``let_stand``: what a person let stand last in the session; up to there what other code wrote will do.
        """
        if self._files is None:
            return None
        kept = await asyncio.to_thread(self._files.read, task, of_other_code=partial(is_let_stand, accepted=let_stand))
        try:
            fits = kept is not None and is_of_session(kept, committed)
        except (KeyError, TypeError, ValueError):
            fits = False
        if kept is not None and not fits:
            _log.info("snapshot_passed_over", task=str(task), reason="it is of another session, or behind the log")
        return kept if fits else None

    def forget(self, task: TaskId, why: Any) -> None:
        """Take a snapshot away that cannot be gone on from."""
        _log.warning("snapshot_passed_over", task=str(task), reason=str(why), consequence="its session is run again")
        if self._files is not None:
            self._files.forget(task)


def _say_not_written(task: TaskId, failure: Exception) -> None:
    _log.error("snapshot_not_written", task=str(task), failure=repr(failure), consequence="a restart takes longer")
