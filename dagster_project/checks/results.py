"""What checks of market data share: which days they look at, the bars of these, and how results are shown."""

import base64
import datetime as dt
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from logging import Logger
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from dagster_project.assets.market_data import BARS, market_data
from dagster_project.desk import Desk
from dagster_project.plots import markdown_table
from dagster_project.resources import OfflineStoreResource
from live_services.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from feature_store.market.checks import CheckResult
    from feature_store.market.types import Bars, Session
    from feature_store.offline.store import OfflineStore

WARN: Final = dg.AssetCheckSeverity.WARN
LISTED: Final = 1000
"""Rows of a table, at most; all are counted."""
_FROM, _TO, _ONE = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end", "dagster/partition"


@dataclass(frozen=True)
class CheckedDays:
    """What a check of bars looks at: the sessions of its run that have some, at least one."""

    desk: Desk
    sessions: "tuple[Session, ...]"
    log: Logger
    """Of the run."""

    @property
    def store(self) -> "OfflineStore":
        """The offline store."""
        return self.desk.store

    @property
    def bars(self) -> "Bars":
        """The stored bars of the sessions."""
        return stored_bars(self.store, self.sessions)


def bar_check(
    *, description: str, blocking: bool = False
) -> Callable[[Callable[[CheckedDays], dg.AssetCheckResult]], dg.AssetChecksDefinition]:
    """Make a check of the asset `bars` out of a function of the days that are checked, under the function's name."""

    def decorate(check: Callable[[CheckedDays], dg.AssetCheckResult]) -> dg.AssetChecksDefinition:
        @dg.asset_check(
            asset=BARS,
            name=check.__name__,
            additional_deps=[market_data],
            blocking=blocking,
            description=description,
        )
        def checked(
            context: dg.AssetCheckExecutionContext,
            settings: dg.ResourceParam[Settings],
            offline: dg.ResourceParam[OfflineStoreResource],
        ) -> dg.AssetCheckResult:
            desk = Desk(offline.store(), settings)
            sessions = sessions_of_run(context, desk.bar_sessions())
            return check(CheckedDays(desk, sessions, context.log)) if sessions else no_session_with_bars()

        return checked

    return decorate


def sessions_of_run(context: dg.AssetCheckExecutionContext, sessions: Sequence["Session"]) -> "tuple[Session, ...]":
    """Give those of the sessions that the run is about: its days, or all where it has none."""
    tags = context.op_execution_context.run.tags
    first, last = tags.get(_FROM, tags.get(_ONE, "")), tags.get(_TO, tags.get(_ONE, ""))
    if not first or not last:
        return tuple(sessions)
    return tuple(session for session in sessions if first <= session.date.isoformat() <= last)


def stored_bars(store: "OfflineStore", sessions: Sequence["Session"]) -> "Bars":
    """Read the bars of sessions; the checks of one run read them from disk once."""
    return _read_once(store.root, tuple(session.date for session in sessions), store.digest(sessions))


@lru_cache(maxsize=2)  # the checks of one run ask for the same bars, with and without the session before
def _read_once(root: Path, dates: tuple[dt.date, ...], digest: str) -> "Bars":  # noqa: ARG001
    from feature_store.offline.store import OfflineStore

    return OfflineStore(root).read_bars(dates)


def nothing_to_look_at(why: str) -> dg.AssetCheckResult:
    """Warn that a check saw nothing: it stops no run, and is not green."""
    return dg.AssetCheckResult(passed=False, severity=WARN, description=f"nothing to look at: {why}")


def no_session_with_bars() -> dg.AssetCheckResult:
    """Warn where the days have no session."""
    return nothing_to_look_at("none of these days is a session with bars")


def check_result(
    *results: "CheckResult",
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    more: Mapping[str, Any] | None = None,
) -> dg.AssetCheckResult:
    """Make one result of several: it passes if all do, and shows what each saw, and more; it says why one failed."""
    failed = [_why(result) for result in results if not result.passed]
    details = {f"{r.name}.{name}": value for r in results for name, value in r.details.items() if value != ""}
    return dg.AssetCheckResult(
        passed=not failed,
        severity=severity,
        description=f"failed: {'; '.join(failed)}" if failed else ", ".join(result.name for result in results),
        metadata={**{name: rounded(value) for name, value in details.items()}, **(more or {})},
    )


def _why(result: "CheckResult") -> str:
    """Say what a failed check saw; what it saw none of says nothing."""
    seen = [f"{name.replace('_', ' ')} {rounded(value)}" for name, value in result.details.items() if value]
    return f"{result.name} ({', '.join(seen)})" if seen else f"{result.name} (nothing to look at)"


def rounded(value: Any) -> Any:
    """Round what is shown; metadata takes plain numbers only."""
    return round(value, 6) if isinstance(value, float) else value


def frame_table(frame: "pd.DataFrame") -> dg.MarkdownMetadataValue:
    """Show a data frame as a table."""
    rows: Iterable[Sequence[object]] = frame.head(LISTED).itertuples(index=False)
    return dg.MetadataValue.md(markdown_table(list(map(str, frame.columns)), list(rows)))


def picture(png: bytes) -> dg.MarkdownMetadataValue:
    """Show a picture, behind a link: it is long."""
    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")
