import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pytest

from feature_store.market.types import MissingColumn
from feature_store.offline.point_in_time import UnusableTable, point_in_time_join

T = 1_767_600_000_000_000_000


def rows(*decisions: tuple[str, int]) -> pl.DataFrame:
    return pl.DataFrame({"symbol": [s for s, _ in decisions], "decision_ns": [T + t for _, t in decisions]})


def side(*known: tuple[str, int, float]) -> pl.DataFrame:
    return pl.DataFrame(
        {"symbol": [s for s, _, _ in known], "available_at": [T + t for _, t, _ in known], "pe": [v for *_, v in known]}
    )


def joined(left: pl.DataFrame, right: pl.DataFrame, **more: object) -> list[float | None]:
    return point_in_time_join(left, right, by="symbol", at="decision_ns", **more)["pe"].to_list()  # type: ignore[arg-type]


SIDE = side(("A", 10, 1.0), ("A", 20, 2.0), ("B", 15, 3.0))


def test_a_decision_sees_the_newest_row_of_its_key_that_was_known_before_it() -> None:
    assert joined(rows(("A", 15), ("A", 25), ("B", 16), ("C", 99)), SIDE) == [1.0, 2.0, 3.0, None]


def test_a_row_known_at_exactly_the_decision_is_not_seen() -> None:
    assert joined(rows(("A", 10), ("A", 20), ("A", 21)), SIDE) == [None, 1.0, 2.0]


def test_the_last_of_several_rows_known_at_once_counts() -> None:
    revised = side(("A", 10, 1.0), ("A", 10, 9.0), ("A", 10, 5.0))
    assert joined(rows(("A", 11)), revised) == [5.0]


def test_a_row_older_than_the_tolerance_is_not_used() -> None:
    known = side(("A", 0, 1.0))
    left = rows(("A", 5_000), ("A", 5_001))
    assert joined(left, known, tolerance=dt.timedelta(microseconds=5)) == [1.0, None]
    with pytest.raises(UnusableTable, match="positive"):
        joined(left, known, tolerance=dt.timedelta(0))


def test_rows_keep_their_order_their_index_and_their_columns() -> None:
    left = rows(("B", 30), ("A", 25), ("B", 2), ("A", 12)).with_columns(x=pl.Series([1, 2, 3, 4]))
    found = point_in_time_join(left, SIDE, by="symbol", at="decision_ns")
    assert found.drop("pe").equals(left)
    assert found["pe"].to_list() == [3.0, 2.0, None, 1.0]
    pandas_left = left.to_pandas().set_index(pd.Index([7, 7, 3, 1]))
    in_pandas = point_in_time_join(pandas_left, SIDE.to_pandas(), by="symbol", at="decision_ns")
    assert isinstance(in_pandas, pd.DataFrame)
    pd.testing.assert_frame_equal(in_pandas[pandas_left.columns], pandas_left)
    assert in_pandas["pe"].fillna(-1).tolist() == [3.0, 2.0, -1, 1.0]


def test_times_with_a_zone_are_instants_whatever_the_zone_and_unit() -> None:
    known = SIDE.with_columns(pl.from_epoch("available_at", "ns").dt.replace_time_zone("UTC"))
    left = rows(("A", 15), ("A", 25)).with_columns(
        pl.from_epoch("decision_ns", "ns").dt.replace_time_zone("UTC").dt.convert_time_zone("Asia/Kolkata")
    )
    assert joined(left, known) == [1.0, 2.0]
    frame = pd.DataFrame({"symbol": ["A"], "at": pd.DatetimeIndex(["2026-01-05 15:30"]).tz_localize("Asia/Kolkata")})
    news = pd.DataFrame(
        {"symbol": ["A"], "available_at": pd.DatetimeIndex(["2026-01-05 09:59:59.999"]).tz_localize("UTC")}
    )
    assert point_in_time_join(frame, news.assign(n=1), by="symbol", at="at")["n"].tolist() == [1]


def test_several_keys_and_chosen_columns_join_text_of_any_kind_and_any_whole_number() -> None:
    left = pl.DataFrame({"s": ["A", "B"], "k": [1, 1], "t": [T + 5, T + 5]}, schema_overrides={"k": pl.Int32})
    right = pl.DataFrame(
        {"s": ["A", "B", "B"], "k": [1, 1, 2], "available_at": [T, T + 1, T + 2], "v": [1, 2, 3], "w": ["a", "b", "c"]},
        schema_overrides={"s": pl.Categorical},
    )
    found = point_in_time_join(left, right, by=["s", "k"], at="t", columns=["w", "available_at"])
    assert found.columns == ["s", "k", "t", "w", "available_at"]
    assert found["w"].to_list() == ["a", "b"]
    assert found["available_at"].to_list() == [T, T + 1]


def test_empty_tables_join() -> None:
    assert joined(rows(("A", 15)), SIDE.clear()) == [None]
    assert joined(rows(("A", 15)).clear(), SIDE) == []


@pytest.mark.parametrize(
    ("left", "right", "error", "words"),
    [
        (rows(("A", 1)), SIDE.drop("available_at"), MissingColumn, "available_at.*became known.*add it"),
        (rows(("A", 1)).drop("symbol"), SIDE, MissingColumn, "rows has no column 'symbol'"),
        (rows(("A", 1)), SIDE.drop("symbol"), MissingColumn, "side has no column 'symbol'"),
        (
            rows(("A", 1)),
            SIDE.with_columns(pl.from_epoch("available_at", "ns")),
            UnusableTable,
            "available_at has no time zone.*Asia/Kolkata",
        ),
        (
            rows(("A", 1)).with_columns(pl.from_epoch("decision_ns", "ns")),
            SIDE,
            UnusableTable,
            "decision_ns has no time zone",
        ),
        (
            rows(("A", 1)),
            SIDE.with_columns(available_at=pl.Series([T, None, T])),
            UnusableTable,
            "side, row 1: available_at is missing",
        ),
        (
            rows(("A", 1), ("A", 2)).with_columns(decision_ns=pl.Series([T, None])),
            SIDE,
            UnusableTable,
            "rows, row 1: decision_ns is missing",
        ),
        (rows(("A", 1)), SIDE.with_columns(symbol=pl.Series(["A", "A", None])), UnusableTable, "side, row 2: symbol"),
        (
            rows(("A", 1)),
            side(("A", 20, 1.0), ("B", 5, 1.0), ("A", 10, 2.0)),
            UnusableTable,
            "side, row 2: available_at goes back.*sort side",
        ),
        (rows(("A", 1)), SIDE.with_columns(pl.col("available_at") // 10**9), UnusableTable, "multiply seconds"),
        (
            rows(("A", 1)),
            SIDE.with_columns(pl.lit(dt.date(2026, 1, 5)).alias("available_at")),
            UnusableTable,
            r"date32\[day\], no instant",
        ),
        (
            rows(("A", 1)),
            SIDE.with_columns(pl.col("available_at").cast(pl.Float64)),
            UnusableTable,
            "double, no instant",
        ),
        (rows(("A", 1)), SIDE.with_columns(symbol=pl.Series([1, 2, 3])), UnusableTable, "string in rows and int64"),
        (rows(("A", 1)).with_columns(pe=pl.lit(1.0)), SIDE, UnusableTable, "'pe' is in both"),
    ],
)
def test_a_table_that_would_need_a_guess_is_refused(
    left: pl.DataFrame, right: pl.DataFrame, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        joined(left, right)
    with pytest.raises(error):
        point_in_time_join(left.to_pandas(), right.to_pandas(), by="symbol", at="decision_ns")


def test_a_pandas_and_a_polars_table_are_not_joined() -> None:
    with pytest.raises(UnusableTable, match="two of a kind"):
        point_in_time_join(rows(("A", 1)), SIDE.to_pandas(), by="symbol", at="decision_ns")  # type: ignore[type-var]


def test_a_column_of_several_types_is_refused_by_name() -> None:
    mixed = pd.DataFrame({"symbol": ["A", 1], "available_at": [T, T], "pe": [1.0, 2.0]})
    with pytest.raises(UnusableTable, match="side: symbol holds values of several types"):
        point_in_time_join(rows(("A", 1)).to_pandas(), mixed, by="symbol", at="decision_ns")


def test_whole_numbers_of_pandas_stay_whole_where_none_is_missing() -> None:
    known = pd.DataFrame({"symbol": ["A"], "available_at": [T], "n": np.array([3], dtype=np.int64)})
    found = point_in_time_join(rows(("A", 1)).to_pandas(), known, by="symbol", at="decision_ns")
    assert found["n"].dtype == np.int64
