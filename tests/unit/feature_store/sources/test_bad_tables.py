"""Everything that can be wrong with a small table of actions, members or instruments, and the error's words."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from feature_store.market.corporate_actions import CorporateAction, CorporateActions
from feature_store.market.membership import Membership
from feature_store.market.types import InvalidRows, MarketDataError, Universe
from feature_store.sources.dated_tables import read_corporate_actions, read_universe
from tests.market_files import GOOD, MONDAY, UNIVERSE, Row, instruments, save, told

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
