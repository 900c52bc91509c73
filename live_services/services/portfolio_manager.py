"""Portfolio manager: it alone writes the account's books, and says what they hold."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import ClassVar, Final

import structlog

from feature_store.market.types import Session
from live_services.domain.account.books import Books
from live_services.domain.account.snapshots import SnapshotClock, snapshot
from live_services.domain.account.written_books import restore_books, written_books
from live_services.domain.basis import Stamp
from live_services.domain.clock import NEVER_NS
from live_services.domain.configuration import changes, config_digest
from live_services.domain.events import (
    AccountOpened,
    AnswersCommands,
    Event,
    MarketGap,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    OrderSubmitted,
    TradingSwitched,
    self_caused,
)
from live_services.domain.limits import AccountConfig
from live_services.domain.log import EventRecord, MarketSlice, Record
from live_services.domain.money import inr_e4
from live_services.domain.snapshot import Tree
from live_services.domain.topics import Scope, Topic, broker_topics
from live_services.domain.written import WrittenOnce, fields_of
from live_services.runtime.service import SETTINGS_WAIT, Input, Opening, Service
from models_registry.specification import Broker

_log = structlog.get_logger("trading")

_OUTCOMES: Final = (OrderFilled, OrderRejected, OrderCancelled)
Alarm = Callable[..., object]
"""``(event, **facts)``."""


@dataclass(slots=True)
class PortfolioState:
    """The books of a session, and when they are to be told."""

    session: Session
    books: Books
    clock: SnapshotClock
    before: Books | None
    """Of the session before, until the record is there that carries them into this one."""
    trading: bool | None = None
    """Whether the trading stage gives orders, as the log says; None before it says so."""
    config: AccountConfig | None = None
    """By which the session is traded, as the log says; None before it says so."""


class PortfolioManager(Service[PortfolioState]):
    """One task for the account.

    Parameters
    ----------
    market : Topic
    config : AccountConfig
        By which it enters a session.
    stamp : Stamp
        Of the code that opens it.
    broker : Broker
    trading_off : str, optional
        Why the trading stage gives no orders; None: it does.
    alarm : callable, optional
        Takes what a person must hear of at once, as a logger's ``error``; default: the log's.
    """

    name = "portfolio_manager"
    single_task: ClassVar[bool] = True

    def __init__(
        self,
        market: Topic,
        config: AccountConfig,
        stamp: Stamp,
        broker: Broker = "paper",
        *,
        trading_off: str | None = None,
        alarm: Alarm | None = None,
    ) -> None:
        topics = broker_topics(broker)
        self.scope: Scope = broker
        self.inputs: tuple[Input, ...] = (
            Input(topics.orders_submitted),
            Input(topics.orders_filled),
            Input(topics.orders_rejected),
            Input(topics.orders_cancelled),
            Input(market),
            Input(topics.control, "control"),
        )
        self.outputs: tuple[Topic, ...] = (topics.pnl_snapshots,)
        self._broker: Broker = broker
        # Of a section of the settings what is the account's, which is what comes back from the log.
        self._config: Final = AccountConfig.model_validate(config.model_dump(include=set(AccountConfig.model_fields)))
        self._stamp: Final = stamp
        self._trading_off: Final = trading_off
        self._alarm: Final = alarm
        self._written: Final = WrittenOnce()

    def open_session(self, opening: Opening[PortfolioState]) -> PortfolioState:
        """Begin with a new account's books; what the session before left is carried over by a record."""
        books = Books(opening.universe, inr_e4(self._config.starting_cash_inr))
        clock = SnapshotClock(opening.session, self._config.pnl_interval_seconds)
        before = opening.before.books if opening.before is not None else None
        return PortfolioState(opening.session, books, clock, before)

    def snapshot(self, state: PortfolioState) -> Tree:
        """Write down the books and when they are told next; None before the session's record carried them into it."""
        if state.config is None:
            return None
        return {
            "books": written_books(state.books, self._written),
            "clock": state.clock.snapshot(),
            "trading": state.trading,
            "config": state.config.model_dump(mode="json"),
        }

    def restore(self, opening: Opening[PortfolioState], kept: Tree) -> PortfolioState:
        """Go on with the books as they were written down."""
        there, state = fields_of(kept), self.open_session(opening)
        restore_books(state.books, there["books"])
        state.clock.restore(there["clock"])
        state.before, state.trading = None, there["trading"]
        state.config = AccountConfig.model_validate(there["config"])
        self._say_what_waits(state)
        return state

    def commands(self, state: PortfolioState, now_ns: int) -> Iterable[Event]:
        """Put on the log, once a session, what the account enters it with, and from when on it trades or does not."""
        if state.config is None:
            yield self._account_opened(state, now_ns)
        enabled, date = self._trading_off is None, state.session.date.isoformat()
        if state.trading is not enabled:
            yield TradingSwitched(
                **self_caused("trading_switched", self._broker, date, now_ns, str(enabled)),
                broker=self._broker,
                event_time_ns=now_ns,
                session_date=date,
                enabled=enabled,
                reason=self._trading_off or "the trading stage is enabled",
            )

    def _account_opened(self, state: PortfolioState, now_ns: int) -> AccountOpened:
        books, date = state.before or state.books, state.session.date.isoformat()
        return AccountOpened(
            **self_caused("account_opened", self._broker, date),
            broker=self._broker,
            event_time_ns=now_ns,
            session_date=date,
            config=self._config,
            config_digest=config_digest(self._config),
            git_commit=self._stamp.git_commit,
            starting_cash_inr_e4=books.starting_cash_inr_e4,
            cash_inr_e4=books.cash_inr_e4,
            equity_inr=books.equity_inr(),
            positions=books.carried(),
            strategies=books.strategy_totals(),
            trading_states=books.trading_states.in_force,
            command_offset=books.command_offset,
            handed_in=books.handed_in,
        )

    def handle(self, record: Record, state: PortfolioState, now_ns: int) -> Iterable[Event]:
        """Write prices, orders and their ends into the books; snapshots come with their second.

        Raises
        ------
        live_services.domain.account.books.BookError
            If an event contradicts the books; nothing of it is written.
        TypeError
            For any other event.
        """
        if isinstance(record, MarketSlice):
            state.books.on_prices(record.instrument, record.last_price)
            return ()
        event = record.event if isinstance(record, EventRecord) else None
        if isinstance(event, OrderSubmitted):
            state.books.on_submitted(event)
        elif isinstance(event, _OUTCOMES):
            state.books.on_outcome(event)
            state.clock.changed(event.event_time_ns)
        elif isinstance(event, AccountOpened):
            state.books.open_from(event)
            state.clock = SnapshotClock(state.session, event.config.pnl_interval_seconds)
            state.before, state.config = None, event.config
            self._say_what_waits(state)
            self._say_carried(state)
        elif isinstance(event, TradingSwitched):
            self._say_switched(state, event)
            state.trading = event.enabled
        elif isinstance(event, AnswersCommands):
            state.books.on_answer(event)
        elif not isinstance(event, MarketGap):  # behind a gap marks are late, not wrong
            raise TypeError(f"{self.name} does not take {record!r:.200}")
        return ()

    def settings_wait(self, state: PortfolioState) -> tuple[str, ...]:
        """Say what the settings would change from the next session on."""
        return () if state.config is None else changes(state.config, self._config)

    def _say_what_waits(self, state: PortfolioState) -> None:
        if waiting := self.settings_wait(state):
            _log.warning(SETTINGS_WAIT, broker=self._broker, changes=waiting, until="the next session")

    def due_ns(self, state: PortfolioState) -> int:
        """Give the last instant that belongs to the next snapshot."""
        due = state.clock.due_ns(bool(state.books.positions))
        return due if due == NEVER_NS else due - 1

    def fire(self, state: PortfolioState, at_ns: int) -> Iterable[Event]:
        """Tell what the books hold at the second after ``at_ns``."""
        if state.clock.said(at_ns + 1):
            self._say_left_open(state)
        return (snapshot(state.books, self._broker, state.session, at_ns + 1),)

    def promise(self, state: PortfolioState, now_ns: int) -> int:
        """A snapshot at this instant, if one was due, is out: it holds only what was before."""
        return now_ns + 1

    def _say_carried(self, state: PortfolioState) -> None:
        for position in state.books.positions.values():
            if position.instrument_token not in state.books.universe.index_of_token:
                _log.error(
                    "position_cannot_be_closed",
                    broker=self._broker,
                    strategy=position.strategy,
                    symbol=position.symbol,
                    quantity=position.quantity,
                    reason="it is not in the universe of this session",
                )

    def _say_switched(self, state: PortfolioState, event: TradingSwitched) -> None:
        held = len(state.books.positions)
        if not event.enabled and held:
            _log.warning(
                "trading_is_off",
                broker=self._broker,
                reason=event.reason,
                positions=held,
                consequence="only stops and targets that rest end them; once it is on again, what is due ends",
            )
        elif event.enabled and state.trading is False:
            _log.info("trading_is_on", broker=self._broker, consequence="what was validated before is not ordered")

    def _say_left_open(self, state: PortfolioState) -> None:
        for position in state.books.positions.values():
            if position.product == "MIS" or position.exit.expiry_ns <= state.session.close_ns:
                (self._alarm or _log.error)(
                    "position_left_open",
                    broker=self._broker,
                    strategy=position.strategy,
                    symbol=position.symbol,
                    quantity=position.quantity,
                    consequence="carried into the next session and closed at its open",
                )
