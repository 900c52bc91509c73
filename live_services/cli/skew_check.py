"""One look at skew over the newest session on the log: for ``features verify`` and for a Dagster asset check."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from feature_store.market.clocks import BarClock
from feature_store.market.types import Bars, Session, Ticks, Universe
from feature_store.offline.store import OfflineStore
from feature_store.online.store import OnlineStore, OnlineStoreError, declared
from live_services.adapters.history import StoredHistory
from live_services.domain.events import SignalGenerated, StrategyHistoryUsed, event_or_none
from live_services.domain.frames import FRAME_TOPICS, BadFrame, decode_frame
from live_services.domain.strategy.history import HistoryUsed, joined
from live_services.domain.strategy.skew import (
    LiveRow,
    SkewReport,
    bars_of_market,
    compare,
    row_of_signal,
    rows_of_block,
)
from live_services.domain.topics import broker_topics, market_topic
from live_services.failures import CommandFailed
from live_services.next_steps import to_type
from live_services.settings import Settings
from models_registry.specification import Broker

if TYPE_CHECKING:
    from live_services.adapters.kafka import StoredRecord

Market = dict[int, list[Ticks | Bars]]
"""What was recorded of a session, by market partition."""


def skew_report(settings: Settings, broker: Broker = "paper") -> SkewReport:
    """Compute all rows of the newest session again; for callers without an event loop. Raises as `check_skew`.

    A Dagster asset check passes when ``rows_different`` is 0 and ``rows`` is not, and shows ``differences`` (see
    `live_services.domain.strategy.skew.describe`) and ``notes``.
    """
    return asyncio.run(check_skew(settings, broker))


async def check_skew(settings: Settings, broker: Broker = "paper") -> SkewReport:
    """Compute the rows of the newest session on the log again: those in signals, and the newest in the online store.

    Raises
    ------
    CommandFailed
        If no Kafka is known or the market topic holds no session.
    aiokafka.errors.KafkaError
        If Kafka does not answer.
    feature_store.market.types.MarketDataError
        If the offline store does not have what the features stood on.
    """
    from live_services.adapters.kafka import read_topic

    if not settings.kafka.bootstrap_servers:
        raise CommandFailed(f"no Kafka is known: start one with {to_type('up')}, or set KAFKA__BOOTSTRAP_SERVERS")
    universe = await asyncio.to_thread(OfflineStore(settings.store_root).universe)
    topic, topics = market_topic(settings.market.feed), broker_topics(broker)
    frames = [record async for record in read_topic(settings.kafka, topic.name)]
    session, market = session_on_log(frames, universe)
    signals = [event_or_none(record.value) async for record in read_topic(settings.kafka, topics.signals_raw.name)]
    control = [event_or_none(record.value) async for record in read_topic(settings.kafka, topics.control.name)]
    used = (e for e in control if isinstance(e, StrategyHistoryUsed) and _of(e.session_date, session))
    rows = [
        row_of_signal(signal, universe)
        for signal in signals
        if isinstance(signal, SignalGenerated) and session.open_ns <= signal.event_time_ns <= session.close_ns
    ]
    online, notes = await asyncio.to_thread(_online_rows, settings, broker, universe, session)
    report = await asyncio.to_thread(
        compared, settings, universe, session, market, [*rows, *online], used=next(used, None)
    )
    return report + SkewReport(notes=notes)


def session_on_log(frames: Sequence[StoredRecord], universe: Universe) -> tuple[Session, Market]:
    """Give the newest session of a market topic and what was recorded of it; unreadable frames are left out, as live.

    Raises
    ------
    CommandFailed
        If there is no session.
    """
    newest: Session | None = None
    market: Market = defaultdict(list)
    reached: dict[int, int] = defaultdict(int)
    for record in frames:
        if dict(record.headers).get("event_type", b"").decode(errors="replace") not in FRAME_TOPICS:
            continue
        try:
            frame = decode_frame(record.value, record.headers, universe)
        except BadFrame:
            continue
        if newest is None or frame.session.open_ns > newest.open_ns:
            newest = frame.session
            market.clear()
            reached.clear()
        if frame.session != newest or not len(frame.table):
            continue
        if int(frame.times_ns[0]) >= reached[record.partition]:  # else sent again, or late: left out live too
            market[record.partition].append(frame.table)
        reached[record.partition] = max(reached[record.partition], frame.watermark_ns)
    if newest is None:
        raise CommandFailed("the market topic holds no session yet: let a session run first")
    return newest, market


def compared(
    settings: Settings,
    universe: Universe,
    session: Session,
    market: Market,
    rows: Sequence[LiveRow],
    *,
    used: StrategyHistoryUsed | None,
) -> SkewReport:
    """Compare partition by partition: each may have joined the session at another time."""
    clock, partitions = BarClock.minutes(settings.market.bar_minutes), settings.kafka.market_partitions
    history = StoredHistory(settings, universe).of(session, None if used is None else used.sessions)
    whose = universe.partition_of(np.arange(len(universe), dtype=np.int32), partitions).tolist()
    report = SkewReport()
    if used is not None and used.digest != history.digest:
        report += SkewReport(
            notes=(
                f"the stored bars of {used.sessions[0] if used.sessions else 'no session'} to {session.date}, or the "
                "corporate actions, are not those that the session began with: differences may come from that alone",
            )
        )
    for partition, recorded in market.items():
        mine = [row for row in rows if whose[row.instrument] == partition]
        first = recorded[0]
        first_ns = int(first.event_time_ns[0] if isinstance(first, Ticks) else first.start_ns[0])
        part = history.part_of(partition, partitions)
        before, _ = joined(part, session, clock.size, first_ns, HistoryUsed(history.sessions, history.digest))
        bars = bars_of_market(recorded, session, universe, clock)
        report += compare(mine, [*before, bars], universe, clock, history.actions)
    return report


def _online_rows(
    settings: Settings, broker: Broker, universe: Universe, session: Session
) -> tuple[list[LiveRow], tuple[str, ...]]:
    import redis

    url = settings.redis.url.get_secret_value()
    if not url:
        return [], ("no Redis is known, so only rows in signals are compared",)
    store = OnlineStore.connect(url, broker)
    rows: list[LiveRow] = []
    try:
        for written in store.schemas():
            schema = declared(written)
            for block in store.blocks(schema):
                rows += rows_of_block(schema, block, universe)
    except (OnlineStoreError, redis.RedisError) as failure:
        return rows, (f"rows of the online store are not compared: {failure}",)
    finally:
        store.close()
    return [row for row in rows if session.open_ns < row.bar_end_ns <= session.close_ns], ()


def _of(date: str, session: Session) -> bool:
    return date == session.date.isoformat()
