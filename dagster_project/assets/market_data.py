"""Market data → bars → features → labels, and the checks that stop training where it would be wrong."""

import datetime as dt
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from dagster_project.failures import told_to_people
from dagster_project.market import (
    Arrival,
    bar_source_of,
    bring_in,
    first_partition,
    generated_dates,
    keep,
    replayed_session,
    session_bars,
    training_sessions,
)
from dagster_project.plots import column_plot, line_plot
from dagster_project.resources import OfflineStoreResource
from feature_store.clocks import BarClock
from feature_store.market import IST, MarketDataError, ist_text
from live_services.settings import Settings

if TYPE_CHECKING:
    from feature_store.checks import CheckResult
    from feature_store.features import FeatureSchema
    from feature_store.market import Session

GROUP: Final = "market"
MARKET_DAY: Final = "market_day"
_DAY: Final = dt.timedelta(days=1)
_AUDITED_INSTRUMENTS: Final = 20  # indices come first; more take longer and show no more


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


@dg.asset(
    group_name=GROUP,
    kinds={"parquet"},
    description="The whole market, brought in from its source (generated, or the files in the settings) into the "
    "offline store, one file per session. Rows that cannot be used are quarantined with their reason, not lost.",
)
def market_data(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    offline: dg.ResourceParam[OfflineStoreResource],
) -> dg.MaterializeResult[None]:
    """Bring every session in."""
    store = offline.store()
    with told_to_people(MarketDataError):
        arrival = bring_in(settings.market)
        if not arrival.sessions:
            raise MarketDataError(f"no usable row in {arrival.name}; quarantined: {arrival.quarantined}")
        gone = keep(arrival, store, whole=True)
    for session in arrival.sessions:
        context.log_event(
            dg.AssetMaterialization(MARKET_DAY, partition=session.date.isoformat(), metadata=_day(arrival, session))
        )
    rows = [_rows(arrival, session) for session in arrival.sessions]
    return dg.MaterializeResult(
        metadata={
            "market": arrival.name,
            "sessions": len(arrival.sessions),
            "first_session": arrival.sessions[0].date.isoformat(),
            "last_session": arrival.sessions[-1].date.isoformat(),
            "instruments": len(store.universe()),
            "dagster/row_count": sum(bars + ticks for bars, ticks in rows),
            "bars": sum(bars for bars, _ in rows),
            "ticks": sum(ticks for _, ticks in rows),
            "tick_sessions": [session.date.isoformat() for session in arrival.ticks],
            "universe_digest": store.universe().digest,
            "sessions_removed": [date.isoformat() for date in gone],
            "quarantined": arrival.quarantined or "nothing",
            "quarantined_rows": sum(arrival.quarantined.values()),
            "offline_store": dg.MetadataValue.path(str(store.root)),
        }
    )


def market_day_asset(settings: Settings, today: dt.date) -> dg.AssetsDefinition:
    """Build the daily-partitioned asset; its days depend on the market that is set, and on what day it is."""

    @dg.asset(
        name=MARKET_DAY,
        group_name=GROUP,
        kinds={"parquet"},
        partitions_def=market_days(settings, today),
        backfill_policy=dg.BackfillPolicy.single_run(),
        description="One session of the market, by day. market_data fills all of them at once; materialise a day or a "
        "range here to bring just those in again, for example after their source was corrected. A backfill is one run.",
    )
    def market_day(
        context: dg.AssetExecutionContext,
        settings: dg.ResourceParam[Settings],
        offline: dg.ResourceParam[OfflineStoreResource],
    ) -> dg.MaterializeResult[None]:
        days = tuple(context.partition_keys)
        with told_to_people(MarketDataError):
            arrival = bring_in(settings.market, {dt.date.fromisoformat(day) for day in days})
            keep(arrival, offline.store())
        by_day = {session.date.isoformat(): session for session in arrival.sessions}
        for day in days:
            facts = _day(arrival, by_day[day]) if day in by_day else {"market": arrival.name, "session": "no session"}
            context.add_asset_metadata(facts, partition_key=day)
        return dg.MaterializeResult()

    return market_day


def _rows(arrival: Arrival, session: "Session") -> tuple[int, int]:
    bars, ticks = arrival.bars.get(session), arrival.ticks.get(session)
    return len(bars[1]) if bars else 0, len(ticks[1]) if ticks else 0


def _day(arrival: Arrival, session: "Session") -> dict[str, Any]:
    bars, ticks = _rows(arrival, session)
    return {
        "market": arrival.name,
        "session": f"{ist_text(session.open_ns)} to {ist_text(session.close_ns)}",
        "dagster/row_count": bars + ticks,
        "bars": bars,
        "ticks": ticks,
    }


@dg.asset(
    deps=[market_data, dg.AssetKey(MARKET_DAY)],
    group_name=GROUP,
    kinds={"parquet", "numba"},
    description="Bars of every session on the desk's clock (market.bar_minutes): aggregated from the source's bars, or "
    "built from ticks by the builder that the live feed uses.",
)
def bars(
    settings: dg.ResourceParam[Settings], offline: dg.ResourceParam[OfflineStoreResource]
) -> dg.MaterializeResult[None]:
    """Put every session that came in on the desk's clock."""
    from dagster_project.market import source_store

    store = offline.store()
    with told_to_people(MarketDataError):
        name, universe = store.market() or "", store.universe()
        days = {session.date: session for session in (*store.sessions("ticks"), *source_store(store).sessions())}
        rows = []
        for date in sorted(days):
            built = session_bars(store, days[date], settings.market.bar_minutes)
            made_of = bar_source_of(store, days[date])
            clock = BarClock.minutes(settings.market.bar_minutes)
            store.write_bars(days[date], universe, built, name, bar_source=made_of, clock=clock)
            rows.append(len(built))
        gone = store.keep_only("bars", days)
        digest = store.digest(tuple(days.values()))
    return dg.MaterializeResult(
        metadata={
            "market": name,
            "bar_minutes": settings.market.bar_minutes,
            "sessions": len(rows),
            "instruments": len(universe),
            "dagster/row_count": sum(rows),
            "sessions_removed": [date.isoformat() for date in gone],
            "digest": digest,
            "bars_per_session": dg.MetadataValue.md(column_plot(rows[-24:], "Bars per session, the last 24 sessions")),
        },
        data_version=dg.DataVersion(digest),
    )


@dg.asset(
    deps=[bars],
    group_name=GROUP,
    kinds={"parquet", "numba"},
    description="Feature rows of every bar, by the compiled step that the live strategy runner uses.",
)
def features(
    settings: dg.ResourceParam[Settings], offline: dg.ResourceParam[OfflineStoreResource]
) -> dg.MaterializeResult[None]:
    """Compute every declared feature on every session."""
    from feature_store.feature_files import computed

    store, schema = offline.store(), schema_of(settings)
    rows = warm_rows = 0
    with told_to_people(MarketDataError):
        sessions = store.sessions("bars")
        for session, found in zip(sessions, computed(store, sessions, schema), strict=True):
            store.write_features(session, schema, found)
            rows, warm_rows = rows + len(found.bars), warm_rows + int(found.warm.sum())
    return dg.MaterializeResult(
        metadata={
            "market": store.market() or "",
            "features": list(schema.names),
            "feature_schema_hash": schema.hash,
            "bar_clock": schema.bar_clock,
            "warm_up_bars": schema.warm_up,
            "sessions": len(sessions),
            "dagster/row_count": rows,
            "warm_rows": warm_rows,
        }
    )


@dg.asset(
    deps=[features],
    group_name=GROUP,
    kinds={"parquet"},
    io_manager_key="training_frames",
    description="The training set: warm feature rows of the sessions before the replayed one, each with its forward "
    "return over as many bars as the strategy holds.",
)
def labels(
    context: dg.AssetExecutionContext,
    settings: dg.ResourceParam[Settings],
    offline: dg.ResourceParam[OfflineStoreResource],
) -> Any:
    """Label what may be trained on."""
    from feature_store.labels import ForwardReturn

    store, horizon = offline.store(), horizon_bars(settings)
    with told_to_people(MarketDataError):
        sessions = training_sessions(store, settings.market)
        frame = store.training_frame(
            None, sessions[0].date, sessions[-1].date, schema_of(settings), ForwardReturn(horizon)
        )
    replayed = replayed_session(store, settings.market)
    bps = frame.forward_return * 1e4
    context.add_output_metadata(
        {
            "market": frame.market,
            "bar_source": frame.bar_source,
            "rows_left_out": frame.left_out,
            "label": f"forward_return_{horizon}_bars",
            "sessions": len(sessions),
            "first_session": sessions[0].date.isoformat(),
            "last_session": sessions[-1].date.isoformat(),
            "replayed_session": replayed.date.isoformat() if replayed else "none",
            "dagster/row_count": len(frame),
            "up_share": round(float((bps > 0).mean()), 4),
            "mean_bps": round(float(bps.mean()), 3),
            "standard_deviation_bps": round(float(bps.std()), 3),
            "training_data_digest": frame.digest,
            "distribution": dg.MetadataValue.md(_quantiles(bps)),
        }
    )
    return frame


def _quantiles(bps: Any) -> str:
    import numpy as np

    return line_plot(
        np.quantile(bps, np.linspace(0.01, 0.99, 45)).tolist(), "Forward return, basis points, 1 % to 99 % quantile"
    )


def schema_of(settings: Settings) -> "FeatureSchema":
    """Give the schema that is trained, on the desk's clock."""
    from feature_store.features import MOMENTUM_FEATURES, feature_schema

    return feature_schema(MOMENTUM_FEATURES, settings.market.bar_minutes)


def horizon_bars(settings: Settings) -> int:
    """Give the label's horizon: what the strategy that asks the momentum model holds."""
    asking = [strategy for strategy in settings.strategies if strategy.model.startswith("momentum@")]
    return asking[0].holding_bars if asking else 10


# --- checks -------------------------------------------------------------------------------------------------------


@dg.asset_check(
    asset=bars,
    blocking=True,
    description="Prices that can be, in order of time, inside their sessions; else nothing is trained.",
)
def prices_are_sane(offline: dg.ResourceParam[OfflineStoreResource]) -> dg.AssetCheckResult:
    """Check all stored bars."""
    from feature_store.quality import inside_sessions, monotone_times, price_sanity

    store = offline.store()
    sessions = store.sessions("bars")
    table = store.read_bars(sessions)
    return _result(price_sanity(table), monotone_times(table), inside_sessions(table, sessions))


@dg.asset_check(asset=bars, description="Few intervals lack all bars, and each tradable instrument has most of its.")
def sessions_are_covered(
    settings: dg.ResourceParam[Settings], offline: dg.ResourceParam[OfflineStoreResource]
) -> dg.AssetCheckResult:
    """Check coverage; a thin one is a warning, because illiquid instruments make few bars."""
    from feature_store.quality import instrument_coverage, missing_intervals

    store = offline.store()
    sessions, clock = store.sessions("bars"), BarClock.minutes(settings.market.bar_minutes)
    table = store.read_bars(sessions)
    return _result(
        missing_intervals(table, sessions, clock),
        instrument_coverage(table, store.universe(), sessions, clock),
        severity=dg.AssetCheckSeverity.WARN,
    )


@dg.asset_check(
    asset=features,
    blocking=True,
    description="Every guard of feature_store.checks.audit on the newest sessions of some instruments: history equals "
    "live bit for bit, from any origin and across snapshots, and no row knows the future.",
)
def features_pass_audit(
    settings: dg.ResourceParam[Settings], offline: dg.ResourceParam[OfflineStoreResource]
) -> dg.AssetCheckResult:
    """Audit as many sessions as it takes to get warm, and what was stored of the newest."""
    from feature_store import checks

    store, schema = offline.store(), schema_of(settings)
    universe = store.universe()
    sessions = store.sessions("bars")[-schema.history_sessions - 1 :]
    some = store.read_bars(sessions, instruments=[i.symbol for i in universe.instruments[:_AUDITED_INSTRUMENTS]])
    _, rows, warm = store.read_features(sessions[-1], schema)
    return _result(checks.features_pass_audit(some, schema, universe), checks.warm_rows_finite(rows, warm, schema))


@dg.asset_check(
    asset=labels,
    blocking=True,
    description="Labels end after their decision, the same day, before the replayed session opens.",
)
def labels_end_before_replay(
    settings: dg.ResourceParam[Settings], offline: dg.ResourceParam[OfflineStoreResource], labels: Any
) -> dg.AssetCheckResult:
    """Check every label of the training set."""
    from dagster_project.checks import labels_end_in_time

    replayed = replayed_session(offline.store(), settings.market)
    opens = replayed.open_ns if replayed else None
    return _result(labels_end_in_time(labels.decision_ns, labels.label_end_ns, opens))


def _result(
    *results: "CheckResult", severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR
) -> dg.AssetCheckResult:
    failed = [result.name for result in results if not result.passed]
    details = {f"{r.name}.{name}": value for r in results for name, value in r.details.items() if value != ""}
    return dg.AssetCheckResult(
        passed=not failed,
        severity=severity,
        description=f"failed: {', '.join(failed)}" if failed else ", ".join(result.name for result in results),
        metadata={name: round(value, 6) if isinstance(value, float) else value for name, value in details.items()},
    )


CHECKS: Final = (
    prices_are_sane,
    sessions_are_covered,
    features_pass_audit,
    labels_end_before_replay,
)
