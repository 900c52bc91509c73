"""What a service is to the runtime: its inputs, its state for a session, and pure functions over both.

A task merges its inputs by (event time, rank of the input, partition, offset) and hands each record to ``handle`` once
every gating input's watermark has passed its time. ``fire`` is a timer: it comes when everything up to its instant was
handled. ``advance`` comes with each watermark. All outputs carry an event time no earlier than the watermark before.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Generic, Literal, Protocol, TypeVar, runtime_checkable

from feature_store.market.types import Session, Universe
from live_services.domain.account.trading_states import TradingStates
from live_services.domain.clock import NEVER_NS
from live_services.domain.events import DeadLetter, Event
from live_services.domain.log import EventRecord, MarketSlice, Readiness, Record, StrategyRuntime, TaskId
from live_services.domain.snapshot import Tree
from live_services.domain.topics import Scope, Topic

State = TypeVar("State")
"""A service's state for one session of one task."""

Role = Literal["gating", "control", "command"]
"""gating   a record at T waits until this input's watermark has passed T.
control  what this task itself put on the log; read back at a restart, never waited for.
command  what people ask of it; read on arrival, from the earliest record, never waited for."""


@dataclass(frozen=True, slots=True)
class Input:
    """One topic a service reads. The order of the inputs is their rank among equal event times."""

    topic: Topic
    role: Role = "gating"


@dataclass(frozen=True, slots=True)
class Opening(Generic[State]):
    """What a state for a session is made of."""

    session: Session
    universe: Universe
    task: TaskId
    before: State | None = None
    """The service's own state of the session before, if this process has lived through it."""
    chain: Mapping[str, Any] = field(default_factory=dict)
    """States of the services behind this one in its chain, by name, for what it may look at."""


class Service(ABC, Generic[State]):
    """A topic list and a handler. Implementations are in ``live_services/services``; none does IO in a handler.

    What most services need none of has an empty default.
    """

    name: str
    """In its consumer group, its health and its metrics."""
    scope: Scope
    """Whose world it belongs to."""
    inputs: tuple[Input, ...]
    """What it reads, in order of rank."""
    outputs: tuple[Topic, ...]
    """Every topic it produces to; watermarks are forwarded on those that are ``watermarked``."""
    single_task: ClassVar[bool] = False
    """True: one task owns all partitions of all inputs. False: task i owns partition i of each input."""

    async def prepare(self, task: TaskId, control: Sequence[Event]) -> None:
        """Get ready before the first record (load models); ``control`` holds this task's own control records."""

    @abstractmethod
    def open_session(self, opening: Opening[State]) -> State:
        """Build the state at a session's open.

        It may take long: the runtime calls it in a thread, and hands the task no record meanwhile.
        """

    def snapshot(self, state: State) -> Tree:
        """Write the state down; None: it is not kept, and after a restart the session is run again from its open."""
        return None

    def restore(self, opening: Opening[State], kept: Any) -> State:
        """Build the state that `snapshot` wrote down, in a new process; it goes on bit for bit as the one before.

        The states of the services behind this one are in ``opening.chain``, restored already.
        """
        raise NotImplementedError(f"{self.name} gives no snapshot")

    def commands(self, state: State, now_ns: int) -> Iterable[Event]:
        """Give control events effective at ``now_ns``; the runtime logs them first, then handles them."""
        return ()

    def commanded(self, record: EventRecord, state: State, now_ns: int) -> Iterable[Event]:
        """Answer a command with control events effective at ``now_ns``, as `commands` gives them.

        What is to be known of the command after a restart stands in the answer: the first record of
        `live_services.domain.events.AnswersCommands` with the command's offset ends it, and without one it comes again.
        """
        return ()

    def flooded(self, letter: DeadLetter, reason: str, state: State, now_ns: int) -> Iterable[Event]:
        """Stop what must not go on while so many records cannot be handled, by control events effective at ``now_ns``.

        Parameters
        ----------
        letter
            With which the flood began; it is their cause, by which a restart knows that they were said.
        reason
            For people.
        """
        return ()

    @abstractmethod
    def handle(self, record: Record, state: State, now_ns: int) -> Iterable[Event]:
        """Handle one record. ``now_ns`` is its event time (of a slice: that of its last row).

        What comes back may be lazy: each output is delivered along the chain before the next one is asked for.
        """

    def first_answer(self, market: MarketSlice, row: int, state: State) -> int:
        """Give the first row from ``row`` on that it answers to, or the number of rows.

        A chain cuts the market behind the instant of that row, so that what the answer sets going (timers, orders) is
        there before the market goes on.
        """
        return len(market)

    def due_ns(self, state: State) -> int:
        """Give the instant of the next timer; `NEVER_NS` without one."""
        return NEVER_NS

    def fire(self, state: State, at_ns: int) -> Iterable[Event]:
        """Do what is due at ``at_ns``: everything up to and including that instant was handled."""
        return ()

    def advance(self, state: State, now_ns: int) -> Iterable[Event]:
        """Do what the watermark ``now_ns`` makes due: no record with an earlier event time is left."""
        return ()

    def promise(self, state: State, now_ns: int) -> int:
        """Watermark to forward after ``advance(now_ns)``: later than it only if nothing can be said until then.

        The later it is, the less those downstream wait for this service, and the fewer watermarks are forwarded.
        """
        return now_ns


SETTINGS_WAIT: Final = "settings_wait"
"""Logged where a session goes on by the configuration that it was opened with, and the settings say another by now."""


@runtime_checkable
class KeepsConfiguration(Protocol):
    """A service that goes through a session by the configuration that the log says."""

    def settings_wait(self, state: Any, /) -> tuple[str, ...]:
        """Say what the settings would change from the next session on."""
        ...


@runtime_checkable
class WarmsUp(Protocol):
    """A service whose instruments need history before they may be traded."""

    def readiness(self, state: Any, /) -> Readiness:
        """Say which instruments are WARMING."""
        ...


@runtime_checkable
class RunsStrategies(Protocol):
    """A service that scores with models."""

    def strategies(self, state: Any | None, /) -> tuple[StrategyRuntime, ...]:
        """Say what it runs of each strategy on each rung; without a state: what it would run in a session."""
        ...


@runtime_checkable
class MayBeHalted(Protocol):
    """A service that people may forbid to open or to close positions."""

    def trading_states(self, state: Any, /) -> TradingStates:
        """Say what is in force."""
        ...
