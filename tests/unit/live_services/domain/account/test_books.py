"""The books, event by event; the identity of `assert_balanced` is asked after each of them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from feature_store.market.types import Universe
from live_services.domain.account.books import BookError, Books
from live_services.domain.account.orders import IllegalTransition
from live_services.domain.basis import Outcome
from live_services.domain.events import AccountOpened, OrderCancelled, OrderFilled, OrderRejected, OrderSubmitted
from live_services.domain.limits import AccountConfig
from live_services.domain.money import RUPEE
from tests.live_world import UNIVERSE, ended, exit_of, filled, self_caused, submitted, token, validated

CASH = 1_000_000 * RUPEE


class Kept(Books):
    """Books that are balanced after every event."""

    def on_submitted(self, event: OrderSubmitted) -> None:
        super().on_submitted(event)
        assert_balanced(self)

    def on_outcome(self, event: Outcome) -> None:
        super().on_outcome(event)
        assert_balanced(self)


def assert_balanced(books: Books) -> None:
    totals = books.strategy_totals()
    assert sum(total.realized_inr_e4 for total in totals) == books.realized_inr_e4
    assert sum(total.charges_inr_e4 for total in totals) == books.charges_inr_e4
    earned = books.starting_cash_inr_e4 + books.realized_inr_e4 - books.charges_inr_e4
    assert books.cash_inr_e4 + sum(position.cost_inr_e4 for position in books.positions.values()) == earned


def books() -> Kept:
    return Kept(UNIVERSE, CASH)


def opened(kept: Books, index: int = 0, side: str = "BUY", price: float = 100.0, **changes: Any) -> OrderFilled:
    """Open a position of ten shares."""
    order = submitted(validated(index, 60, side, **changes))
    kept.on_submitted(order)
    fill = filled(order, 61, price, charges_inr_e4=12_345)
    kept.on_outcome(fill)
    return fill


def closing(kept: Books, fill: OrderFilled) -> OrderSubmitted:
    order = submitted(exit_of(fill, 120, quantity=10))
    kept.on_submitted(order)
    return order


def marked(kept: Books, index: int, price: float) -> None:
    kept.on_prices(np.array([index], np.int32), np.array([price]))


@pytest.mark.parametrize(("side", "earned"), [("BUY", 50 * RUPEE), ("SELL", -50 * RUPEE)])
def test_a_round_trip_moves_cash_by_what_it_realized_less_its_charges(side: str, earned: int) -> None:
    kept = books()
    fill = opened(kept, side=side)
    kept.on_outcome(filled(closing(kept, fill), 121, 105.0, charges_inr_e4=5))
    assert kept.realized_inr_e4 == kept.realized_today_inr_e4 == earned
    assert kept.charges_inr_e4 == kept.charges_today_inr_e4 == 12_350
    assert kept.cash_inr_e4 == CASH + earned - 12_350
    assert kept.positions == {}
    assert kept.fills == 2
    (total,) = kept.strategy_totals()
    assert (total.fills, total.trades, total.realized_inr_e4) == (2, 1, earned)


@pytest.mark.parametrize(("side", "sign"), [("BUY", 1), ("SELL", -1)])
def test_an_open_position_is_worth_its_mark(side: str, sign: int) -> None:
    kept = books()
    opened(kept, side=side)
    (position,) = kept.positions.values()
    assert (position.quantity, position.cost_inr_e4) == (sign * 10, sign * 1000 * RUPEE)
    assert kept.mark(position) == 100.0  # at its cost, before the first price
    marked(kept, 0, 103.0)
    assert kept.mark(position) == 103.0
    assert kept.equity_inr() == pytest.approx(1_000_000 + sign * 30.0 - 1.2345)


def test_an_entry_that_fills_in_parts_is_one_position_at_their_mean_price() -> None:
    kept, order = books(), submitted(validated())
    kept.on_submitted(order)
    kept.on_outcome(filled(order, 61, 100.0, 3, left=7))
    assert kept.quantity(token(0)) == 10  # what is under way counts as if it had filled
    kept.on_outcome(filled(order, 62, 100.01, 7, left=0))
    (position,) = kept.positions.values()
    assert (position.quantity, position.cost_inr_e4) == (10, 10_000_700)
    assert position.opened_ns == order.event_time_ns + 10**9  # of the first fill
    assert kept.orders == {}


def test_a_position_that_is_closed_in_parts_ends_at_a_cost_of_nothing() -> None:
    kept, order = books(), submitted(validated())
    kept.on_submitted(order)
    kept.on_outcome(filled(order, 61, 100.0, 3, left=7))
    fill = filled(order, 62, 100.0003, 7, left=0)
    kept.on_outcome(fill)
    out = closing(kept, fill)
    for seconds, quantity, left in ((121, 3, 7), (122, 6, 1), (123, 1, 0)):
        kept.on_outcome(filled(out, seconds, 101.0, quantity, left))
    assert sum(position.cost_inr_e4 for position in kept.positions.values()) == 0
    assert kept.realized_inr_e4 == 10 * 1_010_000 - (3 * 1_000_000 + 7 * 1_000_003)
    (last,) = kept.closed
    assert (last.quantity, last.cost_inr_e4) == (0, 0)


def test_what_is_left_of_an_entry_that_is_cancelled_is_not_held() -> None:
    kept, order = books(), submitted(validated())
    kept.on_submitted(order)
    kept.on_outcome(filled(order, 61, 100.0, 3, left=7))
    kept.on_outcome(ended(order, 62, OrderCancelled))
    assert kept.quantity(token(0)) == 3
    assert kept.positions["momentum", token(0)].quantity == 3
    assert kept.is_taken(("momentum", token(0)))


def test_two_strategies_hold_one_instrument_each_its_own_way() -> None:
    kept = books()
    long, short = opened(kept, strategy="trend"), opened(kept, side="SELL", price=101.0, strategy="reversal")
    assert {key[0]: position.quantity for key, position in kept.positions.items()} == {"trend": 10, "reversal": -10}
    assert kept.quantity(token(0)) == 20  # without netting
    assert kept.open_positions == 2
    kept.on_outcome(filled(closing(kept, long), 121, 102.0))
    kept.on_outcome(filled(closing(kept, short), 122, 102.0))
    realized = {total.strategy: total.realized_inr_e4 for total in kept.strategy_totals()}
    assert realized == {"trend": 20 * RUPEE, "reversal": -10 * RUPEE}
    assert kept.realized_inr_e4 == 10 * RUPEE


def test_an_order_under_way_counts_until_it_ends() -> None:
    for kind in (OrderRejected, OrderCancelled):
        kept, order = books(), submitted(validated(price=250.0))
        kept.on_submitted(order)
        assert kept.is_taken(("momentum", token(0)))
        assert (kept.open_positions, kept.quantity(token(0))) == (1, 10)
        assert kept.gross_notional_inr_e4() == 2500 * RUPEE  # at its reference price, before the first mark
        kept.on_outcome(ended(order, 62, kind))
        assert not kept.is_taken(("momentum", token(0)))
        assert (kept.open_positions, kept.quantity(token(0)), kept.gross_notional_inr_e4()) == (0, 0, 0)


def test_gross_notional_follows_marks_and_what_is_under_way() -> None:
    kept = books()
    fill = opened(kept)
    opened(kept, 1, "SELL", 50.0)
    marked(kept, 0, 110.0)
    marked(kept, 1, 40.0)
    assert kept.gross_notional_inr_e4() == (1100 + 400) * RUPEE
    kept.on_submitted(submitted(validated(2, price=7.0)))
    assert kept.gross_notional_inr_e4() == (1100 + 400 + 70) * RUPEE
    out = closing(kept, fill)
    assert kept.gross_notional_inr_e4() == (1100 + 400 + 70) * RUPEE  # until it has closed
    kept.on_outcome(filled(out, 121, 110.0))
    assert kept.gross_notional_inr_e4() == (400 + 70) * RUPEE


def test_only_an_exit_at_the_market_is_a_close_under_way() -> None:
    kept, key = books(), ("momentum", token(0))
    fill = opened(kept)
    bracket = submitted(exit_of(fill, 61, "bracket", stop_inr=99.0))
    kept.on_submitted(bracket)
    assert not kept.is_closing(key)
    kept.on_outcome(ended(bracket, 120, OrderCancelled))
    out = closing(kept, fill)
    assert kept.is_closing(key)
    kept.on_outcome(ended(out, 130, OrderCancelled))
    assert not kept.is_closing(key)  # and may be closed again
    assert key in kept.positions


Refused = OrderSubmitted | Outcome


def _unknown_instrument(_kept: Books) -> Refused:
    return submitted(validated(instrument_token=999, symbol="GONE"))


def _twice(kept: Books) -> Refused:
    order = submitted(validated(1))
    kept.on_submitted(order)
    return order


def _another_opens(_kept: Books) -> Refused:
    return submitted(validated(0, 90, "SELL"))


def _closes_nothing(_kept: Books) -> Refused:
    return submitted(exit_of(filled(submitted(validated(2)), 61, 100.0), 90))


def _not_under_way(_kept: Books) -> Refused:
    return filled(submitted(validated(2)), 61, 100.0)


def _under_way(kept: Books) -> OrderSubmitted:
    order = submitted(validated(1))
    kept.on_submitted(order)
    return order


def _fills_too_much(kept: Books) -> Refused:
    return filled(_under_way(kept), 61, 100.0, 11)


def _says_another_rest(kept: Books) -> Refused:
    return filled(_under_way(kept), 61, 100.0, 4, left=5)


def _is_another_order(kept: Books) -> Refused:
    return filled(_under_way(kept), 61, 100.0, side="SELL")


def _rejects_what_filled_in_part(kept: Books) -> Refused:
    order = _under_way(kept)
    kept.on_outcome(filled(order, 61, 100.0, 4, left=6))
    return ended(order, 62, OrderRejected)


@pytest.mark.parametrize(
    ("contradicted", "told"),
    [
        (_unknown_instrument, "not in the universe"),
        (_twice, "submitted twice"),
        (_another_opens, "holds AAA"),
        (_closes_nothing, "does not hold"),
        (_not_under_way, "not under way"),
        (_fills_too_much, "10 shares left"),
        (_says_another_rest, "5 stay"),
        (_is_another_order, "SELL"),
        (_rejects_what_filled_in_part, "cannot take 'reject'"),
    ],
)
def test_what_contradicts_the_books_is_refused_with_nothing_written(
    contradicted: Callable[[Books], Refused], told: str
) -> None:
    kept = books()
    opened(kept)
    event = contradicted(kept)
    before = said(kept)
    with pytest.raises((BookError, IllegalTransition), match=told):
        kept.on_submitted(event) if isinstance(event, OrderSubmitted) else kept.on_outcome(event)
    assert said(kept) == before


def said(kept: Books) -> dict[str, Any]:
    state = {name: copy.deepcopy(value) for name, value in vars(kept).items() if name not in {"universe", "_notional"}}
    return {name: value.tolist() if isinstance(value, np.ndarray) else value for name, value in state.items()} | {
        "gross": kept.gross_notional_inr_e4(),
        "marks": np.nan_to_num(kept.marks).tolist(),
    }


# --- from session to session --------------------------------------------------------------------------------------


def record_of(kept: Books) -> AccountOpened:
    return AccountOpened(
        **self_caused("account_opened", "paper", "2026-01-06"),
        broker="paper",
        event_time_ns=1,
        session_date="2026-01-06",
        config=AccountConfig(),
        config_digest="c",
        git_commit="g",
        starting_cash_inr_e4=kept.starting_cash_inr_e4,
        cash_inr_e4=kept.cash_inr_e4,
        equity_inr=kept.equity_inr(),
        positions=kept.carried(),
        strategies=kept.strategy_totals(),
    )


def test_a_record_carries_cash_positions_marks_and_totals_into_the_next_session() -> None:
    kept = books()
    opened(kept)
    other = opened(kept, 1, "SELL", 50.0)
    kept.on_outcome(filled(closing(kept, other), 121, 49.0))
    marked(kept, 0, 104.0)
    record = AccountOpened.model_validate_json(record_of(kept).model_dump_json())
    tomorrow = Kept(UNIVERSE, 5)
    tomorrow.open_from(record)
    assert_balanced(tomorrow)
    assert tomorrow.cash_inr_e4 == kept.cash_inr_e4
    assert tomorrow.starting_cash_inr_e4 == CASH
    assert tomorrow.equity_at_open_inr == kept.equity_inr() == tomorrow.equity_inr()
    assert tomorrow.strategy_totals() == kept.strategy_totals()
    assert (tomorrow.realized_today_inr_e4, tomorrow.charges_today_inr_e4, tomorrow.fills) == (0, 0, 0)
    assert tomorrow.gross_notional_inr_e4() == 1040 * RUPEE
    ((key, position),) = tomorrow.positions.items()
    assert tomorrow.is_taken(key)
    assert tomorrow.mark(position) == 104.0


def test_a_carried_position_of_an_instrument_that_is_gone_stays_and_counts_at_the_mark_it_came_with() -> None:
    kept = books()
    opened(kept)
    marked(kept, 0, 104.0)
    without = Universe(instruments=UNIVERSE.instruments[1:])
    tomorrow = Books(without, CASH)
    tomorrow.open_from(record_of(kept))
    assert_balanced(tomorrow)
    assert tomorrow.equity_inr() == kept.equity_inr()
    assert tomorrow.gross_notional_inr_e4() == 1040 * RUPEE
    assert tomorrow.open_positions == 1
