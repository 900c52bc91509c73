"""What is checked of bars, and what stops the training; see `ticks` for what is checked of ticks.

A check looks at the days of its run, or at the whole market where the run has no days (as in a training).
Blocking are the checks whose failure would make a model wrong: impossible prices, a jump that looks like an unadjusted
split, features that know the future, labels that reach into the replayed session. What a real market does too (outages,
thin instruments, prices that stand still at a circuit limit) is a warning, listed in full.
"""

from collections.abc import Sequence
from typing import Any, Final

import dagster as dg

from dagster_project.assets.market_data import BARS, market_data
from dagster_project.checks.results import (
    WARN,
    CheckedDays,
    bar_check,
    check_result,
    frame_table,
    nothing_to_look_at,
    picture,
    sessions_of_run,
    stored_bars,
)
from dagster_project.desk import Desk
from dagster_project.failures import expected_failures
from dagster_project.plots import heat_map, markdown_table, session_plot
from dagster_project.resources import OfflineStoreResource
from feature_store.market.types import MarketDataError
from live_services.settings import Settings

_TICK_SESSIONS: Final = 5  # the newest; a session of ticks is large
_NAMED: Final = 3
_COMPARED: Final = 20  # sessions before the ones that are checked
_FEW_SESSIONS: Final = 3


# --- bars ---------------------------------------------------------------------------------------------------------


@bar_check(
    blocking=True,
    description="Prices that can be, in order of time, inside their sessions; else nothing is trained.",
)
def prices_are_sane(days: CheckedDays) -> dg.AssetCheckResult:
    """Check the stored bars row by row."""
    from feature_store.bars.quality import inside_sessions, monotone_times, price_sanity

    table = days.bars
    return check_result(price_sanity(table), monotone_times(table), inside_sessions(table, days.sessions))


@bar_check(
    blocking=True,
    description="No open is far from the previous close (market.unexplained_jump) unless a corporate action explains "
    "it: an unadjusted split would be learnt as a crash. Stops the training, unless market.allow_unexplained_jumps.",
)
def splits_are_explained(days: CheckedDays) -> dg.AssetCheckResult:
    """List the jumps between sessions that no action explains."""
    from feature_store.market.corporate_actions import suspected_splits

    desk, market = days.desk, days.desk.settings.market
    before = [session for session in desk.bar_sessions() if session.date < days.sessions[0].date][-1:]
    with expected_failures(MarketDataError):
        table = stored_bars(desk.store, [*before, *days.sessions])
        suspects = suspected_splits(table, desk.store.universe(), desk.actions, market.unexplained_jump)
    facts: dict[str, Any] = {"suspects": len(suspects), "jump": market.unexplained_jump, "actions": len(desk.actions)}
    if len(suspects):
        shown = suspects[["symbol", "date", "previous_close", "open", "ratio", "simple_ratio", "factor"]]
        facts["list"] = frame_table(shown.round(4))
    first = _first([f"{row.symbol} on {row.date} ({_jump(row)})" for row in suspects.itertuples()])
    way_out = (
        "name a file with their actions (split, bonus, demerger, …) in market.corporate_actions, or, if the moves were "
        "real, set market.allow_unexplained_jumps"
    )
    return dg.AssetCheckResult(
        passed=suspects.empty,
        severity=WARN if market.allow_unexplained_jumps else dg.AssetCheckSeverity.ERROR,
        description="every jump is explained"
        if suspects.empty
        else f"{_counted(len(suspects), 'jump')}: {first}; {way_out}",
        metadata=facts,
    )


@bar_check(
    description="Every session of the exchange's calendar between the first day and the last has bars.",
)
def no_session_is_missing(days: CheckedDays) -> dg.AssetCheckResult:
    """Compare the stored sessions with the calendar."""
    from feature_store.bars.quality import missing_sessions
    from feature_store.market.calendar import UnverifiedDate, nse_sessions

    try:
        calendar = nse_sessions(days.sessions[0].date, days.sessions[-1].date)
    except UnverifiedDate as unverified:
        return dg.AssetCheckResult(passed=False, severity=WARN, description=f"not checked: {unverified}")
    held = {session.date for session in days.sessions}
    missing = [str(session.date) for session in calendar if session.date not in held]
    found = missing_sessions(days.bars, calendar)
    return check_result(found, severity=WARN, more={"missing_dates": missing} if missing else {})


@bar_check(
    description="No interval lacks the bars of half the market. Every outage is listed, in the check and in the log.",
)
def outages_are_listed(days: CheckedDays) -> dg.AssetCheckResult:
    """List every outage."""
    from feature_store.bars.quality import outages

    sessions = days.sessions
    found = outages(days.bars, sessions, days.desk.clock, days.store.universe())
    said = [
        f"{row.date} {row.start} to {row.end}: {row.missing} of {row.expected} instruments without a bar"
        for row in found.itertuples()
    ]
    for outage, symbols in zip(said, found["symbols"], strict=True):
        days.log.warning(f"outage {outage} ({', '.join(symbols)})")
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
        listed = found[["date", "start", "end", "intervals", "missing", "expected"]]
        facts["list"] = frame_table(listed.assign(symbols=found["symbols"].map(", ".join)))
        facts["plot"] = dg.MetadataValue.md(
            session_plot(per_session, f"Intervals in outages per session; most: {worst[0]} on {worst[1].date}")
        )
    return dg.AssetCheckResult(
        passed=found.empty,
        severity=WARN,
        description=f"{_counted(len(found), 'outage')} in {len(lost)} of {len(sessions)} sessions: {_first(said)}"
        if len(found)
        else f"{len(sessions)} sessions without an outage",
        metadata=facts,
    )


@bar_check(
    description="No session has far fewer instruments or bars than is usual: a part of a file or of a feed may be "
    "missing.",
)
def no_day_is_thin(days: CheckedDays) -> dg.AssetCheckResult:
    """Compare each session with the median of these and the ones before."""
    from feature_store.bars.quality import thin_days

    before = [session for session in days.desk.bar_sessions() if session.date < days.sessions[0].date][-_COMPARED:]
    compared = [*before, *days.sessions]
    if len(compared) < _FEW_SESSIONS:
        return nothing_to_look_at(f"{_counted(len(compared), 'session')}; a usual one shows in {_FEW_SESSIONS} or more")
    found = thin_days(stored_bars(days.store, compared), compared, days.desk.clock)
    found = found[found["date"].isin([session.date for session in days.sessions])]
    said = [
        f"{row.date} ({row.instruments:,} of {row.usual_instruments:,.0f} instruments, {row.bars:,} of "
        f"{row.usual_bars:,.0f} bars)"
        for row in found.itertuples()
    ]
    return dg.AssetCheckResult(
        passed=found.empty,
        severity=WARN,
        description=f"{_counted(len(said), 'thin day')}: {_first(said)}" if said else f"{len(days.sessions)} sessions",
        metadata={"list": frame_table(found)} if said else {},
    )


@bar_check(
    description="Few intervals lack all bars, and each tradable instrument has most of its; with a map by instrument "
    "and session.",
)
def sessions_are_covered(days: CheckedDays) -> dg.AssetCheckResult:
    """Check coverage; a thin one is a warning, because illiquid instruments make few bars."""
    from feature_store.bars.quality import coverage, instrument_coverage, missing_intervals

    sessions, table, universe, clock = days.sessions, days.bars, days.store.universe(), days.desk.clock
    shares = coverage(table, sessions, clock, universe)
    thinnest = shares.mean(axis=1).sort_values().head(10)
    span = f"{sessions[0].date} to {sessions[-1].date}"
    rows = dict(zip(map(str, shares.index), shares.to_numpy().tolist(), strict=True))
    listed = [(symbol, f"{share:.1%}") for symbol, share in thinnest.items()]
    return check_result(
        missing_intervals(table, sessions, clock),
        instrument_coverage(table, universe, sessions, clock),
        severity=WARN,
        more={
            "map": dg.MetadataValue.md(heat_map(rows, f"Share of intervals with a bar, by session, {span}")),
            "thinnest": dg.MetadataValue.md(markdown_table(("symbol", "covered"), listed)),
        },
    )


@bar_check(
    description="No close stands still for long, and no return is far outside what its instrument does. A warning: a "
    "circuit limit stands still, and news jumps.",
)
def prices_move_as_prices_do(days: CheckedDays) -> dg.AssetCheckResult:
    """Look for frozen prices and for wrong prints."""
    from feature_store.bars.quality import outliers, stale_prices

    table, universe = days.bars, days.store.universe()
    return check_result(stale_prices(table, universe), outliers(table, universe), severity=WARN)


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
    from feature_store.bars.builder import bars_of_session
    from feature_store.bars.comparison import compare_bars, comparison_plot
    from feature_store.market.types import Bars
    from feature_store.offline.incoming import source_store, vendor_bars

    desk = Desk(offline.store(), settings)
    held = set(source_store(desk.store).dates("bars"))
    both = [s for s in sessions_of_run(context, desk.store.sessions("ticks")) if s.date in held][-_TICK_SESSIONS:]
    if not both:
        return nothing_to_look_at("no session has both ticks and a vendor's bars")
    universe = desk.store.universe()
    with expected_failures(MarketDataError):
        vendor = [vendor_bars(desk.store, session, desk.clock) for session in both]
        built = [bars_of_session(desk.store.read_ticks(s), s, len(universe), desk.clock) for s in both]
        found = compare_bars(Bars.concatenate(built), Bars.concatenate(vendor), universe)
    facts: dict[str, Any] = {
        "sessions": [str(session.date) for session in both],
        "compared": found.compared_bars,
        "only_vendor": found.only_vendor,
        "only_built": found.only_built,
        "differing": found.differing or "nothing",
    }
    if not found.passed:
        facts["first_differences"] = frame_table(found.table())
        facts["plot"] = picture(comparison_plot(found))
    return dg.AssetCheckResult(passed=found.passed, severity=WARN, description=found.summary(), metadata=facts)


def _jump(row: Any) -> str:
    """Say what may explain a jump between sessions."""
    if row.simple_ratio:
        return f"near {row.simple_ratio}, as of a split, a bonus or a demerger"
    moved = f"{row.previous_close:g} to {row.open:g}"
    if row.factor != 1:
        return f"{moved} with an action of factor {row.factor:g}: perhaps the prices are adjusted for it already"
    return f"{moved}, no plain ratio of a split or a bonus: a demerger may explain it"


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


def _first(said: Sequence[str]) -> str:
    """Name the first few; the check's metadata lists all."""
    more = len(said) - _NAMED
    return "; ".join(said[:_NAMED]) + (f"; and {more:,} more" if more > 0 else "")


CHECKS: Final = (
    prices_are_sane,
    splits_are_explained,
    no_session_is_missing,
    outages_are_listed,
    no_day_is_thin,
    sessions_are_covered,
    prices_move_as_prices_do,
    bars_of_ticks_equal_the_vendors,
)
