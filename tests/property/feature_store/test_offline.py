"""Whatever is written comes back, and a part of it is that part."""

import datetime as dt
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from feature_store.market.types import MINUTE_NS, Bars, Session, Ticks, Universe
from feature_store.offline import session_files
from feature_store.offline.store import OfflineStore

SESSION = Session.regular(dt.date(2026, 1, 5))
UNIVERSE = Universe.from_symbols([f"S{k}" for k in range(8)])
SYMBOLS = [i.symbol for i in UNIVERSE.instruments]
CHOSEN = st.sets(st.sampled_from(SYMBOLS))


@pytest.fixture(autouse=True)
def _small_row_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_files, "_ROWS_PER_GROUP", 5)


def some_bars(seed: int, share: float) -> Bars:
    random = np.random.default_rng(seed)
    minute, instrument = np.divmod(np.arange(20 * len(UNIVERSE)), len(UNIVERSE))
    there = random.random(len(minute)) < share
    minute, n = minute[there], int(there.sum())
    start_ns = SESSION.open_ns + minute * MINUTE_NS
    prices = random.normal(100, 10, (6, n))
    prices[4:, random.random(n) < 0.3] = np.nan
    return Bars(
        instrument[there].astype(np.int32), start_ns, start_ns + MINUTE_NS, *prices[:4],
        random.integers(0, 2**50, n), random.integers(0, 100, n).astype(np.int32), *prices[4:],
    )  # fmt: skip


def some_ticks(seed: int, count: int, depth: bool) -> Ticks:
    random = np.random.default_rng(seed)
    time_ns = SESSION.open_ns + np.sort(random.integers(0, 20, count))  # many at one instant
    ticks = Ticks(
        random.integers(0, len(UNIVERSE), count).astype(np.int32), time_ns, random.normal(100, 10, count),
        random.integers(0, 2**40, count),
    )  # fmt: skip
    return ticks.with_depth() if depth else ticks


def of(table: Bars | Ticks, symbols: set[str]) -> Bars | Ticks:
    return table[np.isin(table.instrument, [UNIVERSE.index_of_symbol[s] for s in symbols])]


RULES = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@RULES
@given(st.integers(0, 10**6), st.floats(0.0, 1.0), CHOSEN)
def test_bars_of_any_instruments_come_back_bit_for_bit(seed: int, share: float, symbols: set[str]) -> None:
    bars = some_bars(seed, share)
    with tempfile.TemporaryDirectory() as root:
        store = OfflineStore(Path(root))
        digest = store.write_bars(SESSION, UNIVERSE, bars, "made up")
        shuffled = bars[np.random.default_rng(seed).permutation(len(bars))]
        assert store.write_bars(SESSION, UNIVERSE, shuffled, "made up") == digest
        assert store.read_bars([SESSION]).digest() == bars.digest()
        assert store.read_bars([SESSION], symbols).digest() == of(bars, symbols).digest()


@RULES
@given(st.integers(0, 10**6), st.integers(0, 80), st.booleans(), CHOSEN)
def test_ticks_of_any_instruments_come_back_as_they_arrived(
    seed: int, count: int, depth: bool, symbols: set[str]
) -> None:
    ticks = some_ticks(seed, count, depth)
    with tempfile.TemporaryDirectory() as root:
        store = OfflineStore(Path(root))
        store.write_ticks(SESSION, UNIVERSE, ticks, "made up")
        assert store.read_ticks(SESSION).digest() == ticks.digest()
        assert store.read_ticks(SESSION, symbols).digest() == of(ticks, symbols).digest()


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.data())
def test_a_byte_that_changed_is_never_read_as_something_else(seed: int, data: st.DataObject) -> None:
    bars = some_bars(seed, 0.5)
    with tempfile.TemporaryDirectory() as root:
        store = OfflineStore(Path(root))
        store.write_bars(SESSION, UNIVERSE, bars, "made up")
        (path,) = Path(root).glob("bars/*/data-*.parquet")
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(bytes(content))
        try:
            read = store.read_bars([SESSION])
        except session_files.UnreadableFile as refused:
            assert str(path) in str(refused) and "materialise" in str(refused)
        else:
            assert read.digest() == bars.digest()
