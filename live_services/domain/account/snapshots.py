"""When an account says what it is worth, and what it says.

A snapshot at second ``s`` holds every fill and every mark with an event time before ``s``, and none later. It comes at
the next whole second after an order came to an end in part or whole, every ``interval_seconds`` from the session's open
while positions are open, and once at the end, one second after the close.
"""

from __future__ import annotations

import math

from feature_store.market.types import SECOND_NS, Session
from live_services.domain.account.books import Books
from live_services.domain.clock import NEVER_NS
from live_services.domain.events import PnlSnapshot, Position, PositionMark, self_caused
from live_services.domain.money import RUPEE
from models_registry.specification import Broker


def next_second(time_ns: int) -> int:
    """Give the first whole second strictly after a time."""
    return (time_ns // SECOND_NS + 1) * SECOND_NS


class SnapshotClock:
    """The seconds of a session at which snapshots are due."""

    def __init__(self, session: Session, interval_seconds: int) -> None:
        self._session = session
        self._interval_ns = interval_seconds * SECOND_NS
        self._last_ns = session.open_ns
        self._changed_ns: int | None = None
        self._finished = False

    def changed(self, time_ns: int) -> None:
        """Take note that an order filled or ended."""
        if self._changed_ns is None:
            self._changed_ns = time_ns

    def due_ns(self, holds: bool) -> int:
        """Give the second of the next snapshot; `NEVER_NS` after the last one."""
        if self._finished:
            return NEVER_NS
        due = next_second(self._session.close_ns)
        if self._changed_ns is not None:
            due = min(due, next_second(self._changed_ns))
        elif holds:
            origin = self._session.open_ns // SECOND_NS * SECOND_NS
            due = min(due, origin + ((self._last_ns - origin) // self._interval_ns + 1) * self._interval_ns)
        return due

    def said(self, second: int) -> bool:
        """Take note of a snapshot; whether it was the session's last."""
        self._last_ns, self._changed_ns = second, None
        self._finished = second > self._session.close_ns
        return self._finished


def snapshot(books: Books, broker: Broker, session: Session, second: int) -> PnlSnapshot:
    """Say what the books hold; positions closed since the snapshot before are told once, at quantity 0."""
    closed = sorted(books.closed, key=lambda position: (position.key, position.opened_ns))
    positions = tuple(mark_of(books, p) for p in (*closed, *(p for _, p in sorted(books.positions.items()))))
    books.closed.clear()
    return PnlSnapshot.trusted(
        {
            **self_caused("pnl", broker, second),
            "broker": broker,
            "event_time_ns": second,
            "session_date": session.date.isoformat(),
            "positions": positions,
            "strategies": books.strategy_totals(),
            "starting_cash_inr_e4": books.starting_cash_inr_e4,
            "cash_inr_e4": books.cash_inr_e4,
            "holdings_at_cost_inr_e4": books.holdings_at_cost_inr_e4(),
            "realized_inr_e4": books.realized_inr_e4,
            "charges_inr_e4": books.charges_inr_e4,
            "realized_today_inr_e4": books.realized_today_inr_e4,
            "charges_today_inr_e4": books.charges_today_inr_e4,
            "unrealized_inr": math.fsum(position.unrealized_inr for position in positions),
            "equity_inr": books.equity_inr(),
            "equity_at_open_inr": books.equity_at_open_inr,
            "fills": books.fills,
            "orders_under_way": len(books.orders),
            "charges_exact": books.charges_exact,
        }
    )


def mark_of(books: Books, position: Position) -> PositionMark:
    """Give a position at its mark."""
    quantity, price = position.quantity, books.mark(position) if position.quantity else 0.0
    return PositionMark.trusted(
        {
            "strategy": position.strategy,
            "instrument_token": position.instrument_token,
            "symbol": position.symbol,
            "model_version": position.model_version,
            "quantity": quantity,
            "cost_inr_e4": position.cost_inr_e4,
            "mark_price": price,
            "realized_inr_e4": position.realized_inr_e4,
            "unrealized_inr": quantity * price - position.cost_inr_e4 / RUPEE,
            "charges_inr_e4": position.charges_inr_e4,
            "opened_ns": position.opened_ns,
            "opening_order_id": position.opening_order_id,
            "expiry_ns": position.exit.expiry_ns,
        }
    )
