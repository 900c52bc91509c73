"""Rows and state of the engine, and the edges of its fixed point."""

import datetime as dt
from dataclasses import replace

import numpy as np
import pytest

from feature_store.features import kernels
from feature_store.features.engine import BarsOutOfOrder, FeatureEngine, StateMismatch, compile_kernels, feature_table
from feature_store.features.schema import FeatureSchema, feature_schema
from feature_store.market.corporate_actions import CorporateAction, CorporateActions
from feature_store.market.types import MINUTE_NS, Bars, Session, Universe, UnknownInstrument
from tests.feature_markets import ALL, MIXED, FeatureMarket

# --- engine -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("index", [-1, 3])
@pytest.mark.parametrize("schema", [ALL, MIXED], ids=["one clock", "mixed"])
def test_an_instrument_outside_the_universe_is_refused(
    market: FeatureMarket, index: int, schema: FeatureSchema
) -> None:
    instrument = market.bars.instrument[:50].copy()
    instrument[20] = index
    with pytest.raises(UnknownInstrument, match="outside 0…2; build bars and FeatureEngine from the same universe"):
        feature_table(replace(market.bars[:50], instrument=instrument), schema, market.universe)


def test_read_only_strided_and_other_typed_arrays_give_the_same_bits_and_compile_nothing(market: FeatureMarket) -> None:
    rows, _ = feature_table(market.bars, MIXED, market.universe)

    def frozen(column: np.ndarray) -> np.ndarray:
        column = column.copy()
        column.flags.writeable = False
        return column

    def strided(column: np.ndarray) -> np.ndarray:
        return np.repeat(column, 2)[::2]

    def widened(column: np.ndarray) -> np.ndarray:
        return column.astype(np.int64) if column.dtype == np.int32 else column

    for change in (frozen, strided, widened):
        bars = Bars(*(change(getattr(market.bars, name)) for name in Bars.__dataclass_fields__))
        assert np.array_equal(feature_table(bars, MIXED, market.universe)[0], rows, equal_nan=True)
    assert len(kernels.step_of().signatures) == 1


def test_no_bars_give_no_rows(market: FeatureMarket) -> None:
    for schema in (ALL, MIXED):
        rows, warm = feature_table(market.bars[:0], schema, market.universe)
        assert rows.shape == (0, len(schema.names))
        assert warm.shape == (0,)


def test_warming_says_before_a_bar_whether_its_row_will_be_warm(market: FeatureMarket) -> None:
    """But for the first row of a session, which may be the one that the session or the anchor makes warm."""
    schema = feature_schema(["beta", "rsi", "session_return"], 1)
    engine, universe = FeatureEngine(schema, market.universe), market.universe
    days = (market.bars.start_ns - market.sessions[0].open_ns) // (24 * 60 * MINUTE_NS)
    seen = np.full(len(universe), -1)
    warmed = 0
    for row in range(len(market.bars)):
        i = market.bars.instrument[row]
        said = engine.warming()[i]
        _, warm = engine.step(market.bars[row : row + 1])
        if seen[i] == days[row]:
            assert warm[0] == (not said)
            warmed += int(warm[0])
        seen[i] = days[row]
    assert warmed > 100


def test_an_engine_that_saw_nothing_is_warming_all_and_one_with_longer_clocks_until_these_are_warm(
    market: FeatureMarket,
) -> None:
    engine = FeatureEngine(feature_schema(["last_return", "momentum@5m"], 1), market.universe)
    assert engine.warming().all()
    engine.step(market.bars[: 20 * 3])
    assert engine.warming().all()
    engine.step(market.bars[20 * 3 : 375 * 2])
    assert not engine.warming().any()


def test_a_snapshot_is_a_copy_and_goes_on_with_the_same_bits(market: FeatureMarket) -> None:
    engine = FeatureEngine(MIXED, market.universe)
    engine.step(market.bars[:1500])
    snapshot = engine.snapshot()
    expected, _ = engine.step(market.bars[1500:])
    for _ in range(2):
        other = FeatureEngine(MIXED, market.universe)
        other.restore(snapshot)
        assert np.array_equal(other.step(market.bars[1500:])[0], expected, equal_nan=True)


@pytest.mark.parametrize("other", ["schema", "universe", "code", "actions", "nothing"])
def test_a_snapshot_of_something_else_is_refused(
    market: FeatureMarket, other: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    universe = Universe.from_symbols(["A", "B", "C"]) if other == "universe" else market.universe
    schema = feature_schema(["beta"], 1) if other == "schema" else MIXED
    snapshot = FeatureEngine(schema, universe).snapshot()
    if other == "code":
        monkeypatch.setattr("feature_store.features.engine.SOURCE_DIGEST", "another")
    split = CorporateAction("STOCK0", market.sessions[0].date, "split", 0.5)
    actions = CorporateActions((split,) if other == "actions" else ())
    with pytest.raises(StateMismatch, match=r"another schema, universe or feature code, or of other corporate actions"):
        FeatureEngine(MIXED, market.universe, actions).restore({} if other == "nothing" else snapshot)


@pytest.mark.parametrize("again", ["repeated", "earlier"])
@pytest.mark.parametrize("at_once", [True, False])
def test_a_bar_that_comes_again_or_late_is_refused_by_symbol_and_time(
    market: FeatureMarket, again: str, at_once: bool
) -> None:
    rows = market.of("STOCK0")[:3]
    order = rows[[0, 1, 1]] if again == "repeated" else rows[[0, 2, 1]]
    engine = FeatureEngine(ALL, market.universe)
    with pytest.raises(BarsOutOfOrder, match=r"STOCK0, end 2026-01-05 .*each bar once, in order"):
        for batch in [order] if at_once else order[:, None]:
            engine.step(market.bars[batch])


# --- several threads, and memory of the caller's ----------------------------------------------------------------------


@pytest.mark.parametrize("schema", [ALL, MIXED], ids=["one clock", "three clocks"])
@pytest.mark.parametrize("threads", [2, 3, 8])
def test_rows_and_state_do_not_depend_on_how_many_threads_share_the_instruments(
    schema: FeatureSchema, threads: int, market: FeatureMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feature_store.features.engine._SPLIT_FROM_ROWS", 1)
    bars, actions = market.bars, CorporateActions((CorporateAction("STOCK1", market.sessions[2].date, "split", 0.5),))
    engines = [FeatureEngine(schema, market.universe, actions, threads=n) for n in (1, threads)]
    for part in (bars[:700], bars[700:703], bars[703:]):
        (rows, warm), (split_rows, split_warm) = (engine.step(part) for engine in engines)
        assert rows.tobytes() == split_rows.tobytes()
        assert np.array_equal(warm, split_warm)
    one, several = (engine.snapshot() for engine in engines)
    assert all(np.array_equal(one[name], several[name], equal_nan=one[name].dtype == np.float64) for name in one)


def test_threads_name_a_bar_that_is_out_of_order_and_an_unknown_instrument(
    market: FeatureMarket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("feature_store.features.engine._SPLIT_FROM_ROWS", 1)
    whose = market.of("STOCK1")
    order = np.concatenate([market.of("STOCK0")[:5], whose[[0, 2, 1]]])
    with pytest.raises(BarsOutOfOrder, match=r"bar 7 \(STOCK1"):
        FeatureEngine(ALL, market.universe, threads=2).step(market.bars[order])
    for strange in (-1, len(market.universe)):
        bars = replace(market.bars, instrument=np.full(len(market.bars), strange, dtype=np.int32))
        with pytest.raises(UnknownInstrument):
            FeatureEngine(ALL, market.universe, threads=2).step(bars)


@pytest.mark.parametrize("schema", [ALL, MIXED], ids=["one clock", "three clocks"])
def test_rows_are_written_where_the_caller_says(schema: FeatureSchema, market: FeatureMarket) -> None:
    rows, _ = feature_table(market.bars, schema, market.universe)
    out = np.ones((len(market.bars), len(schema.names)))
    given, _ = FeatureEngine(schema, market.universe).step(market.bars, out=out)
    assert given is out
    assert np.array_equal(out, rows, equal_nan=True)
    for wrong in (out[1:], out.astype(np.float32), np.asfortranarray(out)):
        with pytest.raises(ValueError, match="give a writable, C-contiguous float64 array of shape"):
            FeatureEngine(schema, market.universe).step(market.bars, out=wrong)


# --- the edges of the fixed point -------------------------------------------------------------------------------------


def of_closes(closes: list[float], volume: int = 1000) -> Bars:
    n, close = len(closes), np.array(closes)
    start = Session.regular(dt.date(2026, 1, 5)).open_ns + np.arange(n) * MINUTE_NS
    whose, ticks = np.zeros((2, n), dtype=np.int32)
    return Bars(whose, start, start + MINUTE_NS, close, close, close, close, np.full(n, volume), ticks)


@pytest.mark.parametrize(
    "closes",
    [
        [*np.round(np.linspace(150_000, 180_000, 21), 2)],
        [150_000.0] * 16 + [60_000.0] * 5,
        [150_000.0] * 20 + [15_000.0],  # a split of one share into ten that nobody told of
        [0.05, 0.06] * 11,
    ],
)
def test_dear_and_cheap_shares_and_large_moves_do_not_overflow(closes: list[float]) -> None:
    names = ["z_score", "bollinger_percent_b", "trend_r_squared", "volatility", "rolling_vwap_distance"]
    rows, warm = feature_table(of_closes(closes, 10**6), feature_schema(names, 1), Universe.from_symbols(["MRF"]))
    close = np.array(closes)[-20:]
    z = (close[-1] - close.mean()) / close.std()
    returns = np.diff(closes) / np.array(closes)[:-1]
    r = np.corrcoef(np.arange(20), close)[0, 1]
    expected = [z, z / 4 + 0.5, r * r, returns[-20:].std(), close[-1] / close.mean() - 1]
    assert warm[-1]
    np.testing.assert_allclose(rows[-1], expected, rtol=1e-6, atol=1e-9)


def test_sums_that_have_gone_past_the_largest_integer_still_give_the_window() -> None:
    one = of_closes([150_000.0 + 17 * k for k in range(60)], volume=30_000_000)
    other = replace(one, start_ns=one.start_ns + 86_400 * 10**9, end_ns=one.end_ns + 86_400 * 10**9)
    both = Bars.concatenate([one, other])
    schema = feature_schema(["vwap_distance", "rolling_vwap_distance"], 1)
    rows, _ = feature_table(both, schema, Universe.from_symbols(["MRF"]))
    mean = np.cumsum(other.close) / np.arange(1, 61)
    last_20 = np.convolve(other.close, np.full(20, 1 / 20), "valid")
    np.testing.assert_allclose(rows[60:, 0], other.close / mean - 1, rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(rows[79:, 1], other.close[19:] / last_20 - 1, rtol=1e-6)


def test_an_index_has_no_volume_and_so_no_turnover_whatever_its_bars_say() -> None:
    names = ["vwap_distance", "rolling_vwap_distance", "relative_volume", "obv_slope", "momentum"]
    one = of_closes([24_000.0 + 17 * k for k in range(60)], volume=5 * 10**15)
    other = replace(one, start_ns=one.start_ns + 86_400 * 10**9, end_ns=one.end_ns + 86_400 * 10**9)
    bars = Bars.concatenate([one, other])
    rows, warm = feature_table(bars, feature_schema(names, 1), Universe.from_symbols(["I"], frozenset({"I"})))
    assert rows[-1].tolist() == [0.0, 0.0, 1.0, 0.0, bars.close[-1] / bars.close[-11] - 1]
    assert warm[-1]


def test_a_price_that_becomes_ten_thousand_times_as_large_gives_a_large_volatility_not_none() -> None:
    bars = of_closes([3.53] * 60 + [236_250.0])
    rows, _ = feature_table(bars, feature_schema(["volatility", "volatility_ratio"], 1), Universe.from_symbols(["E"]))
    assert rows[-1, 0] > 1.0
    assert rows[-1, 1] > 1.0


def test_state_goes_on_over_the_night(market: FeatureMarket) -> None:
    rows, _ = feature_table(market.bars, feature_schema(["momentum"], 1), market.universe)
    stock = market.of("STOCK0")
    opened = stock[market.bars.start_ns[stock] >= market.sessions[1].open_ns][0]
    k = int(np.flatnonzero(stock == opened)[0])
    assert rows[opened, 0] == market.bars.close[opened] / market.bars.close[stock[k - 10]] - 1.0


def test_the_kernels_are_made_ready_for_what_a_session_needs() -> None:
    compile_kernels()
    assert len(kernels.step_of().signatures) == 1


# --- corporate actions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dividend", "demerger", "split"])
def test_an_action_is_stepped_over_as_reading_adjusts_for_it_volumes_by_its_kind(
    market: FeatureMarket, kind: str
) -> None:
    schema = feature_schema(["momentum", "relative_volume", "obv_slope"], 1)
    ex_date = market.sessions[1].date
    actions = CorporateActions((CorporateAction("STOCK0", ex_date, kind, 0.5),))
    rows, _ = feature_table(market.bars, schema, market.universe, actions)
    adjusted = actions.adjust(market.bars, market.universe, ex_date)
    expected, _ = feature_table(adjusted, schema, market.universe)
    after = market.bars.start_ns >= market.sessions[1].open_ns
    assert np.array_equal(rows[after], expected[after], equal_nan=True)
    untouched, _ = feature_table(market.bars, schema, market.universe)
    volumes = schema.names.index("relative_volume")
    assert np.array_equal(rows[after, volumes], untouched[after, volumes], equal_nan=True) == (kind != "split")
