"""Zones and stamps that a file does not state: told by its times, else by ticks of the same days, else said."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feature_store.market.types import IST, MINUTE_NS, MarketDataError
from feature_store.sources.arrivals import read_market
from feature_store.sources.reading import ColumnMapping, SourceBars, read_bars

DAYS = ("2026-01-05", "2026-01-06")


def frame(first: str = "09:15", last: str = "15:29", minutes: int = 1) -> pd.DataFrame:
    times = pd.DatetimeIndex(
        [t for day in DAYS for t in pd.date_range(f"{day} {first}", f"{day} {last}", freq=f"{minutes}min", tz=IST)]
    )
    close = np.round(100.0 + np.cumsum(np.random.default_rng(1).normal(0, 0.1, len(times))), 2)
    table = pd.DataFrame({"timestamp": times, "symbol": "AAA", "open": close, "high": close, "low": close})
    return table.assign(close=close, volume=range(10, 10 + len(times)))


def written(path: Path, table: pd.DataFrame, shift: str = "0s", zone: str = "Asia/Kolkata") -> Path:
    moved = (table["timestamp"] + pd.Timedelta(shift)).dt.tz_convert(zone).dt.tz_localize(None)
    table.assign(timestamp=moved).to_csv(path, index=False)
    return path


def reads_as(source: SourceBars, table: pd.DataFrame, minutes: int = 1) -> None:
    assert source.quarantine.counts() == {}
    assert source.bars.start_ns.tolist() == table["timestamp"].dt.as_unit("ns").astype("int64").tolist()
    assert set((source.bars.end_ns - source.bars.start_ns).tolist()) == {minutes * MINUTE_NS}


@pytest.mark.parametrize(
    ("minutes", "shift", "zone", "says"),
    [
        (1, "0s", "Asia/Kolkata", ()),
        (1, "1min", "Asia/Kolkata", ("stamped at their end",)),
        (5, "5min", "Asia/Kolkata", ("stamped at their end",)),
        (1, "0s", "UTC", ("read as UTC",)),
        (1, "1min", "UTC", ("read as UTC", "stamped at their end")),
        (1, "59s", "Asia/Kolkata", ("in their last second",)),
        (5, "299999ms", "Asia/Kolkata", ("in their last second",)),
        (1, "59s", "UTC", ("in their last second", "read as UTC")),
    ],
)
def test_times_that_leave_one_reading_are_read_so_and_it_is_said(
    minutes: int, shift: str, zone: str, says: tuple[str, ...], tmp_path: Path
) -> None:
    source = read_bars(written(tmp_path / "a.csv", frame(minutes=minutes), shift, zone))
    reads_as(source, frame(minutes=minutes), minutes)
    assert len(source.recognised) == len(says)
    assert all(what in said for what, said in zip(says, source.recognised, strict=True))
    assert source.reading.undecided == ("stamped at their end" in says)  # ticks, if there are, have the last word


def test_what_is_stated_wins_over_what_is_recognised(tmp_path: Path) -> None:
    path = written(tmp_path / "a.csv", frame(), "1min")
    stated = read_bars(path, mapping=ColumnMapping({}, stamp="start"))
    assert stated.quarantine.counts() == {"outside_session": 2}
    assert stated.recognised == ()
    utc = written(tmp_path / "b.csv", frame(), zone="UTC")
    assert set(read_bars(utc, mapping=ColumnMapping({}, zone="Asia/Kolkata")).quarantine.counts()) == {
        "outside_session"
    }
    stated_so = read_bars(utc, mapping=ColumnMapping({}, zone="UTC", stamp="start"))
    reads_as(stated_so, frame())
    assert stated_so.recognised == ()


def test_times_that_leave_it_open_are_read_as_by_default_and_that_is_said(tmp_path: Path) -> None:
    middle = frame("09:20", "09:50")
    source = read_bars(written(tmp_path / "a.csv", middle))
    reads_as(source, middle)
    zone, stamp = source.recognised
    assert "read as Asia/Kolkata; if they are UTC, give --timezone UTC (setting market.timezone)" in zone
    assert "read as the start; if they are the end, give --stamp end (setting market.stamp)" in stamp
    assert source.reading.undecided


def ticks_of(table: pd.DataFrame) -> pd.DataFrame:
    """Two ticks in each bar, of which the second is at its close."""
    second = table.assign(timestamp=table["timestamp"] + pd.Timedelta("40s"))
    both = pd.concat([table.assign(close=table["close"] - 0.03), second]).sort_values("timestamp", kind="stable")
    return pd.DataFrame({
        "timestamp": both["timestamp"], "symbol": "AAA", "ltp": both["close"], "volume": range(1, len(both) + 1)
    })  # fmt: skip


@pytest.mark.parametrize(
    ("shift", "zone", "says"),
    [
        ("0s", "Asia/Kolkata", "so read, closes of 2026-01-05, 2026-01-06 are those of the ticks"),
        (
            "1min",
            "Asia/Kolkata",
            "bars are stamped at their end: only so their closes of 2026-01-05, 2026-01-06 are those of the ticks",
        ),
        ("1min", "UTC", "bars are of UTC and stamped at their end"),
        ("0s", "UTC", "bars are of UTC: only so"),
    ],
)
def test_ticks_of_the_same_days_settle_what_the_times_leave_open(
    shift: str, zone: str, says: str, tmp_path: Path
) -> None:
    table = frame("14:50", "15:20")  # as UTC 09:20 to 09:50, which is inside the session as Asia/Kolkata
    bars = written(tmp_path / "bars.csv", table, shift, zone)
    ticks_of(table).to_csv(tmp_path / "ticks.csv", index=False)
    whole = read_market(bars, tmp_path / "ticks.csv")
    one = read_market(bars, tmp_path / "ticks.csv", [pd.Timestamp(DAYS[0]).date()])
    starts = [start for _, part in whole.bars.values() for start in part.start_ns.tolist()]
    assert starts == table["timestamp"].dt.as_unit("ns").astype("int64").tolist()
    assert [part.start_ns.tolist() for _, part in one.bars.values()] == [starts[: len(starts) // 2]]
    (said,) = whole.recognised["bars"]
    assert says in said
    assert one.recognised == whole.recognised


def test_ticks_have_the_last_word_where_bars_only_seem_to_end_at_the_close(tmp_path: Path) -> None:
    table = frame("09:16", "15:30")  # START-stamped, without the first minute and with one of the closing auction
    bars = written(tmp_path / "bars.csv", table)
    traded = table[table["timestamp"].dt.strftime("%H:%M") != "15:30"]
    ticks_of(traded).to_csv(tmp_path / "ticks.csv", index=False)
    arrival = read_market(bars, tmp_path / "ticks.csv")
    starts = [start for _, part in arrival.bars.values() for start in part.start_ns.tolist()]
    assert starts == traded["timestamp"].dt.as_unit("ns").astype("int64").tolist()
    assert "bars are stamped at their start: only so" in arrival.recognised["bars"][-1]
    assert "stamped at their end" in read_market(bars, None).recognised["bars"][-1]


def test_ticks_do_not_overrule_a_stated_stamp(tmp_path: Path) -> None:
    table = frame("14:50", "15:20")
    bars = written(tmp_path / "bars.csv", table, "1min")
    ticks_of(table).to_csv(tmp_path / "ticks.csv", index=False)
    mapping = ColumnMapping.stated({}, "", "Asia/Kolkata", "start", files=2)
    arrival = read_market(bars, tmp_path / "ticks.csv", mapping=mapping)
    first = next(iter(arrival.bars.values()))[1].start_ns[0]
    assert first == frame("14:51", "15:21")["timestamp"].dt.as_unit("ns").astype("int64").iloc[0]
    assert arrival.recognised["bars"] == ()
    assert arrival.quarantined == {}


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("%Y-%m-%dT%H:%M:%SZ", r'give --time-format "%Y-%m-%dT%H:%M:%SZ"'),
        ("%Y-%m-%d %H:%M:%S+00:00", r'give --time-format "%Y-%m-%d %H:%M:%S\+00:00"'),
        ("epoch", "take 19,800 seconds"),
    ],
)
def test_the_wall_clock_of_india_under_the_name_of_utc_is_refused_with_the_way_out(
    written: str, says: str, tmp_path: Path
) -> None:
    wall = pd.date_range("2026-01-05 09:15", "2026-01-05 15:29", freq="min")
    times = wall.astype("datetime64[s]").astype("int64") if written == "epoch" else wall.strftime(written)
    prices = dict.fromkeys(("open", "high", "low", "close"), 100)
    path = tmp_path / "a.csv"
    pd.DataFrame({"time": times, "symbol": "AAA", **prices, "volume": 1}).to_csv(path, index=False)
    with pytest.raises(MarketDataError, match=f"88% of its times lie outside the session as they are written.*{says}"):
        read_market(path, None)
    if written != "epoch":
        assert len(read_bars(path, mapping=ColumnMapping({}, written)).bars) == len(wall)
    timestamps = pd.DataFrame({"time": wall.tz_localize("UTC"), "symbol": "AAA", **prices, "volume": 1})
    timestamps.to_parquet(tmp_path / "a.parquet")
    with pytest.raises(MarketDataError, match="take 19,800 seconds"):
        read_market(tmp_path / "a.parquet", None)


def test_times_of_which_many_lie_outside_the_session_are_said_to(tmp_path: Path) -> None:
    wall = pd.date_range("2026-01-05 11:45", "2026-01-05 17:59", freq="min")  # Singapore
    prices = dict.fromkeys(("open", "high", "low", "close"), 100)
    frame = pd.DataFrame({"time": wall, "symbol": "AAA", **prices, "volume": 1})
    frame.to_csv(tmp_path / "a.csv", index=False)
    said = read_bars(tmp_path / "a.csv").recognised
    assert any("40% of the times lie outside the session as Asia/Kolkata" in one for one in said)
    stated = read_bars(tmp_path / "a.csv", mapping=ColumnMapping(zone="Asia/Singapore"))
    assert (len(stated.bars), stated.recognised) == (375, ())
