"""Watch a session go through the services: counts off the topics, lag and watermarks off Redis, as a live table."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.live import Live
from rich.table import Table

from feature_store.bars.builder import BarBuilder
from feature_store.market.clocks import BarClock
from feature_store.market.types import SECOND_NS, Session, Ticks, Universe, ist_text
from live_services.cli.status import Health, read_health
from live_services.domain.events import (
    OrderFilled,
    OrderSubmitted,
    PnlSnapshot,
    SignalGenerated,
    SignalRejected,
    decode_event,
)
from live_services.domain.frames import FRAME_TOPICS, decode_frame
from live_services.domain.partitions import own_rows
from live_services.domain.topics import MARKET_BARS, MARKET_TICKS, broker_topics
from live_services.failures import CommandFailed
from live_services.machine.stack import Stack
from live_services.machine.supervision import SERVICES
from live_services.next_steps import to_type
from live_services.settings import Settings
from models_registry.specification import Broker

if TYPE_CHECKING:
    from live_services.adapters.kafka import StoredRecord

_REFRESH_SECONDS: Final = 0.5
_LINE_SECONDS: Final = 5.0
_QUIET_SECONDS: Final = 1.5
"""So long without a record after the end means that everything was counted."""
_STALL_SECONDS: Final = 120.0


_OF_A_STRATEGY: Final = {
    "signal.generated": "signals",
    "signal.rejected": "signals_rejected",
    "order.submitted": "orders",
    "order.filled": "fills",
}
_DECODED: Final = ("pnl.snapshot", *_OF_A_STRATEGY)


@dataclass
class Tally:
    """What was seen on the topics so far."""

    universe: Universe
    clock: BarClock
    market_partitions: int = 1
    ticks: int = 0
    bars: int = 0
    events: Counter[str] = field(default_factory=Counter)
    portfolio: PnlSnapshot | None = None
    last_filled: OrderFilled | None = None
    """The last opening order that filled (the model's own decision), else the last of any."""
    records: int = 0
    _builders: dict[int, BarBuilder] = field(default_factory=dict)
    _of_strategies: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Events by strategy and type."""

    def add(self, record: StoredRecord) -> None:
        """Count one record; bars are counted by the one builder, from the ticks."""
        self.records += 1
        headers = dict(record.headers)
        event_type = headers.get("event_type", b"").decode()
        if event_type in FRAME_TOPICS:
            self._add_frame(record)
            return
        self.events[event_type] += 1
        if event_type == "watermark" and record.topic == MARKET_TICKS.name and record.partition in self._builders:
            self.bars += len(self._builders[record.partition].advance(decode_event(record.value).event_time_ns))
        if event_type in _DECODED:
            event = decode_event(record.value)
            if isinstance(event, SignalGenerated | SignalRejected | OrderSubmitted | OrderFilled):
                self._of_strategies[event.strategy, event_type] += 1
            if isinstance(event, PnlSnapshot):
                self.portfolio = event
            elif isinstance(event, OrderFilled) and (event.intent == "open" or self.last_filled is None):
                self.last_filled = event

    def _add_frame(self, record: StoredRecord) -> None:
        frame = decode_frame(record.value, record.headers, self.universe)
        own = own_rows(frame.table, self.universe, record.partition, self.market_partitions)
        if not isinstance(own, Ticks):
            self.bars += len(own)
            return
        builder = self._builders.setdefault(record.partition, BarBuilder(len(self.universe), self.clock))
        self.ticks += len(own)
        self.bars += len(builder.step(own, frame.session))
        self.bars += len(builder.advance(frame.watermark_ns))

    def totals(self) -> dict[str, int | float]:
        """Give the numbers of the summary; rupees as ``_inr``."""
        snapshot = self.portfolio
        return {
            "ticks": self.ticks,
            "bars": self.bars,
            "signals": self.events["signal.generated"],
            "signals_rejected": self.events["signal.rejected"],
            "orders": self.events["order.submitted"],
            "orders_cancelled": self.events["order.cancelled"],
            "fills": self.events["order.filled"],
            "realized_pnl_inr": round(snapshot.realized_pnl_inr, 2) if snapshot else 0.0,
            "unrealized_pnl_inr": round(snapshot.unrealized_pnl_inr, 2) if snapshot else 0.0,
            "costs_inr": round(snapshot.costs_inr, 2) if snapshot else 0.0,
            "net_pnl_inr": round(snapshot.net_pnl_inr, 2) if snapshot else 0.0,
        }

    def of_strategies(self, names: Sequence[str]) -> dict[str, dict[str, int]]:
        """Count each strategy's signals and what became of them."""
        return {
            name: {what: self._of_strategies[name, event_type] for event_type, what in _OF_A_STRATEGY.items()}
            for name in names
        }


def watched_topics(broker: Broker) -> list[str]:
    """Give the topics that the table counts."""
    return [t.name for t in (MARKET_TICKS, MARKET_BARS, *broker_topics(broker)) if not t.name.endswith(".control")]


async def watch(
    settings: Settings, stack: Stack, tally: Tally, session: Session, console: Console, *, budget_seconds: float
) -> None:
    """Show the replay until the portfolio's watermark has passed the session's close.

    Raises
    ------
    CommandFailed
        The budget is used up, or nothing moved for two minutes; names the task that waits.
    live_services.machine.supervision.ProcessFailed
        A service gave up.
    """
    reader = asyncio.create_task(_count(settings, tally))
    try:
        with _view(console) as show:
            await _until_closed(settings, stack, session, tally, show, budget_seconds=budget_seconds)
        await _until_quiet(tally)
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)


@contextmanager
def _view(console: Console) -> Iterator[Callable[[Tally, Health], None]]:
    """Show the numbers as a table that renews itself, or as a line now and then where that is impossible."""
    if console.is_terminal:
        with Live(console=console, transient=True, auto_refresh=False) as live:
            yield lambda tally, health: live.update(table(tally, health), refresh=True)
        return
    last = time.monotonic()

    def print_line(tally: Tally, health: Health) -> None:
        nonlocal last
        if time.monotonic() - last >= _LINE_SECONDS:
            console.print(line(tally, health), soft_wrap=True, markup=False)
            last = time.monotonic()

    yield print_line


async def _count(settings: Settings, tally: Tally) -> None:
    from live_services.adapters.kafka import follow

    async for record in follow(settings.kafka, watched_topics("paper"), from_beginning=True):
        tally.add(record)


async def _until_closed(
    settings: Settings,
    stack: Stack,
    session: Session,
    tally: Tally,
    show: Callable[[Tally, Health], None],
    *,
    budget_seconds: float,
) -> None:
    started = moved = time.monotonic()
    seen = -1
    while True:
        health = await asyncio.to_thread(read_health, settings)
        await asyncio.to_thread(stack.supervisor.require_alive, SERVICES)
        now = time.monotonic()
        show(tally, health)
        if reached_ns(health) >= session.close_ns:
            return
        if tally.records != seen:
            seen, moved = tally.records, now
        if now - started > budget_seconds or now - moved > _STALL_SECONDS:
            raise CommandFailed(f"the replay did not reach the session's close in time; {_stalled(health)}")
        await asyncio.sleep(_REFRESH_SECONDS)


async def _until_quiet(tally: Tally) -> None:
    seen = -1
    while tally.records != seen:
        seen = tally.records
        await asyncio.sleep(_QUIET_SECONDS)


def reached_ns(health: Health) -> int:
    """Event time up to which the portfolio stands, or 0."""
    task = health.task("portfolio_manager", "paper")
    return int(task["watermark_ns"]) if task is not None else 0


def _stalled(health: Health) -> str:
    waiting = [f"{t['task']} waits for {t['waiting_for']}" for t in health.tasks if t["waiting_for"]]
    return "; ".join(waiting) or f"no task says what it waits for: see {to_type('status')} and the logs"


def lag_records(health: Health) -> int:
    """Records on the log that no task has fetched, over all tasks."""
    return sum(max(int(t["lag_records"]), 0) for t in health.tasks)


def _clock(health: Health) -> str:
    reached = reached_ns(health)
    return ist_text(reached) if reached > SECOND_NS else "not open yet"


def table(tally: Tally, health: Health) -> Table:
    """Lay the numbers out for a terminal."""
    t = tally.totals()
    view = Table(title=f"Replay, portfolio at {_clock(health)}", title_justify="left")
    for name in ("ticks", "bars", "signals", "rejected", "orders", "fills", "net PnL (INR)", "lag (records)"):
        view.add_column(name, justify="right")
    view.add_row(
        *(f"{t[k]:,}" for k in ("ticks", "bars", "signals", "signals_rejected", "orders", "fills")),
        f"{t['net_pnl_inr']:,.2f}",
        f"{lag_records(health):,}",
    )
    return view


def line(tally: Tally, health: Health) -> str:
    """Put the numbers on one line, for a log."""
    t = tally.totals()
    return (
        f"  replay at {_clock(health)}: {t['ticks']:,} ticks, {t['bars']:,} bars, {t['signals']} signals, "
        f"{t['orders']} orders, {t['fills']} fills, net {t['net_pnl_inr']:,.2f} INR, lag {lag_records(health)}"
    )
