"""The paper broker: validated signals become orders; orders fill whole at the next price strictly after the decision.

A fill takes what comes next in the market, so the same market gives the same fills live, in replay and in a backtest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import Bars, Session, Ticks, Universe
from live_services.domain.account.risk import NOTHING_TO_REDUCE, signed
from live_services.domain.basis import Outcome, handed_on
from live_services.domain.events import (
    Basis,
    Event,
    FillModel,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    OrderSubmitted,
    SignalValidated,
    event_id,
)

OrderState = Literal["submitted", "filled", "rejected", "cancelled"]
OrderTrigger = Literal["fill", "reject", "cancel"]

TRANSITIONS: Final[dict[tuple[OrderState, OrderTrigger], OrderState]] = {
    ("submitted", "fill"): "filled",
    ("submitted", "reject"): "rejected",
    ("submitted", "cancel"): "cancelled",
}
"""Everything an order can do; whatever is not here cannot happen."""

SESSION_CLOSED: Final = "session_closed"
_BPS: Final = 1e-4
_FIRST_WINDOW: Final = 4096  # rows; a fill is mostly among the next few, so a whole session is not scanned per order


class IllegalTransition(Exception):
    """An order was asked for a step that its state does not have; names both."""


@dataclass(slots=True)
class Order:
    """One order and where it stands."""

    submitted: OrderSubmitted
    instrument: int
    """Index in the universe; -1 when it is not in it."""
    state: OrderState = "submitted"

    def trigger(self, trigger: OrderTrigger) -> None:
        """Move along the transition table.

        Raises
        ------
        IllegalTransition
            If the table has no such step.
        """
        try:
            self.state = TRANSITIONS[self.state, trigger]
        except KeyError:
            raise IllegalTransition(
                f"order {self.submitted.order_id} is {self.state}; it cannot take {trigger!r}"
            ) from None


@dataclass(frozen=True, slots=True)
class _Price:
    """What an order fills at, and in which row of the slice."""

    row: int
    price: float
    time_ns: int
    price_time_ns: int


@dataclass(slots=True)
class PaperBroker:
    """One paper account for one session: pending orders in order of submission, and signed positions by instrument."""

    universe: Universe
    session: Session
    costs_bps: float
    pending: list[Order] = field(default_factory=list)
    positions: dict[int, int] = field(default_factory=dict)

    def submit(self, signal: SignalValidated, basis: Basis | None = None) -> list[Event]:
        """Accept a validated signal as an order at the signal's time; refuse it at once if it cannot trade."""
        instrument = self.universe.index_of_token.get(signal.instrument_token, -1)
        submitted = OrderSubmitted(
            **handed_on(signal),
            event_id=event_id("submitted", signal.signal_id),
            event_time_ns=signal.event_time_ns,
            basis=basis or Basis(),
            quantity=signal.quantity,
            signal_id=signal.signal_id,
            order_id=event_id("order", signal.signal_id),
            reference_price=signal.reference_price,
        )
        order = Order(submitted, instrument)
        if instrument < 0:
            return [submitted, _reject(order, f"{signal.symbol} is not in the universe", basis)]
        if not self.universe.instruments[instrument].tradable:
            return [submitted, _reject(order, f"{signal.symbol} is not tradable", basis)]
        self.pending.append(order)
        return [submitted]

    def on_ticks(self, ticks: Ticks, basis: Basis | None = None) -> list[Outcome]:
        """Fill pending orders at the first tick of their instrument with a strictly later time."""
        return self._fill(lambda order: _next_tick(order, ticks), "next_tick", basis) if self.pending else []

    def on_bars(self, bars: Bars, basis: Basis | None = None) -> list[Outcome]:
        """Fill pending orders at the open of the first bar of their instrument that starts at or after their time.

        The fill is known when that bar is: its event time is the bar's end, its price time the bar's start.
        """
        return self._fill(lambda order: _next_bar(order, bars), "next_bar_open", basis) if self.pending else []

    def end_session(self, basis: Basis | None = None) -> list[Outcome]:
        """Cancel what is still unfilled, at the session's close."""
        cancelled: list[Outcome] = [
            _cancel(order, self.session.close_ns, SESSION_CLOSED, basis) for order in self.pending
        ]
        self.pending.clear()
        return cancelled

    def _fill(
        self, find: Callable[[Order], _Price | None], fill_model: FillModel, basis: Basis | None
    ) -> list[Outcome]:
        found = [(order, price) for order in self.pending if (price := find(order)) is not None]
        if not found:
            return []
        found.sort(key=lambda pair: pair[1].row)  # stable: submission order at one tick
        outcomes = [self._settle(order, price, fill_model, basis) for order, price in found]
        self.pending = [order for order in self.pending if order.state == "submitted"]
        return outcomes

    def _settle(self, order: Order, price: _Price, fill_model: FillModel, basis: Basis | None) -> Outcome:
        submitted = order.submitted
        held = self.positions.get(order.instrument, 0)
        quantity = submitted.quantity
        if submitted.intent == "close":
            quantity = min(quantity, max(-held if submitted.side == "BUY" else held, 0))
        if quantity == 0:
            return _cancel(order, price.time_ns, NOTHING_TO_REDUCE, basis)
        order.trigger("fill")
        self.positions[order.instrument] = held + signed(submitted.side, quantity)
        return OrderFilled(
            **_of_order(submitted, basis),
            event_id=event_id("fill", submitted.order_id),
            event_time_ns=price.time_ns,
            quantity=quantity,
            price=price.price,
            price_time_ns=price.price_time_ns,
            costs_inr=quantity * price.price * self.costs_bps * _BPS,
            fill_model=fill_model,
        )


def _next_tick(order: Order, ticks: Ticks) -> _Price | None:
    first = int(np.searchsorted(ticks.event_time_ns, order.submitted.event_time_ns, side="right"))
    row = _first_row(ticks.instrument, order.instrument, first)
    if row is None:
        return None
    time_ns = int(ticks.event_time_ns[row])
    return _Price(row, float(ticks.last_price[row]), time_ns, time_ns)


def _next_bar(order: Order, bars: Bars) -> _Price | None:
    time_ns = order.submitted.event_time_ns
    row = _first_row(bars.instrument, order.instrument, int(np.searchsorted(bars.end_ns, time_ns, side="right")))
    while row is not None and bars.start_ns[row] < time_ns:
        row = _first_row(bars.instrument, order.instrument, row + 1)
    if row is None:
        return None
    return _Price(row, float(bars.open[row]), int(bars.end_ns[row]), int(bars.start_ns[row]))


def _first_row(instruments: NDArray[np.int32], instrument: int, first: int) -> int | None:
    """Find the first row of an instrument from ``first`` on, in windows that double."""
    window = _FIRST_WINDOW
    while first < len(instruments):
        hits = np.flatnonzero(instruments[first : first + window] == instrument)
        if len(hits):
            return first + int(hits[0])
        first, window = first + window, window * 2
    return None


def _of_order(submitted: OrderSubmitted, basis: Basis | None) -> dict[str, Any]:
    return handed_on(submitted) | {
        "basis": basis or Basis(),
        "signal_id": submitted.signal_id,
        "order_id": submitted.order_id,
    }


def _reject(order: Order, reason: str, basis: Basis | None) -> OrderRejected:
    order.trigger("reject")
    return OrderRejected(
        **_of_order(order.submitted, basis),
        event_id=event_id("reject", order.submitted.order_id),
        event_time_ns=order.submitted.event_time_ns,
        quantity=order.submitted.quantity,
        reason=reason,
    )


def _cancel(order: Order, time_ns: int, reason: str, basis: Basis | None) -> OrderCancelled:
    order.trigger("cancel")
    return OrderCancelled(
        **_of_order(order.submitted, basis),
        event_id=event_id("cancel", order.submitted.order_id),
        event_time_ns=time_ns,
        quantity=order.submitted.quantity,
        reason=reason,
    )


def outcomes_of(events: Iterable[Event]) -> list[Outcome]:
    """Pick the events that end an order."""
    return [event for event in events if isinstance(event, OrderFilled | OrderRejected | OrderCancelled)]
