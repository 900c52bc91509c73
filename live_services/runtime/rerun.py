"""What becomes of a re-run that did not come to what was committed: the log decides, record by record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import structlog

from live_services.adapters.kafka import StoredRecord, read_topic
from live_services.adapters.progress_marks import process_name
from live_services.domain.log import TaskId
from live_services.domain.topics import all_topics
from live_services.next_steps import to_type
from live_services.runtime.failures import DayDiffers
from live_services.runtime.handover import TopicPartitionKey
from live_services.runtime.said import LogRecord, first_difference
from live_services.runtime.task import TaskRun
from live_services.settings import KafkaSettings

_log: Final = structlog.get_logger("application")

_DIGITS: Final = 19  # of a time in 64 bits
_PARTITIONED: Final = frozenset(topic.name for topic in all_topics() if topic.per_market_partition)


def compared_partitions(run: TaskRun) -> tuple[TopicPartitionKey, ...]:
    """Name what is to be read for `settle`: the task's partitions of topics on which it said something, or would."""
    names = sorted({*run.committed_said.counts, *run.said.kept})
    return tuple((name, partition_of(run.task, name)) for name in names)


def partition_of(task: TaskId, topic: str) -> int:
    """Give the partition of a topic on which a task says what it says."""
    return task.partition if topic in _PARTITIONED else 0


async def settle_by_kafka(run: TaskRun, kafka: KafkaSettings) -> None:
    """Do as `settle` does, with the session's part of the log read from Kafka."""
    begin_ns = run.session.open_ns if run.session is not None else 0
    log = {
        name: [
            LogRecord(record.offset, record.value)
            async for record in read_topic(kafka, name, partition)
            if not _is_before(record, begin_ns)
        ]
        for name, partition in compared_partitions(run)
    }
    settle(run, log)


def _is_before(record: StoredRecord, begin_ns: int) -> bool:
    """Whether a record says that it is of an earlier session: topics are kept for ever, and a day is looked at."""
    said = dict(record.headers).get("event_time_ns", b"")
    return said.isdigit() and len(said) <= _DIGITS and int(said) < begin_ns


def settle(run: TaskRun, log: Mapping[str, Iterable[LogRecord]]) -> None:
    """Let a task whose re-run came to another digest go live if the log says the same all the same.

    Parameters
    ----------
    run : TaskRun
        One that ``differs``.
    log : mapping of str to iterable of LogRecord
        By topic, the records of each of the `compared_partitions`, in order.

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
