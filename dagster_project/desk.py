"""What the settings of the desk say, as what the functions of the feature store take."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from feature_store.market.clocks import BarClock
from feature_store.market.types import SYNTHETIC, MarketDataError, Session, Universe, is_generated
from live_services.settings import Settings

if TYPE_CHECKING:
    from feature_store.features.schema import FeatureSchema
    from feature_store.labels.forward_return import ForwardReturn
    from feature_store.market.corporate_actions import CorporateActions
    from feature_store.market.membership import Membership
    from feature_store.offline.store import OfflineStore
    from feature_store.sources.arrivals import Arrival


@dataclass(frozen=True)
class Desk:
    """The store and the settings of one desk.

    Parameters
    ----------
    store : OfflineStore
    settings : Settings
    """

    store: OfflineStore
    settings: Settings

    # --- what is computed -----------------------------------------------------------------------------------------

    @property
    def clock(self) -> BarClock:
        """The clock of the desk's bars."""
        return BarClock.minutes(self.settings.market.bar_minutes)

    @cached_property
    def schema(self) -> FeatureSchema:
        """The features that are stored: what any strategy asks.

        Raises
        ------
        MarketDataError
            If a strategy names a feature that there is not; the message names near ones.
        """
        from live_services.domain.strategy.checks import WrongStrategy, stored_schema

        try:
            return stored_schema(self.settings.strategies)
        except WrongStrategy as wrong:
            raise MarketDataError(str(wrong)) from wrong

    @cached_property
    def labels(self) -> tuple[ForwardReturn, ...]:
        """The labels that are stored: of every bar, what holding it as long as a strategy does would have earned."""
        return tuple(dict.fromkeys(strategy.holding_label() for strategy in self.settings.strategies))

    @cached_property
    def actions(self) -> CorporateActions:
        """The corporate actions; none if no file is named. Raises MarketDataError if the file cannot be used."""
        from feature_store.sources.dated_tables import read_corporate_actions

        return read_corporate_actions(self.settings.market.corporate_actions)

    @cached_property
    def membership(self) -> Membership | None:
        """The table of members; None lets every tradable instrument be trained on. Raises as `actions`."""
        from feature_store.sources.dated_tables import read_membership

        path = self.settings.market.membership
        return None if path is None else read_membership(path)

    @cached_property
    def instruments(self) -> Universe | None:
        """What the table of instruments states; None if no file is named. Raises as `actions`."""
        from feature_store.sources.dated_tables import read_universe

        path = self.settings.market.universe
        return None if path is None else read_universe(path)

    # --- which sessions -------------------------------------------------------------------------------------------

    def incoming_sessions(self, dates: Collection[dt.date] | None = None) -> tuple[Session, ...]:
        """Give the sessions that came in, of some dates or all."""
        from feature_store.offline.incoming import incoming_sessions

        return incoming_sessions(self.store, dates)

    def bar_sessions(self, dates: Collection[dt.date] | None = None) -> tuple[Session, ...]:
        """Give the sessions that have bars on the desk's clock, of some dates or all."""
        return tuple(s for s in self.store.sessions("bars") if dates is None or s.date in dates)

    def replayed_session(self) -> Session | None:
        """Give the session that is replayed: the one set, or the last. Raises MarketDataError if it is not there."""
        from feature_store.offline.chosen_sessions import replayed_session

        market = self.settings.market
        return replayed_session(self.store, market.feed, _date(market.replay_session))

    def held_out_session(self) -> Session | None:
        """Give the first session that no training may know: the replayed one that is set, or a generated market's first
        of ticks.

        None if a market of files says nothing of its replay: then every session may be trained on, and a model that
        knows a session is refused when that one is replayed.
        """
        market = self.settings.market
        # a run may have brought files in on a desk whose settings generate a market
        generated = market.source == "synthetic" and is_generated(self.store.market() or SYNTHETIC)
        if market.replay_session or not generated:
            return self.replayed_session() if market.replay_session else None
        ticked = self.store.sessions("ticks")
        return ticked[0] if ticked else self.replayed_session()

    def training_sessions(self) -> tuple[Session, ...]:
        """Give the sessions through ``market.train_through``; without it, those before the held-out one, or all.

        Raises
        ------
        MarketDataError
            If there is none, if the replayed session that is set is not there, or if models would know the replayed
            session of a generated market.
        """
        from feature_store.offline.chosen_sessions import training_sessions

        through, held_out = _date(self.settings.market.train_through), self.held_out_session()
        if through and held_out and through >= held_out.date:
            raise MarketDataError(
                f"market.train_through ({through}) is not before {held_out.date}, the session of the generated market "
                "that is replayed: train through an earlier day, or generate more sessions (market.synthetic.sessions)"
            )
        return training_sessions(self.store, through=through, before=held_out)

    def traded_bar_source(self) -> str:
        """Say what makes the bars that models decide on. Raises as `replayed_session`."""
        from feature_store.offline.chosen_sessions import traded_bar_source

        feed = self.settings.market.feed
        return traded_bar_source(self.store, feed, self.replayed_session() if feed == "bars" else None)

    # --- where the market comes from ------------------------------------------------------------------------------

    def read_market(self, dates: Collection[dt.date] | None = None) -> Arrival:
        """Generate the market or read its files: all of it, or the sessions of some dates.

        Raises
        ------
        MarketDataError
            If a file cannot be used, or none is set; the message says what to do.
        """
        from feature_store.sources.arrivals import generated_arrival, read_market
        from feature_store.sources.mappings import ColumnMapping
        from feature_store.sources.synthetic import synthetic_market

        market = self.settings.market
        if market.source == "files":
            files = [market.bars_file, market.ticks_file]
            mapping = ColumnMapping.stated(
                market.columns, market.time_format, market.timezone, market.stamp, files=len([f for f in files if f])
            )
            return read_market(
                market.bars_file,
                market.ticks_file,
                dates,
                self._known() if dates is not None else None,
                name=market.name,
                instruments=self.instruments,
                mapping=mapping,
            )
        arrival = generated_arrival(synthetic_market(**market.synthetic.model_dump()))
        return arrival if dates is None else arrival.of_dates(frozenset(dates))

    def _known(self) -> Universe | None:
        return self.store.universe() if self.store.market() is not None else None


def _date(text: str) -> dt.date | None:
    return dt.date.fromisoformat(text) if text else None
