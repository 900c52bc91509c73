"""Whose rows a file holds and which column is which, as files of many desks say it, and what is said of the others."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from feature_store.market.types import IST, MarketDataError, MissingColumn, UnreadableFile
from feature_store.sources.arrivals import read_market
from feature_store.sources.reading import ColumnMapping, read_bars, read_ticks

SYMBOLS = ("INFY", "RELIANCE", "TCS")


def bars(*symbols: str, rows: int = 20, apart: float = 0.0) -> pd.DataFrame:
    times = pd.date_range("2026-01-05 09:15", periods=rows, freq="min", tz=IST).strftime("%Y-%m-%d %H:%M:%S%z")
    parts = []
    for k, symbol in enumerate(symbols):
        price = np.round(100.0 + k * apart + np.cumsum(np.random.default_rng(k).normal(0, 0.02, rows)), 2)
        part = pd.DataFrame({"timestamp": times, "symbol": symbol, "open": np.append(100 + k * apart, price[:-1])})
        parts.append(part.assign(high=price + 1, low=price - 1, close=price, volume=10 + k))
    return pd.concat(parts)


def symbols_of(path: Path) -> list[str]:
    return [instrument.symbol for instrument in read_bars(path).universe.instruments]


@pytest.mark.parametrize(
    "column", ["ticker", "SYMBOL", "Stock_Code", "Stock Code", "tradingsymbol", "Trading Symbol", "scrip", "INSTRUMENT"]
)
def test_a_column_for_the_symbol_wins_over_the_files_name(column: str, tmp_path: Path) -> None:
    bars(*SYMBOLS).rename(columns={"symbol": column}).to_csv(tmp_path / "NIFTY50.csv", index=False)
    assert symbols_of(tmp_path / "NIFTY50.csv") == list(SYMBOLS)
    ticks = bars(*SYMBOLS).rename(columns={"symbol": column, "close": "ltp"})
    ticks.to_parquet(tmp_path / "NIFTY50.parquet")
    source = read_ticks(tmp_path / "NIFTY50.parquet")
    assert [instrument.symbol for instrument in source.universe.instruments] == list(SYMBOLS)


@pytest.mark.parametrize("column", ["Name", "code", "instrument_key"])
def test_a_column_that_may_hold_symbols_is_their_column_if_it_does(column: str, tmp_path: Path) -> None:
    frame = bars("M&M").rename(columns={"symbol": column})
    frame.to_csv(tmp_path / "NIFTY50.csv", index=False)
    assert symbols_of(tmp_path / "NIFTY50.csv") == ["M&M"]
    frame.assign(**{column: "Mahindra and Mahindra"}).to_csv(tmp_path / "MM.csv", index=False)
    assert symbols_of(tmp_path / "MM.csv") == ["MM"]


@pytest.mark.parametrize(("column", "values"), [("company", ("Infosys", "TCS Ltd")), ("instrument_token", (1, 2))])
def test_a_file_of_one_name_whose_other_columns_tell_instruments_apart_is_refused(
    column: str, values: tuple[object, object], tmp_path: Path
) -> None:
    first, second = (bars("ANY").drop(columns="symbol").assign(**{column: value}) for value in values)
    second["timestamp"] = second["timestamp"].str.replace("01-05", "01-06")
    pd.concat([first, second]).to_csv(tmp_path / "NIFTY50.csv", index=False)
    with pytest.raises(MissingColumn, match=f"its column '{column}' has 2 values .*--columns symbol={column} "):
        read_bars(tmp_path / "NIFTY50.csv")


def test_a_column_of_the_kind_of_instrument_is_no_symbol(tmp_path: Path) -> None:
    bars("SBIN").rename(columns={"symbol": "instrument"}).assign(instrument="EQUITY").to_csv(tmp_path / "SBIN.csv")
    assert symbols_of(tmp_path / "SBIN.csv") == ["SBIN"]


def test_symbols_of_other_schemes_are_the_exchanges_whoever_wrote_the_file(tmp_path: Path) -> None:
    bars("NSE:SBIN-EQ", "TCS.NS", "M&M").rename(columns={"symbol": "ticker"}).to_csv(tmp_path / "a.csv", index=False)
    assert sorted(symbols_of(tmp_path / "a.csv")) == ["M&M", "SBIN", "TCS"]


@pytest.mark.parametrize("apart", [0.0, 900.0])
@pytest.mark.parametrize("order", ["timestamp", "symbol"])
def test_rows_that_plainly_are_of_several_instruments_are_never_one(apart: float, order: str, tmp_path: Path) -> None:
    frame = bars(*SYMBOLS, apart=apart).sort_values(order, kind="stable").drop(columns="symbol")
    frame.to_csv(tmp_path / "NIFTY50.csv", index=False)
    for symbol in (None, "INFY"):
        with pytest.raises(MissingColumn, match=r"plainly holds several instruments \(.* in row \d+, .*symbol=COLUMN"):
            read_bars(tmp_path / "NIFTY50.csv", symbol=symbol)


def test_ticks_of_several_instruments_are_never_one(tmp_path: Path) -> None:
    frame = bars(*SYMBOLS, apart=900.0).sort_values("timestamp", kind="stable").rename(columns={"close": "ltp"})
    frame.drop(columns="symbol").to_csv(tmp_path / "INFY.csv", index=False)
    with pytest.raises(MissingColumn, match="plainly holds several instruments"):
        read_ticks(tmp_path / "INFY.csv")


def test_a_bar_that_came_twice_is_no_second_instrument(tmp_path: Path) -> None:
    frame = bars("SBIN").drop(columns="symbol")
    pd.concat([frame, frame.assign(close=frame["close"] + 0.05, volume=12)]).to_csv(tmp_path / "SBIN.csv", index=False)
    assert len(read_bars(tmp_path / "SBIN.csv").bars) == 20


@pytest.mark.parametrize(
    ("name", "symbol"),
    [
        ("BANKNIFTY_day.csv", "BANKNIFTY"),
        ("NIFTY50_5minute.csv", "NIFTY50"),
        ("NIFTY-50.csv", "NIFTY-50"),
        ("NIFTY 50_minute.csv", "NIFTY 50"),
        ("India VIX_5minute.parquet", "India VIX"),
        ("^NSEBANK.csv", "NIFTY BANK"),
        ("SBIN-5MIN.csv", "SBIN"),
        ("X-D.csv", "X-D"),
        ("MCDOWELL-N.csv", "MCDOWELL-N"),
        ("BAJAJ-AUTO_D.csv", "BAJAJ-AUTO"),
        ("M&M_1m.csv", "M&M"),
        ("3MINDIA-60minute.csv", "3MINDIA"),
        ("NSE_SBIN-EQ_15.csv", "SBIN"),
        ("RELIANCE.CSV", "RELIANCE"),
        ("TCS.csv.GZ", "TCS"),
        ("TCS.NS.Csv.gz", "TCS"),
        ("INFY.Parquet", "INFY"),
    ],
)
def test_of_a_files_name_only_an_interval_is_cut_off(name: str, symbol: str, tmp_path: Path) -> None:
    frame = bars("ANY").drop(columns="symbol")
    if name.lower().endswith("parquet"):
        frame.to_parquet(tmp_path / name)
    else:
        frame.to_csv(tmp_path / name, index=False, compression="gzip" if name.lower().endswith("gz") else None)
    source = read_bars(tmp_path / name)
    assert [instrument.symbol for instrument in source.universe.instruments] == [symbol]
    assert source.recognised == (f"no column for the symbol: all rows are {symbol}, by the file's name",)


@pytest.mark.parametrize(
    "name",
    [
        "UNIVERSE.csv",
        "NSE_DATA.csv",
        "NIFTY_50.csv",
        "NIFTY 50 stocks.csv",
        "NSE_EQ.csv",
        "BHAVCOPY.csv",
        "INFY (1).csv",
        "NIFTY_500.csv",
        "20240401.csv",
        "2024-04-01.csv",
        "SBIN_1m_24.csv",
    ],
)
def test_a_name_that_is_no_symbol_is_not_made_one(name: str, tmp_path: Path) -> None:
    bars("ANY").drop(columns="symbol").to_csv(tmp_path / name, index=False)
    with pytest.raises(MissingColumn, match=r"its name is no symbol.*--columns symbol=COLUMN, setting market\.columns"):
        read_bars(tmp_path / name)


# --- columns -------------------------------------------------------------------------------------------------------

THEIRS = {"timestamp": "Date Time", "open": "O", "high": "HIGH_PRICE", "low": "L", "close": "C", "volume": "Total Qty"}


def test_columns_that_are_missing_are_asked_for_by_the_option_and_the_setting_filled_in(tmp_path: Path) -> None:
    bars(*SYMBOLS).rename(columns=THEIRS | {"close": "zzz"}).to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(MissingColumn) as error:
        read_bars(tmp_path / "a.csv")
    said = str(error.value)
    assert "--columns 'time=Date Time,open=O,high=HIGH_PRICE,low=L,close=COLUMN,volume=Total Qty'" in said
    assert 'market.columns = { time = "Date Time", open = "O", high = "HIGH_PRICE"' in said
    columns = {
        "time": "Date Time",
        "open": "o",
        "high": "HIGH_PRICE",
        "low": "L",
        "close": "zzz",
        "volume": "total_qty",
    }
    assert len(read_bars(tmp_path / "a.csv", mapping=columns).bars) == 60


def test_one_mapping_of_two_files_says_of_each_what_it_has(tmp_path: Path) -> None:
    frame = bars(*SYMBOLS)
    day = pd.to_datetime(frame["timestamp"])
    frame.assign(timestamp=day.dt.strftime("%d-%m-%Y %H:%M")).rename(columns=THEIRS).to_csv(tmp_path / "bars.csv")
    ticks = frame.assign(timestamp=day.astype("int64") // 1000, rate=frame["close"])[
        ["timestamp", "symbol", "rate", "volume"]
    ]
    ticks.to_csv(tmp_path / "ticks.csv", index=False)
    stated = {"time": "Date Time", "open": "O", "high": "HIGH_PRICE", "low": "L", "close": "C", "price": "rate"}
    columns = stated | {"volume": "Total Qty"}
    files = tmp_path / "bars.csv", tmp_path / "ticks.csv"
    mapping = ColumnMapping.stated(columns, "%d-%m-%Y %H:%M", "", "", files=2)
    arrival = read_market(*files, mapping=mapping)
    assert [len(table) for _, table in arrival.bars.values()] == [60]
    assert [len(table) for _, table in arrival.ticks.values()] == [60]
    with pytest.raises(MarketDataError, match=r"no file has the columns that the mapping names: tick_count=trades"):
        read_market(
            *files, mapping=ColumnMapping.stated(columns | {"tick_count": "trades"}, "%d-%m-%Y %H:%M", "", "", files=2)
        )
    ticks.to_csv(tmp_path / "bars.csv")
    with pytest.raises(MissingColumn, match="--columns open=COLUMN"):
        read_market(*files, mapping=mapping)


def test_a_format_in_which_no_file_is_written_is_refused(tmp_path: Path) -> None:
    bars(*SYMBOLS).to_csv(tmp_path / "bars.csv", index=False)
    bars(*SYMBOLS).rename(columns={"close": "ltp"}).to_csv(tmp_path / "ticks.csv", index=False)
    mapping = ColumnMapping.stated({}, "%d-%m-%Y %H:%M", "", "", files=2)
    with pytest.raises(
        MarketDataError, match=r"the times of no file are written as '%d-%m-%Y %H:%M'; correct --time-f"
    ):
        read_market(tmp_path / "bars.csv", tmp_path / "ticks.csv", mapping=mapping)


def test_headers_of_metastock_and_metatrader_are_read_as_they_stand(tmp_path: Path) -> None:
    frame = bars("INFY")
    when = pd.to_datetime(frame["timestamp"])
    prices = {f"<{name.upper()}>": frame[name] for name in ("open", "high", "low", "close")}
    volume = {"<TICKVOL>": 3, "<VOL>": frame["volume"]}
    day = {"<TICKER>": "INFY", "<DTYYYYMMDD>": when.dt.strftime("%Y%m%d"), "<TIME>": when.dt.strftime("%H%M%S")}
    pd.DataFrame(day | prices | volume).to_csv(tmp_path / "a.txt.csv", index=False)
    day = {"<DATE>": when.dt.strftime("%Y.%m.%d"), "<TIME>": when.dt.strftime("%H:%M:%S")}
    pd.DataFrame(day | prices | volume).to_csv(tmp_path / "INFY.csv", index=False, sep="\t")
    for name in ("a.txt.csv", "INFY.csv"):
        source = read_bars(tmp_path / name)
        assert [instrument.symbol for instrument in source.universe.instruments] == ["INFY"]
        assert (len(source.bars), source.bars.volume.tolist()) == (len(frame), frame["volume"].tolist())
        assert source.bars.start_ns[0] == when.iloc[0].value


@pytest.mark.parametrize(
    ("above", "says"),
    [
        ("", r"its first line, \['2026-01-05 09:15.*is a row of data; write names"),
        ("Prices of INFY\n", "no column with a name: its first line is .'Prices of INFY'., and the next"),
        ("sep=,\n", "remove the first"),
    ],
)
def test_a_first_line_that_names_no_columns_is_said_to_be_none(above: str, says: str, tmp_path: Path) -> None:
    frame = bars("INFY").drop(columns="symbol").astype({"high": float, "low": float})
    (tmp_path / "INFY.csv").write_text(above + frame.to_csv(index=False, header=bool(above)))
    with pytest.raises(MissingColumn, match=says):
        read_bars(tmp_path / "INFY.csv")


def test_a_quantity_that_is_offered_is_not_proposed_as_the_days_volume(tmp_path: Path) -> None:
    ticks = bars("INFY").rename(columns={"close": "LTP", "volume": "BuyQty"}).drop(columns="open")
    ticks.to_csv(tmp_path / "a.csv", index=False)
    with pytest.raises(MissingColumn, match=r"has no column 'day_volume'.*--columns volume=COLUMN "):
        read_ticks(tmp_path / "a.csv")


def test_of_two_volumes_of_ticks_that_of_the_day_is_the_days(tmp_path: Path) -> None:
    ticks = bars("INFY").rename(columns={"close": "ltp"}).assign(volume=7, volume_traded=range(100, 120))
    ticks.to_csv(tmp_path / "a.csv", index=False)
    assert read_ticks(tmp_path / "a.csv").ticks.day_volume.tolist() == list(range(100, 120))


# --- separators and commas -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("separator", [";", "\t", "|"])
@pytest.mark.parametrize("decimal", [".", ","])
def test_fields_are_parted_by_what_parts_the_header(separator: str, decimal: str, tmp_path: Path) -> None:
    frame = bars("INFY")
    frame.to_csv(tmp_path / "a.csv", index=False)
    frame.to_csv(tmp_path / "b.csv.gz", index=False, sep=separator, decimal=decimal)
    plain, other = read_bars(tmp_path / "a.csv"), read_bars(tmp_path / "b.csv.gz")
    assert other.quarantine.counts() == {}
    np.testing.assert_array_equal(other.bars.close, plain.bars.close)


def test_commas_that_group_digits_are_left_out_where_nothing_else_can_be_meant(tmp_path: Path) -> None:
    frame = bars("INFY")[:3].assign(open="1,23,456.50", high="1,23,500.00", low="999.50", close="1,000.00")
    frame.assign(volume=["1,234", "987", "12,34,567"]).to_csv(tmp_path / "a.csv", index=False)
    source = read_bars(tmp_path / "a.csv")
    assert (source.bars.open[0], source.bars.close[0]) == (123456.5, 1000.0)
    assert source.bars.volume.tolist() == [1234, 987, 1234567]
    frame.assign(open="1,234", high="1,500", low="1,000", close="1,100").to_csv(tmp_path / "b.csv", index=False)
    assert read_bars(tmp_path / "b.csv").quarantine.counts() == {"not_a_number": 3}


def test_a_file_of_which_no_row_has_the_headers_fields_is_quarantined(tmp_path: Path) -> None:
    text = bars("INFY").to_csv(index=False)
    (tmp_path / "a.csv").write_text(text.replace(",", ";").replace(";", ",", 6))
    assert read_bars(tmp_path / "a.csv").quarantine.counts() == {"malformed_row": 20}


@pytest.mark.parametrize("place", [0, 1, -1])
def test_a_quote_that_is_never_closed_does_not_swallow_the_rows_after_it(place: int, tmp_path: Path) -> None:
    lines = bars("INFY").to_csv(index=False).splitlines()
    fields = lines[5].split(",")
    fields[place] = f'"{fields[place]}'
    lines[5] = ",".join(fields)
    (tmp_path / "a.csv").write_text("\n".join(lines))
    with pytest.raises(UnreadableFile, match=r"row 5 has a quote that is not closed .* the next 15; correct it: '"):
        read_bars(tmp_path / "a.csv")
