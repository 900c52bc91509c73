"""Market data → bars → features → labels, by day, for all strategies of the desk.

A person corrects or backfills days: `market_day`, `bars`, `features` and `labels` are partitioned by day, and a range
of them is one run. Training needs no partition: `market_data` runs the same stages over the whole market and says of
every day what it wrote, so the days of the four assets stand there either way (docs/decisions, 9).
"""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from dagster_project.failures import told_to_people
from dagster_project.market import (
    Arrival,
    bring_in,
    first_partition,
    forget,
    generated_dates,
    keep_quarantine,
)
from dagster_project.plots import session_plot
from dagster_project.previews import quarantine_preview
from dagster_project.resources import OfflineStoreResource
from dagster_project.stages import StagedDay, Stages
from feature_store.market.types import IST, MarketDataError
from live_services.settings import Settings

if TYPE_CHECKING:
    from feature_store.market.types import Session

GROUP: Final = "market"
MARKET_DAY, BARS, FEATURES, LABELS = (dg.AssetKey(name) for name in ("market_day", "bars", "features", "labels"))
_DAY: Final = dt.timedelta(days=1)


def market_days(settings: Settings, today: dt.date) -> dg.DailyPartitionsDefinition:
    """Give the calendar days of the market, in IST; a day without a session has nothing in it."""
    generated = generated_dates(settings.market) if settings.market.source == "synthetic" else ()
    first, end = first_partition(settings.market, settings.store_root), generated[-1] + _DAY if generated else None
    span = (first + k * _DAY for k in range((end - first).days if end is not None else 0))
    return dg.DailyPartitionsDefinition(
        start_date=first.isoformat(),
        end_date=end.isoformat() if end is not None else None,
        timezone="Asia/Kolkata",
        # a day without a session would wait for ever as a missing one
        exclusions=[dt.datetime.combine(day, dt.time(), IST) for day in span if day not in generated] or None,
        # A day counts once it is over, unless it is offset: today's session is wanted today, and a generated market may
        # lie in the future.
        end_offset=1 if end is None else max(1, (end - today).days),
    )


# --- by day -------------------------------------------------------------------------------------------------------


def daily_assets(settings: Settings, today: dt.date) -> tuple[dg.AssetsDefinition, ...]:
    """Build the four daily-partitioned assets; their days depend on the market that is set, and on what day it is."""
    partitions, policy = market_days(settings, today), dg.BackfillPolicy.single_run()

    @dg.asset(
        key=MARKET_DAY,
        kinds={"parquet"},
        description="One session as its source has it, by day. market_data brings all of them in; materialise a day or "
        "a range to bring just those in again, for example after their source was corrected. The source is read once "
        "for the whole range, and a day that it no longer has is removed from the store.",
        group_name=GROUP,
        partitions_def=partitions,
        backfill_policy=policy,
    )
    def market_day(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        offline: dg.ResourceParam[OfflineStoreResource],
    ) -> dg.MaterializeResult[None]:
        stages, days = Stages(offline.store(), settings), _days(context)
        with told_to_people(MarketDataError):
            held = stages.store.universe() if stages.store.market() is not None else None
            arrival = bring_in(settings.market, days, held)
            done = _followed(context, "raw", arrival.sessions, stages.raw(arrival))
            keep_quarantine(arrival, stages.store, days)
            gone = forget(arrival, stages.store, days)
        _attach(context, days, done, {"market": arrival.name, **quarantine_preview(arrival.quarantine)}, gone)
        return dg.MaterializeResult()

    @dg.asset(
        key=BARS,
        deps=[MARKET_DAY],
        kinds={"parquet", "numba"},
        description="Bars of one session on the desk's clock (market.bar_minutes), by day: aggregated from the "
        "source's bars, or built from ticks by the builder that the live feed uses.",
        group_name=GROUP,
        partitions_def=partitions,
        backfill_policy=policy,
    )
    def bars(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        offline: dg.ResourceParam[OfflineStoreResource],
    ) -> dg.MaterializeResult[None]:
        return _daily_stage(context, Stages(offline.store(), settings), "bars")

    @dg.asset(
        key=FEATURES,
        deps=[BARS],
        kinds={"parquet", "numba"},
        description="Feature rows of one session's bars, by day, by the compiled step that the live strategy runner "
        "uses. They also stand on the bars of the sessions before: after a correction materialise the days that the "
        "check stored_rows_are_fresh names.",
        group_name=GROUP,
        partitions_def=partitions,
        backfill_policy=policy,
    )
    def features(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        offline: dg.ResourceParam[OfflineStoreResource],
    ) -> dg.MaterializeResult[None]:
        return _daily_stage(context, Stages(offline.store(), settings), "features")

    @dg.asset(
        key=LABELS,
        deps=[BARS],
        kinds={"parquet", "numba"},
        description="The forward return of each bar of one session, by day, over as many bars as a strategy holds, for "
        "each strategy.",
        group_name=GROUP,
        partitions_def=partitions,
        backfill_policy=policy,
    )
    def labels(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        offline: dg.ResourceParam[OfflineStoreResource],
    ) -> dg.MaterializeResult[None]:
        return _daily_stage(context, Stages(offline.store(), settings), "labels")

    return market_day, bars, features, labels


def _daily_stage(context: dg.AssetExecutionContext, stages: Stages, name: str) -> dg.MaterializeResult[None]:
    days = _days(context)
    with told_to_people(MarketDataError):
        sessions, found = _stage(stages, name, set(days))
        done = _followed(context, name, sessions, found)
    _attach(context, days, done, {"market": stages.store.market() or "none"})
    return dg.MaterializeResult()


def _stage(
    stages: Stages, name: str, days: set[dt.date] | None = None
) -> tuple[tuple["Session", ...], Iterator[StagedDay]]:
    """Give the sessions that a stage works on, of some days or all, and its work, which is done as it is iterated."""
    if name == "bars":
        sessions = stages.raw_sessions(days)
        return sessions, stages.bars(sessions)
    sessions = stages.bar_sessions(days)
    return sessions, (stages.features if name == "features" else stages.labels)(sessions)


def _days(context: dg.AssetExecutionContext) -> tuple[dt.date, ...]:
    return tuple(dt.date.fromisoformat(day) for day in context.partition_keys)


def _followed(
    context: dg.AssetExecutionContext,
    stage: str,
    sessions: Sequence["Session"],
    found: Iterator[StagedDay],
    each: Callable[[StagedDay], None] | None = None,
) -> list[StagedDay]:
    """Run a stage and say in the run's log how far it is."""
    done = []
    for day in found:
        done.append(day)
        context.log.info(f"{stage}: session {len(done)} of {len(sessions)}, {day.date}, {day.rows:,} rows")
        if each is not None:
            each(day)
    return done


def _attach(
    context: dg.AssetExecutionContext,
    days: Sequence[dt.date],
    done: Sequence[StagedDay],
    shared: dict[str, Any],
    gone: Sequence[dt.date] = (),
) -> None:
    """Put its facts on every day's materialization, and a plot of the whole range."""
    facts = {day.date: day.facts for day in done}
    if done:
        shared = shared | {"rows_per_session": _rows_plot(done)}
    for day in days:
        said = "gone from its source, and removed from the store" if day in gone else "no session"
        context.add_asset_metadata(shared | facts.get(day, {"session": said}), partition_key=day.isoformat())


def _rows_plot(done: Sequence[StagedDay]) -> dg.MarkdownMetadataValue:
    span = f"Rows per session, {done[0].date} to {done[-1].date}"
    return dg.MetadataValue.md(session_plot([day.rows for day in done], span))


# --- the whole market ---------------------------------------------------------------------


@dg.asset(
    group_name=GROUP,
    kinds={"parquet", "numba"},
    description="The whole market in one step without a partition: every session is brought in from its source "
    "(generated, or the files in the settings), put on the desk's clock, and given its features and labels. Each day "
    "is a materialization of market_day, bars, features and labels. Rows that cannot be used are quarantined with "
    "their reason, not lost.",
)
def market_data(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    offline: dg.ResourceParam[OfflineStoreResource],
) -> dg.MaterializeResult[None]:
    """Bring every session in and run every stage on it."""
    stages = Stages(offline.store(), settings)
    done: dict[str, list[StagedDay]] = {}
    with told_to_people(MarketDataError):
        arrival = bring_in(settings.market)
        if not arrival.sessions:
            raise MarketDataError(f"no usable row in {arrival.name}; quarantined: {arrival.quarantined}")
        done["raw"] = _followed(context, "raw", arrival.sessions, stages.raw(arrival), _told(context, MARKET_DAY))
        keep_quarantine(arrival, stages.store)
        gone = forget(arrival, stages.store)
        for key in (BARS, FEATURES, LABELS):
            name = key.to_user_string()
            done[name] = _followed(context, name, *_stage(stages, name), _told(context, key))
        digest = stages.store.digest(stages.bar_sessions())
    return dg.MaterializeResult(
        metadata=_arrival_facts(arrival)
        | {
            "instruments": len(stages.store.universe()),
            "universe_digest": stages.store.universe().digest,
            "sessions_removed": [date.isoformat() for date in gone],
            "dagster/row_count": sum(day.rows for day in done["raw"]),
            "bar_clock": str(stages.clock),
            "rows_per_session": _rows_plot(done["bars"]),
            "features": list(stages.schema.names),
            "feature_schema_hash": stages.schema.hash,
            "warm_up_sessions": stages.schema.history_sessions,
            "warm_rows": sum(day.facts["warm_rows"] for day in done["features"]),
            "labels": [label.name for label in stages.every_label],
            "digest": digest,
            "offline_store": dg.MetadataValue.path(str(stages.store.root)),
        },
        data_version=dg.DataVersion(digest),
    )


def _told(context: dg.AssetExecutionContext, key: dg.AssetKey) -> Callable[[StagedDay], None]:
    def tell(day: StagedDay) -> None:
        context.log_event(dg.AssetMaterialization(key, partition=day.date.isoformat(), metadata=day.facts))

    return tell


def _arrival_facts(arrival: Arrival) -> dict[str, Any]:
    return {
        "market": arrival.name,
        "sessions": len(arrival.sessions),
        "first_session": arrival.sessions[0].date.isoformat(),
        "last_session": arrival.sessions[-1].date.isoformat(),
        "bars": sum(len(bars) for _, bars in arrival.bars.values()),
        "ticks": sum(len(ticks) for _, ticks in arrival.ticks.values()),
        "tick_sessions": [session.date.isoformat() for session in arrival.ticks],
        **quarantine_preview(arrival.quarantine),
    }
