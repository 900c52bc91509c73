"""Columns out of Parquet and CSV files, whatever they are called and however they are typed."""

from __future__ import annotations

import csv
import gzip
import io
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final, TypeAlias
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
from numpy.typing import NDArray

from feature_store.market.types import IST, MarketDataError, MissingColumn, UnreadableFile
from feature_store.sources.times import NoTime, Times, is_text, joined, numbers_of, plain, times_of

Progress: TypeAlias = Callable[[int, int], None]
"""Takes how much is read and how much there is: bytes of a CSV file, rows of a Parquet file."""

_HEADER_ROWS = 5
_DELIMITERS: Final = (",", ";", "\t", "|")
DAMAGE: Final = (pa.ArrowException, OSError, EOFError, UnicodeError, csv.Error, zlib.error, MemoryError)


@dataclass(frozen=True)
class FileHead:
    """What a file begins with."""

    path: Path
    kind: str
    """``parquet``, ``csv`` or ``csv.gz``."""
    columns: list[str]
    types: list[pa.DataType | None]
    """Types of a Parquet file's columns; None in a CSV file."""
    rows: list[list[str]]
    """The first lines of a CSV file after its header; see `first_value`."""
    delimiter: str = ","
    """What parts the fields of a CSV file: the comma, else the semicolon, tab or bar that its header has instead."""


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
    wide: bool = False
    """Whether the file has a column for each symbol; a row of it is one here for each."""

    def has(self, name: str) -> bool:
        """Whether an optional column is there."""
        return name in self.columns

    def present(self, name: str) -> NDArray[np.bool_]:
        """Tell which rows have anything at all in a column."""
        codes, values = self.texts(name)
        return np.array([bool(value) for value in values], dtype=np.bool_)[codes]

    def numbers(self, name: str, *, counts: bool = False) -> NDArray[np.float64]:
        """Give a column as float64, of whole numbers if it ``counts``; what is no number is NaN.

        Raises
        ------
        MarketDataError
            If the column is of a type that is no number.
        """
        column = self.columns[name]
        try:
            if (numbers := numbers_of(column, counts=counts)) is not None:
                return numbers
        except DAMAGE as error:
            raise UnreadableFile(f"{self.path}: column {self.names[name]!r} cannot be read ({error})") from error
        raise MarketDataError(
            f"{self.path}: column {self.names[name]!r} is {plain(column).type}, which is no number; write plain numbers"
        )

    def texts(self, name: str) -> tuple[NDArray[np.intp], list[str]]:
        """Give a column of text as codes and distinct stripped values, in order; a missing value is the empty text.

        Raises
        ------
        MarketDataError
            If the column is of a type that is no text.
        """
        column = self.columns[name]
        try:
            encoded = plain(column).cast(pa.string()).fill_null("").dictionary_encode().unify_dictionaries()
        except DAMAGE as error:
            raise MarketDataError(
                f"{self.path}: column {self.names[name]!r} is {column.type}, which is no text; write plain text"
            ) from error
        values = [value.strip() for value in encoded.chunk(0).dictionary.to_pylist()] if encoded.num_chunks else []
        distinct = sorted(set(values)) or [""]
        code = {value: k for k, value in enumerate(distinct)}
        place = np.array([code[value] for value in values], dtype=np.intp)
        parts = [place[chunk.indices.to_numpy()] for chunk in encoded.chunks]
        return np.concatenate([np.empty(0, dtype=np.intp), *parts]), distinct

    def values(self, name: str) -> list[str]:
        """Give a column of text, stripped, a missing value as the empty text."""
        codes, values = self.texts(name)
        return [values[code] for code in codes.tolist()]

    def times(self, name: str, time_format: str | None = None, zone: ZoneInfo = IST) -> Times:
        """Give a column of times as UTC epoch nanoseconds, and which rows could be read; parameters as `times_of`.

        Raises
        ------
        MarketDataError
            If the column is of a type that is no time.
        """
        try:
            return times_of(self.time_column() if name == "time" else self.columns[name], time_format, zone)
        except NoTime as problem:
            raise MarketDataError(f"{self.path}: column {self.names[name]!r} {problem}") from problem
        except DAMAGE as error:
            raise UnreadableFile(f"{self.path}: column {self.names[name]!r} cannot be read ({error})") from error

    def time_column(self) -> pa.ChunkedArray:
        """Give the times as they stand in the file; a column ``date`` beside them is joined with a space.

        Raises
        ------
        UnreadableFile
            If the two are of types that are no text.
        """
        if not self.has("date"):
            return plain(self.columns["time"])
        try:
            return joined(self.columns["date"], self.columns["time"])
        except DAMAGE as error:
            raise UnreadableFile(f"{self.path}: its dates and times of day cannot be read ({error})") from error

    def text_of(self, rows: NDArray[np.intp]) -> pd.DataFrame:
        """Give some rows as they stand in the file, as text."""
        taken = {self.names[name]: _as_text(column.take(pa.array(rows))) for name, column in self.columns.items()}
        return pd.DataFrame(taken, dtype="str")


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
    head = read_head(path)
    return load(head, match(head, required, optional or {}), text)


def read_head(path: str | Path) -> FileHead:
    """Read what a file begins with.

    Raises
    ------
    UnreadableFile
        If the file is missing, empty, truncated, or neither ``.parquet`` nor ``.csv`` (``.csv.gz``).
    """
    path = Path(path)
    kind = "".join(path.suffixes[-2:] if path.suffix.lower() == ".gz" else path.suffixes[-1:]).lower().lstrip(".")
    if not path.is_file():
        raise UnreadableFile(f"{path} is not a file; check the path")
    if path.stat().st_size == 0:
        raise UnreadableFile(f"{path} is empty (0 bytes); export it again")
    if kind not in ("parquet", "csv", "csv.gz"):
        raise UnreadableFile(f"{path} is neither .parquet nor .csv; convert it to one of them")
    try:
        if kind == "parquet":
            schema = pq.read_schema(path)
            return FileHead(path, kind, list(schema.names), list(schema.types), [])
        with _open_text(path) as lines:
            first = next((line for line in lines if line.strip()), "")
            delimiter = next((mark for mark in _DELIMITERS if mark in first), ",")
            fields = csv.reader(chain([first], lines), delimiter=delimiter)
            rows = list(islice((row for row in fields if row), _HEADER_ROWS))
    except DAMAGE as error:
        raise _damaged(path, error) from error
    if not rows:
        raise UnreadableFile(f"{path} is empty; export it again")
    return FileHead(path, kind, rows[0], [None] * len(rows[0]), rows[1:], delimiter)


def first_value(head: FileHead, column: str) -> str:
    """Give the first value of a column, as text; empty if there is none.

    Raises
    ------
    UnreadableFile
        If the file is damaged.
    """
    at = head.columns.index(column)
    if head.kind != "parquet":
        return next((row[at].strip() for row in head.rows if len(row) > at and row[at].strip()), "")
    try:
        with pq.ParquetFile(head.path) as file:
            batch = next(file.iter_batches(batch_size=1, columns=[column]), None)
            return "" if batch is None else str(batch.column(0)[0].as_py())
    except (*DAMAGE, ValueError, OverflowError) as error:
        raise _damaged(head.path, error) from error


def _open_text(path: Path) -> io.TextIOBase:
    if path.suffix.lower() == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig", newline="")
    return path.open(encoding="utf-8-sig", newline="")


def plain_name(name: str) -> str:
    """Give a column's name without case and angle brackets, with an underscore for spaces and hyphens."""
    return re.sub(r"[\s-]+", "_", name.strip().strip("<>").lower())


def match(
    head: FileHead, required: Mapping[str, tuple[str, ...]], optional: Mapping[str, tuple[str, ...]]
) -> dict[str, str]:
    """Find the file's name of each of our columns: the first of its candidates, by `plain_name`.

    Raises
    ------
    MissingColumn
        If a required column is missing; the message names what is there.
    MarketDataError
        If a column that is needed is there twice.
    """
    names = found_columns(head, {**required, **optional})
    for ours, candidates in required.items():
        if ours not in names:
            raise MissingColumn(
                f"{head.path} has no column {' or '.join(repr(c) for c in candidates)}; "
                f"add it or rename one of its columns {head.columns}"
            )
    return names


def found_columns(head: FileHead, candidates: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Find the file's name of each of our columns that is there: the first of its candidates, by `plain_name`.

    Raises
    ------
    MarketDataError
        If a column that is found is there twice.
    """
    by_name = {plain_name(name): name for name in reversed(head.columns)}
    names = {
        ours: by_name[found]
        for ours, those in candidates.items()
        if (found := next((c for c in those if c in by_name), None)) is not None
    }
    for found in names.values():
        if sum(plain_name(name) == plain_name(found) for name in head.columns) > 1:
            raise MarketDataError(f"{head.path} has more than one column {found!r}; remove or rename the wrong one")
    return names


def load(
    head: FileHead,
    names: Mapping[str, str],
    text: Sequence[str],
    *,
    header_rows: int = 1,
    progress: Progress | None = None,
) -> FileTable:
    """Read columns of a file, given the file's name of each of ours.

    Parameters
    ----------
    text : sequence of str
        Columns (by our names) of a CSV file to be read as text, whatever they look like.
    header_rows : int
        Lines of a CSV file before its first row of data; if not 1, the head's columns name the file's by place.

    Raises
    ------
    UnreadableFile
        If the file is truncated or damaged, has no rows, or has a row that swallows others.
    """
    if head.kind != "parquet" and not head.rows:
        raise UnreadableFile(f"{head.path} has columns but no rows; export it again")
    try:
        bad: list[tuple[int, str]] = []
        if head.kind == "parquet":
            table = _read_parquet(head.path, sorted(set(names.values())), progress)
        else:
            table, bad = _read_csv(head, names, text, header_rows, progress)
    except DAMAGE as error:
        raise _damaged(head.path, error) from error
    if len(table) + len(bad) == 0:
        raise UnreadableFile(f"{head.path} has columns but no rows; export it again")
    bad_rows = np.array([row for row, _ in bad], dtype=np.int64)
    malformed = pd.DataFrame({"row": bad_rows, "text": pd.Series([line for _, line in bad], dtype="str")})
    numbers = np.delete(np.arange(1, len(table) + len(bad) + 1), bad_rows - 1)
    if head.kind != "parquet":
        _refuse_open_quotes(head.path, [*bad, *_of_several_lines(table, numbers)])
    columns = {ours: table.column(table.column_names.index(theirs)) for ours, theirs in names.items()}
    return FileTable(head.path, columns, dict(names), numbers, malformed)


def _of_several_lines(table: pa.Table, row_number: NDArray[np.int64]) -> list[tuple[int, str]]:
    """Number and text of the first field of each column that goes over several lines."""
    return [
        (int(row_number[at]), str(column[at]))
        for column in table.columns
        if is_text(column.type) and (at := pc.index(pc.match_substring(column, "\n"), True).as_py()) >= 0
    ]


def _refuse_open_quotes(path: Path, rows: list[tuple[int, str]]) -> None:
    """Refuse a file with a row that takes in those after it: they would be lost without a count."""
    for row, text in sorted(rows):
        if lines := text.rstrip().count("\n"):
            raise UnreadableFile(
                f"{path}: row {row} has a quote that is not closed in its line, so it takes in the next {lines:,}; "
                f"correct it: {text.splitlines()[0]!r}"
            )


def _damaged(path: Path, error: BaseException) -> UnreadableFile:
    if isinstance(error, UnicodeError):
        return UnreadableFile(f"{path} cannot be read as UTF-8 ({error}); save it as CSV in UTF-8")
    return UnreadableFile(f"{path} cannot be read ({error}); it may be truncated or damaged: export it again")


def _read_parquet(path: Path, columns: list[str], progress: Progress | None) -> Any:
    with pq.ParquetFile(path) as file:
        groups, total, done = [], file.metadata.num_rows, 0
        for k in range(file.num_row_groups):
            groups.append(file.read_row_group(k, columns=columns))
            groups[-1].validate(full=True)  # text whose bytes are none ends elsewhere, as no error of a file
            done += len(groups[-1])
            if progress:
                progress(done, total)
        return pa.concat_tables(groups) if groups else file.schema_arrow.empty_table().select(columns)


class _Watched(io.RawIOBase):
    """A file that tells how far it was read."""

    def __init__(self, path: Path, progress: Progress) -> None:
        self._file, self._progress, self._total = path.open("rb"), progress, path.stat().st_size

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        piece = self._file.read(size)
        self._progress(min(self._file.tell(), self._total), self._total)
        return piece

    def close(self) -> None:
        self._file.close()
        super().close()


def _read_csv(
    head: FileHead, names: Mapping[str, str], text: Sequence[str], header_rows: int, progress: Progress | None
) -> tuple[Any, list[tuple[int, str]]]:
    bad: list[tuple[int, str]] = []

    def skip(row: pcsv.InvalidRow) -> str:
        bad.append((row.number - header_rows, row.text))
        return "skip"

    # one thread, or pyarrow does not say which row it skipped
    reading = pcsv.ReadOptions(use_threads=False)
    if header_rows != 1:
        reading = pcsv.ReadOptions(use_threads=False, skip_rows=header_rows, column_names=head.columns)
    converting = pcsv.ConvertOptions(
        column_types={names[ours]: pa.string() for ours in text if ours in names},
        include_columns=sorted(set(names.values())),
    )
    with _Watched(head.path, progress or (lambda _done, _total: None)) as raw:
        stream = pa.PythonFile(raw)
        if head.kind == "csv.gz":
            stream = pa.CompressedInputStream(stream, "gzip")
        # bytes that are no UTF-8 in a row of the wrong length end in a handler of pyarrow's that cannot raise
        stream = pa.transcoding_input_stream(stream, "utf-8-sig", "utf-8")
        parsing = pcsv.ParseOptions(delimiter=head.delimiter, invalid_row_handler=skip)
        table = pcsv.read_csv(stream, reading, parsing, converting)
    return table, bad


def _as_text(column: pa.ChunkedArray) -> list[str]:
    try:
        return [str(value) for value in column.to_pylist()]
    except (ValueError, OverflowError, pa.ArrowException):  # a year that Python's datetime does not have
        return [str(value) for value in column.cast(pa.int64()).to_pylist()]
