"""Feature values of several strategies, stored once and read by each with its own columns."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from feature_store.features.projection import union_schema
from feature_store.features.schema import FeatureSchema, feature_schema
from feature_store.labels.forward_return import ForwardReturn
from feature_store.market.clocks import BarClock
from feature_store.market.types import Bars
from feature_store.offline import training_frames
from feature_store.offline.feature_rows import (
    FeatureRows,
    MissingFeatures,
    OtherClock,
    StaleFeatures,
    computed,
    feature_file,
    read_features,
    write_features,
)
from feature_store.offline.store import OfflineStore
from feature_store.offline.training_frames import training_frame
from tests.feature_markets import FeatureMarket, feature_market

SMALL = feature_schema(["volatility", "momentum"], 1)
LONG = feature_schema(["rsi@5m", "adx", "momentum"], 1)
UNION = union_schema([SMALL, LONG])
MINUTE = BarClock.minutes(1)


@pytest.fixture(scope="module")
def market() -> FeatureMarket:
    """Nine short sessions: two are not enough to warm every row of the small schema, seven are."""
    return feature_market(5, sessions=9, bars_per_session=12, missing=0.3)


def bars_of(market: FeatureMarket, k: int) -> Bars:
    session = market.sessions[k]
    return market.bars[(market.bars.start_ns >= session.open_ns) & (market.bars.end_ns <= session.close_ns)]


@pytest.fixture
def store(market: FeatureMarket, tmp_path: Path) -> OfflineStore:
    store = OfflineStore(tmp_path / "store")
    for k, session in enumerate(market.sessions):
        store.write_bars(session, market.universe, bars_of(market, k), "made up", clock=MINUTE)
    return store


def write_all(store: OfflineStore, schema: FeatureSchema) -> None:
    for session, rows in zip(store.sessions(), computed(store, store.sessions(), schema), strict=True):
        write_features(store, session, schema, rows)


def same(left: FeatureRows, right: FeatureRows) -> bool:
    return (
        left.bars.digest() == right.bars.digest()
        and left.X.tobytes() == right.X.tobytes()
        and np.array_equal(left.warm, right.warm)
    )


def test_each_schema_reads_out_of_the_union_what_it_alone_would_give(store: OfflineStore) -> None:
    write_all(store, UNION)
    cold = 0
    for schema in (SMALL, LONG, UNION, feature_schema(["momentum"], 1)):
        for session, rows in zip(store.sessions(), computed(store, store.sessions(), schema), strict=True):
            assert same(read_features(store, session, schema), rows)
            symbols = ["STOCK1"]
            (some,) = computed(store, [session], schema, symbols)
            assert same(read_features(store, session, schema, symbols), some)
            cold += int((~rows.warm).sum()) if schema == SMALL else 0
    assert cold > 0


def test_a_schema_that_is_stored_alone_needs_no_union(store: OfflineStore) -> None:
    write_all(store, SMALL)
    session = store.sessions()[-1]
    (rows,) = computed(store, [session], SMALL)
    assert same(read_features(store, session, SMALL), rows)
    with pytest.raises(MissingFeatures, match=r"there is schema=\w+: materialise features"):
        read_features(store, session, LONG)


def test_a_stale_file_of_its_own_does_not_hide_a_fresh_union(store: OfflineStore, market: FeatureMarket) -> None:
    write_all(store, SMALL)
    last, bars = market.sessions[-1], bars_of(market, 8)
    store.write_bars(last, market.universe, dataclasses.replace(bars, close=bars.high.copy()), "made up", clock=MINUTE)
    with pytest.raises(StaleFeatures, match="older than the bars"):
        read_features(store, last, SMALL)
    write_all(store, UNION)
    (rows,) = computed(store, [last], SMALL)
    assert same(read_features(store, last, SMALL), rows)


def test_a_union_is_stale_once_any_bars_that_it_stands_on_have_changed(
    store: OfflineStore, market: FeatureMarket
) -> None:
    write_all(store, UNION)
    third, bars = market.sessions[2], bars_of(market, 2)  # in the union's history of the last, not in the small one's
    store.write_bars(third, market.universe, dataclasses.replace(bars, close=bars.high.copy()), "made up", clock=MINUTE)
    with pytest.raises(StaleFeatures, match=f"bars of {third.date}"):
        read_features(store, market.sessions[-1], SMALL)
    five = dataclasses.replace(bars[:1], end_ns=bars.start_ns[:1] + 5 * 60 * 10**9)
    store.write_bars(third, market.universe, five, "made up", clock=BarClock.minutes(5))
    with pytest.raises(StaleFeatures, match="out of a wider schema"):
        read_features(store, market.sessions[-1], SMALL)
    with pytest.raises(OtherClock):
        read_features(store, market.sessions[-1], UNION)


def test_a_file_with_a_feature_that_is_gone_is_passed_over(store: OfflineStore) -> None:
    write_all(store, UNION)
    session = store.sessions()[-1]
    manifest = feature_file(store, UNION, session).folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"adx"', '"adxx"'))
    with pytest.raises(MissingFeatures):
        read_features(store, session, SMALL)


def test_a_training_frame_reads_its_columns_out_of_the_union(
    store: OfflineStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *_, last = store.sessions()

    def frame() -> training_frames.TrainingFrame:
        return training_frame(store, None, first.date, last.date, features=SMALL, label=ForwardReturn(2))

    alone = frame()
    write_all(store, UNION)

    def nothing_to_compute(_store, sessions, *_rest):
        assert list(sessions) == []
        return iter(())

    monkeypatch.setattr(training_frames, "computed", nothing_to_compute)
    assert frame().digest == alone.digest
