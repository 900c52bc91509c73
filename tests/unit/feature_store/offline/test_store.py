import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from feature_store.bars.builder import aggregate_bars
from feature_store.features.engine import feature_table
from feature_store.features.schema import MOMENTUM_FEATURES, feature_schema
from feature_store.market.clocks import BarClock
from feature_store.market.corporate_actions import CorporateAction, CorporateActions
from feature_store.market.types import (
    Bars,
    Instrument,
    MarketDataError,
    Ticks,
    Universe,
    UnknownInstrument,
    UnreadableFile,
)
from feature_store.offline import session_files
from feature_store.offline.feature_rows import (
    FeatureRows,
    OtherClock,
    StaleFeatures,
    compute_features,
    computed,
    feature_file,
    read_features,
    write_features,
)
from feature_store.offline.store import OfflineStore
from feature_store.sources.synthetic import SyntheticMarket, synthetic_market

SCHEMA = feature_schema(MOMENTUM_FEATURES, 1)
N = 30  # enough instruments for more than one row group


@pytest.fixture(scope="module")
def market() -> SyntheticMarket:
    return synthetic_market(instruments=N, sessions=4, seed=1, index=False)


@pytest.fixture
def store(market: SyntheticMarket, tmp_path: Path) -> OfflineStore:
    store = OfflineStore(tmp_path / "store")
    for session, bars in zip(market.sessions, market.bars, strict=True):
        store.write_bars(session, market.universe, bars, market.name, bar_source="ticks")
    return store


def data_file(store: OfflineStore, market: SyntheticMarket, k: int = 0) -> Path:
    (path,) = (store.root / "bars" / f"session={market.sessions[k].date}").glob("data-*.parquet")
    return path


def first_ticks(market: SyntheticMarket, depth: bool = False) -> Ticks:
    ticks = market.ticks[0][:20_000]
    return ticks.with_depth() if depth else ticks


# --- what comes back -------------------------------------------------------------------------------------------------


def test_bars_and_ticks_come_back_bit_for_bit(store: OfflineStore, market: SyntheticMarket) -> None:
    store.write_ticks(market.tick_sessions[0], market.universe, market.ticks[0], market.name)
    assert store.read_bars(market.sessions).digest() == Bars.concatenate(market.bars).digest()
    assert store.read_bars([market.sessions[1].date]).digest() == market.bars[1].digest()
    assert store.read_ticks(market.tick_sessions[0]).digest() == market.ticks[0].digest()
    assert store.sessions() == market.sessions
    assert store.sessions("ticks") == (market.tick_sessions[0],)
    assert store.universe() == market.universe
    assert store.market() == market.name


def test_the_best_quote_comes_back_and_ticks_of_one_instant_keep_their_order(
    store: OfflineStore, market: SyntheticMarket
) -> None:
    ticks = first_ticks(market, depth=True)
    same_instant = dataclasses.replace(ticks, event_time_ns=np.full(len(ticks), ticks.event_time_ns[0]))
    store.write_ticks(market.tick_sessions[0], market.universe, same_instant, market.name)
    assert store.read_ticks(market.tick_sessions[0]).digest() == same_instant.digest()


def test_a_session_without_rows_comes_back_empty(store: OfflineStore, market: SyntheticMarket) -> None:
    store.write_bars(market.sessions[0], market.universe, market.bars[0][:0], market.name)
    store.write_ticks(market.tick_sessions[0], market.universe, market.ticks[0][:0], market.name)
    assert len(store.read_bars(market.sessions[:1])) == len(store.read_ticks(market.tick_sessions[0])) == 0


def test_a_manifest_tells_what_is_there_and_where_it_comes_from(store: OfflineStore, market: SyntheticMarket) -> None:
    session = market.sessions[0]
    store.write_bars(session, market.universe, market.bars[0], ["a.csv", "b.csv"], bar_source="ticks")
    manifest = store.manifest("bars", session)
    assert manifest["rows"] == len(market.bars[0])
    assert manifest["sources"] == ["a.csv", "b.csv"]
    assert (manifest["bar_source"], manifest["bar_clock"]) == ("ticks", "time:60s")
    assert manifest["market"] == market.name
    assert manifest["session"] == session.date.isoformat()
    assert manifest["columns"]["close"] == "float64"
    assert manifest["code_version"]
    store.write_bars(session, market.universe, market.bars[0], "x", clock=BarClock("session"))
    assert store.manifest("bars", session)["bar_clock"] == "session"


def test_the_same_rows_in_any_order_are_not_written_again(store: OfflineStore, market: SyntheticMarket) -> None:
    folder = data_file(store, market).parent
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    digest = store.manifest("bars", market.sessions[0])["digest"]
    backwards = market.bars[0][np.arange(len(market.bars[0]))[::-1]]
    again = store.write_bars(market.sessions[0], market.universe, backwards, market.name, bar_source="ticks")
    assert again == digest
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_a_session_names_its_instruments_without_being_read(tmp_path: Path, market: SyntheticMarket) -> None:
    store = OfflineStore(tmp_path / "own")
    session, bars = market.sessions[0], market.bars[0]
    store.write_bars(session, market.universe, bars[bars.instrument != 1], market.name)
    there = np.unique(bars.instrument[bars.instrument != 1])
    assert store.instrument_tokens("bars", session).tolist() == sorted(market.universe.tokens[there].tolist())
    with pytest.raises(UnreadableFile, match="does not exist"):
        store.instrument_tokens("ticks", session)
    (data,) = (store.root / "bars").glob("session=*/data-*.parquet")
    data.write_bytes(b"damaged")
    with pytest.raises(UnreadableFile, match="cannot be read"):
        store.instrument_tokens("bars", session)


def test_a_universe_that_grows_keeps_the_old_files_right(store: OfflineStore, market: SyntheticMarket) -> None:
    first = Instrument(instrument_token=1, symbol="AAA")
    grown = Universe(instruments=(first, *market.universe.instruments))
    moved = dataclasses.replace(market.bars[2], instrument=market.bars[2].instrument + np.int32(1))
    store.write_bars(market.sessions[2], grown, moved, market.name)
    assert store.universe() == grown
    assert store.read_bars(market.sessions[:1]).instrument.min() == 1
    assert np.array_equal(store.read_bars(market.sessions[:1]).close, market.bars[0].close)


# --- some instruments only -------------------------------------------------------------------------------------------


class RowGroups:
    """Counts the rows that are decoded from Parquet."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.rows = self.groups = 0
        read = pq.ParquetFile.read_row_groups

        def counted(file: pq.ParquetFile, groups: list[int], **settings: object) -> object:
            table = read(file, groups, **settings)
            self.rows, self.groups = self.rows + len(table), self.groups + len(groups)
            return table

        monkeypatch.setattr(pq.ParquetFile, "read_row_groups", counted)


def test_a_few_instruments_are_read_without_the_others(
    store: OfflineStore, market: SyntheticMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write_ticks(market.tick_sessions[0], market.universe, market.ticks[0], market.name)
    read = RowGroups(monkeypatch)
    symbols = ["SYN003", "SYN017"]
    wanted = [market.universe.index_of_symbol[s] for s in symbols]
    bars = store.read_bars(market.sessions[:1], symbols)
    assert bars.digest() == market.bars[0][np.isin(market.bars[0].instrument, wanted)].digest()
    assert 0 < read.groups <= 2
    assert read.rows < len(market.bars[0])
    read.rows = 0
    ticks = store.read_ticks(market.tick_sessions[0], symbols)
    assert ticks.digest() == market.ticks[0][np.isin(market.ticks[0].instrument, wanted)].digest()
    assert read.rows == len(ticks)  # an instrument's ticks are a row group of their own


def test_a_damaged_row_group_is_refused_by_those_who_read_it(store: OfflineStore, market: SyntheticMarket) -> None:
    path = data_file(store, market)
    with pq.ParquetFile(path) as file:
        first, last = file.metadata.row_group(0), file.metadata.row_group(file.num_row_groups - 1)
        damaged = last.column(6).data_page_offset + last.column(6).total_compressed_size // 2
        tokens = [file.metadata.row_group(0).column(0).statistics.min, last.column(0).statistics.max]
    assert first.num_rows < len(market.bars[0])
    content = bytearray(path.read_bytes())
    content[damaged] ^= 0xFF
    path.write_bytes(bytes(content))
    undamaged, hit = (
        next(i.symbol for i in market.universe.instruments if i.instrument_token == token) for token in tokens
    )
    with pytest.raises(UnreadableFile, match="materialise this session again"):
        store.read_bars(market.sessions[:1], [hit])
    assert len(store.read_bars(market.sessions[:1], [undamaged])) == 375


def test_an_unknown_symbol_is_refused_with_near_ones(store: OfflineStore, market: SyntheticMarket) -> None:
    with pytest.raises(UnknownInstrument, match="SYN003"):
        store.read_bars(market.sessions, ["syn_003"])
    with pytest.raises(UnknownInstrument, match="30 others"):
        store.read_bars(market.sessions, ["RELIANCE"])


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


# --- sessions that go ------------------------------------------------------------------------------------------------


def test_a_session_that_a_corrected_source_lost_can_be_removed(store: OfflineStore, market: SyntheticMarket) -> None:
    first, second, third = market.sessions[:3]
    store.drop_session("bars", market.sessions[3])
    write_features(store, first, SCHEMA, compute_features(store, first, SCHEMA))
    assert store.keep_only("bars", [second, third.date]) == (first.date,)
    assert store.sessions() == (second, third)
    assert not feature_file(store, SCHEMA, first).exists
    store.drop_session("bars", second)
    assert store.sessions() == (third,)
    assert [p.name for p in (store.root / "bars").iterdir()] == [f"session={third.date}"]


def test_only_what_came_from_a_source_goes_with_it(store: OfflineStore, market: SyntheticMarket) -> None:
    first, second, third, fourth = market.sessions
    store.write_bars(second, market.universe, market.bars[1], "recorder")
    assert store.keep_only("bars", [third], source=market.name) == (first.date, fourth.date)
    assert store.sessions() == (second, third)


# --- features --------------------------------------------------------------------------------------------------------


def write_all_features(store: OfflineStore, market: SyntheticMarket) -> list[FeatureRows]:
    rows = list(computed(store, market.sessions, SCHEMA))
    for session, found in zip(market.sessions, rows, strict=True):
        write_features(store, session, SCHEMA, found)
    return rows


def same(left: FeatureRows, right: FeatureRows) -> bool:
    return (
        left.bars.digest() == right.bars.digest()
        and left.X.tobytes() == right.X.tobytes()
        and np.array_equal(left.warm, right.warm)
    )


def test_features_come_back_bit_for_bit_and_know_the_sessions_before(
    store: OfflineStore, market: SyntheticMarket
) -> None:
    written = write_all_features(store, market)
    for session, rows in zip(market.sessions, written, strict=True):
        assert same(read_features(store, session, SCHEMA), rows)
        assert same(compute_features(store, session, SCHEMA), rows)
    assert written[0].bars.digest() == market.bars[0].digest()
    whole, warm = feature_table(Bars.concatenate(market.bars), SCHEMA, market.universe)
    last = len(market.bars[-1])
    assert written[-1].X.tobytes() == whole[-last:].tobytes()
    assert written[-1].warm[0] == warm[-last] == True  # noqa: E712  # what the sessions before are read for


def test_features_stand_on_as_many_sessions_as_the_schema_says(store: OfflineStore, market: SyntheticMarket) -> None:
    short = feature_schema(["momentum"], 1)
    assert short.history_sessions == 2
    for k, expected in enumerate(([], [0], [0, 1], [1, 2])):
        session = market.sessions[k]
        write_features(store, session, short, compute_features(store, session, short))
        held = feature_file(store, short, session).manifest()["bars"]
        assert [day for day, _ in held] == [str(market.sessions[n].date) for n in (*expected, k)]


def test_features_are_refused_once_their_bars_or_those_of_their_history_changed(
    store: OfflineStore, market: SyntheticMarket
) -> None:
    write_all_features(store, market)
    first, second = market.sessions[:2]
    higher = dataclasses.replace(market.bars[0], close=market.bars[0].high.copy())
    store.write_bars(first, market.universe, higher, market.name)
    for session in (first, second):
        with pytest.raises(StaleFeatures, match=f"features of {session.date}.*bars of {first.date}.*materialise"):
            read_features(store, session, SCHEMA)
    store.drop_session("bars", first)
    with pytest.raises(StaleFeatures, match="a session that is gone"):
        read_features(store, second, SCHEMA)


def test_features_with_other_corporate_actions_are_refused(store: OfflineStore, market: SyntheticMarket) -> None:
    session = market.sessions[-1]
    split = CorporateActions((CorporateAction("SYN001", session.date, "split", 0.5),))
    write_features(store, session, SCHEMA, compute_features(store, session, SCHEMA, actions=split), actions=split)
    assert len(read_features(store, session, SCHEMA, actions=split).X)
    with pytest.raises(StaleFeatures, match="another actions"):
        read_features(store, session, SCHEMA)
    plain = compute_features(store, session, SCHEMA)
    assert not same(plain, read_features(store, session, SCHEMA, actions=split))


def test_features_of_some_instruments_are_those_of_all(store: OfflineStore, market: SyntheticMarket) -> None:
    rows, session = write_all_features(store, market)[-1], market.sessions[-1]
    symbols = ["SYN021", "SYN002"]
    mine = np.isin(rows.bars.instrument, [market.universe.index_of_symbol[s] for s in symbols])
    expected = FeatureRows(rows.bars[mine], rows.X[mine], rows.warm[mine])
    assert same(read_features(store, session, SCHEMA, symbols), expected)
    assert same(compute_features(store, session, SCHEMA, symbols), expected)


def test_features_that_were_never_written_name_what_there_is(store: OfflineStore, market: SyntheticMarket) -> None:
    session = market.sessions[0]
    write_features(store, session, SCHEMA, compute_features(store, session, SCHEMA))
    with pytest.raises(UnreadableFile, match=f"schema={SCHEMA.hash[:16]}.*materialise features"):
        read_features(store, session, feature_schema(["rsi@5m"], 1))


@pytest.mark.parametrize("name", ["feature_schema_hash", "feature_code", "market_index"])
def test_features_of_another_schema_or_index_are_refused(
    store: OfflineStore, market: SyntheticMarket, name: str
) -> None:
    session = market.sessions[0]
    write_features(store, session, SCHEMA, compute_features(store, session, SCHEMA))
    path = feature_file(store, SCHEMA, session).folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {name: "another"}))
    with pytest.raises(StaleFeatures, match=f"another {name}.*materialise features"):
        read_features(store, session, SCHEMA)


def test_features_of_other_bars_are_not_written(store: OfflineStore, market: SyntheticMarket) -> None:
    rows = compute_features(store, market.sessions[0], SCHEMA)
    higher = dataclasses.replace(rows.bars, close=rows.bars.high.copy())
    for other in (rows._replace(bars=higher), FeatureRows(rows.bars[1:], rows.X[1:], rows.warm[1:])):
        with pytest.raises(MarketDataError, match="compute_features"):
            write_features(store, market.sessions[0], SCHEMA, other)


def test_quarantine_is_kept_with_its_reasons(store: OfflineStore) -> None:
    path = store.write_quarantine("bars", pd.DataFrame({"row": [3], "reason": ["off_grid"], "close": [None]}))
    assert pd.read_parquet(path)[["row", "reason"]].to_numpy().tolist() == [[3, "off_grid"]]


def test_features_whose_history_changed_since_they_were_computed_are_not_written(
    store: OfflineStore, market: SyntheticMarket
) -> None:
    first, second = market.sessions[:2]
    rows = compute_features(store, second, SCHEMA)
    higher = dataclasses.replace(market.bars[0], close=market.bars[0].high.copy())
    store.write_bars(first, market.universe, higher, market.name)
    with pytest.raises(StaleFeatures, match="compute them again"):
        write_features(store, second, SCHEMA, rows)


def test_rows_of_sessions_that_are_computed_together_are_those_of_each_alone(
    store: OfflineStore, market: SyntheticMarket
) -> None:
    schema = feature_schema(["momentum", "long_momentum", "rsi", "overnight_gap", "z_score@5m"], 1)
    split = CorporateActions((CorporateAction("SYN001", market.sessions[3].date, "split", 0.5),))
    bars, session = market.bars[2], market.sessions[2]
    store.write_bars(session, market.universe, bars[(bars.instrument != 0)], market.name)  # a day without one of them
    for chosen in (market.sessions, [market.sessions[k] for k in (0, 1, 3)]):
        for one, together in zip(chosen, computed(store, chosen, schema, actions=split), strict=True):
            alone = compute_features(store, one, schema, actions=split)
            assert together.X.tobytes() == alone.X.tobytes()
            assert np.array_equal(together.warm, alone.warm)
            assert np.array_equal(together.history_needed, alone.history_needed)
            assert together.basis == alone.basis
            history = [store.read_bars([day]) for day, _ in alone.basis["bars"]]
            rows, warm = feature_table(Bars.concatenate(history), schema, store.universe(), split)
            assert rows[-len(alone.X) :].tobytes() == alone.X.tobytes()
            assert np.array_equal(warm[-len(alone.X) :], alone.warm)


def test_a_pinned_store_is_not_written_through(store: OfflineStore, market: SyntheticMarket) -> None:
    pinned = store.pinned(market.sessions[:1])
    with pytest.raises(MarketDataError, match="pinned for reading"):
        pinned.write_bars(market.sessions[0], market.universe, market.bars[0], market.name)
    store.write_universe(Universe.from_symbols(["ABC"]), market.name)
    store.drop_session("bars", market.sessions[-1])
    assert pinned.universe() == market.universe
    assert len(store.universe()) == len(market.universe) + 1
    assert pinned.read_bars(market.sessions[:1]).digest() == market.bars[0].digest()


def test_features_computed_with_other_corporate_actions_are_not_written(
    store: OfflineStore, market: SyntheticMarket
) -> None:
    session = market.sessions[-1]
    split = CorporateActions((CorporateAction("SYN001", session.date, "split", 0.5),))
    with pytest.raises(StaleFeatures, match="same schema and actions"):
        write_features(store, session, SCHEMA, compute_features(store, session, SCHEMA), actions=split)


def test_features_do_not_stand_on_history_of_another_clock(store: OfflineStore, market: SyntheticMarket) -> None:
    first, second = market.sessions[:2]
    hourly = aggregate_bars(market.bars[0], first, len(market.universe), BarClock.minutes(60))
    store.write_bars(first, market.universe, hourly, market.name)
    expected = rf"bars of {first.date} are on the clock time:3600s.*features of {second.date}.*time:60s.*materialise"
    with pytest.raises(OtherClock, match=expected):
        compute_features(store, second, SCHEMA)
    store.write_bars(first, market.universe, hourly[:0], market.name)  # a session without a bar is on no clock
    assert len(compute_features(store, second, SCHEMA).X)
