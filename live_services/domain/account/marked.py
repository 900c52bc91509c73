"""What snapshots of an account say of its open positions, kept from one to the next: what did not change stays."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from live_services.domain.account.account_view import PositionKey
from live_services.domain.events import Position, PositionMark
from live_services.domain.money import RUPEE


def price_before_any(position: Position) -> float:
    """Give what a position is valued at before the first price of the session, rupees: what it came with, or cost."""
    return position.mark_price or position.cost_inr_e4 / position.quantity / RUPEE


def marked(position: Position, price: float) -> PositionMark:
    """Give what is said of a position at a mark; one that was closed has none, 0."""
    of = vars(position)
    return PositionMark.trusted(
        {
            "strategy": of["strategy"],
            "instrument_token": of["instrument_token"],
            "symbol": of["symbol"],
            "model_version": of["model_version"],
            "quantity": of["quantity"],
            "cost_inr_e4": of["cost_inr_e4"],
            "mark_price": price,
            "realized_inr_e4": of["realized_inr_e4"],
            "unrealized_inr": of["quantity"] * price - of["cost_inr_e4"] / RUPEE,
            "charges_inr_e4": of["charges_inr_e4"],
            "opened_ns": of["opened_ns"],
            "opening_order_id": of["opening_order_id"],
            "expiry_ns": position.exit.expiry_ns,
        }
    )


@dataclass(slots=True)
class MarkedPositions:
    """The open positions at their marks, in columns, in the order of strategy and instrument token."""

    said: list[PositionMark] = field(default_factory=list)
    unrealized_inr: list[float] = field(default_factory=list)
    """Of each, rupees."""
    worth_inr: list[float] = field(default_factory=list)
    """Of each: quantity times mark, rupees."""
    cost_inr_e4: int = 0
    """Of all together."""
    _keys: list[PositionKey] = field(default_factory=list)
    _from: list[tuple[int | None, float]] = field(default_factory=list)
    """Of each its index in the universe, None outside of it, and its price before any."""
    _changed: set[PositionKey] = field(default_factory=set)
    _moved: bool = False

    def begin(self, positions: Mapping[PositionKey, Position]) -> None:
        """Begin anew with what is open."""
        for column in (self.said, self.unrealized_inr, self.worth_inr, self._keys, self._from):
            column.clear()
        self.cost_inr_e4 = 0
        self._changed = set(positions)

    def changed(self, key: PositionKey) -> None:
        """Take note that a position was opened, grew, shrank or ended."""
        self._changed.add(key)

    def moved(self) -> None:
        """Take note of new prices."""
        self._moved = True

    def mark(
        self,
        positions: Mapping[PositionKey, Position],
        index_of_token: Mapping[int, int],
        marks: NDArray[np.float64],
    ) -> None:
        """Bring the columns up to date.

        Parameters
        ----------
        positions : mapping of PositionKey to Position
            What is open.
        index_of_token : mapping of int to int
            Of the universe.
        marks : array of float64, shape (n_instruments,)
            Last price by index, rupees; NaN before the first.
        """
        if self._changed:
            for key in self._changed:
                self._replace(key, positions.get(key), index_of_token, marks)
            self._changed.clear()
            self.cost_inr_e4 = sum(vars(said)["cost_inr_e4"] for said in self.said)
        if self._moved:
            for place, (index, before) in enumerate(self._from):
                fields, price = vars(self.said[place]), _price(marks, index, before)
                if fields["mark_price"] != price:
                    self._say(place, fields.copy(), price)
            self._moved = False

    def _replace(
        self,
        key: PositionKey,
        position: Position | None,
        index_of_token: Mapping[int, int],
        marks: NDArray[np.float64],
    ) -> None:
        place = bisect_left(self._keys, key)
        if place < len(self._keys) and self._keys[place] == key:
            for column in (self.said, self.unrealized_inr, self.worth_inr, self._keys, self._from):
                del column[place]
        if position is None:
            return
        index, before = index_of_token.get(position.instrument_token), price_before_any(position)
        said = marked(position, _price(marks, index, before))
        of = vars(said)
        self._keys.insert(place, key)
        self._from.insert(place, (index, before))
        self.said.insert(place, said)
        self.unrealized_inr.insert(place, of["unrealized_inr"])
        self.worth_inr.insert(place, of["quantity"] * of["mark_price"])

    def _say(self, place: int, fields: dict[str, Any], price: float) -> None:
        fields["mark_price"] = price
        self.worth_inr[place] = worth_inr = fields["quantity"] * price
        fields["unrealized_inr"] = self.unrealized_inr[place] = worth_inr - fields["cost_inr_e4"] / RUPEE
        self.said[place] = PositionMark.trusted(fields)


def _price(marks: NDArray[np.float64], index: int | None, before: float) -> float:
    price: float = math.nan if index is None else marks.item(index)
    return before if price != price else price  # noqa: PLR0124 - NaN, in a fifth of the time
