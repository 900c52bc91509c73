"""Warm start: what the features of a session go on from, read from the offline store once, at the session's open."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

import numpy as np
import structlog

from feature_store.bars.builder import aggregate_bars
from feature_store.features.schema import feature_schema
from feature_store.market.calendar import UnverifiedDate, nse_sessions
from feature_store.market.clocks import BarClock
from feature_store.market.corporate_actions import CorporateActions
from feature_store.market.types import Bars, Session, Universe, UnreadableFile
from feature_store.offline.store import OfflineStore
from live_services.domain.strategy.checks import strategy_schema
from live_services.domain.strategy.history import SessionHistory, no_bars
from live_services.settings import Settings

_log = structlog.get_logger("market_data")

_LISTED: Final = 5


class StoredHistory:
    """Reads the sessions before one from the offline store, on the desk's clock.

    Parameters
    ----------
    settings : Settings
        With the store, the clock, the strategies' features and the corporate actions.
    """

    def __init__(self, settings: Settings) -> None:
        self._actions_file = settings.market.corporate_actions
        self._store = OfflineStore(settings.store_root)
        self._clock = BarClock.minutes(settings.market.bar_minutes)
        schemas = [strategy_schema(strategy) for strategy in settings.strategies]
        self._needed = max(schema.history_sessions for schema in [feature_schema(None, self._clock), *schemas])

    def of(
        self, session: Session, universe: Universe, sessions: Sequence[str] | None = None, needed: int = 0
    ) -> SessionHistory:
        """Give what a session starts from.

        Parameters
        ----------
        session : Session
            The session that opens.
        universe : Universe
            The session's; what the instrument indices of the result refer to. Bars of instruments that are not in it
            are left out.
        sessions : sequence of str, optional
            ISO dates to take, when the log says which ones a run before this one took; default: the last ones stored.
        needed : int
            Sessions that a model in use needs, if they are more than those of the settings.

        Raises
        ------
        feature_store.market.types.UnreadableFile
            If a session that the log names is not in the store any more, or a file is damaged.
        feature_store.market.types.MarketDataError
            If the file of corporate actions cannot be used; it is read anew for each session.
        """
        stored = {one.date.isoformat(): one for one in self._store.sessions("bars")}
        before = sorted(date for date in stored if date < session.date.isoformat())
        taken = list(sessions) if sessions is not None else before[-max(self._needed, needed) :]
        if gone := [date for date in taken if date not in stored]:
            raise UnreadableFile(
                f"the log says that this session's features stand on bars of {', '.join(gone)}, which are not in "
                f"{self._store.root} any more: bring them back, or start with an empty Kafka"
            )
        parts = [self._bars(stored[date], universe) for date in taken]
        bars = Bars.concatenate(parts) if parts else no_bars()
        own = stored.get(session.date.isoformat())
        today = no_bars() if own is None else self._bars(own, universe)
        _say_holes(taken, session)
        return SessionHistory(universe, tuple(taken), bars, today, self._actions())

    def _actions(self) -> CorporateActions:
        if self._actions_file is None:
            return CorporateActions.none()
        from feature_store.sources.dated_tables import read_corporate_actions  # with pandas, which costs 40 MB

        return read_corporate_actions(self._actions_file)

    def _bars(self, session: Session, universe: Universe) -> Bars:
        bars = self._store.read_bars([session])
        whole = bars.end_ns < session.close_ns  # the last bar before the close may be shorter
        length = int((bars.end_ns - bars.start_ns)[whole].max(initial=0))
        if length != self._clock.size:
            if length == 0 or self._clock.size % length:
                _log.warning(
                    "history_left_out",
                    session=str(session.date),
                    reason=f"its bars last {length / 1e9:g} s, which bars of {self._clock.short} cannot be made of",
                )
                return no_bars()
            bars = aggregate_bars(bars, session, len(self._store.universe()), self._clock)
        stored = self._store.universe()
        if stored == universe:
            return bars
        index_of = np.array([universe.index_of_token.get(int(t), -1) for t in stored.tokens], dtype=np.int32)
        known = index_of[bars.instrument] >= 0
        bars = bars[known]
        index = index_of[bars.instrument]
        order = np.lexsort((index, bars.end_ns))
        columns = {name: getattr(bars, name)[order] for name in bars.__dataclass_fields__ if name != "instrument"}
        return Bars(instrument=index[order], **columns)


def _say_holes(taken: Sequence[str], session: Session) -> None:
    """Say which sessions of the exchange are missing between those taken: history has the same hole in research."""
    if not taken:
        _log.warning("history_is_empty", session=str(session.date), consequence="every instrument is WARMING at first")
        return
    try:
        known = nse_sessions(dt.date.fromisoformat(taken[0]), session.date - dt.timedelta(days=1))
    except UnverifiedDate:
        return
    missing = sorted({one.date.isoformat() for one in known} - set(taken))
    if missing:
        first = ", ".join(missing[:_LISTED])
        _log.warning("history_has_holes", session=str(session.date), missing=len(missing), first=first)
