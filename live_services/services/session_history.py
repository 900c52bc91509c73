"""What the features of a session stand on, as a task says it on the log and as a restart finds it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Protocol

from feature_store.market.types import Session, Universe
from live_services.domain.events import StrategyHistoryUsed, self_caused
from live_services.domain.log import TaskId
from live_services.domain.strategy.desk import StrategyDesk
from live_services.domain.strategy.history import HistoryUsed, SessionHistory, used_of
from live_services.runtime.failures import RuntimeFailure


class HistorySource(Protocol):
    """Where the features of a session go on from."""

    def of(
        self, session: Session, universe: Universe, sessions: Sequence[str] | None = None, needed: int = 0
    ) -> SessionHistory:
        """Give the history of a session: that of the sessions named, else of the last ones there are."""
        ...


class KeptHistories(Protocol):
    """Where the histories of sessions that were opened on this machine are kept."""

    def keep(self, history: SessionHistory, /) -> None:
        """Keep what a session stands on; never raises for want of room."""
        ...

    def read(self, universe: Universe, used: HistoryUsed, /) -> SessionHistory | None:
        """Give the history that a session stood on; None if it is not here any more."""
        ...


class HistoryChanged(RuntimeFailure):
    """The bars that a session's features stood on are not what they were, so it cannot be run again as it was."""


def history_used(task: TaskId, desk: StrategyDesk, now_ns: int) -> StrategyHistoryUsed:
    """Say what the features of a task's session stand on."""
    used, date = desk.history_used, desk.session.date.isoformat()
    identity = "history_used", str(task), date, used.digest, used.today_until_ns, str(used.broken)
    return StrategyHistoryUsed(**self_caused(*identity), event_time_ns=now_ns, session_date=date, **asdict(used))


def require_same_history(task: TaskId, desk: StrategyDesk, event: StrategyHistoryUsed) -> HistoryUsed:
    """Give what the log says that features stand on, which is what they stand on here.

    Raises
    ------
    HistoryChanged
        If it is not: the bars were not kept here, and those of the store are others by now.
    """
    logged = used_of(event)
    if desk.history_used != logged:
        raise changed(task, desk, logged)
    return logged


def changed(task: TaskId, desk: StrategyDesk, logged: HistoryUsed) -> HistoryChanged:
    """Say how what features stand on here is not what they stood on by the log."""
    here, date = desk.history_used, desk.session.date.isoformat()
    days = f"{logged.sessions[0]} to {logged.sessions[-1]}" if logged.sessions else "no session"
    what = "today's stored bars" if here.digest == logged.digest else f"the stored bars of {days}, or the actions,"
    return HistoryChanged(
        f"{task}: {what} changed while the session of {date} ran: its features stand on {_short(logged)}, the offline "
        f"store now gives {_short(here)}, and what it gave then is not kept on this machine. Going on would differ "
        "from what was decided before. Bring the bars (and market.corporate_actions) back as they were, or end the "
        "session here: start with an empty Kafka"
    )


def _short(used: HistoryUsed) -> str:
    today = f" and {used.today_digest[:12]} of today" if used.today_until_ns else ""
    broken = ", begun anew behind a gap" if used.broken else ""
    return f"{used.digest[:12]} ({len(used.sessions)} sessions){today}{broken}"
