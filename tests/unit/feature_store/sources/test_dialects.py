"""Each export is recognised by its header and read to the same bars."""

import datetime as dt
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feature_store.market.clocks import BarClock
from feature_store.market.types import IST, MINUTE_NS, MissingColumn, Session
from feature_store.offline.store import OfflineStore
from feature_store.sources.reading import (
    BarFile,
    BarSource,
    ColumnMapping,
    SourceBars,
    TickFile,
    TickSource,
    read_bars,
    read_ticks,
)

DAY = dt.date(2026, 1, 5)
SESSION = Session.regular(DAY)
PRICES = "100.5,102,99.25,101,10"
STARTS = pd.date_range("2026-01-05 09:15", periods=3, freq="5min", tz=IST)
EPOCHS = [int(t.timestamp()) for t in STARTS]


def lines(*rows: str) -> str:
    return "\n".join(rows) + "\n"


def of_times(times: list[object], before: str = "", after: str = "") -> list[str]:
    return [f"{before}{t},{PRICES}{after}" for t in times]


ISO = [t.strftime("%Y-%m-%d %H:%M:%S%z") for t in STARTS]
UTC = [t.tz_convert("UTC").strftime("%Y-%m-%d %H:%M:%S+00:00") for t in STARTS]
INTRADAY = {
    "SBIN_minute.csv": ("kite", lines("date,open,high,low,close,volume", *of_times(ISO))),
    "NSE_SBIN-EQ_5minute.csv": ("kite", lines(",date,open,high,low,close,volume,oi", *of_times(ISO, "0,", ",0"))),
    "kite.csv": ("kite", lines("date,open,high,low,close,volume,tradingsymbol", *of_times(ISO, after=",SBIN"))),
    "SBIN.csv": ("dhan", lines("open,high,low,close,volume,timestamp", *(f"{PRICES},{e}" for e in EPOCHS))),
    "SBIN_5.csv": (
        "dhan",
        lines("open,high,low,close,volume,timestamp,open_interest", *(f"{PRICES},{e}.0,0" for e in EPOCHS)),
    ),
    "SBIN_15min.csv": ("dhan", lines("start_Time,open,high,low,close,volume", *of_times(EPOCHS))),
    "SBIN-EQ.csv": ("fyers", lines("0,1,2,3,4,5", *of_times(EPOCHS))),
    "SBIN_day.csv": ("fyers", lines(",0,1,2,3,4,5", *of_times(EPOCHS, "7,"))),
    "SBIN_1m.csv": ("fyers", lines("epoch,open,high,low,close,volume", *of_times(EPOCHS))),
    "fyers.csv": (
        "fyers",
        lines("Timestamp,Open,High,Low,Close,Volume,symbol", *of_times(EPOCHS, after=",NSE:SBIN-EQ")),
    ),
    "fyers_ms.csv": (
        "fyers",
        lines("epoch,open,high,low,close,volume,symbol", *of_times([e * 1000 for e in EPOCHS], after=",NSE:SBIN-EQ")),
    ),
    "SBIN.NS.csv": ("yfinance", lines("Datetime,Open,High,Low,Close,Volume", *of_times(UTC))),
    "SBIN_5m.csv": (
        "yfinance",
        lines("Datetime,Open,High,Low,Close,Volume,Dividends,Stock Splits", *of_times(UTC, after=",0.0,0.0")),
    ),
    "yahoo.csv": (
        "yfinance",
        lines("Datetime,Ticker,Adj Close,Close,High,Low,Open,Volume",
              *(f"{t},SBIN.NS,50,101,102,99.25,100.5,10" for t in UTC)),
    ),
    "wide.csv": (
        "yfinance",
        lines("Price,Close,High,Low,Open,Volume", "Ticker,SBIN.NS,SBIN.NS,SBIN.NS,SBIN.NS,SBIN.NS", "Datetime,,,,,",
              *(f"{t},101,102,99.25,100.5,10" for t in UTC)),
    ),
    "by_ticker.csv": (
        "yfinance",
        lines("Ticker,SBIN.NS,SBIN.NS,SBIN.NS,SBIN.NS,SBIN.NS", "Price,Open,High,Low,Close,Volume", "Datetime,,,,,",
              *of_times(UTC)),
    ),
    "own.csv": ("generic", lines("timestamp,symbol,open,high,low,close,volume",
                                 *(f"{t},SBIN,{PRICES}" for t in ISO))),
}  # fmt: skip


def check_bars(source: SourceBars, dialect: str) -> None:
    assert source.dialect == dialect
    assert source.quarantine.counts() == {}
    assert [i.symbol for i in source.universe.instruments] == ["SBIN"]
    bars = source.bars
    assert bars.start_ns.tolist() == [e * 1_000_000_000 for e in EPOCHS]
    assert set((bars.end_ns - bars.start_ns).tolist()) == {5 * MINUTE_NS}
    assert source.clock == BarClock.minutes(5)
    columns = (bars.open, bars.high, bars.low, bars.close, bars.volume)
    assert [set(column.tolist()) for column in columns] == [{100.5}, {102.0}, {99.25}, {101.0}, {10}]


@pytest.mark.parametrize("name", INTRADAY)
def test_an_export_is_recognised_and_read_to_the_same_bars(name: str, tmp_path: Path) -> None:
    dialect, text = INTRADAY[name]
    (tmp_path / name).write_text(text)
    check_bars(read_bars(tmp_path / name), dialect)


@pytest.mark.parametrize("name", [name for name in INTRADAY if name not in ("wide.csv", "by_ticker.csv")])
def test_the_same_export_as_parquet_is_the_same(name: str, tmp_path: Path) -> None:
    dialect, text = INTRADAY[name]
    (tmp_path / name).write_text(text)
    path = tmp_path / name.replace(".csv", ".parquet")
    pd.read_csv(tmp_path / name).to_parquet(path, index=False)
    check_bars(read_bars(path), dialect)


def test_frames_of_several_tickers_are_read_as_pandas_writes_them(tmp_path: Path) -> None:
    index = pd.DatetimeIndex(STARTS.tz_convert("UTC"), name="Datetime")
    fields = {"Adj Close": 50.0, "Close": 101.0, "High": 102.0, "Low": 99.25, "Open": 100.5, "Volume": 10.0}
    columns = pd.MultiIndex.from_product([fields, ["SBIN.NS", "^NSEI"]], names=["Price", "Ticker"])
    frame = pd.DataFrame([[v for v in fields.values() for _ in range(2)]] * 3, index=index, columns=columns)
    frame.loc[index[1], [(field, "SBIN.NS") for field in fields]] = np.nan  # only the other one traded
    frame.to_csv(tmp_path / "two.csv")
    flat = frame.copy()
    flat.columns = pd.Index([str(pair) for pair in frame.columns])  # as a table of Arrow names them
    flat.reset_index().to_parquet(tmp_path / "two.parquet")
    for name in ("two.csv", "two.parquet"):
        source = read_bars(tmp_path / name)
        assert source.dialect == "yfinance"
        assert [(i.symbol, i.tradable) for i in source.universe.instruments] == [("NIFTY 50", False), ("SBIN", True)]
        assert source.universe.market_index == 0
        assert source.bars.instrument.tolist() == [0, 1, 0, 0, 1]
        assert source.quarantine.rows[["row", "reason"]].to_numpy().tolist() == [[2, "no_prices"]]


DAILY = {
    "SBIN_day.csv": ("kite", lines("date,open,high,low,close,volume", *of_times(["2026-01-05 00:00:00+05:30"]))),
    "SBIN_D.csv": ("dhan", lines("open,high,low,close,volume,timestamp", f"{PRICES},{EPOCHS[0] - 33_300}")),
    "SBIN-EQ.csv": ("fyers", lines("0,1,2,3,4,5", *of_times([EPOCHS[0] - 33_300 + 19_800]))),
    "SBIN.csv": (
        "yfinance",
        lines("Date,Open,High,Low,Close,Adj Close,Volume", "2026-01-05,100.5,102,99.25,101,50,10"),
    ),
}


@pytest.mark.parametrize("name", DAILY)
def test_a_daily_export_is_a_bar_of_the_whole_session(name: str, tmp_path: Path) -> None:
    dialect, text = DAILY[name]
    (tmp_path / name).write_text(text)
    source = read_bars(tmp_path / name)
    assert (source.dialect, source.clock, source.quarantine.counts()) == (dialect, BarClock("session"), {})
    assert (source.bars.start_ns[0], source.bars.end_ns[0]) == (SESSION.open_ns, SESSION.close_ns)
    assert source.bars.close[0] == 101


@pytest.mark.parametrize(
    ("mapping", "header", "times"),
    [
        (ColumnMapping({"time": "Zeit"}), "Zeit", ISO),
        (ColumnMapping({"time": "t"}, time_format="epoch_s"), "t", EPOCHS),
        (ColumnMapping({"time": "t"}, time_format="epoch_ms"), "t", [e * 1000 for e in EPOCHS]),
        (ColumnMapping({"time": "t"}, time_format="epoch_ns"), "t", [e * 10**9 for e in EPOCHS]),
        (ColumnMapping({"time": "t"}, time_format="%d-%m-%Y %H:%M"), "t", STARTS.strftime("%d-%m-%Y %H:%M")),
        (
            ColumnMapping({"time": "t"}, time_format="%d-%m-%Y %H:%M", zone="UTC"),
            "t",
            STARTS.tz_convert("UTC").strftime("%d-%m-%Y %H:%M"),
        ),
        (
            ColumnMapping({"time": "t"}, zone="America/New_York"),
            "t",
            STARTS.tz_convert("America/New_York").strftime("%Y-%m-%dT%H:%M:%S"),
        ),
        (
            ColumnMapping({"time": "t"}, stamp="end"),
            "t",
            (STARTS + pd.Timedelta("5min")).strftime("%Y-%m-%dT%H:%M:%S"),
        ),
        ({"time": "Zeit"}, "Zeit", ISO),
    ],
)
def test_a_mapping_reads_names_times_zones_and_stamps_of_any_kind(
    mapping: ColumnMapping, header: str, times: list[object], tmp_path: Path
) -> None:
    path = tmp_path / "any.csv"
    path.write_text(lines(f"{header},open,high,low,close,volume", *of_times(list(times))))
    check_bars(read_bars(path, mapping=mapping, symbol="SBIN"), "generic")


def test_end_stamped_hours_end_with_a_short_bar(tmp_path: Path) -> None:
    ends = [*pd.date_range("2026-01-05 10:15", periods=6, freq="h"), pd.Timestamp("2026-01-05 15:30")]
    (tmp_path / "SBIN.csv").write_text(lines("timestamp,open,high,low,close,volume", *of_times(ends)))
    bars = read_bars(tmp_path / "SBIN.csv", mapping=ColumnMapping({}, stamp="end")).bars
    assert bars.start_ns[0] == SESSION.open_ns
    assert bars.start_ns[-1] == SESSION.open_ns + 6 * 60 * MINUTE_NS
    assert bars.end_ns[-1] == SESSION.close_ns


def test_a_clock_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "SBIN.csv").write_text(lines("timestamp,open,high,low,close,volume", *of_times(ISO[:1])))
    for clock in ("15m", "session"):
        source = read_bars(tmp_path / "SBIN.csv", mapping=ColumnMapping({}, clock=clock))
        assert source.clock == BarClock.parse(clock)
        assert len(source.bars) == 1


KITE = {
    "exchange_timestamp": ["2026-01-05 09:15:01", "2026-01-05 09:15:02"],
    "last_trade_time": ["2026-01-05 09:15:00", "2026-01-05 09:15:02"],
    "tradingsymbol": "SBIN",
    "last_price": [100.0, 100.5],
    "volume_traded": [5, 8],
    "depth_buy_0_price": [99.95, 0],
    "depth_buy_0_quantity": [7, 0],
    "depth_sell_0_price": [100.0, 100.55],
    "depth_sell_0_quantity": [3, 4],
}


def test_kites_full_mode_is_read_with_its_best_quote(tmp_path: Path) -> None:
    pd.DataFrame(KITE).to_csv(tmp_path / "full.csv", index=False)
    source = read_ticks(tmp_path / "full.csv")
    assert source.dialect == "kite"
    ticks = source.ticks
    assert ticks.event_time_ns.tolist() == [SESSION.open_ns + 10**9, SESSION.open_ns + 2 * 10**9]
    assert ticks.day_volume.tolist() == [5, 8]
    assert np.array_equal(ticks.bid_price, [99.95, np.nan], equal_nan=True)
    assert (ticks.bid_quantity.tolist(), ticks.ask_quantity.tolist()) == ([7, 0], [3, 4])
    assert (ticks.bid_quantity.dtype, ticks.ask_price.dtype) == (np.int64, np.float64)


def test_ticks_without_a_quote_have_none(tmp_path: Path) -> None:
    frame = pd.DataFrame(KITE)[["exchange_timestamp", "tradingsymbol", "last_price", "volume_traded"]]
    frame.to_parquet(tmp_path / "quote.parquet")
    assert not read_ticks(tmp_path / "quote.parquet").ticks.has_depth


def test_ticks_are_no_file_of_fields_over_tickers(tmp_path: Path) -> None:
    (tmp_path / "wide.csv").write_text(INTRADAY["wide.csv"][1])
    with pytest.raises(MissingColumn):
        read_ticks(tmp_path / "wide.csv")


def test_files_are_sources_of_bars_and_ticks(tmp_path: Path) -> None:
    (tmp_path / "SBIN.csv").write_text(INTRADAY["SBIN.csv"][1])
    pd.DataFrame(KITE).to_csv(tmp_path / "full.csv", index=False)
    bars: BarSource = BarFile(tmp_path / "SBIN.csv")
    ticks: TickSource = TickFile(tmp_path / "full.csv")
    assert isinstance(bars, BarSource)
    assert isinstance(ticks, TickSource)
    assert len(bars.bars([DAY]).bars) == 3
    assert len(bars.bars([DAY + dt.timedelta(days=1)]).bars) == 0
    assert len(ticks.ticks([SESSION]).ticks) == 2


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz", "a.parquet"])
def test_progress_grows_to_the_whole_file(name: str, tmp_path: Path) -> None:
    frame = pd.DataFrame({"timestamp": ISO, "symbol": "SBIN"}).assign(open=1.0, high=1.0, low=1.0, close=1.0, volume=1)
    if name.endswith("parquet"):
        frame.to_parquet(tmp_path / name, row_group_size=1)
    else:
        frame.to_csv(tmp_path / name, index=False)
    steps: list[tuple[int, int]] = []
    read_bars(tmp_path / name, progress=lambda done, total: steps.append((done, total)))
    assert [done for done, _ in steps] == sorted(done for done, _ in steps)
    assert len({total for _, total in steps}) == 1
    assert steps[-1][0] == steps[-1][1]
    if name.endswith("parquet"):
        assert steps == [(1, 3), (2, 3), (3, 3)]


def test_a_quarantine_is_written_with_reasons_and_read_back(tmp_path: Path) -> None:
    frame = pd.DataFrame({"timestamp": ISO, "symbol": "SBIN"}).assign(open=1.0, high=1.0, low=1.0, close=1.0, volume=1)
    frame.loc[1, "close"] = np.nan
    frame.to_csv(tmp_path / "a.csv", index=False)
    quarantine, store = read_bars(tmp_path / "a.csv").quarantine, OfflineStore(tmp_path)
    back = pd.read_parquet(store.write_quarantine("bars", quarantine.rows))
    assert back[["row", "reason", "timestamp"]].to_numpy().tolist() == [[2, "not_a_number", ISO[1]]]
    assert [path.name for path in (tmp_path / "quarantine").iterdir()] == ["bars.parquet"]
    nothing = read_bars(tmp_path / "a.csv", [DAY + dt.timedelta(days=1)]).quarantine
    assert len(pd.read_parquet(store.write_quarantine("bars", nothing.rows))) == 0
