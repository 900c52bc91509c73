"""What a session starts from: bars of the sessions before it, and of its own up to now. Pure; `warm_start` reads it.

Features go on from session to session, so a desk that starts empty would say WARMING for days. It steps these bars
first, and the engine the same ones: two runs from equal histories are equal. The digest goes on the log, so that a
restart that would stand on other bars is noticed.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from typing import cast

import numpy as np

from feature_store.market.corporate_actions import CorporateActions
from feature_store.market.types import Bars, Session, Universe
from live_services.domain.partitions import part_of


def no_bars() -> Bars:
    """Give a table of bars without rows."""
    whole, price = np.empty(0, dtype=np.int64), np.empty(0)
    small = np.empty(0, dtype=np.int32)
    return Bars(small, whole, whole, price, price, price, price, whole, small)


def bars_digest(bars: Bars, universe: Universe) -> str:
    """SHA-256 of bars by instrument token, so that it does not move with the universe's order."""
    sha = hashlib.sha256(np.ascontiguousarray(universe.tokens[bars.instrument]).tobytes())
    for name in ("start_ns", "end_ns", "open", "high", "low", "close", "volume", "spread_bps", "imbalance"):
        sha.update(np.ascontiguousarray(getattr(bars, name)).tobytes())
    return sha.hexdigest()


@dataclass(frozen=True, eq=False)
class SessionHistory:
    """Bars on the desk's clock from before a session, in order of ``(end_ns, instrument)``, and corporate actions."""

    universe: Universe
    sessions: tuple[str, ...] = ()
    """ISO dates of the sessions before, in order."""
    before: Bars = None  # type: ignore[assignment]
    """Their bars."""
    today: Bars = None  # type: ignore[assignment]
    """Bars of the session itself that were stored when it was opened here; used by a start in the middle of it."""
    actions: CorporateActions = None  # type: ignore[assignment]
    """Applied at the ex-date, in history as in live."""

    def __post_init__(self) -> None:
        for name in ("before", "today"):
            if getattr(self, name) is None:
                object.__setattr__(self, name, no_bars())
        if self.actions is None:
            object.__setattr__(self, "actions", CorporateActions.none())

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything before the session: dates, bars by token, corporate actions."""
        text = "\n".join([*self.sessions, bars_digest(self.before, self.universe), self.actions.digest])
        return hashlib.sha256(text.encode()).hexdigest()

    def part_of(self, partition: int, partitions: int) -> SessionHistory:
        """Give what a partition's desk steps: its own instruments and the market's index."""
        if partitions == 1:
            return self
        parts = [part_of(bars, self.universe, partition, partitions) for bars in (self.before, self.today)]
        before, today = cast("list[Bars]", parts)
        return SessionHistory(self.universe, self.sessions, before, today, self.actions)


def joined(
    history: SessionHistory, session: Session, bar_ns: int, first_ns: int, used: HistoryUsed
) -> tuple[list[Bars], HistoryUsed]:
    """Give the bars that features go on from, knowing the time of the first row of the market, and what to log of it.

    A session joined in its middle: stored bars of it that reach the bar of that row count as if they had come. Without
    them nothing of before may: windows would span the hole, and rows would not be those of a full history.
    """
    before = [history.before] if len(history.before) else []
    start_ns = session.open_ns + (first_ns - session.open_ns) // bar_ns * bar_ns
    if start_ns <= session.open_ns:
        return before, used
    today = history.today[history.today.end_ns <= start_ns]
    if len(today) and int(today.end_ns.max()) == start_ns:
        digest = bars_digest(today, history.universe)
        return [*before, today], replace(used, today_until_ns=start_ns, today_digest=digest)
    return [], replace(used, broken=True)


@dataclass(frozen=True, slots=True)
class HistoryUsed:
    """What a desk's features stand on, for the log."""

    sessions: tuple[str, ...]
    digest: str
    """Of the history before the session."""
    today_until_ns: int = 0
    """End of the last stored bar of the session itself that was stepped; 0 without any."""
    today_digest: str = ""
    """Of these bars."""
    broken: bool = False
    """The session was joined in its middle and nothing tells what came before: features begin anew, WARMING."""
