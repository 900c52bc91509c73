"""The account's identities, whatever is proposed, filled, cancelled and carried, and however it comes in."""

from __future__ import annotations

import dataclasses
import datetime as dt
import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from feature_store.market.types import Bars, Session, Ticks
from live_services.domain.account.books import BookError, Books
from live_services.domain.account.trades import round_trips
from live_services.domain.events import (
    AccountOpened,
    Event,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    OrderSubmitted,
    PnlSnapshot,
    SignalGenerated,
    SignalRejected,
    SignalValidated,
)
from live_services.domain.limits import AccountConfig, RiskLimits
from live_services.domain.log import event_times
from live_services.domain.money import RUPEE
from tests.account_world import Account
from tests.live_world import (
    MINUTE,
    SESSION,
    UNIVERSE,
    ended,
    exit_of,
    filled,
    random_walk,
    self_caused,
    session_bars,
    signal,
    submitted,
    token,
    validated,
)

# --- the whole chain over several sessions ------------------------------------------------------------------------

DATES = (dt.date(2026, 1, 5), dt.date(2026, 1, 6), dt.date(2026, 1, 7))
SHORT = tuple(dataclasses.replace(s, close_ns=s.open_ns + 30 * MINUTE) for s in map(Session.regular, DATES))
LIMITS = RiskLimits(
    max_quantity_per_instrument=60,
    max_notional_per_instrument_inr=9_000,
    max_gross_notional_inr=14_000,
    max_open_positions=5,
)
CONFIG = AccountConfig(pnl_interval_seconds=97, square_off_minutes_before_close=3, risk=LIMITS)

distances = st.none() | st.floats(0.01, 0.6)
wishes = st.tuples(
    st.integers(0, 2),  # session
    st.integers(0, 2),  # instrument
    st.integers(0, 29),  # minute
    st.sampled_from(["BUY", "SELL"]),
    st.sampled_from(["a", "b", "c"]),
    st.sampled_from(["MIS", "CNC"]),
    st.integers(1, 30),  # quantity
    st.integers(1, 70),  # minutes held
    distances,
    distances,
    st.integers(-1, 1),  # priority
)


def proposal(wish: tuple[Any, ...]) -> SignalGenerated:
    session, index, minute, side, strategy, product, quantity, held, stop, target, priority = wish
    at_ns = SHORT[session].open_ns + minute * MINUTE
    terms = {"stop_inr": stop, "target_inr": target}
    return signal(
        index,
        (at_ns - SESSION.open_ns) / 1e9,
        side,
        strategy=strategy,
        product=product,
        quantity=quantity,
        priority=priority,
        price=100.0 * (index + 1),
        expiry_ns=at_ns + held * MINUTE,
        **{name: inr for name, inr in terms.items() if inr is not None},
    )


def market(session: int, on_bars: bool) -> Ticks | Bars:
    if on_bars:
        return session_bars(SHORT[session], 3, 30, seed=4)
    walk = random_walk(3, minutes=30, per_minute=4, seed=session)
    return dataclasses.replace(walk, event_time_ns=walk.event_time_ns + SHORT[session].open_ns - SHORT[0].open_ns)


MARKETS = {on_bars: [market(session, on_bars) for session in range(3)] for on_bars in (False, True)}


def lived(proposals: Sequence[SignalGenerated], on_bars: bool, cuts: Sequence[int], silent: set[int]) -> list[Account]:
    """Live through the sessions; of `silent` ones the second half of the market is missing."""
    accounts: list[Account] = []
    for number, session in enumerate(SHORT):
        before = accounts[-1] if accounts else None
        account = Account(CONFIG, session=session, on_bars=on_bars, before=before)
        table = MARKETS[on_bars][number]
        table = table[: len(table) // 2] if number in silent else table
        mine = [one for one in proposals if session.open_ns <= one.event_time_ns < session.close_ns]
        times = event_times(table)
        due = {one.event_time_ns: int(np.searchsorted(times, one.event_time_ns, side="right")) for one in mine}
        inside = [
            times[cut] for cut in cuts if cut < len(table)
        ]  # an instant is never cut: the merge releases it whole
        edges = sorted({0, len(table), *due.values(), *np.searchsorted(times, inside).tolist()})
        said: set[int] = set()
        for first, end in [*itertools.pairwise(edges), (len(table), len(table))]:
            for at_ns in sorted(set(due) - said):
                if due[at_ns] <= first:
                    account.say(*(one for one in mine if one.event_time_ns == at_ns))
                    said.add(at_ns)
            if end > first:
                account.market(table[first:end])
        accounts.append(account.close())
    return accounts


@settings(deadline=None, max_examples=60)
@given(
    st.lists(wishes, max_size=25),
    st.booleans(),
    st.lists(st.integers(0, 360), max_size=6),
    st.sets(st.integers(0, 2), max_size=2),
    st.randoms(use_true_random=False),
)
def test_identities_hold_and_neither_slices_nor_arrival_change_what_is_said(
    wished: list[tuple[Any, ...]], on_bars: bool, cuts: list[int], silent: set[int], rng: Any
) -> None:
    proposals = list({one.event_id: one for one in map(proposal, wished)}.values())
    proposals.sort(key=lambda one: one.event_time_ns)
    accounts = lived(proposals, on_bars, [], silent)
    for account in accounts:
        assert_session(account)
    everything = [event for account in accounts for event in account.events]
    assert_orders(everything)
    assert_trades(accounts, everything)
    rng.shuffle(proposals)  # as several market partitions may hand in those of one instant
    proposals.sort(key=lambda one: one.event_time_ns)
    again = lived(proposals, on_bars, cuts, silent)
    for one, other in zip(accounts, again, strict=True):
        assert other.events == one.events


def assert_session(account: Account) -> None:
    """Snapshots balance (the account asserts it), add up by day, and nothing exceeds a limit when it is accepted."""
    (opened,) = account.of(AccountOpened)
    before_realized = sum(total.realized_inr_e4 for total in opened.strategies)
    before_charges = sum(total.charges_inr_e4 for total in opened.strategies)
    for snapshot in account.of(PnlSnapshot):
        assert snapshot.realized_inr_e4 == before_realized + snapshot.realized_today_inr_e4
        assert snapshot.charges_inr_e4 == before_charges + snapshot.charges_today_inr_e4
        assert snapshot.equity_at_open_inr == opened.equity_inr
        held = sum(position.quantity * position.mark_price for position in snapshot.positions)
        assert snapshot.equity_inr == pytest.approx(snapshot.cash_inr_e4 / RUPEE + held, abs=1e-6)
        total = (snapshot.realized_inr_e4 - snapshot.charges_inr_e4) / RUPEE + snapshot.unrealized_inr
        assert snapshot.equity_inr == pytest.approx(snapshot.starting_cash_inr_e4 / RUPEE + total, abs=1e-6)
        assert sum(position.quantity != 0 for position in snapshot.positions) <= LIMITS.max_open_positions
    times = [event.event_time_ns for event in account.events]
    assert times == sorted(times)
    last = account.of(PnlSnapshot)[-1]
    assert (last.orders_under_way, account.books.orders) == (0, {})
    assert last.fills == len(account.of(OrderFilled))


def assert_orders(events: Sequence[Event]) -> None:
    """One verdict for each proposal, one end for each order, and no id twice."""
    kinds = Counter(event.event_type for event in events)
    entries = sum(isinstance(event, SignalValidated) and event.reason == "entry" for event in events)
    refused = sum(isinstance(event, SignalRejected) for event in events)
    ends = Counter(e.order_id for e in events if isinstance(e, OrderFilled | OrderCancelled | OrderRejected))
    assert set(ends.values()) <= {1}  # the paper exchange fills whole
    assert set(ends) == {event.order_id for event in events if isinstance(event, OrderSubmitted)}
    assert kinds["order.submitted"] == kinds["signal.validated"] >= entries
    identities = [event.event_id for event in events]
    assert len(identities) == len(set(identities))
    assert refused <= len(identities)


def assert_trades(accounts: Sequence[Account], events: Sequence[Event]) -> None:
    """Round trips and what is left open are all that the account earned, and end in the order of their exits."""
    trades = round_trips(events)
    books = accounts[-1].books
    done = [trade for trade in trades if not trade.left_open]
    open_charges = sum(position.charges_inr_e4 for position in books.positions.values())
    assert sum(trade.gross_pnl_inr_e4 for trade in done) == books.realized_inr_e4
    assert sum(trade.charges_inr_e4 for trade in done) == books.charges_inr_e4 - open_charges
    assert {(t.strategy, t.instrument_token) for t in trades if t.left_open} == set(books.positions)
    for trade in done:
        assert trade.exit_time_ns >= trade.entry_time_ns


# --- fills in parts, straight into the books ----------------------------------------------------------------------

STRATEGIES = ("a", "b")
quantities = st.integers(1, 40)
prices = st.integers(9_000, 11_000).map(lambda paise: paise / 100)


@dataclass
class Known:
    """What a simple ledger knows of the account: every fill that ever was."""

    cash_inr_e4: int = 1_000_000 * RUPEE
    charges_inr_e4: int = 0


class BooksMachine(RuleBasedStateMachine):
    """Orders under way, fills in parts, ends, marks and new sessions in any order, beside a simple ledger."""

    @initialize()
    def begin(self) -> None:
        self.books = Books(UNIVERSE, 1_000_000 * RUPEE)
        self.known = Known()
        self.orders: dict[str, tuple[OrderSubmitted, int]] = {}
        self.held: Counter[tuple[str, int]] = Counter()
        self.entries: dict[tuple[str, int], OrderFilled] = {}
        self.seconds = 60

    def _later(self) -> int:
        self.seconds += 1
        return self.seconds

    def _keys_under_way(self, intent: str) -> set[tuple[str, int]]:
        orders = (order for order, _ in self.orders.values() if order.intent == intent)
        return {(order.strategy, order.instrument_token) for order in orders}

    @rule(
        index=st.integers(0, 2),
        side=st.sampled_from(["BUY", "SELL"]),
        strategy=st.sampled_from(STRATEGIES),
        quantity=quantities,
    )
    def propose(self, index: int, side: str, strategy: str, quantity: int) -> None:
        order = submitted(validated(index, self._later(), side, strategy=strategy, quantity=quantity))
        key = (strategy, token(index))
        if self.held[key] or key in self._keys_under_way("open"):
            with pytest.raises(BookError, match="already"):
                self.books.on_submitted(order)
            return
        self.books.on_submitted(order)
        self.orders[order.order_id] = (order, quantity)

    @precondition(lambda self: any(self.held.values()))
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(sorted(key for key, quantity in self.held.items() if quantity)))
        entry = self.entries[key]
        side = "SELL" if self.held[key] > 0 else "BUY"
        order = submitted(exit_of(entry, self._later(), quantity=abs(self.held[key]), side=side))
        self.books.on_submitted(order)
        self.orders[order.order_id] = (order, order.quantity)

    @precondition(lambda self: self.orders)
    @rule(data=st.data(), price=prices, charges=st.integers(0, 99_999))
    def fill(self, data: st.DataObject, price: float, charges: int) -> None:
        order, remaining = self.orders[data.draw(st.sampled_from(sorted(self.orders)))]
        quantity = data.draw(st.integers(1, remaining))
        key, sign = (order.strategy, order.instrument_token), 1 if order.side == "BUY" else -1
        event = filled(order, self._later(), price, quantity, remaining - quantity, charges_inr_e4=charges)
        if order.intent == "close" and quantity > abs(self.held[key]):
            before = self.books.cash_inr_e4
            with pytest.raises(BookError, match="holds"):
                self.books.on_outcome(event)
            assert self.books.cash_inr_e4 == before
            return
        if order.intent == "open" and self.held[key] and self.entries[key].order_id != order.order_id:
            with pytest.raises(BookError, match="held already"):
                self.books.on_outcome(event)
            return
        self.books.on_outcome(event)
        self.held[key] += sign * quantity
        if order.intent == "open":
            self.entries[key] = event
        self.known.cash_inr_e4 -= sign * quantity * event.price_inr_e4 + charges
        self.known.charges_inr_e4 += charges
        self.orders[order.order_id] = (order, remaining - quantity)
        if remaining == quantity:
            del self.orders[order.order_id]

    @precondition(lambda self: self.orders)
    @rule(data=st.data(), cancelled=st.booleans())
    def end(self, data: st.DataObject, cancelled: bool) -> None:
        order, remaining = self.orders[data.draw(st.sampled_from(sorted(self.orders)))]
        kind = OrderCancelled if cancelled or remaining < order.quantity else OrderRejected
        self.books.on_outcome(ended(order, self._later(), kind))
        del self.orders[order.order_id]

    @rule(index=st.integers(0, 2), price=prices)
    def mark(self, index: int, price: float) -> None:
        self.books.on_prices(np.array([index], np.int32), np.array([price]))

    @rule()
    def next_session(self) -> None:
        for order, _ in self.orders.values():
            self.books.on_outcome(ended(order, self._later(), OrderCancelled))
        self.orders.clear()
        record = AccountOpened(
            **self_caused("account_opened", "paper", str(self._later())),
            broker="paper",
            event_time_ns=1,
            session_date="2026-01-06",
            config=AccountConfig(),
            config_digest="c",
            git_commit="g",
            starting_cash_inr_e4=self.books.starting_cash_inr_e4,
            cash_inr_e4=self.books.cash_inr_e4,
            equity_inr=self.books.equity_inr(),
            positions=self.books.carried(),
            strategies=self.books.strategy_totals(),
        )
        tomorrow = Books(UNIVERSE, 1)
        tomorrow.open_from(AccountOpened.model_validate_json(record.model_dump_json()))
        assert tomorrow.equity_inr() == pytest.approx(self.books.equity_inr(), abs=1e-6)
        if not np.isnan(self.books.marks).any():  # before the first price, what is under way counts at its reference
            assert tomorrow.gross_notional_inr_e4() == self.books.gross_notional_inr_e4()
        self.books = tomorrow

    @invariant()
    def balanced(self) -> None:
        books = self.books
        assert books.cash_inr_e4 == self.known.cash_inr_e4
        assert books.charges_inr_e4 == self.known.charges_inr_e4
        earned = books.starting_cash_inr_e4 + books.realized_inr_e4 - books.charges_inr_e4
        assert books.cash_inr_e4 + sum(position.cost_inr_e4 for position in books.positions.values()) == earned
        totals = books.strategy_totals()
        assert sum(total.realized_inr_e4 for total in totals) == books.realized_inr_e4
        assert sum(total.charges_inr_e4 for total in totals) == books.charges_inr_e4

    @invariant()
    def holds_what_was_filled(self) -> None:
        held = {key: quantity for key, quantity in self.held.items() if quantity}
        assert {key: position.quantity for key, position in self.books.positions.items()} == held
        assert all(np.sign(p.cost_inr_e4) == np.sign(p.quantity) for p in self.books.positions.values())

    @invariant()
    def counts_what_is_under_way(self) -> None:
        opening = [(order, left) for order, left in self.orders.values() if order.intent == "open"]
        held = {key for key, quantity in self.held.items() if quantity}
        taken = {(order.strategy, order.instrument_token) for order, _ in opening}
        assert self.books.open_positions == len(held | taken)
        for index in range(3):
            shares = sum(abs(quantity) for (_, at), quantity in self.held.items() if at == token(index))
            waiting = sum(left for order, left in opening if order.instrument_token == token(index))
            assert self.books.quantity(token(index)) == shares + waiting


def test_the_books_balance_whatever_becomes_of_orders() -> None:
    run_state_machine_as_test(BooksMachine, settings=settings(deadline=None, max_examples=150, stateful_step_count=40))
