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
from functools import lru_cache
from typing import Any, Final, Literal, NamedTuple

from live_services.domain.account.charge_schedules import Segment, schedule_on
from live_services.domain.money import HIGHEST_PRICE_INR, MOST_SHARES, RUPEE
from models_registry.specification import Product

_SEGMENTS: Final[dict[Product, Segment]] = {"MIS": "equity_intraday", "CNC": "equity_delivery"}
_LARGEST_TURNOVER_INR: Final = MOST_SHARES * HIGHEST_PRICE_INR


def equity_segment(product: Product) -> Segment:
    """Give the segment by which an order for shares is charged."""
    return _SEGMENTS[product]


_PLACES: Final = 14
"""Decimals of a rupee that charges are calculated with: 4 of a turnover, 8 of a rate, 2 of the GST on both."""
_STEP: Final = 10 ** (_PLACES - 4)
"""1/10,000 rupee."""


class FillCharges(NamedTuple):
    """What one fill costs, exact: integers of 10^-14 rupee; its items are told in rupees."""

    of_brokerage: int
    of_stt: int
    of_exchange: int
    of_sebi: int
    of_stamp: int
    of_gst: int
    of_dp: int
    total_inr_e4: int
    """What is booked: the total half-up to 1/10,000 rupee."""
    schedule: dt.date
    """The day from which the schedule holds that was used."""
    exact: bool
    """Whether that schedule is verified for the fill's date; else it is the nearest one, and reports say so."""

    @property
    def brokerage(self) -> Decimal:
        """Of the broker."""
        return _in_rupees(self.of_brokerage)

    @property
    def stt(self) -> Decimal:
        """Securities transaction tax."""
        return _in_rupees(self.of_stt)

    @property
    def exchange(self) -> Decimal:
        """Of the exchange, with IPFT."""
        return _in_rupees(self.of_exchange)

    @property
    def sebi(self) -> Decimal:
        """Of the regulator."""
        return _in_rupees(self.of_sebi)

    @property
    def stamp(self) -> Decimal:
        """Stamp duty."""
        return _in_rupees(self.of_stamp)

    @property
    def gst(self) -> Decimal:
        """On brokerage, exchange charge without IPFT, and SEBI."""
        return _in_rupees(self.of_gst)

    @property
    def dp(self) -> Decimal:
        """Of the depository."""
        return _in_rupees(self.of_dp)

    @property
    def total(self) -> Decimal:
        """The exact sum of the items."""
        return _in_rupees(sum(self[:7]))


class _Rates(NamedTuple):
    """A schedule as integers: rates of 10^-8 of the turnover, amounts of 10^-12 rupee, GST in percent."""

    brokerage: int | None
    brokerage_cap: int
    stt_buy: int
    stt_sell: int
    exchange: int
    ipft: int
    stamp_buy: int
    sebi: int
    gst: int
    dp: int
    holds_from: dt.date
    exact: bool


@lru_cache(maxsize=256)
def _rates_on(segment: Segment, date: dt.date) -> _Rates:
    of, exact = schedule_on(segment, date)
    return _Rates(
        brokerage=None if of.brokerage is None else _scaled(of.brokerage, 8),
        brokerage_cap=_scaled(of.brokerage_cap, 12),
        stt_buy=_scaled(of.stt_buy, 8),
        stt_sell=_scaled(of.stt_sell, 8),
        exchange=_scaled(of.exchange, 8),
        ipft=_scaled(of.ipft, 8),
        stamp_buy=_scaled(of.stamp_buy, 8),
        sebi=_scaled(of.sebi, 8),
        gst=_scaled(of.gst, 2),
        dp=_scaled(of.dp, 12),
        holds_from=of.holds_from,
        exact=exact,
    )


def _scaled(number: Decimal, places: int) -> int:
    scaled = number.scaleb(places)
    if scaled != scaled.to_integral_value():
        raise ValueError(f"{number} of a schedule of charges has more than {places} decimals; calculate with more")
    return int(scaled)


def _in_rupees(amount: int) -> Decimal:
    return Decimal(amount).scaleb(-_PLACES)


@dataclass(slots=True)
class ChargeBook:
    """What an account was charged already, as far as later charges depend on it.

    Brokerage is capped per order over its fills; the depository charges once per scrip and day of selling.
    """

    _orders: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Turnover (1/10,000 rupee) and brokerage (10^-12 rupee) so far, by order with a fill."""
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
        before_inr_e4, charged = self._orders.get(order_id, (0, 0))
        order_turnover_inr_e4 = before_inr_e4 + turnover_inr_e4
        if order_turnover_inr_e4 > _LARGEST_TURNOVER_INR * RUPEE:
            raise ValueError(f"turnover of order {order_id} is over ₹{_LARGEST_TURNOVER_INR:,}; no order is that large")
        rates = _rates_on(segment, date)
        # Never a refund, where the rates fell between two fills of an order.
        brokerage = max(_brokerage(rates, order_turnover_inr_e4) - charged, 0)
        delivers = segment == "equity_delivery" and side == "SELL"
        dp = self._dp(rates, instrument_token, date) if delivers else 0
        charges = _charges(rates, side, turnover_inr_e4, brokerage=brokerage, dp=dp)
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
            "orders": {order_id: list(so_far) for order_id, so_far in self._orders.items()},
            "sold_on": self._sold_on.isoformat(),
            "sold": sorted(self._sold),
        }

    @classmethod
    def restore(cls, snapshot: Mapping[str, Any]) -> ChargeBook:
        """Make the book that gave a snapshot."""
        return cls(
            {order_id: (turnover, charged) for order_id, (turnover, charged) in snapshot["orders"].items()},
            dt.date.fromisoformat(snapshot["sold_on"]),
            set(snapshot["sold"]),
        )

    def _dp(self, rates: _Rates, instrument_token: int, date: dt.date) -> int:
        if date < self._sold_on:
            raise ValueError(
                f"delivery sale of {date} comes after one of {self._sold_on}; fills come in order of dates"
            )
        return 0 if date == self._sold_on and instrument_token in self._sold else rates.dp


def _brokerage(rates: _Rates, turnover_inr_e4: int) -> int:
    """Give the brokerage of an order with this turnover so far."""
    if rates.brokerage is None:
        return rates.brokerage_cap
    return min(rates.brokerage * turnover_inr_e4, rates.brokerage_cap)


def _charges(
    rates: _Rates, side: Literal["BUY", "SELL"], turnover_inr_e4: int, *, brokerage: int, dp: int
) -> FillCharges:
    exchange, sebi = rates.exchange * turnover_inr_e4, rates.sebi * turnover_inr_e4
    gst = rates.gst * (brokerage + exchange + sebi)  # a percentage: two decimals more than what it is of
    exchange += rates.ipft * turnover_inr_e4
    stt = (rates.stt_buy if side == "BUY" else rates.stt_sell) * turnover_inr_e4
    stamp = rates.stamp_buy * turnover_inr_e4 if side == "BUY" else 0
    total = 100 * (brokerage + stt + exchange + sebi + stamp + dp) + gst
    return FillCharges(
        100 * brokerage,
        100 * stt,
        100 * exchange,
        100 * sebi,
        100 * stamp,
        gst,
        100 * dp,
        (2 * total + _STEP) // (2 * _STEP),
        rates.holds_from,
        rates.exact,
    )
