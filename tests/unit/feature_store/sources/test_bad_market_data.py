"""Everything that can be wrong with a file of market data, and what must come of it: a reason, or an error's words."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from feature_store.market.corporate_actions import CorporateAction, CorporateActions
from feature_store.market.membership import Membership
from feature_store.market.types import IST, InvalidRows, MarketDataError, MissingColumn, Universe, UnreadableFile
from feature_store.sources.dated_tables import read_corporate_actions, read_membership, read_universe
from feature_store.sources.reading import ColumnMapping, SourceBars, SourceTicks, read_bars, read_ticks

UNIVERSE = Universe.from_symbols(["AAA", "BBB"])
MONDAY = "2026-01-05"


def bars(rows: int = 6) -> pd.DataFrame:
    times = pd.date_range(f"{MONDAY} 09:15", periods=rows, freq="min", tz=IST).strftime("%Y-%m-%d %H:%M:%S%z")
    frame = pd.DataFrame({"timestamp": times, "symbol": "AAA"})
    return frame.assign(open=100.0, high=102.0, low=99.0, close=101.0, volume=10).astype(object)


def ticks(rows: int = 6) -> pd.DataFrame:
    times = pd.date_range(f"{MONDAY} 09:15", periods=rows, freq="s", tz=IST).strftime("%Y-%m-%d %H:%M:%S%z")
    frame = pd.DataFrame({"timestamp": times, "symbol": "AAA", "ltp": 100.0, "volume": np.arange(rows) * 5})
    quote = {"bid_price": 99.95, "ask_price": 100.0, "bid_quantity": 10, "ask_quantity": 20}
    return frame.assign(**quote).astype(object)


def actions() -> pd.DataFrame:
    rows = [("AAA", "2026-01-05", "split", 0.5), ("BBB", "2026-01-06", "bonus", 0.2)]
    return pd.DataFrame(rows, columns=["symbol", "ex_date", "kind", "factor"]).astype(object)


def members() -> pd.DataFrame:
    rows = [("AAA", "2020-01-01", "2021-06-30"), ("AAA", "2023-01-02", None), ("BBB", "2022-01-03", "2022-01-03")]
    return pd.DataFrame(rows, columns=["symbol", "from", "to"]).astype(object)


def instruments() -> pd.DataFrame:
    rows = [("AAA", "equity", 101, 0.05), ("NEW INDEX", "INDEX", 102, None), ("BBB", "etf", None, 0.01)]
    return pd.DataFrame(rows, columns=["symbol", "kind", "instrument_token", "tick_size"]).astype(object)


GOOD: dict[str, tuple[Callable[[], pd.DataFrame], Callable[..., Any]]] = {
    "bars": (bars, read_bars),
    "ticks": (ticks, read_ticks),
    "actions": (actions, read_corporate_actions),
    "members": (members, read_membership),
    "instruments": (instruments, read_universe),
}


def save(frame: pd.DataFrame, path: Path) -> Path:
    if path.suffix == ".parquet":
        frame.to_parquet(path, index=False)
    else:
        frame.to_csv(path, index=False)
    return path


def rows_of(source: SourceBars | SourceTicks) -> int:
    return len(source.bars if isinstance(source, SourceBars) else source.ticks) + len(source.quarantine)


# --- rows of bars and ticks: a reason each -------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """The third row with some values, and the reason that it must get."""

    reason: str
    values: dict[str, Any]


BAR_ROWS = [
    Row("unreadable_time", {"timestamp": ""}),
    Row("unreadable_time", {"timestamp": "yesterday"}),
    Row("unreadable_time", {"timestamp": "now"}),
    Row("unreadable_time", {"timestamp": "today"}),
    Row("unreadable_time", {"timestamp": "05/01/2026 09:17"}),
    Row("unreadable_time", {"timestamp": "2026-13-05 09:17:00+05:30"}),
    Row("unreadable_time", {"timestamp": "2026-01-05 24:17:00+05:30"}),
    Row("unreadable_time", {"timestamp": "1767584820"}),
    Row("unreadable_time", {"timestamp": "9999-01-05 09:17:00"}),
    Row("unreadable_time", {"timestamp": "0001-01-05 09:17:00"}),
    Row("missing_symbol", {"symbol": ""}),
    Row("missing_symbol", {"symbol": "   "}),
    Row("unknown_symbol", {"symbol": "ZZZ"}),
    Row("unknown_symbol", {"symbol": "aaa"}),
    Row("not_a_session", {"timestamp": "2026-01-04 09:17:00+05:30"}),  # a Sunday
    Row("not_a_session", {"timestamp": "2026-01-26 09:17:00+05:30"}),  # Republic Day
    Row("unverified_date", {"timestamp": "2031-01-06 09:17:00+05:30"}),
    Row("unverified_date", {"timestamp": "1970-01-01 00:00:00+05:30"}),
    Row("outside_session", {"timestamp": f"{MONDAY} 09:14:00+05:30"}),
    Row("outside_session", {"timestamp": f"{MONDAY} 15:30:00+05:30"}),
    Row("outside_session", {"timestamp": f"{MONDAY} 15:17:00+00:00"}),  # IST marked as UTC
    Row("outside_session", {"timestamp": "2025-10-21 09:17:00+05:30"}),  # Muhurat trading only
    Row("off_grid", {"timestamp": f"{MONDAY} 09:17:30+05:30"}),
    Row("off_grid", {"timestamp": f"{MONDAY} 09:17:00.000001+05:30"}),
    Row("duplicate_bar", {"timestamp": f"{MONDAY} 09:16:00+05:30"}),
    Row("superseded_bar", {"timestamp": f"{MONDAY} 09:16:00+05:30", "volume": 9}),
    *(Row("not_a_number", {c: ""}) for c in ("open", "high", "low", "close", "volume")),
    *(Row("not_a_number", {"close": text}) for text in ("abc", "nan", "inf", "-inf", "1,000", "₹100", "--", "1e999")),
    *(Row("non_positive_price", {c: 0.0}) for c in ("open", "high", "low", "close")),
    Row("non_positive_price", {"low": -99.0}),
    Row("non_positive_price", {"low": 0.00004}),  # nothing in the fixed point of features
    Row("high_below_low", {"high": 98.0}),
    Row("open_or_close_outside_range", {"open": 102.05}),
    Row("open_or_close_outside_range", {"open": 98.95}),
    Row("open_or_close_outside_range", {"close": 102.05}),
    Row("open_or_close_outside_range", {"close": 98.95}),
    Row("negative_volume", {"volume": -1}),
    Row("price_too_large", {"high": 500_001.0}),
    Row("price_too_large", {"high": 999_999_999}),
    Row("price_too_large", {"high": 1e308}),
    Row("volume_too_large", {"volume": 2**53}),
    Row("volume_too_large", {"volume": 3 * 10**10}),
    Row("volume_too_large", {"volume": "99999999999999999999999"}),
    Row("turnover_too_large", {"volume": 1.5e10}),  # at these prices more than the exchange trades in a day
    Row("placeholder_number", {"volume": 99_999_999}),
    Row("placeholder_number", {"volume": 999_999_999}),
    Row("placeholder_number", {"volume": 2**31 - 1}),
    Row("placeholder_number", {"volume": 2**32 - 1}),
    Row("placeholder_number", dict.fromkeys(("open", "high", "low", "close"), 9999.99)),
    Row("placeholder_number", {"high": 99999.99}),
]

TICK_ROWS = [
    Row("unreadable_time", {"timestamp": "abc"}),
    Row("missing_symbol", {"symbol": ""}),
    Row("unknown_symbol", {"symbol": "ZZZ"}),
    Row("not_a_session", {"timestamp": "2026-01-03 09:17:00+05:30"}),
    Row("unverified_date", {"timestamp": "2031-01-06 09:17:00+05:30"}),
    Row("outside_session", {"timestamp": f"{MONDAY} 09:14:59+05:30"}),
    Row("outside_session", {"timestamp": f"{MONDAY} 15:30:00+05:30"}),
    Row("not_a_number", {"ltp": ""}),
    Row("not_a_number", {"ltp": "1_000x"}),
    Row("not_a_number", {"volume": ""}),
    Row("non_positive_price", {"ltp": 0}),
    Row("non_positive_price", {"ltp": -5.0}),
    Row("negative_volume", {"volume": -5}),
    Row("price_too_large", {"ltp": 1e308}),
    Row("volume_too_large", {"volume": 1e300}),
    Row("placeholder_number", {"volume": 999_999_999}),
    Row("bad_quote", {"bid_price": -1.0}),
    Row("bad_quote", {"ask_price": "inf"}),
    Row("bad_quote", {"bid_price": ""}),  # with a quantity
    Row("bad_quote", {"ask_price": 0}),
    Row("bad_quote", {"bid_quantity": -1}),
    Row("bad_quote", {"ask_quantity": ""}),
    Row("bad_quote", {"ask_quantity": 1e17}),
    Row("crossed_quote", {"bid_price": 100.05}),
]


def told(row: Row) -> str:
    return f"{row.reason}: {row.values}"


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("of", "row"),
    [*(("bars", row) for row in BAR_ROWS), *(("ticks", row) for row in TICK_ROWS)],
    ids=lambda value: told(value) if isinstance(value, Row) else value,
)
def test_a_bad_row_alone_is_quarantined_with_its_reason(of: str, row: Row, kind: str, tmp_path: Path) -> None:
    make, read = GOOD[of]
    frame = make()
    for column, value in row.values.items():
        frame.loc[2, column] = value
    text = frame.map(lambda value: None if value == "" else str(value))  # a Parquet file of text
    source = read(save(frame if kind == "csv" else text, tmp_path / f"bad.{kind}"), universe=UNIVERSE)
    assert source.quarantine.counts() == {row.reason: 1}
    assert source.quarantine.first_rows() == {row.reason: 3}
    assert rows_of(source) == len(frame)


@pytest.mark.parametrize(
    "lines",
    [
        {3: f"{MONDAY} 09:17:00+05:30,AAA,100"},
        {3: f"{MONDAY} 09:17:00+05:30,AAA,100,102,99,101,10,11,12"},
        {2: "x", 4: ",,,,,,,,,,"},
    ],
)
def test_a_row_with_too_few_or_many_fields_is_malformed(lines: dict[int, str], tmp_path: Path) -> None:
    path = save(bars(12), tmp_path / "a.csv")
    text = path.read_text().splitlines()
    for row, line in lines.items():
        text[row] = line
    path.write_text("\n".join(text))
    source = read_bars(path)
    assert source.quarantine.counts() == {"malformed_row": len(lines)}
    assert source.quarantine.rows["row"].tolist() == list(lines)
    assert rows_of(source) == 12


def test_rows_bad_in_many_ways_are_all_accounted_for_by_their_first_reason(tmp_path: Path) -> None:
    frame = bars(len(BAR_ROWS) + 3)
    for k, row in enumerate(BAR_ROWS):
        for column, value in row.values.items():
            frame.loc[k + 2, column] = value
    source = read_bars(save(frame, tmp_path / "bad.csv"), universe=UNIVERSE)
    assert rows_of(source) == len(frame)
    assert len(source.bars) >= 1
    assert set(source.quarantine.counts()) <= {row.reason for row in BAR_ROWS}
    assert source.quarantine.rows["row"].is_unique


@pytest.mark.parametrize("place", [0, 1, 40, 98])
@pytest.mark.parametrize(
    ("wrong", "reason"), [(f"{MONDAY} 23:29:00+05:30", "outside_session"), ("2026-03-01 10:00+05:30", "not_a_session")]
)
def test_one_absurd_time_costs_one_row(place: int, wrong: str, reason: str, tmp_path: Path) -> None:
    for of, (make, read) in list(GOOD.items())[:2]:
        frame = make(200)
        frame.loc[place, "timestamp"] = wrong
        source = read(save(frame, tmp_path / f"{of}.csv"))
        assert source.quarantine.rows[["row", "reason"]].to_numpy().tolist() == [[place + 1, reason]]


# --- daily bars ----------------------------------------------------------------------------------------------------

DAILY_ROWS = [
    Row("not_a_session", {"timestamp": "2026-01-10"}),
    Row("off_grid", {"timestamp": "2026-01-07 10:00:00+05:30"}),
    Row("duplicate_bar", {"timestamp": "2026-01-06 05:30:00+05:30"}),  # the same date at midnight UTC
    Row("contradicting_bar", {"timestamp": "2026-01-06", "close": 100.5}),
    Row("unreadable_time", {"timestamp": "07-01-2026"}),
]


@pytest.mark.parametrize("row", DAILY_ROWS, ids=told)
def test_a_bad_row_of_daily_bars_is_quarantined(row: Row, tmp_path: Path) -> None:
    frame = bars(5).assign(timestamp=pd.date_range(MONDAY, periods=5).strftime("%Y-%m-%d"))
    for column, value in row.values.items():
        frame.loc[2, column] = value
    source = read_bars(save(frame, tmp_path / "daily.csv"))
    assert source.clock.kind == "session"
    assert source.quarantine.counts() == {row.reason: 2 if row.reason == "contradicting_bar" else 1}
    assert rows_of(source) == 5


# --- whole files: an error that names them -------------------------------------------------------------------------


def truncated(path: Path, share: float) -> None:
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])


@dataclass(frozen=True)
class Damage:
    """What happened to a file, and what the error says."""

    suffix: str
    happened: Callable[[Path], object]
    says: str
    error: type[MarketDataError] = UnreadableFile


DAMAGES = {
    "missing": Damage("csv", lambda path: path.unlink(), "is not a file; check the path"),
    "a directory": Damage("csv", lambda path: (path.unlink(), path.mkdir()), "is not a file"),
    "empty": Damage("parquet", lambda path: path.write_bytes(b""), "is empty"),
    "text called Parquet": Damage("parquet", lambda path: path.write_text("a,b\n1,2"), "truncated or damaged"),
    "half a Parquet file": Damage("parquet", lambda path: truncated(path, 0.5), "truncated or damaged"),
    "a Parquet file without its last byte": Damage("parquet", lambda path: truncated(path, 0.999), "damaged"),
    "Parquet called CSV": Damage("csv", lambda path: path.write_bytes(b"PAR1\x15\x04\xff\xfe"), "damaged"),
    "half a gzip file": Damage("csv.gz", lambda path: truncated(path, 0.5), "truncated or damaged"),
    "text called gzip": Damage("csv.gz", lambda path: path.write_text("timestamp,symbol\n"), "damaged"),
    "a header alone": Damage("csv", lambda path: path.write_text(path.read_text().split("\n")[0] + "\n"), "no rows"),
    "another kind": Damage("csv", lambda path: path.rename(path.with_suffix(".xlsx")), "is not a file"),
    "other columns": Damage("csv", lambda path: path.write_text("a,b\n1,2\n"), "has no column", MissingColumn),
    "no header": Damage(
        "csv", lambda path: path.write_text(path.read_text().split("\n", 1)[1]), "has no column", MissingColumn
    ),
    "bytes that are no UTF-8": Damage("csv", lambda path: path.write_bytes(b"\xff\xfe\x00\n1"), "cannot be read"),
    "another encoding below": Damage(
        "csv",
        lambda path: path.write_bytes(path.read_bytes().replace(b"AAA", b"\xff\xff\xff")),
        "cannot be read",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("of", GOOD)
def test_a_damaged_file_is_refused_by_name(of: str, damage: str, tmp_path: Path) -> None:
    make, read = GOOD[of]
    what = DAMAGES[damage]
    path = save(make(), tmp_path / f"file.{what.suffix}")
    what.happened(path)
    with pytest.raises(what.error, match=what.says) as error:
        read(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("of", GOOD)
def test_a_file_of_no_known_kind_is_refused(of: str, tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(UnreadableFile, match=r"a\.xlsx is neither .parquet nor .csv; convert"):
        GOOD[of][1](tmp_path / "a.xlsx")


# --- columns -------------------------------------------------------------------------------------------------------

REQUIRED = [
    *(("bars", column) for column in ("timestamp", "symbol", "open", "high", "low", "close", "volume")),
    *(("ticks", column) for column in ("timestamp", "symbol", "ltp", "volume")),
    *(("ticks", column) for column in ("bid_price", "ask_price", "bid_quantity", "ask_quantity")),
    *(("actions", column) for column in ("symbol", "ex_date", "kind", "factor")),
    *(("members", column) for column in ("symbol", "from", "to")),
    *(("instruments", column) for column in ("symbol", "kind")),
]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(("of", "column"), REQUIRED)
def test_a_missing_column_is_named_with_what_is_there(of: str, column: str, kind: str, tmp_path: Path) -> None:
    make, read = GOOD[of]
    path = save(make().drop(columns=column).astype("str"), tmp_path / f"file.{kind}")
    with pytest.raises(MissingColumn, match=column) as error:
        read(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("of", "column"), [("bars", "close"), ("bars", "timestamp"), ("ticks", "ltp"), ("actions", "factor")]
)
def test_a_column_that_is_there_twice_is_refused(of: str, column: str, tmp_path: Path) -> None:
    make, read = GOOD[of]
    frame = make()
    frame.insert(0, column.upper(), frame[column])
    with pytest.raises(MarketDataError, match=rf"more than one column '{column.upper()}'"):
        read(save(frame, tmp_path / "twice.csv"))


WRONG_TYPES: list[tuple[str, str, Any, str]] = [
    ("bars", "timestamp", 1.5, "no time.*time_format"),
    ("bars", "timestamp", True, "no time"),
    ("bars", "close", True, "no number"),
    ("bars", "close", pd.Timestamp(MONDAY), "no number"),
    ("bars", "close", [1.0], "no number"),
    ("bars", "volume", b"10", "no number"),
    ("bars", "symbol", [1], "no text"),
    ("ticks", "ltp", {"price": 1.0}, "no number"),
    ("ticks", "timestamp", 5, "no time"),
    ("actions", "ex_date", 5, "no time"),
    ("actions", "factor", pd.Timestamp(MONDAY), "no number"),
    ("members", "from", 5, "no time"),
    ("members", "symbol", [1], "no text"),
]


@pytest.mark.parametrize(("of", "column", "value", "says"), WRONG_TYPES)
def test_a_column_of_a_wrong_type_is_refused_by_name(
    of: str, column: str, value: object, says: str, tmp_path: Path
) -> None:
    make, read = GOOD[of]
    frame = make().astype("str")
    frame[column] = [value] * len(frame)
    with pytest.raises(MarketDataError, match=rf"column '{column}' is .*{says}"):
        read(save(frame, tmp_path / "types.parquet"))


def test_a_column_of_nothing_is_quarantined_row_by_row(tmp_path: Path) -> None:
    for column, reason in (("timestamp", "unreadable_time"), ("symbol", "missing_symbol"), ("close", "not_a_number")):
        source = read_bars(save(bars().assign(**{column: None}), tmp_path / f"{column}.parquet"))
        assert source.quarantine.counts() == {reason: 6}


# --- corporate actions ---------------------------------------------------------------------------------------------

ACTION_ROWS = [
    Row("the symbol is missing", {"symbol": ""}),
    Row("the ex-date is missing or no date", {"ex_date": ""}),
    Row("the ex-date is missing or no date", {"ex_date": "06/01/2026"}),
    Row("the ex-date is missing or no date", {"ex_date": "2026-02-30"}),
    Row("the ex-date is missing or no date", {"ex_date": "2026-01-06 09:15:00"}),
    Row("kind 'merger' is unknown; write one of split, bonus", {"kind": "merger"}),
    Row("kind '' is unknown", {"kind": ""}),
    Row("factor 0 is no positive number", {"factor": 0}),
    Row("factor -0.5 is no positive number", {"factor": -0.5}),
    Row("factor nan is no positive number", {"factor": ""}),
    Row("factor nan is no positive number", {"factor": "1:5"}),
    Row("factor inf is no positive number", {"factor": "inf"}),
    Row(r"factor 5 of a bonus is not below 1.*perhaps 0\.2", {"factor": 5}),
    Row("factor 1 of a bonus is not below 1", {"factor": 1}),
    Row(r"factor 0\.2 of a consolidation is not above 1 \(perhaps 5", {"kind": "consolidation"}),
    Row("AAA has an action on 2026-01-05 in row 1 already", {"symbol": "AAA", "ex_date": "2026-01-05"}),
]

MEMBER_ROWS = [
    Row("the symbol is missing", {"symbol": " "}),
    Row("symbol 'ZZZ' is not in the universe", {"symbol": "ZZZ"}),
    Row("'from' of AAA is missing or no date", {"from": ""}),
    Row("'from' of AAA is missing or no date", {"from": "02-01-2023"}),
    Row("'from' of AAA is missing or no date", {"from": "2023-01-02 09:15:00"}),
    Row("'to' of AAA is no date", {"to": "never"}),
    Row("'to' of AAA is no date", {"to": "2024-13-01"}),
    Row("AAA leaves on 2023-01-01, before it joins on 2023-01-02", {"to": "2023-01-01"}),
    Row("AAA from 2021-06-30 overlaps row 1, 2020-01-01 to 2021-06-30", {"from": "2021-06-30"}),
    Row("AAA from 2020-01-01 overlaps row 1", {"from": "2020-01-01", "to": "2020-01-01"}),
]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize(
    ("of", "row"),
    [*(("actions", row) for row in ACTION_ROWS), *(("members", row) for row in MEMBER_ROWS)],
    ids=lambda value: told(value) if isinstance(value, Row) else value,
)
def test_a_bad_row_of_a_small_table_is_told_with_its_number(of: str, row: Row, kind: str, tmp_path: Path) -> None:
    make, read = GOOD[of]
    frame = make()
    for column, value in row.values.items():
        frame.loc[1, column] = value
    if kind == "parquet":
        frame = frame.map(lambda value: None if pd.isna(value) or value == "" else str(value))
    path = save(frame, tmp_path / f"bad.{kind}")
    with pytest.raises(InvalidRows, match=rf"row 2: {row.reason}") as error:
        read(path, universe=UNIVERSE) if of == "members" else read(path)
    assert str(path) in str(error.value)
    assert [number for number, _ in error.value.problems] == [2]


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_of_instruments_says_what_they_are_and_may_give_tokens_and_tick_sizes(
    kind: str, tmp_path: Path
) -> None:
    frame = instruments().astype({"instrument_token": "Int64", "tick_size": float})
    universe = read_universe(save(frame, tmp_path / f"a.{kind}"))
    found = {i.symbol: (i.tradable, i.instrument_token, i.tick_size_inr) for i in universe.instruments}
    crc_of_bbb = Universe.from_symbols(["BBB"]).tokens[0]
    assert found == {"AAA": (True, 101, 0.05), "NEW INDEX": (False, 102, 0.05), "BBB": (True, crc_of_bbb, 0.01)}


@pytest.mark.parametrize(
    ("column", "value", "says"),
    [
        ("symbol", "", "row 2: the symbol is missing"),
        ("symbol", "AAA", "'AAA' is there twice"),
        ("kind", "", "row 2: NEW INDEX is of kind ''; write one of equity, etf, index"),
        ("kind", "stock", "is of kind 'stock'"),
        ("instrument_token", 1.5, "no whole number above 0"),
        ("instrument_token", "x", "no whole number above 0"),
        ("instrument_token", 101, "'NEW INDEX' and 'AAA' have one instrument token, 101"),
        ("tick_size", 0, "no number of rupees above 0"),
    ],
)
def test_a_wrong_row_refuses_a_table_of_instruments(column: str, value: object, says: str, tmp_path: Path) -> None:
    frame = instruments()
    frame.loc[1, column] = value
    with pytest.raises(MarketDataError, match=says) as error:
        read_universe(save(frame, tmp_path / "a.csv"))
    assert "a.csv" in str(error.value)


def test_all_bad_rows_of_a_small_table_are_counted_and_the_first_are_shown(tmp_path: Path) -> None:
    path = tmp_path / "many.csv"
    path.write_text("symbol,ex_date,kind,factor\n" + "AAA,2026-01-05,split\n" + ",2026-01-05,split,0.5\n" * 8)
    with pytest.raises(InvalidRows, match=r"row 1: too few or too many fields; row 2: .*and 4 more rows") as error:
        read_corporate_actions(path)
    assert len(error.value.problems) == 9


@pytest.mark.parametrize(
    "make",
    [
        lambda: CorporateActions((CorporateAction("AAA", pd.Timestamp(MONDAY).date(), "split", float("nan")),)),
        lambda: Membership((*read_good_members(), *read_good_members())),
    ],
)
def test_a_wrong_table_cannot_be_made_in_code_either(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidRows):
        make()


def read_good_members() -> tuple[Any, ...]:
    from feature_store.market.membership import MemberPeriod

    return (MemberPeriod("AAA", pd.Timestamp(MONDAY).date()),)


# --- mappings and symbols ------------------------------------------------------------------------------------------

MAPPINGS: list[tuple[Callable[[], Any], str]] = [
    (lambda: {"closing": "close"}, "the mapping names 'closing'; there are only time, symbol, open"),
    (lambda: {"close": "Schluss"}, "has no column 'Schluss', which the mapping gives for 'close'"),
    (lambda: {"close": "high", "high": "nowhere"}, "has no column 'nowhere'"),
    (lambda: ColumnMapping({}, zone="Mars/Olympus"), "zone 'Mars/Olympus' is unknown"),
    (lambda: ColumnMapping({}, zone=""), "zone '' is unknown"),
    (lambda: ColumnMapping({}, zone="/etc/passwd"), "zone '/etc/passwd' is unknown"),
    (lambda: ColumnMapping({}, stamp="middle"), "stamp 'middle' is unknown"),  # type: ignore[arg-type]
    (lambda: ColumnMapping({}, clock="soon"), "'soon' is no bar clock"),
    (lambda: ColumnMapping({}, clock="100t"), "counts ticks"),
    (lambda: ColumnMapping({}, time_format="%Q"), "time_format '%Q' is no format"),
]


@pytest.mark.parametrize(("mapping", "says"), MAPPINGS)
def test_a_wrong_mapping_is_refused(mapping: Callable[[], Any], says: str, tmp_path: Path) -> None:
    path = save(bars(), tmp_path / "a.csv")
    with pytest.raises(MarketDataError, match=says):
        read_bars(path, mapping=mapping())


@pytest.mark.parametrize("name", ["bars.csv", "export (1).csv", "my data.csv", "a.csv.gz", "RELIANCE copy.csv"])
def test_a_file_whose_symbol_nobody_can_tell_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    save(bars().drop(columns="symbol"), path)
    with pytest.raises(MissingColumn, match=r"no column 'symbol' and its name is no symbol.*RELIANCE\.csv.*symbol="):
        read_bars(path)


def test_a_wrong_time_format_quarantines_each_row(tmp_path: Path) -> None:
    path = save(bars(), tmp_path / "a.csv")
    for time_format in ("%d/%m/%Y", "epoch_s", "epoch_ns"):
        source = read_bars(path, mapping=ColumnMapping({}, time_format=time_format))
        assert source.quarantine.counts() == {"unreadable_time": 6}


def test_a_gzip_file_with_garbage_inside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"\xff\xfe\xfd\n\xff"))
    with pytest.raises(UnreadableFile):
        read_bars(tmp_path / "a.csv.gz")
