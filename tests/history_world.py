"""The sessions before a desk's own, its day, and a gap in that."""

from __future__ import annotations

from live_services.domain.events import MarketGap, self_caused
from tests.live_world import MINUTE, OPEN, SESSION, UNIVERSE, past_sessions, session_bars

HISTORY = past_sessions(UNIVERSE, 5)
TODAY = session_bars(SESSION, len(UNIVERSE), 200, seed=1)


def gap(begin_minutes: float, until_minutes: float) -> MarketGap:
    begin_ns, until_ns = (OPEN + round(minutes * MINUTE) for minutes in (begin_minutes, until_minutes))
    return MarketGap(
        **self_caused("gap", begin_ns),
        broker="shared",
        event_time_ns=begin_ns,
        until_ns=until_ns,
        reason="the feed was not there",
    )
