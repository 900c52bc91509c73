from __future__ import annotations

from typing import get_args

import pytest

from live_services.domain.account.orders import TRANSITIONS, IllegalTransition, Order, OrderState, OrderTrigger
from tests.live_world import submitted, validated


def order(state: OrderState = "submitted", remaining: int = 10) -> Order:
    return Order(submitted(validated()), remaining, state)


def test_an_order_fills_in_parts_until_nothing_is_left() -> None:
    one = order()
    for quantity, state, left in ((3, "partially_filled", 7), (2, "partially_filled", 5), (5, "filled", 0)):
        one.fill(quantity)
        assert (one.state, one.remaining) == (state, left)
    assert one.is_over
    assert one.fills == 3


def test_what_is_left_of_a_partly_filled_order_can_be_cancelled_and_not_rejected() -> None:
    one = order()
    one.fill(3)
    with pytest.raises(IllegalTransition, match="partially_filled; it cannot take 'reject'"):
        one.reject()
    assert one.remaining == 7
    one.cancel()
    assert (one.state, one.remaining, one.is_over) == ("cancelled", 0, True)


@pytest.mark.parametrize("quantity", [0, -1, 11])
def test_a_fill_of_more_than_is_left_or_of_nothing_is_refused(quantity: int) -> None:
    one = order()
    with pytest.raises(IllegalTransition, match="has 10 shares left"):
        one.fill(quantity)
    assert (one.state, one.remaining, one.fills) == ("submitted", 10, 0)


@pytest.mark.parametrize("state", ["filled", "rejected", "cancelled"])
def test_an_ended_order_takes_no_further_step(state: OrderState) -> None:
    for step in (lambda one: one.fill(1), Order.reject, Order.cancel):
        with pytest.raises(IllegalTransition):
            step(order(state, remaining=0))


def test_the_table_has_no_way_out_of_an_end_and_only_known_words() -> None:
    assert {state for pair, after in TRANSITIONS.items() for state in (pair[0], after)} == set(get_args(OrderState))
    assert {trigger for _, trigger in TRANSITIONS} == set(get_args(OrderTrigger))
    assert not {"filled", "rejected", "cancelled"} & {state for state, _ in TRANSITIONS}
