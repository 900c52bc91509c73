"""The portfolio: average-cost positions, marks and snapshots at whole seconds.

A snapshot at second ``s`` holds every fill and every mark with an event time before ``s``, and none later. It comes at
the next whole second after an order ended, every ``interval_seconds`` from the session's open while positions are
open, and once at the end, one second after the close. None of it depends on how records were batched.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import SECOND_NS, Bars, Session, Ticks, Universe
from live_services.domain.account.risk import signed
from live_services.domain.basis import Outcome
from live_services.domain.events import OrderFilled, PnlSnapshot, PositionMark, event_id
from live_services.domain.topics import Broker

_NEVER: Final = np.iinfo(np.int64).max


def next_second(time_ns: int) -> int:
    """Give the first whole second strictly after a time."""
    return (time_ns // SECOND_NS + 1) * SECOND_NS


@dataclass(frozen=True, slots=True)
class Holding:
    """One instrument's position; rupees, quantity signed, ``average_price`` 0 when flat."""

    quantity: int = 0
    average_price: float = 0.0
    realized_pnl_inr: float = 0.0
    costs_inr: float = 0.0

    def filled(self, change: int, price: float, costs_inr: float) -> Holding:
        """Apply a fill of a signed quantity at average cost; what crosses zero opens at the fill's price."""
        quantity = self.quantity + change
        costs = self.costs_inr + costs_inr
        if self.quantity * change >= 0:
            value = abs(self.quantity) * self.average_price + abs(change) * price
            return replace(self, quantity=quantity, average_price=value / abs(quantity), costs_inr=costs)
        closed = min(abs(change), abs(self.quantity))
        direction = 1 if self.quantity > 0 else -1
        average = 0.0 if quantity == 0 else (price if quantity * self.quantity < 0 else self.average_price)
        realized = self.realized_pnl_inr + direction * closed * (price - self.average_price)
        return Holding(quantity, average, realized, costs)

    def unrealized_pnl_inr(self, mark: float) -> float:
        """Profit or loss of the open quantity at a price."""
        return self.quantity * (mark - self.average_price)


@dataclass(slots=True)
class _Prices:
    """Prices not yet folded into the marks, in time order."""

    instrument: NDArray[np.int32]
    time_ns: NDArray[np.int64]
    price: NDArray[np.float64]
    done: int = 0


@dataclass(slots=True)
class Portfolio:
    """One broker's positions for one session."""

    universe: Universe
    session: Session
    broker: Broker
    interval_seconds: int
    holdings: dict[int, Holding] = field(default_factory=dict)
    """By index in the universe; an instrument stays once it was traded."""
    marks: NDArray[np.float64] = field(init=False)
    """Last price by index, NaN before the first."""
    fills: int = 0
    _outcomes: list[Outcome] = field(default_factory=list)
    _prices: list[_Prices] = field(default_factory=list)
    _settled: list[str] = field(default_factory=list)
    _last_snapshot_ns: int = field(init=False)
    _finished: bool = False

    def __post_init__(self) -> None:
        self.marks = np.full(len(self.universe), np.nan)
        self._last_snapshot_ns = self.session.open_ns

    def on_outcome(self, outcome: Outcome) -> None:
        """Take note of an order's end; it counts once ``advance`` passes its time."""
        self._outcomes.append(outcome)

    def on_ticks(self, ticks: Ticks) -> None:
        """Take note of the last prices in a slice of ticks."""
        self._prices.append(_Prices(ticks.instrument, ticks.event_time_ns, ticks.last_price))

    def on_bars(self, bars: Bars) -> None:
        """Take note of the closes in a slice of bars; a close is known from the bar's end."""
        self._prices.append(_Prices(bars.instrument, bars.end_ns, bars.close))

    def advance(self, watermark_ns: int) -> list[PnlSnapshot]:
        """Give the snapshots that are due; everything with an event time before the watermark has been noted."""
        self._outcomes.sort(key=lambda outcome: outcome.event_time_ns)
        snapshots = []
        while (second := self._due_ns()) <= watermark_ns:
            self._apply_until(second)
            snapshots.append(self._snapshot(second))
        self._mark_until(watermark_ns)
        return snapshots

    def _due_ns(self) -> int:
        if self._finished:
            return _NEVER
        due = next_second(self.session.close_ns)
        if self._outcomes:
            due = min(due, next_second(self._outcomes[0].event_time_ns))
        if any(holding.quantity for holding in self.holdings.values()):
            interval = self.interval_seconds * SECOND_NS
            origin = self.session.open_ns // SECOND_NS * SECOND_NS
            due = min(due, origin + ((self._last_snapshot_ns - origin) // interval + 1) * interval)
        return due

    def _apply_until(self, second: int) -> None:
        due = list(itertools.takewhile(lambda outcome: outcome.event_time_ns < second, self._outcomes))
        del self._outcomes[: len(due)]
        for outcome in due:
            self._settled.append(outcome.signal_id)
            if isinstance(outcome, OrderFilled):
                self._fill(outcome)
        self._mark_until(second)

    def _fill(self, fill: OrderFilled) -> None:
        index = self.universe.index_of_token[fill.instrument_token]
        before = self.holdings.get(index, Holding())
        self.holdings[index] = before.filled(signed(fill.side, fill.quantity), fill.price, fill.costs_inr)
        self.fills += 1

    def _mark_until(self, time_ns: int) -> None:
        for prices in self._prices:
            end = int(np.searchsorted(prices.time_ns, time_ns, side="left"))
            if end > prices.done:
                rows = slice(prices.done, end)
                self.marks[prices.instrument[rows]] = prices.price[rows]  # of repeated indices the last one stays
                prices.done = end
        self._prices = [prices for prices in self._prices if prices.done < len(prices.time_ns)]

    def _snapshot(self, second: int) -> PnlSnapshot:
        positions = tuple(self._position(index) for index in sorted(self.holdings))
        realized = sum(position.realized_pnl_inr for position in positions)
        unrealized = sum(position.unrealized_pnl_inr for position in positions)
        costs = sum(position.costs_inr for position in positions)
        settled, self._settled = tuple(sorted(self._settled)), []
        self._last_snapshot_ns = second
        self._finished = second > self.session.close_ns
        identity = event_id("pnl", self.broker, second)
        return PnlSnapshot(
            broker=self.broker,
            event_id=identity,
            correlation_id=identity,
            causation_id=identity,
            event_time_ns=second,
            positions=positions,
            realized_pnl_inr=realized,
            unrealized_pnl_inr=unrealized,
            costs_inr=costs,
            net_pnl_inr=realized + unrealized - costs,
            fills=self.fills,
            settled_signal_ids=settled,
        )

    def _position(self, index: int) -> PositionMark:
        holding, instrument = self.holdings[index], self.universe.instruments[index]
        mark = float(self.marks[index])
        if np.isnan(mark):
            mark = holding.average_price
        return PositionMark(
            instrument_token=instrument.instrument_token,
            symbol=instrument.symbol,
            quantity=holding.quantity,
            average_price=holding.average_price,
            mark_price=mark,
            realized_pnl_inr=holding.realized_pnl_inr,
            unrealized_pnl_inr=holding.unrealized_pnl_inr(mark),
            costs_inr=holding.costs_inr,
        )
