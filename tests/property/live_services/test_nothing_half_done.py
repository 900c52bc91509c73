"""A record that a service fails on leaves its state as it was, whatever it is that is wrong with it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from live_services.domain.account.orders import IllegalTransition
from live_services.domain.events import (
    AccountOpened,
    Event,
    OrderCancelled,
    OrderRejected,
    OrderSubmitted,
    PnlSnapshot,
)
from live_services.domain.log import NOWHERE, EventRecord
from tests.account_world import Account
from tests.live_world import OPEN, SECOND, ended, exit_of, filled, signal, submitted, ticks, validated
from tests.state_comparison import facts_of

RISK, TRADING, PORTFOLIO = range(3)
FAILURES = (ValueError, TypeError, KeyError, OverflowError, ArithmeticError, IllegalTransition)
NUMBERS = st.sampled_from([-(10**30), -1, 0, 1, 7, 101, 2**62, 2**63, 10**15 + 1, 10**307, 10**320])
PRICES = st.sampled_from([float("nan"), float("inf"), -float("inf"), -1.0, 0.0, 1e-300, 1e11, 1e12, 1e308])
TEXTS = st.sampled_from(["", "AAA", "BBB", "GHOST", "momentum", "x" * 1000])
OF_TYPE = {int: NUMBERS, float: PRICES, str: TEXTS}
CHOSEN = {"side": st.sampled_from(["BUY", "SELL"]), "intent": st.sampled_from(["open", "close"])}


def account() -> Account:
    """Give an account with a protected position, an order under way, one that filled in part, and a proposal."""
    made = Account()
    made.say(signal(0, 10, stop_inr=1.0, target_inr=2.0)).until(11)
    made.market(ticks((0, 11, 100.0), (1, 11, 200.0), (0, 12, 100.1)))
    made.say(signal(1, 20, "SELL", price=200.0)).until(21)
    made.say(signal(2, 30))
    return made


def under_way(made: Account) -> OrderSubmitted:
    """Give the order that nothing filled yet."""
    (order,) = (o.submitted for o in made.books.orders.values() if o.submitted.reason == "entry")
    return order


def events_of(made: Account) -> list[tuple[int, Event]]:
    """Give a good event of each kind that a service takes, with the service's place in the chain."""
    order, opened = under_way(made), made.of(AccountOpened)[0]
    fill = filled(order, 22, 200.0)
    entry = validated(2, 25)
    return [
        (RISK, signal(2, 31)),
        (RISK, filled(submitted(entry), 26, 100.0)),
        (TRADING, entry),
        (TRADING, exit_of(made.of(type(fill))[0], 25)),
        (PORTFOLIO, submitted(entry)),
        (PORTFOLIO, fill),
        (PORTFOLIO, filled(order, 22, 200.0, quantity=4, left=order.quantity - 4)),
        (PORTFOLIO, ended(order, 22, OrderCancelled)),
        (PORTFOLIO, ended(order, 22, OrderRejected)),
        (PORTFOLIO, opened.model_copy(update={"positions": made.books.carried()})),
    ]


def handled(made: Account, place: int, event: Event) -> bool:
    """Let a service handle an event; whether it did."""
    service, state = made.chain.services[place], made.state.of[place]
    try:
        list(service.handle(EventRecord(event, NOWHERE), state, OPEN + 40 * SECOND))
    except FAILURES:
        return False
    return True


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_record_that_fails_leaves_the_state_as_it_was(data: st.DataObject) -> None:
    made = account()
    place, event = data.draw(st.sampled_from(events_of(made)))
    fields: dict[str, Any] = {}
    for name in data.draw(st.lists(st.sampled_from(sorted(type(event).model_fields)), min_size=1, max_size=2)):
        value = getattr(event, name)
        values = CHOSEN.get(name, OF_TYPE.get(type(value)))
        if values is not None:
            fields[name] = data.draw(values)
    before = facts_of(made.state)
    if not handled(made, place, event.model_copy(update=fields)):
        after = facts_of(made.state)
        assert [path for path in before.keys() | after.keys() if before.get(path) != after.get(path)] == []


@pytest.mark.parametrize(
    ("place", "name", "fields"),
    [
        (PORTFOLIO, "order.submitted", {"instrument_token": 7}),
        (PORTFOLIO, "order.submitted", {"reference_price": 1e308}),
        (PORTFOLIO, "order.submitted", {"reference_price": float("nan")}),
        (PORTFOLIO, "order.filled", {"instrument_token": 7}),
        (PORTFOLIO, "order.filled", {"instrument_token": 101}),
        (PORTFOLIO, "order.filled", {"price_inr_e4": 10**320}),
        (PORTFOLIO, "order.filled", {"price_inr_e4": 0}),
        (PORTFOLIO, "order.filled", {"quantity": 10**307, "remaining_quantity": 0}),
        (PORTFOLIO, "order.filled", {"quantity": -1, "remaining_quantity": 11}),
        (PORTFOLIO, "order.filled", {"order_id": "of nobody"}),
        (PORTFOLIO, "order.cancelled", {"order_id": "of nobody"}),
        (PORTFOLIO, "account.opened", {"cash_inr_e4": 7}),
        (TRADING, "signal.validated", {"instrument_token": 7}),
        (TRADING, "signal.validated", {"quantity": 10**307}),
        (TRADING, "signal.validated", {"quantity": 0}),
        (RISK, "order.filled", {"strategy": "nobody"}),
    ],
    ids=str,
)
def test_what_used_to_end_a_service_fails_and_leaves_the_state_as_it_was(
    place: int, name: str, fields: dict[str, Any]
) -> None:
    made = account()
    before = facts_of(made.state)
    event = next(event for at, event in events_of(made) if (at, event.event_type) == (place, name))
    assert not handled(made, place, event.model_copy(update=fields))
    assert facts_of(made.state) == before


def test_a_second_record_of_one_id_fails_and_leaves_the_state_as_it_was() -> None:
    made = account()
    order = under_way(made)
    twice = [(RISK, signal(0, 10)), (RISK, signal(2, 30)), (PORTFOLIO, order)]
    before = facts_of(made.state)
    for place, event in twice:
        assert not handled(made, place, event)
    assert facts_of(made.state) == before


def test_a_snapshot_that_cannot_be_said_keeps_what_was_closed_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    made = account()
    made.until(40)
    closed = made.market(ticks((0, 41, 103.0))).books.closed
    assert len(closed) == 1
    with monkeypatch.context() as patch:
        patch.setattr("live_services.domain.account.snapshots.marked", lambda *_: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            made.until(45)
    assert len(made.books.closed) == 1
    made.close()
    told = [one for said in made.of(PnlSnapshot) for one in said.positions if not one.quantity]
    assert len(told) == 1
