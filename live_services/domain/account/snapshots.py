"""When an account says what it is worth, and what it says.

A snapshot at second ``s`` holds every fill and every mark with an event time before ``s``, and none later. It comes at
the next whole second after an order came to an end in part or whole, every ``interval_seconds`` from the session's open
while positions are open, and once at the end, one second after the close.
"""

from __future__ import annotations

import math

from feature_store.market.types import SECOND_NS, Session
from live_services.domain.account.books import Books
from live_services.domain.account.marked import marked
from live_services.domain.clock import NEVER_NS
from live_services.domain.events import PnlSnapshot, event_id
from live_services.domain.money import RUPEE
from live_services.domain.snapshot import Tree
from live_services.domain.written import fields_of
from models_registry.specification import Broker


def next_second(time_ns: int) -> int:
    """Give the first whole second strictly after a time."""
    return (time_ns // SECOND_NS + 1) * SECOND_NS


class SnapshotClock:
    """The seconds of a session at which snapshots are due."""

    def __init__(self, session: Session, interval_seconds: int) -> None:
        self._close_ns = session.close_ns
        self._origin_ns = session.open_ns // SECOND_NS * SECOND_NS
        self._interval_ns = interval_seconds * SECOND_NS
        self._next_ns = self._behind(session.open_ns)
        """When the next one is due while positions are open."""
        self._end_ns = next_second(session.close_ns)
        """When the last one is due; `NEVER_NS` once it was said."""
        self._changed_ns = NEVER_NS
        """When the next one is due because something changed; `NEVER_NS` if nothing did."""

    def changed(self, time_ns: int) -> None:
        """Take note that an order filled or ended."""
        if self._changed_ns == NEVER_NS:
            self._changed_ns = next_second(time_ns)

    def due_ns(self, holds: bool) -> int:
        """Give the second of the next snapshot; `NEVER_NS` after the last one."""
        if self._end_ns == NEVER_NS:
            return NEVER_NS
        next_ns = self._next_ns if self._changed_ns == NEVER_NS and holds else self._changed_ns
        return next_ns if next_ns < self._end_ns else self._end_ns

    def said(self, second: int) -> bool:
        """Take note of a snapshot; whether it was the session's last."""
        self._next_ns, self._changed_ns = self._behind(second), NEVER_NS
        if second > self._close_ns:
            self._end_ns = NEVER_NS
        return self._end_ns == NEVER_NS

    def _behind(self, time_ns: int) -> int:
        """Give the first multiple of the interval, counted from the session's open, behind a time."""
        return self._origin_ns + ((time_ns - self._origin_ns) // self._interval_ns + 1) * self._interval_ns

    def snapshot(self) -> Tree:
        """Write down what is due, and the interval, which the session's record gave."""
        return {
            "interval_ns": self._interval_ns,
            "next_ns": self._next_ns,
            "end_ns": self._end_ns,
            "changed_ns": self._changed_ns,
        }

    def restore(self, kept: Tree) -> None:
        """Go on where a snapshot was taken."""
        there = fields_of(kept)
        self._interval_ns, self._next_ns = there["interval_ns"], there["next_ns"]
        self._end_ns, self._changed_ns = there["end_ns"], there["changed_ns"]


def snapshot(books: Books, broker: Broker, session: Session, second: int) -> PnlSnapshot:
    """Say what the books hold; positions closed since the snapshot before are told once, at quantity 0."""
    closed, held = books.closed, books.marked
    if len(closed) > 1:
        closed.sort(key=lambda position: (position.key, position.opened_ns))
    held.mark(books.positions, books.universe.index_of_token, books.marks)
    own_id = event_id("pnl", broker, second)
    said = PnlSnapshot.trusted(
        {
            "event_type": "pnl.snapshot",
            "broker": broker,
            "event_id": own_id,
            "correlation_id": own_id,
            "causation_id": own_id,
            "event_time_ns": second,
            "schema_version": 2,
            "session_date": session.date.isoformat(),
            "positions": (*(marked(position, 0.0) for position in closed), *held.said),
            "strategies": books.strategy_totals(),
            "starting_cash_inr_e4": books.starting_cash_inr_e4,
            "cash_inr_e4": books.cash_inr_e4,
            "holdings_at_cost_inr_e4": held.cost_inr_e4,
            "realized_inr_e4": books.realized_inr_e4,
            "charges_inr_e4": books.charges_inr_e4,
            "realized_today_inr_e4": books.realized_today_inr_e4,
            "charges_today_inr_e4": books.charges_today_inr_e4,
            "unrealized_inr": math.fsum(held.unrealized_inr),
            "equity_inr": math.fsum([books.cash_inr_e4 / RUPEE, *held.worth_inr]),
            "equity_at_open_inr": books.equity_at_open_inr,
            "fills": books.fills,
            "orders_under_way": len(books.orders),
            "charges_exact": books.charges_exact,
        }
    )
    closed.clear()
    return said
