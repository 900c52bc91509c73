from __future__ import annotations

import pytest

from live_services.domain.account.paper_exchange import TRANSITIONS, IllegalTransition, Order, PaperBroker
from live_services.domain.events import OrderCancelled, OrderFilled, OrderRejected, OrderSubmitted, event_id
from tests.live_world import MINUTE, OPEN, SECOND, SESSION, UNIVERSE, bars, ticks, validated


def broker(costs_bps: float = 10) -> PaperBroker:
    return PaperBroker(UNIVERSE, SESSION, costs_bps)


def test_a_validated_signal_becomes_an_order_whose_id_comes_from_the_signal() -> None:
    accepted = validated()
    (submitted,) = broker().submit(accepted)
    assert isinstance(submitted, OrderSubmitted)
    assert submitted.order_id == event_id("order", accepted.signal_id)
    assert submitted.event_time_ns == accepted.event_time_ns
    assert submitted.causation_id == accepted.event_id


def test_an_order_fills_at_the_next_tick_strictly_later_than_its_time() -> None:
    paper = broker()
    paper.submit(validated(0, 60))
    (fill,) = paper.on_ticks(ticks((0, 59, 99.0), (0, 60, 100.0), (1, 60.5, 7.0), (0, 61, 101.0), (0, 62, 102.0)))
    assert isinstance(fill, OrderFilled)
    assert (fill.price, fill.event_time_ns, fill.price_time_ns) == (101.0, OPEN + 61 * SECOND, OPEN + 61 * SECOND)
    assert fill.costs_inr == pytest.approx(10 * 101.0 * 10 / 10_000)
    assert fill.fill_model == "next_tick"
    assert not paper.pending
    assert paper.positions == {0: 10}


def test_an_order_waits_while_its_instrument_has_no_tick() -> None:
    paper = broker()
    paper.submit(validated(0, 60))
    assert paper.on_ticks(ticks((1, 61, 5.0))) == []
    assert len(paper.on_ticks(ticks((0, 90, 5.0)))) == 1


def test_fills_come_in_the_order_of_their_ticks_and_at_one_tick_in_the_order_of_submission() -> None:
    paper = broker()
    for accepted in (validated(0, 60), validated(1, 60), validated(0, 61, "SELL", "close")):
        paper.submit(accepted)
    fills = paper.on_ticks(ticks((1, 62, 50.0), (0, 63, 100.0)))
    assert [(fill.symbol, fill.side) for fill in fills] == [("BBB", "BUY"), ("AAA", "BUY"), ("AAA", "SELL")]
    assert paper.positions == {0: 0, 1: 10}


def test_a_close_is_clamped_to_the_brokers_own_position() -> None:
    paper = broker()
    paper.positions[0] = 3
    paper.submit(validated(0, 60, "SELL", "close"))
    (fill,) = paper.on_ticks(ticks((0, 61, 100.0)))
    assert isinstance(fill, OrderFilled)
    assert fill.quantity == 3


def test_a_close_with_nothing_left_is_cancelled() -> None:
    paper = broker()
    paper.submit(validated(0, 60, "SELL", "close"))
    (end,) = paper.on_ticks(ticks((0, 61, 100.0)))
    assert isinstance(end, OrderCancelled)
    assert (end.reason, end.event_time_ns) == ("nothing_to_reduce", OPEN + 61 * SECOND)


def test_what_is_unfilled_at_the_close_is_cancelled_once() -> None:
    paper = broker()
    paper.submit(validated(0, 60))
    (end,) = paper.end_session()
    assert isinstance(end, OrderCancelled)
    assert (end.reason, end.event_time_ns) == ("session_closed", SESSION.close_ns)
    assert paper.end_session() == []


@pytest.mark.parametrize("accepted", [validated(3), validated(0, instrument_token=999, symbol="GONE")])
def test_an_instrument_that_cannot_trade_is_rejected_at_once(accepted: object) -> None:
    paper = broker()
    submitted, rejected = paper.submit(accepted)  # type: ignore[arg-type]
    assert isinstance(submitted, OrderSubmitted)
    assert isinstance(rejected, OrderRejected)
    assert rejected.symbol in rejected.reason
    assert not paper.pending


def test_on_bars_an_order_fills_at_the_next_bars_open_and_knows_it_at_that_bars_end() -> None:
    paper = broker()
    paper.submit(validated(0, 120))
    assert paper.on_bars(bars((0, 1, 98.0, 99.0), (1, 2, 1.0, 1.0))) == []
    (fill,) = paper.on_bars(bars((0, 2, 100.0, 105.0), (0, 3, 106.0, 107.0)))
    assert isinstance(fill, OrderFilled)
    assert (fill.price, fill.fill_model) == (100.0, "next_bar_open")
    assert (fill.price_time_ns, fill.event_time_ns) == (OPEN + 2 * MINUTE, OPEN + 3 * MINUTE)


def test_a_bar_that_began_before_the_decision_does_not_fill() -> None:
    paper = broker()
    paper.submit(validated(0, 90))
    (fill,) = paper.on_bars(bars((0, 0, 1.0, 1.0), (0, 1, 2.0, 2.0), (0, 2, 3.0, 3.0)))
    assert isinstance(fill, OrderFilled)
    assert fill.price == 3.0


def test_an_ended_order_takes_no_further_step() -> None:
    (submitted,) = broker().submit(validated())
    assert isinstance(submitted, OrderSubmitted)
    for first in ("fill", "reject", "cancel"):
        for second in ("fill", "reject", "cancel"):
            order = Order(submitted, 0)
            order.trigger(first)  # type: ignore[arg-type]
            with pytest.raises(IllegalTransition, match="cannot take"):
                order.trigger(second)  # type: ignore[arg-type]
    assert len(TRANSITIONS) == 3
