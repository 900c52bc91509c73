"""Real NSE prices, where there are any; the project holds none."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from feature_store.bars import quality
from feature_store.bars.builder import BarBuilder, aggregate_bars, bars_of_session
from feature_store.bars.comparison import compare_bars, comparison_plot
from feature_store.features import audit as checks
from feature_store.features.engine import feature_table
from feature_store.features.schema import feature_schema
from feature_store.labels.forward_return import ForwardReturn
from feature_store.market.calendar import nse_sessions
from feature_store.market.clocks import BarClock
from feature_store.market.types import MINUTE_NS, SECOND_NS, Bars
from feature_store.offline.store import OfflineStore
from feature_store.offline.training_frames import training_frame
from feature_store.sources.reading import SourceBars, SourceTicks, by_session, known_sessions, read_bars, read_ticks

DATA = os.environ.get("ALPHA_PANDA_TEST_DATA")
pytestmark = pytest.mark.skipif(
    not DATA, reason="ALPHA_PANDA_TEST_DATA is not set; it names a directory of real NSE Parquet files"
)

MINUTE = BarClock.minutes(1)


@pytest.fixture(scope="module")
def vendor() -> SourceBars:
    return read_bars(Path(DATA or "") / "nse_minute_2021-03-26_2021-06-03.parquet")


@pytest.fixture(scope="module")
def source() -> SourceTicks:
    return read_ticks(Path(DATA or "") / "nse_ticks_2021-05-31_2021-06-03.parquet")


def test_every_row_of_the_files_is_used(vendor: SourceBars, source: SourceTicks) -> None:
    assert (len(vendor.bars), len(source.ticks)) == (588_399, 3_917_125)
    assert (vendor.quarantine.counts(), source.quarantine.counts()) == ({}, {})
    assert (vendor.clock, source.volume_decreases) == (BarClock.minutes(1), 0)
    assert (len(known_sessions(vendor.bars)), len(known_sessions(source.ticks))) == (45, 4)
    assert sum(not i.tradable for i in vendor.universe.instruments) == 12
    assert vendor.universe == source.universe


def test_bars_of_the_ticks_equal_the_vendors_bit_for_bit(vendor: SourceBars, source: SourceTicks) -> None:
    expected = dict(by_session(vendor.bars))
    built = 0
    for session, ticks in by_session(source.ticks):
        bars = bars_of_session(ticks, session, len(source.universe), MINUTE)
        assert bars.digest() == expected[session].digest()
        built += len(bars)
    assert built == 88_430


@pytest.fixture(scope="module")
def tick_days(vendor: SourceBars, source: SourceTicks) -> tuple[Bars, Bars]:
    """Bars of the four tick days: built of the ticks, and the vendor's."""
    expected, n = dict(by_session(vendor.bars)), len(source.universe)
    days = list(by_session(source.ticks))
    built = Bars.concatenate([bars_of_session(ticks, session, n, MINUTE) for session, ticks in days])
    return built, Bars.concatenate([expected[session] for session, _ in days])


def test_the_comparison_finds_no_difference_from_the_vendors_bars(
    vendor: SourceBars, tick_days: tuple[Bars, Bars]
) -> None:
    result = compare_bars(*tick_days, vendor.universe)
    assert result.passed, result.summary()
    assert result.summary() == "all 88,430 bars agree"
    assert comparison_plot(result).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        ("price", "1 differ in close; prices by up to ₹0.05"),
        ("volume", "1 differ in volume; volumes by up to 1 shares"),
        ("dropped", "88,429 bars compared; 1 only the ticks make"),
        ("extra", "88,429 bars compared; 1 only the vendor has"),
        ("shifted", "the vendor's bars are stamped +60 s off ours"),
    ],
)
def test_the_comparison_names_what_was_changed_in_the_vendors_bars(
    vendor: SourceBars, tick_days: tuple[Bars, Bars], what: str, expected: str
) -> None:
    built, theirs = tick_days
    row = 40_000
    symbol = vendor.universe.instruments[theirs.instrument[row]].symbol
    if what == "price":
        theirs = replace(theirs, close=theirs.close + 0.05 * (np.arange(len(theirs)) == row))
    elif what == "volume":
        theirs = replace(theirs, volume=theirs.volume + (np.arange(len(theirs)) == row))
    elif what == "dropped":
        theirs = theirs[np.arange(len(theirs)) != row]
    elif what == "extra":
        built = built[np.arange(len(built)) != row]
    else:
        theirs = replace(theirs, start_ns=theirs.start_ns + MINUTE_NS, end_ns=theirs.end_ns + MINUTE_NS)
    result = compare_bars(built, theirs, vendor.universe)
    assert not result.passed
    assert expected in result.summary()
    if what != "shifted":
        assert [(d.symbol, d.start_ns) for d in result.first] == [(symbol, tick_days[1].start_ns[row])]


@pytest.mark.parametrize("clock", ["5m", "15m", "60m", "session"])
def test_longer_bars_of_the_vendors_minutes_equal_those_of_the_ticks(
    source: SourceTicks, vendor: SourceBars, clock: str
) -> None:
    expected, n = dict(by_session(vendor.bars)), len(source.universe)
    for session, ticks in by_session(source.ticks):
        longer = aggregate_bars(expected[session], session, n, BarClock.parse(clock))
        assert longer.digest() == bars_of_session(ticks, session, n, BarClock.parse(clock)).digest()


def test_every_tick_of_a_real_day_is_accounted_for(source: SourceTicks) -> None:
    session, ticks = next(iter(by_session(source.ticks)))
    builder = BarBuilder(len(source.universe), BarClock("ticks", 100), grace_ns=5 * SECOND_NS)
    delay_ns = np.arange(len(source.universe)) % 5 * SECOND_NS  # of each instrument: ticks of one time keep their order
    disordered = ticks[np.argsort(ticks.event_time_ns + delay_ns[ticks.instrument], kind="stable")]
    parts = [builder.step(disordered[k : k + 50_000], session) for k in range(0, len(ticks), 50_000)]
    bars = Bars.concatenate([*parts, builder.advance(session.close_ns)])
    assert int(bars.tick_count.sum()) == len(ticks)
    assert (builder.late_ticks, builder.ticks_outside_session, builder.volume_decreases) == (0, 0, 0)
    assert builder.reordered_ticks > 0
    highest = np.zeros(len(source.universe), dtype=np.int64)
    np.maximum.at(highest, ticks.instrument, ticks.day_volume)
    traded = np.bincount(bars.instrument, weights=bars.volume, minlength=len(highest))
    assert traded.astype(np.int64).tolist() == highest.tolist()


def test_frames_of_a_live_day_give_the_same_bars(source: SourceTicks) -> None:
    session, ticks = next(iter(by_session(source.ticks)))
    n = len(source.universe)
    builder, parts, begin = BarBuilder(n, MINUTE), [], 0
    sizes = np.random.default_rng(1).integers(1, 2000, 2000)
    for size in sizes:
        parts.append(builder.step(ticks[begin : begin + int(size)], session))
        begin += int(size)
    assert begin >= len(ticks)
    parts.append(builder.advance(session.close_ns))
    assert Bars.concatenate(parts).digest() == bars_of_session(ticks, session, n, MINUTE).digest()


def test_features_of_real_bars_pass_the_checks(vendor: SourceBars) -> None:
    bars, universe, schema = vendor.bars, vendor.universe, feature_schema(None, 1)
    rows, warm = feature_table(bars, schema, universe)
    results = (
        quality.price_sanity(bars),
        quality.monotone_times(bars),
        quality.inside_sessions(bars, known_sessions(bars)),
        checks.warm_rows_finite(rows, warm, schema),
        checks.features_pass_audit(bars[:20_000], schema, universe),
    )
    assert [r for r in results if not r.passed] == []


def test_the_known_outages_are_found(vendor: SourceBars) -> None:
    clock, known = BarClock.parse("1m"), known_sessions(vendor.bars)
    sessions = nse_sessions(known[0].date, known[-1].date)
    assert quality.missing_sessions(vendor.bars, sessions).passed
    found = quality.outages(vendor.bars, sessions, clock, vendor.universe)
    longest = found.loc[found.groupby("date")["intervals"].idxmax()].set_index("date")
    spans = {str(date): (row.start, row.end, row.whole_market) for date, row in longest.iterrows()}
    assert spans["2021-04-07"] == ("10:35", "15:30", True)
    assert spans["2021-04-23"] == ("09:15", "10:59", True)
    assert spans["2021-05-07"] == ("12:55", "14:02", True)
    assert spans["2021-05-12"] == ("13:38", "15:30", False)
    assert spans["2021-05-24"] == ("11:35", "13:58", False)
    assert spans["2021-05-25"] == ("11:31", "15:30", False)
    for date in ("2021-04-13", "2021-04-26", "2021-05-03"):
        assert date not in spans
    assert len(found) == 68
    assert not quality.no_outages(vendor.bars, sessions, clock, vendor.universe).passed
    assert quality.stale_prices(vendor.bars, vendor.universe).passed
    assert quality.outliers(vendor.bars, vendor.universe).passed


def test_repeated_seconds_of_real_ticks_are_few_and_never_alike(source: SourceTicks) -> None:
    result = quality.duplicate_seconds(source.ticks)
    assert result.passed
    assert (result.details["repeated"], result.details["alike"]) == (102_595, 0)


def test_the_hourly_file_lacks_one_session() -> None:
    hourly = read_bars(Path(DATA or "") / "nse_60minute_2024-12_2025-08.parquet")
    known = known_sessions(hourly.bars)
    sessions = nse_sessions(known[0].date, known[-1].date)
    result = quality.missing_sessions(hourly.bars, sessions)
    assert not result.passed
    assert result.details["examples"] == "2025-01-09"
    found = quality.outages(hourly.bars, sessions, BarClock.parse("60m"), hourly.universe)
    assert [(str(row.date), row.start, row.end, row.missing) for row in found.itertuples()] == [
        ("2025-01-09", "09:15", "15:30", 48)
    ]


def test_real_sessions_go_through_the_store_bit_for_bit(
    vendor: SourceBars, source: SourceTicks, tmp_path: Path
) -> None:
    store = OfflineStore(tmp_path)
    for session, bars in list(by_session(vendor.bars))[-4:]:
        store.write_bars(session, vendor.universe, bars, "NSE", bar_source="vendor")
        assert store.read_bars([session]).digest() == bars.digest()
    session, ticks = next(iter(by_session(source.ticks)))
    store.write_ticks(session, source.universe, ticks, "NSE")
    assert store.read_ticks(session).digest() == ticks.digest()
    reliance = ticks[ticks.instrument == source.universe.index_of_symbol["RELIANCE"]]
    assert store.read_ticks(session, ["RELIANCE"]).digest() == reliance.digest()


def test_hourly_bars_give_a_training_frame(tmp_path: Path) -> None:
    source = read_bars(Path(DATA or "") / "nse_60minute_2024-12_2025-08.parquet")
    assert source.clock == BarClock.minutes(60)
    store = OfflineStore(tmp_path)
    for session, bars in list(by_session(source.bars))[:20]:
        store.write_bars(session, source.universe, bars, "NSE")
    first, last = store.sessions()[0].date, store.sessions()[-1].date
    frame = training_frame(
        store,
        ["RELIANCE", "TCS"],
        first,
        last,
        features=feature_schema(["time_of_day"], 60),
        label=ForwardReturn(2, 60),
    )
    assert len(frame) > 0
