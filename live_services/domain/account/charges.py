"""What every fill of an account is charged, exactly, item by item.

Charges follow the product of the order: CNC is charged as delivery and MIS as intraday, whatever happens to the
position later. The items are exact decimals; only their total is rounded, half-up to 1/10,000 rupee, once per fill.
A contract note rounds more coarsely (STT and stamp to the rupee over a day), so it may differ by up to a rupee an item.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Final, Literal, NamedTuple

from live_services.domain.account.charge_schedules import ChargeSchedule, Segment, schedule_on
from live_services.domain.money import HIGHEST_PRICE_INR, MOST_SHARES, RUPEE, inr_e4
from models_registry.specification import Product

_SEGMENTS: Final[dict[Product, Segment]] = {"MIS": "equity_intraday", "CNC": "equity_delivery"}
_NOTHING: Final = Decimal(0)
_LARGEST_TURNOVER_INR: Final = MOST_SHARES * HIGHEST_PRICE_INR


def equity_segment(product: Product) -> Segment:
    """Give the segment by which an order for shares is charged."""
    return _SEGMENTS[product]


class FillCharges(NamedTuple):
    """What one fill costs; exact rupees."""

    brokerage: Decimal
    stt: Decimal
    exchange: Decimal
    """With IPFT."""
    sebi: Decimal
    stamp: Decimal
    gst: Decimal
    dp: Decimal
    total: Decimal
    """The exact sum of the items."""
    total_inr_e4: int
    """What is booked: the total half-up to 1/10,000 rupee."""
    schedule: dt.date
    """The day from which the schedule holds that was used."""
    exact: bool
    """Whether that schedule is verified for the fill's date; else it is the nearest one, and reports say so."""


@dataclass(slots=True)
class ChargeBook:
    """What an account was charged already, as far as later charges depend on it.

    Brokerage is capped per order over its fills; the depository charges once per scrip and day of selling.
    """

    _orders: dict[str, tuple[int, Decimal]] = field(default_factory=dict)
    """Turnover (1/10,000 rupee) and brokerage so far, by order with a fill."""
    _sold_on: dt.date = dt.date.min
    _sold: set[int] = field(default_factory=set)
    """Instrument tokens that the depository charged for on that day."""

    def charges_of_fill(
        self,
        order_id: str,
        segment: Segment,
        side: Literal["BUY", "SELL"],
        *,
        quantity: int,
        price_inr_e4: int,
        instrument_token: int,
        date: dt.date,
    ) -> FillCharges:
        """Charge a fill, and remember what it adds to its order and its day.

        Parameters
        ----------
        order_id : str
            The order that it fills, wholly or in part.
        segment : Segment
            By which the order is charged; the same for all its fills.
        side : {"BUY", "SELL"}
            Side of the order.
        quantity : int
            Shares filled, positive.
        price_inr_e4 : int
            Price of one share (of an option, the premium), positive.
        instrument_token : int
            The scrip, for the depository.
        date : datetime.date
            The session's date in India; it never goes back.

        Returns
        -------
        FillCharges
            Items, total and schedule.

        Raises
        ------
        ValueError
            If quantity or price are not positive, the order's turnover is no amount, or the date is before that of an
            earlier delivery sale. The book is then as it was.
        """
        if quantity < 1 or price_inr_e4 < 1:
            raise ValueError(
                f"fill of order {order_id} has quantity {quantity} and price {price_inr_e4}; both must be positive"
            )
        turnover_inr_e4 = quantity * price_inr_e4
        before_inr_e4, charged = self._orders.get(order_id, (0, _NOTHING))
        order_turnover_inr_e4 = before_inr_e4 + turnover_inr_e4
        if order_turnover_inr_e4 > _LARGEST_TURNOVER_INR * RUPEE:
            raise ValueError(f"turnover of order {order_id} is over ₹{_LARGEST_TURNOVER_INR:,}; no order is that large")
        schedule, exact = schedule_on(segment, date)
        # Never a refund, where the rates fell between two fills of an order.
        brokerage = max(_brokerage(schedule, _in_rupees(order_turnover_inr_e4)) - charged, _NOTHING)
        delivers = segment == "equity_delivery" and side == "SELL"
        dp = self._dp(schedule, instrument_token, date) if delivers else _NOTHING
        charges = _charges(schedule, exact, side, _in_rupees(turnover_inr_e4), brokerage=brokerage, dp=dp)
        self._orders[order_id] = (order_turnover_inr_e4, charged + brokerage)
        if delivers:
            if date > self._sold_on:
                self._sold_on, self._sold = date, set()
            self._sold.add(instrument_token)
        return charges

    def forget(self, order_id: str) -> None:
        """Drop what is remembered of an order that has ended; one without a fill has nothing to drop."""
        self._orders.pop(order_id, None)

    def snapshot(self) -> dict[str, Any]:
        """Give the state as plain data that JSON holds exactly."""
        return {
            "orders": {order_id: [turnover, str(charged)] for order_id, (turnover, charged) in self._orders.items()},
            "sold_on": self._sold_on.isoformat(),
            "sold": sorted(self._sold),
        }

    @classmethod
    def restore(cls, snapshot: Mapping[str, Any]) -> ChargeBook:
        """Make the book that gave a snapshot."""
        return cls(
            {order_id: (turnover, Decimal(charged)) for order_id, (turnover, charged) in snapshot["orders"].items()},
            dt.date.fromisoformat(snapshot["sold_on"]),
            set(snapshot["sold"]),
        )

    def _dp(self, schedule: ChargeSchedule, instrument_token: int, date: dt.date) -> Decimal:
        if date < self._sold_on:
            raise ValueError(
                f"delivery sale of {date} comes after one of {self._sold_on}; fills come in order of dates"
            )
        return _NOTHING if date == self._sold_on and instrument_token in self._sold else schedule.dp


def _in_rupees(amount_inr_e4: int) -> Decimal:
    return Decimal(amount_inr_e4).scaleb(-4)


def _brokerage(schedule: ChargeSchedule, turnover: Decimal) -> Decimal:
    """Give the brokerage of an order with this turnover so far."""
    if schedule.brokerage is None:
        return schedule.brokerage_cap
    return min(schedule.brokerage * turnover, schedule.brokerage_cap)


def _charges(
    schedule: ChargeSchedule,
    exact: bool,
    side: Literal["BUY", "SELL"],
    turnover: Decimal,
    *,
    brokerage: Decimal,
    dp: Decimal,
) -> FillCharges:
    exchange = schedule.exchange * turnover
    sebi = schedule.sebi * turnover
    gst = schedule.gst * (brokerage + exchange + sebi)
    exchange += schedule.ipft * turnover
    stt = (schedule.stt_buy if side == "BUY" else schedule.stt_sell) * turnover
    stamp = schedule.stamp_buy * turnover if side == "BUY" else _NOTHING
    total = brokerage + stt + exchange + sebi + stamp + gst + dp
    return FillCharges(brokerage, stt, exchange, sebi, stamp, gst, dp, total, inr_e4(total), schedule.holds_from, exact)
