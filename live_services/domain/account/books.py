"""The books of one account: cash, positions by strategy and instrument, and orders under way. Exact.

Two strategies may hold one instrument, each its own position; the broker nets them, the books do not. Everything is in
integers of 1/10,000 rupee, so ``cash + holdings at cost = starting cash + realized - charges`` at every moment, and the
strategies' books add up to the account's. The portfolio manager alone writes them; the others read.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from operator import itemgetter
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import Universe
from live_services.domain.account.account_view import PositionKey
from live_services.domain.account.marked import MarkedPositions, price_before_any
from live_services.domain.account.orders import Order
from live_services.domain.account.trading_states import TradingStates
from live_services.domain.basis import Outcome
from live_services.domain.events import (
    AccountOpened,
    AnswersCommands,
    OrderFilled,
    OrderRejected,
    OrderSubmitted,
    Position,
    RecordTaken,
    Side,
    StrategyTotals,
    TradingStateChanged,
)
from live_services.domain.money import LARGEST_INR, RUPEE, inr_e4, share

_TERMS: Final = itemgetter("strategy", "instrument_token", "symbol", "side", "intent")
"""What an order and its outcomes have alike."""
VersionKey = tuple[str, str, str]
"""A strategy, its model's name and version."""


class BookError(ValueError):
    """An event that the books cannot take: nothing of it was written."""


@dataclass(slots=True)
class _Total:
    """What a strategy's version came to since the account began."""

    realized_inr_e4: int = 0
    charges_inr_e4: int = 0
    fills: int = 0
    trades: int = 0


def check_price(price: float) -> None:
    """Check that a price can be valued.

    Raises
    ------
    BookError
        If it is none.
    """
    if not 0 < price <= LARGEST_INR:  # NaN is neither
        raise BookError(f"{price} is no price; one is above 0 and at most {LARGEST_INR:,} rupees")


def signed(side: Side, quantity: int) -> int:
    """Give the change of a position: positive for BUY, negative for SELL."""
    return quantity if side == "BUY" else -quantity


class Books:
    """One account in one session.

    Parameters
    ----------
    universe : Universe
        Of the session; a carried position of an instrument that is not in it stays, at the mark it came with.
    starting_cash_inr_e4 : int
        What a new account begins with.
    """

    def __init__(self, universe: Universe, starting_cash_inr_e4: int) -> None:
        self.universe: Final = universe
        self.starting_cash_inr_e4 = starting_cash_inr_e4
        self.cash_inr_e4 = starting_cash_inr_e4
        self.equity_at_open_inr = starting_cash_inr_e4 / RUPEE
        self.positions: dict[PositionKey, Position] = {}
        self.orders: dict[str, Order] = {}
        """Under way, by order id."""
        self.realized_inr_e4 = 0
        """Since the account began, before charges."""
        self.charges_inr_e4 = 0
        """Since the account began."""
        self.realized_today_inr_e4 = 0
        self.charges_today_inr_e4 = 0
        self.fills = 0
        self.charges_exact = True
        self.marked = MarkedPositions()
        """What the last snapshot said of the open positions."""
        self.closed: list[Position] = []
        """Closed since the last snapshot, at quantity 0."""
        self.epoch = 0
        self.trading_states = TradingStates()
        self.command_offset = -1
        """Of the last command that the account answered."""
        self.handed_in: tuple[str, ...] = ()
        """Dead letters whose records were taken as new ones."""
        self.marks: NDArray[np.float64] = np.full(len(universe), np.nan)
        """Last price by index in the universe, rupees; NaN before the first."""
        self._totals: dict[VersionKey, _Total] = {}
        self._said: tuple[StrategyTotals, ...] | None = None
        """The totals as they are said; None since they changed."""
        self._gross: dict[int, int] = {}
        """Shares held or under way, by index in the universe."""
        self._reference: dict[int, float] = {}
        """What they count at before the first price."""
        self._taken: set[PositionKey] = set()
        """Held, or with an entry under way."""
        self._opening: set[PositionKey] = set()
        """With an entry under way, a part of which may have filled."""
        self._closing: set[PositionKey] = set()
        self._outside_inr_e4 = 0
        """Value of carried positions whose instruments are not in the universe."""
        self._notional: int | None = None

    # --- what they say --------------------------------------------------------------------------------------------

    @property
    def open_positions(self) -> int:
        """Positions that are open, or will be once the orders under way have filled."""
        return len(self._taken)

    def is_taken(self, key: PositionKey) -> bool:
        """Whether a strategy holds an instrument or has an order under way there."""
        return key in self._taken

    def is_closing(self, key: PositionKey) -> bool:
        """Whether an exit at the market is under way."""
        return key in self._closing

    def is_protected(self, key: PositionKey) -> bool:
        """Whether a stop or a target rests."""
        resting = (order.submitted for order in self.orders.values() if order.submitted.reason == "bracket")
        return any((submitted.strategy, submitted.instrument_token) == key for submitted in resting)

    def quantity(self, instrument_token: int) -> int:
        """Shares held or under way of an instrument, of all strategies, without netting."""
        index = self.universe.index_of_token.get(instrument_token)
        return self._gross.get(index, 0) if index is not None else 0

    def gross_notional_inr_e4(self) -> int:
        """Value of everything held or under way at its marks, without netting."""
        if self._notional is None:
            worth = [shares * self._price_inr_e4(index) for index, shares in self._gross.items()]
            self._notional = sum(worth, self._outside_inr_e4)
        return self._notional

    def _price_inr_e4(self, index: int) -> int:
        price = self.marks.item(index)
        return round((self._reference[index] if math.isnan(price) else price) * RUPEE)

    def mark(self, position: Position) -> float:
        """Give the price that a position is valued at: the last one, else the one it came with, else its cost."""
        index = self.universe.index_of_token.get(position.instrument_token)
        price = self.marks.item(index) if index is not None else math.nan
        return price_before_any(position) if math.isnan(price) else price

    def equity_inr(self) -> float:
        """Cash and holdings at their marks; the same in whatever order they are held."""
        return math.fsum([self.cash_inr_e4 / RUPEE, *(p.quantity * self.mark(p) for p in self.positions.values())])

    # --- what they take -------------------------------------------------------------------------------------------

    def on_prices(self, instrument: NDArray[np.int32], price: NDArray[np.float64]) -> None:
        """Take last prices in order of time."""
        self.marks[instrument] = price  # of repeated indices the last one stays
        self.marked.moved()
        self._notional = None

    def on_submitted(self, event: OrderSubmitted) -> None:
        """Take an order as under way.

        Raises
        ------
        BookError
            If its instrument is unknown, it is there already, it would add to what its strategy holds, it closes what
            is not held, or its price is none.
        """
        index = self._index(event.instrument_token, event.symbol)
        if event.order_id in self.orders:
            raise BookError(f"order {event.order_id} was submitted twice")
        key, order = (event.strategy, event.instrument_token), Order(event, event.quantity)
        if event.intent == "open" and self.is_taken(key):
            raise BookError(f"{event.strategy} holds {event.symbol} or has an order under way there already")
        if event.intent == "close" and key not in self.positions:
            raise BookError(f"order {event.order_id} closes {event.symbol}, which {event.strategy} does not hold")
        if event.intent == "open":
            check_price(event.reference_price)
        self.orders[event.order_id] = order
        if event.intent == "open":
            self._taken.add(key)
            self._opening.add(key)
            self._reference[index] = event.reference_price
            self._add_gross(index, event.quantity)
        elif event.reason != "bracket":
            self._closing.add(key)

    def on_outcome(self, event: Outcome) -> None:
        """Take a fill, or the end of what was left of an order.

        Raises
        ------
        BookError
            If the order is not under way or another one, the fill is larger than what is left, its price is none, or
            it closes what is not there.
        IllegalTransition
            If an order cannot end so.
        """
        order = self.orders.get(event.order_id)
        if order is None:
            raise BookError(f"order {event.order_id} ({event.event_type}) is not under way here")
        said, ordered = _TERMS(vars(event)), _TERMS(vars(order.submitted))
        if said != ordered:
            raise BookError(f"{event.event_type} is of {said}, order {event.order_id} of {ordered}")
        if isinstance(event, OrderFilled):
            left = order.remaining - event.quantity
            if event.quantity < 1 or left < 0 or event.remaining_quantity != left:
                raise BookError(
                    f"order {event.order_id} has {order.remaining} shares left; a fill of {event.quantity} says that "
                    f"{event.remaining_quantity} stay"
                )
            self._fill(event, order.submitted)
            order.fill(event.quantity)
        else:
            left = order.remaining
            order.reject() if isinstance(event, OrderRejected) else order.cancel()
            if event.intent == "open":
                self._add_gross(self._index(event.instrument_token, event.symbol), -left)
        if order.is_over:
            self._end(order.submitted)

    def _end(self, submitted: OrderSubmitted) -> None:
        key = (submitted.strategy, submitted.instrument_token)
        del self.orders[submitted.order_id]
        if submitted.intent == "open":
            self._opening.discard(key)
            if key not in self.positions:
                self._taken.discard(key)
        elif submitted.reason != "bracket":
            self._closing.discard(key)

    def _fill(self, fill: OrderFilled, submitted: OrderSubmitted) -> None:
        key = (fill.strategy, fill.instrument_token)
        index, held = self._index(fill.instrument_token, fill.symbol), self.positions.get(key)
        change = signed(fill.side, fill.quantity)
        check_price(fill.price_inr_e4 / RUPEE)
        if fill.intent == "open":
            after, realized, ended = _opened(held, fill, submitted, change), 0, False
        else:
            if held is None or held.quantity * change >= 0 or abs(change) > abs(held.quantity):
                raise BookError(
                    f"a fill of order {fill.order_id} closes {fill.quantity} {fill.symbol} of {fill.strategy}, which "
                    f"holds {held.quantity if held is not None else 0}"
                )
            after = _closed(held, fill, change)
            realized, ended = after.realized_inr_e4 - held.realized_inr_e4, after.quantity == 0
        if fill.intent == "close":
            self._add_gross(index, -fill.quantity)
        self.marked.changed(key)
        if ended:
            del self.positions[key]
            self.closed.append(after)
            if key not in self._opening:
                self._taken.discard(key)
        else:
            self.positions[key] = after
        self.cash_inr_e4 -= change * fill.price_inr_e4 + fill.charges_inr_e4
        self.charges_exact &= fill.charges_exact
        self._count(after, realized, fill.charges_inr_e4, ended)

    def _count(self, position: Position, realized: int, charges: int, ended: bool) -> None:
        self.realized_inr_e4 += realized
        self.charges_inr_e4 += charges
        self.realized_today_inr_e4 += realized
        self.charges_today_inr_e4 += charges
        self.fills += 1
        self._said = None
        total = self._totals.setdefault((position.strategy, position.model_name, position.model_version), _Total())
        total.realized_inr_e4 += realized
        total.charges_inr_e4 += charges
        total.fills += 1
        total.trades += ended

    def _index(self, instrument_token: int, symbol: str) -> int:
        try:
            return self.universe.index_of_token[instrument_token]
        except KeyError:
            raise BookError(f"{symbol} (token {instrument_token}) is not in the universe of this session") from None

    def _add_gross(self, index: int, quantity: int) -> None:
        self._gross[index] = self._gross.get(index, 0) + quantity
        if self._notional is not None:
            self._notional += quantity * self._price_inr_e4(index)
        if not self._gross[index]:
            del self._gross[index]

    def on_answer(self, event: AnswersCommands) -> None:
        """Take what was answered to a command."""
        self.command_offset = max(self.command_offset, event.command_offset)
        if isinstance(event, TradingStateChanged):
            self.trading_states = self.trading_states.after(event.in_force)
        elif isinstance(event, RecordTaken):
            self.handed_in = (*self.handed_in, event.letter_id)

    # --- from session to session ----------------------------------------------------------------------------------

    def carried(self) -> tuple[Position, ...]:
        """Give what is open, each with its mark, as the record of the next session carries it."""
        return tuple(p.model_copy(update={"mark_price": self.mark(p)}) for _, p in sorted(self.positions.items()))

    def open_from(self, event: AccountOpened) -> None:
        """Begin the session with what a record carries into it.

        Raises
        ------
        BookError
            If it holds a position twice or one of no shares, or its cash, positions and totals do not balance.
        """
        positions = {position.key: position for position in event.positions}
        if len(positions) != len(event.positions) or not all(position.quantity for position in event.positions):
            raise BookError(
                f"{event.event_id} carries a position twice, or one of no shares, into {event.session_date}"
            )
        held = event.cash_inr_e4 + sum(position.cost_inr_e4 for position in event.positions)
        earned = sum(total.realized_inr_e4 - total.charges_inr_e4 for total in event.strategies)
        if held != event.starting_cash_inr_e4 + earned:
            raise BookError(
                f"{event.event_id} does not balance: cash and positions at cost are {held}, starting cash and what was "
                f"earned {event.starting_cash_inr_e4 + earned} (1/10,000 rupee)"
            )
        self.trading_states = TradingStates.carried(event.trading_states)
        self.command_offset, self.handed_in = event.command_offset, event.handed_in
        self.starting_cash_inr_e4, self.cash_inr_e4 = event.starting_cash_inr_e4, event.cash_inr_e4
        self.equity_at_open_inr = event.equity_inr
        self.positions = positions
        self.marked.begin(positions)
        self._taken = set(self.positions)
        self._totals = {
            (t.strategy, t.model_name, t.model_version): _Total(t.realized_inr_e4, t.charges_inr_e4, t.fills, t.trades)
            for t in event.strategies
        }
        self._said = None
        self.realized_inr_e4 = sum(total.realized_inr_e4 for total in self._totals.values())
        self.charges_inr_e4 = sum(total.charges_inr_e4 for total in self._totals.values())
        self._gross, self._outside_inr_e4, self._notional = {}, 0, None
        for position in event.positions:
            index, price = self.universe.index_of_token.get(position.instrument_token), self.mark(position)
            if index is None:
                self._outside_inr_e4 += abs(position.quantity) * inr_e4(price)
            else:
                self._gross[index] = self._gross.get(index, 0) + abs(position.quantity)
                self._reference[index] = price
        self.epoch += 1

    def strategy_totals(self) -> tuple[StrategyTotals, ...]:
        """Give what each strategy's version came to since the account began."""
        if self._said is None:
            self._said = tuple(_said(*key, total) for key, total in sorted(self._totals.items()))
        return self._said


def _said(strategy: str, model_name: str, model_version: str, total: _Total) -> StrategyTotals:
    return StrategyTotals.trusted(
        {
            "strategy": strategy,
            "model_name": model_name,
            "model_version": model_version,
            "realized_inr_e4": total.realized_inr_e4,
            "charges_inr_e4": total.charges_inr_e4,
            "fills": total.fills,
            "trades": total.trades,
        }
    )


def _opened(held: Position | None, fill: OrderFilled, submitted: OrderSubmitted, change: int) -> Position:
    """Give the position after a fill of an opening order; further fills of the same order add to it."""
    cost = change * fill.price_inr_e4
    if held is not None:
        if held.opening_order_id != fill.order_id:
            raise BookError(f"order {fill.order_id} opens {fill.symbol} of {fill.strategy}, which is held already")
        return Position.trusted(
            vars(held)
            | {
                "quantity": held.quantity + change,
                "cost_inr_e4": held.cost_inr_e4 + cost,
                "charges_inr_e4": held.charges_inr_e4 + fill.charges_inr_e4,
            }
        )
    if submitted.exit is None:
        raise BookError(f"order {fill.order_id} opens a position without saying how it is to end")
    return Position.trusted(
        {
            "strategy": fill.strategy,
            "rung": fill.rung,
            "instrument_token": fill.instrument_token,
            "symbol": fill.symbol,
            "product": fill.product,
            "quantity": change,
            "cost_inr_e4": cost,
            "realized_inr_e4": 0,
            "charges_inr_e4": fill.charges_inr_e4,
            "opened_ns": fill.price_time_ns,
            "opening_order_id": fill.order_id,
            "opening_fill_id": fill.event_id,
            "signal_id": fill.signal_id,
            "model_name": fill.model_name,
            "model_version": fill.model_version,
            "feature_schema_hash": fill.feature_schema_hash,
            "exit": submitted.exit,
        }
    )


def _closed(held: Position, fill: OrderFilled, change: int) -> Position:
    cost = share(held.cost_inr_e4, fill.quantity, abs(held.quantity))
    return Position.trusted(
        vars(held)
        | {
            "quantity": held.quantity + change,
            "cost_inr_e4": held.cost_inr_e4 - cost,
            "realized_inr_e4": held.realized_inr_e4 - change * fill.price_inr_e4 - cost,
            "charges_inr_e4": held.charges_inr_e4 + fill.charges_inr_e4,
        }
    )
