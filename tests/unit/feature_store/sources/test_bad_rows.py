"""Everything that can be wrong with a row of bars or ticks, and the reason that it must get."""

from pathlib import Path

import pandas as pd
import pytest

from feature_store.sources.reading import read_bars
from tests.market_files import GOOD, MONDAY, UNIVERSE, Row, bars, rows_of, save, told

# --- rows of bars and ticks: a reason each -------------------------------------------------------------------------

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
