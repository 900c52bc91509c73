from __future__ import annotations

import datetime as dt
import errno
import gc
import os
import weakref
from dataclasses import replace
from pathlib import Path

import pytest

from feature_store.market.corporate_actions import CorporateAction, CorporateActions
from feature_store.market.types import Universe
from live_services.adapters import kept_histories
from live_services.adapters.kept_histories import HistoryFiles
from live_services.domain.strategy.history import HistoryUsed, LaterHistory, SessionHistory
from tests.live_world import SESSION, UNIVERSE, past_sessions, session_bars

SPLIT = CorporateAction(UNIVERSE.instruments[1].symbol, dt.date(2026, 1, 2), "split", 0.1)
HISTORY = replace(
    past_sessions(UNIVERSE, 2),
    today=session_bars(SESSION, len(UNIVERSE), 5, seed=4),
    actions=CorporateActions((SPLIT,)),
)


def used(history: SessionHistory) -> HistoryUsed:
    return HistoryUsed(history.sessions, history.digest, today_stored=history.today_digest)


def test_a_history_comes_back_bit_for_bit_whatever_the_order_of_the_universe(tmp_path: Path) -> None:
    files = HistoryFiles(tmp_path / "kept")
    files.keep(HISTORY)
    files.keep(HISTORY)  # a second task of the process
    assert len([*(tmp_path / "kept").iterdir()]) == 2
    found = files.read(UNIVERSE, used(HISTORY))
    assert found is not None
    assert (found.sessions, found.actions, found.digest) == (HISTORY.sessions, HISTORY.actions, HISTORY.digest)
    for name in HISTORY.before.__dataclass_fields__:
        for here, there in ((found.before, HISTORY.before), (found.today, HISTORY.today)):
            assert getattr(here, name).tobytes() == getattr(there, name).tobytes(), name
            assert getattr(here, name).dtype == getattr(there, name).dtype, name


def test_what_is_not_kept_is_none_and_a_desk_without_history_keeps_that(tmp_path: Path) -> None:
    files, nothing = HistoryFiles(tmp_path / "kept"), SessionHistory(UNIVERSE)
    assert files.read(UNIVERSE, used(HISTORY)) is None
    files.keep(nothing)
    found = files.read(UNIVERSE, used(nothing))
    assert found is not None
    assert found.digest == nothing.digest


def test_a_history_for_later_says_what_it_is_and_is_read_when_it_is_asked_for(tmp_path: Path) -> None:
    files, asked = HistoryFiles(tmp_path), list[str]()

    def read() -> SessionHistory:
        asked.append("read")
        return HISTORY

    assert files.later(UNIVERSE, used(HISTORY), read) is None
    files.keep(HISTORY)
    later = files.later(UNIVERSE, used(HISTORY), read)
    assert later is not None
    assert (later.sessions, later.digest, later.actions) == (HISTORY.sessions, HISTORY.digest, HISTORY.actions)
    assert later.today_digest == HISTORY.today_digest
    part = later.part_of(1, 2)
    assert asked == []
    assert part.before.close.tobytes() == HISTORY.part_of(1, 2).before.close.tobytes()
    assert part.today_ends == HISTORY.today_ends
    assert asked == ["read"]


def test_a_damaged_history_is_written_anew_when_a_session_stands_on_the_same_bars(tmp_path: Path) -> None:
    files, path = HistoryFiles(tmp_path), tmp_path / f"{HISTORY.digest}.parquet"
    for look in (files.read, lambda *it: files.later(*it, lambda: HISTORY)):
        files.keep(HISTORY)
        path.write_bytes(b"damaged")
        assert look(UNIVERSE, used(HISTORY)) is None
        files.keep(HISTORY)
        assert files.read(UNIVERSE, used(HISTORY)) is not None


@pytest.mark.parametrize("content", [b"", b"no parquet", None])
def test_a_damaged_file_is_passed_over(tmp_path: Path, content: bytes | None) -> None:
    files = HistoryFiles(tmp_path)
    files.keep(HISTORY)
    path = tmp_path / f"{HISTORY.digest}.parquet"
    if content is None:  # whole, and of another day
        (tmp_path / f"{HISTORY.today_digest}.parquet").replace(path)
    else:
        path.write_bytes(content)
    assert files.read(UNIVERSE, used(HISTORY)) is None


def test_bars_of_instruments_that_the_session_does_not_have_are_passed_over(tmp_path: Path) -> None:
    files = HistoryFiles(tmp_path)
    files.keep(HISTORY)
    assert files.read(Universe(instruments=UNIVERSE.instruments[:1]), used(HISTORY)) is None


def test_the_files_used_longest_ago_give_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_histories, "_MOST", 2)
    files = HistoryFiles(tmp_path)
    made = [replace(past_sessions(UNIVERSE, 1), sessions=(f"2025-12-0{k}",)) for k in (1, 2, 3)]
    for k, history in enumerate(made):
        files.keep(history)
        os.utime(tmp_path / f"{history.digest}.parquet", (k + 1, k + 1))
    files.keep(made[2])
    assert [files.read(UNIVERSE, used(one)) is not None for one in made] == [False, True, True]


def test_a_disk_without_room_keeps_nothing_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("in the way")
    HistoryFiles(tmp_path / "kept").keep(HISTORY)


def test_a_file_that_the_system_does_not_open_for_now_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = HistoryFiles(tmp_path)
    files.keep(HISTORY)

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as out_of_files:
        out_of_files.setattr(kept_histories.pq, "read_table", refuse)
        out_of_files.setattr(kept_histories.pq, "read_schema", refuse)
        assert files.read(UNIVERSE, used(HISTORY)) is None
        assert files.later(UNIVERSE, used(HISTORY), lambda: HISTORY) is None
    assert files.read(UNIVERSE, used(HISTORY)) is not None


def test_of_a_history_for_later_a_partition_holds_its_own_part_only() -> None:
    read = list[weakref.ref[SessionHistory]]()

    def whole() -> SessionHistory:
        history = replace(HISTORY)
        read.append(weakref.ref(history))
        return history

    later = LaterHistory(UNIVERSE, HISTORY.sessions, HISTORY.digest, HISTORY.today_digest, HISTORY.actions, whole)
    part = later.part_of(1, 2)
    assert 0 < len(part.before) < len(HISTORY.before)
    gc.collect()
    assert [one() for one in read] == [None]
