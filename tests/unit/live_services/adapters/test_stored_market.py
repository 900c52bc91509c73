from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feature_store.market.types import Universe
from feature_store.offline.store import OfflineStore
from live_services.adapters.stored_market import Replay, SessionChanged, StoredMarket, market_name
from live_services.services.feed_plan import who_feeds
from live_services.settings import MarketSettings, Settings
from tests.stored_sessions import day_of_bars, day_of_ticks, rows_of

TICKS = tuple(day_of_ticks(day) for day in range(3))
BARS = tuple(day_of_bars(day) for day in range(3))
NAME = "SYNTHETIC test"


def desk(home: Path, feed: str = "ticks") -> tuple[StoredMarket, OfflineStore]:
    settings = Settings(alpha_panda_home=home, market=MarketSettings.model_validate({"feed": feed}))
    return StoredMarket(settings), OfflineStore(settings.store_root)


def bring(store: OfflineStore, *days: Replay, kind: str = "ticks") -> None:
    for day in days:
        write = store.write_ticks if kind == "ticks" else store.write_bars
        write(day.session, day.universe, day.market, NAME)  # type: ignore[operator]


@pytest.mark.parametrize("feed", ["ticks", "bars"])
def test_a_session_is_given_as_it_was_stored(tmp_path: Path, feed: str) -> None:
    market, store = desk(tmp_path, feed)
    days = TICKS if feed == "ticks" else BARS
    bring(store, *days, kind=feed)
    assert market.sessions() == tuple(day.session for day in days)
    for day in days:
        replay = market.load(day.session)
        assert replay.session == day.session
        assert replay.universe == day.universe
        assert rows_of(replay.market, replay.universe) == rows_of(day.market, day.universe)


def test_a_market_is_called_what_its_store_says_and_while_that_says_nothing_what_the_settings_do(
    tmp_path: Path,
) -> None:
    settings = Settings(alpha_panda_home=tmp_path)
    assert market_name(settings) == "NSE"
    store = OfflineStore(settings.store_root)
    bring(store, TICKS[0])
    assert market_name(settings) == who_feeds(settings, store.sessions("ticks")).market == NAME
    for damaged in ("{}", "no JSON"):
        (store.root / "market.json").write_text(damaged)
        assert market_name(settings) == "NSE"


def test_a_later_listing_changes_nothing_of_an_earlier_session(tmp_path: Path) -> None:
    market, store = desk(tmp_path)
    bring(store, TICKS[0])
    before = market.load(TICKS[0].session)
    bring(store, TICKS[1])
    after = desk(tmp_path)[0].load(TICKS[0].session)
    assert after.universe.digest == before.universe.digest == TICKS[0].universe.digest
    assert after.market.digest() == before.market.digest()
    assert "AAB" in market.load(TICKS[1].session).universe.index_of_symbol


def test_an_instrument_that_does_not_trade_on_a_day_stays_in_the_universe(tmp_path: Path) -> None:
    market, store = desk(tmp_path)
    halted = TICKS[1].universe.index_of_symbol["S1"]
    quiet = TICKS[1].market[TICKS[1].market.instrument != halted]
    bring(store, TICKS[0], replace(TICKS[1], market=quiet))
    assert "S1" in market.load(TICKS[1].session).universe.index_of_symbol


def test_instruments_of_earlier_bars_are_in_the_universe_of_a_session_of_ticks(tmp_path: Path) -> None:
    market, store = desk(tmp_path)
    bring(store, BARS[0], kind="bars")
    only = TICKS[1].market[TICKS[1].market.instrument == 0]
    bring(store, replace(TICKS[1], market=only))
    assert {i.symbol for i in market.load(TICKS[1].session).universe.instruments} == {"NIFTY 50", "S0", "S1", "S2"}


def test_sessions_may_be_asked_for_in_any_order(tmp_path: Path) -> None:
    market, store = desk(tmp_path)
    bring(store, *TICKS)
    for day in (2, 0, 1):
        assert market.load(TICKS[day].session).universe == TICKS[day].universe


def test_a_session_that_was_told_is_given_in_the_universe_that_it_was_told_with(tmp_path: Path) -> None:
    market, store = desk(tmp_path)
    bring(store, *TICKS)
    told = Universe(instruments=tuple(reversed(TICKS[1].universe.instruments)))
    replay = market.load(TICKS[1].session, told)
    assert replay.universe is told
    assert rows_of(replay.market, told) == rows_of(TICKS[1].market, TICKS[1].universe)
    assert replay.market.instrument.dtype == np.int32


def test_a_session_whose_file_names_more_than_was_told_is_refused(tmp_path: Path) -> None:
    market, store = desk(tmp_path)
    bring(store, *TICKS)
    with pytest.raises(SessionChanged, match=r"ticks of 2026-01-06 .* name AAB, which that session was not told with"):
        market.load(TICKS[1].session, TICKS[0].universe)
