"""What a trade on NSE through Zerodha is charged, by segment and date.

Rates are exact decimals, shares of turnover (quantity × price; of an option, its premium). A schedule holds from a day
on and is verified until another; a date outside all of them gets the nearest, and is told so.

Sources
-------
NSE transaction charges and IPFT (the exchange's investor protection fund): circulars NSE/FA/46730 (from 2021-01-01, as
quoted by 56129), NSE/FA/56129 (2023-04-01), NSE/FA/61137 (2024-04-01), NSE/FA/64232 (2024-10-01), NSE/FA/73061
(2026-03-01). Before 2024-10-01 the charge fell in slabs with a member's turnover; Zerodha passed on the first slab.
STT: Finance Acts 2023 (2023-04-01), No. 2 of 2024 (2024-10-01) and 2026 (2026-04-01, NSE/FATAX/73524); that of shares
is older than the table. Stamp duty: Indian Stamp Act as amended from 2020-07-01. SEBI: ₹10 a crore since 2021-04-01,
when the halving of June 2020 ended. Brokerage and DP: Zerodha's list of charges; its DP fee changed with the uniform
tariff of CDSL (2024-10-01). All of it was read in copies and quotations of these, not in a broker's bill.

The worked example of Kite Connect's page on charges (July 2023) comes out to the last digit in every item that it has.
It leaves out stamp duty, which another example of that page has and which the Act asks for: here it is charged.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Final, Literal

Segment = Literal["equity_delivery", "equity_intraday", "futures", "options"]


@dataclass(frozen=True, slots=True)
class ChargeSchedule:
    """The rates of one segment from one day on; shares of turnover unless said otherwise."""

    holds_from: dt.date
    verified_until: dt.date
    """The last day for which the rates were found in their sources."""
    brokerage: Decimal | None
    """Up to the cap; None for the cap itself, whatever the turnover."""
    brokerage_cap: Decimal
    """Rupees per order."""
    stt_buy: Decimal
    stt_sell: Decimal
    exchange: Decimal
    ipft: Decimal
    """Billed inside the exchange charge, without GST."""
    stamp_buy: Decimal
    dp: Decimal
    """Rupees per scrip and day of selling, with their GST."""
    sebi: Decimal = Decimal("0.000001")
    gst: Decimal = Decimal("0.18")
    """On brokerage, exchange charge without IPFT, and SEBI."""

    def days_from(self, date: dt.date) -> int:
        """Count the days between a date and the days for which this is verified; 0 inside."""
        return max((self.holds_from - date).days, (date - self.verified_until).days, 0)


def _percent(number: str) -> Decimal:
    return Decimal(number).scaleb(-2)


_NOTHING: Final = Decimal(0)
_TRADING_BROKERAGE: Final = _percent("0.03")
_BROKERAGE_CAP: Final = Decimal(20)
_READ_LAST: Final = dt.date(2026, 10, 5)
"""The last day on which Zerodha's list of charges is known to have read as here; later days are not exact until it is
compared again and this moves."""

_Row = tuple[dt.date, dt.date, str, str, str]

_EQUITY: Final[tuple[_Row, ...]] = (
    # from, until, exchange %, IPFT %, DP in rupees: (5.50 + 8.00) × 1.18, then (3.50 + 9.50) × 1.18
    (dt.date(2021, 4, 1), dt.date(2023, 3, 31), "0.00345", "0", "15.93"),  # IPFT of ₹0.01 a crore: not billed
    (dt.date(2023, 4, 1), dt.date(2024, 3, 31), "0.00325", "0.0001", "15.93"),
    (dt.date(2024, 4, 1), dt.date(2024, 9, 30), "0.00322", "0.0001", "15.93"),
    (dt.date(2024, 10, 1), dt.date(2026, 2, 28), "0.00297", "0.0001", "15.34"),
    (dt.date(2026, 3, 1), _READ_LAST, "0.00307", "0", "15.34"),  # IPFT became part of the charge
)
_FUTURES: Final[tuple[_Row, ...]] = (
    # from, until, exchange %, IPFT %, STT on selling %
    (dt.date(2021, 4, 1), dt.date(2023, 3, 31), "0.002", "0", "0.01"),
    (dt.date(2023, 4, 1), dt.date(2024, 3, 31), "0.0019", "0.0001", "0.0125"),
    (dt.date(2024, 4, 1), dt.date(2024, 9, 30), "0.00188", "0.0001", "0.0125"),
    (dt.date(2024, 10, 1), dt.date(2026, 2, 28), "0.00173", "0.0001", "0.02"),
    (dt.date(2026, 3, 1), dt.date(2026, 3, 31), "0.00183", "0", "0.02"),
    (dt.date(2026, 4, 1), _READ_LAST, "0.00183", "0", "0.05"),
)
_OPTIONS: Final[tuple[_Row, ...]] = (
    # from, until, exchange %, IPFT %, STT on selling %
    (dt.date(2021, 4, 1), dt.date(2023, 3, 31), "0.053", "0", "0.05"),
    (dt.date(2023, 4, 1), dt.date(2024, 3, 31), "0.05", "0.0005", "0.0625"),
    (dt.date(2024, 4, 1), dt.date(2024, 9, 30), "0.0495", "0.0005", "0.0625"),
    (dt.date(2024, 10, 1), dt.date(2026, 2, 28), "0.03503", "0.0005", "0.1"),
    (dt.date(2026, 3, 1), dt.date(2026, 3, 31), "0.03553", "0", "0.1"),
    (dt.date(2026, 4, 1), _READ_LAST, "0.03553", "0", "0.15"),
)


def _delivery(holds_from: dt.date, until: dt.date, exchange: str, ipft: str, dp: str) -> ChargeSchedule:
    return ChargeSchedule(
        holds_from,
        until,
        brokerage=_NOTHING,
        brokerage_cap=_NOTHING,
        stt_buy=_percent("0.1"),
        stt_sell=_percent("0.1"),
        exchange=_percent(exchange),
        ipft=_percent(ipft),
        stamp_buy=_percent("0.015"),
        dp=Decimal(dp),
    )


def _traded(
    holds_from: dt.date,
    until: dt.date,
    exchange: str,
    ipft: str,
    stt_sell: str,
    *,
    stamp_buy: str,
    brokerage: Decimal | None = _TRADING_BROKERAGE,
) -> ChargeSchedule:
    """Give the schedule of what is never delivered: STT on selling only, nothing for the depository."""
    return ChargeSchedule(
        holds_from,
        until,
        brokerage=brokerage,
        brokerage_cap=_BROKERAGE_CAP,
        stt_buy=_NOTHING,
        stt_sell=_percent(stt_sell),
        exchange=_percent(exchange),
        ipft=_percent(ipft),
        stamp_buy=_percent(stamp_buy),
        dp=_NOTHING,
    )


SCHEDULES: Final[dict[Segment, tuple[ChargeSchedule, ...]]] = {
    "equity_delivery": tuple(_delivery(*row) for row in _EQUITY),
    "equity_intraday": tuple(_traded(*row[:4], "0.025", stamp_buy="0.003") for row in _EQUITY),
    "futures": tuple(_traded(*row, stamp_buy="0.002") for row in _FUTURES),
    "options": tuple(_traded(*row, stamp_buy="0.003", brokerage=None) for row in _OPTIONS),
}
"""By segment, in order of dates."""


@lru_cache(maxsize=256)
def schedule_on(segment: Segment, date: dt.date) -> tuple[ChargeSchedule, bool]:
    """Give the schedule for a day, and whether it is verified for that day.

    Parameters
    ----------
    segment : Segment
        What is traded, and how.
    date : datetime.date
        The session's date in India.

    Returns
    -------
    tuple of ChargeSchedule and bool
        The schedule that holds and True; or the one verified nearest to the date (of two equally near, the earlier)
        and False.
    """
    nearest = min(SCHEDULES[segment], key=lambda schedule: schedule.days_from(date))
    return nearest, nearest.days_from(date) == 0
