"""Orders at the prices of the market that comes next, in the account's chain."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from feature_store.market.types import Bars, Ticks
from live_services.domain.account.paper_exchange import slipped
from live_services.domain.events import OrderCancelled, OrderFilled, OrderSubmitted, SignalValidated, event_id
from live_services.domain.limits import AccountConfig
from live_services.domain.log import event_times
from live_services.domain.money import HIGHEST_PRICE_INR, MOST_SHARES, RUPEE
from tests.account_world import Account, limits
from tests.live_world import MINUTE, OPEN, SECOND, SESSION, bars, ranges, signal, ticks

LONG = signal(stop_inr=1.0, target_inr=2.0)
SHORT = signal(side="SELL", stop_inr=1.0, target_inr=2.0)


def on_ticks(*rows: tuple[int, float, float], raw: object = LONG) -> Account:
    return Account().say(raw).market(ticks(*rows))  # type: ignore[arg-type]


def on_bars(*rows: tuple[int, int, float, float, float, float], raw: object = LONG) -> Account:
    return Account(on_bars=True).say(raw).market(ranges(*rows))  # type: ignore[arg-type]


def fills(account: Account) -> list[tuple[str, float, float]]:
    """Why, at which price, and seconds after the open at which the account knows it."""
    return [
        (fill.reason, fill.price_inr_e4 / 10_000, (fill.event_time_ns - OPEN) / SECOND)
        for fill in account.of(OrderFilled)
    ]


# --- market orders ------------------------------------------------------------------------------------------------


def test_an_accepted_signal_becomes_an_order_whose_id_comes_from_it() -> None:
    account = Account().say(signal()).until(61)
    (accepted,), (order,) = account.of(SignalValidated), account.of(OrderSubmitted)
    assert order.order_id == event_id("order", accepted.event_id)
    assert (order.event_time_ns, order.causation_id) == (accepted.event_time_ns, accepted.event_id)
    assert order.correlation_id == order.signal_id == accepted.signal_id


def test_an_order_fills_at_the_next_tick_strictly_later_than_its_time() -> None:
    account = on_ticks((0, 59, 99.0), (0, 60, 100.0), (1, 60.5, 7.0), (0, 61, 101.0), (0, 62, 102.0), raw=signal())
    (fill,) = account.of(OrderFilled)
    assert (fill.price_inr_e4, fill.event_time_ns, fill.price_time_ns) == (1_010_000, *[OPEN + 61 * SECOND] * 2)
    assert (fill.fill_model, fill.remaining_quantity) == ("next_tick", 0)
    assert fill.charges_inr_e4 > 0
    assert fill.charges_exact
    assert fill.basis.input_positions == {"market.ticks[0]": (7, 7)}
    assert (fill.basis.config_digest, fill.basis.git_commit) == ("digest", "commit")


def test_the_highest_price_fills_the_largest_order_and_is_charged() -> None:
    raw = signal(quantity=MOST_SHARES, price=1.0)
    account = Account(limits(max_quantity_per_instrument=MOST_SHARES)).say(raw)
    (fill,) = account.market(ticks((0, 61, float(HIGHEST_PRICE_INR)))).close().of(OrderFilled)
    assert fill.quantity * fill.price_inr_e4 == MOST_SHARES * HIGHEST_PRICE_INR * RUPEE
    assert account.books.gross_notional_inr_e4() == MOST_SHARES * HIGHEST_PRICE_INR * RUPEE


def test_an_order_waits_while_its_instrument_has_no_tick() -> None:
    account = on_ticks((1, 61, 5.0), raw=signal())
    assert fills(account) == []
    assert fills(account.market(ticks((0, 90, 5.0)))) == [("entry", 5.0, 90)]


def test_fills_come_in_the_order_of_their_ticks_and_at_one_tick_in_the_order_of_submission() -> None:
    account = Account().say(signal(0, strategy="b"), signal(1, strategy="b"), signal(0, strategy="a"))
    account.market(ticks((1, 62, 50.0), (0, 63, 100.0)))
    said = [(fill.symbol, fill.strategy) for fill in account.of(OrderFilled)]
    assert said == [("BBB", "b"), ("AAA", "a"), ("AAA", "b")]


def test_on_bars_an_order_fills_at_the_next_bars_open_and_knows_it_at_that_bars_end() -> None:
    account = Account(on_bars=True).say(signal(0, 120))
    account.market(bars((0, 1, 98.0, 99.0), (1, 2, 1.0, 1.0)))
    assert fills(account) == []
    account.market(bars((0, 2, 100.0, 105.0), (0, 3, 106.0, 107.0)))
    (fill,) = account.of(OrderFilled)
    assert (fill.price_inr_e4, fill.fill_model) == (1_000_000, "next_bar_open")
    assert (fill.price_time_ns, fill.event_time_ns) == (OPEN + 2 * MINUTE, OPEN + 3 * MINUTE)


def test_a_bar_that_began_before_the_decision_does_not_fill() -> None:
    account = (
        Account(on_bars=True).say(signal(0, 90)).market(bars((0, 0, 1.0, 1.0), (0, 1, 2.0, 2.0), (0, 2, 3.0, 3.0)))
    )
    assert fills(account) == [("entry", 3.0, 180)]


# --- stop and target ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "prices", "end"),
    [
        (LONG, (100.9, 99.0), ("stop", 99.0)),
        (LONG, (100.9, 98.2), ("stop", 98.2)),  # through the stop: at what the market then asks
        (LONG, (100.9, 102.0), ("target", 102.0)),
        (LONG, (100.9, 105.0), ("target", 102.0)),  # never more than its price
        (SHORT, (100.9, 101.0), ("stop", 101.0)),
        (SHORT, (100.9, 103.5), ("stop", 103.5)),
        (SHORT, (100.9, 98.0), ("target", 98.0)),
        (SHORT, (100.9, 90.0), ("target", 98.0)),
    ],
)
def test_on_ticks_a_bracket_ends_at_the_first_tick_that_reaches_one_of_its_prices(
    raw: object, prices: tuple[float, float], end: tuple[str, float]
) -> None:
    account = on_ticks((0, 61, 100.0), (0, 62, prices[0]), (1, 63, 1.0), (0, 64, prices[1]), (0, 65, 100.0), raw=raw)
    assert fills(account) == [("entry", 100.0, 61), (*end, 64)]
    assert account.of(OrderFilled)[-1].fill_model == "touched_on_tick"
    assert account.books.positions == {}
    assert account.books.orders == {}


def test_the_tick_that_filled_the_entry_ends_nothing() -> None:
    account = on_ticks((0, 61, 100.0), (0, 61, 90.0), (0, 62, 98.5))
    assert fills(account)[1:] == [("stop", 98.5, 62)]


@pytest.mark.parametrize(
    ("raw", "bar", "end"),
    [
        (LONG, (100.0, 101.0, 98.9, 100.5), ("stop", 99.0)),
        (LONG, (97.0, 99.5, 96.0, 98.0), ("stop", 97.0)),  # a gap through the stop: at the open
        (LONG, (100.0, 102.1, 99.5, 100.0), ("target", 102.0)),
        (LONG, (103.0, 104.0, 102.5, 103.0), ("target", 102.0)),
        (LONG, (100.0, 102.5, 98.5, 100.0), ("stop", 99.0)),  # both in one bar: the stop
        (SHORT, (100.0, 101.2, 99.0, 100.0), ("stop", 101.0)),
        (SHORT, (103.0, 103.5, 102.0, 102.0), ("stop", 103.0)),
        (SHORT, (100.0, 101.5, 97.5, 100.0), ("stop", 101.0)),
        (SHORT, (100.0, 100.5, 97.9, 98.0), ("target", 98.0)),
    ],
)
def test_on_bars_a_bracket_watches_highs_and_lows(
    raw: object, bar: tuple[float, float, float, float], end: tuple[str, float]
) -> None:
    account = on_bars((0, 1, 100.0, 100.4, 99.6, 100.0), (0, 2, *bar), (0, 3, 100.0, 100.0, 100.0, 100.0), raw=raw)
    assert fills(account) == [("entry", 100.0, 120), (*end, 180)]
    last = account.of(OrderFilled)[-1]
    assert (last.fill_model, last.price_time_ns) == ("touched_on_bar", OPEN + 3 * MINUTE)


@pytest.mark.parametrize(
    ("bar", "end"),
    [((100.0, 101.0, 98.9, 100.5), ("stop", 99.0)), ((100.0, 102.3, 99.9, 102.0), ("target", 102.0))],
)
def test_the_entry_bar_counts_from_its_open(bar: tuple[float, float, float, float], end: tuple[str, float]) -> None:
    account = on_bars((0, 1, *bar), (0, 2, 100.0, 100.0, 100.0, 100.0))
    assert fills(account) == [("entry", 100.0, 120), (*end, 120)]


def test_a_bar_at_whose_open_time_ends_a_trade_touches_no_bracket_any_more() -> None:
    rows = ((0, 1, 100.0, 100.4, 99.6, 100.0), (0, 11, 99.5, 103.0, 98.0, 100.0))
    account = on_bars(*rows)
    assert fills(account) == [("entry", 100.0, 120), ("time", 99.5, 720)]
    assert [(end.reason, end.why) for end in account.of(OrderCancelled)] == [("bracket", "time_exit")]


def test_what_the_last_bar_before_its_time_touches_ends_a_trade_before_time_does() -> None:
    rows = ((0, 1, 100.0, 100.4, 99.6, 100.0), (0, 10, 100.0, 100.0, 98.0, 99.0), (0, 11, 90.0, 90.0, 90.0, 90.0))
    assert fills(on_bars(*rows)) == [("entry", 100.0, 120), ("stop", 99.0, 660)]


def test_a_late_bar_after_the_time_of_a_trade_closes_it_at_its_open_beyond_the_stop() -> None:
    account = on_bars((0, 1, 100.0, 100.4, 99.6, 100.0), (1, 12, 1.0, 1.0, 1.0, 1.0), (0, 14, 97.0, 103.0, 96.0, 97.0))
    assert fills(account) == [("entry", 100.0, 120), ("time", 97.0, 900)]


def test_a_trade_whose_entry_bar_ends_at_its_time_is_over_by_what_that_bar_touches_or_at_the_next_open() -> None:
    raw = signal(stop_inr=1.0, target_inr=2.0, expiry_ns=OPEN + 2 * MINUTE)
    touched = on_bars((0, 1, 100.0, 100.4, 98.9, 100.0), (0, 2, 101.0, 101.0, 101.0, 101.0), raw=raw)
    assert fills(touched) == [("entry", 100.0, 120), ("stop", 99.0, 120)]
    untouched = on_bars((0, 1, 100.0, 100.4, 99.1, 100.0), (0, 2, 101.0, 103.0, 98.0, 101.0), raw=raw)
    assert fills(untouched) == [("entry", 100.0, 120), ("time", 101.0, 180)]


def test_several_brackets_end_each_at_its_own_bar() -> None:
    account = Account(on_bars=True).say(LONG, signal(1, stop_inr=1.0), signal(strategy="other", target_inr=0.3))
    account.market(
        ranges(
            *((index, 1, 100.0, 100.2, 99.8, 100.0) for index in (0, 1)),
            (0, 2, 100.0, 100.3, 99.8, 100.0),
            (1, 3, 99.5, 99.5, 98.0, 98.0),
            (0, 4, 101.0, 103.0, 101.0, 103.0),
        )
    )
    ended = [
        (fill.strategy, fill.symbol, fill.reason, (fill.event_time_ns - OPEN) // MINUTE)
        for fill in account.of(OrderFilled)[3:]
    ]
    assert ended == [("other", "AAA", "target", 3), ("momentum", "BBB", "stop", 4), ("momentum", "AAA", "target", 5)]


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_how_the_market_is_sliced_changes_nothing(size: int) -> None:
    tick_rows = ticks(*((k % 2, 55 + k / 3, 100.0 + (k * 7 % 31) / 10) for k in range(90)))
    bar_rows = ranges(*((i, k, 100.0, 100.0 + k % 4, 100.0 - k % 3, 100.0) for k in range(14) for i in range(2)))
    for table in (tick_rows, bar_rows):
        whole, sliced = (
            Account(on_bars=isinstance(table, Bars)).say(LONG, signal(1, side="SELL", stop_inr=0.5)) for _ in "ab"
        )
        whole.market(table)
        for part in parts(table, size):
            sliced.market(part)
        assert len(whole.of(OrderFilled)) > 2
        assert sliced.close().events == whole.close().events


def parts(table: Ticks | Bars, size: int) -> list[Ticks | Bars]:
    """Cut a table after some of its rows, but never inside an instant: what it releases, the merge releases whole."""
    times = event_times(table)
    edges = sorted({int(np.searchsorted(times, times[k], side="right")) for k in range(size - 1, len(table), size)})
    return [table[first:end] for first, end in itertools.pairwise([0, *edges, len(table)]) if end > first]


# --- ends ---------------------------------------------------------------------------------------------------------


def test_an_exit_at_the_market_takes_the_place_of_the_bracket() -> None:
    account = on_ticks((0, 61, 100.0), (1, 700, 1.0), (0, 701, 98.0))
    (cancelled,) = account.of(OrderCancelled)
    assert (cancelled.reason, cancelled.why, cancelled.quantity) == ("bracket", "time_exit", 10)
    assert fills(account) == [("entry", 100.0, 61), ("time", 98.0, 701)]
    kinds = [
        (event.event_type, event.event_time_ns) for event in account.events if event.event_type.startswith("order")
    ]
    assert kinds[3:5] == [("order.cancelled", OPEN + 660 * SECOND), ("order.submitted", OPEN + 660 * SECOND)]


def test_what_is_unfilled_at_the_close_is_cancelled_once_and_what_is_held_is_carried() -> None:
    account = on_ticks((0, 61, 100.0)).say(signal(1, 22_000)).close()
    last = [(end.symbol, end.reason, end.why, end.event_time_ns) for end in account.of(OrderCancelled)[-2:]]
    assert last == [
        ("AAA", "time", "session_closed", SESSION.close_ns),
        ("BBB", "entry", "session_closed", SESSION.close_ns),
    ]
    assert account.books.orders == {}
    (carried,) = account.books.carried()
    assert (carried.quantity, carried.mark_price) == (10, 100.0)


def test_every_order_has_one_end_and_fill_ids_differ() -> None:
    account = on_ticks(*((k % 3, 50 + k, 100.0 + (k * 13 % 50) / 10) for k in range(200)))
    account.say(*(signal(index, 300, strategy=name) for index, name in itertools.product(range(3), "xyz"))).close()
    ends = [end.order_id for end in account.of(OrderFilled, OrderCancelled)]  # type: ignore[type-var]
    assert sorted(ends) == sorted(order.order_id for order in account.of(OrderSubmitted))
    identities = [event.event_id for event in account.events]
    assert len(identities) == len(set(identities))


# --- slippage -----------------------------------------------------------------------------------------------------


def slipping(*rows: tuple[int, float, float], raw: object, bps: float = 10.0) -> Account:
    return Account(AccountConfig(slippage_bps=bps)).say(raw).market(ticks(*rows))  # type: ignore[arg-type]


@pytest.mark.parametrize(("side", "filled"), [("BUY", 100.1), ("SELL", 99.9)])
def test_a_market_order_fills_worse_by_the_slippage(side: str, filled: float) -> None:
    assert fills(slipping((0, 61, 100.0), raw=signal(side=side))) == [("entry", filled, 61)]


def test_a_stop_slips_and_a_target_fills_at_its_price() -> None:
    stopped = slipping((0, 61, 100.0), (0, 62, 99.0), raw=LONG)
    assert fills(stopped) == [("entry", 100.1, 61), ("stop", 98.901, 62)]
    reached = slipping((0, 61, 100.0), (0, 62, 103.0), raw=LONG)
    assert fills(reached) == [("entry", 100.1, 61), ("target", 102.1, 62)]


def test_slippage_is_exact_to_a_ten_thousandth_of_a_rupee_and_no_price_falls_to_nothing() -> None:
    assert slipped(1_234_567, "BUY", 0.3) == 1_234_604
    assert slipped(1_234_567, "SELL", 0.3) == 1_234_530
    assert slipped(1, "SELL", 999.0) == 1
