"""Readers of files return, or raise a MarketDataError; and each row of a file is kept or in the quarantine."""

import contextlib
import datetime as dt
import gzip
import io
import tempfile
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_store.market.types import MarketDataError
from feature_store.offline.store import OfflineStore
from feature_store.sources.dated_tables import read_corporate_actions, read_membership
from feature_store.sources.reading import ColumnMapping, SourceBars, SourceTicks, read_bars, read_ticks

READERS: dict[str, Callable[[Path], Any]] = {
    "bars": read_bars,
    "ticks": read_ticks,
    "actions": read_corporate_actions,
    "members": read_membership,
}
COLUMNS = {
    "bars": ("timestamp", "symbol", "open", "high", "low", "close", "volume", "tick_count"),
    "ticks": ("timestamp", "symbol", "ltp", "volume", "bid_price", "ask_price", "bid_quantity", "ask_quantity"),
    "actions": ("symbol", "ex_date", "kind", "factor"),
    "members": ("symbol", "from", "to"),
}
SUFFIXES = ("parquet", "csv", "csv.gz")
EXAMPLES = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))


@contextlib.contextmanager
def file_of(content: bytes, name: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="alpha-panda-fuzz-") as directory:
        path = Path(directory) / name
        path.write_bytes(content)
        yield path


def read_or_refuse(reader: Callable[[Path], Any], path: Path, rows: int | None = None) -> None:
    """Whatever else is raised fails the test."""
    try:
        source = reader(path)
    except MarketDataError as error:
        assert str(path) in str(error)
        return
    if isinstance(source, SourceBars | SourceTicks):
        kept = source.bars if isinstance(source, SourceBars) else source.ticks
        assert source.quarantine.rows["reason"].ne("").all()
        assert sum(source.quarantine.counts().values()) == len(source.quarantine)
        if rows is not None:
            assert len(kept) + len(source.quarantine) == rows
        with file_of(b"", "quarantine.parquet") as beside:
            written = OfflineStore(beside.parent).write_quarantine("bars", source.quarantine.rows)
            assert len(pd.read_parquet(written)) == len(source.quarantine)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("of", READERS)
@EXAMPLES
@given(content=st.binary(max_size=400))
def test_bytes_of_any_kind_are_refused_or_read(of: str, suffix: str, content: bytes) -> None:
    with file_of(content, f"RANDOM.{suffix}") as path:
        read_or_refuse(READERS[of], path)


def whole(of: str, suffix: str) -> bytes:
    times = pd.date_range("2026-01-05 09:15", periods=30, freq="min", tz="Asia/Kolkata")
    values: dict[str, Any] = {"timestamp": times, "symbol": ["AAA", "BBB"] * 15, "kind": "split", "factor": 0.5}
    values |= {"ex_date": [f"2026-01-{k + 1:02d}" for k in range(30)], "from": [f"20{k:02d}-01-01" for k in range(30)]}
    values |= {"to": None, "volume": range(30), "tick_count": 3, "bid_quantity": 5, "ask_quantity": 6}
    frame = pd.DataFrame({name: values.get(name, 100.0) for name in COLUMNS[of]}, index=range(30))
    sink = io.BytesIO()
    if suffix == "parquet":
        frame.to_parquet(sink, index=False)
        return sink.getvalue()
    text = frame.to_csv(index=False).encode()
    return gzip.compress(text, mtime=0) if suffix == "csv.gz" else text


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("of", READERS)
@EXAMPLES
@given(cut=st.floats(0, 1), data=st.data())
def test_a_file_cut_and_changed_anywhere_is_refused_or_read(
    of: str, suffix: str, cut: float, data: st.DataObject
) -> None:
    content = bytearray(whole(of, suffix))
    content = content[: max(1, int(len(content) * cut))] if data.draw(st.booleans()) else content
    for _ in range(data.draw(st.integers(0, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with file_of(bytes(content), f"CHANGED.{suffix}") as path:
        read_or_refuse(READERS[of], path)


ODD_TEXTS = st.sampled_from([
    "", " ", "AAA", "BBB", "NSE:SBIN-EQ", "nan", "None", "now", "today", "1", "-1", "0", "1e400", "1,000", "100.5",
    "2026-01-05 09:15:00", "2026-01-05T09:16:00+05:30", "2026-01-05", "20260105", "2026-W01", "2026-01-05 09:15:00 PM",
    "9999-12-31", "-001-01-01", "0000-00-00", "split", "2026-01-05T09:15:00+99:99", "T", "²", "\x00", "ßüñ", "🐼",
    "x" * 5000,
])  # fmt: skip
ODD_NUMBERS = st.one_of(st.integers(-(2**63), 2**63 - 1), st.sampled_from([0, 1, 100, 1_767_584_700, 1_767_584_760]))
ODD_FLOATS = st.one_of(st.floats(), st.sampled_from([99.0, 100.0, 101.0, 1_767_584_700.0]))
TYPES: dict[str, tuple[pa.DataType, st.SearchStrategy[Any]]] = {
    "string": (pa.string(), st.one_of(ODD_TEXTS, st.text(max_size=12))),
    "large_string": (pa.large_string(), ODD_TEXTS),
    "dictionary": (pa.dictionary(pa.int8(), pa.string()), ODD_TEXTS),
    "binary": (pa.binary(), st.binary(max_size=4)),
    "int64": (pa.int64(), ODD_NUMBERS),
    "uint64": (pa.uint64(), st.integers(0, 2**64 - 1)),
    "int8": (pa.int8(), st.integers(-128, 127)),
    "float64": (pa.float64(), ODD_FLOATS),
    "float32": (pa.float32(), st.floats(width=32)),
    "decimal": (pa.decimal128(20, 4), st.decimals(-(10**9), 10**9, places=4, allow_nan=False).map(Decimal)),
    "bool": (pa.bool_(), st.booleans()),
    "null": (pa.null(), st.none()),
    "date32": (pa.date32(), st.dates()),
    "time32": (pa.time32("s"), st.times().map(lambda t: t.replace(microsecond=0))),
    "duration": (pa.duration("us"), st.timedeltas(dt.timedelta(-9), dt.timedelta(9))),
    "list": (pa.list_(pa.float64()), st.lists(ODD_FLOATS, max_size=2)),
    **{f"timestamp {u} {z}": (pa.timestamp(u, z), ODD_NUMBERS)
       for u in ("s", "ms", "us", "ns") for z in (None, "UTC", "Asia/Kolkata")},
}  # fmt: skip


@st.composite
def columns_of(draw: st.DrawFn, rows: int) -> pa.Array:
    kind, values = TYPES[draw(st.sampled_from(sorted(TYPES)))]
    drawn = draw(st.lists(st.one_of(st.none(), values), min_size=rows, max_size=rows))
    if pa.types.is_timestamp(kind):
        limit = 2**53 if kind.unit == "s" else 2**63  # a Parquet file has no seconds: they become milliseconds
        return pa.array([v if v is None or abs(v) < limit else v % limit for v in drawn], pa.int64()).cast(kind)
    return pa.array(drawn, kind)


@pytest.mark.parametrize("of", READERS)
@settings(EXAMPLES, max_examples=150)
@given(data=st.data())
def test_a_parquet_file_of_any_types_is_refused_or_read_and_no_row_is_lost(of: str, data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 5))
    table = pa.table({name: data.draw(columns_of(rows)) for name in COLUMNS[of]})
    sink = io.BytesIO()
    pq.write_table(table, sink)
    with file_of(sink.getvalue(), "TYPES.parquet") as path:
        read_or_refuse(READERS[of], path, rows)


@pytest.mark.parametrize("of", READERS)
@settings(EXAMPLES, max_examples=150)
@given(data=st.data())
def test_a_csv_file_of_any_texts_is_refused_or_read_and_no_row_is_lost(of: str, data: st.DataObject) -> None:
    rows = data.draw(st.integers(1, 6))
    texts = st.one_of(ODD_TEXTS, ODD_NUMBERS.map(str), ODD_FLOATS.map(str)).filter(lambda text: "\x00" not in text)
    names = COLUMNS[of]
    frame = pd.DataFrame([[data.draw(texts) for _ in names] for _ in range(rows)], columns=list(names))
    with file_of(frame.to_csv(index=False, quoting=1).encode(), "TEXTS.csv") as path:
        read_or_refuse(READERS[of], path, rows)


@EXAMPLES
@given(data=st.data())
def test_any_header_of_prices_is_refused_or_read(data: st.DataObject) -> None:
    words = ["Price", "Ticker", "Date", "Datetime", "date", "timestamp", "Open", "open", "High", "high", "Low", "low",
             "Close", "close", "Volume", "volume", "Adj Close", "0", "1", "2", "3", "4", "5", "", "symbol",
             "start_Time", "SBIN.NS", "100", "2026-01-05", "1767584700"]  # fmt: skip
    width = data.draw(st.integers(1, 9))
    cells = st.lists(st.sampled_from(words), min_size=width, max_size=width)
    text = "\n".join(",".join(data.draw(cells)) for _ in range(data.draw(st.integers(1, 6))))
    with file_of(text.encode(), "SBIN.csv") as path:
        read_or_refuse(read_bars, path)


@EXAMPLES
@given(
    time_format=st.one_of(
        st.none(),
        st.sampled_from(["epoch_s", "epoch_ms", "epoch_ns", "%Y-%m-%d %H:%M:%S%z"]),
        st.text("%YmdHMSz- ", max_size=8),
    ),
    zone=st.sampled_from(["UTC", "Asia/Kolkata", "America/New_York"]),
    stamp=st.sampled_from(["start", "end"]),
    clock=st.sampled_from([None, "1m", "5m", "session", "7h"]),
)
def test_any_mapping_of_a_good_file_is_refused_or_read(
    time_format: str | None, zone: str, stamp: Any, clock: str | None
) -> None:
    mapping = ColumnMapping({}, time_format=time_format, zone=zone, stamp=stamp, clock=clock)
    with file_of(whole("bars", "csv"), "bars.csv") as path, contextlib.suppress(MarketDataError):
        source = read_bars(path, mapping=mapping)
        assert len(source.bars) + len(source.quarantine) == 30
