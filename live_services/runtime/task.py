"""One task of a chain of services without its IO: records go in, outputs and positions come out.

Everything that decides what a task says is here and in the merge; the runtime around it only fetches and commits.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final, NamedTuple

import structlog

from feature_store.market.types import MINUTE_NS, Session, Universe
from live_services.adapters.spans import NoSpans, TaskSpans
from live_services.domain.account.trading_states import TradingStates
from live_services.domain.clock import NEVER_NS, session_end_ns, watermark
from live_services.domain.events import AnswersCommands, DeadLetter, DifferenceAccepted, Event, Watermark, topic_of
from live_services.domain.letters import FloodLimits
from live_services.domain.log import EventRecord, LogPosition, MarketSlice, Readiness, StrategyRuntime, TaskId
from live_services.domain.partitions import own_rows
from live_services.domain.topics import Topic
from live_services.runtime.chain import Chain, ChainState, Failed
from live_services.runtime.failures import PromiseBroken, WrongShape
from live_services.runtime.handover import Committed, Output, Resume, TopicPartitionKey
from live_services.runtime.letters import Letters, NotUnderstood
from live_services.runtime.merge import BEGINNING_NS, Item, Merge, Refused, Source
from live_services.runtime.numbers import Numbers
from live_services.runtime.received import Received
from live_services.runtime.reception import Reception, Told, Universes
from live_services.runtime.said import NOTHING_SAID, Said

_log = structlog.get_logger("application")


_OPENS: Final = 1
_CROWD: Final = 100  # proposals: judging, ordering and filling them is 20 ms of work


class _Meeting(NamedTuple):
    """An instant that has to be met exactly, and what is done there; among equal instants in this order."""

    time_ns: int
    order: int
    action: Callable[[], None] | None


class TaskRun:
    """A task from the position it starts at, first run again up to ``resume`` without outputs, then live.

    Parameters
    ----------
    chain, task
        What runs, and which of its tasks this is.
    sources
        The task's gating partitions.
    universes
        What the digests on the market's records mean.
    told
        What was told of sessions. None: the first record of a session is believed.
    starts
        Offset from which each partition is read.
    resume
        None: nothing was ever committed.
    market_partitions
        How many partitions the market has; context that travels in several of them is counted once.
    spans
        Who hears of its work; default: nobody.
    flood
        When its dead letters are one, from the first session on that it opens itself; one that it resumes keeps its
        own. Default: with the numbers that settings have by default.
    opens_apart
        Whether whoever drives it builds the states of a session, which may take long: see `opening`.
    """

    def __init__(
        self,
        chain: Chain,
        task: TaskId,
        sources: Sequence[Source],
        universes: Universes,
        *,
        starts: Mapping[TopicPartitionKey, int],
        resume: Resume | None = None,
        told: Told | None = None,
        market_partitions: int = 1,
        spans: TaskSpans | None = None,
        flood: FloodLimits | None = None,
        opens_apart: bool = False,
    ) -> None:
        self.task: Final = task
        self.sources: Final = tuple(sources)
        self.merge: Final = Merge(sources)
        self.spans: Final = spans or NoSpans()
        self.session: Session | None = None
        self.now_ns = BEGINNING_NS
        self.read_from: dict[TopicPartitionKey, int] = {}
        """Where a snapshot says that partitions are to be read from, instead of from ``starts``."""
        self.records_handled = 0
        self.outputs: Counter[tuple[str, str]] = Counter()
        """By topic and type."""
        self.opening: Callable[[], ChainState] | None = None
        """Builds the states of the session that it stands before; it waits for them, see `opened`."""
        self._opens_apart = opens_apart
        self._chain, self._market_partitions = chain, market_partitions
        self._topics = {i.topic.name: i.topic for i in chain.inputs} | {t.name: t for t in chain.outputs}
        resume = resume or Resume(BEGINNING_NS)
        self.numbers: Final = Numbers(self._topics.values(), resume.numbers)
        self._flood: Final = flood or FloodLimits()
        self._letters = Letters(task, self._topics, resume.flood or self._flood)
        self._control_topics = {i.topic.name for i in chain.inputs if i.role == "control"}
        self._reception = Reception(
            self.merge,
            self._letters,
            self._topics,
            universes,
            told=told,
            spans=self.spans,
            woven_partitions=market_partitions if chain.single_task else 1,
        )
        self._forwards = any(t.watermarked for t in chain.outputs)
        self._starts = dict(starts)
        self._begin_ns, self._resume_at_ns = resume.begin_ns, resume.watermark_ns
        self.live = self._resume_at_ns == BEGINNING_NS
        self.said: Final = Said(keeps=not self.live)
        self.committed_said: Final = resume.said
        self.differs = False
        """Whether the re-run ended and came to something else: `go_on` lets it go live all the same."""
        self._control = sorted(resume.control, key=lambda e: e.event_time_ns)
        self._controls = 0
        """Control records of the session that were handled."""
        self._foreign = resume.foreign
        self._commands: deque[EventRecord | NotUnderstood] = deque()
        self._answered = -1
        """Offset of the last command that was answered."""
        self._state: ChainState | None = None
        self._promised_ns = self._forwarded_ns = BEGINNING_NS
        self._open_offsets: dict[TopicPartitionKey, int] = {}
        self._came_to_be: deque[Event] = deque()
        """What the chain has come to, in order, and what is not said yet."""
        self._outputs: list[Output] = []
        self._under_way: Generator[None, None, bool] | None = None
        """What is left of a step that its caller ended."""
        self._released = 0
        self._not_in_force: set[str] = set()
        """Types of the control records of this session that a service failed on: they are not said again and again."""
        self._failed_command: DeadLetter | None = None
        chain.bury = self._bury_failed

    # --- in -----------------------------------------------------------------------------------------------------

    def receive(self, record: Received) -> None:
        """Decode and check one record and queue it; one that cannot be used becomes a dead letter in its place."""
        self._reception.receive(record)

    def receive_command(self, command: EventRecord | NotUnderstood) -> None:
        """Take a command, in the order of its topic; it is answered once the task is live in a session."""
        self._commands.append(command)

    # --- run ----------------------------------------------------------------------------------------------------

    def step(self, go_on: Callable[[], bool] = lambda: True) -> bool:
        """Handle everything that is due, up to a session whose states are being built.

        Parameters
        ----------
        go_on
            Asked behind every record and every output of what is due; a backlog may be a whole session's, and one
            instant thousands of proposals. Default: to the end.

        Returns
        -------
        bool
            Whether nothing is due any more; False if ``go_on`` ended it. Then the next step goes on where this one
            stopped, and until one is done nothing may be received or committed.
        """
        if self.live and self.opening is None and self._under_way is None:
            self._issue_commands()
        done = self._parts_until(go_on)
        self.spans.stepped(live=self.live)
        return done

    def _parts_until(self, go_on: Callable[[], bool]) -> bool:
        while self._under_way is not None or (self.opening is None and not self.differs):
            self._under_way = self._under_way or self._run_to(self._next_meeting())
            try:
                next(self._under_way)
            except StopIteration as ended:
                self._under_way = None
                if not ended.value:
                    return True
            if not go_on():
                return False
        return True

    def _next_meeting(self) -> _Meeting:
        meetings: list[_Meeting] = []
        upcoming = self.merge.next_session(self.session, self._begin_ns)
        if upcoming is not None:
            if self.session is not None and self.now_ns < session_end_ns(self.session):
                meetings.append(_Meeting(session_end_ns(self.session), 0, self.forward))
            meetings.append(_Meeting(upcoming.open_ns, _OPENS, partial(self._open, upcoming)))
        if self._control:
            meetings.append(_Meeting(self._control[0].event_time_ns, 2, self._replay_control))
        if not self.live:
            meetings.append(_Meeting(self._resume_at_ns, 3, self._go_live))
        return min(meetings, key=lambda m: (m.time_ns, m.order), default=_Meeting(NEVER_NS, 0, None))

    def _run_to(self, meeting: _Meeting) -> Generator[None, None, bool]:
        """Run up to an instant, or a minute towards it, and do what is due there; False if nothing more is due yet.

        It comes in parts, between which other work has its turn and this task does nothing else.
        """
        head_ns = self.merge.head_ns
        portion_ns = NEVER_NS if head_ns is None else max(self.now_ns, head_ns) + MINUTE_NS
        release = self.merge.release(min(meeting.time_ns, portion_ns))
        self._released = len(release.items)
        for time_ns, item in release.items:
            yield from self._handle(time_ns, item)
        met = release.reached_ns >= meeting.time_ns
        if release.reached_ns > self.now_ns:
            self.now_ns = release.reached_ns
            # The state of a session that ended does not see the next one's open.
            if self._state is not None and not (met and meeting.order == _OPENS):
                self.spans.begins()
                self._chain.advance(self._state, self.now_ns, self._came_to_be.append)
                yield from self._produced()
                self._promised_ns = max(self._promised_ns, self._chain.promise(self._state, self.now_ns))
        if met and meeting.action is not None:
            meeting.action()
        return met or release.reached_ns < min(meeting.time_ns, self.merge.cut_ns)

    def _open(self, session: Session) -> None:
        self.forward()
        self.merge.open_session(session)
        for source in self.sources:
            key = (source.topic, source.partition)
            self._open_offsets[key] = self.merge.next_offset(*key) or self._starts[key]
        if session.open_ns != self._begin_ns:
            self.numbers.begin()
            self._letters.go_by(self._flood)
        self.session, self.now_ns, self._controls = session, session.open_ns, 0
        self.said.open_session()
        self._not_in_force.clear()
        self.opening = partial(self._chain.open_session, session, self._universe_of(session), self.task, self._state)
        if not self._opens_apart:
            self.opened(self.opening())

    def opened(self, state: ChainState) -> None:
        """Go on with the states that `opening` built."""
        self.opening, self._state = None, state
        self._promised_ns = self.now_ns
        self.forward()
        if self.live:
            self._issue_commands()

    def _universe_of(self, session: Session) -> Universe:
        universe = self._reception.universe_of(session)
        if universe is None:
            raise WrongShape(f"{self.task}: the universe of the session of {session.date} is gone from market.sessions")
        return universe

    def _go_live(self) -> None:
        if self._control_topics and self.session is not None and not self.said.agrees_with(self.committed_said):
            self.differs = True
            return
        self.go_on()

    def go_on(self) -> None:
        """Go live: what was run again is what stands on the log, or is let stand."""
        self.live, self.differs = True, False
        self.said.keep_no_more()
        _log.info("task_is_live", task=str(self.task), watermark_ns=self.now_ns, records=self.records_handled)
        for one in self._foreign:
            _log.error("foreign_record", task=str(self.task), where=str(one.position), failure=one.failure)
            self._bury(self._letters.of_foreign(one, self.now_ns), of_the_day=False)
        self._issue_commands()

    def _issue_commands(self) -> None:
        if self._state is None:
            return
        wanted = self._chain.commands(self._state, self.now_ns)
        self._issue(event for event in wanted if event.event_type not in self._not_in_force)
        if (first := self._letters.begun_by) is not None:
            self._issue(self._chain.flooded(first, self._letters.reason_of(first), self._state, self.now_ns))
            self._letters.answered(first.event_id)  # also by a chain that stops nothing
        while self._commands:
            self._answer(self._commands.popleft(), self._state)

    def _answer(self, command: EventRecord | NotUnderstood, state: ChainState) -> None:
        if command.position.offset <= self._answered:
            return
        if isinstance(command, NotUnderstood):
            letter, refused = self._letters.of_command(command, self.now_ns)
            self._bury(letter)
            self._issue([refused])
        else:
            self._failed_command = None
            self._issue(self._chain.commanded(command, state, self.now_ns))
            if (failed := self._failed_command) is not None:
                self._issue([self._letters.refusal(failed, f"it failed: {failed.failure}", self.now_ns)])

    def _issue(self, events: Iterable[Event]) -> None:
        for event in events:
            topic = topic_of(event)
            if topic.name not in self._control_topics:
                self.spans.begins()
                self._produce(event, announced=True)  # said once, never read back
                continue
            if event.event_time_ns != self.now_ns:
                raise PromiseBroken(f"{self.task}: command {event.event_type} at another time than {self.now_ns}")
            self._emit(Output(topic.name, self._partition(topic), event, control_of=self.task))
            self._handle_control(event)

    def _replay_control(self) -> None:
        self._handle_control(self._control.pop(0))

    def _handle_control(self, event: Event) -> None:
        if self._state is None:
            raise WrongShape(f"{self.task}: control record {event.event_id} outside any session")
        topic, self.records_handled = topic_of(event), self.records_handled + 1
        record = EventRecord(event, LogPosition(topic.name, self._partition(topic), -1))
        if isinstance(event, DifferenceAccepted):
            self.said.accept(event)
            return
        self._controls += 1
        if isinstance(event, AnswersCommands):
            self._answered = max(self._answered, event.command_offset)
        self._letters.answered(event.causation_id)
        self.spans.begins()
        self._chain.handle_control(record, self._state, self._produce)

    def _handle(self, time_ns: int, item: Item) -> Iterator[None]:
        if isinstance(item, Refused):
            self._bury(item.letter)
            return
        if self._state is None or (isinstance(item, EventRecord) and self._is_over(time_ns)):
            self._handle_outside(time_ns, item)
            return
        if isinstance(item, MarketSlice) and not self._chain.single_task:
            own = own_rows(item.market, self._state.universe, item.position.partition, self._market_partitions)
            self.records_handled += len(own)
        else:
            self.records_handled += len(item) if isinstance(item, MarketSlice) else 1
        life = {"correlation_id": item.event.correlation_id} if isinstance(item, EventRecord) else {}
        with structlog.contextvars.bound_contextvars(**life):  # on what is logged while it is handled
            self.spans.begins()
            self._chain.handle(item, self._state, time_ns, self._came_to_be.append)
        yield from self._produced()
        yield

    def _is_over(self, time_ns: int) -> bool:
        """Say whether an instant is behind the session's end: the timers that would take it up do not come any more."""
        return self.session is not None and time_ns >= session_end_ns(self.session)

    def _handle_outside(self, time_ns: int, item: Item) -> None:
        """Bury an event that no session was open for; what came before this group began is passed over."""
        if isinstance(item, EventRecord) and time_ns >= self._begin_ns:
            why = "no session was open at its event time"
            self._bury(self._letters.of_event(item, "no_session", why, self.task.service))

    def _bury_failed(self, failed: Failed) -> None:
        """Bury what a service failed on; where its state may be wrong for it, nothing is opened any more."""
        letter, record = self._letters.of_failure(failed), failed.record
        said = {"task": str(self.task), "stage": failed.service.name}
        if isinstance(record, EventRecord):
            said |= {"event_id": record.event.event_id, "correlation_id": record.event.correlation_id}
        if failed.what in ("record", "command"):
            if not self._letters.are_a_flood:
                _log.error("record_failed", **said, exc_info=failed.error)
        else:
            self._letters.alarm(letter)
            if not self._letters.are_a_flood:
                consequence = "ALARM: it opens nothing until a person lifts the halt"
                _log.error("service_failed", **said, what=failed.what, consequence=consequence, exc_info=failed.error)
        if failed.what == "control" and isinstance(record, EventRecord):
            self._not_in_force.add(record.event.event_type)
        if failed.what == "command":
            self._failed_command = letter
        self._bury(letter)

    def _bury(self, letter: DeadLetter, *, of_the_day: bool = True) -> None:
        self._emit(Output(self._letters.count(letter, of_the_day=of_the_day), 0, letter))

    # --- out ----------------------------------------------------------------------------------------------------

    @property
    def readiness(self) -> Readiness | None:
        """Which instruments are WARMING; None for a service without features, or outside a session."""
        return None if self._state is None else self._chain.readiness(self._state)

    @property
    def strategies(self) -> tuple[StrategyRuntime, ...]:
        """What runs of each strategy on each rung; empty for a chain without models."""
        return self._chain.strategies(self._state)

    @property
    def settings_wait(self) -> tuple[str, ...]:
        """What the settings would change from the next session on."""
        return () if self._state is None else self._chain.settings_wait(self._state)

    @property
    def trading_states(self) -> TradingStates | None:
        """Who may trade; None outside a session, while it runs again what was, and for a chain that nobody can halt."""
        return self._chain.trading_states(self._state) if self.live and self._state is not None else None

    def dead_letters_of(self, service: str) -> int:
        """How many records a service could not handle; those that the task could not even read are its first one's."""
        names = {service, self.task.service} if service == self._chain.services[0].name else {service}
        return sum(self._letters.counted[name] for name in names)

    @property
    def is_crowded(self) -> bool:
        """Whether so much is pending, or came of what was, that a service may take long for one instant of it."""
        return self.merge.events_pending + self._released + len(self._outputs) >= _CROWD

    @property
    def has_events(self) -> bool:
        """Whether something other than a watermark is to be committed."""
        return any(not isinstance(output.event, Watermark) for output in self._outputs)

    @property
    def is_waited_for(self) -> bool:
        """Whether a task downstream merges what this one says, and so waits for each of its watermarks."""
        return any(topic.merged for topic in self._chain.outputs)

    @property
    def owes_watermark(self) -> bool:
        """Whether a later watermark than the one forwarded last could be."""
        return self._forwards and self.live and self.session is not None and self._promised_ns > self._forwarded_ns

    def forward(self) -> None:
        """Put the watermark behind the outputs so far, on every watermarked output topic."""
        if not self.owes_watermark or self.session is None:
            return
        for topic in self._chain.outputs:
            if topic.watermarked:
                partition, digest = self._partition(topic), self._reception.digest_of(self.session)
                event = watermark(topic, partition, self.session, self._promised_ns, digest)
                stamp = self.numbers.next_stamp(topic.name, self.session)
                self._outputs.append(Output(topic.name, partition, event, stamp=stamp))
        self._forwarded_ns = self._promised_ns

    def take_outputs(self) -> list[Output]:
        """Give the outputs since the last call, in order; they belong in one transaction with :meth:`positions`."""
        outputs, self._outputs = self._outputs, []
        return outputs

    def positions(self) -> dict[TopicPartitionKey, Committed]:
        """Give what a commit has to say now; empty before the first session and while running again."""
        if self.session is None or not self.live:
            return {}
        found, said = {}, self.said.so_far if self._control_topics else NOTHING_SAID
        for source in self.sources:
            key = (source.topic, source.partition)
            pending = self.merge.first_pending_offset(*key)
            opened = self.merge.session_offset(*key, self.session)
            found[key] = Committed(
                offset=self._starts[key] if pending is None else pending,
                watermark_ns=self.now_ns,
                session_open_offset=self._open_offsets[key] if opened is None else opened,
                session_open_ns=self.session.open_ns,
                said=said,
                numbers=self.numbers.last,
                flood=self._letters.limits,
            )
        return found

    def _produced(self) -> Iterator[None]:
        """Say what came to be, each event a part of its own."""
        while self._came_to_be:
            self._produce(self._came_to_be.popleft())
            yield

    def _produce(self, event: Event, *, announced: bool = False) -> None:
        topic = topic_of(event)
        if topic.watermarked and event.event_time_ns < self._forwarded_ns:
            raise PromiseBroken(
                f"{self.task}: {event.event_type} {event.event_id} at {event.event_time_ns} is earlier than the "
                f"watermark {self._forwarded_ns} that {topic.name} already carries"
            )
        if not announced:
            self.said.add(topic.name, event)
        self._emit(Output(topic.name, self._partition(topic), event))

    def _emit(self, output: Output) -> None:
        if not self.live:
            return
        traceparent, stamp = self.spans.said(output.event), self.numbers.next_stamp(output.topic, self.session)
        if traceparent or stamp is not None:
            output = replace(output, traceparent=traceparent, stamp=stamp)
        self._outputs.append(output)
        self.outputs[output.topic, output.event.event_type] += 1

    def _partition(self, topic: Topic) -> int:
        return self.task.partition if topic.per_market_partition else 0
