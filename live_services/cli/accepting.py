"""Letting stand what a task said in its session: a control record of its own, which its next start goes by.

The task does not run, or ends at every start, so nobody answers; one that runs and finds no difference passes it over.
"""

from __future__ import annotations

import getpass
import time
import uuid
from typing import Final

import structlog
from aiokafka import TopicPartition

from feature_store.market.types import date_of_day, ist_day, ist_text
from live_services.adapters.kafka import (
    EventProducer,
    committed_offsets,
    read_committed,
    topic_partitions,
)
from live_services.adapters.progress_marks import process_name
from live_services.cli.answers import checked_reason
from live_services.cli.errors import did_you_mean, out
from live_services.domain.events import (
    AccountDifferenceAccepted,
    DifferenceAccepted,
    StrategiesDifferenceAccepted,
    self_caused,
)
from live_services.domain.log import RUNNER, TaskId
from live_services.domain.topics import BROKERS, Topic, consumer_group, market_topic
from live_services.failures import CommandFailed
from live_services.next_steps import to_type
from live_services.runtime.handover import Committed
from live_services.runtime.positions import decode_position
from live_services.runtime.rerun import partition_of
from live_services.services.account import ACCOUNT
from live_services.settings import Settings

_audit: Final = structlog.get_logger("audit")


async def accept_what_was_said(settings: Settings, process: str, reason: str, *, partition: int = 0) -> None:
    """Put on the log that what a process's task said stands, and say what comes of it.

    Raises
    ------
    CommandFailed
        No reason or one that is too long, no such process, or a task that said nothing in a session.
    live_services.adapters.kafka.KafkaSetupError
        If no Kafka answers, or it has no such topics.
    """
    tasks = {process_name(RUNNER, "shared"): TaskId(RUNNER, "shared", partition)}
    tasks |= {process_name(ACCOUNT, broker): TaskId(ACCOUNT, broker, 0) for broker in BROKERS}
    if process not in tasks:
        hint = did_you_mean(process, tasks) or f"choose one of {', '.join(tasks)}"
        raise CommandFailed(f"there is no process {process!r} whose outputs are compared; {hint}")
    accepted = await accept_task(settings, tasks[process], market_topic(settings.market.feed), reason)
    out.print(
        f"{accepted.task}: what it said in the session of {accepted.session_date} up to "
        f"{ist_text(accepted.event_time_ns)} stands. Its next start goes on from there; if it "
        f"was given up, {to_type('up')} starts it.",
        soft_wrap=True,
        markup=False,
    )


async def accept_task(settings: Settings, task: TaskId, market: Topic, reason: str) -> DifferenceAccepted:
    """Put on a task's control topic that what it said up to its last commit stands; gives the record.

    Raises
    ------
    CommandFailed
        No reason or one that is too long, or a task that said nothing in a session.
    live_services.adapters.kafka.KafkaSetupError
        If no Kafka answers, or it has no such topics.
    """
    reason, now_ns = checked_reason(reason), time.time_ns()
    position = await _newest_position(settings, task, market)
    said = {
        "event_time_ns": position.watermark_ns,
        "session_date": date_of_day(ist_day(position.session_open_ns)).isoformat(),
        "task": str(task),
        "outputs_digest": position.said.digest,
        "taken_as_said": await _ends(settings, task, position),
        "accepted_by": getpass.getuser(),
        "accepted_at_ns": now_ns,
        "reason": reason,
    }
    said |= self_caused("difference_accepted", str(task), now_ns, uuid.uuid4().hex)
    event: DifferenceAccepted
    if task.scope == "shared":
        event = StrategiesDifferenceAccepted.model_validate({"event_type": "strategies.difference_accepted"} | said)
    else:
        own = {"event_type": "account.difference_accepted", "broker": task.scope}
        event = AccountDifferenceAccepted.model_validate(own | said)
    async with EventProducer(settings.kafka) as producer:
        await producer.produce(event, task.partition if task.scope == "shared" else 0)
    _audit.info("difference_accepted", **event.model_dump(exclude={"event_type", "schema_version"}))
    return event


async def _newest_position(settings: Settings, task: TaskId, market: Topic) -> Committed:
    group = consumer_group(task.service, task.scope)
    partitions = await topic_partitions(
        settings.kafka, [market.name], task.partition if task.scope == "shared" else None
    )
    if not partitions:
        raise CommandFailed(f"{market.name} has no partition {task.partition}: see kafka.market_partitions")
    committed = await committed_offsets(settings.kafka, group, partitions)
    positions = [decode_position(group, tp, *position) for tp, position in committed.items()]
    newest = max(positions, key=lambda position: position.watermark_ns, default=None)
    if newest is None or not newest.said.digest:
        raise CommandFailed(f"{task} has committed nothing that it said in a session: there is nothing to let stand")
    return newest


async def _ends(settings: Settings, task: TaskId, position: Committed) -> dict[str, int]:
    """Give the offset behind the last record of each topic on which the task said something."""
    consumer = read_committed(settings.kafka)
    await consumer.start()
    try:
        ours = [TopicPartition(topic, partition_of(task, topic)) for topic in position.said.counts]
        ends = await consumer.end_offsets(ours) if ours else {}
    finally:
        await consumer.stop()
    return {tp.topic: end for tp, end in ends.items()}
