"""History as the store gives it."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import numpy as np
import pytest

from feature_store.bars.builder import aggregate_bars
from feature_store.market.clocks import BarClock
from feature_store.market.types import Session, Universe, UnreadableFile
from feature_store.offline.store import OfflineStore
from live_services.adapters.history import StoredHistory
from live_services.settings import MarketSettings, Settings
from tests.live_world import OPEN, SESSION, UNIVERSE, session_bars


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    made = Settings(alpha_panda_home=tmp_path)
    store = OfflineStore(made.store_root)
    for k in range(5, -1, -1):
        session = Session.regular(SESSION.date - dt.timedelta(days=k))
        store.write_bars(session, UNIVERSE, session_bars(session, len(UNIVERSE), 60, seed=1), "TEST")
    return made


def stored_universe(settings: Settings) -> Universe:
    return OfflineStore(settings.store_root).universe()


def test_the_store_gives_the_last_sessions_before_a_session_and_its_own_stored_bars(settings: Settings) -> None:
    history = StoredHistory(settings).of(SESSION, stored_universe(settings))
    assert history.sessions == ("2026-01-02", "2026-01-03", "2026-01-04")
    universe = history.universe
    assert universe.tokens[history.before.instrument].size == len(history.before) > 400
    assert history.before.end_ns.max() < OPEN
    assert history.today.start_ns.min() == OPEN
    order = np.lexsort((history.before.instrument, history.before.end_ns))
    assert (order == np.arange(len(order))).all()


def test_the_sessions_that_the_log_names_are_taken_and_one_that_is_gone_is_named(settings: Settings) -> None:
    source, universe = StoredHistory(settings), stored_universe(settings)
    assert source.of(SESSION, universe, ("2026-01-01",)).sessions == ("2026-01-01",)
    assert source.of(SESSION, universe, needed=5).sessions[0] == "2025-12-31"
    with pytest.raises(UnreadableFile, match=r"2020-01-01.*bring them back"):
        source.of(SESSION, universe, ("2020-01-01",))


def test_shorter_stored_bars_become_bars_of_the_desk_and_longer_ones_are_left_out(settings: Settings) -> None:
    five = settings.model_copy(update={"market": MarketSettings(bar_minutes=5)})
    universe = OfflineStore(settings.store_root).universe()
    history = StoredHistory(five).of(SESSION, universe, ("2026-01-02",))
    session = Session.regular(dt.date(2026, 1, 2))
    stored = OfflineStore(settings.store_root).read_bars([session])
    assert history.before.digest() == aggregate_bars(stored, session, len(universe), BarClock.parse("5m")).digest()
    OfflineStore(settings.store_root).write_bars(session, universe, history.before, "TEST")
    assert len(StoredHistory(settings).of(SESSION, universe, ("2026-01-02",)).before) == 0


def test_a_universe_of_fewer_instruments_gets_its_own_bars_under_its_own_indices(settings: Settings) -> None:
    whole = OfflineStore(settings.store_root).universe()
    fewer = Universe(instruments=tuple(i for i in reversed(whole.instruments) if i.symbol != "BBB"))
    history, all_of_it = (StoredHistory(settings).of(SESSION, universe) for universe in (fewer, whole))
    mine = fewer.tokens[history.before.instrument] == 101
    theirs = whole.tokens[all_of_it.before.instrument] == 101
    assert (history.before.close[mine] == all_of_it.before.close[theirs]).all()
    assert len(history.before) == (whole.tokens[all_of_it.before.instrument] != 102).sum()


def test_an_empty_store_is_a_history_without_bars(tmp_path: Path) -> None:
    history = StoredHistory(Settings(alpha_panda_home=tmp_path)).of(SESSION, UNIVERSE)
    assert (history.sessions, len(history.before), len(history.today)) == ((), 0, 0)


def test_corporate_actions_of_the_settings_are_part_of_history(settings: Settings, tmp_path: Path) -> None:
    path = tmp_path / "actions.csv"
    path.write_text("symbol,ex_date,kind,factor\nAAA,2026-01-05,split,0.5\n")
    with_actions = settings.model_copy(update={"market": MarketSettings(corporate_actions=path)})
    universe = OfflineStore(settings.store_root).universe()
    adjusted, raw = (StoredHistory(s).of(SESSION, universe) for s in (with_actions, settings))
    assert len(adjusted.actions) == 1
    assert adjusted.digest != raw.digest
    assert adjusted.before.digest() == raw.before.digest()
