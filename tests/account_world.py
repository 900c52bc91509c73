"""The paper account of a session, driven by hand: its very chain, without a log."""

from __future__ import annotations

from typing import TypeVar

from feature_store.market.types import Bars, Session, Ticks, Universe
from live_services.domain.account.books import Books
from live_services.domain.basis import Stamp
from live_services.domain.clock import session_end_ns
from live_services.domain.events import (
    Event,
    PnlSnapshot,
    TradingState,
    TradingStateCommanded,
    TradingSwitched,
    self_caused,
)
from live_services.domain.limits import AccountConfig, RiskLimits
from live_services.domain.log import NOWHERE, EventRecord, LogPosition, MarketSlice, TaskId, event_times
from live_services.domain.topics import MARKET_BARS, MARKET_TICKS, broker_topics
from live_services.runtime.chain import ChainState
from live_services.services.account import account_chain
from tests.live_world import OPEN, SECOND, SESSION, UNIVERSE

Kind = TypeVar("Kind", bound=Event)


def limits(**risk: float) -> AccountConfig:
    """Configure an account with these limits and otherwise wide ones."""
    wide = {
        "max_quantity_per_instrument": 10**6,
        "max_notional_per_instrument_inr": 1e9,
        "max_gross_notional_inr": 1e9,
        "max_open_positions": 1000,
    }
    return AccountConfig(risk=RiskLimits.model_validate(wide | risk))


class Account:
    """The account's chain in one session, and everything that it said."""

    def __init__(
        self,
        config: AccountConfig | None = None,
        *,
        session: Session = SESSION,
        universe: Universe = UNIVERSE,
        on_bars: bool = False,
        before: Account | None = None,
        trading_off: str | None = None,
    ) -> None:
        self.config = config or (before.config if before is not None else limits())
        topic = MARKET_BARS if on_bars else MARKET_TICKS
        self.session = session
        self.chain = account_chain("paper", topic, self.config, Stamp("digest", "commit"), trading_off=trading_off)
        self.events: list[Event] = []
        self._at = LogPosition(topic.name, 0, 7)
        state = before.state if before is not None else None
        self.state: ChainState = self.chain.open_session(session, universe, TaskId("account", "paper", 0), state)
        for event in self.chain.commands(self.state, session.open_ns):
            self._take(event)
            self.chain.handle_control(EventRecord(event, NOWHERE), self.state, self._take)

    @property
    def books(self) -> Books:
        """What the portfolio manager writes."""
        books: Books = self.state.of[-1].books
        return books

    def say(self, *events: Event) -> Account:
        """Hand in proposals, each at its time."""
        for event in events:
            self.chain.handle(EventRecord(event, NOWHERE), self.state, event.event_time_ns, self._take)
        return self

    def market(self, table: Ticks | Bars) -> Account:
        """Hand in ticks or bars."""
        last_ns = int(event_times(table)[-1])
        self.chain.handle(MarketSlice(table, self._at), self.state, last_ns, self._take)
        return self

    def switch(self, enabled: bool, seconds: float) -> Account:
        """Let the watermark reach so many seconds after the open, and switch the trading stage there."""
        self.until(seconds)
        at_ns, date = OPEN + round(seconds * SECOND), self.session.date.isoformat()
        switched = TradingSwitched(
            **self_caused("trading_switched", "paper", date, at_ns, str(enabled)),
            broker="paper",
            event_time_ns=at_ns,
            session_date=date,
            enabled=enabled,
            reason="a test",
        )
        self._take(switched)
        self.chain.handle_control(EventRecord(switched, NOWHERE), self.state, self._take)
        return self

    def until(self, seconds: float) -> Account:
        """Let the watermark reach so many seconds after the open."""
        self.chain.advance(self.state, OPEN + round(seconds * SECOND), self._take)
        return self

    def command(
        self, state: TradingState, seconds: float, *, strategy: str | None = None, flatten: bool = False
    ) -> Account:
        """Let a command come when the watermark is so many seconds after the open."""
        at_ns = OPEN + round(seconds * SECOND)
        self.chain.advance(self.state, at_ns, self._take)
        commanded = TradingStateCommanded(
            **self_caused("command", state, at_ns, strategy or ""),
            broker="paper",
            event_time_ns=1,
            commanded_at_ns=1,
            state=state,
            flatten=flatten,
            strategy=strategy,
            reason="the desk said so",
            commanded_by="asha",
        )
        place = LogPosition(broker_topics("paper").commands.name, 0, self.books.command_offset + 1)
        for event in self.chain.commanded(EventRecord(commanded, place), self.state, at_ns):
            self._take(event)
            self.chain.handle_control(EventRecord(event, NOWHERE), self.state, self._take)
        return self

    def close(self) -> Account:
        """Let the watermark reach the session's end."""
        self.chain.advance(self.state, session_end_ns(self.session), self._take)
        return self

    def of(self, *kinds: type[Kind]) -> list[Kind]:
        """Pick what it said of some kinds."""
        return [event for event in self.events if isinstance(event, kinds)]

    def _take(self, event: Event) -> None:
        assert type(event).model_validate_json(event.model_dump_json()) == event
        self.events.append(event)
        if isinstance(event, PnlSnapshot):
            assert_identity(event)


def assert_identity(snapshot: PnlSnapshot) -> None:
    """Cash and holdings at cost are what the account began with, and what it earned, to the last 1/10,000 rupee."""
    earned = snapshot.starting_cash_inr_e4 + snapshot.realized_inr_e4 - snapshot.charges_inr_e4
    assert snapshot.cash_inr_e4 + snapshot.holdings_at_cost_inr_e4 == earned
    assert snapshot.holdings_at_cost_inr_e4 == sum(position.cost_inr_e4 for position in snapshot.positions)
    assert snapshot.realized_inr_e4 == sum(total.realized_inr_e4 for total in snapshot.strategies)
    assert snapshot.charges_inr_e4 == sum(total.charges_inr_e4 for total in snapshot.strategies)
