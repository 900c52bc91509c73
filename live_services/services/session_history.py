"""What the features of a session stand on, as a task says it on the log and as a restart finds it again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import Any, Final, Protocol

from feature_store.market.types import Session, Universe
from live_services.domain.events import StrategyHistoryUsed, self_caused
from live_services.domain.log import TaskId
from live_services.domain.strategy.desk import StrategyDesk
from live_services.domain.strategy.history import HistoryUsed, LaterHistory, SessionHistory, used_of
from live_services.runtime.failures import RuntimeFailure
from live_services.runtime.service import Opening


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

    def later(
        self, universe: Universe, used: HistoryUsed, read: Callable[[], SessionHistory], /
    ) -> LaterHistory | None:
        """Give it without its bars, which ``read`` gives; None if it is not here any more."""
        ...


class Histories:
    """What the sessions of a service go on from, as they open and as they are opened again.

    Parameters
    ----------
    source : HistorySource, optional
        Default: none, and no session has a history.
    kept : KeptHistories, optional
        What a restart goes on from, whatever became of the source since; default: that has to be as it was.
    """

    def __init__(self, source: HistorySource | None, kept: KeptHistories | None) -> None:
        self._source: Final = source
        self._kept: Final = kept

    def begun(self, opening: Opening[Any], needed: Callable[[], int]) -> SessionHistory | None:
        """Read and keep that of a session that begins, of as many sessions at least as ``needed`` says."""
        if self._source is None:
            return None
        history = self._source.of(opening.session, opening.universe, needed=needed())
        if self._kept is not None:
            self._kept.keep(history)
        return history

    def as_used(self, opening: Opening[Any], used: HistoryUsed) -> SessionHistory | None:
        """Read that of a session that was opened before."""
        if self._source is None:
            return None
        kept = self.still_kept(opening, used) or self._source.of(opening.session, opening.universe, used.sessions)
        return kept.as_it_was(used)

    def still_kept(self, opening: Opening[Any], used: HistoryUsed) -> SessionHistory | None:
        """Read that of a session that was opened before, if it is kept on this machine."""
        return self._kept.read(opening.universe, used) if self._kept is not None else None

    def later(self, opening: Opening[Any], used: HistoryUsed) -> SessionHistory | LaterHistory:
        """Give that of a session which goes on from a snapshot; if it is kept, it is read when it is needed.

        Raises
        ------
        HistoryChanged
            If it is not kept and not what it was; if it is lost later, whoever needs it gets that.
        """

        def read() -> SessionHistory:
            history = self.as_used(opening, used) or SessionHistory(opening.universe)
            if history.digest != used.digest:
                raise changed(opening.task, opening.session, used_here(history), used)
            return history

        kept = self._kept if self._source is not None else None
        return (kept and kept.later(opening.universe, used, read)) or read()


def used_here(history: SessionHistory) -> HistoryUsed:
    """Give what features stand on that go on from a history, before any gap."""
    return HistoryUsed(history.sessions, history.digest, today_stored=history.today_digest)


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
        raise changed(task, desk.session, desk.history_used, logged)
    return logged


def changed(task: TaskId, session: Session, here: HistoryUsed, logged: HistoryUsed) -> HistoryChanged:
    """Say how what features stand on here is not what they stood on by the log."""
    days = f"{logged.sessions[0]} to {logged.sessions[-1]}" if logged.sessions else "no session"
    what = "today's stored bars" if here.digest == logged.digest else f"the stored bars of {days}, or the actions,"
    return HistoryChanged(
        f"{task}: {what} changed while the session of {session.date} ran: its features stand on {_short(logged)}, the "
        f"offline store now gives {_short(here)}, and what it gave then is not kept on this machine. Going on would "
        "differ from what was decided before. Bring the bars (and market.corporate_actions) back as they were, or end "
        "the session here: start with an empty Kafka"
    )


def _short(used: HistoryUsed) -> str:
    today = f" and {used.today_digest[:12]} of today" if used.today_until_ns else ""
    broken = ", begun anew behind a gap" if used.broken else ""
    return f"{used.digest[:12]} ({len(used.sessions)} sessions){today}{broken}"
