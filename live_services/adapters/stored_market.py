"""The stored sessions of a market, as a feed plays them: one loaded at a time, each with the universe of its day."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace

import numpy as np

from feature_store.market.types import Bars, MarketDataError, Session, Ticks, Universe
from feature_store.offline.store import Kind, OfflineStore
from live_services.settings import Settings


class SessionChanged(MarketDataError):
    """The store has instruments in a session that the session was not told with."""


@dataclass(frozen=True, slots=True, eq=False)
class Replay:
    """One session to play."""

    session: Session
    universe: Universe
    market: Ticks | Bars
    """Indexed by ``universe``."""


def market_name(settings: Settings) -> str:
    """Give what the store calls its market, a generated one SYNTHETIC; while it says nothing, what the settings do."""
    try:
        return OfflineStore(settings.store_root).market() or settings.market.name
    except (OSError, MarketDataError, KeyError):
        return settings.market.name


class StoredMarket:
    """The sessions of the offline store that have what is fed (ticks or bars)."""

    def __init__(self, settings: Settings) -> None:
        self._store = OfflineStore(settings.store_root)
        self._kind: Kind = settings.market.feed
        self._seen: set[int] = set()
        self._seen_through = dt.date.min

    def sessions(self) -> tuple[Session, ...]:
        """Give the sessions that can be played now, in order."""
        return self._store.sessions(self._kind)

    def load(self, session: Session, told: Universe | None = None) -> Replay:
        """Read a session.

        Parameters
        ----------
        told
            The universe that the session was told with, if it was; else it is that of :meth:`universe_of`.

        Raises
        ------
        SessionChanged
            If the market names an instrument that the session was not told with.
        feature_store.market.types.UnreadableFile
            If there is no such session, or its file is damaged.
        """
        store = self._store
        market = store.read_ticks(session) if self._kind == "ticks" else store.read_bars([session])
        known, universe = store.universe(), told if told is not None else self.universe_of(session)
        instrument = universe.indices_of(known.tokens)[market.instrument]
        if (instrument < 0).any():
            strange = known.instruments[int(market.instrument[np.argmin(instrument)])]
            raise SessionChanged(
                f"the {self._kind} of {session.date} in {store.root} name {strange.symbol}, which that session was not "
                "told with on market.sessions. Write the session as it was when it was told, or start with an empty "
                "Kafka"
            )
        return Replay(session, universe, replace(market, instrument=instrument))

    def universe_of(self, session: Session) -> Universe:
        """Give the instruments that have bars or ticks in this session or in an earlier one.

        A later listing is not among them, so that a session means the same whenever it is played.
        """
        if session.date < self._seen_through:
            self._seen, self._seen_through = set(), dt.date.min
        kinds: tuple[Kind, Kind] = ("bars", "ticks")
        for kind in kinds:
            for date in self._store.dates(kind):
                if self._seen_through < date <= session.date:
                    self._seen.update(self._store.instrument_tokens(kind, date).tolist())
        self._seen_through = session.date
        held = self._store.universe().instruments
        return Universe.model_construct(instruments=tuple(i for i in held if i.instrument_token in self._seen))
