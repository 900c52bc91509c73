"""What is checked of ticks. A day volume that is none stops the training: bars and features would be made of it."""

from typing import Any, Final

import dagster as dg

from dagster_project.assets.market_data import MARKET_DAY, market_data
from dagster_project.checks.results import WARN, frame_table, nothing_to_look_at, rounded, sessions_of_run
from dagster_project.plots import markdown_table
from dagster_project.resources import OfflineStoreResource

_TICK_SESSIONS: Final = 5  # the newest; a session of ticks is large
_NO_TICKS: Final = "none of these days has ticks"


@dg.asset_check(
    asset=MARKET_DAY,
    additional_deps=[market_data],
    description="Few ticks repeat an instrument's second; many say that a file was joined with itself.",
)
def seconds_are_not_repeated(
    context: dg.AssetCheckExecutionContext, offline: dg.ResourceParam[OfflineStoreResource]
) -> dg.AssetCheckResult:
    """Count repeated seconds in the newest sessions of ticks."""
    from feature_store.bars.quality import duplicate_seconds

    store = offline.store()
    sessions = sessions_of_run(context, store.sessions("ticks"))[-_TICK_SESSIONS:]
    if not sessions:
        return nothing_to_look_at(_NO_TICKS)
    found = [(session.date, duplicate_seconds(store.read_ticks(session))) for session in sessions]
    columns = ("ticks", "repeated", "alike", "share")
    rows = [(date, *(rounded(seen.details[name]) for name in columns)) for date, seen in found]
    failed = [str(date) for date, seen in found if not seen.passed]
    return dg.AssetCheckResult(
        passed=not failed,
        severity=WARN,
        description=f"many repeated seconds on {', '.join(failed)}" if failed else f"{len(found)} sessions of ticks",
        metadata={"sessions": dg.MetadataValue.md(markdown_table(("session", *columns), rows))},
    )


@dg.asset_check(
    asset=MARKET_DAY,
    additional_deps=[market_data],
    blocking=True,
    description="The day volume of ticks only rises, and the bar builder leaves none of them out. A volume that falls "
    "in many ticks is no day volume, and stops the training.",
)
def day_volumes_rise(
    context: dg.AssetCheckExecutionContext, offline: dg.ResourceParam[OfflineStoreResource]
) -> dg.AssetCheckResult:
    """Count what the builder meets in the newest sessions of ticks."""
    import pandas as pd

    from feature_store.bars.tick_quality import builder_counts, falling_volumes

    store = offline.store()
    sessions = sessions_of_run(context, store.sessions("ticks"))[-_TICK_SESSIONS:]
    if not sessions:
        return nothing_to_look_at(_NO_TICKS)
    universe = store.universe()
    counts, falls = [], []
    for session in sessions:
        ticks = store.read_ticks(session)
        counts.append({"session": session.date} | builder_counts(ticks, session, len(universe)))
        falls.append(falling_volumes(ticks, universe).assign(session=session.date))
    counted, falling = pd.DataFrame(counts), pd.concat(falls, ignore_index=True)
    none = falling[falling["no_day_volume"]]
    met = {name: int(n) for name, n in counted.drop(columns=["session", "ticks", "repeated"]).sum().items() if n}
    said = ", ".join(f"{n:,} {str(name).replace('_', ' ')}" for name, n in met.items())
    facts: dict[str, Any] = {"builder": frame_table(counted)}
    if len(falling):
        facts["falling_volumes"] = frame_table(falling.round(4))
    return dg.AssetCheckResult(
        passed=not met,
        severity=dg.AssetCheckSeverity.ERROR if len(none) else WARN,
        description=_no_day_volume(none.iloc[0], none["symbol"].nunique())
        if len(none)
        else f"{int(counted['ticks'].sum()):,} ticks of {len(sessions)} sessions: {said or 'nothing left out'}",
        metadata=facts,
    )


def _no_day_volume(first: Any, instruments: int) -> str:
    others = f" (and of {instruments - 1:,} more instruments)" if instruments > 1 else ""
    return (
        f"the volume of {first['symbol']}{others} falls in {first['falls']:,} of {first['ticks']:,} ticks of "
        f"{first['session']}, so it is no day volume but perhaps the quantity of the last trade: name the column that "
        "counts the day's shares with market.columns (volume = …), or give the ticks a running sum of their quantities"
    )


CHECKS: Final = (seconds_are_not_repeated, day_volumes_rise)
