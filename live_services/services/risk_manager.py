"""Risk manager: proposals in, exactly one verdict each out, and the exits of what is open."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import ClassVar

from live_services.domain.account.risk import RiskContext, RiskState
from live_services.domain.basis import Stamp
from live_services.domain.events import AccountOpened, Event, OrderFilled, SignalGenerated
from live_services.domain.limits import AccountConfig
from live_services.domain.log import EventRecord, Record
from live_services.domain.topics import Scope, Topic, broker_topics
from live_services.runtime.service import Input, Opening, Service
from models_registry.specification import Broker


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

    def handle(self, record: Record, state: RiskState, now_ns: int) -> Iterable[Event]:
        """Take a proposal, which waits for its instant, an opening fill, which needs an exit, or the session's limits.

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
        raise TypeError(f"{self.name} does not take {record!r:.200}")

    def due_ns(self, state: RiskState) -> int:
        """Give the instant of the next exit or judgement."""
        return state.due_ns()

    def fire(self, state: RiskState, at_ns: int) -> Iterable[Event]:
        """Close what is due, then judge what was proposed."""
        return state.fire(at_ns)
