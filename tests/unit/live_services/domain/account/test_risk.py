"""Risk in the account's chain: what is judged, in which order, and what ends a position."""

from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from feature_store.market.types import Bars, Session, Universe
from live_services.domain.account.risk import ALREADY_OPEN, CLOSE_RULES, OPEN_RULES
from live_services.domain.events import (
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    OrderSubmitted,
    SignalGenerated,
    SignalRejected,
    SignalValidated,
)
from live_services.domain.limits import AccountConfig
from tests.account_world import Account, limits
from tests.live_world import MINUTE, OPEN, SECOND, SESSION, UNIVERSE, bars, signal, ticks, token

NEXT = Session.regular(dt.date(2026, 1, 6))
LATER_NS = NEXT.open_ns - OPEN
LAST = (SESSION.close_ns - OPEN) // SECOND
SQUARE_OFF = LAST - 5 * 60


def refused(account: Account) -> SignalRejected:
    (rejected,) = account.of(SignalRejected)
    return rejected


def exits(account: Account) -> list[tuple[str, float]]:
    """Orders of exits: why, and seconds after the open of the account's session."""
    return [
        (order.reason, (order.event_time_ns - account.session.open_ns) / SECOND)
        for order in account.of(OrderSubmitted)
        if order.intent == "close"
    ]


def tomorrow(table: Bars) -> Bars:
    return dataclasses.replace(table, start_ns=table.start_ns + LATER_NS, end_ns=table.end_ns + LATER_NS)


# --- entries ------------------------------------------------------------------------------------------------------


def test_a_proposal_within_all_limits_is_validated_and_names_the_rules_asked() -> None:
    raw = signal(stop_inr=1.0)
    (verdict,) = Account().say(raw).until(61).of(SignalValidated)
    assert verdict.rules == tuple(rule.__name__ for rule in OPEN_RULES)
    assert (verdict.signal_id, verdict.causation_id, verdict.correlation_id) == (raw.event_id,) * 3
    assert (verdict.event_time_ns, verdict.quantity, verdict.exit) == (raw.event_time_ns, 10, raw.exit)
    assert verdict.reason == "entry"


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        (limits(max_quantity_per_instrument=9), "quantity_per_instrument"),
        (limits(max_notional_per_instrument_inr=999.99), "notional_per_instrument"),
        (limits(max_gross_notional_inr=999.99), "gross_notional"),
    ],
)
def test_a_limit_that_is_exceeded_names_its_rule_and_what_it_saw(config: AccountConfig, rule: str) -> None:
    account = Account(config).say(signal()).until(61)
    rejected = refused(account)
    assert rejected.rule == rule
    assert rejected.limit != rejected.observed
    assert account.of(OrderSubmitted) == []


def test_a_limit_that_is_met_exactly_is_not_exceeded() -> None:
    config = limits(
        max_quantity_per_instrument=10,
        max_notional_per_instrument_inr=1000,
        max_gross_notional_inr=1000,
        max_open_positions=1,
    )
    assert Account(config).say(signal()).until(61).of(SignalValidated)


@pytest.mark.parametrize(
    ("config", "rule"),
    [
        (limits(max_open_positions=2), "open_positions"),
        (limits(max_gross_notional_inr=2500), "gross_notional"),
    ],
)
def test_limits_bind_within_one_instant(config: AccountConfig, rule: str) -> None:
    account = Account(config).say(*(signal(index) for index in range(3))).until(61)
    assert [event.symbol for event in account.of(SignalValidated)] == ["AAA", "BBB"]
    assert (refused(account).symbol, refused(account).rule) == ("CCC", rule)


def test_shares_of_one_instrument_count_for_all_strategies_together() -> None:
    account = Account(limits(max_quantity_per_instrument=15))
    account.say(signal(strategy="trend"), signal(side="SELL", strategy="reversal")).until(61)
    assert refused(account).rule == "quantity_per_instrument"
    assert refused(account).observed == "20 shares"


def test_at_one_instant_the_stated_priority_decides_who_comes_first_then_the_name_then_the_instrument() -> None:
    proposals = [
        signal(2, strategy="a", priority=1),
        signal(1, strategy="b"),
        signal(0, strategy="b"),
        signal(0, strategy="c", priority=-1),
    ]
    judged = [("c", "AAA"), ("b", "AAA"), ("b", "BBB"), ("a", "CCC")]
    for arrival in (proposals, proposals[::-1]):
        account = Account().say(*arrival).until(61)
        assert [(event.strategy, event.symbol) for event in account.of(SignalValidated)] == judged


def test_a_proposal_is_judged_only_when_all_of_its_instant_are_there() -> None:
    account = Account().say(signal())
    assert account.of(SignalValidated) == []
    account.until(60)
    assert account.of(SignalValidated) == []
    account.until(60 + 1e-9)
    assert len(account.of(SignalValidated)) == 1


def test_a_proposal_that_is_made_again_otherwise_is_refused_and_leaves_one_verdict_each() -> None:
    first = signal()
    account = Account().say(first, signal(1))
    for score in (0.6, 0.7, 0.8):
        with pytest.raises(ValueError, match="was made twice; the first one stands"):
            account.say(first.model_copy(update={"score": score}))
    assert [verdict.symbol for verdict in account.until(61).of(SignalValidated)] == ["AAA", "BBB"]


@pytest.mark.parametrize("side", ["BUY", "SELL"])
def test_what_the_strategy_holds_or_has_under_way_is_already_open_on_either_side(side: str) -> None:
    account = Account().say(signal()).until(61)
    account.say(signal(seconds=90, side=side)).until(91)
    assert (refused(account).rule, refused(account).observed) == (ALREADY_OPEN, "an order under way")
    account.market(ticks((0, 100, 100.0)))
    account.say(signal(seconds=120, side=side)).until(121)
    assert [rejected.observed for rejected in account.of(SignalRejected)][1:] == ["position 10"]


def test_another_strategy_may_hold_the_same_instrument() -> None:
    account = Account().say(signal(strategy="trend"), signal(strategy="reversal", side="SELL")).until(61)
    account.market(ticks((0, 70, 100.0)))
    held = {strategy: position.quantity for (strategy, _), position in account.books.positions.items()}
    assert held == {"trend": 10, "reversal": -10}


@pytest.mark.parametrize(
    ("proposal", "observed"),
    [(signal(3), "not tradable"), (signal(instrument_token=999, symbol="GONE"), "not in the universe")],
)
def test_what_cannot_be_traded_is_refused(proposal: SignalGenerated, observed: str) -> None:
    rejected = refused(Account().say(proposal).until(61))
    assert rejected.rule == "tradable"
    assert observed in rejected.observed


@pytest.mark.parametrize(("product", "last"), [("MIS", SQUARE_OFF), ("CNC", LAST)])
def test_nothing_is_opened_after_its_products_last_time(product: str, last: float) -> None:
    account = Account().say(signal(0, last - 1, product=product), signal(1, last, product=product)).close()
    assert [event.symbol for event in account.of(SignalValidated) if event.intent == "open"] == ["AAA"]
    assert (refused(account).symbol, refused(account).rule) == ("BBB", "market_hours")


# --- exits --------------------------------------------------------------------------------------------------------


def test_a_position_is_closed_when_its_time_is_over_without_a_tick_of_it() -> None:
    raw = signal()
    account = Account().say(raw).market(ticks((0, 61, 100.0), (1, 700, 5.0))).until(700)
    assert exits(account) == [("time", 660.0)]
    (entry,) = account.of(OrderFilled)
    way_out = account.of(SignalValidated)[-1]
    assert way_out.rules == CLOSE_RULES
    assert (way_out.causation_id, way_out.signal_id, way_out.correlation_id) == (
        entry.event_id,
        raw.event_id,
        raw.event_id,
    )
    account.market(ticks((0, 800, 101.0)))
    assert account.books.positions == {}
    assert account.of(OrderFilled)[-1].reason == "time"


def test_an_exit_is_asked_for_no_limit() -> None:
    account = Account(limits(max_open_positions=1, max_quantity_per_instrument=10)).say(signal())
    account.market(ticks((0, 61, 100.0), (0, 661, 1000.0)))
    assert account.books.positions == {}


def test_exits_come_before_the_entries_of_their_instant() -> None:
    account = Account(limits(max_open_positions=1)).say(signal()).market(ticks((0, 61, 100.0)))
    account.say(signal(1, 660)).until(661)
    orders = [(order.symbol, order.intent) for order in account.of(OrderSubmitted)]
    assert orders == [("AAA", "open"), ("AAA", "close")]
    assert refused(account).rule == "open_positions"  # the exit is under way, and what it closes is still held


@pytest.mark.parametrize(("product", "reason", "at"), [("MIS", "square_off", SQUARE_OFF), ("CNC", "time", LAST - 60)])
def test_an_intraday_position_is_squared_off_and_a_delivery_is_held_to_its_time(
    product: str, reason: str, at: float
) -> None:
    raw = signal(product=product, expiry_ns=SESSION.close_ns - MINUTE)
    assert exits(Account().say(raw).market(ticks((0, 61, 100.0))).close()) == [(reason, at)]


@pytest.mark.parametrize("on_bars", [False, True])
def test_an_entry_that_fills_after_its_time_is_closed_at_once_and_never_before_it_filled(on_bars: bool) -> None:
    account = Account(on_bars=on_bars).say(signal())  # its ten minutes end at 660
    account.market(
        bars((0, 15, 100.0, 101.0), (0, 20, 102.0, 103.0)) if on_bars else ticks((0, 950, 9.0), (0, 990, 9.5))
    )
    entry, way_out = account.of(OrderFilled)
    (order,) = (order for order in account.of(OrderSubmitted) if order.intent == "close")
    assert order.event_time_ns == entry.event_time_ns > OPEN + 660 * SECOND
    assert way_out.price_time_ns >= entry.event_time_ns
    assert way_out.event_time_ns > entry.event_time_ns
    times = [event.event_time_ns for event in account.events]
    assert times == sorted(times)


def test_an_entry_that_fills_after_the_square_off_is_closed_at_once() -> None:
    account = Account().say(signal(0, SQUARE_OFF - 1)).market(ticks((0, SQUARE_OFF + 30, 100.0)))
    assert exits(account.close()) == [("square_off", SQUARE_OFF + 30)]


def test_stop_and_target_rest_from_the_opening_fills_price() -> None:
    for side, stop, target in (("BUY", 99.5, 101.5), ("SELL", 100.5, 98.5)):
        raw = signal(side=side, stop_inr=0.5, target_inr=1.5, price=99.0)
        account = Account().say(raw).market(ticks((0, 61, 100.0)))
        bracket = account.of(OrderSubmitted)[-1]
        assert (bracket.reason, bracket.intent, bracket.quantity) == ("bracket", "close", 10)
        assert (bracket.stop_price_inr_e4, bracket.target_price_inr_e4) == (round(stop * 1e4), round(target * 1e4))
        assert bracket.event_time_ns == OPEN + 61 * SECOND
        assert bracket.side != side


def test_a_position_without_stop_and_target_has_no_bracket() -> None:
    assert exits(Account().say(signal()).market(ticks((0, 61, 100.0)))) == []


# --- what is left at the close ------------------------------------------------------------------------------------


def left_open(**changes: object) -> Account:
    """A position whose instrument was not traded any more: its exit was cancelled at the close."""
    account = Account(on_bars=True).say(signal(**changes)).market(bars((0, 1, 100.0, 100.5))).close()  # type: ignore[arg-type]
    assert [end.reason for end in account.of(OrderCancelled)][-1] == "time"
    assert account.books.positions
    return account


@pytest.mark.parametrize("product", ["MIS", "CNC"])
def test_what_could_not_be_closed_is_closed_at_the_next_open(product: str) -> None:
    first = left_open(product=product)
    account = Account(on_bars=True, session=NEXT, before=first)
    account.market(tomorrow(bars((0, 0, 98.0, 97.0), (0, 1, 96.0, 95.0))))
    assert exits(account) == [("carried", 0.0)]
    (fill,) = account.of(OrderFilled)
    assert (fill.reason, fill.price_inr_e4, fill.price_time_ns) == ("carried", 980_000, NEXT.open_ns)
    assert account.books.positions == {}
    (opened,) = first.of(OrderFilled)
    assert account.of(SignalValidated)[0].causation_id == opened.event_id


def test_an_exit_that_was_cancelled_twice_is_raised_again_on_the_third_day() -> None:
    third = Session.regular(dt.date(2026, 1, 7))
    account = Account(on_bars=True, session=NEXT, before=left_open()).close()
    assert exits(account) == [("carried", 0.0)]
    assert account.books.positions
    assert exits(Account(on_bars=True, session=third, before=account).close()) == [("carried", 0.0)]


def test_a_delivery_that_is_not_over_has_its_stop_and_target_again_at_the_next_open() -> None:
    raw = signal(product="CNC", expiry_ns=NEXT.open_ns + 30 * MINUTE, stop_inr=1.0, target_inr=2.0)
    first = Account(on_bars=True).say(raw).market(bars((0, 1, 100.0, 100.5))).close()
    assert [(end.reason, end.why) for end in first.of(OrderCancelled)] == [("bracket", "session_closed")]
    account = Account(on_bars=True, session=NEXT, before=first)
    account.market(tomorrow(bars((0, 0, 100.0, 100.0), (0, 1, 100.0, 102.5))))
    assert exits(account) == [("bracket", 0.0)]
    (fill,) = account.of(OrderFilled)
    assert (fill.reason, fill.price_inr_e4) == ("target", 1_020_000)
    untouched = Account(on_bars=True, session=NEXT, before=first).close()
    assert exits(untouched) == [("bracket", 0.0), ("time", 1800.0)]


def test_what_is_carried_counts_against_the_limits_and_is_already_open() -> None:
    raw = signal(product="CNC", expiry_ns=NEXT.close_ns - MINUTE)
    first = Account(limits(max_open_positions=1), on_bars=True).say(raw).market(bars((0, 1, 100.0, 100.5))).close()
    again = [signal(index, 60 + LATER_NS / SECOND) for index in (0, 1)]
    account = Account(on_bars=True, session=NEXT, before=first).say(*again).close()
    assert [rejected.rule for rejected in account.of(SignalRejected)] == [ALREADY_OPEN, "open_positions"]


def test_a_carried_position_that_cannot_be_traded_today_waits_for_a_day_on_which_it_can() -> None:
    third = Session.regular(dt.date(2026, 1, 7))
    suspended = Universe(
        instruments=(UNIVERSE.instruments[0].model_copy(update={"tradable": False}), *UNIVERSE.instruments[1:])
    )
    delisted = Universe(instruments=UNIVERSE.instruments[1:])
    first = left_open()
    for universe in (suspended, delisted):
        account = Account(on_bars=True, session=NEXT, universe=universe, before=first).close()
        assert ("momentum", token(0)) in account.books.positions
        assert len(account.of(OrderRejected)) == (universe is suspended)
        assert exits(Account(on_bars=True, session=third, before=account).close()) == [("carried", 0.0)]
