"""Everything that can be wrong with a file of market data, its columns or its mapping, and the error's words."""

import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from feature_store.market.types import MarketDataError, MissingColumn, UnreadableFile
from feature_store.sources.reading import ColumnMapping, read_bars
from tests.market_files import GOOD, MONDAY, bars, save

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
