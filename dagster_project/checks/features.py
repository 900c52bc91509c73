"""What is checked of features and labels; see `market_checks` for what blocks and why."""

import datetime as dt
from typing import Final

import dagster as dg

from dagster_project.assets.market_data import FEATURES, market_data
from dagster_project.checks.results import LISTED, WARN, check_result, no_session_with_bars
from dagster_project.desk import Desk
from dagster_project.failures import expected_failures
from dagster_project.plots import markdown_table
from dagster_project.resources import OfflineStoreResource
from feature_store.market.types import MarketDataError
from live_services.settings import Settings

_AUDITED_INSTRUMENTS: Final = 20  # indices come first; more take longer and show no more


@dg.asset_check(
    asset=FEATURES,
    additional_deps=[market_data],
    blocking=True,
    description="Every guard of feature_store.features.audit on the newest sessions of some instruments: history "
    "equals live bit for bit, from any origin and across snapshots, and no row knows the future.",
)
def features_pass_audit(
    settings: dg.ResourceParam[Settings], offline: dg.ResourceParam[OfflineStoreResource]
) -> dg.AssetCheckResult:
    """Audit as many sessions as it takes to get warm, and what was stored of the newest."""
    from feature_store.features import audit as checks
    from feature_store.offline.feature_rows import read_features

    desk = Desk(offline.store(), settings)
    store, schema = desk.store, desk.schema
    sessions = store.sessions("bars")[-schema.history_sessions - 1 :]
    if not sessions:
        return no_session_with_bars()
    with expected_failures(MarketDataError):
        universe = store.universe()
        some = store.read_bars(sessions, instruments=[i.symbol for i in universe.instruments[:_AUDITED_INSTRUMENTS]])
        newest = read_features(store, sessions[-1], schema, actions=desk.actions)
    audited = checks.features_pass_audit(some, schema, universe, actions=desk.actions)
    finite = checks.warm_rows_finite(newest.X, newest.warm, schema)
    if len(sessions) <= schema.history_sessions and not audited.details["first"] and finite.passed:
        # nothing is wrong, but a guard may have had nothing to compare, and nothing can be trained on yet
        return dg.AssetCheckResult(
            passed=audited.passed,
            severity=WARN,
            description=f"{len(sessions)} sessions: a full audit needs {schema.history_sessions + 1}, to get warm",
        )
    return check_result(audited, finite)


@dg.asset_check(
    asset=FEATURES,
    additional_deps=[market_data],
    description="Stored features and labels stand on the bars, the features and the corporate actions of now. Training "
    "computes stale ones anew; people and notebooks that read them do not.",
)
def stored_rows_are_fresh(
    settings: dg.ResourceParam[Settings], offline: dg.ResourceParam[OfflineStoreResource]
) -> dg.AssetCheckResult:
    """Name the days whose features or labels are missing or older than what they stand on."""
    from feature_store.offline.feature_rows import MissingFeatures, StaleFeatures, fresh_schema
    from feature_store.offline.label_rows import StaleLabels, refuse_stale

    desk = Desk(offline.store(), settings)
    sessions = desk.bar_sessions()
    if not sessions:
        return no_session_with_bars()
    stale: list[tuple[dt.date, str]] = []
    for session in sessions:
        try:
            fresh_schema(desk.store, session, desk.schema, desk.actions)
            for label in desk.labels:
                refuse_stale(desk.store, session, label)
        except (MissingFeatures, StaleFeatures, StaleLabels) as old:
            stale.append((session.date, str(old)))
    return dg.AssetCheckResult(
        passed=not stale,
        severity=WARN,
        description=f"{len(stale)} of {len(sessions)} days, {stale[0][0]} to {stale[-1][0]}: materialise features and "
        "labels of these days"
        if stale
        else f"{len(sessions)} sessions",
        metadata={"days": dg.MetadataValue.md(markdown_table(("day", "why"), stale[:LISTED]))} if stale else {},
    )


CHECKS: Final = (features_pass_audit, stored_rows_are_fresh)
