"""Portfolio manager: fills and prices in, snapshots of the account at whole seconds out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import structlog
from redis.exceptions import RedisError

from feature_store.market.types import Session, Universe
from live_services.domain import keys
from live_services.domain.account.books import Portfolio
from live_services.domain.events import Event, OrderCancelled, OrderFilled, OrderRejected, PnlSnapshot
from live_services.domain.log import BarSlice, EventRecord, Record, TaskId, TickSlice
from live_services.domain.topics import Broker, Scope, Topic, broker_topics
from live_services.runtime.service import Input

_log = structlog.get_logger(__name__)

_PUBLISH_INTERVAL_SECONDS: Final = 0.25  # for people's eyes; every snapshot is on the log anyway


class PortfolioManager:
    """A `Service`: one task for the account. ``newest`` is for display and runs ahead of the commit."""

    name = "portfolio_manager"
    single_task = True

    def __init__(self, universe: Universe, market: Topic, interval_seconds: int, broker: Broker = "paper") -> None:
        topics = broker_topics(broker)
        self.scope: Scope = broker
        self._broker: Broker = broker
        self.inputs: tuple[Input, ...] = (
            Input(topics.orders_filled),
            Input(topics.orders_rejected),
            Input(topics.orders_cancelled),
            Input(market),
        )
        self.outputs: tuple[Topic, ...] = (topics.pnl_snapshots,)
        self.newest: PnlSnapshot | None = None
        self._universe = universe
        self._interval_seconds = interval_seconds

    async def prepare(self, task: TaskId, control: Sequence[Event]) -> None:
        """Need nothing."""

    def open_session(self, session: Session, task: TaskId) -> Portfolio:
        """Begin the session flat."""
        return Portfolio(self._universe, session, self._broker, self._interval_seconds)

    def commands(self, state: Portfolio, now_ns: int) -> Iterable[Event]:
        """Give none."""
        return ()

    def handle(self, record: Record, state: Portfolio, now_ns: int) -> Iterable[Event]:
        """Take note of prices and of how orders ended; snapshots come with the watermark.

        Raises
        ------
        TypeError
            For any other event.
        """
        if isinstance(record, TickSlice):
            state.on_ticks(record.ticks)
        elif isinstance(record, BarSlice):
            state.on_bars(record.bars)
        elif isinstance(record, EventRecord) and isinstance(record.event, OrderFilled | OrderRejected | OrderCancelled):
            state.on_outcome(record.event)
        else:
            raise TypeError(f"{self.name} does not take {record!r:.200}")
        return ()

    def advance(self, state: Portfolio, now_ns: int) -> Iterable[Event]:
        """Give the snapshots that are due."""
        snapshots = state.advance(now_ns)
        if snapshots:
            self.newest = snapshots[-1]
        return snapshots

    def promise(self, now_ns: int) -> int:
        """A snapshot at this instant, if one was due, is out: it holds only what was before."""
        return now_ns + 1


async def publish_newest(
    manager: PortfolioManager, write: Callable[[str, str], Awaitable[object]], stop: asyncio.Event
) -> None:
    """Write the newest snapshot's JSON under `keys.portfolio`, beside the handler, until ``stop`` is set.

    Parameters
    ----------
    manager
        Whose snapshots.
    write
        ``(key, value)``, for example ``redis.asyncio.Redis.set``. It is retried; one warning says when it fails.
    stop
        Ends the loop after a last write.
    """
    written: PnlSnapshot | None = None
    warned = False
    while True:
        last_round = stop.is_set()
        if (newest := manager.newest) is not None and newest is not written:
            try:
                await write(keys.portfolio(manager.scope), newest.model_dump_json())
                written, warned = newest, False
            except (OSError, RedisError) as failure:
                if not warned:
                    _log.warning("portfolio_not_published", broker=manager.scope, reason=str(failure))
                warned = True
        if last_round:
            return
        try:
            async with asyncio.timeout(_PUBLISH_INTERVAL_SECONDS):
                await stop.wait()
        except TimeoutError:
            continue
