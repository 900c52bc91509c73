"""Which of the stored sessions is replayed, and which are trained on."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Final

from feature_store.market.types import TICK_BARS, VENDOR_BARS, MarketDataError, Session
from feature_store.offline.incoming import bar_source_of
from feature_store.offline.store import Kind, OfflineStore

_FEW_SESSIONS: Final = 12


def replayed_session(store: OfflineStore, feed: Kind, chosen: dt.date | None = None) -> Session | None:
    """Give the session that is replayed: the one chosen, or the last that has what is fed (ticks, else bars).

    Raises
    ------
    MarketDataError
        If the chosen session is not there; without it nothing could be kept out of the training.
    """
    ticked = store.sessions("ticks") if feed == "ticks" else ()
    known = ticked or store.sessions("bars")
    if chosen is None:
        return known[-1] if known else None
    sessions = {session.date: session for session in (*store.sessions("bars"), *known)}
    if chosen not in sessions:
        raise MarketDataError(
            f"market.replay_session is {chosen}, but there is no such session: there {_listed(sorted(sessions))}. "
            "Set it to one of them, bring that day in, or leave it out to replay the last"
        )
    return sessions[chosen]


def training_sessions(
    store: OfflineStore, *, through: dt.date | None = None, before: Session | None = None
) -> tuple[Session, ...]:
    """Give the sessions that models are trained on: all there are, unless a bound is given.

    Parameters
    ----------
    through : date, optional
        The last day that may be trained on.
    before : Session, optional
        A session that is held out, with all after it.

    Raises
    ------
    MarketDataError
        If no session is left.
    """
    held = store.sessions("bars")
    sessions = tuple(
        session
        for session in held
        if (through is None or session.date <= through) and (before is None or session.date < before.date)
    )
    if sessions:
        return sessions
    there = f"there {_listed([session.date for session in held])}"
    if through is not None and not any(session.date <= through for session in held):
        raise MarketDataError(
            f"no session lies on or before market.train_through ({through}): {there}. Set it to a later date, bring "
            "earlier sessions in, or leave it out"
        )
    if before is not None:
        raise MarketDataError(
            f"no session lies before the replayed one ({before.date}): bring in more sessions, or set "
            "market.replay_session to a later date"
        )
    raise MarketDataError("there is no session with bars yet: materialise market_data")


def traded_bar_source(store: OfflineStore, feed: Kind, replayed: Session | None) -> str:
    """Say what makes the bars that models decide on: of fed ticks our builder, of fed bars whoever made those."""
    if feed == "ticks":
        return TICK_BARS
    return VENDOR_BARS if replayed is None else bar_source_of(store, replayed)


def _listed(dates: Sequence[dt.date]) -> str:
    if not dates:
        return "are none yet"
    if len(dates) == 1:
        return f"is {dates[0]}"
    if len(dates) <= _FEW_SESSIONS:
        return f"are {', '.join(map(str, dates))}"
    return f"are {len(dates)}, from {dates[0]} to {dates[-1]}"
