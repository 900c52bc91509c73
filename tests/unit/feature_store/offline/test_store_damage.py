"""What a store refuses, and what a crash leaves behind."""

import dataclasses
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from feature_store.market.types import Bars, MarketDataError, UnreadableFile
from feature_store.offline import session_files
from feature_store.offline.store import OfflineStore
from feature_store.sources.synthetic import SyntheticMarket
from tests.offline_world import data_file, first_ticks

# --- what is refused -------------------------------------------------------------------------------------------------


def test_generated_and_real_data_never_share_a_store(store: OfflineStore, market: SyntheticMarket) -> None:
    with pytest.raises(MarketDataError, match="another directory"):
        store.write_universe(market.universe, "NSE")


def test_a_changed_file_is_refused(store: OfflineStore, market: SyntheticMarket) -> None:
    path = data_file(store, market)
    table = pq.read_table(path, partitioning=None)
    close = table["close"].to_numpy().copy()
    close[3] += 0.05
    at = table.column_names.index("close")
    pq.write_table(table.set_column(at, table.schema.field("close"), [close]), path, row_group_size=4125)
    with pytest.raises(UnreadableFile, match=r"not what its manifest says.*materialise"):
        store.read_bars(market.sessions)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda t: t.drop_columns(["imbalance"]), "missing imbalance"),
        (lambda t: t.rename_columns([*t.column_names[:-1], "depth"]), "missing imbalance; unknown depth"),
        (lambda t: t.set_column(7, "volume", t["volume"].cast("double")), "volume is float64, not int64"),
        (lambda t: t.select(t.column_names[::-1]), "another order"),
    ],
)
def test_a_file_of_other_columns_is_refused_with_file_and_column(
    store: OfflineStore, market: SyntheticMarket, change: object, named: str
) -> None:
    path = data_file(store, market)
    pq.write_table(change(pq.read_table(path, partitioning=None)), path)  # type: ignore[operator]
    with pytest.raises(UnreadableFile, match=named) as refused:
        store.read_bars(market.sessions)
    assert str(path) in str(refused.value)
    assert "materialise" in str(refused.value)


def test_bars_of_other_types_are_refused_on_writing(store: OfflineStore, market: SyntheticMarket) -> None:
    bars = dataclasses.replace(market.bars[0], volume=market.bars[0].volume.astype(np.float64))
    with pytest.raises(MarketDataError, match="volume is float64, not int64"):
        store.write_bars(market.sessions[0], market.universe, bars, market.name)


def test_a_bar_twice_or_outside_its_session_or_ticks_out_of_order_are_refused(
    store: OfflineStore, market: SyntheticMarket
) -> None:
    session, bars = market.sessions[0], market.bars[0]
    twice = bars[np.sort(np.append(np.arange(len(bars)), 40))]
    with pytest.raises(MarketDataError, match="rows 40 and 41"):
        store.write_bars(session, market.universe, twice, market.name)
    with pytest.raises(MarketDataError, match="outside the session"):
        store.write_bars(market.sessions[1], market.universe, bars, market.name)
    ticks = first_ticks(market)
    with pytest.raises(MarketDataError, match="tick 1 "):
        store.write_ticks(market.tick_sessions[0], market.universe, ticks[np.arange(10)[::-1]], market.name)


def test_a_truncated_or_missing_file_is_refused(store: OfflineStore, market: SyntheticMarket) -> None:
    path = data_file(store, market)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UnreadableFile, match="materialise"):
        store.read_bars(market.sessions)
    path.unlink()
    with pytest.raises(UnreadableFile, match="is gone"):
        store.read_bars(market.sessions)
    with pytest.raises(UnreadableFile, match="holds bars of 4 sessions"):
        store.read_bars([market.tick_sessions[0]])
    with pytest.raises(UnreadableFile, match="write data"):
        OfflineStore(store.root / "empty").universe()


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b'{"format": 1}', b'{"format": 2}'])
def test_a_damaged_or_older_manifest_is_refused(store: OfflineStore, market: SyntheticMarket, content: bytes) -> None:
    path = data_file(store, market).parent / "manifest.json"
    path.write_bytes(content)
    with pytest.raises(UnreadableFile, match=r"manifest\.json"):
        store.read_bars(market.sessions)
    store.write_bars(market.sessions[0], market.universe, market.bars[0], market.name)
    assert store.read_bars(market.sessions).digest() == Bars.concatenate(market.bars).digest()


# --- crashes ---------------------------------------------------------------------------------------------------------


def test_nothing_is_left_beside_the_files(store: OfflineStore) -> None:
    assert not [path for path in store.root.rglob("*") if path.name.endswith(".tmp")]
    assert store.leftovers() == ()


@pytest.mark.parametrize("first_time", [True, False])
def test_a_crash_between_data_and_manifest_is_seen_and_healed_by_writing_again(
    market: SyntheticMarket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first_time: bool
) -> None:
    store, session = OfflineStore(tmp_path), market.sessions[0]
    if not first_time:
        store.write_bars(session, market.universe, market.bars[0], market.name)
    higher = dataclasses.replace(market.bars[0], close=market.bars[0].high.copy())

    def killed(path: Path, document: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(session_files, "_replace_json", killed)
        store.write_bars(session, market.universe, higher, market.name)
    (left,) = store.leftovers()
    assert left.name.startswith("data-")
    if first_time:
        assert store.sessions() == ()
    else:  # readers go on seeing what was there
        assert store.read_bars([session]).digest() == market.bars[0].digest()
    store.write_bars(session, market.universe, higher, market.name)
    assert store.leftovers() == ()
    assert store.read_bars([session]).digest() == higher.digest()


def test_a_name_is_on_the_disk_with_its_directory_before_the_next_step_is_taken(
    market: SyntheticMarket, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[tuple[str, Path]] = []
    fsync, rename, unlink = os.fsync, Path.replace, Path.unlink

    def synced(descriptor: int) -> None:
        fsync(descriptor)
        steps.append(("synced", Path(f"/proc/self/fd/{descriptor}").readlink()))

    def renamed(self: Path, target: Path) -> Path:
        steps.append(("renamed", target))
        return rename(self, target)

    def removed(self: Path, *, missing_ok: bool = False) -> None:
        steps.append(("removed", self))
        unlink(self, missing_ok=missing_ok)

    store, session = OfflineStore(tmp_path / "store"), market.sessions[0]
    store.write_bars(session, market.universe, market.bars[0], market.name)
    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    monkeypatch.setattr(Path, "unlink", removed)
    old, folder = data_file(store, market), data_file(store, market).parent
    higher = dataclasses.replace(market.bars[0], close=market.bars[0].high.copy())
    store.write_bars(session, market.universe, higher, market.name)
    new = data_file(store, market)
    names = [(what, path.name if path.suffix != ".tmp" else "content") for what, path in steps]
    a_file = [("synced", "content"), ("renamed", new.name), ("synced", folder.name)]
    assert names == [*a_file, a_file[0], ("renamed", "manifest.json"), a_file[2], ("removed", old.name)]

    steps.clear()
    store.drop_session("bars", session)
    assert [what for what, _ in steps] == ["removed", "synced", "removed"]


def test_damaged_data_is_healed_by_writing_the_same_again(store: OfflineStore, market: SyntheticMarket) -> None:
    path = data_file(store, market)
    path.write_bytes(path.read_bytes()[:-50])
    store.write_bars(market.sessions[0], market.universe, market.bars[0], market.name)
    assert store.read_bars(market.sessions[:1]).digest() == market.bars[0].digest()


def test_a_reader_whose_file_was_just_replaced_looks_again(
    store: OfflineStore, market: SyntheticMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = market.sessions[0]
    old = store.manifest("bars", session)
    higher = dataclasses.replace(market.bars[0], close=market.bars[0].high.copy())
    store.write_bars(session, market.universe, higher, market.name)
    real, answers = session_files.read_json, [old]
    monkeypatch.setattr(
        session_files, "read_json", lambda path: answers.pop() if "session=" in str(path) and answers else real(path)
    )
    assert store.read_bars([session]).digest() == higher.digest()
