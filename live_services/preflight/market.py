"""Checks of the market: the session that is to come, its instruments, the calendar, and history enough to be warm."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence

from feature_store.features.schema import feature_schema
from feature_store.market.calendar import UnverifiedDate, nse_sessions
from feature_store.market.clocks import BarClock
from feature_store.market.types import MarketDataError, Session
from feature_store.offline.store import OfflineStore
from feature_store.sources.dated_tables import read_corporate_actions
from live_services.domain.strategy.checks import WrongStrategy, strategy_schema
from live_services.next_steps import of_home
from live_services.preflight.findings import Finding, ok
from live_services.services.feed_plan import NothingToReplay, chosen_sessions
from live_services.settings import Settings
from models_registry.addresses import without_credentials
from models_registry.specification import by_model


def market_findings(settings: Settings) -> Iterator[Finding]:
    """Look at what the offline store holds for the session that the feed plays next."""
    store = OfflineStore(settings.store_root)
    stored = store.sessions() if settings.store_root.exists() else ()
    if not stored:
        jobs = ", ".join(spec.training_job for spec in by_model(settings.strategies).values()) or "a training job"
        where = (
            without_credentials(settings.dagster.url)
            or f"Dagster (`{of_home(settings.alpha_panda_home)} up` starts one)"
        )
        reason = f"{settings.store_root} has no sessions yet, and the live services would wait for them"
        yield Finding("instruments", "failed", reason, f"Launch {jobs} at {where}: it brings the market in and trains")
        return
    yield from _instruments(store, settings)
    try:
        session = next(iter(chosen_sessions(store.sessions(settings.market.feed), settings.market)), None)
    except NothingToReplay as nothing:
        yield Finding("calendar", "failed", str(nothing), "Correct market.replay_session, or bring that session in")
        return
    if session is None:  # a feed that follows the store waits for the next one
        yield ok("calendar", "the next session is the next one stored")
        session = stored[-1]
    else:
        yield verified(session)
    yield history(settings, session, [one.date for one in stored])


def _instruments(store: OfflineStore, settings: Settings) -> Iterator[Finding]:
    wrong = []
    for strategy in settings.strategies:
        try:
            store.tokens_of(strategy.instruments)
        except MarketDataError as unknown:
            wrong.append(strategy.name)
            way_out = f"Correct the instruments of {strategy.name}, or bring them in"
            yield Finding("instruments", "failed", str(unknown), way_out, strategy=strategy.name)
    tradable = sum(instrument.tradable for instrument in store.universe().instruments)
    if not tradable:
        yield Finding("instruments", "failed", "the store knows no instrument that can be traded", "Bring some in")
    elif not wrong:
        yield ok("instruments", f"{tradable:,} can be traded, and all that strategies name are there")


def verified(session: Session) -> Finding:
    """Compare a session with the exchange's calendar."""
    try:
        known = nse_sessions(session.date, session.date)
    except UnverifiedDate as unverified:
        return Finding("calendar", "warning", str(unverified), "Look its hours up with the exchange", "advice")
    hours = [(one.open_ns, one.close_ns) for one in known]
    if (session.open_ns, session.close_ns) not in hours:
        reason = f"{session.date} is no session of the exchange's calendar with these hours"
        return Finding("calendar", "warning", reason, "Look at the file that it was read from", "advice")
    return ok("calendar", f"the next session is {session.date}, in the exchange's calendar")


def history(settings: Settings, session: Session, stored: Sequence[dt.date]) -> Finding:
    """Compare the sessions stored before one with what the strategies' features look back on."""
    try:
        read_corporate_actions(settings.market.corporate_actions)
        schemas = [strategy_schema(strategy) for strategy in settings.strategies]
    except (MarketDataError, WrongStrategy) as wrong:
        return Finding("history", "failed", str(wrong), "Correct it; see `config show`")
    schemas.append(feature_schema(None, BarClock.minutes(settings.market.bar_minutes)))
    needed, there = max(schema.history_sessions for schema in schemas), sum(date < session.date for date in stored)
    if there >= needed:
        return ok("history", f"{there} sessions are stored before {session.date}, {needed} are looked back on")
    return Finding(
        "history",
        "warning",
        f"{there} of {needed} sessions that features look back on are stored before {session.date}: instruments stay "
        "WARMING, and nothing is opened on them, until the session has made up for it",
        "Bring earlier sessions in",
    )
