"""Halts in the account's chain: what is refused, what is held back, what is closed, and what goes on."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from feature_store.market.types import Bars, Session, Universe
from live_services.domain.account.trading_states import TradingStates
from live_services.domain.events import (
    AccountOpened,
    OrderCancelled,
    OrderFilled,
    OrderSubmitted,
    SignalRejected,
    SignalValidated,
    TradingState,
    TradingStateChanged,
    TradingStateInForce,
)
from tests.account_world import Account
from tests.live_world import MINUTE, OPEN, SECOND, SESSION, UNIVERSE, bars, signal, ticks

NEXT = Session.regular(dt.date(2026, 1, 6))
LATER_NS = NEXT.open_ns - OPEN
LATER = LATER_NS / SECOND
LAST = (SESSION.close_ns - OPEN) // SECOND
SQUARE_OFF = LAST - 5 * 60


def exits(account: Account) -> list[tuple[str, str, float]]:
    """Exits that became orders: the strategy, why, and seconds after the open of the first session."""
    return [
        (order.strategy, order.reason, (order.event_time_ns - OPEN) / SECOND)
        for order in account.of(OrderSubmitted)
        if order.intent == "close"
    ]


def holding(*, strategy: str = "momentum", **changes: object) -> Account:
    """A position that is due to be closed at 660 seconds."""
    return Account().say(signal(strategy=strategy, **changes)).market(ticks((0, 61, 100.0)))  # type: ignore[arg-type]


def in_force(state: TradingState, strategy: str | None = None, since_ns: int = 5) -> TradingStateInForce:
    return TradingStateInForce(
        strategy=strategy,
        state=state,
        flatten=False,
        since_ns=since_ns,
        reason="r",
        commanded_by="asha",
        commanded_at_ns=1,
    )


# --- which one counts ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("broker", "strategy", "counts"),
    [
        ("ACTIVE", "ACTIVE", None),
        ("REDUCING", "ACTIVE", "REDUCING"),
        ("REDUCING", "HALTED", "HALTED"),
        ("HALTED", "REDUCING", "HALTED"),
        ("ACTIVE", "REDUCING", "REDUCING"),
    ],
)
def test_of_the_brokers_and_the_strategys_state_the_stricter_one_counts(
    broker: TradingState, strategy: TradingState, counts: TradingState | None
) -> None:
    states = TradingStates().after(in_force(broker)).after(in_force(strategy, "momentum"))
    strictest = states.strictest("momentum")
    assert (strictest.state if strictest is not None else None) == counts
    others = states.strictest("other")
    assert (others.state if others is not None else "ACTIVE") == broker


def test_a_command_replaces_what_its_own_scope_had_and_nothing_else() -> None:
    states = TradingStates().after(in_force("HALTED")).after(in_force("HALTED", "momentum"))
    lifted = states.after(in_force("ACTIVE"))
    assert [one.strategy for one in lifted.in_force] == ["momentum"]
    assert TradingStates.carried(states.in_force) == states


# --- entries ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["REDUCING", "HALTED"])
@pytest.mark.parametrize("scope", [None, "momentum"])
def test_entries_are_refused_with_who_commanded_it_and_why(state: TradingState, scope: str | None) -> None:
    account = Account().command(state, 30, strategy=scope).say(signal()).until(61)
    (rejected,) = account.of(SignalRejected)
    assert (rejected.rule, rejected.limit) == ("trading_state", f"{scope or 'paper'} is ACTIVE")
    assert rejected.observed.startswith(f"{state} since ")
    assert rejected.observed.endswith("by asha: the desk said so")
    assert account.of(OrderSubmitted) == []
    account.command("ACTIVE", 90, strategy=scope).say(signal(1, 120)).until(121)
    assert [order.symbol for order in account.of(OrderSubmitted)] == ["BBB"]


def test_a_strategys_halt_is_no_other_strategys() -> None:
    account = Account().command("HALTED", 30, strategy="other").say(signal(), signal(1, strategy="other")).until(61)
    assert [order.strategy for order in account.of(OrderSubmitted)] == ["momentum"]


# --- exits --------------------------------------------------------------------------------------------------------


def test_while_reducing_an_exit_is_raised_when_it_is_due() -> None:
    assert exits(holding().command("REDUCING", 100).until(700)) == [("momentum", "time", 660.0)]


def test_a_halt_holds_an_exit_back_and_it_is_raised_in_the_instant_in_which_the_halt_is_lifted() -> None:
    account = holding().command("HALTED", 100).until(700)
    assert exits(account) == []
    account.command("REDUCING", 720)
    assert exits(account) == [("momentum", "time", 720.0)]
    assert exits(account.command("ACTIVE", 730).until(800)) == [("momentum", "time", 720.0)]


def test_an_exit_that_is_not_due_when_the_halt_is_lifted_waits_for_its_time() -> None:
    account = holding().command("HALTED", 100).command("ACTIVE", 200).until(700)
    assert exits(account) == [("momentum", "time", 660.0)]


def test_of_two_halts_the_exit_waits_for_the_last_to_be_lifted() -> None:
    account = holding().command("HALTED", 100).command("HALTED", 101, strategy="momentum").until(700)
    assert exits(account.command("ACTIVE", 710)) == []
    assert exits(account.command("ACTIVE", 720, strategy="momentum")) == [("momentum", "time", 720.0)]


def test_while_halted_what_rests_at_the_exchange_fills_and_an_entry_under_way_gets_its_stop() -> None:
    account = Account().say(signal(stop_inr=1.0)).command("HALTED", 60.5)
    account.market(ticks((0, 61, 100.0), (0, 62, 98.0)))
    assert [fill.reason for fill in account.of(OrderFilled)] == ["entry", "stop"]
    assert account.books.positions == {}
    assert exits(account.until(700).command("ACTIVE", 710)) == [("momentum", "bracket", 61.0)]


# --- flatten ------------------------------------------------------------------------------------------------------


def test_to_flatten_closes_what_its_scope_holds_at_once_and_lets_nothing_in() -> None:
    account = Account().say(signal(stop_inr=1.0), signal(1, strategy="other"))
    account.market(ticks((0, 61, 100.0), (1, 61, 50.0)))
    account.command("REDUCING", 100, strategy="momentum", flatten=True)
    assert exits(account)[1:] == [("momentum", "flatten", 100.0)]
    assert [(end.reason, end.why) for end in account.of(OrderCancelled)] == [("bracket", "flatten_exit")]
    account.command("REDUCING", 110, flatten=True)
    assert exits(account)[2:] == [("other", "flatten", 110.0)], "what is being closed is not closed twice"
    account.say(signal(2, 120)).market(ticks((0, 130, 101.0), (1, 130, 51.0)))
    assert account.books.positions == {}
    assert [fill.reason for fill in account.of(OrderFilled)][2:] == ["flatten", "flatten"]
    assert [rejected.rule for rejected in account.of(SignalRejected)] == ["trading_state"]


def test_to_flatten_closes_an_entry_that_was_under_way_as_soon_as_it_fills() -> None:
    account = Account().say(signal()).command("REDUCING", 60.5, flatten=True)
    assert exits(account) == []
    assert exits(account.market(ticks((0, 61, 100.0), (1, 80, 9.0)))) == [("momentum", "flatten", 61.0)]


def test_who_flattens_twice_in_one_instant_while_no_order_is_given_has_it_validated_once() -> None:
    account = holding().switch(False, 100).command("REDUCING", 110, flatten=True)
    account.command("REDUCING", 110, strategy="momentum", flatten=True)
    assert [one.reason for one in account.of(SignalValidated)] == ["entry", "flatten"]
    assert exits(account) == []
    assert exits(account.switch(True, 120).until(121)) == [("momentum", "flatten", 120.0)]


def test_to_flatten_closes_what_a_halt_would_hold_back() -> None:
    account = holding().command("HALTED", 100).until(700)
    account.command("REDUCING", 710, strategy="momentum", flatten=True)
    assert exits(account) == [("momentum", "flatten", 710.0)]


# --- the session's end --------------------------------------------------------------------------------------------


def test_a_halt_holds_the_square_off_back_and_one_that_is_lifted_before_the_close_squares_off_at_once() -> None:
    account = holding(expiry_ns=SESSION.close_ns).command("HALTED", 100).until(SQUARE_OFF + 60)
    assert exits(account) == []
    assert exits(account.command("ACTIVE", SQUARE_OFF + 61)) == [("momentum", "square_off", SQUARE_OFF + 61)]


def tomorrow(table: Bars) -> Bars:
    return dataclasses.replace(table, start_ns=table.start_ns + LATER_NS, end_ns=table.end_ns + LATER_NS)


def test_a_halt_goes_on_into_the_next_session_and_what_it_held_back_is_closed_when_it_is_lifted() -> None:
    first = Account(on_bars=True).say(signal()).market(bars((0, 1, 100.0, 100.5))).command("HALTED", 300).close()
    assert len(first.books.positions) == 1
    account = Account(on_bars=True, session=NEXT, before=first)
    (opened,) = account.of(AccountOpened)
    assert [(one.state, one.commanded_by) for one in opened.trading_states] == [("HALTED", "asha")]
    assert opened.command_offset == 0
    account.market(tomorrow(bars((0, 0, 98.0, 97.0)))).until(LATER + 61)
    assert exits(account) == []
    assert exits(account.command("ACTIVE", LATER + 90)) == [("momentum", "carried", LATER + 90)]


def test_what_a_halt_holds_back_into_the_next_session_has_its_stop_there_too() -> None:
    first = Account(on_bars=True).say(signal(stop_inr=1.0)).market(bars((0, 1, 100.0, 100.5)))
    first.command("HALTED", 300).close()
    account = Account(on_bars=True, session=NEXT, before=first).until(LATER + 1)
    assert exits(account) == [("momentum", "bracket", LATER)]
    lifted = account.command("ACTIVE", LATER + 2)
    assert exits(lifted) == [("momentum", "bracket", LATER), ("momentum", "carried", LATER + 2)]
    assert [end.why for end in lifted.of(OrderCancelled)] == ["carried_exit"]
    lifted.market(tomorrow(bars((0, 1, 98.0, 97.0)))).close()
    assert [fill.reason for fill in lifted.of(OrderFilled)] == ["carried"]
    assert lifted.books.positions == {}


def test_to_flatten_passes_over_what_nobody_can_close_in_this_session() -> None:
    held = Account(on_bars=True).say(signal(), signal(1)).market(bars((0, 1, 100.0, 100.5), (1, 1, 50.0, 50.0)))
    gone = Universe(instruments=UNIVERSE.instruments[1:])
    account = Account(on_bars=True, session=NEXT, universe=gone, before=held.command("HALTED", 300).close())
    account.command("REDUCING", LATER + 60, flatten=True)
    assert [(order.symbol, order.reason) for order in account.of(OrderSubmitted)] == [("BBB", "flatten")]
    assert [one.symbol for one in account.of(SignalValidated)] == ["BBB"]


def test_a_delivery_that_could_not_be_flattened_is_closed_at_the_next_open() -> None:
    raw = signal(product="CNC", expiry_ns=NEXT.open_ns + 30 * MINUTE)
    first = Account(on_bars=True).say(raw).market(bars((0, 1, 100.0, 100.5)))
    first.command("REDUCING", 300, flatten=True).close()
    assert exits(first) == [("momentum", "flatten", 300.0)]
    again = Account(on_bars=True, session=NEXT, before=first).close()
    assert exits(again) == [("momentum", "flatten", LATER)]
    lifted = Account(on_bars=True, session=NEXT, before=first.command("ACTIVE", LAST + 1)).close()
    assert exits(lifted) == [("momentum", "time", LATER + 1800)]


def test_a_log_of_before_there_were_halts_is_read() -> None:
    (opened,) = Account().of(AccountOpened)
    old = opened.model_dump(mode="json")
    del old["trading_states"], old["command_offset"]
    assert AccountOpened.model_validate(old) == opened
    assert opened.command_offset == -1


def test_a_change_names_the_command_that_it_answers() -> None:
    account = Account().command("HALTED", 5).command("ACTIVE", 5)
    changes = account.of(TradingStateChanged)
    assert [(one.in_force.state, one.command_offset) for one in changes] == [("HALTED", 0), ("ACTIVE", 1)]
    assert all(one.in_force.since_ns == one.event_time_ns == OPEN + 5 * SECOND for one in changes)
    assert all(one.causation_id == one.correlation_id != one.event_id for one in changes)
