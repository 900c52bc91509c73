"""What came in, as its source had it: kept session by session, taken away when the source lost it, put on a clock.

Bars that came as bars lie on their source's clock in a store inside the store (``source/``); ticks lie beside the bars
that are made of them.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import replace

import numpy as np

from feature_store.bars.builder import aggregate_bars, bars_of_session
from feature_store.market.clocks import BarClock
from feature_store.market.types import MINUTE_NS, TICK_BARS, Bars, MarketDataError, Session, Universe
from feature_store.offline.store import UNKNOWN_SOURCE, Kind, OfflineStore
from feature_store.sources.arrivals import Arrival


def source_store(store: OfflineStore) -> OfflineStore:
    """Give the part of the store that keeps bars on their source's clock."""
    return OfflineStore(store.root / "source")


def incoming_sessions(store: OfflineStore, dates: Collection[dt.date] | None = None) -> tuple[Session, ...]:
    """Give the sessions that came in, as bars or as ticks, of some dates or all."""
    found = {s.date: s for s in (*store.sessions("ticks"), *source_store(store).sessions())}
    return tuple(found[date] for date in sorted(found) if dates is None or date in dates)


def write_incoming(store: OfflineStore, arrival: Arrival, session: Session) -> None:
    """Write one session of an arrival; what it had before is replaced, those of other sources stay.

    Raises
    ------
    MarketDataError
        If the store holds another market, or knows an instrument by another token.
    """
    if session in arrival.bars:
        universe, bars = arrival.bars[session]
        for where in (store, source_store(store)):
            where.write_universe(universe, arrival.name, arrival.stated, arrival.details)
        source_store(store).write_bars(session, universe, bars, arrival.sources["bars"], bar_source=arrival.bar_source)
    if session in arrival.ticks:
        universe, ticks = arrival.ticks[session]
        store.write_universe(universe, arrival.name, arrival.stated, arrival.details)
        store.write_ticks(session, universe, ticks, arrival.sources["ticks"])


def write_quarantined(store: OfflineStore, arrival: Arrival, dates: Collection[dt.date] | None = None) -> None:
    """Write the refused rows: ``KIND.parquet`` for the whole source, ``KIND_FIRST_LAST.parquet`` for some days of it.

    Row numbers are those of the file as it was read, so a look at a few days leaves the whole file's list alone; the
    next look at the whole file takes the lists of days away.
    """
    span = "" if dates is None else f"_{min(dates)}_{max(dates)}"
    for kind, left_out in arrival.quarantine.items():
        path = store.write_quarantine(f"{kind}{span}", left_out.rows)
        for older in path.parent.glob(f"{kind}_*.parquet") if dates is None else ():
            older.unlink()


def remove_vanished_sessions(
    store: OfflineStore, arrival: Arrival, dates: Collection[dt.date] | None = None
) -> tuple[dt.date, ...]:
    """Remove the sessions that came from this source earlier and are gone from it, of some dates or all; give them.

    A corrected source may have lost a session, or one's ticks. What came from elsewhere stays: each session's manifest
    names the source that it came from last, a file by its path.
    """
    kinds: tuple[tuple[OfflineStore, Kind, Collection[Session]], ...] = (
        (store, "ticks", arrival.ticks.keys()),
        (source_store(store), "bars", arrival.bars.keys()),
    )
    for where, kind, there in kinds:
        if kind not in arrival.sources:
            continue
        others = () if dates is None else (date for date in where.dates(kind) if date not in dates)
        where.keep_only(kind, [*there, *others], source=arrival.sources[kind])
    came = {*store.dates("ticks"), *source_store(store).dates("bars")}
    gone = tuple(date for date in store.dates("bars") if date not in came and (dates is None or date in dates))
    for date in gone:
        store.drop_session("bars", date)
    return gone


def bars_on_clock(store: OfflineStore, session: Session, clock: BarClock) -> Bars:
    """Make the bars of a session on a clock: of the source's bars, or of its ticks if it has none.

    Raises
    ------
    MarketDataError
        If the source's bars do not add up to those of the clock.
    """
    if session in source_store(store).sessions():
        return vendor_bars(store, session, clock)
    return bars_of_session(store.read_ticks(session), session, len(store.universe()), clock)


def vendor_bars(store: OfflineStore, session: Session, clock: BarClock) -> Bars:
    """Make the bars on a clock of a session that came in as bars; raises as `bars_on_clock`."""
    universe, source = store.universe(), source_store(store)
    shorter = _reindexed(source.read_bars([session]), source.universe(), universe)
    longest = int((shorter.end_ns - shorter.start_ns).max(initial=0))
    if clock.size % max(longest, 1):
        raise MarketDataError(
            f"bars of {longest / MINUTE_NS:g} minutes do not add up to bars of {clock.size // MINUTE_NS} (session "
            f"{session.date}): set market.bar_minutes to a multiple of the source's"
        )
    return aggregate_bars(shorter, session, len(universe), clock)


def bar_source_of(store: OfflineStore, session: Session) -> str:
    """Say what made the bars of a session that `bars_on_clock` gives: our builder from its ticks, or a vendor."""
    source = source_store(store)
    if session not in source.sessions():
        return TICK_BARS
    return str(source.manifest("bars", session).get("bar_source", UNKNOWN_SOURCE))


def _reindexed(bars: Bars, old: Universe, new: Universe) -> Bars:
    place = np.array([new.index_of_token[int(token)] for token in old.tokens], dtype=np.int32)
    return replace(bars, instrument=place[bars.instrument])
