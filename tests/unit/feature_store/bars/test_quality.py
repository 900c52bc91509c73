import dataclasses
import datetime as dt

import numpy as np
import pandas as pd
import pytest

from feature_store.bars import quality
from feature_store.market.clocks import BarClock
from feature_store.market.types import MINUTE_NS, Bars, Session
from feature_store.sources.synthetic import SyntheticMarket, synthetic_market

CLOCK = BarClock.parse("1m")


@pytest.fixture(scope="module")
def market() -> SyntheticMarket:
    return synthetic_market(instruments=4, sessions=2, seed=2, index=False)


@pytest.fixture
def bars(market: SyntheticMarket) -> Bars:
    return Bars.concatenate(market.bars)


def between(bars: Bars, session: Session, begin: int, end: int) -> np.ndarray:
    opened = session.open_ns
    return (bars.start_ns >= opened + begin * MINUTE_NS) & (bars.start_ns < opened + end * MINUTE_NS)


def with_close(bars: Bars, rows: np.ndarray, close: np.ndarray | float) -> Bars:
    changed = bars.close.copy()
    changed[rows] = close
    return dataclasses.replace(bars, close=changed)


def test_good_bars_pass_every_check(bars: Bars, market: SyntheticMarket) -> None:
    results = (
        quality.price_sanity(bars),
        quality.monotone_times(bars),
        quality.inside_sessions(bars, market.sessions),
        quality.missing_sessions(bars, market.sessions),
        quality.missing_intervals(bars, market.sessions, CLOCK),
        quality.instrument_coverage(bars, market.universe, market.sessions, CLOCK),
        quality.no_outages(bars, market.sessions, CLOCK, market.universe),
        quality.stale_prices(bars, market.universe),
        quality.outliers(bars, market.universe),
        quality.duplicate_seconds(market.ticks[0]),
    )
    assert [r.name for r in results if not r.passed] == []
    assert len({r.name for r in results}) == len(results)


@pytest.mark.parametrize(("column", "value"), [("close", np.nan), ("low", -1.0), ("high", 1.0), ("volume", -1)])
def test_insane_prices_fail_with_their_row(bars: Bars, column: str, value: float) -> None:
    getattr(bars, column)[17] = value
    result = quality.price_sanity(bars)
    assert not result.passed
    assert result.details["wrong"] == 1
    assert "row 17" in str(result.details["examples"])


def test_disorder_repeats_and_overlaps_fail(bars: Bars) -> None:
    rows = np.arange(len(bars))
    swapped = rows.copy()
    swapped[[40, 80]] = swapped[[80, 40]]
    assert not quality.monotone_times(bars[swapped]).passed
    assert not quality.monotone_times(bars[np.sort(np.append(rows, 50))]).passed
    start = bars.start_ns.copy()
    start[60] -= 30 * MINUTE_NS // 60
    assert quality.monotone_times(dataclasses.replace(bars, start_ns=start)).details["wrong"] == 1


def test_bars_outside_the_sessions_fail(bars: Bars, market: SyntheticMarket) -> None:
    assert not quality.inside_sessions(bars, market.sessions[:1]).passed


def test_an_outage_fails_and_says_when_it_began(bars: Bars, market: SyntheticMarket) -> None:
    opened = market.sessions[1].open_ns
    outage = (bars.start_ns >= opened + 60 * MINUTE_NS) & (bars.start_ns < opened + 75 * MINUTE_NS)
    result = quality.missing_intervals(bars[~outage], market.sessions, CLOCK)
    assert not result.passed
    assert (result.details["missing"], result.details["longest_gap"]) == (15, 15)
    assert "10:15:00" in str(result.details["longest_gap_at"])


def test_a_session_without_bars_fails(bars: Bars, market: SyntheticMarket) -> None:
    result = quality.missing_intervals(market.bars[0], market.sessions, CLOCK)
    assert not result.passed
    assert result.details["longest_gap"] == 375


def test_an_instrument_that_hardly_trades_is_named(bars: Bars, market: SyntheticMarket) -> None:
    thin = (bars.instrument == 2) & (np.arange(len(bars)) % 3 == 0)
    result = quality.instrument_coverage(bars[~thin], market.universe, market.sessions, CLOCK)
    assert not result.passed
    assert result.details["examples"] == "SYN003"


def test_no_bars_pass_no_check_of_bars(bars: Bars) -> None:
    assert not quality.price_sanity(bars[:0]).passed
    assert not quality.monotone_times(bars[:0]).passed


# --- what is missing -------------------------------------------------------------------------------------------------


def test_a_session_of_the_calendar_without_a_row_is_named(bars: Bars, market: SyntheticMarket) -> None:
    third = Session.regular(market.sessions[-1].date + dt.timedelta(days=1))
    result = quality.missing_sessions(bars, [*market.sessions, third])
    assert not result.passed
    assert result.details["examples"] == str(third.date)
    strays = quality.missing_sessions(bars, market.sessions[:1])
    assert not strays.passed
    assert strays.details["bars_without_session"] == len(market.bars[1])
    found = quality.outages(bars, [*market.sessions, third], CLOCK, market.universe)
    assert found.empty, "nobody is expected after the last bar"
    found = quality.outages(market.bars[1], market.sessions, CLOCK, market.universe)
    assert found.empty, "nor before the first one"


def test_a_session_that_is_missing_in_the_middle_is_an_outage_of_all() -> None:
    market = synthetic_market(instruments=4, sessions=3, seed=2, index=False)
    bars = Bars.concatenate([market.bars[0], market.bars[2]])
    (row,) = quality.outages(bars, market.sessions, CLOCK, market.universe).to_dict("records")
    assert row == {
        "date": market.sessions[1].date,
        "start": "09:15",
        "end": "15:30",
        "intervals": 375,
        "missing": 4,
        "expected": 4,
        "whole_market": True,
        "symbols": ("SYN001", "SYN002", "SYN003", "SYN004"),
    }


def test_outages_of_part_and_of_all_of_the_market_are_listed_with_who_was_missing(
    bars: Bars, market: SyntheticMarket
) -> None:
    first, second = market.sessions
    part = between(bars, second, 60, 75) & np.isin(bars.instrument, [0, 2, 3])
    whole = between(bars, first, 370, 375)
    one = between(bars, first, 10, 40) & (bars.instrument == 1)
    found = quality.outages(bars[~(part | whole | one)], market.sessions, CLOCK, market.universe)
    assert found.drop(columns=["date", "expected"]).to_numpy().tolist() == [
        ["15:25", "15:30", 5, 4, True, ("SYN001", "SYN002", "SYN003", "SYN004")],
        ["10:15", "10:30", 15, 3, False, ("SYN001", "SYN003", "SYN004")],
    ]
    result = quality.no_outages(bars[~(part | whole | one)], market.sessions, CLOCK, market.universe)
    assert not result.passed
    assert (result.details["outages"], result.details["intervals"], result.details["whole_market"]) == (2, 20, 1)
    gaps = quality.instrument_gaps(bars[~(part | whole | one)], market.sessions, CLOCK, market.universe)
    assert sorted(zip(gaps["symbol"], gaps["start"], gaps["intervals"], strict=True)) == [
        ("SYN001", "10:15", 15),
        ("SYN002", "09:25", 30),
        ("SYN003", "10:15", 15),
        ("SYN004", "10:15", 15),
    ]


def test_an_outage_names_all_who_were_missing_at_any_time_of_it(bars: Bars, market: SyntheticMarket) -> None:
    second = market.sessions[1]
    first_half = between(bars, second, 60, 70) & np.isin(bars.instrument, [0, 1])
    other_half = between(bars, second, 70, 80) & np.isin(bars.instrument, [2, 3])
    (row,) = quality.outages(bars[~(first_half | other_half)], market.sessions, CLOCK, market.universe).to_dict(
        "records"
    )
    assert (row["intervals"], row["missing"], row["whole_market"]) == (20, 4, False)
    assert row["symbols"] == ("SYN001", "SYN002", "SYN003", "SYN004")


def test_a_day_with_few_instruments_or_few_bars_is_thin_and_one_without_any_is_missing() -> None:
    market = synthetic_market(instruments=4, sessions=5, seed=2, index=False)
    first, few, sparse, last, _missing = market.bars
    there = [first[:1400], few[few.instrument == 2], sparse[np.arange(len(sparse)) % 5 == 0], last, last[:0]]
    found = quality.thin_days(Bars.concatenate(there), market.sessions, CLOCK)
    assert found["date"].tolist() == [market.sessions[1].date, market.sessions[2].date]
    assert found["instruments"].tolist() == [1, 4]
    assert found["usual_instruments"].tolist() == [4, 4]


def test_a_short_session_is_not_thin() -> None:
    market = synthetic_market(instruments=4, sessions=3, seed=2, index=False)
    evening = dataclasses.replace(market.sessions[1], close_ns=market.sessions[1].open_ns + 60 * MINUTE_NS)
    bars = Bars.concatenate([market.bars[0], market.bars[1][: 4 * 60], market.bars[2]])
    assert quality.thin_days(bars, [market.sessions[0], evening, market.sessions[2]], CLOCK).empty


def test_bars_of_a_session_are_missing_by_the_session(market: SyntheticMarket) -> None:
    found = quality.outages(market.bars[0], market.sessions[:1], BarClock("session"), market.universe)
    assert found.empty
    with pytest.raises(ValueError, match="100t"):
        quality.outages(market.bars[0], market.sessions, BarClock.parse("100t"), market.universe)


def test_coverage_is_a_matrix_of_symbols_by_sessions(bars: Bars, market: SyntheticMarket) -> None:
    first, second = market.sessions
    gone = (bars.instrument == 1) & between(bars, second, 0, 300)
    matrix = quality.coverage(bars[~gone], market.sessions, CLOCK, market.universe)
    assert list(matrix.index) == ["SYN001", "SYN002", "SYN003", "SYN004"]
    assert list(matrix.columns) == [first.date, second.date]
    assert matrix.loc["SYN002", second.date] == pytest.approx(75 / 375)
    assert (matrix.drop(index="SYN002") == 1.0).all(axis=None)


# --- what is there and cannot be -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("traded", "counted"), [(True, "with_volume"), (False, "without_volume")])
def test_a_close_that_stands_still_is_found(bars: Bars, market: SyntheticMarket, traded: bool, counted: str) -> None:
    rows = between(bars, market.sessions[0], 100, 140) & (bars.instrument == 2)
    frozen = with_close(bars, rows, 500.0)
    if not traded:
        frozen = dataclasses.replace(frozen, volume=np.where(rows, 0, frozen.volume))
    result = quality.stale_prices(frozen, market.universe)
    assert not result.passed
    assert (result.details["with_volume"], result.details["without_volume"]) == ((1, 0) if traded else (0, 1))
    assert result.details[counted] == 1
    assert "SYN003 40 bars from " in str(result.details["examples"])
    assert "10:55:00" in str(result.details["examples"])
    assert quality.stale_prices(frozen, market.universe, longest=40).passed


def test_a_price_that_stands_still_over_night_is_not_stale(bars: Bars, market: SyntheticMarket) -> None:
    first, second = market.sessions
    rows = (between(bars, first, 355, 375) | between(bars, second, 0, 20)) & (bars.instrument == 0)
    assert quality.stale_prices(with_close(bars, rows, 500.0), market.universe).passed


def test_a_wrong_print_is_an_outlier_and_a_gap_over_night_is_not(bars: Bars, market: SyntheticMarket) -> None:
    row = np.flatnonzero(between(bars, market.sessions[1], 50, 51) & (bars.instrument == 3))
    result = quality.outliers(with_close(bars, row, bars.close[row] * 1.1), market.universe)
    assert not result.passed
    assert result.details["outliers"] == 2  # there and back
    assert "SYN004 +1" in str(result.details["examples"])
    assert "10:05:00" in str(result.details["examples"])
    night = (bars.instrument == 3) & (bars.start_ns >= market.sessions[1].open_ns)
    assert quality.outliers(with_close(bars, night, bars.close[night] * 1.1), market.universe).passed


def test_a_file_joined_with_itself_repeats_its_seconds(market: SyntheticMarket) -> None:
    ticks = market.ticks[0][:5000]
    twice = ticks[np.repeat(np.arange(5000), 2)]
    result = quality.duplicate_seconds(twice)
    assert not result.passed
    assert result.details["repeated"] == result.details["alike"] == 5000
    other = dataclasses.replace(twice, last_price=twice.last_price + np.arange(10_000) % 2)
    assert quality.duplicate_seconds(other).details["alike"] == 0
    assert not quality.duplicate_seconds(ticks[:0]).passed


def test_outages_come_as_a_table_even_when_there_are_none(bars: Bars, market: SyntheticMarket) -> None:
    found = quality.outages(bars, [], CLOCK, market.universe)
    assert isinstance(found, pd.DataFrame)
    assert list(found.columns)[:4] == ["date", "start", "end", "intervals"]
    assert found.empty
