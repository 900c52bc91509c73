"""Watch sessions go through the services: counts off the topics, lag and watermarks off Redis, as a live table."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal

from rich import box
from rich.console import Console
from rich.live import Live
from rich.table import Table

from feature_store.market.types import SECOND_NS, Session, ist_text
from live_services.cli.task_health import Health, read_health
from live_services.domain.account.risk import ALREADY_OPEN
from live_services.domain.clock import session_end_ns
from live_services.domain.events import (
    OrderFilled,
    OrderSubmitted,
    PnlSnapshot,
    PositionMark,
    SignalGenerated,
    SignalRejected,
    decode_event,
)
from live_services.domain.frames import FRAME_TOPICS, rows_of
from live_services.domain.money import RUPEE
from live_services.domain.topics import broker_topics, market_topic
from live_services.failures import CommandFailed
from live_services.machine.programs import SERVICES
from live_services.machine.stack import Stack
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
_BARRIERS: Final = ("stop", "target", "time")
_OF_A_STRATEGY: Final = ("signals", "already_open", "signals_rejected", "entries", "fills", "trades")


@dataclass
class Tally:
    """What was seen on the topics so far; of frames only what their headers say."""

    feed: Literal["ticks", "bars"]
    rows: int = 0
    """Of the market; an index that travels in every market partition counts in each."""
    sessions: set[str] = field(default_factory=set)
    events: Counter[str] = field(default_factory=Counter)
    exits: Counter[str] = field(default_factory=Counter)
    """Fills that ended a trade, by reason."""
    rejections: Counter[str] = field(default_factory=Counter)
    """By rule, without what was passed over as already open."""
    last_filled: OrderFilled | None = None
    """The last opening order that filled (the model's own decision)."""
    records: int = 0
    _newest: bytes = b""
    """The newest snapshot as it stands on the log."""
    _of_strategies: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Counts by strategy and what is counted."""
    _exits: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Fills that ended a trade, by strategy and reason."""

    def add(self, record: StoredRecord) -> None:
        """Count one record."""
        self.records += 1
        headers = dict(record.headers)
        event_type = headers.get("event_type", b"").decode()
        if event_type in FRAME_TOPICS:
            self.rows += rows_of(record.headers)
            self.sessions.add(headers.get("session_date", b"").decode())
            return
        self.events[event_type] += 1
        if event_type == "pnl.snapshot":
            self._newest = record.value
        elif event_type in {"signal.generated", "signal.rejected", "order.submitted", "order.filled"}:
            self._add_event(record.value)

    def _add_event(self, value: bytes) -> None:
        event = decode_event(value)
        match event:
            case SignalGenerated():
                self._of_strategies[event.strategy, "signals"] += 1
            case SignalRejected(rule=rule) if rule == ALREADY_OPEN:
                self._of_strategies[event.strategy, "already_open"] += 1
            case SignalRejected():
                self._of_strategies[event.strategy, "signals_rejected"] += 1
                self.rejections[event.rule] += 1
            case OrderSubmitted(intent="open"):
                self._of_strategies[event.strategy, "entries"] += 1
            case OrderFilled():
                self._add_fill(event)

    def _add_fill(self, fill: OrderFilled) -> None:
        self._of_strategies[fill.strategy, "fills"] += 1
        if fill.intent == "open":
            self.last_filled = fill
        elif fill.remaining_quantity == 0:
            self.exits[fill.reason] += 1
            self._exits[fill.strategy, fill.reason] += 1
            self._of_strategies[fill.strategy, "trades"] += 1

    @property
    def portfolio(self) -> PnlSnapshot | None:
        """The account's newest snapshot."""
        return PnlSnapshot.model_validate_json(self._newest) if self._newest else None

    @property
    def left_open(self) -> tuple[PositionMark, ...]:
        """What the newest snapshot holds."""
        snapshot = self.portfolio
        return tuple(position for position in snapshot.positions if position.quantity) if snapshot else ()

    def totals(self) -> dict[str, int | float]:
        """Give the numbers of the summary; rupees as ``_inr``."""
        snapshot, counted = self.portfolio, Counter[str]()
        for (_, what), count in self._of_strategies.items():
            counted[what] += count
        return {
            self.feed: self.rows,
            "sessions": len(self.sessions),
            "signals": counted["signals"],
            "already_open": counted["already_open"],
            "signals_rejected": counted["signals_rejected"],
            "entries": counted["entries"],
            "orders": self.events["order.submitted"],
            "orders_cancelled": self.events["order.cancelled"],
            "fills": counted["fills"],
            "trades": counted["trades"],
            "positions_left_open": len(self.left_open),
            "realized_inr": round(snapshot.realized_inr_e4 / RUPEE, 2) if snapshot else 0.0,
            "charges_inr": round(snapshot.charges_inr_e4 / RUPEE, 2) if snapshot else 0.0,
            "unrealized_inr": round(snapshot.unrealized_inr, 2) if snapshot else 0.0,
            "net_inr": round(snapshot.equity_inr - snapshot.starting_cash_inr_e4 / RUPEE, 2) if snapshot else 0.0,
            "net_of_the_last_session_inr": round(snapshot.net_today_inr, 2) if snapshot else 0.0,
        }

    def of_strategies(self, names: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Say of each strategy what became of its signals, what ended its trades, and what they came to."""
        return {
            name: {what: self._of_strategies[name, what] for what in _OF_A_STRATEGY}
            | {"exits_by_reason": {reason: n for (of, reason), n in self._exits.most_common() if of == name}}
            | {"net_inr": round(self._net_inr(name), 2)}
            for name in names
        }

    def _net_inr(self, strategy: str) -> float:
        """What its trades that ended came to after charges, whichever version of its model proposed them."""
        totals = self.portfolio.strategies if self.portfolio else ()
        return sum(one.realized_inr_e4 - one.charges_inr_e4 for one in totals if one.strategy == strategy) / RUPEE


def watched_topics(broker: Broker, feed: Literal["ticks", "bars"]) -> list[str]:
    """Give the topics that are counted."""
    topics = broker_topics(broker)
    counted = (
        market_topic(feed),
        topics.signals_raw,
        topics.signals_rejected,
        topics.orders_submitted,
        topics.orders_filled,
        topics.orders_cancelled,
        topics.pnl_snapshots,
    )
    return [topic.name for topic in counted]


async def watch(
    settings: Settings, stack: Stack, tally: Tally, last: Session, console: Console, *, budget_seconds: float
) -> None:
    """Show the replay until the portfolio has passed the end of the last session.

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
            await _until_closed(settings, stack, last, tally, show, budget_seconds=budget_seconds)
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

    async for record in follow(settings.kafka, watched_topics("paper", tally.feed), from_beginning=True):
        tally.add(record)


async def _until_closed(
    settings: Settings,
    stack: Stack,
    last: Session,
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
        if reached_ns(health) >= session_end_ns(last):
            return
        if tally.records != seen:
            seen, moved = tally.records, now
        if now - started > budget_seconds or now - moved > _STALL_SECONDS:
            raise CommandFailed(f"the replay did not reach the end of {last.date} in time; {_stalled(health)}")
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
    view = Table(title=f"Replay, portfolio at {_clock(health)}", title_justify="left", box=box.SIMPLE_HEAD)
    shown = (tally.feed, "signals", "already_open", "signals_rejected", "orders", "fills", "trades")
    for name in (*shown, "net (INR)", "lag"):
        view.add_column(name.removeprefix("signals_").replace("_", " "), justify="right")
    view.add_row(*(f"{t[name]:,}" for name in shown), f"{t['net_inr']:,.2f}", f"{lag_records(health):,}")
    return view


def line(tally: Tally, health: Health) -> str:
    """Put the numbers on one line, for a log."""
    t = tally.totals()
    return (
        f"  replay at {_clock(health)}: {tally.rows:,} {tally.feed}, {t['signals']} signals, {t['orders']} orders, "
        f"{t['fills']} fills, {t['trades']} trades, net {t['net_inr']:,.2f} INR, lag {lag_records(health)}"
    )


def strategies_table(strategies: Mapping[str, Mapping[str, Any]], market: str) -> Table:
    """Lay out what each strategy came to, side by side; ``strategies`` as `Tally.of_strategies` gives them."""
    view = Table(title=f"Strategies on one account, market {market}", title_justify="left", box=box.SIMPLE_HEAD)
    others = sorted({reason for said in strategies.values() for reason in said["exits_by_reason"]} - set(_BARRIERS))
    view.add_column("strategy")
    for name in ("signals", "already open", "rejected", "trades", *_BARRIERS, *others, "net (INR)"):
        view.add_column(name.replace("_", " "), justify="right")
    for name, said in strategies.items():
        exits = (f"{said['exits_by_reason'].get(reason, 0):,}" for reason in (*_BARRIERS, *others))
        counts = (f"{said[what]:,}" for what in ("signals", "already_open", "signals_rejected", "trades"))
        view.add_row(name, *counts, *exits, f"{said['net_inr']:,.2f}")
    return view
