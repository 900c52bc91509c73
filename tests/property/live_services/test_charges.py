"""Charges do not depend on how an order was filled."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from fractions import Fraction
from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from live_services.domain.account.charge_schedules import SCHEDULES, Segment, schedule_on
from live_services.domain.account.charges import ChargeBook, FillCharges

ITEMS = ("brokerage", "stt", "exchange", "sebi", "stamp", "gst", "dp")
Side = Literal["BUY", "SELL"]

segments = st.sampled_from(sorted(SCHEDULES))
sides = st.sampled_from(["BUY", "SELL"])
dates = st.dates(dt.date(2020, 1, 1), dt.date(2027, 12, 31))
quantities = st.lists(st.integers(1, 5000), min_size=1, max_size=10)
prices = st.integers(1, 1_500_000_000)


def fill(book: ChargeBook, segment: Segment, side: Side, quantity: int, price: int, date: dt.date) -> FillCharges:
    return book.charges_of_fill(
        "order", segment, side, quantity=quantity, price_inr_e4=price, instrument_token=1, date=date
    )


@given(segments, sides, quantities, prices, dates)
def test_any_parts_of_an_order_at_one_price_cost_what_the_whole_costs(
    segment: Segment, side: Side, parts: list[int], price: int, date: dt.date
) -> None:
    book = ChargeBook()
    charged = [fill(book, segment, side, part, price, date) for part in parts]
    whole = fill(ChargeBook(), segment, side, sum(parts), price, date)
    for item in (*ITEMS, "total"):
        assert sum(getattr(part, item) for part in charged) == getattr(whole, item)
    booked = sum(part.total_inr_e4 for part in charged)
    assert abs(booked - whole.total_inr_e4) <= (len(parts) + 1) / 2  # half a unit for every rounding
    for part in charged:
        assert all(getattr(part, item) >= 0 for item in ITEMS)
        assert part.total == sum(getattr(part, item) for item in ITEMS)
        assert abs(Fraction(part.total_inr_e4) - Fraction(part.total) * 10_000) <= Fraction(1, 2)


@given(segments, sides, st.lists(st.tuples(st.integers(1, 5000), prices), min_size=1, max_size=10), dates)
def test_the_brokerage_of_an_order_is_that_of_its_turnover_whatever_the_prices(
    segment: Segment, side: Side, fills: list[tuple[int, int]], date: dt.date
) -> None:
    book = ChargeBook()
    brokerage = sum(fill(book, segment, side, quantity, price, date).brokerage for quantity, price in fills)
    schedule, _ = schedule_on(segment, date)
    turnover = Decimal(sum(quantity * price for quantity, price in fills)) / 10_000
    rate = schedule.brokerage
    assert brokerage == (schedule.brokerage_cap if rate is None else min(rate * turnover, schedule.brokerage_cap))


steps = st.lists(
    st.tuples(
        st.sampled_from(["a", "b", "c"]),
        st.sampled_from(["MIS", "CNC"]),
        sides,
        st.integers(1, 200),
        st.integers(1, 3),
        st.integers(0, 1),
        st.booleans(),
    ),
    max_size=25,
)


@given(steps, st.integers(0, 25))
def test_a_book_restored_anywhere_charges_the_same(
    steps: list[tuple[str, str, Side, int, int, int, bool]], at: int
) -> None:
    def run(restored_at: int | None) -> list[FillCharges]:
        book, date, charged = ChargeBook(), dt.date(2026, 3, 27), []
        for number, (order, product, side, quantity, token, days, ends) in enumerate(steps):
            if number == restored_at:
                book = ChargeBook.restore(json.loads(json.dumps(book.snapshot())))
            date += dt.timedelta(days=days)
            segment: Segment = "equity_delivery" if product == "CNC" else "equity_intraday"
            charged.append(
                book.charges_of_fill(
                    order + product,
                    segment,
                    side,
                    quantity=quantity,
                    price_inr_e4=12_340_500,
                    instrument_token=token,
                    date=date,
                )
            )
            if ends:
                book.forget(order + product)
        return charged

    assert run(at) == run(None)
