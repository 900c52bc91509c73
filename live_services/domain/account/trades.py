"""Trades: what an account's fills came to, one record for each time that a strategy went in and out. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from live_services.domain.account.account_view import PositionKey
from live_services.domain.account.books import signed
from live_services.domain.account.charges import ChargeBook, equity_segment
from live_services.domain.events import AccountOpened, Event, OrderFilled, PnlSnapshot, Position, Reason, Side
from live_services.domain.money import RUPEE, inr_e4, share
from models_registry.specification import Product

_BPS: Final = 1e4


@dataclass(frozen=True, slots=True)
class Trade:
    """One round trip of a strategy on an instrument: its opening order's fills, and the fills that closed it."""

    strategy: str
    model_name: str
    model_version: str
    instrument_token: int
    symbol: str
    product: Product
    side: Side
    """Of the opening order: BUY is a long trade."""
    quantity: int
    """Shares opened."""
    opening_order_id: str
    signal_id: str
    entry_time_ns: int
    """When the entry's price was made; of a fill at a bar's open, the bar's start."""
    entry_inr_e4: int
    """What was paid or received at the entry, before charges; positive."""
    exit_time_ns: int
    """When the price of the last closing fill was made; the last snapshot's second, if shares are left open."""
    exit_inr_e4: int
    """What was received or paid at the exit; shares that are left open count at their last price."""
    exit_reason: Reason | None
    """Of the last closing fill; None while shares are open."""
    charges_inr_e4: int
    """Of the opening and the closing fills; shares that are left open pay what their closing would at that price."""
    left_open: int = 0
    """Shares that no order has closed."""

    @property
    def entry_price(self) -> float:
        """Rupees a share."""
        return self.entry_inr_e4 / self.quantity / RUPEE

    @property
    def exit_price(self) -> float:
        """Rupees a share."""
        return self.exit_inr_e4 / self.quantity / RUPEE

    @property
    def gross_pnl_inr_e4(self) -> int:
        """Profit or loss before charges."""
        return signed(self.side, 1) * (self.exit_inr_e4 - self.entry_inr_e4)

    @property
    def net_pnl_inr_e4(self) -> int:
        """Profit or loss after charges."""
        return self.gross_pnl_inr_e4 - self.charges_inr_e4

    @property
    def gross_bps(self) -> float:
        """Profit or loss before charges, basis points of the entry's notional."""
        return self.gross_pnl_inr_e4 / self.entry_inr_e4 * _BPS

    @property
    def net_bps(self) -> float:
        """Profit or loss after charges, basis points of the entry's notional."""
        return self.net_pnl_inr_e4 / self.entry_inr_e4 * _BPS


@dataclass(slots=True)
class _Lot:
    """A trade under way: what it is of, and what its fills came to so far."""

    strategy: str
    model_name: str
    model_version: str
    instrument_token: int
    symbol: str
    product: Product
    side: Side
    opening_order_id: str
    signal_id: str
    entry_time_ns: int
    quantity: int = 0
    entry_inr_e4: int = 0
    closed: int = 0
    exit_inr_e4: int = 0
    charges_inr_e4: int = 0

    @classmethod
    def opened(cls, fill: OrderFilled) -> _Lot:
        """Begin with an opening order's first fill, which is still to be taken."""
        return cls(
            fill.strategy,
            fill.model_name,
            fill.model_version,
            fill.instrument_token,
            fill.symbol,
            fill.product,
            fill.side,
            fill.order_id,
            fill.signal_id,
            fill.price_time_ns,
        )

    @classmethod
    def carried(cls, position: Position) -> _Lot:
        """Begin with what a session began with: the shares that were left of it then."""
        return cls(
            position.strategy,
            position.model_name,
            position.model_version,
            position.instrument_token,
            position.symbol,
            position.product,
            "BUY" if position.quantity > 0 else "SELL",
            position.opening_order_id,
            position.signal_id,
            position.opened_ns,
            quantity=abs(position.quantity),
            entry_inr_e4=abs(position.cost_inr_e4),
            charges_inr_e4=position.charges_inr_e4,
        )

    def take(self, fill: OrderFilled) -> None:
        worth = fill.quantity * fill.price_inr_e4
        self.charges_inr_e4 += fill.charges_inr_e4
        if fill.intent == "open":
            self.quantity += fill.quantity
            self.entry_inr_e4 += worth
        else:
            self.closed += fill.quantity
            self.exit_inr_e4 += worth

    @property
    def left(self) -> int:
        return self.quantity - self.closed

    def ended(self, closing: OrderFilled) -> Trade:
        return self._trade(closing.price_time_ns, self.exit_inr_e4, closing.reason, self.charges_inr_e4)

    def at_mark(self, price_inr_e4: int, marked_ns: int, date: dt.date) -> Trade:
        exit_inr_e4 = self.exit_inr_e4 + self.left * price_inr_e4
        charges = self.charges_inr_e4 + self._closing_charges(price_inr_e4, date)
        return self._trade(marked_ns, exit_inr_e4, None, charges)

    def _trade(self, exit_time_ns: int, exit_inr_e4: int, reason: Reason | None, charges_inr_e4: int) -> Trade:
        return Trade(
            strategy=self.strategy,
            model_name=self.model_name,
            model_version=self.model_version,
            instrument_token=self.instrument_token,
            symbol=self.symbol,
            product=self.product,
            side=self.side,
            quantity=self.quantity,
            opening_order_id=self.opening_order_id,
            signal_id=self.signal_id,
            entry_time_ns=self.entry_time_ns,
            entry_inr_e4=self.entry_inr_e4,
            exit_time_ns=exit_time_ns,
            exit_inr_e4=exit_inr_e4,
            exit_reason=reason,
            charges_inr_e4=charges_inr_e4,
            left_open=self.left,
        )

    def _closing_charges(self, price_inr_e4: int, date: dt.date) -> int:
        """Give what closing the rest would be charged, or an expectancy would flatter what is left open."""
        charges = ChargeBook().charges_of_fill(
            self.opening_order_id,
            equity_segment(self.product),
            "SELL" if self.side == "BUY" else "BUY",
            quantity=self.left,
            price_inr_e4=price_inr_e4,
            instrument_token=self.instrument_token,
            date=date,
        )
        return charges.total_inr_e4


def round_trips(events: Iterable[Event]) -> tuple[Trade, ...]:
    """Make trades of an account's fills.

    A strategy holds an instrument once at a time, so the fills of an opening order begin a trade and the fills of its
    exits end it, in this session or a later one.

    Parameters
    ----------
    events : iterable of Event
        Of one account, in order of time, from the beginning of a session; only what it was opened with, fills and
        snapshots are read. Of a trade that was carried into the first of these sessions, what was closed before is not
        known.

    Returns
    -------
    tuple of Trade
        Round trips in order of their end, then what is open, in order of its entry, at the last snapshot's marks.
    """
    lots: dict[PositionKey, _Lot] = {}
    done: list[Trade] = []
    last: PnlSnapshot | None = None
    date = ""
    for event in events:
        if isinstance(event, AccountOpened):
            date = event.session_date
            for position in event.positions:
                lots.setdefault(position.key, _Lot.carried(position))
        elif isinstance(event, PnlSnapshot):
            last, date = event, event.session_date
        elif isinstance(event, OrderFilled):
            key = (event.strategy, event.instrument_token)
            if event.intent == "open":
                lots.setdefault(key, _Lot.opened(event))
            lots[key].take(event)
            if lots[key].left == 0:
                done.append(lots.pop(key).ended(event))
    return (*done, *_left_open(lots, last, dt.date.fromisoformat(date) if date else dt.date.min))


def _left_open(lots: Mapping[PositionKey, _Lot], last: PnlSnapshot | None, date: dt.date) -> Iterable[Trade]:
    marks = (
        {(p.strategy, p.instrument_token): inr_e4(p.mark_price) for p in last.positions if p.quantity}
        if last is not None
        else {}
    )
    for key, lot in lots.items():
        if last is None or key not in marks:  # it was opened after the last snapshot, or there is none
            yield lot.at_mark(share(lot.entry_inr_e4, 1, lot.quantity), lot.entry_time_ns, date)
        else:
            yield lot.at_mark(marks[key], last.event_time_ns, date)
