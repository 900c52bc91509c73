"""One look at skew over the newest session on the log: for ``features verify`` and for a Dagster asset check."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from feature_store.market.clocks import BarClock
from feature_store.market.types import Bars, Session, Ticks, Universe
from feature_store.online.store import OnlineStore, OnlineStoreError, declared
from live_services.adapters.history import StoredHistory
from live_services.adapters.kept_histories import HistoryFiles
from live_services.domain.events import MarketGap, SignalGenerated, StrategyHistoryUsed, event_or_none
from live_services.domain.frame_rows import BadFrame
from live_services.domain.frames import FRAME_TOPICS, decode_frame, universe_digest_of
from live_services.domain.strategy.history import SessionBars, SessionHistory, used_of
from live_services.domain.strategy.skew import (
    LiveRow,
    SkewReport,
    bars_of_market,
    compare_session,
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
    from live_services.adapters.sessions import MarketSessions

    if not settings.kafka.bootstrap_servers:
        raise CommandFailed(f"no Kafka is known: start one with {to_type('up')}, or set KAFKA__BOOTSTRAP_SERVERS")
    topic, raw = market_topic(settings.market.feed), broker_topics(broker).signals_raw
    sessions = MarketSessions(settings.kafka)
    await sessions.refresh()
    records = [record async for record in read_topic(settings.kafka, topic.name)]
    session, universe, market = session_on_log(records, sessions.universe)
    signals = [event_or_none(record.value) async for record in read_topic(settings.kafka, raw.name)]
    used: dict[int, StrategyHistoryUsed] = {}
    async for record in read_topic(settings.kafka, STRATEGIES_CONTROL.name):
        event = event_or_none(record.value)
        if isinstance(event, StrategyHistoryUsed) and event.session_date == session.date.isoformat():
            used[record.partition] = event
    rows = [
        row_of_signal(signal, universe)
        for signal in signals
        if isinstance(signal, SignalGenerated) and session.open_ns <= signal.event_time_ns <= session.close_ns
    ]
    online, notes = await asyncio.to_thread(_online_rows, settings, universe, session)
    report = await asyncio.to_thread(compared, settings, universe, session, market, [*rows, *online], used=used)
    return report + SkewReport(notes=notes)


def session_on_log(
    records: Sequence[StoredRecord], universes: Callable[[str], Universe | None]
) -> tuple[Session, Universe, Market]:
    """Give the newest session of a market topic and what was recorded of it; what is unreadable is left out, as live.

    Parameters
    ----------
    records : sequence of StoredRecord
        Of all partitions, each in order.
    universes : callable
        Gives the universe of a digest, as ``market.sessions`` told it.

    Raises
    ------
    CommandFailed
        If there is no session.
    """
    newest: tuple[Session, Universe] | None = None
    market: Market = defaultdict(Recorded)
    reached: dict[int, int] = defaultdict(int)
    gaps: list[tuple[int, MarketGap]] = []
    for record in records:
        if dict(record.headers).get("event_type", b"").decode(errors="replace") not in FRAME_TOPICS:
            if isinstance(event := event_or_none(record.value), MarketGap):
                gaps.append((record.partition, event))
            continue
        try:
            universe = universes(universe_digest_of(record.headers))
            frame = None if universe is None else decode_frame(record.value, record.headers, universe)
        except BadFrame:
            continue
        if universe is None or frame is None:
            continue
        if newest is None or frame.session.open_ns > newest[0].open_ns:
            newest = frame.session, universe
            market.clear()
            reached.clear()
        if frame.session != newest[0] or not len(frame.table):
            continue
        if int(frame.times_ns[0]) >= reached[record.partition]:  # else sent again, or late: left out live too
            market[record.partition].market.append(frame.table)
        reached[record.partition] = max(reached[record.partition], frame.watermark_ns)
    if newest is None:
        raise CommandFailed("the market topic holds no session yet: let a session run first")
    session, universe = newest
    for partition, gap in gaps:
        if session.open_ns <= gap.event_time_ns < session.close_ns:
            market[partition].gaps.append(gap)
    return session, universe, market


def _history(
    settings: Settings, session: Session, universe: Universe, logged: StrategyHistoryUsed | None
) -> SessionHistory:
    """Give what the session stood on: as it was kept on this machine, else as the store has it now."""
    if logged is None:
        return StoredHistory(settings).of(session, universe)
    kept = HistoryFiles(settings.kept_history).read(universe, used_of(logged))
    return kept or StoredHistory(settings).of(session, universe, logged.sessions)


def compared(
    settings: Settings,
    universe: Universe,
    session: Session,
    market: Market,
    rows: Sequence[LiveRow],
    *,
    used: Mapping[int, StrategyHistoryUsed],
) -> SkewReport:
    """Compare partition by partition: each has gaps of its own."""
    clock, partitions = BarClock.minutes(settings.market.bar_minutes), settings.kafka.market_partitions
    logged = next(iter(used.values()), None)
    history = _history(settings, session, universe, logged)
    whose = universe.partition_of(np.arange(len(universe), dtype=np.int32), partitions).tolist()
    report = SkewReport()
    if logged is not None and logged.digest != history.digest:
        first = logged.sessions[0] if logged.sessions else "no session"
        report += SkewReport(
            notes=(
                f"the stored bars of {first} to {session.date}, or the corporate actions, are not those that the "
                "session began with: differences may come from that alone",
            )
        )
    for partition, recorded in market.items():
        mine = [row for row in rows if whose[row.instrument] == partition]
        whole = history.as_it_was(used_of(used[partition])) if partition in used else history
        part, of_bars = whole.part_of(partition, partitions), settings.market.feed == "bars"
        stood_on = SessionBars(part, session, clock.size, of_bars=of_bars)
        stretches = stood_on.take_session(bars_of_market(recorded.market, session, universe, clock), recorded.gaps)
        report += compare_session(mine, stretches, universe, clock, history.actions)
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
