"""What is checked of market data, bars and features, and what stops the training.

A check looks at the days of its run, or at the whole market where the run has no days (as in `train_momentum`).
Blocking are the checks whose failure would make a model wrong: impossible prices, a jump that looks like an unadjusted
split, features that know the future, labels that reach into the replayed session. What a real market does too (outages,
thin instruments, prices that stand still at a circuit limit) is a warning, listed in full.
"""

import datetime as dt
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import dagster as dg

from dagster_project.assets.market_data import BARS, FEATURES, MARKET_DAY, market_data, training_set
from dagster_project.failures import told_to_people
from dagster_project.market import replayed_session, source_store, vendor_bars
from dagster_project.plots import column_plot, heat_map, markdown_table
from dagster_project.resources import OfflineStoreResource
from dagster_project.stages import Stages
from feature_store.market import MarketDataError
from live_services.settings import Settings

if TYPE_CHECKING:
    import pandas as pd

    from feature_store.checks import CheckResult
    from feature_store.market import Bars, Session
    from feature_store.offline import OfflineStore

_AUDITED_INSTRUMENTS: Final = 20  # indices come first; more take longer and show no more
_TICK_SESSIONS: Final = 5  # the newest; a session of ticks is large
_LISTED: Final = 1000
_WARN: Final = dg.AssetCheckSeverity.WARN
_FROM, _TO, _ONE = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end", "dagster/partition"


# --- ticks --------------------------------------------------------------------------------------------------------


@dg.asset_check(
    asset=MARKET_DAY,
    additional_deps=[market_data],
    description="Few ticks repeat an instrument's second; many say that a file was joined with itself.",
)
def seconds_are_not_repeated(
    context: dg.AssetCheckExecutionContext, offline: dg.ResourceParam[OfflineStoreResource]
) -> dg.AssetCheckResult:
    """Count repeated seconds in the newest sessions of ticks."""
    from feature_store.quality import duplicate_seconds

    store = offline.store()
    sessions = _looked_at(context, store.sessions("ticks"))[-_TICK_SESSIONS:]
    found = [(session.date, duplicate_seconds(store.read_ticks(session))) for session in sessions]
    columns = ("ticks", "repeated", "alike", "share")
    rows = [(date, *(_rounded(seen.details[name]) for name in columns)) for date, seen in found]
    failed = [str(date) for date, seen in found if not seen.passed]
    return dg.AssetCheckResult(
        passed=not failed,
        severity=_WARN,
        description=f"many repeated seconds on {', '.join(failed)}" if failed else f"{len(found)} sessions of ticks",
        metadata={"sessions": dg.MetadataValue.md(markdown_table(("session", *columns), rows))} if rows else {},
    )


# --- bars ---------------------------------------------------------------------------------------------------------


@dg.asset_check(
    asset=BARS,
    additional_deps=[market_data],
    blocking=True,
    description="Prices that can be, in order of time, inside their sessions; else nothing is trained.",
)
def prices_are_sane(
    context: dg.AssetCheckExecutionContext, offline: dg.ResourceParam[OfflineStoreResource]
) -> dg.AssetCheckResult:
    """Check the stored bars row by row."""
    from feature_store.quality import inside_sessions, monotone_times, price_sanity

    store = offline.store()
    sessions = _looked_at(context, store.sessions("bars"))
    if not sessions:
        return _nothing()
    table = _bars(store, sessions)
    return _result(price_sanity(table), monotone_times(table), inside_sessions(table, sessions))


@dg.asset_check(
    asset=BARS,
    additional_deps=[market_data],
    blocking=True,
    description="No open is far from the previous close (market.unexplained_jump) unless a corporate action explains "
    "it: an unadjusted split would be learnt as a crash. Stops the training, unless market.allow_unexplained_jumps.",
)
def splits_are_explained(
    context: dg.AssetCheckExecutionContext,
    settings: dg.ResourceParam[Settings],
    offline: dg.ResourceParam[OfflineStoreResource],
) -> dg.AssetCheckResult:
    """List the jumps between sessions that no action explains."""
    from feature_store.corporate_actions import suspected_splits

    stages, market = Stages(offline.store(), settings), settings.market
    every = stages.bar_sessions()
    sessions = _looked_at(context, every)
    if not sessions:
        return _nothing()
    before = [session for session in every if session.date < sessions[0].date][-1:]
    with told_to_people(MarketDataError):
        table = _bars(stages.store, [*before, *sessions])
        suspects = suspected_splits(table, stages.store.universe(), stages.actions, market.unexplained_jump)
    facts: dict[str, Any] = {"suspects": len(suspects), "jump": market.unexplained_jump, "actions": len(stages.actions)}
    if len(suspects):
        shown = suspects[["symbol", "date", "previous_close", "open", "ratio", "simple_ratio", "factor"]]
        facts["list"] = _frame_table(shown.round(4))
    first = ", ".join(f"{row.symbol} on {row.date} ({row.simple_ratio})" for row in suspects.head(5).itertuples())
    way_out = (
        "name a file with their actions in market.corporate_actions, or, if the moves were real, set "
        "market.allow_unexplained_jumps"
    )
    return dg.AssetCheckResult(
        passed=suspects.empty,
        severity=_WARN if market.allow_unexplained_jumps else dg.AssetCheckSeverity.ERROR,
        description="every jump is explained" if suspects.empty else f"{len(suspects)} jumps: {first}; {way_out}",
        metadata=facts,
    )


@dg.asset_check(
    asset=BARS,
    additional_deps=[market_data],
    description="Every session of the exchange's calendar between the first day and the last has bars.",
)
def no_session_is_missing(
    context: dg.AssetCheckExecutionContext, offline: dg.ResourceParam[OfflineStoreResource]
) -> dg.AssetCheckResult:
    """Compare the stored sessions with the calendar."""
    from feature_store.calendar import UnverifiedDate, nse_sessions
    from feature_store.quality import missing_sessions

    store = offline.store()
    stored = _looked_at(context, store.sessions("bars"))
    if not stored:
        return _nothing()
    try:
        calendar = nse_sessions(stored[0].date, stored[-1].date)
    except UnverifiedDate as unverified:
        return dg.AssetCheckResult(passed=False, severity=_WARN, description=f"not checked: {unverified}")
    held = {session.date for session in stored}
    missing = [str(session.date) for session in calendar if session.date not in held]
    found = missing_sessions(_bars(store, stored), calendar)
    return _result(found, severity=_WARN, more={"missing_dates": missing} if missing else {})


@dg.asset_check(
    asset=BARS,
    additional_deps=[market_data],
    description="No interval lacks the bars of half the market. Every outage is listed, in the check and in the log.",
)
def outages_are_listed(
    context: dg.AssetCheckExecutionContext,
    settings: dg.ResourceParam[Settings],
    offline: dg.ResourceParam[OfflineStoreResource],
) -> dg.AssetCheckResult:
    """List every outage."""
    from feature_store.quality import outages

    stages = Stages(offline.store(), settings)
    sessions = _looked_at(context, stages.bar_sessions())
    if not sessions:
        return _nothing()
    found = outages(_bars(stages.store, sessions), sessions, stages.clock, stages.store.universe())
    for row in found.itertuples():
        context.log.warning(
            f"outage {row.date} {row.start} to {row.end}: {row.missing} of {row.expected} instruments without a bar"
        )
    lost = found.groupby("date")["intervals"].sum()
    per_session = [int(lost.get(session.date, 0)) for session in sessions]
    facts: dict[str, Any] = {
        "outages": len(found),
        "sessions_with_outages": len(lost),
        "intervals": int(found["intervals"].sum()),
        "whole_market": int(found["whole_market"].sum()),
    }
    if len(found):
        worst = max(zip(per_session, sessions, strict=True), key=lambda pair: pair[0])
        facts["list"] = _frame_table(found[["date", "start", "end", "intervals", "missing", "expected"]])
        facts["plot"] = dg.MetadataValue.md(
            column_plot(per_session[-24:], f"Intervals in outages per session; most: {worst[0]} on {worst[1].date}")
        )
    return dg.AssetCheckResult(
        passed=found.empty,
        severity=_WARN,
        description=f"{len(found)} outages in {len(lost)} of {len(sessions)} sessions"
        if len(found)
        else f"{len(sessions)} sessions without an outage",
        metadata=facts,
    )


@dg.asset_check(
    asset=BARS,
    additional_deps=[market_data],
    description="Few intervals lack all bars, and each tradable instrument has most of its; with a map by instrument "
    "and session.",
)
def sessions_are_covered(
    context: dg.AssetCheckExecutionContext,
    settings: dg.ResourceParam[Settings],
    offline: dg.ResourceParam[OfflineStoreResource],
) -> dg.AssetCheckResult:
    """Check coverage; a thin one is a warning, because illiquid instruments make few bars."""
    from feature_store.quality import coverage, instrument_coverage, missing_intervals

    stages = Stages(offline.store(), settings)
    sessions = _looked_at(context, stages.bar_sessions())
    if not sessions:
        return _nothing()
    table, universe, clock = _bars(stages.store, sessions), stages.store.universe(), stages.clock
    shares = coverage(table, sessions, clock, universe)
    thinnest = shares.mean(axis=1).sort_values().head(10)
    span = f"{sessions[0].date} to {sessions[-1].date}"
    rows = dict(zip(map(str, shares.index), shares.to_numpy().tolist(), strict=True))
    listed = [(symbol, f"{share:.1%}") for symbol, share in thinnest.items()]
    return _result(
        missing_intervals(table, sessions, clock),
        instrument_coverage(table, universe, sessions, clock),
        severity=_WARN,
        more={
            "map": dg.MetadataValue.md(heat_map(rows, f"Share of intervals with a bar, by session, {span}")),
            "thinnest": dg.MetadataValue.md(markdown_table(("symbol", "covered"), listed)),
        },
    )


@dg.asset_check(
    asset=BARS,
    additional_deps=[market_data],
    description="No close stands still for long, and no return is far outside what its instrument does. A warning: a "
    "circuit limit stands still, and news jumps.",
)
def prices_move_as_prices_do(
    context: dg.AssetCheckExecutionContext, offline: dg.ResourceParam[OfflineStoreResource]
) -> dg.AssetCheckResult:
    """Look for frozen prices and for wrong prints."""
    from feature_store.quality import outliers, stale_prices

    store = offline.store()
    sessions = _looked_at(context, store.sessions("bars"))
    if not sessions:
        return _nothing()
    table, universe = _bars(store, sessions), store.universe()
    return _result(stale_prices(table, universe), outliers(table, universe), severity=_WARN)


@dg.asset_check(
    asset=BARS,
    additional_deps=[market_data],
    description="Where a session has both, the bars that our builder makes of its ticks equal the vendor's exactly.",
)
def bars_of_ticks_equal_the_vendors(
    context: dg.AssetCheckExecutionContext,
    settings: dg.ResourceParam[Settings],
    offline: dg.ResourceParam[OfflineStoreResource],
) -> dg.AssetCheckResult:
    """Build the bars of the newest tick sessions that have a vendor's bars too, and compare."""
    from feature_store.bar_comparison import compare_bars, comparison_plot
    from feature_store.bars import bars_of_session
    from feature_store.market import Bars

    stages = Stages(offline.store(), settings)
    held = set(source_store(stages.store).dates("bars"))
    both = [s for s in _looked_at(context, stages.store.sessions("ticks")) if s.date in held][-_TICK_SESSIONS:]
    if not both:
        return dg.AssetCheckResult(passed=True, description="no session has both ticks and a vendor's bars")
    universe = stages.store.universe()
    with told_to_people(MarketDataError):
        vendor = [vendor_bars(stages.store, session, settings.market.bar_minutes) for session in both]
        built = [bars_of_session(stages.store.read_ticks(s), s, len(universe), stages.clock) for s in both]
        found = compare_bars(Bars.concatenate(built), Bars.concatenate(vendor), universe)
    facts: dict[str, Any] = {
        "sessions": [str(session.date) for session in both],
        "compared": found.compared_bars,
        "only_vendor": found.only_vendor,
        "only_built": found.only_built,
        "differing": found.differing or "nothing",
    }
    if not found.passed:
        facts["first_differences"] = _frame_table(found.table())
        facts["plot"] = _picture(comparison_plot(found))
    return dg.AssetCheckResult(passed=found.passed, severity=_WARN, description=found.summary(), metadata=facts)


# --- features and labels ------------------------------------------------------------------------------------------


@dg.asset_check(
    asset=FEATURES,
    additional_deps=[market_data],
    blocking=True,
    description="Every guard of feature_store.checks.audit on the newest sessions of some instruments: history equals "
    "live bit for bit, from any origin and across snapshots, and no row knows the future.",
)
def features_pass_audit(
    settings: dg.ResourceParam[Settings], offline: dg.ResourceParam[OfflineStoreResource]
) -> dg.AssetCheckResult:
    """Audit as many sessions as it takes to get warm, and what was stored of the newest."""
    from feature_store import checks

    stages = Stages(offline.store(), settings)
    store, schema = stages.store, stages.schema
    sessions = store.sessions("bars")[-schema.history_sessions - 1 :]
    if not sessions:
        return _nothing()
    with told_to_people(MarketDataError):
        universe = store.universe()
        some = store.read_bars(sessions, instruments=[i.symbol for i in universe.instruments[:_AUDITED_INSTRUMENTS]])
        newest = store.read_features(sessions[-1], schema, actions=stages.actions)
    audited = checks.features_pass_audit(some, schema, universe)
    finite = checks.warm_rows_finite(newest.X, newest.warm, schema)
    if len(sessions) <= schema.history_sessions and not audited.details["first"] and finite.passed:
        # nothing is wrong, but a guard may have had nothing to compare, and nothing can be trained on yet
        return dg.AssetCheckResult(
            passed=audited.passed,
            severity=_WARN,
            description=f"{len(sessions)} sessions: a full audit needs {schema.history_sessions + 1}, to get warm",
        )
    return _result(audited, finite)


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
    from feature_store.feature_files import MissingFeatures, StaleFeatures, refuse_missing_or_stale
    from feature_store.label_files import StaleLabels, refuse_stale

    stages = Stages(offline.store(), settings)
    sessions = stages.bar_sessions()
    stale: list[tuple[dt.date, str]] = []
    for session in sessions:
        try:
            refuse_missing_or_stale(stages.store, session, stages.schema, stages.actions)
            refuse_stale(stages.store, session, stages.label)
        except (MissingFeatures, StaleFeatures, StaleLabels) as old:
            stale.append((session.date, str(old)))
    return dg.AssetCheckResult(
        passed=not stale,
        severity=_WARN,
        description=f"{len(stale)} of {len(sessions)} days, {stale[0][0]} to {stale[-1][0]}: materialise features and "
        "labels of these days"
        if stale
        else f"{len(sessions)} sessions",
        metadata={"days": dg.MetadataValue.md(markdown_table(("day", "why"), stale[:_LISTED]))} if stale else {},
    )


@dg.asset_check(
    asset=training_set,
    blocking=True,
    description="Labels end after their decision, the same day, before the replayed session opens.",
)
def labels_end_before_replay(
    settings: dg.ResourceParam[Settings], offline: dg.ResourceParam[OfflineStoreResource], training_set: Any
) -> dg.AssetCheckResult:
    """Check every label of the training set."""
    from dagster_project.checks import labels_end_in_time

    replayed = replayed_session(offline.store(), settings.market)
    opens = replayed.open_ns if replayed else None
    return _result(labels_end_in_time(training_set.decision_ns, training_set.label_end_ns, opens))


# --- what they share ----------------------------------------------------------------------------------------------


def _looked_at(context: dg.AssetCheckExecutionContext, sessions: Sequence["Session"]) -> "tuple[Session, ...]":
    """Give those of the sessions that the run is about: its days, or all where it has none."""
    tags = context.op_execution_context.run.tags
    first, last = tags.get(_FROM, tags.get(_ONE, "")), tags.get(_TO, tags.get(_ONE, ""))
    if not first or not last:
        return tuple(sessions)
    return tuple(session for session in sessions if first <= session.date.isoformat() <= last)


def _bars(store: "OfflineStore", sessions: Sequence["Session"]) -> "Bars":
    return _read_once(store.root, tuple(session.date for session in sessions), store.digest(sessions))


@lru_cache(maxsize=2)  # the checks of one run ask for the same bars, with and without the session before
def _read_once(root: Path, dates: tuple[dt.date, ...], digest: str) -> "Bars":  # noqa: ARG001
    from feature_store.offline import OfflineStore

    return OfflineStore(root).read_bars(dates)


def _nothing() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True, description="none of these days is a session with bars")


def _result(
    *results: "CheckResult",
    severity: dg.AssetCheckSeverity = dg.AssetCheckSeverity.ERROR,
    more: Mapping[str, Any] | None = None,
) -> dg.AssetCheckResult:
    failed = [result.name for result in results if not result.passed]
    details = {f"{r.name}.{name}": value for r in results for name, value in r.details.items() if value != ""}
    return dg.AssetCheckResult(
        passed=not failed,
        severity=severity,
        description=f"failed: {', '.join(failed)}" if failed else ", ".join(result.name for result in results),
        metadata={**{name: _rounded(value) for name, value in details.items()}, **(more or {})},
    )


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value


def _frame_table(frame: "pd.DataFrame") -> dg.MarkdownMetadataValue:
    rows: Iterable[Sequence[object]] = frame.head(_LISTED).itertuples(index=False)
    return dg.MetadataValue.md(markdown_table(list(map(str, frame.columns)), list(rows)))


def _picture(png: bytes) -> dg.MarkdownMetadataValue:
    import base64

    return dg.MetadataValue.md(f"![plot](data:image/png;base64,{base64.b64encode(png).decode()})")


CHECKS: Final = (
    seconds_are_not_repeated,
    prices_are_sane,
    splits_are_explained,
    no_session_is_missing,
    outages_are_listed,
    sessions_are_covered,
    prices_move_as_prices_do,
    bars_of_ticks_equal_the_vendors,
    features_pass_audit,
    stored_rows_are_fresh,
    labels_end_before_replay,
)
