"""A chain: services that one task hosts, so that what one says is handled by the next within the same step.

An inner edge is a topic that one of the services produces and another one reads: its events are delivered in memory,
after the same check as a record from Kafka, and go to their topic all the same. Only the other inputs are consumed.
A service alone is a chain of one. The engine drives the very same object without a log.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from feature_store.market.types import Session, Universe
from live_services.domain.account.trading_states import TradingStates
from live_services.domain.clock import NEVER_NS
from live_services.domain.events import DeadLetter, Event, Watermark, topic_of
from live_services.domain.log import (
    NOWHERE,
    EventRecord,
    LogPosition,
    MarketSlice,
    Readiness,
    Record,
    StrategyRuntime,
    TaskId,
)
from live_services.domain.snapshot import CorruptSnapshot, Tree
from live_services.domain.topics import MARKET_BARS, MARKET_TICKS, Scope, Topic
from live_services.runtime.failures import NotSaid, RuntimeFailure, WrongShape
from live_services.runtime.service import (
    Input,
    KeepsConfiguration,
    MayBeHalted,
    Opening,
    RunsStrategies,
    Service,
    WarmsUp,
)


class WrongTopic(Exception):
    """A record on a topic where it does not belong."""


class UndeclaredOutput(Exception):
    """An output for a topic that the service does not name: a mistake of the code, not of a record."""


@dataclass(frozen=True, slots=True)
class Failed:
    """What a service failed on."""

    service: Service[Any]
    error: Exception
    at_ns: int
    what: Literal["record", "control", "command", "slice", "timer", "watermark"]
    """record     an event; the service's state is as it was.
    control    a control record of the task's own.
    command    what a person asked.
    slice      rows of the market.
    timer      what the service said was due.
    watermark  what the service does with one."""
    record: Record | None = None
    """Of a timer and a watermark there is none."""
    silenced: bool = False
    """It is the last one: the service's timers and watermarks are left out until the session's end."""


Bury = Callable[[Failed], None]
"""What becomes of it."""
Say = Callable[[Event], object]
"""Takes an event as soon as it came to be, before the chain goes on."""


_ENDS: Final = (RuntimeFailure, UndeclaredOutput, WrongTopic)
"""What ends the process by its name: mistakes of the code, and what a restart is to begin with."""
_MOST_IN_A_ROW: Final = 100  # failures of a service's timers or watermarks: then it would fail for ever


def check_place(event: Event, topic: Topic) -> None:
    """Check that an event may stand on a topic: its broker, and that it belongs there.

    Raises
    ------
    WrongTopic
        Says where it belongs.
    """
    if event.broker != topic.scope:
        raise WrongTopic(f"an event of {event.broker} on {topic.name}, which is {topic.scope}'s")
    if isinstance(event, Watermark) or (event.TOPIC is None and not isinstance(event, DeadLetter)):
        return
    if isinstance(event, DeadLetter) or (belongs := topic_of(event)) != topic:
        place = "a DLQ" if isinstance(event, DeadLetter) else belongs.name
        raise WrongTopic(f"{event.event_type} on {topic.name}; it belongs on {place}")


@dataclass(slots=True)
class ChainState:
    """The states of a chain's services for one session, in the chain's order."""

    session: Session
    universe: Universe
    of: list[Any]
    failures: dict[int, int] = field(default_factory=dict)
    """Of timers and watermarks in a row, by the place of the service."""
    silenced: set[int] = field(default_factory=set)
    """Places of services whose timers and watermarks are left out until the session's end."""


class Chain:
    """Services in the order in which an event runs through them.

    Parameters
    ----------
    name : str
        Of the process: in its consumer group and its transactional ids.
    services : sequence of Service
        At least one; they are opened from the last to the first, so that each may look at those behind it.
    silent : collection of Topic
        What a stage would say that is skipped: nobody produces it, and nothing waits for it.
    """

    def __init__(self, name: str, services: Sequence[Service[Any]], *, silent: Collection[Topic] = ()) -> None:
        self.name: Final = name
        self.services: Final = tuple(services)
        self.scope: Final[Scope] = services[0].scope
        self.single_task: Final = services[0].single_task
        self.outputs: Final = tuple(dict.fromkeys(t for service in services for t in service.outputs))
        reads = [one for service in services for one in service.inputs]
        said = {topic.name for topic in (*self.outputs, *silent)}
        inner = said & {one.topic.name for one in reads if one.role == "gating"}
        self.inner: Final = frozenset(inner)
        """Names of the topics that are delivered in memory."""
        last = {topic.name for topic in self.outputs if not topic.watermarked}
        own = last | {one.topic.name for one in reads if one.role == "control"}
        self.watched: Final = self.inner | (own if self.single_task else frozenset())
        """Names of the topics that it alone writes: the inner ones, what it says last, and its control topic."""
        outer = dict.fromkeys(one for one in reads if one.topic.name not in inner)
        # At one instant the market comes before everything else.
        self.inputs: Final[tuple[Input, ...]] = tuple(sorted(outer, key=lambda one: one.topic not in _MARKET))
        self._readers: dict[str, tuple[int, ...]] = {
            # The last first: who writes the books has taken an event before those who read them do.
            name: tuple(k for k, s in reversed([*enumerate(services)]) if any(i.topic.name == name for i in s.inputs))
            for name in {one.topic.name for one in reads}
        }
        self._topics: dict[str, Topic] = {one.topic.name: one.topic for one in reads}
        self._declared = [frozenset(service.outputs) for service in services]
        self._due = tuple((k, service.due_ns) for k, service in enumerate(services))
        self._inside: dict[tuple[int, type[Event], Scope], tuple[int, ...]] = {}
        """Readers in the chain of what a service says, by its place, the event's type and broker."""
        self.bury: Bury | None = None
        """What becomes of what a service fails on; None: the failure is raised."""

    # --- a session ------------------------------------------------------------------------------------------------

    async def prepare(self, task: TaskId, control: Sequence[Event]) -> None:
        """Get every service ready."""
        for service in self.services:
            await service.prepare(task, control)

    def open_session(
        self, session: Session, universe: Universe, task: TaskId, before: ChainState | None = None
    ) -> ChainState:
        """Build the states at a session's open, from those of the session before if there are any."""
        state = ChainState(session, universe, [None] * len(self.services))
        opened: dict[str, Any] = {}
        for k in reversed(range(len(self.services))):
            service, own = self.services[k], before.of[k] if before is not None else None
            state.of[k] = service.open_session(Opening(session, universe, task, own, opened))
            opened[service.name] = state.of[k]
        return state

    def snapshot(self, state: ChainState) -> Tree:
        """Write the states down; None if one of the services keeps none."""
        pairs = zip(self.services, state.of, strict=True)
        kept = {service.name: service.snapshot(own) for service, own in pairs}
        return None if None in kept.values() else kept

    def restore(self, session: Session, universe: Universe, task: TaskId, kept: Any) -> ChainState:
        """Build the states that `snapshot` wrote down, in the order in which they are opened.

        Raises
        ------
        CorruptSnapshot
            If they are not the states of these services.
        """
        names = [service.name for service in self.services]
        if not isinstance(kept, Mapping) or sorted(kept) != sorted(names):
            raise CorruptSnapshot(f"it is not of {', '.join(names)}")
        state = ChainState(session, universe, [None] * len(self.services))
        opened: dict[str, Any] = {}
        for k in reversed(range(len(self.services))):
            service = self.services[k]
            state.of[k] = service.restore(Opening(session, universe, task, chain=opened), kept[service.name])
            opened[service.name] = state.of[k]
        return state

    def commands(self, state: ChainState, now_ns: int) -> Iterator[Event]:
        """Give the services' control events."""
        for service, own in zip(self.services, state.of, strict=True):
            yield from service.commands(own, now_ns)

    def commanded(self, record: EventRecord, state: ChainState, now_ns: int) -> Iterator[Event]:
        """Give the services' answers to a command."""
        for k in self._readers.get(record.position.topic, ()):
            try:
                yield from self.services[k].commanded(record, state.of[k], now_ns)
            except _ENDS:
                raise
            except Exception as error:
                self._failed(Failed(self.services[k], error, now_ns, "command", record))

    def flooded(self, letter: DeadLetter, reason: str, state: ChainState, now_ns: int) -> Iterator[Event]:
        """Give what the services stop with when too many records could not be handled."""
        for service, own in zip(self.services, state.of, strict=True):
            yield from service.flooded(letter, reason, own, now_ns)

    def readiness(self, state: ChainState) -> Readiness | None:
        """Say which instruments are WARMING; None for a chain without features."""
        for service, own in zip(self.services, state.of, strict=True):
            if isinstance(service, WarmsUp):
                return service.readiness(own)
        return None

    def strategies(self, state: ChainState | None) -> tuple[StrategyRuntime, ...]:
        """Say what its services run of each strategy on each rung."""
        states = state.of if state is not None else [None] * len(self.services)
        pairs = zip(self.services, states, strict=True)
        return tuple(one for s, own in pairs if isinstance(s, RunsStrategies) for one in s.strategies(own))

    def settings_wait(self, state: ChainState) -> tuple[str, ...]:
        """Say what the settings would change from the next session on."""
        pairs = zip(self.services, state.of, strict=True)
        return tuple(line for s, own in pairs if isinstance(s, KeepsConfiguration) for line in s.settings_wait(own))

    def trading_states(self, state: ChainState) -> TradingStates | None:
        """Say what is in force of who may trade; None for a chain that nobody can halt."""
        for service, own in zip(self.services, state.of, strict=True):
            if isinstance(service, MayBeHalted):
                return service.trading_states(own)
        return None

    def promise(self, state: ChainState, now_ns: int) -> int:
        """Watermark that may be forwarded on the chain's topics after ``advance(now_ns)``."""
        services = zip(self.services, state.of, strict=True)
        promised = (s.promise(own, now_ns) for s, own in services if any(t.watermarked for t in s.outputs))
        return min(promised, default=now_ns)

    # --- records and timers ---------------------------------------------------------------------------------------

    def handle(self, record: Record, state: ChainState, now_ns: int, say: Say) -> None:
        """Deliver a record from outside; says every event that comes of it, in the order in which they came to be."""
        if isinstance(record, MarketSlice):
            self._market(record, state, say)
        else:
            self.handle_together((record,), state, now_ns, say)

    def handle_together(self, records: Iterable[EventRecord], state: ChainState, now_ns: int, say: Say) -> None:
        """Deliver events from outside one after the other, none of which makes anything due before ``now_ns``."""
        self.fire_before(state, now_ns, say)
        for record in records:
            self._deliver(record, self._readers.get(_place(record), ()), state, now_ns, say)

    def handle_control(self, record: EventRecord, state: ChainState, say: Say) -> None:
        """Deliver a control record of this task's own."""
        readers, at_ns = self._readers.get(_place(record), ()), record.event.event_time_ns
        self._deliver(record, readers, state, at_ns, say, what="control")

    def advance(self, state: ChainState, now_ns: int, say: Say) -> None:
        """Fire every timer before the watermark, then tell the services of it."""
        self.fire_before(state, now_ns, say)
        for k, service in enumerate(self.services):
            if k not in state.silenced:
                self._guarded(k, service.advance, "watermark", state, now_ns, say)

    def fire_before(self, state: ChainState, limit_ns: int, say: Say) -> int:
        """Fire the timers that are due before an instant, earliest first, at one instant in the chain's order.

        Returns
        -------
        int
            The instant of the next one; `NEVER_NS` if there is none.
        """
        own, silenced = state.of, state.silenced
        while True:
            place, earliest_ns = -1, NEVER_NS
            for k, due in self._due:
                if k in silenced:
                    continue
                try:
                    due_ns = due(own[k])
                except Exception as error:
                    silenced.add(k)  # nobody knows what else of it is due
                    self._failed(Failed(self.services[k], error, state.session.open_ns, "timer", silenced=True))
                    continue
                if due_ns < earliest_ns:
                    place, earliest_ns = k, due_ns
            if earliest_ns >= limit_ns:
                return earliest_ns
            self._guarded(place, self.services[place].fire, "timer", state, earliest_ns, say)

    def _guarded(  # noqa: PLR0917
        self,
        k: int,
        act: Callable[[Any, int], Iterable[Event]],
        what: Literal["timer", "watermark"],
        state: ChainState,
        at_ns: int,
        say: Say,
    ) -> None:
        """Let a service do what is due; one that fails again and again at it is left out until the session's end."""
        try:
            said = act(state.of[k], at_ns)
            if said != ():
                self._spread(k, said, state, NOWHERE, say)
        except _ENDS:
            raise
        except Exception as error:
            state.failures[k] = state.failures.get(k, 0) + 1
            if is_last := state.failures[k] >= _MOST_IN_A_ROW:
                state.silenced.add(k)
            self._failed(Failed(self.services[k], error, at_ns, what, silenced=is_last))
        else:
            if state.failures:
                state.failures.pop(k, None)

    def _failed(self, failed: Failed) -> None:
        if self.bury is None:
            raise failed.error
        self.bury(failed)

    def _market(self, record: MarketSlice, state: ChainState, say: Say) -> None:
        """Deliver the market up to each instant at which something happens, so that its consequences come in time."""
        times, row, rows = record.times_ns, 0, len(record)
        readers = self._readers[record.position.topic]
        last_ns = times.item(rows - 1) if rows else 0
        while row < rows:
            due_ns = self.fire_before(state, times.item(row), say)
            end = rows if due_ns >= last_ns else int(times.searchsorted(due_ns, side="right"))
            for k in readers:
                try:
                    answer = self.services[k].first_answer(record, row, state.of[k])
                except Exception as error:
                    self._failed(Failed(self.services[k], error, times.item(row), "slice", record.part(row, end)))
                    continue
                if answer < end:
                    end = int(times.searchsorted(times[answer], side="right"))
            part, part_ns = record if end - row == rows else record.part(row, end), times.item(end - 1)
            for k in readers:
                try:
                    said = self.services[k].handle(part, state.of[k], part_ns)
                    if said != ():
                        self._spread(k, said, state, record.position, say)
                except _ENDS:
                    raise
                except Exception as error:
                    self._failed(Failed(self.services[k], error, part_ns, "slice", part))
            row = end

    # --- edges ----------------------------------------------------------------------------------------------------

    def _deliver(
        self,
        record: EventRecord,
        readers: tuple[int, ...],
        state: ChainState,
        now_ns: int,
        say: Say,
        *,
        what: Literal["record", "control"] = "record",
    ) -> None:
        for k in readers:
            service = self.services[k]
            try:
                said = service.handle(record, state.of[k], now_ns)
                if said != ():  # most records are only taken
                    self._spread(k, said, state, record.position, say)
            except _ENDS:
                raise
            except Exception as error:
                self._failed(Failed(service, error, now_ns, what, record))

    def _spread(self, k: int, events: Iterable[Event], state: ChainState, position: LogPosition, say: Say) -> None:
        """Say a service's outputs, each followed by what the chain makes of it."""
        for event in events:
            kind = (k, type(event), event.broker)
            readers = self._inside.get(kind)
            if readers is None:
                readers = self._inside[kind] = self._readers_inside(k, event)
            try:
                say(event)
            except _ENDS:
                raise
            except Exception as error:
                raise NotSaid(f"{event.event_type} {event.event_id} could not be taken: {error!r}") from error
            if readers:
                self._deliver(EventRecord(event, position), readers, state, event.event_time_ns, say)

    def _readers_inside(self, k: int, event: Event) -> tuple[int, ...]:
        """Check that a service may say an event; give the services of the chain that read it."""
        topic = topic_of(event)
        if topic not in self._declared[k]:
            raise UndeclaredOutput(
                f"{self.services[k].name}: {event.event_type} goes to {topic.name}, which is no output of it"
            )
        if topic.name not in self.inner:
            return ()
        check_place(event, self._topics[topic.name])
        return self._readers[topic.name]


def check_shape(chain: Chain, market_partitions: int) -> None:
    """Check that a chain's topics can be merged, and that each of its tasks has a partition of each.

    Raises
    ------
    WrongShape
        Names the topics.
    """
    merged = [i.topic for i in chain.inputs if i.role == "gating"]
    if blind := [t.name for t in merged if not t.merged]:
        raise WrongShape(f"{chain.name}: nobody forwards watermarks on {blind}, so nothing could be merged by them")
    if chain.single_task or market_partitions == 1:
        return
    narrow = [t.name for t in merged if not t.per_market_partition]
    narrow += [t.name for t in chain.outputs if t.watermarked and not t.per_market_partition]
    if narrow:
        raise WrongShape(f"{chain.name} has one task per market partition, but {narrow} have a single partition")


def _place(record: EventRecord) -> str:
    return record.position.topic or topic_of(record.event).name


_MARKET: Final = (MARKET_TICKS, MARKET_BARS)
