"""Risk manager: proposals in, exactly one verdict each out, and the exits of what is open."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, TypeVar

import structlog

from feature_store.market.types import ist_text
from live_services.domain.account.risk import RiskContext, RiskState
from live_services.domain.account.trading_states import TradingStates
from live_services.domain.basis import Stamp
from live_services.domain.events import (
    DEAD_LETTERS,
    AccountOpened,
    AnswersCommands,
    Command,
    CommandRefused,
    DeadLetter,
    Event,
    OrderFilled,
    RecordHandedIn,
    RecordTaken,
    SignalGenerated,
    TradingStateChanged,
    TradingStateCommanded,
    TradingStateInForce,
    TradingSwitched,
    event_id,
)
from live_services.domain.limits import AccountConfig
from live_services.domain.log import EventRecord, Record
from live_services.domain.snapshot import Tree
from live_services.domain.topics import Scope, Topic, broker_topics
from live_services.runtime.service import Input, Opening, Service
from models_registry.specification import Broker

_log = structlog.get_logger("trading")

_Answer = TypeVar("_Answer", bound=AnswersCommands)


class RiskManager(Service[RiskState]):
    """One task for the account, because its limits are the account's."""

    name = "risk_manager"
    single_task: ClassVar[bool] = True

    def __init__(self, config: AccountConfig, stamp: Stamp, broker: Broker = "paper") -> None:
        topics = broker_topics(broker)
        self.scope: Scope = broker
        self.inputs: tuple[Input, ...] = (
            Input(topics.signals_raw),
            Input(topics.orders_filled),
            Input(topics.control, "control"),
            Input(topics.commands, "command"),
        )
        self.outputs: tuple[Topic, ...] = (topics.signals_validated, topics.signals_rejected)
        self._broker: Broker = broker
        self._config = config
        self._stamp = stamp

    def open_session(self, opening: Opening[RiskState]) -> RiskState:
        """Begin with nothing proposed; what is open, and when it ends, is in the books."""
        context = RiskContext(opening.session, opening.universe, self._config, opening.chain["portfolio_manager"].books)
        return RiskState(context, self._broker, self._stamp)

    def snapshot(self, state: RiskState) -> Tree:
        """Write down what is to be judged and closed, and the limits; the portfolio manager writes the books."""
        return state.snapshot()

    def restore(self, opening: Opening[RiskState], kept: Tree) -> RiskState:
        """Go on with what was to be judged and closed, on the books that were restored."""
        state = self.open_session(opening)
        state.restore(kept)
        return state

    def trading_states(self, state: RiskState) -> TradingStates:
        """Say what is in force, as the books have it."""
        return state.context.books.trading_states

    def commanded(self, record: EventRecord, state: RiskState, now_ns: int) -> Iterable[Event]:
        """Put a commanded trading state in force from ``now_ns`` on, once if it is a dead letter's that was handed in;
        other commands are for others.
        """
        command, offset = record.event, record.position.offset
        if isinstance(command, TradingStateCommanded):
            yield self._changed(command, offset, now_ns)
        elif isinstance(command, RecordHandedIn):
            answer = partial(_answer, command, event_time_ns=now_ns, command_offset=offset)
            if command.letter_id in state.context.books.handed_in:
                yield answer(CommandRefused, refusal=f"the dead letter {command.letter_id} was handed in before")
                return
            yield answer(RecordTaken, letter_id=command.letter_id)
            yield self._changed(command.record, offset, now_ns)

    def _changed(self, command: TradingStateCommanded, offset: int, now_ns: int) -> TradingStateChanged:
        return _answer(
            command,
            TradingStateChanged,
            event_time_ns=now_ns,
            command_offset=offset,
            in_force=TradingStateInForce(
                strategy=command.strategy,
                state=command.state,
                flatten=command.flatten,
                since_ns=now_ns,
                reason=command.reason,
                commanded_by=command.commanded_by,
                commanded_at_ns=command.commanded_at_ns,
            ),
        )

    def flooded(self, letter: DeadLetter, reason: str, state: RiskState, now_ns: int) -> Iterable[Event]:
        """Halt the account: what it would act on next may be as wrong as what it could not read. `resume` lifts it."""
        yield TradingStateChanged(
            broker=self._broker,
            event_id=event_id("trading_state_changed", self._broker, letter.event_id),
            correlation_id=letter.correlation_id,
            causation_id=letter.event_id,
            event_time_ns=now_ns,
            in_force=TradingStateInForce(
                strategy=None,
                state="HALTED",
                flatten=False,
                since_ns=now_ns,
                reason=reason,
                commanded_by=DEAD_LETTERS,
                commanded_at_ns=now_ns,  # the chain knows no other clock
            ),
        )

    def handle(self, record: Record, state: RiskState, now_ns: int) -> Iterable[Event]:
        """Take a proposal, which waits for its instant, an opening fill, which needs an exit, or a control record: the
        session's limits, a trading state, whether it trades.

        Raises
        ------
        TypeError
            For any other record.
        """
        event = record.event if isinstance(record, EventRecord) else None
        if isinstance(event, SignalGenerated):
            state.propose(event)
            return ()
        if isinstance(event, OrderFilled):
            return state.opened(event) if event.intent == "open" else ()
        if isinstance(event, AccountOpened):
            state.context = replace(state.context, config=event.config)
            return ()
        if isinstance(event, TradingSwitched):
            if event.enabled:
                state.ordered_again(event.event_time_ns)
            return ()
        if isinstance(event, TradingStateChanged):
            return state.trading_state_changed(event)
        if isinstance(event, AnswersCommands):
            return ()  # the answer to a command for others
        raise TypeError(f"{self.name} does not take {record!r:.200}")

    def due_ns(self, state: RiskState) -> int:
        """Give the instant of the next exit or judgement."""
        return state.due_ns()

    def fire(self, state: RiskState, at_ns: int) -> Iterable[Event]:
        """Close what is due, then judge what was proposed; what a halt holds back is said, for nobody closes it."""
        before = len(state.held_back)
        yield from state.fire(at_ns)
        for (strategy, instrument_token), reason in state.held_back[before:]:
            _log.warning(
                "exit_held_back",
                broker=self._broker,
                strategy=strategy,
                instrument_token=instrument_token,
                reason=reason,
                due=ist_text(at_ns),
                consequence="the position stays open until the halt is lifted, or it is flattened",
            )


def _answer(command: Command, kind: type[_Answer], **said: Any) -> _Answer:
    """Answer a command on the control topic."""
    return kind.model_validate(
        {
            "event_type": kind.model_fields["event_type"].default,
            "broker": command.broker,
            "event_id": event_id(kind.__name__, command.event_id),
            "correlation_id": command.correlation_id,
            "causation_id": command.event_id,
            **said,
        }
    )
