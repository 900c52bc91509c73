"""``features show``: the newest feature row of an instrument, from its last signal, else from the offline store."""

from __future__ import annotations

from dataclasses import dataclass

from feature_store.market import UnknownInstrument, UnreadableFile, ist_text
from live_services.cli_errors import CommandFailed, did_you_mean
from live_services.domain.events import SignalGenerated, event_or_none
from live_services.domain.topics import Broker, broker_topics
from live_services.settings import Settings


@dataclass(frozen=True, slots=True)
class FeatureRow:
    """One row of feature values and where it was found."""

    origin: str
    known_at: str
    values: dict[str, float]


async def newest_row(settings: Settings, broker: Broker, symbol: str) -> FeatureRow:
    """Find an instrument's newest feature row.

    Raises
    ------
    UnknownInstrument
        If the store does not know the symbol.
    CommandFailed
        If nothing has a row of it.
    """
    if settings.kafka.bootstrap_servers:
        row = await _from_signals(settings, broker, symbol)
        if row is not None:
            return row
    return _from_store(settings, symbol)


async def _from_signals(settings: Settings, broker: Broker, symbol: str) -> FeatureRow | None:
    from live_services.adapters.kafka import read_topic

    newest: SignalGenerated | None = None
    async for record in read_topic(settings.kafka, broker_topics(broker).signals_raw.name):
        event = event_or_none(record.value)
        if isinstance(event, SignalGenerated) and event.symbol == symbol:
            newest = event
    if newest is None:
        return None
    origin = f"signal {newest.event_id}"
    return FeatureRow(origin, ist_text(newest.event_time_ns), newest.features)


def _from_store(settings: Settings, symbol: str) -> FeatureRow:
    from feature_store.features import MOMENTUM_FEATURES, feature_schema
    from feature_store.offline import OfflineStore

    store = OfflineStore(settings.store_root)
    universe = store.universe()
    if symbol not in universe.index_of_symbol:
        near = did_you_mean(symbol, universe.index_of_symbol) or f"it knows {len(universe)} others"
        raise UnknownInstrument(f"the store knows no instrument {symbol!r}; {near}")
    schema = feature_schema(MOMENTUM_FEATURES, settings.market.bar_minutes)
    for session in reversed(store.sessions()):
        try:
            bars, rows, warm = store.read_features(session, schema)
        except UnreadableFile:
            continue  # a session without features
        mine = (bars.instrument == universe.index_of_symbol[symbol]) & warm
        if mine.any():
            last = int(mine.nonzero()[0][-1])
            values = {name: float(rows[last, k]) for k, name in enumerate(schema.names)}
            return FeatureRow(f"offline store, session {session.date}", ist_text(int(bars.end_ns[last])), values)
    raise CommandFailed(f"no feature row of {symbol}: materialise the features in Dagster first")
