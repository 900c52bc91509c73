"""The trading stage is switched off and on: what was validated meanwhile is never ordered, and what is due ends."""

from __future__ import annotations

from structlog.testing import capture_logs

from live_services.domain.events import (
    AccountOpened,
    OrderCancelled,
    OrderFilled,
    OrderSubmitted,
    SignalValidated,
    TradingSwitched,
)
from tests.account_world import Account
from tests.live_world import OPEN, SECOND, signal, ticks

OFF = "TRADING__PAPER__ENABLED is false"


def at(events: list[OrderSubmitted] | list[OrderFilled]) -> list[tuple[str, float]]:
    return [(event.reason, (event.event_time_ns - OPEN) / SECOND) for event in events]


def test_a_session_says_once_whether_it_trades_and_why_not() -> None:
    for off in (None, OFF):
        account = Account(trading_off=off)
        opened, switched = account.events
        assert isinstance(opened, AccountOpened)
        assert isinstance(switched, TradingSwitched)
        assert (switched.enabled, switched.event_time_ns) == (off is None, OPEN)
        assert switched.reason == (off or "the trading stage is enabled")
        assert list(account.chain.commands(account.state, OPEN + SECOND)) == []


def test_while_it_is_off_risk_judges_and_nothing_is_ordered() -> None:
    account = Account(trading_off=OFF).say(signal(), signal(0, 61)).market(ticks((0, 62, 100.0))).close()
    assert [event.reason for event in account.of(SignalValidated)] == ["entry", "entry"]
    assert not account.of(OrderSubmitted)


def test_switched_on_in_mid_session_it_orders_what_comes_then_and_nothing_of_before() -> None:
    account = Account(trading_off=OFF).say(signal(0, 60)).switch(True, 90).say(signal(1, 120))
    account.market(ticks((0, 130, 100.0), (1, 130, 50.0)))
    assert [order.symbol for order in account.of(OrderSubmitted)] == ["BBB"]
    assert len(account.of(SignalValidated)) == 2


def test_switched_off_an_entry_under_way_ends_and_a_stop_that_rests_goes_on_resting() -> None:
    account = Account().say(signal(0, 60, stop_inr=1.0), signal(1, 60)).market(ticks((0, 61, 100.0)))
    account.switch(False, 70)
    assert [(end.symbol, end.why) for end in account.of(OrderCancelled)] == [("BBB", "trading_off")]
    account.market(ticks((0, 80, 98.5), (1, 80, 50.0)))
    assert at(account.of(OrderFilled)) == [("entry", 61), ("stop", 80)]
    assert not account.books.positions
    assert not account.books.orders


def test_an_exit_that_came_due_while_it_was_off_is_raised_anew_when_it_is_on_again() -> None:
    account = Account().say(signal(0, 60)).market(ticks((0, 61, 100.0))).switch(False, 100).until(800)
    assert [(e.reason, e.event_time_ns - OPEN) for e in account.of(SignalValidated)][1:] == [("time", 660 * SECOND)]
    account.switch(True, 900).until(901).market(ticks((0, 902, 101.0)))
    assert at(account.of(OrderSubmitted)) == [("entry", 60), ("time", 900)]
    assert not account.books.positions


def test_what_is_held_is_ended_at_its_time_and_stays_protected_over_a_switch_that_nothing_came_due_in() -> None:
    account = Account().say(signal(0, 60, stop_inr=5.0)).market(ticks((0, 61, 100.0)))
    account.switch(False, 100).switch(True, 200).until(700)
    assert at(account.of(OrderSubmitted)) == [("entry", 60), ("bracket", 61), ("time", 660)]


def test_a_position_is_not_left_unwatched_in_silence() -> None:
    with capture_logs() as lines:
        Account().say(signal()).market(ticks((0, 61, 100.0))).switch(False, 100).switch(True, 200)
    said = {line["event"]: line for line in lines}
    assert list(said) == ["trading_is_off", "trading_is_on"]
    assert said["trading_is_off"]["positions"] == 1
