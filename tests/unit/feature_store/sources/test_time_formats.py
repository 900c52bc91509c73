"""How a file writes its times: recognised where it is plain, asked for where it is not."""

import doctest
from pathlib import Path

import pandas as pd
import pytest

from feature_store.market.types import IST, MarketDataError
from feature_store.sources import time_formats
from feature_store.sources.arrivals import read_market
from feature_store.sources.reading import ColumnMapping, read_bars, read_ticks
from feature_store.sources.time_formats import possible_formats

EARLY = ("2026-01-05", "2026-01-06")  # days that may be months
LATE = ("2026-01-05", "2026-01-13")


def bars(days: tuple[str, ...] = LATE, rows: int = 5) -> pd.DataFrame:
    times = pd.DatetimeIndex([t for day in days for t in pd.date_range(f"{day} 09:15", periods=rows, freq="min")])
    frame = pd.DataFrame({"timestamp": times.tz_localize(IST), "symbol": "AAA"})
    return frame.assign(open=100.0, high=102.0, low=99.0, close=101.0, volume=10)


def written(path: Path, frame: pd.DataFrame, time_format: str) -> Path:
    frame.assign(timestamp=frame["timestamp"].dt.strftime(time_format)).to_csv(path, index=False)
    return path


def starts(frame: pd.DataFrame) -> list[int]:
    return frame["timestamp"].dt.as_unit("ns").astype("int64").tolist()


@pytest.mark.parametrize(
    "time_format",
    [
        "%d-%m-%Y %H:%M",
        "%d/%m/%Y %H:%M:%S",
        "%m/%d/%Y %I:%M:%S %p",
        "%d-%b-%Y %I:%M%p",
        "%d.%m.%Y, %H:%M",
        "%Y/%m/%d %H:%M",
        "%Y%m%d%H%M",
        "%Y%m%d%H%M%S",
        "%d-%m-%Y %H:%M:%S%z",
    ],
)
def test_a_format_that_alone_reads_the_times_is_recognised_and_said(time_format: str, tmp_path: Path) -> None:
    source = read_bars(written(tmp_path / "a.csv", bars(), time_format))
    assert source.bars.start_ns.tolist() == starts(bars())
    assert source.quarantine.counts() == {}
    assert source.reading.layout.time_format == time_format
    assert f"are read as {time_format}" in source.recognised[0]


@pytest.mark.parametrize(
    ("time_format", "options"),
    [
        ("%d-%m-%Y %H:%M", ("%d-%m-%Y %H:%M", "%m-%d-%Y %H:%M")),
        ("%m/%d/%Y %I:%M:%S %p", ("%d/%m/%Y %I:%M:%S %p", "%m/%d/%Y %I:%M:%S %p")),
        ("%d-%m-%y %H:%M", ("%d-%m-%y %H:%M", "%m-%d-%y %H:%M", "%y-%m-%d %H:%M")),
    ],
)
def test_the_order_of_day_and_month_is_asked_for_where_no_row_shows_it(
    time_format: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    path = written(tmp_path / "a.csv", bars(EARLY), time_format)
    source = read_bars(path)
    assert source.quarantine.counts() == {"unreadable_time": 10}
    first = bars(EARLY)["timestamp"].iloc[0].strftime(time_format)
    assert f"10 of 10 times cannot be read; the first is {first!r} (row 1, column 'timestamp')" in (
        source.reading.unreadable
    )
    assert " or ".join(f'--time-format "{option}"' for option in options) in source.reading.unreadable
    with pytest.raises(MarketDataError, match=r"setting market\.time_format"):
        read_market(path, None)
    stated = read_market(path, None, mapping=ColumnMapping.stated({}, time_format, "", ""))
    assert sum(len(table) for _, table in stated.bars.values()) == 10


def test_the_examples_hold() -> None:
    assert doctest.testmod(time_formats) == (0, 4)


def test_rows_that_contradict_each_other_leave_no_format() -> None:
    assert possible_formats(["13-04-2024 09:15", "04-13-2024 09:15"]) == ()
    assert possible_formats(["morning", "noon"]) == ()


def test_a_stated_format_that_reads_nothing_is_said_beside_the_one_that_does(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", bars(), "%d/%m/%Y %H:%M")
    said = read_bars(path, mapping=ColumnMapping({}, "%d-%m-%Y %H:%M")).reading.unreadable
    assert "They are not written as '%d-%m-%Y %H:%M'. Give --time-format \"%d/%m/%Y %H:%M\"" in said
    unknown = read_bars(written(tmp_path / "b.csv", bars(), "%H:%M on %d/%m/%Y")).reading.unreadable
    assert "Say how they are written: --time-format FORMAT, setting market.time_format" in unknown


@pytest.mark.parametrize(
    ("dates", "times", "names"),
    [
        ("%Y-%m-%d", "%H:%M", ("date", "time")),
        ("%d-%m-%Y", "%H:%M:%S", ("Date", "Time")),
        ("%Y%m%d", "%H%M", ("Trade Date", "Trade Time")),
        ("%d-%b-%Y", "%I:%M %p", ("DATE", "TIME")),
    ],
)
def test_a_date_and_a_time_of_day_in_columns_of_their_own_are_joined(
    dates: str, times: str, names: tuple[str, str], tmp_path: Path
) -> None:
    frame, when = bars(), bars()["timestamp"].dt
    frame = frame.drop(columns="timestamp").assign(**{names[0]: when.strftime(dates), names[1]: when.strftime(times)})
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert read_bars(tmp_path / "a.csv").bars.start_ns.tolist() == starts(bars())
    apart = frame.rename(columns={names[0]: "d", names[1]: "t"})
    apart.to_csv(tmp_path / "b.csv", index=False)
    mapped = read_bars(tmp_path / "b.csv", mapping={"date": "d", "time": "t"})
    assert mapped.bars.start_ns.tolist() == starts(bars())


def test_dates_and_times_of_day_of_parquet_types_are_joined(tmp_path: Path) -> None:
    when = bars()["timestamp"].dt
    frame = bars().drop(columns="timestamp").assign(date=when.date, time=when.time)
    frame.to_parquet(tmp_path / "a.parquet")
    assert read_bars(tmp_path / "a.parquet").bars.start_ns.tolist() == starts(bars())
    whole = frame.assign(date=when.strftime("%Y%m%d").astype(int), time=when.strftime("%H%M").astype(int))
    whole.to_parquet(tmp_path / "b.parquet")
    assert read_bars(tmp_path / "b.parquet").bars.start_ns.tolist() == starts(bars())


@pytest.mark.parametrize("kind", ["csv", "parquet", "float.parquet"])
@pytest.mark.parametrize(("time_format", "unit_ns"), [("epoch_s", 10**9), ("epoch_ms", 10**6), ("epoch_us", 10**3),
                                                      ("epoch_ns", 1)])  # fmt: skip
def test_ticks_and_bars_in_epochs_are_told_by_their_size(
    time_format: str, unit_ns: int, kind: str, tmp_path: Path
) -> None:
    counts = bars()["timestamp"].dt.as_unit("ns").astype("int64") // unit_ns
    for read, frame in (
        (read_bars, bars().assign(timestamp=counts)),
        (read_ticks, pd.DataFrame({"timestamp": counts, "symbol": "AAA", "ltp": 100.0, "volume": range(10)})),
    ):
        path = tmp_path / f"a.{kind}"
        if kind == "csv":
            frame.to_csv(path, index=False)
        else:
            frame.astype({"timestamp": "float64" if "float" in kind else "int64"}).to_parquet(path)
        source = read(path)
        assert source.reading.layout.time_format == time_format
        table = source.bars if hasattr(source, "bars") else source.ticks
        assert len(table) == 10


def test_a_month_that_no_format_reads_gives_no_format() -> None:
    assert possible_formats(["02-Sept-2024 09:15"]) == ()
    assert possible_formats(["02-SEP-2024 09:15"]) == ("%d-%b-%Y %H:%M",)
