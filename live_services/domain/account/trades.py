"""Trades: what an account's fills came to, one record for each time that a strategy went in and out. Pure."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from live_services.domain.account.books import PositionKey, signed
from live_services.domain.account.charges import ChargeBook, Product, equity_segment
from live_services.domain.account.money import RUPEE, inr_e4
from live_services.domain.events import Event, OrderFilled, PnlSnapshot, Reason, Side

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
    """A trade under way."""

    opened: OrderFilled
    quantity: int = 0
    entry_inr_e4: int = 0
    closed: int = 0
    exit_inr_e4: int = 0
    closing: OrderFilled | None = None
    charges_inr_e4: int = 0

    def take(self, fill: OrderFilled) -> None:
        worth = fill.quantity * fill.price_inr_e4
        self.charges_inr_e4 += fill.charges_inr_e4
        if fill.intent == "open":
            self.quantity += fill.quantity
            self.entry_inr_e4 += worth
        else:
            self.closed += fill.quantity
            self.exit_inr_e4 += worth
            self.closing = fill

    @property
    def left(self) -> int:
        return self.quantity - self.closed

    def trade(self, mark_price: float = 0.0, marked_ns: int = 0, date: dt.date = dt.date.min) -> Trade:
        opened, left, charges = self.opened, self.left, self.charges_inr_e4
        mark = inr_e4(mark_price) if left else 0
        if left:
            charges += _closing_charges(opened, left, mark, date)
        return Trade(
            strategy=opened.strategy,
            model_name=opened.model_name,
            model_version=opened.model_version,
            instrument_token=opened.instrument_token,
            symbol=opened.symbol,
            product=opened.product,
            side=opened.side,
            quantity=self.quantity,
            opening_order_id=opened.order_id,
            signal_id=opened.signal_id,
            entry_time_ns=opened.price_time_ns,
            entry_inr_e4=self.entry_inr_e4,
            exit_time_ns=marked_ns if left or self.closing is None else self.closing.price_time_ns,
            exit_inr_e4=self.exit_inr_e4 + left * mark,
            exit_reason=None if left or self.closing is None else self.closing.reason,
            charges_inr_e4=charges,
            left_open=left,
        )


def round_trips(events: Iterable[Event]) -> tuple[Trade, ...]:
    """Make trades of an account's fills.

    A strategy holds an instrument once at a time, so the fills of an opening order begin a trade and the fills of its
    exits end it, in this session or a later one.

    Parameters
    ----------
    events : iterable of Event
        Of one account, in order of time, from a moment at which it held nothing; only fills and snapshots are read.

    Returns
    -------
    tuple of Trade
        Round trips in order of their end, then what is open, in order of its entry, at the last snapshot's marks.
    """
    lots: dict[PositionKey, _Lot] = {}
    done: list[Trade] = []
    last: PnlSnapshot | None = None
    for event in events:
        if isinstance(event, PnlSnapshot):
            last = event
        if not isinstance(event, OrderFilled):
            continue
        key = (event.strategy, event.instrument_token)
        if event.intent == "open":
            lots.setdefault(key, _Lot(event)).take(event)
            continue
        lots[key].take(event)
        if lots[key].left == 0:
            done.append(lots.pop(key).trade())
    return (*done, *_left_open(lots, last))


def _left_open(lots: Mapping[PositionKey, _Lot], last: PnlSnapshot | None) -> Iterable[Trade]:
    marks = {(p.strategy, p.instrument_token): p.mark_price for p in last.positions} if last is not None else {}
    for key, lot in lots.items():
        price = marks.get(key, lot.opened.price_inr_e4 / RUPEE)
        if last is None:
            yield lot.trade(price, lot.opened.event_time_ns)
        else:
            yield lot.trade(price, last.event_time_ns, dt.date.fromisoformat(last.session_date))


def _closing_charges(opened: OrderFilled, quantity: int, price_inr_e4: int, date: dt.date) -> int:
    """Give what closing so many shares would be charged, or an expectancy would flatter what is left open."""
    charges = ChargeBook().charges_of_fill(
        opened.order_id,
        equity_segment(opened.product),
        "SELL" if opened.side == "BUY" else "BUY",
        quantity=quantity,
        price_inr_e4=price_inr_e4,
        instrument_token=opened.instrument_token,
        date=date,
    )
    return charges.total_inr_e4
