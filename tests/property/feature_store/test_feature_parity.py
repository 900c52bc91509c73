"""Every feature there is, history against live: found in FEATURES, so a new feature is tested by existing."""

import datetime as dt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.features import FEATURES, FeatureEngine, FeatureSchema, feature_schema, feature_table
from feature_store.market import MINUTE_NS, Bars, Session

N = 4
SESSIONS = (Session.regular(dt.date(2026, 1, 5)), Session.regular(dt.date(2026, 1, 6)))
ALL = feature_schema(None, 1)

every_feature = pytest.mark.parametrize(
    "schema",
    [*(feature_schema([spec.name], 1) for spec in FEATURES), ALL],
    ids=[*(spec.name for spec in FEATURES), "all together"],
)
examples = settings(max_examples=15, deadline=None)
seeds = st.integers(0, 2**32 - 1)


def market(seed: int, missing: float = 0.1, minutes: int = 60) -> Bars:
    """Two sessions of bars of N instruments, some of them missing, some flat or without volume."""
    rng = np.random.default_rng(seed)
    parts = []
    for session in SESSIONS:
        grid, instrument = np.divmod(np.arange(minutes * N), N)
        close = 100.0 * np.exp(np.cumsum(rng.normal(0, 1e-3, (minutes, N)), axis=0))
        flat = rng.random(N) < 0.2
        close[:, flat] = 250.05
        wide = rng.exponential(0.05, (2, minutes, N)) * ~flat
        opened = np.vstack([close[:1], close[:-1]])
        volume = rng.integers(0, 10_000, (minutes, N)) * (rng.random(N) > 0.2)
        start = session.open_ns + grid * MINUTE_NS
        bars = Bars(
            instrument.astype(np.int32),
            start,
            start + MINUTE_NS,
            opened.ravel(),
            (np.maximum(opened, close) + wide[0]).ravel(),
            (np.minimum(opened, close) - wide[1]).ravel(),
            close.ravel(),
            volume.ravel().astype(np.int64),
            np.ones(minutes * N, dtype=np.int32),
        )
        parts.append(bars[rng.random(len(bars)) >= missing])
    return Bars.concatenate(parts)


def in_batches(bars: Bars, schema: FeatureSchema, sizes: list[int]) -> tuple[np.ndarray, np.ndarray]:
    engine, begin, parts = FeatureEngine(schema, N), 0, []
    while begin < len(bars):
        size = sizes[len(parts) % len(sizes)]
        parts.append(engine.step(bars[begin : begin + size]))
        begin += size
    return np.concatenate([x for x, _ in parts]), np.concatenate([w for _, w in parts])


def assert_bitwise(left: tuple[np.ndarray, np.ndarray], right: tuple[np.ndarray, np.ndarray]) -> None:
    assert np.array_equal(left[0].view(np.int64), right[0].view(np.int64))
    assert np.array_equal(left[1], right[1])


@every_feature
@examples
@given(seed=seeds, sizes=st.sampled_from([[1], [10], [100]]) | st.lists(st.integers(1, 150), min_size=1, max_size=8))
def test_micro_batches_of_any_size_equal_history(schema: FeatureSchema, seed: int, sizes: list[int]) -> None:
    bars = market(seed)
    assert_bitwise(in_batches(bars, schema, sizes), feature_table(bars, schema, N))


@every_feature
@examples
@given(seed=seeds, shuffle=seeds)
def test_any_interleaving_of_instruments_equals_history(schema: FeatureSchema, seed: int, shuffle: int) -> None:
    bars = market(seed)
    places = np.random.default_rng(shuffle).permutation(bars.instrument)
    order = np.empty(len(bars), dtype=np.intp)
    for i in range(N):
        order[places == i] = np.flatnonzero(bars.instrument == i)
    rows, warm = feature_table(bars, schema, N)
    assert_bitwise(in_batches(bars[order], schema, [7, 1, 30]), (rows[order], warm[order]))


@every_feature
@examples
@given(seed=seeds, origin=st.integers(0, 150))
def test_a_start_at_another_origin_equals_history_once_warm(schema: FeatureSchema, seed: int, origin: int) -> None:
    bars = market(seed)
    rows, warm = feature_table(bars, schema, N)
    late_rows, late_warm = feature_table(bars[origin:], schema, N)
    assert not np.any(late_warm & ~warm[origin:])
    assert np.array_equal(late_rows[late_warm].view(np.int64), rows[origin:][late_warm].view(np.int64))
    second = bars.start_ns[origin:] >= SESSIONS[1].open_ns
    assert np.array_equal(late_warm[second], warm[origin:][second])


@every_feature
@examples
@given(seed=seeds, t=st.integers(0, 480))
def test_a_prefix_of_the_data_gives_a_prefix_of_the_rows(schema: FeatureSchema, seed: int, t: int) -> None:
    bars = market(seed)
    rows, warm = feature_table(bars, schema, N)
    assert_bitwise(feature_table(bars[:t], schema, N), (rows[:t], warm[:t]))


@every_feature
@examples
@given(seed=seeds, t=st.integers(0, 400))
def test_what_happens_later_changes_no_row_before_it(schema: FeatureSchema, seed: int, t: int) -> None:
    bars = market(seed)
    rows, warm = feature_table(bars, schema, N)
    later = Bars(**{name: getattr(bars, name).copy() for name in Bars.__dataclass_fields__})
    for column in (later.open, later.high, later.low, later.close):
        column[t:] *= 3.0
    changed_rows, changed_warm = feature_table(later, schema, N)
    assert_bitwise((changed_rows[:t], changed_warm[:t]), (rows[:t], warm[:t]))


@every_feature
@examples
@given(seed=seeds)
def test_rows_are_finite_once_warm_and_nan_before(schema: FeatureSchema, seed: int) -> None:
    bars = market(seed)
    rows, warm = feature_table(bars, schema, N)
    assert np.isfinite(rows[warm]).all()
    assert np.isnan(rows[~warm]).all()
    for session in SESSIONS:
        for i in range(N):
            mine = (bars.instrument == i) & (bars.start_ns >= session.open_ns) & (bars.end_ns <= session.close_ns)
            assert np.array_equal(np.flatnonzero(~warm[mine]), np.arange(min(schema.warm_up - 1, mine.sum())))


@examples
@given(seed=seeds, names=st.permutations([spec.name for spec in FEATURES]), count=st.integers(1, len(FEATURES)))
def test_a_feature_has_the_same_value_in_every_schema(seed: int, names: list[str], count: int) -> None:
    bars = market(seed)
    schema = feature_schema(names[:count], 1)
    rows, warm = feature_table(bars, schema, N)
    of_all, warm_of_all = feature_table(bars, ALL, N)
    both = warm & warm_of_all
    columns = [ALL.names.index(name) for name in schema.names]
    assert both.sum() == warm_of_all.sum()
    assert np.array_equal(rows[both].view(np.int64), np.ascontiguousarray(of_all[both][:, columns]).view(np.int64))
