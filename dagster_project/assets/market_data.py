"""Market data → bars → features → labels, by day, for all strategies of the desk.

A person corrects or backfills days: `market_day`, `bars`, `features` and `labels` are partitioned by day, and a range
of them is one run. Training needs no partition: `market_data` runs the same stages over the whole market and says of
every day what it wrote, so the days of the four assets stand there either way (docs/decisions, 9).
"""

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from dagster_project.desk import Desk
from dagster_project.failures import expected_failures
from dagster_project.market_input import MarketInput
from dagster_project.plots import session_plot
from dagster_project.previews import quarantine_preview
from dagster_project.resources import OfflineStoreResource
from dagster_project.staged_days import StagedDay, bar_days, feature_days, incoming_days, label_days
from feature_store.market.types import IST, MarketDataError
from live_services.machine.research_servers import FINDINGS
from live_services.settings import Settings

if TYPE_CHECKING:
    from feature_store.market.types import Session
    from feature_store.sources.arrivals import Arrival

GROUP: Final = "market"
MARKET_DAY, BARS, FEATURES, LABELS = (dg.AssetKey(name) for name in ("market_day", "bars", "features", "labels"))
_DAY: Final = dt.timedelta(days=1)
_FILES_FIRST_YEAR: Final = 2015


def market_days(settings: Settings, today: dt.date) -> dg.DailyPartitionsDefinition:
    """Give the calendar days of the market, in IST; a day without a session has nothing in it.

    Raises
    ------
    UnverifiedDate
        If the exchange's calendar does not reach as far as a generated market.
    """
    generated = _generated_dates(settings) if settings.market.source == "synthetic" else ()
    first, end = generated[0] if generated else _first_day(settings), generated[-1] + _DAY if generated else None
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


def _generated_dates(settings: Settings) -> tuple[dt.date, ...]:
    """Dates of a generated market's sessions, those of its ticks last; they may well lie in the future."""
    from feature_store.sources.synthetic import market_sessions

    made = settings.market.synthetic.model_dump(include={"first_session", "sessions", "tick_sessions"})
    return tuple(session.date for session in market_sessions(**made))


def _first_day(settings: Settings) -> dt.date:
    """The first day that may have data, without reading any: the code location must load fast."""
    kept = sorted(path.name.removeprefix("session=") for path in settings.store_root.glob("bars/session=*"))
    return dt.date(dt.date.fromisoformat(kept[0]).year if kept else _FILES_FIRST_YEAR, 1, 1)


# --- by day -------------------------------------------------------------------------------------------------------


def daily_assets(settings: Settings, today: dt.date) -> tuple[dg.AssetsDefinition, ...]:
    """Build the four daily-partitioned assets; their days depend on the market that is set, and on what day it is."""
    partitions = market_days(settings, today)
    return (
        _daily_asset(
            MARKET_DAY,
            None,
            partitions,
            "One session as its source has it, by day. market_data brings all of them in; materialise a day or a range "
            "to bring just those in again, for example after their source was corrected. The source is read once for "
            "the whole range, and a day that it no longer has is removed from the store.",
        ),
        _daily_asset(
            BARS,
            MARKET_DAY,
            partitions,
            "Bars of one session on the desk's clock (market.bar_minutes), by day: aggregated from the source's bars, "
            "or built from ticks by the builder that the live feed uses.",
        ),
        _daily_asset(
            FEATURES,
            BARS,
            partitions,
            "Feature rows of one session's bars, by day, by the compiled step that the live strategy runner uses. They "
            "also stand on the bars of the sessions before: after a correction materialise the days that the check "
            "stored_rows_are_fresh names.",
        ),
        _daily_asset(
            LABELS,
            BARS,
            partitions,
            "The forward return of each bar of one session, by day, over as many bars as a strategy holds, for each "
            "strategy.",
        ),
    )


def _daily_asset(
    key: dg.AssetKey, upstream: dg.AssetKey | None, partitions: dg.DailyPartitionsDefinition, description: str
) -> dg.AssetsDefinition:
    @dg.asset(
        key=key,
        deps=[upstream] if upstream else [],
        kinds={"parquet", "numba"} if upstream else {"parquet"},
        description=description,
        group_name=GROUP,
        partitions_def=partitions,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def day(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        offline: dg.ResourceParam[OfflineStoreResource],
    ) -> dg.MaterializeResult[None]:
        desk, days = Desk(offline.store(), settings), _days(context)
        gone: Sequence[dt.date] = ()
        with expected_failures(MarketDataError):
            if upstream is None:
                arrival, done, gone = _store_market(context, desk, days)
                shared = {"market": arrival.name, **quarantine_preview(arrival.quarantine)}
            else:
                done = _run_stage(context, desk, key, set(days))
                shared = {"market": desk.store.market() or "none"}
        _attach(context, days, done, shared, gone)
        return dg.MaterializeResult()

    return day


def _store_market(
    context: dg.AssetExecutionContext,
    desk: Desk,
    days: Sequence[dt.date] | None = None,
    each: Callable[[StagedDay], None] | None = None,
) -> "tuple[Arrival, list[StagedDay], tuple[dt.date, ...]]":
    """Write what the source has of some days or all, and remove what it no longer has."""
    from feature_store.offline.incoming import remove_vanished_sessions, write_quarantined
    from feature_store.sources.findings import left_out

    arrival = desk.read_market(days)
    if days is None and not arrival.sessions:
        told = "; ".join(
            f"{arrival.sources.get(kind, kind)}: {left_out(rows)}"
            for kind, rows in arrival.quarantine.items()
            if len(rows)
        )
        raise MarketDataError(f"no row of the market can be used: {told or 'its files are empty'}")
    done = _followed(context, "raw", arrival.sessions, incoming_days(desk, arrival), each)
    write_quarantined(desk.store, arrival, days)
    return arrival, done, remove_vanished_sessions(desk.store, arrival, days)


def _run_stage(
    context: dg.AssetExecutionContext,
    desk: Desk,
    key: dg.AssetKey,
    days: set[dt.date] | None = None,
    each: Callable[[StagedDay], None] | None = None,
) -> list[StagedDay]:
    """Run the stage that makes an asset, on some days or all."""
    if key == BARS:
        sessions = desk.incoming_sessions(days)
        found = bar_days(desk, sessions)
    else:
        sessions = desk.bar_sessions(days)
        found = feature_days(desk, sessions) if key == FEATURES else label_days(desk, sessions)
    return _followed(context, key.to_user_string(), sessions, found, each)


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


# --- the whole market ---------------------------------------------------------------------------------------------


_NOTHING_FOUND: Final = "nothing was inferred, mended or left out"


@dg.asset(
    group_name=GROUP,
    kinds={"parquet", "numba"},
    description="The whole market in one step without a partition: every session is brought in from its source "
    "(generated, or the files of the run's configuration, else of the settings), put on the desk's clock, and given "
    "its features and labels. Each day is a materialization of market_day, bars, features and labels. Rows that cannot "
    "be used are quarantined with their reason, not lost.",
)
def market_data(
    context: dg.AssetExecutionContext,
    config: MarketInput,
    settings: dg.ResourceParam[Settings],
    offline: dg.ResourceParam[OfflineStoreResource],
) -> dg.MaterializeResult[None]:
    """Bring every session in and run every stage on it."""
    done: dict[dg.AssetKey, list[StagedDay]] = {}
    with expected_failures(MarketDataError):
        desk = Desk(offline.store(), config.over(settings))
        arrival, done[MARKET_DAY], gone = _store_market(context, desk, each=_materialization(context, MARKET_DAY))
        for key in (BARS, FEATURES, LABELS):
            done[key] = _run_stage(context, desk, key, each=_materialization(context, key))
        digest = desk.store.digest(desk.bar_sessions())
        found = _findings(desk, arrival)
    for line in found:
        context.log.info(line)
    return dg.MaterializeResult(
        metadata=_arrival_facts(arrival)
        | {
            FINDINGS: dg.MetadataValue.md("\n".join(f"* {line}" for line in found) or _NOTHING_FOUND),
            "instruments": len(desk.store.universe()),
            "universe_digest": desk.store.universe().digest,
            "sessions_removed": [date.isoformat() for date in gone],
            "dagster/row_count": sum(day.rows for day in done[MARKET_DAY]),
            "bar_clock": str(desk.clock),
            "rows_per_session": _rows_plot(done[BARS]),
            "features": list(desk.schema.names),
            "feature_schema_hash": desk.schema.hash,
            "warm_up_sessions": desk.schema.history_sessions,
            "warm_rows": sum(day.facts["warm_rows"] for day in done[FEATURES]),
            "labels": [label.name for label in desk.labels],
            "digest": digest,
            "offline_store": dg.MetadataValue.path(str(desk.store.root)),
        },
        data_version=dg.DataVersion(digest),
    )


def _materialization(context: dg.AssetExecutionContext, key: dg.AssetKey) -> Callable[[StagedDay], None]:
    def tell(day: StagedDay) -> None:
        context.log_event(dg.AssetMaterialization(key, partition=day.date.isoformat(), metadata=day.facts))

    return tell


def _findings(desk: Desk, arrival: "Arrival") -> list[str]:
    """Say what bringing the market in found out, a sentence each."""
    from feature_store.market.unmatched_names import unmatched_names
    from feature_store.sources.findings import file_findings, instrument_findings, table_findings

    universe = desk.store.universe()
    unmatched = unmatched_names(universe, desk.actions, desk.membership, desk.instruments)
    found = [
        line
        for kind, quarantine in arrival.quarantine.items()
        for line in file_findings(
            kind,
            quarantine,
            recognised=arrival.recognised.get(kind, ()),
            rows_out_of_order=arrival.rows_out_of_order.get(kind, 0),
        )
    ]
    return [*found, *instrument_findings(universe, arrival.without_volume), *table_findings(unmatched)]


def _arrival_facts(arrival: "Arrival") -> dict[str, Any]:
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
