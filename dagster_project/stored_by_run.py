"""Keeps what an asset makes by the run that made it, so that no run reads what another writes; nothing is pickled."""

from __future__ import annotations

import shutil
from abc import abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import dagster as dg
from dagster import InputContext, OutputContext, UPathIOManager
from upath import UPath

KEPT_RUNS: Final = 3
"""Runs whose values stay on disk when they are over; those of a run that is not over stay beside them."""


class StoredByRun(UPathIOManager):
    """Values at ``root / asset / run``, written beside and then put in place.

    An input is the value that its own run made (or the run that it was re-executed from); of an asset that the run did
    not make, the one that was materialised last.

    Parameters
    ----------
    root : str
        Folder; each asset has one in it.
    """

    def __init__(self, root: str) -> None:
        super().__init__(UPath(root))

    @abstractmethod
    def write(self, path: Path, value: Any) -> None:
        """Write a value to a path that is not there yet."""

    @abstractmethod
    def read(self, path: Path) -> Any:
        """Read a value that `write` wrote; raises KeyError, TypeError or ValueError if another version wrote it."""

    def get_asset_relative_path(self, context: InputContext | OutputContext) -> UPath:
        """Give the path of a run's value of an asset."""
        run_id = _run_that_made(context) if isinstance(context, InputContext) else context.run_id
        return UPath(*context.asset_key.path, run_id)

    def dump_to_path(self, context: OutputContext, obj: Any, path: UPath) -> None:
        """Write a value, and let go of those of runs long past."""
        target = Path(str(path))
        fresh = target.with_name(f".{target.name}.writing")
        for before in (fresh, target):  # of an attempt before this one
            _remove(before)
        self.write(fresh, obj)
        fresh.rename(target)
        for old in sorted(target.parent.iterdir(), key=lambda one: one.stat().st_mtime_ns)[:-KEPT_RUNS]:
            run = context.step_context.instance.get_run_by_id(old.name.removeprefix(".").partition(".")[0])
            if run is None or run.is_finished:
                _remove(old)

    def load_from_path(self, context: InputContext, path: UPath) -> Any:
        """Read a value.

        Raises
        ------
        dagster.Failure
            If it is not there any more, or another version of this code wrote it.
        """
        what = context.asset_key.to_user_string()
        try:
            return self.read(Path(str(path)))
        except FileNotFoundError as gone:
            raise dg.Failure(
                f"What run {_run_that_made(context)} made of {what} is not there any more: materialise it again.",
                allow_retries=False,
            ) from gone
        except (KeyError, TypeError, ValueError) as strange:  # what a lacking or strange field comes to
            raise dg.Failure(
                f"{what} was written by another version: materialise it again.", allow_retries=False
            ) from strange


def _run_that_made(context: InputContext) -> str:
    made = context.upstream_output
    with suppress(dg.DagsterInvariantViolationError):  # a re-executed run that does not know which run made it
        # Of an asset that the run does not make, Dagster hands over an output of a run that there is not.
        if made is not None and context.instance.has_run(made.run_id):
            return made.run_id
    last = context.instance.get_latest_materialization_event(context.asset_key)
    if last is None:
        raise dg.Failure(
            f"{context.asset_key.to_user_string()} was not materialised yet: materialise it first, or launch the job "
            "that trains the model.",
            allow_retries=False,
        )
    return last.run_id


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
