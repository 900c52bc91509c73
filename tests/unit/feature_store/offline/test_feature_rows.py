"""Rows of features: they come back bit for bit, or are refused with what to do."""

import dataclasses
import json

import numpy as np
import pytest

from feature_store.bars.builder import aggregate_bars
from feature_store.features.engine import feature_table
from feature_store.features.schema import feature_schema
from feature_store.market.clocks import BarClock
from feature_store.market.corporate_actions import CorporateAction, CorporateActions
from feature_store.market.types import Bars, MarketDataError, UnreadableFile
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
from feature_store.sources.synthetic import SyntheticMarket
from tests.offline_world import SCHEMA


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
