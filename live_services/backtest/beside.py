"""What stands beside the trades in a report: buy and hold, prices, outages, and what it all stands on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd

from feature_store.bars.quality import outages
from feature_store.market.clocks import BarClock
from feature_store.market.types import Bars, Session, Universe
from feature_store.provenance import code_commit
from feature_store.sources.dated_tables import read_corporate_actions
from live_services.backtest.holding import buy_and_hold
from live_services.backtest.result import PricePath
from live_services.backtest.traded import TradedSession, stored_bars

if TYPE_CHECKING:
    from feature_store.offline.store import OfflineStore
    from live_services.backtest.versions import JudgedVersion
    from live_services.domain.limits import AccountConfig
    from live_services.settings import Settings

_CHARTED: Final = 30  # instruments with a price chart, those with most trades: a page holds no more
_POINTS: Final = 20_000  # closes a chart; beyond it every second, third … is drawn


def beside(
    store: OfflineStore,
    settings: Settings,
    judged: Sequence[JudgedVersion],
    traded: Sequence[TradedSession],
    account: AccountConfig,
) -> dict[str, Any]:
    """Give the fields of `BacktestResult` that are read from the store after the sessions were traded.

    Raises
    ------
    feature_store.market.types.MarketDataError
        If a file cannot be used.
    """
    sessions, universe = [one.session for one in traded], store.universe()
    actions = read_corporate_actions(settings.market.corporate_actions)
    bars = list(stored_bars(store, sessions))
    clock = BarClock.minutes(settings.market.bar_minutes)
    adjusted = ((one, actions.adjust(table, universe, sessions[-1].date)) for one, table in bars)
    return {
        "holding": buy_and_hold(adjusted, _may_be_held(universe, judged), account.starting_cash_inr),
        "prices": _prices(bars, sessions, universe, traded),
        "outages": _outages(bars, clock, universe),
        "provenance": _provenance(store, settings, judged, sessions),
    }


def _may_be_held(universe: Universe, judged: Sequence[JudgedVersion]) -> np.ndarray[Any, np.dtype[np.bool_]]:
    named = {symbol for one in judged for symbol in one.spec.instruments}
    everything = any(not one.spec.instruments for one in judged)
    return np.array([i.tradable and (everything or i.symbol in named) for i in universe.instruments], dtype=np.bool_)


def _prices(
    bars: Sequence[tuple[Session, Bars]],
    sessions: Sequence[Session],
    universe: Universe,
    traded: Sequence[TradedSession],
) -> tuple[PricePath, ...]:
    entries = Counter(f.instrument_token for one in traded for f in one.fills if f.intent == "open")
    place = {session.date: number for number, session in enumerate(sessions)}
    found = []
    for token, _ in entries.most_common(_CHARTED):
        index = universe.index_of_token[token]
        parts = [(place[s.date], s, table[table.instrument == index]) for s, table in bars]
        at = np.concatenate(
            [number + (part.end_ns - s.open_ns) / (s.close_ns - s.open_ns) for number, s, part in parts]
        )
        close = np.concatenate([part.close for _, _, part in parts])
        step = -(-len(at) // _POINTS)
        found.append(PricePath(universe.instruments[index].symbol, at[::step], close[::step]))
    return tuple(sorted(found, key=lambda one: one.symbol))


def _outages(bars: Sequence[tuple[Session, Bars]], clock: BarClock, universe: Universe) -> pd.DataFrame:
    found = [outages(table, [session], clock, universe) for session, table in bars]
    held = [one for one in found if len(one)]
    return (
        pd.concat(held, ignore_index=True)
        if held
        else outages(bars[0][1][:0], [], clock, universe)
        if bars
        else pd.DataFrame()
    )


def _provenance(
    store: OfflineStore, settings: Settings, judged: Sequence[JudgedVersion], sessions: Sequence[Session]
) -> dict[str, str]:
    stored = {session.date for session in store.sessions("bars")}
    facts = {
        "code commit": code_commit(),
        "configuration digest": settings.digest,
        "data digest": store.digest([session for session in sessions if session.date in stored]),
    }
    for one in judged:
        sidecar = one.sidecar
        facts |= {
            f"{one.title}: identity": sidecar.identity,
            f"{one.title}: feature schema": sidecar.feature_schema_hash,
            f"{one.title}: training data": sidecar.training_data_digest,
            f"{one.title}: recipe": sidecar.recipe_digest,
            f"{one.title}: trained through": f"{sidecar.train_through} by commit {sidecar.git_commit}",
        }
    return facts
