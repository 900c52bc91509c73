"""What a state may be restored on, and what is restored without those that should have written it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from feature_store.market.types import Session, Universe
from live_services.adapters.kept_histories import HistoryFiles
from live_services.adapters.snapshot_bytes import pack, unpack
from live_services.domain.account.books import Books
from live_services.domain.account.paper_exchange import PaperExchange
from live_services.domain.basis import Stamp
from live_services.domain.log import TaskId
from live_services.domain.snapshot import CorruptSnapshot
from live_services.domain.strategy.desk import StrategyDesk
from live_services.domain.strategy.history import SessionHistory
from live_services.domain.topics import MARKET_TICKS
from live_services.runtime.service import Opening
from live_services.services.account import account_chain
from live_services.services.model_loading import ModelLoader
from live_services.services.session_history import HistoryChanged
from live_services.services.strategy_runner import StrategyRunner
from live_services.settings import MarketSettings, Settings
from models_registry.specification import StrategySpec
from tests.account_world import limits
from tests.live_world import SESSION, UNIVERSE, past_sessions, session_bars, validated
from tests.state_comparison import differences

OPENING: Opening[Any] = Opening(SESSION, UNIVERSE, TaskId("strategy_runner", "shared", 0))
HISTORY = past_sessions(UNIVERSE, 2, minutes=5)


class Store:
    def __init__(self, history: SessionHistory) -> None:
        self.history = history

    def of(
        self, session: Session, universe: Universe, sessions: Sequence[str] | None = None, needed: int = 0
    ) -> SessionHistory:
        return self.history


def runner(history: SessionHistory = HISTORY, files: HistoryFiles | None = None, **spec: Any) -> StrategyRunner:
    strategies = (StrategySpec(name="momentum", **spec),)
    loader = ModelLoader(None, None, None, strategies, bar_minutes=1, poll_seconds=1)  # type: ignore[arg-type]
    settings = Settings(market=MarketSettings(feed="bars"), strategies=strategies)
    return StrategyRunner(settings, loader, Stamp(), history=Store(history), kept=files)


def kept_by(service: StrategyRunner) -> Any:
    return unpack(pack(service.snapshot(service.open_session(OPENING))))


def test_strategies_are_restored_on_the_history_they_stood_on_and_no_other() -> None:
    kept = kept_by(runner())
    runner().restore(OPENING, kept)
    close = HISTORY.before.close.copy()
    close[3] += 0.01
    with pytest.raises(HistoryChanged, match="changed while the session of 2026-01-05 ran"):
        runner(replace(HISTORY, before=replace(HISTORY.before, close=close))).restore(OPENING, kept)


def test_what_goes_on_from_a_snapshot_reads_its_history_when_it_needs_it_and_takes_no_other(tmp_path: Path) -> None:
    files, other = HistoryFiles(tmp_path), replace(HISTORY, before=HISTORY.before[1:])

    def restored(history: SessionHistory) -> StrategyDesk:
        return runner(history, files).restore(OPENING, kept).desk

    kept = kept_by(runner(HISTORY, files))
    desk = restored(other)
    assert desk.history_used.digest == HISTORY.digest
    assert [bars.close.tobytes() for bars in desk._bars.parts] == [HISTORY.before.close.tobytes()]
    desk = restored(other)
    for path in tmp_path.iterdir():
        path.unlink()
    with pytest.raises(HistoryChanged, match="not kept on this machine"):
        assert desk._bars.parts


def test_bars_of_today_that_were_stored_since_are_not_what_a_snapshot_stood_on(tmp_path: Path) -> None:
    files, today = HistoryFiles(tmp_path), session_bars(SESSION, len(UNIVERSE), 5, seed=4)
    stored = replace(HISTORY, today=today)
    kept = kept_by(runner(stored, files))
    desk = runner(HISTORY, files).restore(OPENING, kept).desk
    assert desk._bars._history.today_ends == stored.today_ends
    (tmp_path / f"{stored.today_digest}.parquet").unlink()
    for since, ends in ((stored, stored.today_ends), (replace(HISTORY, today=today[:3]), frozenset())):
        desk = runner(since, files).restore(OPENING, kept).desk
        assert desk._bars._history.today_ends == ends


def test_strategies_are_not_restored_by_another_configuration() -> None:
    with pytest.raises(CorruptSnapshot, match="another configuration"):
        runner(holding_bars=3).restore(OPENING, kept_by(runner()))


def test_an_order_that_the_books_could_not_take_is_live_again_all_the_same() -> None:
    def exchange() -> PaperExchange:
        return PaperExchange(UNIVERSE, SESSION, Books(UNIVERSE, 0), Stamp())

    was, again = exchange(), exchange()
    list(was.submit(validated(0)))
    list(was.submit(validated(1, 61, stop_inr=0.5)))
    again.restore(unpack(pack(was.snapshot())))
    assert len(again._live) == 2
    assert differences(was, again) == []


def test_an_account_keeps_no_snapshot_before_the_session_is_opened_by_its_record() -> None:
    chain = account_chain("paper", MARKET_TICKS, limits(), Stamp())
    assert chain.snapshot(chain.open_session(SESSION, UNIVERSE, TaskId("account", "paper", 0))) is None
