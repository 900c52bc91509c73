"""Paper trading: validated signals in, orders and their ends out, at the prices of the market that comes next."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import ClassVar

from feature_store.labels.barriers import compile_barriers
from live_services.domain.account.paper_exchange import PaperExchange
from live_services.domain.basis import Stamp
from live_services.domain.events import AccountOpened, Event, MarketGap, SignalValidated, TradingSwitched
from live_services.domain.log import MarketSlice, Record, TaskId
from live_services.domain.snapshot import Tree
from live_services.domain.topics import Scope, Topic, broker_topics
from live_services.runtime.service import Input, Opening, Service
from models_registry.specification import Broker


class PaperTrading(Service[PaperExchange]):
    """One task for the paper account."""

    single_task: ClassVar[bool] = True

    def __init__(self, market: Topic, stamp: Stamp, broker: Broker = "paper") -> None:
        topics = broker_topics(broker)
        self.name = f"{broker}_trading"
        self.scope: Scope = broker
        self.inputs: tuple[Input, ...] = (
            Input(topics.signals_validated),
            Input(market),
            Input(topics.control, "control"),
        )
        self.outputs: tuple[Topic, ...] = (
            topics.orders_submitted,
            topics.orders_filled,
            topics.orders_rejected,
            topics.orders_cancelled,
        )
        self._stamp = stamp

    async def prepare(self, task: TaskId, control: Sequence[Event]) -> None:
        """Compile the kernels that fill orders: the first one would hold the loop, and with it the heartbeat."""
        await asyncio.to_thread(compile_barriers)

    def open_session(self, opening: Opening[PaperExchange]) -> PaperExchange:
        """Begin the session without orders."""
        books = opening.chain["portfolio_manager"].books
        return PaperExchange(opening.universe, opening.session, books, self._stamp)

    def snapshot(self, state: PaperExchange) -> Tree:
        """Write down what is live."""
        return state.snapshot()

    def restore(self, opening: Opening[PaperExchange], kept: Tree) -> PaperExchange:
        """Go on with what was live, on the books that were restored."""
        state = self.open_session(opening)
        state.restore(kept)
        return state

    def handle(self, record: Record, state: PaperExchange, now_ns: int) -> Iterable[Event]:
        """Submit a validated signal, let the market fill what is live, or take what the account was opened with.

        Raises
        ------
        TypeError
            For any other event.
        """
        if isinstance(record, MarketSlice):
            return state.on_market(record.position, now_ns)
        if isinstance(record.event, SignalValidated):
            return state.submit(record.event)
        if isinstance(record.event, TradingSwitched):
            return state.switch(record.event.enabled, now_ns)
        if isinstance(record.event, AccountOpened):  # of the log, whatever the settings say by the time of a restart
            state.slippage_bps = record.event.config.slippage_bps
            return ()
        if isinstance(record.event, MarketGap):
            return ()  # what is live waits for the price behind it
        if record.event.TOPIC == "control":
            return ()  # said to the account's other services
        raise TypeError(f"{self.name} does not take {record!r:.200}")

    def first_answer(self, market: MarketSlice, row: int, state: PaperExchange) -> int:
        """Give the first row that fills an order."""
        return state.first_answer(market, row)

    def due_ns(self, state: PaperExchange) -> int:
        """The close, if an order is live then."""
        return state.due_ns

    def fire(self, state: PaperExchange, at_ns: int) -> Iterable[Event]:
        """Cancel what is unfilled at the close."""
        return state.end_session()
