"""Paper trading: validated signals in, orders and their ends out, at the prices of the market that comes next."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from feature_store.market.types import Session, Universe
from live_services.domain.account.paper_exchange import PaperBroker
from live_services.domain.basis import Stamp
from live_services.domain.events import Event, SignalValidated
from live_services.domain.log import BarSlice, EventRecord, Record, TaskId, TickSlice
from live_services.domain.topics import Broker, Scope, Topic, broker_topics
from live_services.runtime.service import Input


class PaperTrading:
    """A `Service`: one task for the paper account."""

    name = "paper_trading"
    single_task = True

    def __init__(
        self, universe: Universe, market: Topic, costs_bps: float, stamp: Stamp, *, broker: Broker = "paper"
    ) -> None:
        topics = broker_topics(broker)
        self.scope: Scope = broker
        self.inputs: tuple[Input, ...] = (Input(topics.signals_validated), Input(market))
        self.outputs: tuple[Topic, ...] = (
            topics.orders_submitted,
            topics.orders_filled,
            topics.orders_rejected,
            topics.orders_cancelled,
        )
        self._universe = universe
        self._costs_bps = costs_bps
        self._stamp = stamp

    async def prepare(self, task: TaskId, control: Sequence[Event]) -> None:
        """Need nothing."""

    def open_session(self, session: Session, task: TaskId) -> PaperBroker:
        """Begin the session flat, with no orders."""
        return PaperBroker(self._universe, session, self._costs_bps)

    def commands(self, state: PaperBroker, now_ns: int) -> Iterable[Event]:
        """Give none."""
        return ()

    def handle(self, record: Record, state: PaperBroker, now_ns: int) -> Iterable[Event]:
        """Submit a validated signal, or let the market fill what is pending.

        Raises
        ------
        TypeError
            For any other event.
        """
        if isinstance(record, EventRecord) and isinstance(record.event, SignalValidated):
            return state.submit(record.event, self._stamp.basis([record.position]))
        if not state.pending and isinstance(record, TickSlice | BarSlice):
            return ()
        if isinstance(record, TickSlice):
            return state.on_ticks(record.ticks, self._stamp.basis([record.position]))
        if isinstance(record, BarSlice):
            return state.on_bars(record.bars, self._stamp.basis([record.position]))
        raise TypeError(f"{self.name} does not take {record!r:.200}")

    def advance(self, state: PaperBroker, now_ns: int) -> Iterable[Event]:
        """Once the close itself is past, cancel what is unfilled."""
        return state.end_session(self._stamp.basis()) if now_ns > state.session.close_ns else ()

    def promise(self, now_ns: int) -> int:
        """Orders of this instant may still come."""
        return now_ns
