"""One look at skew over the newest session on the log: for ``features verify`` and for a Dagster asset check."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from feature_store.market.clocks import BarClock
from feature_store.market.types import Bars, Session, Ticks, Universe
from feature_store.offline.store import OfflineStore
from feature_store.online.store import OnlineStore, OnlineStoreError, declared
from live_services.adapters.history import StoredHistory
from live_services.domain.events import MarketGap, SignalGenerated, StrategyHistoryUsed, event_or_none
from live_services.domain.frames import FRAME_TOPICS, BadFrame, decode_frame
from live_services.domain.strategy.history import SessionBars
from live_services.domain.strategy.skew import (
    LiveRow,
    SkewReport,
    bars_of_market,
    compare,
    row_of_signal,
    rows_of_block,
)
from live_services.domain.topics import STRATEGIES_CONTROL, broker_topics, market_topic
from live_services.failures import CommandFailed
from live_services.next_steps import to_type
from live_services.settings import Settings
from models_registry.specification import Broker

if TYPE_CHECKING:
    from live_services.adapters.kafka import StoredRecord


@dataclass(slots=True)
class Recorded:
    """What was recorded of a session in one market partition."""

    market: list[Ticks | Bars] = field(default_factory=list)
    gaps: list[MarketGap] = field(default_factory=list)


Market = dict[int, Recorded]
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
    topic, raw = market_topic(settings.market.feed), broker_topics(broker).signals_raw
    records = [record async for record in read_topic(settings.kafka, topic.name)]
    session, market = session_on_log(records, universe)
    signals = [event_or_none(record.value) async for record in read_topic(settings.kafka, raw.name)]
    control = [event_or_none(record.value) async for record in read_topic(settings.kafka, STRATEGIES_CONTROL.name)]
    used = (e for e in control if isinstance(e, StrategyHistoryUsed) and _of(e.session_date, session))
    rows = [
        row_of_signal(signal, universe)
        for signal in signals
        if isinstance(signal, SignalGenerated) and session.open_ns <= signal.event_time_ns <= session.close_ns
    ]
    online, notes = await asyncio.to_thread(_online_rows, settings, universe, session)
    report = await asyncio.to_thread(
        compared, settings, universe, session, market, [*rows, *online], used=next(used, None)
    )
    return report + SkewReport(notes=notes)


def session_on_log(records: Sequence[StoredRecord], universe: Universe) -> tuple[Session, Market]:
    """Give the newest session of a market topic and what was recorded of it; unreadable frames are left out, as live.

    Raises
    ------
    CommandFailed
        If there is no session.
    """
    newest: Session | None = None
    market: Market = defaultdict(Recorded)
    reached: dict[int, int] = defaultdict(int)
    gaps: list[tuple[int, MarketGap]] = []
    for record in records:
        if dict(record.headers).get("event_type", b"").decode(errors="replace") not in FRAME_TOPICS:
            if isinstance(event := event_or_none(record.value), MarketGap):
                gaps.append((record.partition, event))
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
            market[record.partition].market.append(frame.table)
        reached[record.partition] = max(reached[record.partition], frame.watermark_ns)
    if newest is None:
        raise CommandFailed("the market topic holds no session yet: let a session run first")
    for partition, gap in gaps:
        if newest.open_ns <= gap.event_time_ns < newest.close_ns:
            market[partition].gaps.append(gap)
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
    """Compare partition by partition: each has gaps of its own."""
    clock, partitions = BarClock.minutes(settings.market.bar_minutes), settings.kafka.market_partitions
    history = StoredHistory(settings).of(session, universe, None if used is None else used.sessions)
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
        part, of_bars = history.part_of(partition, partitions), settings.market.feed == "bars"
        stood_on = SessionBars(part, session, clock.size, of_bars=of_bars)
        bars = stood_on.take_session(bars_of_market(recorded.market, session, universe, clock), recorded.gaps)
        report += compare(mine, bars, universe, clock, history.actions)
    return report


def _online_rows(settings: Settings, universe: Universe, session: Session) -> tuple[list[LiveRow], tuple[str, ...]]:
    import redis

    url = settings.redis.url.get_secret_value()
    if not url:
        return [], ("no Redis is known, so only rows in signals are compared",)
    store = OnlineStore.connect(url)
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
