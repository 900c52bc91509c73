"""The stages of market data, a session after the other: source → raw → bars → features → labels, each into the store.

The daily assets run one stage for the days that a person chose; `market_data` runs all of them for the whole market.
Both go through these functions, so a day is the same whichever way it came.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from dagster_project.market import Arrival, bar_source_of, keep_session, session_bars, source_store
from dagster_project.previews import bars_preview, feature_quantiles, label_quantiles, ticks_preview
from feature_store.market.clocks import BarClock
from feature_store.market.types import MarketDataError, Session, ist_text
from live_services.settings import Settings

if TYPE_CHECKING:
    from feature_store.features.engine import FeatureSchema
    from feature_store.labels.forward_return import ForwardReturn
    from feature_store.market.corporate_actions import CorporateActions
    from feature_store.market.membership import Membership
    from feature_store.offline.store import OfflineStore


@dataclass(frozen=True)
class StagedDay:
    """One session that a stage is done with."""

    date: dt.date
    rows: int
    facts: dict[str, Any]
    """Metadata of the day's partition."""


@dataclass(frozen=True)
class Stages:
    """What the stages of one desk work on.

    Parameters
    ----------
    store : OfflineStore
    settings : Settings
    """

    store: OfflineStore
    settings: Settings

    @cached_property
    def schema(self) -> FeatureSchema:
        """The features that are stored and trained on."""
        return schema_of(self.settings)

    @cached_property
    def label(self) -> ForwardReturn:
        """The label that is stored and trained on."""
        from feature_store.labels.forward_return import ForwardReturn

        return ForwardReturn(horizon_bars(self.settings))

    @cached_property
    def actions(self) -> CorporateActions:
        """The corporate actions of the settings; none if no file is named."""
        return corporate_actions_of(self.settings)

    @property
    def clock(self) -> BarClock:
        """The desk's clock."""
        return BarClock.minutes(self.settings.market.bar_minutes)

    # --- which sessions there are ---------------------------------------------------------------------------------

    def raw_sessions(self, days: Collection[dt.date] | None = None) -> tuple[Session, ...]:
        """Give the sessions that came in, of some days or all."""
        found = {s.date: s for s in (*self.store.sessions("ticks"), *source_store(self.store).sessions())}
        return tuple(found[date] for date in sorted(found) if days is None or date in days)

    def bar_sessions(self, days: Collection[dt.date] | None = None) -> tuple[Session, ...]:
        """Give the sessions that have bars on the desk's clock, of some days or all."""
        return tuple(s for s in self.store.sessions("bars") if days is None or s.date in days)

    # --- the stages -----------------------------------------------------------------------------------------------

    def raw(self, arrival: Arrival) -> Iterator[StagedDay]:
        """Write an arrival's sessions; what a session had before is replaced."""
        for session in arrival.sessions:
            keep_session(arrival, session, self.store)
            bars, ticks = arrival.bars.get(session), arrival.ticks.get(session)
            counts = {"bars": len(bars[1]) if bars else 0, "ticks": len(ticks[1]) if ticks else 0}
            rows = sum(counts.values())
            facts = {"market": arrival.name, "session": session_text(session), "dagster/row_count": rows, **counts}
            if bars:
                facts["first_bars"] = bars_preview(bars[1], bars[0])
            if ticks:
                facts["first_ticks"] = ticks_preview(ticks[1], ticks[0])
            yield StagedDay(session.date, rows, facts)

    def bars(self, sessions: Sequence[Session]) -> Iterator[StagedDay]:
        """Put sessions that came in on the desk's clock."""
        name = self.store.market() or ""
        for session in sessions:
            universe = self.store.universe()
            table = session_bars(self.store, session, self.settings.market.bar_minutes)
            source = bar_source_of(self.store, session)
            digest = self.store.write_bars(session, universe, table, name, bar_source=source, clock=self.clock)
            facts = {
                "market": name,
                "session": session_text(session),
                "dagster/row_count": len(table),
                "bar_clock": str(self.clock),
                "bar_source": source,
                "instruments_with_bars": len(set(table.instrument.tolist())),
                "digest": digest,
                "first_bars": bars_preview(table, universe),
            }
            yield StagedDay(session.date, len(table), facts)

    def features(self, sessions: Sequence[Session]) -> Iterator[StagedDay]:
        """Compute the feature rows of sessions that have bars, each as a warm start would see them."""
        from feature_store.offline.feature_rows import computed, write_features

        if not sessions:
            return  # the store may be empty
        found = computed(self.store, sessions, self.schema, None, self.actions)
        for session, rows in zip(sessions, found, strict=True):
            digest = write_features(self.store, session, self.schema, rows, actions=self.actions)
            facts = {
                "market": self.store.market() or "",
                "session": session_text(session),
                "dagster/row_count": len(rows.warm),
                "warm_rows": int(rows.warm.sum()),
                "warm_share": round(float(rows.warm.mean()), 4) if len(rows.warm) else 0.0,
                "features": len(self.schema.names),
                "feature_schema_hash": self.schema.hash,
                "corporate_actions": len(self.actions),
                "digest": digest,
                "quantiles": feature_quantiles(self.schema.names, rows.X[rows.warm]),
            }
            yield StagedDay(session.date, len(rows.warm), facts)

    def labels(self, sessions: Sequence[Session]) -> Iterator[StagedDay]:
        """Label the bars of sessions."""
        from feature_store.offline.label_rows import compute_labels, write_labels

        for session in sessions:
            rows = compute_labels(self.store, session, self.label)
            digest = write_labels(self.store, session, self.label, rows)
            there = rows.forward_return[np.isfinite(rows.forward_return)]
            facts = {
                "market": self.store.market() or "",
                "session": session_text(session),
                "label": self.label.name,
                "dagster/row_count": len(there),
                "without_label": len(rows.forward_return) - len(there),
                "digest": digest,
                "distribution": label_quantiles(there * 1e4),
            }
            yield StagedDay(session.date, len(there), facts)


def session_text(session: Session) -> str:
    """Give a session's hours for people."""
    return f"{ist_text(session.open_ns)} to {ist_text(session.close_ns)}"


def schema_of(settings: Settings) -> FeatureSchema:
    """Give the schema that is trained, in the order of the strategy's ``features``, on the desk's clock.

    Raises
    ------
    MarketDataError
        If the strategy names a feature that there is not; the message names near ones.
    """
    from live_services.strategy_features import WrongFeatures, training_schema

    try:
        return training_schema(settings)
    except WrongFeatures as wrong:
        raise MarketDataError(str(wrong)) from wrong


def horizon_bars(settings: Settings) -> int:
    """Give the label's horizon: what the strategy that asks the momentum model holds."""
    asking = [strategy for strategy in settings.strategies if strategy.model.startswith("momentum@")]
    return asking[0].holding_bars if asking else 10


def corporate_actions_of(settings: Settings) -> CorporateActions:
    """Read the corporate actions that the settings name.

    Raises
    ------
    MarketDataError
        If the file cannot be used.
    """
    from feature_store.sources.dated_tables import read_corporate_actions

    return read_corporate_actions(settings.market.corporate_actions)


def membership_of(settings: Settings) -> Membership | None:
    """Read the table of members that the settings name; None lets every tradable instrument be trained on.

    Raises
    ------
    MarketDataError
        If the file cannot be used.
    """
    from feature_store.sources.dated_tables import read_membership

    path = settings.market.membership
    return None if path is None else read_membership(path)
