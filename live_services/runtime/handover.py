"""What a task hands over: its outputs, the positions committed with them, and what its successor goes on from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from live_services.adapters.spans import trace_headers
from live_services.domain.events import TASK_HEADER, DifferenceAccepted, Event, headers_of
from live_services.domain.letters import FloodLimits
from live_services.domain.log import TaskId
from live_services.domain.sequence import Stamp
from live_services.runtime.letters import NotUnderstood
from live_services.runtime.merge import BEGINNING_NS
from live_services.runtime.said import NOTHING_SAID, SaidSoFar

TopicPartitionKey = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Output:
    """An event on its way to a partition."""

    topic: str
    partition: int
    event: Event
    control_of: TaskId | None = None
    """The task whose control record this is."""
    traceparent: str = ""
    """Of the span that it belongs to; empty if it is not traced."""
    stamp: Stamp | None = None
    """Its place in what the task says on a topic that is numbered."""

    @property
    def headers(self) -> list[tuple[str, bytes]]:
        """With which it goes to Kafka."""
        headers = [*headers_of(self.event), *trace_headers(self.traceparent)]
        if self.control_of is not None:
            headers.append((TASK_HEADER, str(self.control_of).encode()))
        if self.stamp is not None:
            headers.append(self.stamp.header)
        return headers


@dataclass(frozen=True, slots=True)
class Resume:
    """What a predecessor left: everything before ``watermark_ns`` was handled and its outputs are on the log."""

    watermark_ns: int
    begin_ns: int = BEGINNING_NS
    """Open of the session that it was in. What came before it is passed over."""
    control: tuple[Event, ...] = ()
    """The task's own control records of the session, up to the watermark."""
    said: SaidSoFar = NOTHING_SAID
    """What was said up to the watermark, which the re-run has to come to as well."""
    snapshot: Mapping[str, Any] | None = None
    """`live_services.runtime.written_task` of the same session at that watermark or before, to go on from."""
    numbers: Mapping[str, int] = field(default_factory=dict)
    """By topic that is numbered: of its last record of the session that it was in."""
    flood: FloodLimits | None = None
    """When dead letters are a flood in the session that it was in, whatever the settings say by now."""
    foreign: tuple[NotUnderstood, ...] = ()
    """What stands among its control records under the task's name and is not its own: it is passed over."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What a commit says of one input partition."""

    offset: int
    """Of the first record not wholly handled."""
    watermark_ns: int
    session_open_offset: int
    session_open_ns: int
    said: SaidSoFar = NOTHING_SAID
    """What the task has said in the session."""
    numbers: Mapping[str, int] = field(default_factory=dict)
    """By topic that is numbered: of the task's last record of the session."""
    flood: FloodLimits | None = None
    """When dead letters are a flood in the session; None before the first one."""


def is_of_session(kept: Mapping[str, Any], newest: Committed) -> bool:
    """Whether a snapshot is of the session that was committed last, and not later than that commit."""
    _, open_ns, _ = kept["session"]
    return bool(open_ns == newest.session_open_ns and kept["now_ns"] <= newest.watermark_ns)


def is_let_stand(kept: Mapping[str, Any], accepted: DifferenceAccepted | None) -> bool:
    """Whether a snapshot that other code wrote is of what a person let stand, so that it is nearest to it.

    Behind that the new code's own word counts: what another code made of it since is held against the log again.
    """
    try:
        return (
            accepted is not None
            and bool(kept["now_ns"] <= accepted.event_time_ns)
            and bool(kept["said"]["begun_with"] != accepted.event_id)
        )
    except (KeyError, TypeError):  # other code, another form
        return False
