"""An account's books as a snapshot has them, and back.

What follows from the rest is not written: what snapshots of the account say of a position, and totals as they are said.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from live_services.domain.account.account_view import PositionKey
from live_services.domain.account.books import Books, _Total
from live_services.domain.account.orders import read_orders, written_orders
from live_services.domain.account.trading_states import TradingStates
from live_services.domain.events import ExitTerms, Position
from live_services.domain.snapshot import Tree
from live_services.domain.written import WrittenOnce, fields_of, read_rows, read_values, written_rows

_PLAIN: Final = (
    "starting_cash_inr_e4",
    "cash_inr_e4",
    "equity_at_open_inr",
    "realized_inr_e4",
    "charges_inr_e4",
    "realized_today_inr_e4",
    "charges_today_inr_e4",
    "fills",
    "charges_exact",
    "epoch",
    "command_offset",
    "_outside_inr_e4",
    "_notional",
)
_KEYS: Final = ("_taken", "_opening", "_closing")
_BY_INDEX: Final = ("_gross", "_reference")


def written_books(books: Books, once: WrittenOnce) -> Tree:
    """Write the books down; who does it again and again hands over the same ``once``."""
    totals = [[*key, t.realized_inr_e4, t.charges_inr_e4, t.fills, t.trades] for key, t in books._totals.items()]
    return {
        "plain": {name: getattr(books, name) for name in _PLAIN},
        "positions": once.values(Position, books.positions.values()),
        "closed": written_rows(position.model_dump(mode="json") for position in books.closed),
        "orders": written_orders(books.orders.values(), once),
        "trading_states": books.trading_states.snapshot(),
        "handed_in": list(books.handed_in),
        "marks": books.marks.copy(),
        "totals": written_rows(totals),
        "keys": {name: written_rows(sorted(getattr(books, name))) for name in _KEYS},
        "by_index": {name: written_rows(getattr(books, name).items()) for name in _BY_INDEX},
    }


def restore_books(books: Books, kept: Tree) -> None:
    """Let new books of the same session go on where a snapshot was taken."""
    there = fields_of(kept)
    for name in _PLAIN:
        setattr(books, name, there["plain"][name])
    books.positions = {position.key: position for position in read_values(Position, there["positions"])}
    books.closed = [_closed_of(fields) for fields in read_rows(there["closed"])]
    books.orders = {order.submitted.order_id: order for order in read_orders(there["orders"])}
    books.trading_states = TradingStates.restored(there["trading_states"])
    books.handed_in = tuple(there["handed_in"])
    books.marks[:] = there["marks"]
    totals = read_rows(there["totals"])
    books._totals = {(strategy, name, version): _Total(*total) for strategy, name, version, *total in totals}
    books._said = None
    books.marked.begin(books.positions)
    for name in _KEYS:
        setattr(books, name, set(_keys_of(read_rows(there["keys"][name]))))
    for name in _BY_INDEX:
        setattr(books, name, dict(read_rows(there["by_index"][name])))


def _closed_of(fields: dict[str, Any]) -> Position:
    """Give a position of which nothing is left: of those that are held, none has no shares."""
    return Position.trusted(fields | {"exit": ExitTerms.model_validate(fields["exit"])})


def _keys_of(rows: Iterable[Any]) -> Iterable[PositionKey]:
    return ((strategy, instrument_token) for strategy, instrument_token in rows)
