from __future__ import annotations

import dataclasses
import datetime as dt

import pytest

from feature_store.market.types import Session
from live_services.domain.account.trades import Trade, round_trips
from live_services.domain.events import Event, OrderFilled, PnlSnapshot
from live_services.domain.money import RUPEE
from tests.account_world import Account
from tests.live_world import OPEN, SECOND, SESSION, exit_of, filled, signal, submitted, ticks, validated

NEXT = Session.regular(dt.date(2026, 1, 6))


def entry(index: int, second: int, side: str, price: float, quantity: int = 10, **changes: object) -> OrderFilled:
    order = submitted(validated(index, second - 1, side, quantity=quantity))
    return filled(order, second, price, **changes)  # type: ignore[arg-type]


def way_out(opened: OrderFilled, second: int, price: float, quantity: int = 0, **changes: object) -> OrderFilled:
    reason = changes.pop("reason", "time")
    order = submitted(exit_of(opened, second - 1, reason, quantity=quantity or opened.quantity))  # type: ignore[arg-type]
    return filled(order, second, price, **changes)  # type: ignore[arg-type]


def only(*events: Event) -> Trade:
    (trade,) = round_trips(events)
    return trade


def test_a_long_trade_earns_what_the_price_rose_less_the_charges_of_both_fills() -> None:
    opened = entry(0, 60, "BUY", 100.0, charges_inr_e4=3000)
    trade = only(opened, way_out(opened, 660, 101.0, charges_inr_e4=2000, reason="stop"))
    assert (trade.strategy, trade.symbol, trade.side, trade.quantity) == ("momentum", "AAA", "BUY", 10)
    assert (trade.entry_time_ns, trade.exit_time_ns) == (OPEN + 60 * SECOND, OPEN + 660 * SECOND)
    assert (trade.opening_order_id, trade.signal_id, trade.exit_reason) == (opened.order_id, opened.signal_id, "stop")
    assert trade.gross_pnl_inr_e4 == 10 * RUPEE
    assert trade.net_pnl_inr_e4 == 95_000
    assert trade.gross_bps == pytest.approx(100.0)
    assert trade.net_bps == pytest.approx(95.0)
    assert trade.left_open == 0


def test_a_short_trade_earns_what_the_price_fell() -> None:
    opened = entry(1, 60, "SELL", 200.0, 5)
    trade = only(opened, way_out(opened, 120, 198.0))
    assert trade.gross_pnl_inr_e4 == 10 * RUPEE
    assert trade.gross_bps == pytest.approx(100.0)


def test_a_trade_that_fills_and_is_closed_in_parts_has_mean_prices_and_ends_with_the_last() -> None:
    order = submitted(validated())
    first, second = filled(order, 61, 100.0, 4, left=6, charges_inr_e4=1), filled(order, 62, 101.0, 6, charges_inr_e4=2)
    trade = only(first, second, way_out(second, 120, 101.0, 4), way_out(second, 180, 102.0, 6, charges_inr_e4=4))
    assert (trade.quantity, trade.entry_price, trade.exit_price) == (10, pytest.approx(100.6), pytest.approx(101.6))
    assert (trade.entry_time_ns, trade.exit_time_ns) == (OPEN + 61 * SECOND, OPEN + 180 * SECOND)
    assert trade.charges_inr_e4 == 7


def test_two_instruments_are_two_trades_in_order_of_their_end() -> None:
    one, two = entry(0, 60, "BUY", 100.0), entry(1, 61, "BUY", 100.0)
    found = round_trips([one, two, way_out(two, 70, 100.0), way_out(one, 80, 100.0)])
    assert [trade.symbol for trade in found] == ["BBB", "AAA"]


def test_two_strategies_on_one_instrument_are_two_trades() -> None:
    account = Account().say(signal(strategy="a"), signal(side="SELL", strategy="b"))
    account.market(ticks((0, 61, 100.0), (0, 670, 101.0)))
    earned = {trade.strategy: trade.gross_pnl_inr_e4 for trade in round_trips(account.events)}
    assert earned == {"a": 10 * RUPEE, "b": -10 * RUPEE}


def test_what_is_left_open_counts_at_the_last_price_and_pays_both_ways() -> None:
    account = Account().say(signal()).market(ticks((0, 61, 100.0), (0, 200, 103.0))).close()
    trade = only(*account.events)
    last = account.of(PnlSnapshot)[-1]
    assert (trade.left_open, trade.exit_reason, trade.exit_price) == (10, None, 103.0)
    assert trade.exit_time_ns == last.event_time_ns
    assert trade.charges_inr_e4 > last.charges_inr_e4 > 0
    assert trade.gross_pnl_inr_e4 == last.unrealized_inr * RUPEE


def test_a_trade_goes_on_in_the_next_session_whichever_day_is_read_from() -> None:
    first = Account().say(signal()).market(ticks((0, 61, 100.0))).close()
    second = Account(session=NEXT, before=first)
    table = ticks((0, 30, 98.0))
    second.market(dataclasses.replace(table, event_time_ns=table.event_time_ns + NEXT.open_ns - OPEN)).close()
    both, alone = only(*first.events, *second.events), only(*second.events)
    assert both == alone
    assert (alone.exit_reason, alone.gross_pnl_inr_e4, alone.entry_time_ns) == (
        "carried",
        -20 * RUPEE,
        OPEN + 61 * SECOND,
    )
    assert alone.net_pnl_inr_e4 == second.books.realized_inr_e4 - second.books.charges_inr_e4


def test_the_trades_of_a_session_add_up_to_the_account() -> None:
    account = Account()
    for part in range(20):
        account.say(signal(part % 3, 60 + 700 * part, stop_inr=0.4, target_inr=0.6))
        account.market(ticks(*((k % 3, 65 + part * 700 + k, 100.0 + (k * 17 % 29) / 10) for k in range(600))))
    account.close()
    trades = round_trips(account.events)
    assert len(trades) > 10
    assert all(trade.left_open == 0 for trade in trades)
    books = account.books
    assert sum(trade.net_pnl_inr_e4 for trade in trades) == books.realized_inr_e4 - books.charges_inr_e4
    assert account.session == SESSION
