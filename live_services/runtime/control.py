"""A task's own records on its control topics, as its successor reads them back; whoever else wrote there is told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import structlog

from live_services.domain.events import TASK_HEADER, DifferenceAccepted, Event, NoEvent, decode_event
from live_services.domain.frames import Headers
from live_services.domain.log import TaskId
from live_services.domain.sequence import stamp_of
from live_services.domain.topics import Topic
from live_services.runtime.chain import WrongTopic, check_place
from live_services.runtime.handover import Committed
from live_services.runtime.letters import NotUnderstood
from live_services.runtime.received import Received
from live_services.runtime.said import SaidSoFar

_log = structlog.get_logger("application")


@dataclass(frozen=True, slots=True)
class OwnControl:
    """What stood on a task's control topics for a successor."""

    events: tuple[Event, ...] = ()
    """The task's own of the session, in order."""
    foreign: tuple[NotUnderstood, ...] = ()
    """What stands behind the first of them under the task's name, and cannot be its own."""

    def __add__(self, other: OwnControl) -> OwnControl:
        return OwnControl(self.events + other.events, self.foreign + other.foreign)


def control_of(task: TaskId, topic: Topic, record: Received) -> Event | NotUnderstood | None:
    """Read a control record of a task; None for another's. What no task says there, somebody else wrote."""
    if dict(record.headers).get(TASK_HEADER) != str(task).encode():
        return None
    try:
        event = decode_event(record.value, record.headers)
        check_place(event, topic)
        if event.TOPIC is None:
            raise WrongTopic(f"{event.event_type} is no control record")
    except (NoEvent, WrongTopic) as failure:
        return NotUnderstood(record, f"{type(failure).__name__}: {failure}")
    return event


def own_control(task: TaskId, topic: Topic, records: Iterable[Received], committed: Committed) -> OwnControl:
    """Pick what a task said on a control topic from a session's open up to the committed watermark.

    What a person let stand counts only if the task went on behind it, or has said nothing since: it was typed of one
    difference, and is no word on those that other code brings later. What a former group said, which was lost within
    the session, does not count either: see `number_left_out`.

    Parameters
    ----------
    records : iterable of Received
        The topic's, in order.
    committed : Committed
        The task's newest; of its own nothing is later, for both are committed together.
    """
    events: list[Event] = []
    foreign: list[NotUnderstood] = []
    number = 0  # of the task's next one; or it is later, and Kafka lost what was between
    newest, ours = -1, (topic.writer, committed.session_open_ns)
    for record in records:
        found, stamp, before = control_of(task, topic, record), stamp_of(record.headers), newest
        if found is not None and stamp is not None and stamp[:2] == ours:
            newest = max(newest, stamp.number)
        if found is None or (isinstance(found, Event) and found.event_time_ns < committed.session_open_ns):
            continue
        if isinstance(found, DifferenceAccepted) and not _counts(found, committed.said):
            reason = "the task went on since it was typed"
            _log.warning("accept_passed_over", task=str(task), event_id=found.event_id, reason=reason)
            continue
        if isinstance(found, Event) and (why := _not_own(topic, record, found, committed, number)):
            found = NotUnderstood(record, why)
        if isinstance(found, Event):
            if stamp is not None and stamp.number == before + 2:  # a group began anew behind the hole
                events.clear()
                foreign.clear()
            events.append(found)
            number = number if stamp is None else stamp.number + 1
        elif events:
            foreign.append(found)
    return OwnControl(tuple(events), tuple(foreign))


def number_left_out(topic: Topic, open_ns: int, records: Iterable[Headers]) -> int | None:
    """Give the number that a new group leaves out on a control topic of a session; None if nothing is said there.

    It begins the session again, and by the hole its successors tell what it said from what a former group did, which
    was lost.
    """
    stamps = (stamp_of(headers) for headers in records)
    said = [stamp.number for stamp in stamps if stamp is not None and stamp[:2] == (topic.writer, open_ns)]
    return max(said) + 1 if said else None


def _not_own(topic: Topic, record: Received, event: Event, committed: Committed, number: int) -> str:
    """Say why a task cannot have written a control record of its session, or a person for it; empty if it has."""
    if event.event_time_ns > committed.watermark_ns:
        return f"event time {event.event_time_ns} is after all that the task has said"
    stamp, ours = stamp_of(record.headers), (topic.writer, committed.session_open_ns)
    if isinstance(event, DifferenceAccepted) or (stamp is not None and stamp[:2] == ours and stamp.number >= number):
        return ""
    return f"the task did not write it: it has not the next number, {number}"


def _counts(accepted: DifferenceAccepted, said: SaidSoFar) -> bool:
    """Whether a task went on behind what a person let stand, or has said nothing since."""
    return accepted.event_id == said.begun_with or accepted.outputs_digest == said.digest


def control_behind(control: Iterable[Event], handled: int, now_ns: int) -> list[Event]:
    """Give what of a task's control records is behind a snapshot, in order.

    Parameters
    ----------
    control : iterable of Event
        Of the whole session.
    handled : int
        How many of the task's own had been handled; what a person accepted is not counted, for it may come to stand
        before them later.
    now_ns : int
        Event time that the snapshot stands at.
    """
    left: list[Event] = []
    for event in control:
        if isinstance(event, DifferenceAccepted):
            if event.event_time_ns >= now_ns:
                left.append(event)
        elif handled:
            handled -= 1
        else:
            left.append(event)
    return left
