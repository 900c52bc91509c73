from __future__ import annotations

import pytest

from live_services.domain.account.books import Holding, Portfolio
from live_services.domain.events import OrderCancelled, PnlSnapshot
from tests.live_world import OPEN, SECOND, SESSION, UNIVERSE, bars, filled, ticks

END = SESSION.close_ns + SECOND


def portfolio(interval: int = 60) -> Portfolio:
    return Portfolio(UNIVERSE, SESSION, "paper", interval)


def seconds(snapshots: list[PnlSnapshot]) -> list[float]:
    return [(snapshot.event_time_ns - OPEN) / SECOND for snapshot in snapshots]


def test_average_cost_is_kept_over_adding_reducing_and_reversing() -> None:
    holding = Holding().filled(10, 100.0, 1.0).filled(10, 110.0, 1.0)
    assert (holding.quantity, holding.average_price) == (20, 105.0)
    holding = holding.filled(-5, 115.0, 1.0)
    assert (holding.quantity, holding.average_price, holding.realized_pnl_inr) == (15, 105.0, 50.0)
    holding = holding.filled(-20, 95.0, 1.0)
    assert (holding.quantity, holding.average_price, holding.realized_pnl_inr) == (-5, 95.0, -100.0)
    holding = holding.filled(5, 90.0, 1.0)
    assert (holding.quantity, holding.average_price, holding.realized_pnl_inr) == (0, 0.0, -75.0)
    assert holding.costs_inr == 5.0


def test_a_snapshot_follows_a_fill_at_the_next_whole_second() -> None:
    book = portfolio()
    book.on_ticks(ticks((0, 60, 100.0), (0, 60.9, 104.0), (0, 61, 500.0)))
    book.on_outcome(filled(0, 60.2, "BUY", 10, 100.0, costs=1.5))
    assert book.advance(OPEN + 60 * SECOND) == []
    (snapshot,) = book.advance(OPEN + 61 * SECOND + 1)
    assert snapshot.event_time_ns == OPEN + 61 * SECOND
    assert (snapshot.realized_pnl_inr, snapshot.unrealized_pnl_inr, snapshot.costs_inr) == (0.0, 40.0, 1.5)
    assert snapshot.net_pnl_inr == pytest.approx(38.5)
    assert snapshot.fills == 1
    assert len(snapshot.settled_signal_ids) == 1


def test_a_fill_at_a_whole_second_is_in_the_snapshot_after_it() -> None:
    book = portfolio()
    book.on_outcome(filled(0, 60, "BUY", 10, 100.0))
    assert seconds(book.advance(OPEN + 61 * SECOND)) == [61]


def test_snapshots_keep_coming_while_positions_are_open_and_stop_when_flat() -> None:
    book = portfolio(interval=60)
    book.on_outcome(filled(0, 30.5, "BUY", 10, 100.0))
    book.on_outcome(filled(0, 150.5, "SELL", 10, 101.0))
    snapshots = book.advance(END)
    assert seconds(snapshots) == [31, 60, 120, 151, (END - OPEN) / SECOND]
    assert snapshots[-1].positions[0].quantity == 0
    assert snapshots[-1].realized_pnl_inr == pytest.approx(10.0)


def test_a_session_without_trades_ends_with_one_empty_snapshot() -> None:
    book = portfolio()
    assert seconds(book.advance(END)) == [(END - OPEN) / SECOND]
    assert book.advance(END + SECOND) == []


def test_an_order_that_ended_without_a_fill_settles_its_signal() -> None:
    fill = filled(0, 60, "BUY", 10, 100.0)
    dropped = ("event_type", "price", "price_time_ns", "costs_inr", "fill_model")
    fields = fill.model_dump(exclude=set(dropped))
    book = portfolio()
    book.on_outcome(OrderCancelled(**fields, reason="session_closed"))
    (snapshot,) = book.advance(OPEN + 61 * SECOND)
    assert snapshot.settled_signal_ids == (fill.signal_id,)
    assert (snapshot.fills, snapshot.positions) == (0, ())


def test_bars_mark_at_their_close_once_they_have_ended() -> None:
    book = portfolio(interval=60)
    book.on_outcome(filled(0, 30.5, "BUY", 1, 100.0))
    book.on_bars(bars((0, 0, 100.0, 107.0)))
    snapshots = book.advance(OPEN + 120 * SECOND)
    assert seconds(snapshots) == [31, 60, 120]
    assert [snapshot.unrealized_pnl_inr for snapshot in snapshots] == [0.0, 0.0, 7.0]
