"""Where the market comes from: generated, or read from the user's files; session by session into the offline store."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from feature_store.market.clocks import BarClock
from feature_store.market.types import (
    MINUTE_NS,
    TICK_BARS,
    VENDOR_BARS,
    Bars,
    MarketDataError,
    Session,
    Ticks,
    Universe,
)
from live_services.settings import MarketSettings

if TYPE_CHECKING:
    from feature_store.offline.store import Kind, OfflineStore
    from feature_store.sources.quarantine import Quarantine

_FILES_FIRST_YEAR: Final = 2015
_FEW_SESSIONS: Final = 12


@dataclass(frozen=True, eq=False)
class Arrival:
    """A market as its source has it; bars keep the source's clock."""

    name: str
    """Starts with ``SYNTHETIC`` when it was generated."""
    bars: dict[Session, tuple[Universe, Bars]]
    ticks: dict[Session, tuple[Universe, Ticks]]
    quarantine: dict[str, Quarantine] = field(default_factory=dict)
    """Rows that were left out, by kind of file."""
    bar_source: str = VENDOR_BARS
    """What made its bars."""

    @property
    def sessions(self) -> tuple[Session, ...]:
        """Sessions with bars or ticks, in order."""
        return tuple(sorted({*self.bars, *self.ticks}, key=lambda session: session.date))

    @property
    def quarantined(self) -> dict[str, int]:
        """Rows left out, by reason."""
        counts: Counter[str] = Counter()
        for left_out in self.quarantine.values():
            counts.update(left_out.counts())
        return dict(counts)


def bring_in(market: MarketSettings, dates: Collection[dt.date] | None = None, held: Universe | None = None) -> Arrival:
    """Get the market, or the sessions of some dates; each file is read once.

    Parameters
    ----------
    market : MarketSettings
    dates : collection of date, optional
        The days that are wanted; None wants all of them.
    held : Universe, optional
        Instruments that are known already: what a few days say of an instrument does not overrule what all of them did.

    Raises
    ------
    MarketDataError
        If a file cannot be used, or none is set; the message says what to do.
    """
    if market.source == "files":
        return _from_files(market, None if dates is None else sorted(dates), held)
    arrival = _generated(market)
    if dates is None:
        return arrival
    wanted = frozenset(dates)
    return replace(
        arrival,
        bars={session: bars for session, bars in arrival.bars.items() if session.date in wanted},
        ticks={session: ticks for session, ticks in arrival.ticks.items() if session.date in wanted},
    )


def _generated(market: MarketSettings) -> Arrival:
    from feature_store.sources.synthetic import synthetic_market

    made = synthetic_market(**market.synthetic.model_dump())
    bars = {session: (made.universe, table) for session, table in zip(made.sessions, made.bars, strict=True)}
    # its bars are exactly those that our builder makes of its ticks
    return Arrival(made.name, bars, {made.tick_session: (made.universe, made.ticks)}, bar_source=TICK_BARS)


def _from_files(market: MarketSettings, dates: Sequence[dt.date] | None, held: Universe | None) -> Arrival:
    from feature_store.sources.reading import by_session, read_bars, read_ticks

    if market.bars_file is None and market.ticks_file is None:
        raise MarketDataError(
            "market.source is 'files' but no file is named: set market.bars_file, market.ticks_file or both "
            "(MARKET__BARS_FILE, or [market] in alpha-panda.toml)"
        )
    name = " ".join(path.name for path in (market.bars_file, market.ticks_file) if path is not None)
    quarantine: dict[str, Quarantine] = {}
    bars: dict[Session, tuple[Universe, Bars]] = {}
    ticks: dict[Session, tuple[Universe, Ticks]] = {}
    known: Universe | None = None
    if market.bars_file is not None:
        of_bars = read_bars(market.bars_file, dates)
        universe = _with_facts_of(held, of_bars.universe)
        known = _joined(held, universe)  # a symbol that only the ticks have was never trained on
        bars = {session: (universe, part) for session, part in by_session(of_bars.bars)}
        quarantine["bars"] = of_bars.quarantine
    if market.ticks_file is not None:
        of_ticks = read_ticks(market.ticks_file, dates, universe=known)
        universe = _with_facts_of(held, of_ticks.universe)
        ticks = {session: (universe, part) for session, part in by_session(of_ticks.ticks)}
        quarantine["ticks"] = of_ticks.quarantine
    return Arrival(name, bars, ticks, quarantine)


def _with_facts_of(held: Universe | None, universe: Universe) -> Universe:
    """Give a universe in its own order, with what is known of its instruments already."""
    if held is None:
        return universe
    known = {instrument.instrument_token: instrument for instrument in held.instruments}
    return Universe(instruments=tuple(known.get(i.instrument_token, i) for i in universe.instruments))


def _joined(held: Universe | None, universe: Universe) -> Universe:
    return universe if held is None else Universe.ordered({*held.instruments, *universe.instruments})


def source_store(store: OfflineStore) -> OfflineStore:
    """Give the part of the store that keeps bars on their source's clock."""
    from feature_store.offline.store import OfflineStore

    return OfflineStore(store.root / "source")


def keep_session(arrival: Arrival, session: Session, store: OfflineStore) -> None:
    """Write one session of an arrival; what it had before is replaced."""
    if session in arrival.bars:
        universe, bars = arrival.bars[session]
        store.write_universe(universe, arrival.name)
        source_store(store).write_bars(session, universe, bars, arrival.name, bar_source=arrival.bar_source)
    if session in arrival.ticks:
        universe, ticks = arrival.ticks[session]
        store.write_ticks(session, universe, ticks, arrival.name)


def keep_quarantine(arrival: Arrival, store: OfflineStore, dates: Collection[dt.date] | None = None) -> None:
    """Write the refused rows: ``KIND.parquet`` for the whole source, ``KIND_FIRST_LAST.parquet`` for some days of it.

    Row numbers are those of the file as it was read, so a look at a few days leaves the whole file's list alone; the
    next look at the whole file takes the lists of days away.
    """
    span = "" if dates is None else f"_{min(dates)}_{max(dates)}"
    for kind, left_out in arrival.quarantine.items():
        path = store.write_quarantine(f"{kind}{span}", left_out.rows)
        for older in path.parent.glob(f"{kind}_*.parquet") if dates is None else ():
            older.unlink()


def forget(arrival: Arrival, store: OfflineStore, dates: Collection[dt.date] | None = None) -> tuple[dt.date, ...]:
    """Remove the sessions that came from this source earlier and are gone from it, of some dates or all; give them.

    A corrected source may have lost a session, or one's ticks. What came from elsewhere stays.
    """
    for where, kind, there in _kinds(arrival, store):
        others = () if dates is None else (date for date in where.dates(kind) if date not in dates)
        where.keep_only(kind, [*there, *others], source=arrival.name)
    raw = {*store.dates("ticks"), *source_store(store).dates("bars")}
    gone = tuple(date for date in store.dates("bars") if date not in raw and (dates is None or date in dates))
    for date in gone:
        store.drop_session("bars", date)
    return gone


def _kinds(arrival: Arrival, store: OfflineStore) -> tuple[tuple[OfflineStore, Kind, Collection[Session]], ...]:
    return (store, "ticks", arrival.ticks.keys()), (source_store(store), "bars", arrival.bars.keys())


def session_bars(store: OfflineStore, session: Session, bar_minutes: int) -> Bars:
    """Bars of a session on the desk's clock: from the source's bars, or from its ticks if it has none.

    Raises
    ------
    MarketDataError
        If the source's bars do not add up to the desk's.
    """
    from feature_store.bars.builder import bars_of_session

    if session in source_store(store).sessions():
        return vendor_bars(store, session, bar_minutes)
    return bars_of_session(store.read_ticks(session), session, len(store.universe()), BarClock.minutes(bar_minutes))


def vendor_bars(store: OfflineStore, session: Session, bar_minutes: int) -> Bars:
    """Bars of a session that came in as bars, on the desk's clock; raises as `session_bars`."""
    from feature_store.bars.builder import aggregate_bars

    universe, source, clock = store.universe(), source_store(store), BarClock.minutes(bar_minutes)
    shorter = _reindexed(source.read_bars([session]), source.universe(), universe)
    longest = int((shorter.end_ns - shorter.start_ns).max(initial=0))
    if clock.size % max(longest, 1):
        raise MarketDataError(
            f"bars of {longest / MINUTE_NS:g} minutes do not add up to bars of {bar_minutes} (session {session.date}): "
            "set market.bar_minutes to a multiple of the source's"
        )
    return aggregate_bars(shorter, session, len(universe), clock)


def bar_source_of(store: OfflineStore, session: Session) -> str:
    """Say what made the bars of a session that `session_bars` gives: our builder from its ticks, or a vendor."""
    source = source_store(store)
    if session not in source.sessions():
        return TICK_BARS
    return str(source.manifest("bars", session).get("bar_source", "unknown"))


def traded_bar_source(store: OfflineStore, market: MarketSettings) -> str:
    """Say what makes the bars that models decide on: of fed ticks our builder, of fed bars whoever made those.

    Raises
    ------
    MarketDataError
        If the replayed session that is set is not there.
    """
    replayed = replayed_session(store, market) if market.feed == "bars" else None
    if replayed is not None:
        return bar_source_of(store, replayed)
    return TICK_BARS if market.feed == "ticks" else VENDOR_BARS


def _reindexed(bars: Bars, old: Universe, new: Universe) -> Bars:
    place = np.array([new.index_of_token[int(token)] for token in old.tokens], dtype=np.int32)
    return replace(bars, instrument=place[bars.instrument])


def replayed_session(store: OfflineStore, market: MarketSettings) -> Session | None:
    """Give the session that is replayed: the one set, or the last that has what is fed (ticks, else bars).

    Raises
    ------
    MarketDataError
        If the session that is set is not there; without it nothing could be kept out of the training.
    """
    ticked = store.sessions("ticks") if market.feed == "ticks" else ()
    known = ticked or store.sessions("bars")
    if not market.replay_session:
        return known[-1] if known else None
    date = dt.date.fromisoformat(market.replay_session)
    sessions = {session.date: session for session in (*store.sessions("bars"), *known)}
    if date not in sessions:
        raise MarketDataError(
            f"market.replay_session is {date}, but there is no such session: there {_listed(sorted(sessions))}. "
            "Set it to one of them, bring that day in, or leave it out to replay the last"
        )
    return sessions[date]


def _listed(dates: Sequence[dt.date]) -> str:
    if not dates:
        return "are none yet"
    if len(dates) == 1:
        return f"is {dates[0]}"
    if len(dates) <= _FEW_SESSIONS:
        return f"are {', '.join(map(str, dates))}"
    return f"are {len(dates)}, from {dates[0]} to {dates[-1]}"


def training_sessions(store: OfflineStore, market: MarketSettings) -> tuple[Session, ...]:
    """Give the sessions before the replayed one; that one is never trained on.

    Raises
    ------
    MarketDataError
        If there is none, or the replayed session that is set is not there.
    """
    replayed = replayed_session(store, market)
    sessions = tuple(s for s in store.sessions("bars") if replayed is None or s.date < replayed.date)
    if not sessions:
        raise MarketDataError(
            f"no session lies before the replayed one ({replayed.date if replayed else 'none'}): bring in more "
            "sessions, or set market.replay_session to a later date"
        )
    return sessions


def first_partition(market: MarketSettings, store_root: Path) -> dt.date:
    """Give the first day that may have data, without reading any: the code location must load fast."""
    if market.source == "synthetic":
        return dt.date.fromisoformat(market.synthetic.first_session)
    kept = sorted(path.name.removeprefix("session=") for path in store_root.glob("bars/session=*"))
    return dt.date(dt.date.fromisoformat(kept[0]).year if kept else _FILES_FIRST_YEAR, 1, 1)


def generated_dates(market: MarketSettings) -> tuple[dt.date, ...]:
    """Give the dates of a generated market's sessions, that of its ticks last; they may well lie in the future.

    Raises
    ------
    UnverifiedDate
        If the exchange's calendar does not reach that far.
    """
    from feature_store.sources.synthetic import synthetic_sessions

    first = dt.date.fromisoformat(market.synthetic.first_session)
    return tuple(session.date for session in synthetic_sessions(first, market.synthetic.sessions + 1))
