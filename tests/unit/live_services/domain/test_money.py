from __future__ import annotations

import math
from decimal import ROUND_HALF_UP, Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from live_services.domain.money import LARGEST_INR, RUPEE, inr_e4, paise_text, rupees, share

amounts = st.integers(-LARGEST_INR * RUPEE, LARGEST_INR * RUPEE)
prices = st.floats(-LARGEST_INR, LARGEST_INR)


def test_a_float_price_is_the_decimal_that_it_was_written_as() -> None:
    assert inr_e4(1234.05) == 12_340_500
    assert inr_e4(0.1 + 0.2) == 3_000
    assert inr_e4(2**0.5) == 14_142
    assert inr_e4(np.float64(560.35)) == 5_603_500
    assert inr_e4(7) == 7 * RUPEE


def test_half_of_a_unit_rounds_away_from_zero_both_ways() -> None:
    assert [inr_e4(x) for x in (0.00005, 0.00015, 0.00004, -0.00005, -0.00015)] == [1, 2, 0, -1, -2]
    assert inr_e4(Decimal("0.5826968")) == 5_827
    assert inr_e4(Decimal("-0.00005")) == -1


def test_a_tie_is_told_by_the_last_digit_of_a_decimal_however_long() -> None:
    assert inr_e4(Decimal("0.00004999999999999999999999999999999999")) == 0
    assert inr_e4(Decimal("0.00005000000000000000000000000000000001")) == 1


@given(amounts)
def test_every_amount_survives_the_way_through_a_float(amount: int) -> None:
    assert inr_e4(rupees(amount)) == amount
    assert inr_e4(Decimal(amount).scaleb(-4)) == amount


@given(prices)
def test_a_float_rounds_as_its_shortest_decimal_does(price: float) -> None:
    units = Fraction(repr(price)) * RUPEE
    expected = math.floor(abs(units) + Fraction(1, 2)) * (1 if units >= 0 else -1)
    assert inr_e4(price) == expected
    assert inr_e4(-price) == -expected


@pytest.mark.parametrize(
    "value",
    [math.nan, math.inf, -math.inf, 1e308, -1e308, 1.0000001e11, Decimal("NaN"), Decimal("sNaN"), Decimal("1e999")],
)
def test_what_is_no_price_is_refused(value: float | Decimal) -> None:
    with pytest.raises(ValueError, match="is no amount of rupees"):
        inr_e4(value)


def test_the_largest_amount_is_still_one() -> None:
    assert inr_e4(float(LARGEST_INR)) == inr_e4(Decimal(LARGEST_INR)) == LARGEST_INR * RUPEE


def test_rupees_are_the_nearest_float() -> None:
    assert rupees(12_340_500) == 1234.05
    assert rupees(-1) == -0.0001


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "₹0.00"),
        (12_345_600, "₹1,234.56"),
        (12_345_649, "₹1,234.56"),
        (12_345_650, "₹1,234.57"),
        (-12_345_650, "-₹1,234.57"),
        (-49, "₹0.00"),
        (-50, "-₹0.01"),
        (99_999_999_999, "₹10,000,000.00"),
    ],
)
def test_reports_show_paise_half_up(amount: int, text: str) -> None:
    assert paise_text(amount) == text


@given(amounts)
def test_the_text_in_paise_is_what_decimal_rounding_gives(amount: int) -> None:
    exact = Decimal(amount).scaleb(-4).quantize(Decimal("0.01"), ROUND_HALF_UP)
    assert Decimal(paise_text(amount).replace("₹", "").replace(",", "")) == exact


def test_a_third_of_the_shares_costs_a_third_half_up() -> None:
    assert share(100, 1, 3) == 33
    assert share(-100, 1, 3) == -33
    assert share(5, 1, 2) == 3
    assert share(-5, 1, 2) == -3
    assert share(7, 0, 3) == 0


@given(amounts, st.lists(st.integers(1, 1000), min_size=1, max_size=12))
def test_a_position_closed_in_any_parts_ends_at_a_cost_of_exactly_zero(cost: int, parts: list[int]) -> None:
    left, held = cost, sum(parts)
    for part in parts:
        taken = share(left, part, held)
        assert abs(Fraction(taken) - Fraction(left * part, held)) <= Fraction(1, 2)
        assert share(-left, part, held) == -taken
        left, held = left - taken, held - part
    assert (left, held) == (0, 0)


@pytest.mark.parametrize(("part", "whole"), [(2, 1), (-1, 5), (0, 0), (1, 0), (-1, -1)])
def test_more_than_the_whole_is_no_part(part: int, whole: int) -> None:
    with pytest.raises(ValueError, match="is no part"):
        share(100, part, whole)
