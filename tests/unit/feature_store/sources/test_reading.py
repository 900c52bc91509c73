import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feature_store.market.clocks import BarClock
from feature_store.market.types import (
    IST,
    MINUTE_NS,
    Bars,
    MarketDataError,
    MissingColumn,
    Session,
    Universe,
    UnreadableFile,
    ist_ns,
)
from feature_store.sources.reading import by_session, known_sessions, read_bars, read_ticks
from tests.market_files import save

DATE = dt.date(2026, 1, 5)
OPEN = ist_ns(DATE, dt.time(9, 15))


def bar_frame(minutes: int = 5, symbols: tuple[str, ...] = ("AAA", "BBB")) -> pd.DataFrame:
    times = pd.date_range("2026-01-05 09:15", periods=minutes, freq="min", tz=IST)
    frame = pd.DataFrame([(t, s) for t in times for s in symbols], columns=["timestamp", "symbol"])
    return frame.assign(open=100.0, high=102.0, low=99.0, close=101.0, volume=10)


def tick_frame(seconds: tuple[int, ...] = (0, 1, 1, 2)) -> pd.DataFrame:
    times = pd.Timestamp("2026-01-05 09:15", tz=IST) + pd.to_timedelta(seconds, unit="s")
    n = len(seconds)
    return pd.DataFrame({"timestamp": times, "symbol": "AAA", "ltp": 100.0 + np.arange(n), "volume": np.arange(n) * 5})


@pytest.fixture(params=["parquet", "csv", "csv.gz"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return tmp_path / f"data.{request.param}"


def test_bars_come_back_in_order_with_their_length(path: Path) -> None:
    source = read_bars(save(bar_frame().sort_values(["symbol", "timestamp"]), path))
    assert len(source.bars) == 10
    assert source.clock == BarClock.minutes(1)
    assert source.bars.instrument.tolist() == [0, 1] * 5
    assert source.bars.start_ns[0] == OPEN
    assert (source.bars.end_ns - source.bars.start_ns == MINUTE_NS).all()
    assert source.quarantine.counts() == {}
    assert known_sessions(source.bars) == (Session.regular(DATE),)


@pytest.mark.parametrize(
    "text",
    ["2026-01-05 09:15:00", "2026-01-05T09:15:00+05:30", "2026-01-05T03:45:00Z", "2026-01-05 03:45:00+00:00"],
)
def test_times_without_a_zone_are_ist_and_times_with_one_are_taken_at_their_word(text: str, tmp_path: Path) -> None:
    frame = bar_frame(1).assign(timestamp=text)
    for name in ("a.csv", "a.parquet"):
        assert read_bars(save(frame, tmp_path / name)).bars.start_ns.tolist() == [OPEN, OPEN]


def test_naive_parquet_timestamps_of_any_unit_are_ist(tmp_path: Path) -> None:
    for unit in ("s", "ms", "us", "ns"):
        frame = bar_frame(1)
        frame["timestamp"] = frame["timestamp"].dt.tz_localize(None).dt.as_unit(unit)
        assert read_bars(save(frame, tmp_path / f"{unit}.parquet")).bars.start_ns.tolist() == [OPEN, OPEN]


@pytest.mark.parametrize("time", ["timestamp", "datetime", "time", "Date"])
@pytest.mark.parametrize("symbol", ["symbol", "TradingSymbol"])
def test_columns_go_by_several_names(time: str, symbol: str, path: Path) -> None:
    source = read_bars(save(bar_frame().rename(columns={"timestamp": time, "symbol": symbol}), path))
    assert len(source.bars) == 10


@pytest.mark.parametrize("price", ["ltp", "last_price", "price"])
def test_repeats_of_a_symbol_and_second_are_kept_in_file_order(price: str, path: Path) -> None:
    source = read_ticks(save(tick_frame().rename(columns={"ltp": price}), path))
    assert source.ticks.last_price.tolist() == [100.0, 101.0, 102.0, 103.0]
    assert source.ticks.day_volume.tolist() == [0, 5, 10, 15]
    assert len(source.quarantine) == 0


BAD_BARS = {
    "unreadable_time": {"timestamp": "yesterday"},
    "missing_symbol": {"symbol": " "},
    "not_a_number": {"close": "abc"},
    "non_positive_price": {"low": 0.0},
    "high_below_low": {"high": 98.0},
    "open_or_close_outside_range": {"close": 103.0},
    "negative_volume": {"volume": -1},
    "volume_too_large": {"volume": 1e300},
    "outside_session": {"timestamp": "2026-01-05 15:30:00+05:30"},
    "off_grid": {"timestamp": "2026-01-05 09:17:30+05:30"},
    "duplicate_bar": {"timestamp": "2026-01-05 09:16:00+05:30"},
}


@pytest.mark.parametrize("reason", BAD_BARS)
def test_a_bad_bar_is_quarantined_with_its_reason_and_row(reason: str, tmp_path: Path) -> None:
    frame = bar_frame(symbols=("AAA",)).astype(object)
    for column, value in BAD_BARS[reason].items():
        frame.loc[2, column] = value
    source = read_bars(save(frame, tmp_path / "bad.csv"))
    assert source.quarantine.counts() == {reason: 1}
    assert source.quarantine.rows["row"].tolist() == [3]
    assert len(source.bars) == 4
    for column, value in BAD_BARS[reason].items():
        assert source.quarantine.rows[column].tolist()[0].strip() == str(value).strip()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("column", ["open", "volume"])
def test_nan_and_infinity_are_no_numbers(bad: float, column: str, path: Path) -> None:
    frame = bar_frame().astype({"volume": float})
    frame.loc[4, column] = bad
    assert read_bars(save(frame, path)).quarantine.counts() == {"not_a_number": 1}


def test_times_that_no_nanosecond_can_hold_are_quarantined(tmp_path: Path) -> None:
    frame = bar_frame(3, ("AAA",))
    frame["timestamp"] = [pd.Timestamp("2026-01-05 09:15"), dt.datetime(9999, 1, 1), None]  # noqa: DTZ001
    frame["timestamp"] = frame["timestamp"].astype("datetime64[us]")
    source = read_bars(save(frame, tmp_path / "far.parquet"))
    assert source.quarantine.counts() == {"unreadable_time": 2}
    assert source.quarantine.rows["row"].tolist() == [2, 3]


def test_csv_rows_with_too_few_or_many_fields_are_quarantined_and_rows_still_count_right(tmp_path: Path) -> None:
    lines = save(bar_frame(4, ("AAA",)), tmp_path / "a.csv").read_text().splitlines()
    lines[2] = "2026-01-05 09:16:00+05:30,AAA,100"
    lines[4] = lines[4].replace("101.0", "abc")
    cut = tmp_path / "cut.csv"
    cut.write_text("\n".join(lines))
    source = read_bars(cut)
    assert source.quarantine.rows[["row", "reason"]].to_numpy().tolist() == [[2, "malformed_row"], [4, "not_a_number"]]
    assert len(source.bars) == 2


BAD_TICKS = {
    "outside_session": ("timestamp", "2026-01-05 15:30:00+05:30"),
    "non_positive_price": ("ltp", -5.0),
    "negative_volume": ("volume", -5),
    "not_a_number": ("ltp", np.nan),
}


@pytest.mark.parametrize("reason", BAD_TICKS)
def test_a_bad_tick_is_quarantined_with_its_reason_and_row(reason: str, tmp_path: Path) -> None:
    frame = tick_frame((0, 1, 2, 3)).astype(object)
    column, value = BAD_TICKS[reason]
    frame.loc[2, column] = value
    source = read_ticks(save(frame, tmp_path / "bad.csv"))
    assert source.quarantine.counts() == {reason: 1}
    assert source.quarantine.rows["row"].tolist() == [3]
    assert len(source.ticks) == 3


def test_a_decrease_of_day_volume_is_kept_and_counted(path: Path) -> None:
    source = read_ticks(save(tick_frame().assign(volume=[5, 10, 7, 12]), path))
    assert source.volume_decreases == 1
    assert source.ticks.day_volume.tolist() == [5, 10, 7, 12]


def test_a_given_universe_is_kept_and_other_symbols_are_quarantined(path: Path) -> None:
    universe = Universe.from_symbols(["AAA", "ZZZ"])
    source = read_bars(save(bar_frame(), path), universe=universe)
    assert source.universe == universe
    assert source.bars.instrument.tolist() == [0] * 5
    assert source.quarantine.counts() == {"unknown_symbol": 5}


def test_sessions_can_be_chosen(tmp_path: Path) -> None:
    later = bar_frame()
    later["timestamp"] += pd.Timedelta(days=1)
    path = save(pd.concat([bar_frame(), later]), tmp_path / "two.parquet")
    everything = read_bars(path)
    chosen = read_bars(path, [DATE + dt.timedelta(days=1)])
    assert [s.date for s, _ in by_session(everything.bars)] == [DATE, DATE + dt.timedelta(days=1)]
    assert chosen.bars.digest() == list(by_session(everything.bars))[1][1].digest()
    assert len(chosen.quarantine) == 0


def test_hourly_bars_start_at_the_open_and_the_last_ends_at_the_close(path: Path) -> None:
    times = pd.date_range("2026-01-05 09:15", periods=7, freq="h", tz=IST)
    frame = bar_frame(7, ("AAA",)).assign(timestamp=times)
    source = read_bars(save(frame, path))
    assert source.clock == BarClock.minutes(60)
    assert source.bars.end_ns[-1] == Session.regular(DATE).close_ns
    assert len(source.bars) == 7


def test_a_file_of_which_no_row_is_usable_is_all_quarantine(path: Path) -> None:
    source = read_bars(save(bar_frame().assign(close=-1.0), path))
    assert isinstance(source.bars, Bars)
    assert len(source.bars) == 0
    assert len(source.universe) == 0
    assert known_sessions(source.bars) == ()
    assert source.quarantine.counts() == {"non_positive_price": 10}


@pytest.mark.parametrize("column", ["timestamp", "symbol", "high", "volume"])
def test_a_missing_column_is_named_with_the_file_and_what_is_there(column: str, path: Path) -> None:
    save(bar_frame().drop(columns=column), path)
    with pytest.raises(MissingColumn, match=rf"{column}.*rename") as told:
        read_bars(path)
    assert str(path) in str(told.value)


def test_a_column_of_numbers_is_no_time(tmp_path: Path) -> None:
    path = save(bar_frame().assign(timestamp=1), tmp_path / "n.parquet")
    with pytest.raises(MarketDataError, match=r"timestamp.*no time"):
        read_bars(path)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
@pytest.mark.parametrize("suffix", ["parquet", "csv.gz"])
def test_a_truncated_file_is_refused_by_name(share: float, suffix: str, tmp_path: Path) -> None:
    path = save(bar_frame(300), tmp_path / f"whole.{suffix}")
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(UnreadableFile, match="cut"):
        read_bars(cut)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.parquet", b"no parquet at all", "damaged"),
        ("a.csv", b"timestamp,symbol,open,high,low,close,volume\n", "no rows"),
        ("a.csv", b"\xff\xfe\x00bad", "a.csv"),
        ("a.xlsx", b"PK", "convert"),
    ],
)
def test_what_is_no_data_is_refused_with_what_to_do(name: str, content: bytes, says: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(MarketDataError, match=says) as told:
        read_bars(path)
    assert name in str(told.value)


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFile, match=r"nowhere\.csv"):
        read_bars(tmp_path / "nowhere.csv")


def test_bytes_that_are_no_text_in_a_row_of_the_wrong_length_far_down_the_file_are_named(tmp_path: Path) -> None:
    path = tmp_path / "bars.csv"
    rows = b"".join(b"2026-01-05 09:%02d,AAA,1,1,1,1,5\n" % (15 + k % 40) for k in range(60_000))
    path.write_bytes(b"timestamp,symbol,open,high,low,close,volume\n" + rows + b"2026-01-05 09:16,A\xc8,1,1\n")
    with pytest.raises(UnreadableFile, match=r"bars\.csv cannot be read .*can't decode byte 0xc8"):
        read_bars(path)
