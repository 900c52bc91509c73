"""Risk manager: raw signals in, exactly one verdict each out; the portfolio of the whole seconds before is its view."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from feature_store.market.types import Session
from live_services.domain.account.risk import RiskState, apply_snapshot, decide
from live_services.domain.basis import Stamp
from live_services.domain.events import Event, PnlSnapshot, SignalGenerated
from live_services.domain.log import EventRecord, Record, TaskId
from live_services.domain.topics import Broker, Scope, Topic, broker_topics
from live_services.runtime.service import Input
from live_services.settings import RiskSettings


class RiskManager:
    """A `Service`: one task for the account, because its limits are the account's."""

    name = "risk_manager"
    single_task = True

    def __init__(self, limits: RiskSettings, stamp: Stamp, broker: Broker = "paper") -> None:
        topics = broker_topics(broker)
        self.scope: Scope = broker
        self.inputs: tuple[Input, ...] = (Input(topics.signals_raw), Input(topics.pnl_snapshots, "lagged"))
        self.outputs: tuple[Topic, ...] = (topics.signals_validated, topics.signals_rejected)
        self._limits = limits
        self._stamp = stamp

    async def prepare(self, task: TaskId, control: Sequence[Event]) -> None:
        """Need nothing."""

    def open_session(self, session: Session, task: TaskId) -> RiskState:
        """Begin the session flat."""
        return RiskState(session, self._limits)

    def commands(self, state: RiskState, now_ns: int) -> Iterable[Event]:
        """Give none."""
        return ()

    def handle(self, record: Record, state: RiskState, now_ns: int) -> Iterable[Event]:
        """Judge a signal, or take over a snapshot.

        Raises
        ------
        TypeError
            For any other event.
        """
        event = record.event if isinstance(record, EventRecord) else None
        if isinstance(event, PnlSnapshot):
            apply_snapshot(state, event)
            return ()
        if isinstance(event, SignalGenerated):
            return (decide(state, event, self._stamp.basis([record.position])),)
        raise TypeError(f"{self.name} does not take {record!r:.200}")

    def advance(self, state: RiskState, now_ns: int) -> Iterable[Event]:
        """Nothing is due by time alone."""
        return ()

    def promise(self, now_ns: int) -> int:
        """Signals of this instant may still come."""
        return now_ns
