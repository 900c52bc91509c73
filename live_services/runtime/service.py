"""What a service is to the runtime: its inputs, its state for a session, and pure functions over both.

The runtime merges a task's inputs by (event time, rank of the input, partition, offset), and calls ``handle`` for each
record whose time every gating input's watermark has passed, then ``advance`` with the new watermark. All outputs carry
an event time no earlier than the watermark before the call.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, Protocol, TypeVar, runtime_checkable

from feature_store.market.types import Session
from live_services.domain.events import Event
from live_services.domain.log import Readiness, Record, TaskId
from live_services.domain.topics import Scope, Topic

State = TypeVar("State")
"""A service's state for one session of one task."""

Role = Literal["gating", "lagged", "control"]
"""gating   a record at T waits until this input's watermark has passed T.
lagged   records of a whole second s are visible to records later than s; a record at T waits until everything up to the
         whole second before T is here, but the watermark is not held back by it. Lagged records produce no outputs.
control  what this task itself put on the log; read back at a restart, never waited for."""


@dataclass(frozen=True, slots=True)
class Input:
    """One topic a service reads. The order of a service's inputs is their rank among equal event times."""

    topic: Topic
    role: Role = "gating"


@runtime_checkable
class WarmsUp(Protocol):
    """A service whose instruments need history before they may be traded."""

    def readiness(self, state: Any, /) -> Readiness:
        """Say which instruments are WARMING."""
        ...


class Service(Protocol, Generic[State]):
    """A topic list and a handler. Implementations are in ``live_services/services``; none does IO in a handler."""

    @property
    def name(self) -> str:
        """Name of the service, in its consumer group and its health."""
        ...

    @property
    def scope(self) -> Scope:
        """Whose world it belongs to."""
        ...

    @property
    def inputs(self) -> tuple[Input, ...]:
        """What it reads, in order of rank."""
        ...

    @property
    def outputs(self) -> tuple[Topic, ...]:
        """Every topic it produces to; watermarks are forwarded on those that are ``watermarked``."""
        ...

    @property
    def single_task(self) -> bool:
        """True: one task owns all partitions of all inputs. False: task i owns partition i of each input."""
        ...

    async def prepare(self, task: TaskId, control: Sequence[Event]) -> None:
        """Get ready before the first record (load models); ``control`` holds this task's own control records."""
        ...

    def open_session(self, session: Session, task: TaskId) -> State:
        """Build the state at a session's open."""
        ...

    def commands(self, state: State, now_ns: int) -> Iterable[Event]:
        """Give control events effective at ``now_ns``; the runtime logs them first, then handles them."""
        ...

    def handle(self, record: Record, state: State, now_ns: int) -> Iterable[Event]:
        """Handle one record. ``now_ns`` is its event time (of a slice: that of its last row)."""
        ...

    def advance(self, state: State, now_ns: int) -> Iterable[Event]:
        """Do what is due by the watermark ``now_ns``: no record with an earlier event time is left."""
        ...

    def promise(self, now_ns: int) -> int:
        """Watermark to forward after ``advance(now_ns)``: later than it only if that instant is done with."""
        ...
