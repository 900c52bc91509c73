"""What becomes of a re-run that did not come to what was committed: the log decides, record by record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import structlog

from live_services.adapters.progress_marks import process_name
from live_services.next_steps import to_type
from live_services.runtime.failures import DayDiffers
from live_services.runtime.said import LogRecord, first_difference
from live_services.runtime.task import TaskRun

_log: Final = structlog.get_logger("application")


def compared_topics(run: TaskRun) -> tuple[str, ...]:
    """Name the topics to read for `settle`: those on which the task said something, or would say it."""
    return tuple(sorted({*run.committed_said.counts, *run.said.kept}))


def settle(run: TaskRun, log: Mapping[str, Iterable[LogRecord]]) -> None:
    """Let a task whose re-run came to another digest go live if the log says the same all the same.

    Parameters
    ----------
    run : TaskRun
        One that ``differs``.
    log : mapping of str to iterable of LogRecord
        The records of its partition of each of the `compared_topics`, in order.

    Raises
    ------
    DayDiffers
        If it does not; names the first difference, and the command that lets stand what was said.
    """
    if run.session is None:
        run.go_on()
        return
    difference = first_difference(str(run.task), run.session.open_ns, run.said, log)
    if difference is None:
        _log.warning("digest_differs", task=str(run.task), consequence="none: record by record the log says the same")
        run.go_on()
        return
    process = process_name(run.task.service, run.task.scope)
    partition = f" --partition {run.task.partition}" if run.task.partition else ""
    accept = to_type(f'accept {process}{partition} --reason "…"')
    raise DayDiffers(
        f"{run.task}: the session of {run.session.date} was run again and comes to something else than what stands on "
        f"the log. First difference: {difference}. Bring back the code and the data that it was said with; or let what "
        f"was said stand, and go on from what this code comes to, with {accept}"
    )
