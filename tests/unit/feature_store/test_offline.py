import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feature_store.bars import aggregate_bars
from feature_store.clocks import BarClock
from feature_store.features import feature_schema, feature_table
from feature_store.labels import forward_return
from feature_store.market import Bars, Instrument, MarketDataError, Universe, UnreadableFile
from feature_store.offline import OfflineStore, training_frame
from feature_store.synthetic import SyntheticMarket, synthetic_market

SCHEMA = feature_schema(None, 1)


@pytest.fixture(scope="module")
def market() -> SyntheticMarket:
    return synthetic_market(instruments=3, sessions=3, seed=1, index=False)


@pytest.fixture
def store(market: SyntheticMarket, tmp_path: Path) -> OfflineStore:
    store = OfflineStore(tmp_path / "store")
    for session, bars in zip(market.sessions, market.bars, strict=True):
        store.write_bars(session, market.universe, bars, market.name)
    return store


def test_bars_and_ticks_come_back_bit_for_bit(store: OfflineStore, market: SyntheticMarket) -> None:
    store.write_ticks(market.tick_session, market.universe, market.ticks, market.name)
    assert store.read_bars(market.sessions).digest() == Bars.concatenate(market.bars).digest()
    assert store.read_bars([market.sessions[1].date]).digest() == market.bars[1].digest()
    assert store.read_ticks(market.tick_session).digest() == market.ticks.digest()
    assert store.sessions() == market.sessions
    assert store.sessions("ticks") == (market.tick_session,)
    assert store.universe() == market.universe
    assert store.market() == market.name


def test_a_manifest_tells_digest_rows_source_and_market(store: OfflineStore, market: SyntheticMarket) -> None:
    manifest = store.manifest("bars", market.sessions[0])
    assert manifest["rows"] == len(market.bars[0])
    assert manifest["source"] == manifest["market"] == market.name
    assert manifest["session"] == market.sessions[0].date.isoformat()
    again = store.write_bars(market.sessions[0], market.universe, market.bars[0], market.name)
    assert again == manifest["digest"]


def test_nothing_is_left_beside_the_files(store: OfflineStore) -> None:
    assert not [path for path in store.root.rglob("*") if path.name.endswith(".tmp")]


def test_a_universe_that_grows_keeps_the_old_files_right(store: OfflineStore, market: SyntheticMarket) -> None:
    first = Instrument(instrument_token=1, symbol="AAA")
    grown = Universe(instruments=(first, *market.universe.instruments))
    moved = dataclasses.replace(market.bars[2], instrument=market.bars[2].instrument + np.int32(1))
    store.write_bars(market.sessions[2], grown, moved, market.name)
    assert store.universe() == grown
    assert store.read_bars(market.sessions[:1]).instrument.min() == 1
    assert np.array_equal(store.read_bars(market.sessions[:1]).close, market.bars[0].close)


def test_generated_and_real_data_never_share_a_store(store: OfflineStore, market: SyntheticMarket) -> None:
    with pytest.raises(MarketDataError, match="another directory"):
        store.write_universe(market.universe, "NSE")


def test_a_changed_file_is_refused(store: OfflineStore, market: SyntheticMarket) -> None:
    path = store.root / "bars" / f"session={market.sessions[0].date}" / "data.parquet"
    frame = pd.read_parquet(path)
    frame.loc[3, "close"] += 0.05
    frame.to_parquet(path, index=False)
    with pytest.raises(UnreadableFile, match="materialise"):
        store.read_bars(market.sessions)


def test_a_truncated_or_missing_file_is_refused(store: OfflineStore, market: SyntheticMarket) -> None:
    path = store.root / "bars" / f"session={market.sessions[0].date}" / "data.parquet"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UnreadableFile, match="materialise"):
        store.read_bars(market.sessions)
    with pytest.raises(UnreadableFile, match="holds bars of 3 sessions"):
        store.read_bars([market.tick_session])
    with pytest.raises(UnreadableFile, match="write data"):
        OfflineStore(store.root / "empty").universe()


def test_features_come_back_and_are_refused_once_their_bars_changed(
    store: OfflineStore, market: SyntheticMarket
) -> None:
    session, bars = market.sessions[0], market.bars[0]
    rows, warm = feature_table(bars, SCHEMA, 3)
    store.write_features(session, SCHEMA, bars, rows, warm)
    read_bars, read_rows, read_warm = store.read_features(session, SCHEMA)
    assert read_bars.digest() == bars.digest()
    assert np.array_equal(read_rows.view(np.int64), rows.view(np.int64))
    assert np.array_equal(read_warm, warm)
    higher = dataclasses.replace(bars, close=bars.high.copy())
    store.write_bars(session, market.universe, higher, market.name)
    with pytest.raises(MarketDataError, match="materialise features"):
        store.read_features(session, SCHEMA)


def test_quarantine_is_kept_with_its_reasons(store: OfflineStore) -> None:
    path = store.write_quarantine("bars", pd.DataFrame({"row": [3], "reason": ["off_grid"], "close": [None]}))
    assert pd.read_parquet(path)[["row", "reason"]].to_numpy().tolist() == [[3, "off_grid"]]


def test_a_training_frame_is_warm_labelled_and_tradable(store: OfflineStore, market: SyntheticMarket) -> None:
    frame = training_frame(store, market.sessions, SCHEMA, 10)
    bars = Bars.concatenate(market.bars)
    rows, warm = feature_table(bars, SCHEMA, 3)
    returns, label_end_ns = forward_return(bars, 10, 3)
    kept = warm & np.isfinite(returns)
    assert np.array_equal(frame.X, rows[kept])
    assert np.array_equal(frame.forward_return, returns[kept])
    assert np.array_equal(frame.label_end_ns, label_end_ns[kept])
    assert np.array_equal(frame.decision_ns, bars.end_ns[kept])
    assert (frame.label_end_ns > frame.decision_ns).all()
    assert (frame.start_ns, frame.end_ns) == (market.sessions[0].open_ns, market.sessions[-1].close_ns)
    assert frame.market.startswith("SYNTHETIC")
    assert len(frame) == kept.sum()


def test_an_index_is_not_trained_on(market: SyntheticMarket, tmp_path: Path) -> None:
    first = market.universe.instruments[0].model_copy(update={"tradable": False})
    universe = Universe(instruments=(first, *market.universe.instruments[1:]))
    store = OfflineStore(tmp_path)
    store.write_bars(market.sessions[0], universe, market.bars[0], market.name)
    assert set(training_frame(store, store.sessions(), SCHEMA, 10).instrument) == {1, 2}


def test_the_frame_digest_follows_data_schema_label_and_sessions(store: OfflineStore, market: SyntheticMarket) -> None:
    digests = [
        training_frame(store, market.sessions, SCHEMA, 10).digest,
        training_frame(store, market.sessions, SCHEMA, 5).digest,
        training_frame(store, market.sessions[:2], SCHEMA, 10).digest,
        training_frame(store, market.sessions, feature_schema(["rsi"], 1), 10).digest,
    ]
    assert training_frame(store, list(reversed(market.sessions)), SCHEMA, 10).digest == digests[0]
    bars = market.bars[0]
    volume = bars.volume.copy()
    volume[0] += 1  # not in any warm row, and still data it was made from
    store.write_bars(market.sessions[0], market.universe, dataclasses.replace(bars, volume=volume), market.name)
    digests.append(training_frame(store, market.sessions, SCHEMA, 10).digest)
    assert len(set(digests)) == 5


def test_bars_on_another_clock_are_refused(store: OfflineStore, market: SyntheticMarket) -> None:
    with pytest.raises(MarketDataError, match="time:300s"):
        training_frame(store, market.sessions, feature_schema(None, 5), 10)
    session = market.sessions[0]
    five = aggregate_bars(market.bars[0], session, 3, BarClock.minutes(5))
    store.write_bars(session, market.universe, five, market.name)
    assert len(training_frame(store, [session], feature_schema(None, 5), 3)) == 3 * (75 - 29 - 3)


def test_no_sessions_or_no_rows_are_refused(store: OfflineStore, market: SyntheticMarket) -> None:
    with pytest.raises(MarketDataError, match="no session"):
        training_frame(store, [], SCHEMA, 10)
    with pytest.raises(MarketDataError, match="shorten the horizon"):
        training_frame(store, market.sessions, SCHEMA, 374)
