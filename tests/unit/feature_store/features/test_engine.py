import datetime as dt
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from feature_store.bars.builder import aggregate_bars
from feature_store.features import kernels
from feature_store.features.engine import BarsOutOfOrder, FeatureEngine, StateMismatch, compile_kernels, feature_table
from feature_store.features.folding import BarFolder
from feature_store.features.library import FeatureSpec, Mirror, declare, feature
from feature_store.features.schema import (
    EVENT_FEATURES,
    FEATURES,
    MOMENTUM_FEATURES,
    FeatureSchema,
    UnknownFeature,
    anchor_days,
    feature_schema,
    schema_hash,
)
from feature_store.features.window import CAPACITY, CLOSE, Window, units
from feature_store.market.clocks import BarClock
from feature_store.market.corporate_actions import CorporateAction, CorporateActions
from feature_store.market.types import MINUTE_NS, Bars, Session, Universe, UnknownInstrument, ist_ns
from models_registry.refs import FeatureColumn
from tests.feature_markets import FeatureMarket, feature_market

ALL = feature_schema(None, 1)
MIXED = feature_schema(["momentum", "rsi", "trend_slope@5m", "z_score@15m", "beta", "spread"], 1)


@pytest.fixture(scope="module")
def market() -> FeatureMarket:
    return feature_market(2, stocks=2, sessions=4, missing=0.05)


# --- schema -----------------------------------------------------------------------------------------------------------


def test_there_are_more_than_24_features_and_each_declaration_is_complete() -> None:
    assert len({spec.name for spec in FEATURES}) == len(FEATURES) >= 24
    for spec in FEATURES:
        assert 1 <= spec.warm_up < CAPACITY
        assert all((spec.units, spec.source, spec.version >= 1, spec.dtype == "float64"))
        periods = [value for value in spec.parameters.values() if isinstance(value, int)]
        assert spec.warm_up in {1, 2, *periods, *(p + 1 for p in periods)}


def test_the_momentum_model_looks_only_at_features_that_are_finite_on_any_source_and_no_events() -> None:
    assert "beta" not in MOMENTUM_FEATURES
    assert "spread" not in MOMENTUM_FEATURES
    assert "rsi" in MOMENTUM_FEATURES
    assert not set(EVENT_FEATURES) & set(MOMENTUM_FEATURES)
    assert set(EVENT_FEATURES) < {spec.name for spec in FEATURES}


def test_models_that_name_no_features_go_on_with_the_columns_they_were_trained_on() -> None:
    """Versions that are promoted carry this hash: a feature that is added to the default set would refuse them all."""
    known = "24a86777bf5b17d39ad86338cadfa101b54b070f5e74bb52d493f1c8516a1488"
    assert feature_schema(MOMENTUM_FEATURES, 1).hash == known


def test_every_feature_of_the_platform_says_what_becomes_of_it_in_a_mirrored_market() -> None:
    assert [spec.name for spec in FEATURES if spec.mirror == "none"] == []


@pytest.mark.parametrize(("mirror", "top"), [("complement", None), ("sign", 1.0)])
def test_a_complement_and_nothing_else_names_what_it_is_the_rest_of(mirror: Mirror, top: float | None) -> None:
    with pytest.raises(ValueError, match="a complement names what a value and its mirror image add up to"):
        declare(lambda bars: 0.0, warm_up=1, units="1", source="tests", mirror=mirror, top=top)


def test_the_columns_fit_a_sidecar_and_give_the_hash() -> None:
    columns = [FeatureColumn.model_validate(column) for column in ALL.columns()]
    assert schema_hash([c.model_dump() for c in columns], ALL.bar_clock) == ALL.hash
    assert schema_hash(json.loads(json.dumps(ALL.columns())), ALL.bar_clock) == ALL.hash


def test_the_hash_tells_order_choice_clocks_parameters_and_version_apart() -> None:
    schema = feature_schema(["rsi", "z_score"], 1)
    columns = schema.columns()
    hashes = {
        schema.hash,
        feature_schema(["z_score", "rsi"], 1).hash,
        feature_schema(["rsi"], 1).hash,
        feature_schema(["rsi", "z_score"], 5).hash,
        feature_schema(["rsi", "z_score"], "session").hash,
        feature_schema(["rsi", "z_score@5m"], 1).hash,
        feature_schema(["rsi", "z_score@15m"], 1).hash,
        schema_hash([columns[0], {**columns[1], "parameters": {"period": 15}}], schema.bar_clock),
        schema_hash([columns[0], {**columns[1], "version": 2}], schema.bar_clock),
    }
    assert len(hashes) == 9
    assert feature_schema(("rsi", "z_score"), "60s").hash == schema.hash


def test_another_process_gives_the_same_hash() -> None:
    code = "import sys, feature_store.features.schema as s; sys.stdout.write(s.feature_schema(None, 1).hash)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == ALL.hash


def test_columns_stand_in_the_order_they_were_named(market: FeatureMarket) -> None:
    names = ["z_score@5m", "rsi", "momentum@15m", "momentum"]
    rows, _ = feature_table(market.bars, feature_schema(names, 1), market.universe)
    for k, name in enumerate(names):
        alone, _ = feature_table(market.bars, feature_schema([name], 1), market.universe)
        assert np.array_equal(rows[:, k], alone[:, 0], equal_nan=True)


@pytest.mark.parametrize(
    ("names", "clock", "message"),
    [
        (["no_such"], 1, "there are last_return, momentum"),
        (["momentun"], 1, "did you mean momentum"),
        (["rsi", "vwap_distanc@5m"], 1, "did you mean vwap_distance"),
        ([], 1, "at least one"),
        (["rsi", "rsi"], 1, "each once"),
        (["rsi@1m"], 1, "cannot be made of bars of 1m"),
        (["rsi@7m"], 5, "name a multiple"),
        (["rsi@1m"], 5, "cannot be made"),
        (["rsi@100t"], 1, "cannot be made"),
        (["rsi@5m"], "100t", "cannot be made"),
        (["rsi@60m"], "session", "cannot be made"),
        (["rsi@soon"], 1, "'soon' is no bar clock"),
    ],
)
def test_a_wrong_choice_of_features_says_what_is_wrong(names: list[str], clock: str | int, message: str) -> None:
    with pytest.raises(UnknownFeature, match=message):
        feature_schema(names, clock)


def test_features_are_grouped_by_clock_under_their_plain_names() -> None:
    found = {clock.short: [spec.name for spec in specs] for clock, specs in MIXED.by_clock.items()}
    assert found == {"1m": ["momentum", "rsi", "beta", "spread"], "5m": ["trend_slope"], "15m": ["z_score"]}


def test_bar_clock_and_warm_up_come_from_the_choice() -> None:
    schema = feature_schema(["momentum", "time_of_day"], 5)
    assert (schema.bar_clock, schema.bar_ns, schema.warm_up) == ("time:300s", 5 * MINUTE_NS, 11)
    assert feature_schema(["momentum"], "100t").bar_ns == 0


@pytest.mark.parametrize(
    ("names", "clock", "sessions"),
    [
        (["momentum"], "1m", 2),  # one that the window may reach into, and a spare one for missing bars
        (["overnight_gap"], "1m", 2),
        (["rsi"], "1m", 3),
        (["momentum"], "60m", 3),
        (["momentum"], "session", 12),
        (["momentum", "momentum@session"], "1m", 12),
        (["rsi@5m"], "1m", 7),
    ],
)
def test_so_many_sessions_before_the_first_make_every_row_warm_and_equal(
    names: list[str], clock: str, sessions: int
) -> None:
    schema = feature_schema(names, clock)
    assert schema.history_sessions == sessions
    market = feature_market(4, stocks=1, sessions=sessions + 3, clock=clock)
    rows, _ = feature_table(market.bars, schema, market.universe)
    late = np.flatnonzero(market.bars.start_ns >= market.sessions[3].open_ns)
    found, warm = feature_table(market.bars[late], schema, market.universe)
    after = np.flatnonzero(market.bars.start_ns[late] >= market.sessions[-1].open_ns)
    assert warm[after].all()
    assert np.array_equal(found[after].view(np.int64), rows[late][after].view(np.int64))


@pytest.mark.parametrize("clock", ["1m", "5m", "15m", "60m", "session"])
def test_a_block_between_anchors_holds_at_least_128_bars_of_any_clock(clock: str) -> None:
    bar_clock = BarClock.parse(clock)
    a_session = 1 if clock == "session" else -(-22_500 * 10**9 // bar_clock.size)
    assert anchor_days(bar_clock) * 5 / 7 * a_session >= 128 or anchor_days(bar_clock) == 1
    assert anchor_days(BarClock.parse("100t")) == 1


def test_the_decorator_adds_a_feature_and_declare_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    def closing(bars: Window, ago: int = 1) -> float:
        return float(units(bars, CLOSE, ago))

    added: list[tuple[FeatureSpec, object]] = []
    monkeypatch.setattr("feature_store.features.library.DECLARED", added)
    spec, _ = declare(closing, warm_up=2, units="units", source="here")
    assert (spec.name, spec.parameters, spec.warm_up, spec.memory) == ("closing", {"ago": 1}, 2, "window")
    assert added == []
    feature(warm_up=2, units="units", source="here")(closing)
    assert [spec.name for spec, _ in added] == ["closing"]


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


# --- longer clocks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clock", ["5m", "7m", "15m", "60m", "session"])
@pytest.mark.parametrize("step", [1, 13, 100_000])
def test_folded_bars_are_the_aggregated_ones(clock: str, step: int) -> None:
    """Whatever the batches; the last bars of a session without its last minute come with the next session."""
    market = feature_market(9, stocks=2, sessions=3, missing=0.2, odd=True)
    bars, n, longer = market.bars, len(market.universe), BarClock.parse(clock)
    day = np.searchsorted([s.open_ns for s in market.sessions], bars.start_ns, side="right") - 1
    parts = [aggregate_bars(bars[day == k], s, n, longer) for k, s in enumerate(market.sessions)]
    expected = Bars.concatenate(parts)
    folder = BarFolder(n, longer)
    folded = Bars.concatenate([folder.step(bars[begin : begin + step])[0] for begin in range(0, len(bars), step)])
    for i in range(n):
        whole, mine = expected[expected.instrument == i], folded[folded.instrument == i]
        first = bars[bars.instrument == i].start_ns[0]
        begin = int(first != whole.start_ns[0])  # not seen from its start
        assert len(whole) - begin - 1 <= len(mine) <= len(whole) - begin
        for name in Bars.__dataclass_fields__:
            left, right = getattr(mine, name), getattr(whole, name)[begin : begin + len(mine)]
            assert np.array_equal(left, right, equal_nan=name in {"spread_bps", "imbalance"}), name


def one_by_one(day: dt.date, begin: dt.time, minutes: int) -> Bars:
    start = ist_ns(day, begin) + np.arange(minutes) * MINUTE_NS
    price = np.arange(100.0, 100.0 + minutes)
    return Bars(
        np.zeros(minutes, dtype=np.int32), start, start + MINUTE_NS, price, price, price, price,
        np.ones(minutes, dtype=np.int64), np.ones(minutes, dtype=np.int32),
    )  # fmt: skip


def test_a_longer_bar_is_known_from_its_own_end_on_and_not_before() -> None:
    bars = one_by_one(dt.date(2026, 1, 5), dt.time(9, 15), 12)
    closed, known = BarFolder(1, BarClock.parse("5m")).step(bars)
    assert known.tolist() == [0] * 4 + [1] * 5 + [2] * 3
    assert closed.close.tolist() == [104.0, 109.0]


def test_a_longer_bar_that_was_not_seen_from_its_start_is_left_out() -> None:
    bars = one_by_one(dt.date(2026, 1, 5), dt.time(9, 15), 20)
    whole, _ = BarFolder(1, BarClock.parse("5m")).step(bars)
    late, known = BarFolder(1, BarClock.parse("5m")).step(bars[7:])
    assert late.start_ns.tolist() == whole.start_ns[2:].tolist()
    assert known[:8].tolist() == [0] * 7 + [1]


def test_an_evening_session_makes_one_bar_of_itself_and_hours_in_the_same_count() -> None:
    evening, morning = dt.date(2026, 1, 6), dt.date(2026, 1, 7)
    bars = Bars.concatenate(
        [
            one_by_one(dt.date(2026, 1, 5), dt.time(9, 15), 375),
            one_by_one(evening, dt.time(18, 15), 60),
            one_by_one(morning, dt.time(9, 15), 60),
        ]
    )
    sessions, _ = BarFolder(1, BarClock.parse("session")).step(bars)
    assert sessions.volume.tolist() == [375, 60]
    hours, _ = BarFolder(1, BarClock.parse("60m")).step(bars)
    assert hours.volume.tolist() == [60] * 6 + [15, 60, 60]
    assert hours.end_ns[6] == Session.regular(dt.date(2026, 1, 5)).close_ns


def test_a_row_carries_the_newest_closed_longer_bar(market: FeatureMarket) -> None:
    rows, _ = feature_table(market.bars, feature_schema(["last_return@5m"], 1), market.universe)
    stock = market.of("STOCK1")
    closed, known = BarFolder(len(market.universe), BarClock.parse("5m")).step(market.bars)
    for row in stock[[40, 41, 42, 43, 44, 45, 400, 700]]:
        mine = np.flatnonzero(closed.instrument[: known[row]] == market.bars.instrument[row])[-2:]
        before, last = closed.close[mine]
        assert rows[row, 0] == last / before - 1.0
        assert closed.end_ns[mine[-1]] <= market.bars.end_ns[row]


def test_a_recursive_feature_on_session_bars_beside_minutes_is_refused_with_what_it_would_need() -> None:
    with pytest.raises(UnknownFeature, match=r"rsi@session: .* needs 361 sessions"):
        feature_schema(["rsi@session"], 1)


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
