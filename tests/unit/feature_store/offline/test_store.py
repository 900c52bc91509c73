"""What a store gives back, of all instruments or some, and what is dropped from it."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from feature_store.market.clocks import BarClock
from feature_store.market.types import Bars, Instrument, MarketDataError, Universe, UnknownInstrument, UnreadableFile
from feature_store.offline.feature_rows import compute_features, feature_file, write_features
from feature_store.offline.store import OfflineStore
from feature_store.sources.synthetic import SyntheticMarket
from tests.offline_world import SCHEMA, data_file, first_ticks

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


# --- what is set aside, and what is pinned ---------------------------------------------------------------------------


def test_quarantine_is_kept_with_its_reasons(store: OfflineStore) -> None:
    path = store.write_quarantine("bars", pd.DataFrame({"row": [3], "reason": ["off_grid"], "close": [None]}))
    assert pd.read_parquet(path)[["row", "reason"]].to_numpy().tolist() == [[3, "off_grid"]]


def test_a_pinned_store_is_not_written_through(store: OfflineStore, market: SyntheticMarket) -> None:
    pinned = store.pinned(market.sessions[:1])
    with pytest.raises(MarketDataError, match="pinned for reading"):
        pinned.write_bars(market.sessions[0], market.universe, market.bars[0], market.name)
    store.write_universe(Universe.from_symbols(["ABC"]), market.name)
    store.drop_session("bars", market.sessions[-1])
    assert pinned.universe() == market.universe
    assert len(store.universe()) == len(market.universe) + 1
    assert pinned.read_bars(market.sessions[:1]).digest() == market.bars[0].digest()
