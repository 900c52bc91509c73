"""An order's life: a transition table, and how much of it is left."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from live_services.domain.events import OrderSubmitted
from live_services.domain.snapshot import Tree
from live_services.domain.written import WrittenOnce, fields_of, read_rows, read_values, written_rows

OrderState = Literal["submitted", "partially_filled", "filled", "rejected", "cancelled"]
OrderTrigger = Literal["fill_part", "fill_rest", "reject", "cancel"]

TRANSITIONS: Final[dict[tuple[OrderState, OrderTrigger], OrderState]] = {
    ("submitted", "fill_part"): "partially_filled",
    ("submitted", "fill_rest"): "filled",
    ("submitted", "reject"): "rejected",
    ("submitted", "cancel"): "cancelled",
    ("partially_filled", "fill_part"): "partially_filled",
    ("partially_filled", "fill_rest"): "filled",
    ("partially_filled", "cancel"): "cancelled",
}
"""Everything an order can do; whatever is not here cannot happen."""


class IllegalTransition(Exception):
    """An order was asked for a step that its state does not have; names both."""


@dataclass(slots=True)
class Order:
    """One order and where it stands."""

    submitted: OrderSubmitted
    remaining: int
    """Shares that are neither filled nor cancelled."""
    state: OrderState = "submitted"
    fills: int = 0

    def fill(self, quantity: int) -> None:
        """Fill so many of the remaining shares.

        Raises
        ------
        IllegalTransition
            If the order is at its end, or has not so many left.
        """
        if not 0 < quantity <= self.remaining:
            raise IllegalTransition(
                f"order {self.submitted.order_id} has {self.remaining} shares left; {quantity} cannot be filled"
            )
        self._step("fill_rest" if quantity == self.remaining else "fill_part")
        self.remaining -= quantity
        self.fills += 1

    def reject(self) -> None:
        """End it refused.

        Raises
        ------
        IllegalTransition
            If the table has no such step.
        """
        self._step("reject")
        self.remaining = 0

    def cancel(self) -> None:
        """End what is left of it unfilled.

        Raises
        ------
        IllegalTransition
            If the table has no such step.
        """
        self._step("cancel")
        self.remaining = 0

    @property
    def is_over(self) -> bool:
        """Whether nothing of it is left."""
        return self.remaining == 0

    def _step(self, trigger: OrderTrigger) -> None:
        try:
            self.state = TRANSITIONS[self.state, trigger]
        except KeyError:
            raise IllegalTransition(
                f"order {self.submitted.order_id} is {self.state}; it cannot take {trigger!r}"
            ) from None


def written_orders(orders: Iterable[Order], once: WrittenOnce) -> Tree:
    """Write orders and where they stand."""
    orders = list(orders)
    return {
        "submitted": once.values(OrderSubmitted, [order.submitted for order in orders]),
        "at": written_rows([order.remaining, order.state, order.fills] for order in orders),
    }


def read_orders(kept: Tree) -> list[Order]:
    """Read orders."""
    there = fields_of(kept)
    submitted = read_values(OrderSubmitted, there["submitted"])
    return [Order(event, *at) for event, at in zip(submitted, read_rows(there["at"]), strict=True)]
