"""Columns out of Parquet and CSV files, whatever they are called and however they are typed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_store.market import MarketDataError, MissingColumn, UnreadableFile

_IST_OFFSET_NS = 19_800_000_000_000
_NS_PER_UNIT = {"s": 1_000_000_000, "ms": 1_000_000, "us": 1_000, "ns": 1}
_ZONE = r"(?:[Zz]|[+-]\d{2}:?\d{2}|[+-]\d{2})$"
_DATE_ONLY = r"^\d{4}-\d{2}(?:-\d{2})?$"


class InvalidRows(MarketDataError):
    """Rows of a small table that must be right as a whole, such as corporate actions, are wrong."""

    _SHOWN = 5

    def __init__(self, where: str, problems: Sequence[tuple[int, str]]) -> None:
        shown = "; ".join(f"row {row}: {problem}" for row, problem in problems[: self._SHOWN])
        more = f"; and {len(problems) - self._SHOWN} more rows" if len(problems) > self._SHOWN else ""
        super().__init__(f"{where}: {shown}{more}")
        self.problems = tuple(problems)
        """Row (1 is the first row of data) and what is wrong with it."""


@dataclass(frozen=True)
class FileTable:
    """The columns of one file, by our names."""

    path: Path
    columns: dict[str, pa.ChunkedArray]
    names: dict[str, str]
    """Name in the file of each of our columns."""
    row_number: NDArray[np.int64]
    """1 is the first row of data in the file."""
    malformed: pd.DataFrame
    """``row`` and ``text`` of CSV rows with too few or too many fields."""

    def has(self, name: str) -> bool:
        """Whether an optional column is there."""
        return name in self.columns

    def numbers(self, name: str) -> NDArray[np.float64]:
        """Give a column as float64; what is no number is NaN."""
        column = self.columns[name]
        if pa.types.is_decimal(column.type):
            column = column.cast(pa.float64())
        values = pd.to_numeric(column.to_pandas(), errors="coerce")
        return np.ascontiguousarray(values.to_numpy(dtype=np.float64, na_value=np.nan))

    def texts(self, name: str) -> tuple[NDArray[np.intp], list[str]]:
        """Give a column of text as codes and distinct stripped values; a missing value is the empty text."""
        encoded = self.columns[name].cast(pa.string()).fill_null("").dictionary_encode().combine_chunks()
        values = [value.strip() for value in encoded.dictionary.to_pylist()]
        stripped, place = np.unique(np.array(values or [""], dtype=np.str_), return_inverse=True)
        return place[encoded.indices.to_numpy()], [str(v) for v in stripped]

    def values(self, name: str) -> list[str]:
        """Give a column of text, stripped, a missing value as the empty text."""
        codes, values = self.texts(name)
        return [values[code] for code in codes.tolist()]

    def times(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Give a column of times as UTC epoch nanoseconds, and which rows could be read (others are 0).

        Raises
        ------
        MarketDataError
            If the column is of a type that is no time.
        """
        column = self.columns[name]
        if pa.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        if pa.types.is_date(column.type):
            column = column.cast(pa.timestamp("ms"))
        if pa.types.is_timestamp(column.type):
            offset = 0 if column.type.tz else _IST_OFFSET_NS
            counts = column.cast(pa.int64())
            present = counts.is_valid().to_numpy()
            return _epoch_ns(counts.fill_null(0).to_numpy(), column.type.unit, present, offset)
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            text = column.fill_null("").to_pandas().str.strip()
            parsed = pd.to_datetime(text, format="ISO8601", utc=True, errors="coerce").dt.as_unit("us")
            has_zone = text.str.contains(_ZONE) & ~text.str.contains(_DATE_ONLY)
            offset_ns = np.where(has_zone.to_numpy(dtype=np.bool_), 0, _IST_OFFSET_NS)
            present = parsed.notna().to_numpy()
            micros = np.where(present, parsed.astype("int64").to_numpy(), 0)
            return _epoch_ns(micros, "us", present, offset_ns)
        raise MarketDataError(
            f"{self.path}: column {self.names[name]!r} is {column.type}, which is no time; "
            "write timestamps, or text such as 2026-01-05T09:15:00+05:30"
        )

    def text_of(self, rows: NDArray[np.intp]) -> pd.DataFrame:
        """Give some rows as they stand in the file, as text."""
        taken = {self.names[name]: column.take(pa.array(rows)) for name, column in self.columns.items()}
        return pd.DataFrame({name: [str(v) for v in column.to_pylist()] for name, column in taken.items()}, dtype="str")


def read_file(
    path: str | Path,
    required: Mapping[str, tuple[str, ...]],
    optional: Mapping[str, tuple[str, ...]] | None = None,
    text: Sequence[str] = ("time", "symbol"),
) -> FileTable:
    """Read the columns of a Parquet or CSV file that are asked for, each by the first of its names that exists.

    The columns ``text`` (by our names) of a CSV file are read as text, whatever they look like.

    Raises
    ------
    UnreadableFile
        If the file is missing, empty, truncated, or neither ``.parquet`` nor ``.csv`` (``.csv.gz``).
    MissingColumn
        If a required column is missing; the message names what is there.
    """
    path = Path(path)
    kind = "".join(path.suffixes[-2:] if path.suffix == ".gz" else path.suffixes[-1:]).lower()
    if not path.is_file():
        raise UnreadableFile(f"{path} is not a file; check the path")
    if path.stat().st_size == 0:
        raise UnreadableFile(f"{path} is empty (0 bytes); export it again")
    if kind not in (".parquet", ".csv", ".csv.gz"):
        raise UnreadableFile(f"{path} is neither .parquet nor .csv; convert it to one of them")
    try:
        if kind == ".parquet":
            names = _match(path, pq.read_schema(path).names, required, optional or {})
            table = pq.read_table(path, columns=sorted(set(names.values())), partitioning=None)
            bad: list[tuple[int, str]] = []
        else:
            table, names, bad = _read_csv(path, required, optional or {}, text)
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError) as error:
        raise UnreadableFile(
            f"{path} cannot be read ({error}); it may be truncated or damaged: export it again"
        ) from error
    if len(table) + len(bad) == 0:
        raise UnreadableFile(f"{path} has columns but no rows; export it again")
    bad_rows = np.array([row for row, _ in bad], dtype=np.int64)
    malformed = pd.DataFrame({"row": bad_rows, "text": pd.Series([text for _, text in bad], dtype="str")})
    numbers = np.delete(np.arange(1, len(table) + len(bad) + 1), bad_rows - 1)
    columns = {ours: table.column(table.column_names.index(theirs)) for ours, theirs in names.items()}
    return FileTable(path, columns, names, numbers, malformed)


def _match(
    path: Path, present: list[str], required: Mapping[str, tuple[str, ...]], optional: Mapping[str, tuple[str, ...]]
) -> dict[str, str]:
    by_lower = {name.strip().lower(): name for name in reversed(present)}
    names: dict[str, str] = {}
    for ours, candidates in {**required, **optional}.items():
        found = next((by_lower[c] for c in candidates if c in by_lower), None)
        if found is not None:
            names[ours] = found
        elif ours in required:
            raise MissingColumn(
                f"{path} has no column {' or '.join(repr(c) for c in candidates)}; "
                f"add it or rename one of its columns {present}"
            )
    return names


def _read_csv(
    path: Path, required: Mapping[str, tuple[str, ...]], optional: Mapping[str, tuple[str, ...]], text: Sequence[str]
) -> tuple[Any, dict[str, str], list[tuple[int, str]]]:
    bad: list[tuple[int, str]] = []

    def skip(row: pcsv.InvalidRow) -> str:
        bad.append((row.number - 1, row.text))  # the header is row 1 there
        return "skip"

    # one thread, or pyarrow does not say which row it skipped
    reading, parsing = pcsv.ReadOptions(use_threads=False), pcsv.ParseOptions(invalid_row_handler=skip)
    with pcsv.open_csv(path, read_options=reading, parse_options=parsing) as header:
        present = header.schema.names
    bad.clear()
    names = _match(path, present, required, optional)
    texts = {names[ours]: pa.string() for ours in text if ours in names}
    converting = pcsv.ConvertOptions(column_types=texts, include_columns=sorted(set(names.values())))
    return pcsv.read_csv(path, reading, parsing, converting), names, bad


def _epoch_ns(
    counts: NDArray[np.int64], unit: str, present: NDArray[np.bool_], offset_ns: int | NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    factor = _NS_PER_UNIT[unit]
    limit = 2**62 // factor  # years 1824 to 2116: beyond them nanoseconds overflow
    readable = present & (counts > -limit) & (counts < limit)
    return np.where(readable, np.where(readable, counts, 0) * factor - offset_ns, 0), readable
