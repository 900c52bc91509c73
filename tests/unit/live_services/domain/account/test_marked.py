"""What snapshots say of open positions: kept from one to the next, and the same as made from nothing."""

from __future__ import annotations

import math

import numpy as np
import pytest

from feature_store.market.types import Universe
from live_services.domain.account.marked import MarkedPositions
from live_services.domain.events import ExitTerms, Position

UNIVERSE = Universe.from_symbols(["AAA", "BBB", "CCC"])
AAA, BBB, CCC = UNIVERSE.index_of_token
GONE = max(UNIVERSE.index_of_token) + 1


def position(strategy: str, token: int, quantity: int, *, mark_price: float | None = None) -> Position:
    return Position(
        strategy=strategy,
        rung="champion",
        instrument_token=token,
        symbol="ANY",
        product="MIS",
        quantity=quantity,
        cost_inr_e4=quantity * 1_000_000,
        realized_inr_e4=0,
        charges_inr_e4=7,
        opened_ns=5,
        opening_order_id="order",
        opening_fill_id="fill",
        signal_id="signal",
        model_name="model",
        model_version="1",
        feature_schema_hash="hash",
        exit=ExitTerms(expiry_ns=9, stop_distance_inr_e4=None, target_distance_inr_e4=None),
        mark_price=mark_price,
    )


def held(*positions: Position) -> dict[tuple[str, int], Position]:
    return {one.key: one for one in positions}


def test_whatever_filled_and_moved_in_between_it_says_what_one_that_begins_would_say() -> None:
    kept, marks = MarkedPositions(), np.full(3, np.nan)
    kept.begin({})
    days = np.random.default_rng(3)
    positions: dict[tuple[str, int], Position] = {}
    for _ in range(200):
        if days.random() < 0.5:
            marks[days.integers(3)] = days.integers(90, 110)
            kept.moved()
        key = (str(days.choice(["up", "down"])), int(days.choice([AAA, BBB, CCC, GONE])))
        if positions.pop(key, None) is None:
            positions[key] = position(*key, quantity=int(days.integers(1, 9)) * int(days.choice([-1, 1])))
        kept.changed(key)
        if days.random() < 0.5:
            continue
        kept.mark(positions, UNIVERSE.index_of_token, marks)
        anew = MarkedPositions()
        anew.begin(positions)
        anew.mark(positions, UNIVERSE.index_of_token, marks)
        assert kept.said == anew.said == sorted(kept.said, key=lambda said: (said.strategy, said.instrument_token))
        assert (kept.unrealized_inr, kept.worth_inr) == (anew.unrealized_inr, anew.worth_inr)
        assert kept.cost_inr_e4 == sum(one.cost_inr_e4 for one in positions.values())


def test_what_did_not_move_is_the_very_value_that_was_said_before() -> None:
    kept, marks = MarkedPositions(), np.array([101.0, 99.0, math.nan])
    kept.begin(positions := held(position("up", AAA, 10), position("up", BBB, -10)))
    kept.mark(positions, UNIVERSE.index_of_token, marks)
    before = list(kept.said)
    marks[1] = 98.0
    kept.moved()
    kept.mark(positions, UNIVERSE.index_of_token, marks)
    still, moved = kept.said
    assert still is before[0]
    assert (moved.mark_price, moved.unrealized_inr, kept.worth_inr[1]) == (98.0, 20.0, -980.0)
    assert before[1].mark_price == 99.0  # what was said stays as it was said


@pytest.mark.parametrize(("mark_price", "price"), [(None, 100.0), (97.0, 97.0)])
def test_before_the_first_price_a_position_stands_at_the_one_it_came_with_else_at_its_cost(
    mark_price: float | None, price: float
) -> None:
    kept = MarkedPositions()
    kept.begin(positions := held(position("up", AAA, 4, mark_price=mark_price), position("up", GONE, 4)))
    kept.mark(positions, UNIVERSE.index_of_token, np.full(3, np.nan))
    assert [said.mark_price for said in kept.said] == [price, 100.0]
