from __future__ import annotations

import datetime as dt
import itertools
import json
from decimal import Decimal
from fractions import Fraction

import pytest

from live_services.domain.account.charge_schedules import SCHEDULES, Segment, schedule_on
from live_services.domain.account.charges import ChargeBook, FillCharges, equity_segment
from live_services.domain.money import HIGHEST_PRICE_INR, MOST_SHARES, RUPEE, inr_e4

JULY_2023 = dt.date(2023, 7, 10)
TODAY = dt.date(2026, 7, 10)
ITEMS = ("brokerage", "stt", "exchange", "sebi", "stamp", "gst", "dp")


def charge(
    book: ChargeBook,
    segment: Segment,
    side: str,
    quantity: int,
    price: float,
    *,
    order: str = "order",
    token: int = 738561,
    date: dt.date = TODAY,
) -> FillCharges:
    return book.charges_of_fill(
        order,
        segment,
        side,  # type: ignore[arg-type]
        quantity=quantity,
        price_inr_e4=inr_e4(price),
        instrument_token=token,
        date=date,
    )


def items(charges: FillCharges) -> dict[str, Decimal]:
    return {name: value for name in ITEMS if (value := getattr(charges, name))}


def decimals(**numbers: str) -> dict[str, Decimal]:
    return {name: Decimal(number) for name, number in numbers.items()}


def test_the_official_example_of_a_delivery_comes_out_to_the_last_digit() -> None:
    charges = charge(ChargeBook(), "equity_delivery", "BUY", 1, 560, date=JULY_2023)
    assert items(charges) == decimals(stt="0.56", exchange="0.01876", sebi="0.00056", gst="0.0033768", stamp="0.084")
    assert charges.total - charges.stamp == Decimal("0.5826968")  # the example has no stamp duty
    assert charges.total_inr_e4 == 6_667
    assert (charges.schedule, charges.exact) == (dt.date(2023, 4, 1), True)


def test_the_official_example_of_an_option_comes_out_to_the_last_digit() -> None:
    charges = charge(ChargeBook(), "options", "BUY", 100, 1.5, date=JULY_2023)
    assert items(charges) == decimals(
        exchange="0.07575", sebi="0.00015", brokerage="20", gst="3.613527", stamp="0.0045"
    )
    assert charges.total - charges.stamp == Decimal("23.689427")
    assert (charges.schedule, charges.exact) == (dt.date(2023, 4, 1), True)


def test_the_official_example_of_1498_rupees_tells_the_rates_before_april_2023() -> None:
    charges = charge(ChargeBook(), "equity_delivery", "BUY", 1, 1498, date=dt.date(2021, 6, 3))
    assert (charges.stt, charges.exchange, charges.sebi) == (
        Decimal("1.498"),
        Decimal("0.051681"),
        Decimal("0.001498"),
    )
    assert charges.stamp.quantize(Decimal("0.01")) == Decimal("0.22")
    assert charges.exact


@pytest.mark.parametrize(
    ("segment", "side", "expected"),
    [
        ("equity_delivery", "BUY", {"stt": "100", "exchange": "3.07", "sebi": "0.1", "stamp": "15", "gst": "0.5706"}),
        (
            "equity_delivery",
            "SELL",
            {"stt": "100", "exchange": "3.07", "sebi": "0.1", "gst": "0.5706", "dp": "15.34"},
        ),
        (
            "equity_intraday",
            "BUY",
            {"brokerage": "20", "exchange": "3.07", "sebi": "0.1", "stamp": "3", "gst": "4.1706"},
        ),
        (
            "equity_intraday",
            "SELL",
            {"brokerage": "20", "stt": "25", "exchange": "3.07", "sebi": "0.1", "gst": "4.1706"},
        ),
        ("futures", "BUY", {"brokerage": "20", "exchange": "1.83", "sebi": "0.1", "stamp": "2", "gst": "3.9474"}),
        ("futures", "SELL", {"brokerage": "20", "stt": "50", "exchange": "1.83", "sebi": "0.1", "gst": "3.9474"}),
        ("options", "BUY", {"brokerage": "20", "exchange": "35.53", "sebi": "0.1", "stamp": "3", "gst": "10.0134"}),
        ("options", "SELL", {"brokerage": "20", "stt": "150", "exchange": "35.53", "sebi": "0.1", "gst": "10.0134"}),
    ],
)
def test_a_lakh_of_turnover_is_charged_by_the_table(segment: Segment, side: str, expected: dict[str, str]) -> None:
    charges = charge(ChargeBook(), segment, side, 100, 1000)
    assert items(charges) == decimals(**expected)
    assert charges.total == sum(decimals(**expected).values())
    assert charges.total_inr_e4 == inr_e4(charges.total)
    assert charges.exact


def test_ipft_stands_in_the_exchange_charge_and_bears_no_gst() -> None:
    charges = charge(ChargeBook(), "equity_intraday", "SELL", 100, 100, date=dt.date(2025, 3, 3))
    assert charges.exchange == Decimal("0.307")
    assert charges.gst == Decimal("0.18") * (Decimal(3) + Decimal("0.297") + Decimal("0.01"))


@pytest.mark.parametrize(
    ("segment", "date", "exchange", "stt", "dp"),
    [
        ("equity_delivery", "2021-06-03", "3.45", "100", "15.93"),
        ("equity_delivery", "2023-03-31", "3.45", "100", "15.93"),
        ("equity_delivery", "2023-04-03", "3.35", "100", "15.93"),
        ("equity_delivery", "2024-04-01", "3.32", "100", "15.93"),
        ("equity_delivery", "2024-10-01", "3.07", "100", "15.34"),
        ("equity_intraday", "2024-09-30", "3.32", "25", "0"),
        ("equity_intraday", "2026-02-27", "3.07", "25", "0"),
        ("futures", "2023-03-31", "2", "10", "0"),
        ("futures", "2024-09-30", "1.98", "12.5", "0"),
        ("futures", "2026-03-31", "1.83", "20", "0"),
        ("futures", "2026-04-01", "1.83", "50", "0"),
        ("options", "2023-03-31", "53", "50", "0"),
        ("options", "2024-09-30", "50", "62.5", "0"),
        ("options", "2024-10-01", "35.53", "100", "0"),
        ("options", "2026-04-01", "35.53", "150", "0"),
    ],
)
def test_a_sale_is_charged_what_held_on_its_day(segment: Segment, date: str, exchange: str, stt: str, dp: str) -> None:
    charges = charge(ChargeBook(), segment, "SELL", 100, 1000, date=dt.date.fromisoformat(date))
    assert (charges.exchange, charges.stt, charges.dp) == (Decimal(exchange), Decimal(stt), Decimal(dp))
    assert charges.exact


@pytest.mark.parametrize("segment", SCHEDULES)
def test_schedules_follow_each_other_without_a_gap_or_an_overlap(segment: Segment) -> None:
    schedules = SCHEDULES[segment]
    for earlier, later in itertools.pairwise(schedules):
        assert later.holds_from == earlier.verified_until + dt.timedelta(days=1)


@pytest.mark.parametrize("segment", SCHEDULES)
def test_a_date_outside_what_is_verified_gets_the_nearest_schedule_and_is_told_so(segment: Segment) -> None:
    first, last = SCHEDULES[segment][0], SCHEDULES[segment][-1]
    day = dt.timedelta(days=1)
    assert schedule_on(segment, first.holds_from) == (first, True)
    assert schedule_on(segment, first.holds_from - day) == (first, False)
    assert schedule_on(segment, last.verified_until) == (last, True)
    assert schedule_on(segment, last.verified_until + day) == (last, False)
    early = charge(ChargeBook(), segment, "BUY", 1, 100, date=dt.date(2019, 1, 1))
    assert (early.schedule, early.exact) == (first.holds_from, False)
    late = charge(ChargeBook(), segment, "BUY", 1, 100, date=dt.date(2031, 1, 1))
    assert (late.schedule, late.exact) == (last.holds_from, False)


def test_brokerage_is_capped_per_order_over_its_fills() -> None:
    book = ChargeBook()
    parts = [charge(book, "equity_intraday", "BUY", quantity, 1000) for quantity in (30, 30, 30, 910)]
    assert [part.brokerage for part in parts] == [Decimal(9), Decimal(9), Decimal(2), Decimal(0)]
    whole = charge(ChargeBook(), "equity_intraday", "BUY", 1000, 1000)
    assert sum(part.total for part in parts) == whole.total


def test_the_flat_fee_of_options_is_charged_with_the_first_fill_only() -> None:
    book = ChargeBook()
    assert [charge(book, "options", "SELL", 50, 2.0).brokerage for _ in range(3)] == [20, 0, 0]
    assert charge(book, "options", "SELL", 50, 2.0, order="another").brokerage == 20


def test_orders_are_capped_apart() -> None:
    book = ChargeBook()
    assert charge(book, "equity_intraday", "BUY", 100, 1000, order="a").brokerage == 20
    assert charge(book, "equity_intraday", "BUY", 100, 1000, order="b").brokerage == 20


def test_the_depository_charges_once_per_scrip_and_day_of_selling() -> None:
    book = ChargeBook()
    sold = [
        charge(book, "equity_delivery", "SELL", 10, 100, order="a", token=1).dp,
        charge(book, "equity_delivery", "SELL", 10, 100, order="a", token=1).dp,
        charge(book, "equity_delivery", "SELL", 10, 100, order="b", token=1).dp,
        charge(book, "equity_delivery", "SELL", 10, 100, order="c", token=2).dp,
        charge(book, "equity_delivery", "BUY", 10, 100, order="d", token=3).dp,
        charge(book, "equity_intraday", "SELL", 10, 100, order="e", token=4).dp,
        charge(book, "equity_delivery", "SELL", 10, 100, order="f", token=1, date=TODAY + dt.timedelta(days=1)).dp,
    ]
    fee = Decimal("15.34")
    assert sold == [fee, 0, 0, fee, 0, 0, fee]


def test_an_order_that_ended_is_forgotten_and_its_day_of_selling_is_not() -> None:
    book = ChargeBook()
    charge(book, "equity_delivery", "SELL", 10, 100, order="sale", token=1)
    charge(book, "equity_intraday", "BUY", 10, 100, order="entry")
    book.forget("sale")
    book.forget("entry")
    book.forget("never filled")
    assert book.snapshot() == {"orders": {}, "sold_on": "2026-07-10", "sold": [1]}
    assert charge(book, "equity_delivery", "SELL", 10, 100, order="next sale", token=1).dp == 0


@pytest.mark.parametrize(
    ("quantity", "price_inr_e4", "date", "message"),
    [
        (0, 1_000_000, TODAY, "fill of order order has quantity 0 and price 1000000; both must be positive"),
        (-1, 1_000_000, TODAY, "both must be positive"),
        (1, 0, TODAY, "both must be positive"),
        (10**307, 1_000_000, TODAY, "turnover of order order is over"),
        (MOST_SHARES + 1, HIGHEST_PRICE_INR * RUPEE, TODAY, "turnover of order order is over"),
        (1, 1_000_000, TODAY - dt.timedelta(days=1), "delivery sale of 2026-07-09 comes after one of 2026-07-10"),
    ],
)
def test_a_fill_that_cannot_be_charged_leaves_the_book_as_it_was(
    quantity: int, price_inr_e4: int, date: dt.date, message: str
) -> None:
    book = ChargeBook()
    charge(book, "equity_delivery", "SELL", 10, 100)
    before = book.snapshot()
    with pytest.raises(ValueError, match=message):
        book.charges_of_fill(
            "order",
            "equity_delivery",
            "SELL",
            quantity=quantity,
            price_inr_e4=price_inr_e4,
            instrument_token=738562,
            date=date,
        )
    assert book.snapshot() == before


def test_a_restored_book_charges_as_the_one_that_it_came_from() -> None:
    book = ChargeBook()
    charge(book, "equity_intraday", "BUY", 33, 1234.05, order="open")
    charge(book, "equity_delivery", "SELL", 1, 100, order="sale", token=1)
    restored = ChargeBook.restore(json.loads(json.dumps(book.snapshot())))
    assert restored == book
    assert charge(restored, "equity_intraday", "BUY", 50, 1234.05, order="open") == charge(
        book, "equity_intraday", "BUY", 50, 1234.05, order="open"
    )
    assert charge(restored, "equity_delivery", "SELL", 1, 100, order="later", token=1).dp == 0
    assert ChargeBook.restore(ChargeBook().snapshot()) == ChargeBook()


@pytest.mark.parametrize("segment", SCHEDULES)
def test_no_item_of_the_largest_order_is_rounded(segment: Segment) -> None:
    turnover = MOST_SHARES * (HIGHEST_PRICE_INR - Fraction(1, RUPEE))
    for schedule in SCHEDULES[segment]:
        charges = charge(ChargeBook(), segment, "BUY", MOST_SHARES, 999_999.9999, date=schedule.holds_from)
        exchange, sebi = turnover * Fraction(schedule.exchange), turnover * Fraction(schedule.sebi)
        taxed = Fraction(schedule.brokerage_cap) + exchange + sebi
        levies = turnover * Fraction(schedule.stt_buy + schedule.stamp_buy + schedule.ipft)
        assert Fraction(charges.total) == taxed + Fraction(schedule.gst) * taxed + levies


def test_shares_are_charged_by_the_product_of_their_order() -> None:
    assert (equity_segment("MIS"), equity_segment("CNC")) == ("equity_intraday", "equity_delivery")
