"""``features show``: an instrument's newest feature row: online store, else its last signal, else the offline store."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, replace
from typing import Any, Final

from feature_store.market.types import MINUTE_NS, Universe, UnknownInstrument, UnreadableFile, ist_text
from feature_store.online.store import OnlineStore, OnlineStoreError
from live_services.cli.errors import did_you_mean
from live_services.cli.task_health import read_health
from live_services.domain.events import SignalGenerated, event_or_none
from live_services.domain.log import RUNNER
from live_services.domain.strategy.checks import stored_schema
from live_services.domain.topics import broker_topics
from live_services.failures import CommandFailed
from live_services.next_steps import to_type
from live_services.settings import Settings
from models_registry.specification import Broker

STALE_BARS: Final = 3
"""A row in the online store is refused as stale when its bar ended more than so many bars ago."""


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """One row of feature values and where it was found."""

    origin: str
    bar_end_ns: int
    now_ns: int
    """The clock on the wall."""
    market_ns: int
    """How far the strategies have come in the market's own time, which a replay lives in; 0 if none runs."""
    schema_hash: str
    warming: bool
    """Whether the row does not equal that of a full-history run yet; nothing is opened on it."""
    values: dict[str, float]
    passed_over: tuple[str, ...] = ()
    """Why it was not found in a place that comes first, one line each."""

    @property
    def title(self) -> str:
        """Say where the row is from, its bar time, its age, its schema and whether the instrument is WARMING."""
        state = "WARMING: opens nothing" if self.warming else "warm"
        age = f"{_duration(self.now_ns - self.bar_end_ns)} ago"
        if self.market_ns:
            behind = _duration(self.market_ns - self.bar_end_ns)
            age += f", {behind} before the strategies' {ist_text(self.market_ns)}"
        return (
            f"{self.origin}, bar end {ist_text(self.bar_end_ns)} ({age}), feature schema {self.schema_hash[:12]}, "
            f"{state}"
        )


def row_record(row: FeatureRow, symbol: str) -> dict[str, Any]:
    """Give a row as one JSON object; a value that is missing is null."""
    return {
        "symbol": symbol,
        "origin": row.origin,
        "bar_end": ist_text(row.bar_end_ns),
        "bar_end_ns": row.bar_end_ns,
        "market_time_ns": row.market_ns or None,
        "feature_schema_hash": row.schema_hash,
        "warming": row.warming,
        "values": {name: value if math.isfinite(value) else None for name, value in row.values.items()},
        "not_from": list(row.passed_over),
    }


async def newest_row(settings: Settings, broker: Broker, symbol: str) -> FeatureRow:
    """Find an instrument's newest feature row.

    Raises
    ------
    UnknownInstrument
        If the store does not know the symbol.
    CommandFailed
        If nothing has a row of it; names what each place said.
    """
    universe = await asyncio.to_thread(_universe_with, settings, symbol)
    passed_over: list[str] = []
    market_ns = await asyncio.to_thread(_market_ns, settings)
    try:
        return await asyncio.to_thread(_from_online_store, settings, universe, symbol, market_ns)
    except OnlineStoreError as refused:
        passed_over.append(f"online store: {refused}")
    if settings.kafka.bootstrap_servers:
        row = await _from_signals(settings, broker, symbol, market_ns)
        if row is not None:
            return replace(row, passed_over=tuple(passed_over))
        passed_over.append(f"signals: none of {symbol} on {broker_topics(broker).signals_raw.name}")
    row = await asyncio.to_thread(_from_store, settings, symbol, market_ns)
    if row is None:
        tried = "".join(f"\n  {line}" for line in passed_over)
        raise CommandFailed(f"no feature row of {symbol}: materialise the features in Dagster first{tried}")
    return replace(row, passed_over=tuple(passed_over))


def _universe_with(settings: Settings, symbol: str) -> Universe:
    from feature_store.offline.store import OfflineStore

    universe = OfflineStore(settings.store_root).universe()
    if symbol not in universe.index_of_symbol:
        near = did_you_mean(symbol, universe.index_of_symbol) or f"it knows {len(universe)} others"
        raise UnknownInstrument(f"the store knows no instrument {symbol!r}; {near}")
    return universe


def _market_ns(settings: Settings) -> int:
    import redis

    try:
        tasks = [task for task in read_health(settings).tasks if task["service"] == RUNNER]
    except redis.RedisError:
        tasks = []
    reached = max((int(task["watermark_ns"]) for task in tasks), default=0)
    return reached if reached > MINUTE_NS else 0


def _from_online_store(settings: Settings, universe: Universe, symbol: str, market_ns: int) -> FeatureRow:
    import redis

    url = settings.redis.url.get_secret_value()
    if not url:
        raise OnlineStoreError(f"no Redis is known: start one with {to_type('up')}, or set REDIS__URL")
    store = OnlineStore.connect(url)
    try:
        schema = store.schema()
        instrument = universe.instruments[universe.index_of_symbol[symbol]]
        max_age_ns = STALE_BARS * settings.market.bar_minutes * MINUTE_NS
        found = store.read(schema, [instrument], now_ns=market_ns or time.time_ns(), max_age_ns=max_age_ns)
    except redis.RedisError as failure:
        raise OnlineStoreError(f"Redis does not answer ({failure}); see {to_type('status')}") from failure
    finally:
        store.close()
    if symbol in found.reasons:
        raise OnlineStoreError(found.reasons[symbol])
    values = dict(zip(schema.names, found.rows[0].tolist(), strict=True))
    now_ns, warming = time.time_ns(), not found.warm[0]
    return FeatureRow("online store", int(found.end_ns[0]), now_ns, market_ns, schema.hash, warming, values)


async def _from_signals(settings: Settings, broker: Broker, symbol: str, market_ns: int) -> FeatureRow | None:
    from live_services.adapters.kafka import read_topic

    newest: SignalGenerated | None = None
    async for record in read_topic(settings.kafka, broker_topics(broker).signals_raw.name):
        event = event_or_none(record.value)
        if isinstance(event, SignalGenerated) and event.symbol == symbol:
            newest = event if newest is None or event.event_time_ns > newest.event_time_ns else newest
    if newest is None:
        return None
    end_ns, schema_hash = newest.bar.end_ns, newest.feature_schema_hash
    values = {name: math.nan if value is None else value for name, value in newest.features.items()}
    origin, now_ns = f"signal {newest.event_id}", time.time_ns()
    return FeatureRow(origin, end_ns, now_ns, market_ns, schema_hash, warming=False, values=values)


def _from_store(settings: Settings, symbol: str, market_ns: int) -> FeatureRow | None:
    from feature_store.offline.feature_rows import OtherClock, StaleFeatures, read_features
    from feature_store.offline.store import OfflineStore
    from feature_store.sources.dated_tables import read_corporate_actions

    store = OfflineStore(settings.store_root)
    schema = stored_schema(settings.strategies)
    actions = read_corporate_actions(settings.market.corporate_actions)
    for session in reversed(store.sessions()):
        try:
            stored = read_features(store, session, schema, [symbol], actions=actions)
        except (UnreadableFile, StaleFeatures, OtherClock):
            continue  # a session without features, or with rows that would not be computed now
        mine = stored.warm
        if mine.any():
            last = int(mine.nonzero()[0][-1])
            values = dict(zip(schema.names, stored.X[last].tolist(), strict=True))
            origin = f"offline store, session {session.date}"
            end_ns, now_ns = int(stored.bars.end_ns[last]), time.time_ns()
            return FeatureRow(origin, end_ns, now_ns, market_ns, schema.hash, warming=False, values=values)
    return None


def _duration(ns: int) -> str:
    seconds = ns // 1_000_000_000
    for unit, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * unit:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"
