"""The paper exchange: validated signals become orders; orders fill whole at the next price strictly after the decision.

A fill takes what comes next in the market, so the same market gives the same fills live, in replay and in a backtest.
A position's stop and target rest as one order, which ends by the one rule of `feature_store.labels.barriers`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from decimal import ROUND_HALF_UP, Decimal
from typing import Any, Final, Literal

from feature_store.labels.barriers import STOP, MarketRows, Touch, first_row, first_touch, rows_of
from feature_store.market.types import Session, Universe
from live_services.domain.account.account_view import AccountView, PositionKey
from live_services.domain.account.books import signed
from live_services.domain.account.charges import ChargeBook, equity_segment
from live_services.domain.account.orders import Order, read_orders, written_orders
from live_services.domain.basis import Outcome, Stamp, answer
from live_services.domain.clock import NEVER_NS
from live_services.domain.events import (
    Basis,
    FillModel,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    OrderSubmitted,
    Reason,
    Side,
    SignalValidated,
    event_id,
)
from live_services.domain.log import LogPosition, MarketSlice
from live_services.domain.money import MOST_SHARES, RUPEE, inr_e4
from live_services.domain.snapshot import Tree
from live_services.domain.written import WrittenOnce, fields_of, read_rows, written_rows

SESSION_CLOSED: Final = "session_closed"
NOTHING_TO_REDUCE: Final = "nothing_to_reduce"
TRADING_OFF: Final = "trading_off"
_BPS: Final = 10_000

_Hit = tuple[int, int, str, int, int, float]
"""Time, number of the order, its id, the row, which of a bracket's prices was touched (0: a market order), the price.

At one instant orders fill as they were submitted: in which order the rows came depends on partitions."""


class PaperExchange:
    """One paper account for one session: its market orders wait for the next price, its brackets rest.

    Parameters
    ----------
    universe, session
        Of the session.
    books : AccountView
        What is held: an exit never closes more.
    stamp : Stamp
        Configuration and code, for the basis of what the market causes.
    """

    def __init__(self, universe: Universe, session: Session, books: AccountView, stamp: Stamp) -> None:
        self._universe = universe
        self._session = session
        self._books = books
        self._stamp = stamp
        self.is_on = True
        """Whether it takes orders; in a session of a log that does not say it, it did."""
        self.slippage_bps = 0.0
        """How much worse it fills market orders and stops than at the price that they take; see `AccountConfig`."""
        self._charges = ChargeBook()
        self._live: dict[str, tuple[int, Order]] = {}
        """Number and order, by id."""
        self._of: dict[PositionKey, list[str]] = {}
        self._submitted = 0
        self._market: MarketSlice | None = None
        self._rows: MarketRows | None = None
        """Of the market at hand."""
        self._hits: list[_Hit] = []
        """Heap: the rows of the market at hand that fill what is live."""
        self._unscanned: list[str] = []

    # --- orders ---------------------------------------------------------------------------------------------------

    def switch(self, is_on: bool, at_ns: int) -> Iterator[Outcome]:
        """Take orders from now on, or none: then entries under way end, and the exits that rest go on resting."""
        self.is_on = is_on
        for order_id in () if is_on else tuple(self._live):
            if self._live[order_id][1].submitted.intent == "open":
                yield self._cancel(order_id, at_ns, TRADING_OFF, self._stamp.basis())

    def submit(self, signal: SignalValidated) -> Iterator[OrderSubmitted | Outcome]:
        """Accept a validated signal as an order at its time; an exit takes the place of what rests for its position.

        While it is off it takes none, now or later.

        Raises
        ------
        ValueError
            If its instrument is not in the universe, its order is live already, or more is to be ordered than anybody
            may hold; nothing is changed.
        """
        if not self.is_on:
            return
        index = self._universe.index_of_token.get(signal.instrument_token)
        key = (signal.strategy, signal.instrument_token)
        if index is None:
            raise ValueError(f"{signal.symbol} (token {key[1]}) is not in the universe of this session")
        if not 0 < signal.quantity <= MOST_SHARES:
            raise ValueError(f"{signal.quantity} shares are no order; one is of 1 to {MOST_SHARES:,}")
        order_id = event_id("order", signal.event_id)
        fields = answer(
            signal,
            "order.submitted",
            event_id("submitted", order_id),
            event_time_ns=signal.event_time_ns,
            basis=signal.basis,
            quantity=signal.quantity,
        )
        fields["signal_id"] = signal.signal_id
        fields["order_id"] = order_id
        fields["reason"] = signal.reason
        fields["reference_price"] = signal.reference_price
        fields["exit"] = signal.exit
        fields["stop_price_inr_e4"] = signal.stop_price_inr_e4
        fields["target_price_inr_e4"] = signal.target_price_inr_e4
        submitted = OrderSubmitted.trusted(fields)
        order = Order(submitted, submitted.quantity)
        if order_id in self._live:
            raise ValueError(f"order {order_id} of signal {signal.event_id} is live already")
        if signal.intent == "close" and signal.reason != "bracket":
            yield from self._cancel_all(key, signal.event_time_ns, f"{signal.reason}_exit", signal.basis)
        yield submitted
        if not self._universe.instruments[index].tradable:
            order.reject()
            fields = _end_of(
                submitted, "order.rejected", event_id("reject", order_id), signal.event_time_ns, signal.basis
            )
            yield OrderRejected.trusted(fields | {"why": f"{signal.symbol} is not tradable"})
            return
        self._live[order_id] = (self._submitted, order)
        self._submitted += 1
        self._of.setdefault(key, []).append(order_id)
        self._unscanned.append(order_id)

    @property
    def due_ns(self) -> int:
        """The close, if something is live then."""
        return self._session.close_ns if self._live else NEVER_NS

    def end_session(self) -> Iterator[Outcome]:
        """Cancel what is still unfilled, at the session's close."""
        for order_id in tuple(self._live):
            yield self._cancel(order_id, self._session.close_ns, SESSION_CLOSED, self._stamp.basis())

    # --- market ---------------------------------------------------------------------------------------------------

    def first_answer(self, market: MarketSlice, row: int) -> int:
        """Give the first row that fills something, or the number of rows."""
        if not self._live:
            self._hits.clear()
            return len(market)
        if market is not self._market:
            self._market, self._rows = market, rows_of(market.market, len(self._universe))
            self._unscanned = list(self._live)
            self._hits.clear()
        if self._unscanned:
            self._scan()
        while self._hits and self._hits[0][2] not in self._live:
            heapq.heappop(self._hits)
        return self._hits[0][3] if self._hits else len(market)

    def on_market(self, position: LogPosition, until_ns: int) -> Iterable[Outcome]:
        """Fill what the market at a position fills up to an instant; `first_answer` looked at it before."""
        if not self._live or not self._hits or self._hits[0][0] > until_ns:
            return ()
        return self._filled(until_ns, self._stamp.basis([position]))

    def _filled(self, until_ns: int, basis: Basis) -> Iterator[Outcome]:
        while self._hits and self._hits[0][0] <= until_ns:
            _, _, order_id, row, touched, price = heapq.heappop(self._hits)
            if order_id in self._live:
                yield from self._settle(order_id, row, touched, price, basis)
                if self._unscanned:
                    self._scan()

    def _scan(self) -> None:
        """Look where the market at hand fills the orders that were not looked at yet."""
        rows = self._rows
        assert rows is not None  # noqa: S101 - of `first_answer`
        for order_id in self._unscanned:
            if order_id not in self._live:
                continue
            number, order = self._live[order_id]
            submitted = order.submitted
            instrument = self._universe.index_of_token[submitted.instrument_token]
            if submitted.reason == "bracket":
                row, touched, price = self._first_touch(rows, instrument, submitted)
            else:
                row, touched = first_row(rows, instrument, submitted.event_time_ns), 0
                price = rows.open.item(row)
            if row >= 0:
                heapq.heappush(self._hits, (rows.seen_ns.item(row), number, order_id, row, touched, price))
        self._unscanned.clear()

    @staticmethod
    def _first_touch(rows: MarketRows, instrument: int, bracket: OrderSubmitted) -> Touch:
        # The bar whose open filled the entry counts from that open; the tick that filled it does not.
        side: Literal["left", "right"] = "right" if rows.margin_ns else "left"
        from_row = int(rows.seen_ns.searchsorted(bracket.event_time_ns, side))
        stop, target = _price(bracket.stop_price_inr_e4), _price(bracket.target_price_inr_e4)
        return first_touch(rows, instrument, 1 if bracket.side == "SELL" else -1, stop, target, from_row)

    # --- ends -----------------------------------------------------------------------------------------------------

    def _settle(self, order_id: str, row: int, touched: int, price: float, basis: Basis) -> Iterator[Outcome]:
        assert self._rows is not None  # noqa: S101 - of `first_answer`
        on_ticks, time_ns = self._rows.margin_ns > 0, self._rows.seen_ns.item(row)
        _, order = self._live[order_id]
        submitted, key = order.submitted, (order.submitted.strategy, order.submitted.instrument_token)
        quantity = min(order.remaining, self._reducible(submitted, key))
        if quantity == 0:
            yield self._cancel(order_id, time_ns, NOTHING_TO_REDUCE, basis)
            return
        reason: Reason = submitted.reason if not touched else "stop" if touched == STOP else "target"
        model: FillModel = "next_tick" if on_ticks else "next_bar_open"
        if touched:
            model = "touched_on_tick" if on_ticks else "touched_on_bar"
        price_inr_e4 = inr_e4(price)
        if self.slippage_bps and reason != "target":
            price_inr_e4 = slipped(price_inr_e4, submitted.side, self.slippage_bps)
        charges = self._charges.charges_of_fill(
            order_id,
            equity_segment(submitted.product),
            submitted.side,
            quantity=quantity,
            price_inr_e4=price_inr_e4,
            instrument_token=submitted.instrument_token,
            date=self._session.date,
        )
        order.fill(quantity)
        own_id = event_id("fill", order_id, order.fills)
        fields = _end_of(submitted, "order.filled", own_id, time_ns, basis, quantity)
        fields["reason"] = reason
        fields["price_inr_e4"] = price_inr_e4
        fields["price_time_ns"] = time_ns if touched else self._rows.begin_ns.item(row)
        fields["remaining_quantity"] = order.remaining
        fields["charges_inr_e4"] = charges.total_inr_e4
        fields["charges_schedule"] = charges.schedule.isoformat()
        fields["charges_exact"] = charges.exact
        fields["fill_model"] = model
        filled = OrderFilled.trusted(fields)
        if order.is_over:
            self._forget(order_id)
        yield filled
        if submitted.intent == "close" and key not in self._books.positions:
            yield from self._cancel_all(key, time_ns, "position_closed", basis)

    def _reducible(self, submitted: OrderSubmitted, key: PositionKey) -> int:
        """Shares that an exit can take off its position; an entry is not limited here."""
        if submitted.intent == "open":
            return submitted.quantity
        held = self._books.positions.get(key)
        if held is None or held.quantity * signed(submitted.side, 1) > 0:
            return 0
        return abs(held.quantity)

    def _cancel_all(self, key: PositionKey, time_ns: int, why: str, basis: Basis) -> Iterator[Outcome]:
        for order_id in tuple(self._of.get(key, ())):
            yield self._cancel(order_id, time_ns, why, basis)

    def _cancel(self, order_id: str, time_ns: int, why: str, basis: Basis) -> OrderCancelled:
        _, order = self._live[order_id]
        left = order.remaining
        order.cancel()
        self._forget(order_id)
        fields = _end_of(order.submitted, "order.cancelled", event_id("cancel", order_id), time_ns, basis, left)
        return OrderCancelled.trusted(fields | {"why": why})

    def _forget(self, order_id: str) -> None:
        _, order = self._live.pop(order_id)
        key = (order.submitted.strategy, order.submitted.instrument_token)
        self._of[key].remove(order_id)
        if not self._of[key]:
            del self._of[key]
        self._charges.forget(order_id)

    # --- snapshots ------------------------------------------------------------------------------------------------

    def snapshot(self) -> Tree:
        """Write down what is live, in order; an order that stands in the books as it does here is theirs to write.

        What it found in the market at hand is not written: that market was handled, and the next one is looked at anew.
        """
        booked = self._books.orders
        return {
            "is_on": self.is_on,
            "slippage_bps": self.slippage_bps,
            "submitted": self._submitted,
            "charges": self._charges.snapshot(),
            "live": written_rows([(order_id, number) for order_id, (number, _) in self._live.items()]),
            "unbooked": written_orders(
                [order for order_id, (_, order) in self._live.items() if booked.get(order_id) != order], WrittenOnce()
            ),
        }

    def restore(self, kept: Tree) -> None:
        """Go on where a snapshot was taken; the books were restored before.

        Raises
        ------
        KeyError
            If an order is live that the books do not have.
        """
        there = fields_of(kept)
        self.is_on, self.slippage_bps = there["is_on"], there["slippage_bps"]
        self._submitted, self._charges = there["submitted"], ChargeBook.restore(there["charges"])
        unbooked = {order.submitted.order_id: order for order in read_orders(there["unbooked"])}
        for order_id, number in read_rows(there["live"]):
            order = unbooked.get(order_id) or replace(self._books.orders[order_id])
            key = (order.submitted.strategy, order.submitted.instrument_token)
            self._live[order_id] = (number, order)
            self._of.setdefault(key, []).append(order_id)


def slipped(price_inr_e4: int, side: Side, slippage_bps: float) -> int:
    """Give a price that is worse for a side by so many basis points, rounded half-up to 1/10,000 rupee; at least 1."""
    worse = (Decimal(price_inr_e4) * Decimal(repr(slippage_bps)) / _BPS).to_integral_value(ROUND_HALF_UP)
    return max(price_inr_e4 + signed(side, int(worse)), 1)


def _end_of(  # noqa: PLR0917
    submitted: OrderSubmitted, event_type: str, own_id: str, time_ns: int, basis: Basis, quantity: int | None = None
) -> dict[str, Any]:
    """Give what every end of an order says, of the whole of it or of a part."""
    ended = submitted.quantity if quantity is None else quantity
    fields = answer(submitted, event_type, own_id, event_time_ns=time_ns, basis=basis, quantity=ended)
    fields["signal_id"] = submitted.signal_id
    fields["order_id"] = submitted.order_id
    fields["reason"] = submitted.reason
    return fields


def _price(price_inr_e4: int | None) -> float:
    return math.nan if price_inr_e4 is None else price_inr_e4 / RUPEE
