"""Speed of the feature store, against recomputation by polars and pandas, TA-Lib's streams and a numpy ring.

Run it with ``make bench NAME=features OUT=features.json``. Every line is the median of several runs, on one core unless
it says otherwise; a rival computes the same features of the same bars, and the ratio is ours over its. With
``ALPHA_PANDA_TEST_DATA`` the chain from bars to a frame runs over the real minutes of that directory.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import itertools
import resource
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import polars as pl
import talib

from benchmarks.features_runs import chain, starts
from benchmarks.measuring import Figure, at_least, at_most, report, seconds
from feature_store.bars.builder import BarBuilder, bars_of_session
from feature_store.features.engine import FeatureEngine
from feature_store.features.schema import FEATURES, feature_schema
from feature_store.labels.forward_return import ForwardReturn
from feature_store.market.calendar import nse_sessions
from feature_store.market.clocks import BarClock
from feature_store.market.types import MINUTE_NS, Bars, Session, Ticks, Universe
from feature_store.offline.feature_rows import computed, write_features
from feature_store.offline.point_in_time import point_in_time_join
from feature_store.offline.store import OfflineStore
from feature_store.offline.training_frames import training_frame
from feature_store.online.blocks import Block
from feature_store.online.store import OnlineStore
from feature_store.sources.synthetic import SyntheticMarket, synthetic_market
from live_services.machine.embedded import embedded_valkey

INSTRUMENTS = 3000
BARS = 500
TWENTY_FOUR = feature_schema([spec.name for spec in FEATURES if spec.nan_policy == "never"][:24], 1)
WINDOWED = feature_schema(
    ["momentum", "volatility", "z_score", "rolling_vwap_distance", "donchian_position", "relative_volume",
     "mean_range", "efficiency_ratio"], 1,
)  # fmt: skip
INDICATORS = feature_schema(
    ["momentum", "volatility", "rsi", "ema_spread", "average_true_range", "adx", "bollinger_percent_b", "trend_slope"],
    1,
)
_DAY_NS = 86_400_000_000_000
_SESSIONS = nse_sessions(dt.date(2026, 1, 5), dt.date(2026, 3, 31))
Tell = Callable[[str], None]


def measure(tell: Tell) -> list[Figure]:
    """Measure everything, in the order of the table."""
    figures: list[Figure] = []
    for name, part in (
        ("history", history),
        ("live", live),
        ("rivals in history", rivals_in_history),
        ("rivals live", rivals_live),
        ("ticks to bars", ticks_to_bars),
        ("training frame", training_frames),
        ("bars to a training frame", lambda: chain(TWENTY_FOUR, walk(35, 45 * 375))),
        ("start of a process", starts),
        ("point-in-time join", join),
        ("online store", online_store),
    ):
        tell(name)
        figures += part()
    return figures


# --- bars to features -------------------------------------------------------------------------------------------------


def walk(instruments: int, bars: int, seed: int = 7) -> tuple[Universe, Bars]:
    """Random one-minute bars of many instruments over as many sessions as it takes."""
    rng = np.random.default_rng(seed)
    minutes = np.concatenate([s.open_ns + np.arange(375) * MINUTE_NS for s in _SESSIONS[: -(-bars // 375)]])[:bars]
    steps = rng.standard_normal((bars, instruments)) * 5e-4
    close = np.round(np.exp(np.cumsum(steps, axis=0) + rng.uniform(5, 8, instruments)), 2).ravel()
    opened = np.round(close * (1 + rng.standard_normal(len(close)) * 3e-4), 2)
    start_ns = np.repeat(minutes.astype(np.int64), instruments)
    return Universe.from_symbols([f"S{k:04d}" for k in range(instruments)]), Bars(
        instrument=np.tile(np.arange(instruments, dtype=np.int32), bars),
        start_ns=start_ns,
        end_ns=start_ns + MINUTE_NS,
        open=opened,
        high=np.round(np.maximum(close, opened) * 1.0004, 2),
        low=np.round(np.minimum(close, opened) * 0.9996, 2),
        close=close,
        volume=rng.integers(1, 10_000, len(close)),
        tick_count=np.ones(len(close), dtype=np.int32),
    )


def history() -> list[Figure]:
    """One step over history, into memory that is there: on one core and on two, which must give the same bits."""
    universe, bars = walk(INSTRUMENTS, BARS)
    out = np.zeros((len(bars), len(TWENTY_FOUR.names)))
    engines: list[FeatureEngine] = []

    def rate(threads: int, out: np.ndarray | None) -> float:
        def begin() -> None:
            engines[:] = [FeatureEngine(TWENTY_FOUR, universe, threads=threads)]

        return len(bars) / seconds(lambda: engines[0].step(bars, out=out), repeats=7, prepare=begin)

    one, digest = rate(1, out), hashlib.sha256(out).hexdigest()
    two, fresh = rate(2, out), rate(2, None)
    if hashlib.sha256(out).hexdigest() != digest:
        raise AssertionError("two cores give other rows than one")
    name = "history, 24 features, 3,000 instruments"
    return [
        Figure(f"{name}, one core", one, "rows/s"),
        at_least(f"{name}, two cores", two, "rows/s", 6e6, ratio=two / one, rival="one core"),
        Figure("  two cores, into new memory", fresh, "rows/s", ratio=fresh / one, rival="one core"),
    ]


def live() -> list[Figure]:
    """The same step over micro-batches, on a warm engine."""
    universe, bars = walk(INSTRUMENTS, BARS)
    engine = FeatureEngine(TWENTY_FOUR, universe, threads=1)
    engine.step(bars)
    rounds = itertools.count(1)
    batches: list[Bars] = []

    def later(size: int) -> None:
        """Bars that the engine has not seen: the same ones, days later."""
        by_ns = next(rounds) * (1 + int(bars.end_ns[-1] - bars.start_ns[0]) // _DAY_NS) * _DAY_NS
        new = replace(bars, start_ns=bars.start_ns + by_ns, end_ns=bars.end_ns + by_ns)
        batches[:] = [new[k : k + size] for k in range(0, min(20_000 * size, len(new)), size)]

    targets = {1: 2e5, 10: None, 100: 2e6, 1000: None}
    figures = []
    for size, target in targets.items():
        taken = seconds(lambda: _step_all(engine, batches), prepare=partial(later, size))
        name, rate = f"live, micro-batches of {size:,}", sum(map(len, batches)) / taken
        figures.append(at_least(name, rate, "rows/s", target) if target else Figure(name, rate, "rows/s"))
    return figures


def _step_all(engine: FeatureEngine, batches: list[Bars]) -> None:
    for batch in batches:
        engine.step(batch)


def rivals_in_history() -> list[Figure]:
    """Eight windowed features of 200 instruments: ours, polars and pandas, each over all of history at once."""
    universe, bars = walk(200, BARS)
    frame = _frame(bars)
    as_pandas = frame.to_pandas()
    ours = len(bars) / seconds(lambda: FeatureEngine(WINDOWED, universe, threads=1).step(bars))
    figures = [Figure("history, 8 windowed features", ours, "rows/s")]
    for rival, run, repeats in (
        ("polars", lambda: _in_polars(frame), 5),
        ("pandas", lambda: _in_pandas(as_pandas), 3),
    ):
        rate = len(bars) / seconds(run, repeats)
        figures.append(Figure(f"  {rival}, whole history", rate, "rows/s", ratio=ours / rate, rival=rival))
    return figures


def rivals_live() -> list[Figure]:
    """Micro-batches of 100 new bars: what each rival must do to have the newest rows."""
    universe, bars = walk(200, BARS)
    before, fresh = bars[: -200 * 20], bars[-200 * 20 :]
    batches = [fresh[k : k + 100] for k in range(0, len(fresh), 100)]
    figures = []
    for label, schema in (("windowed features", WINDOWED), ("indicators", INDICATORS)):
        engine = FeatureEngine(schema, universe, threads=1)
        engine.step(before)
        warm = engine.snapshot()
        again = partial(engine.restore, warm)
        ours = len(fresh) / seconds(partial(_step_all, engine, batches), prepare=again)
        figures.append(Figure(f"live, 8 {label}, batches of 100", ours, "rows/s"))
        rivals = _windowed_rivals(bars, fresh) if schema is WINDOWED else _indicator_rivals(bars, fresh)
        for rival, rate in rivals:
            figures.append(Figure(f"  {rival}", rate, "rows/s", ratio=ours / rate, rival=rival.split(",")[0]))
    return figures


def _windowed_rivals(bars: Bars, fresh: Bars) -> Iterator[tuple[str, float]]:
    tail = _frame(bars[-200 * 64 :])  # what the longest window needs
    few = 5
    as_pandas = tail.to_pandas()
    yield "polars, recomputed for each batch", 100 / seconds(lambda: _in_polars(tail), few)
    yield "pandas, recomputed for each batch", 100 / seconds(lambda: _in_pandas(as_pandas), few)
    ring = _NumpyRing(200)
    ring.fill(bars)
    batches = [fresh[k : k + 100] for k in range(0, len(fresh), 100)]
    yield "numpy ring", len(fresh) / seconds(lambda: [ring.step(batch) for batch in batches])


def _indicator_rivals(bars: Bars, fresh: Bars) -> Iterator[tuple[str, float]]:
    streams = [_TalibStreams(bars[bars.instrument == i]) for i in range(200)]
    rows = list(
        zip(fresh.instrument.tolist(), fresh.high.tolist(), fresh.low.tolist(), fresh.close.tolist(), strict=True)
    )
    yield (
        "TA-Lib streams, one by one",
        len(fresh) / seconds(lambda: [streams[i].update(*prices) for i, *prices in rows]),
    )


def _frame(bars: Bars) -> pl.DataFrame:
    return pl.DataFrame(
        {name: getattr(bars, name) for name in ("instrument", "end_ns", "high", "low", "close", "volume")}
    )


def _in_polars(frame: pl.DataFrame) -> pl.DataFrame:
    close, volume, high, low = pl.col("close"), pl.col("volume"), pl.col("high"), pl.col("low")
    change, typical = close / close.shift(1) - 1, (high + low + close) / 3
    return frame.with_columns(
        (close / close.shift(10) - 1).over("instrument").alias("momentum"),
        change.rolling_std(20, ddof=0).over("instrument").alias("volatility"),
        ((close - close.rolling_mean(20)) / close.rolling_std(20, ddof=0)).over("instrument").alias("z_score"),
        (close * volume.rolling_sum(20) / (typical * volume).rolling_sum(20) - 1).over("instrument").alias("vwap"),
        ((close - low.rolling_min(20)) / (high.rolling_max(20) - low.rolling_min(20))).over("instrument").alias("don"),
        (volume / volume.rolling_mean(20)).over("instrument").alias("relative_volume"),
        ((high - low).rolling_mean(10) / close).over("instrument").alias("mean_range"),
        ((close - close.shift(20)).abs() / close.diff().abs().rolling_sum(20)).over("instrument").alias("efficiency"),
    )


def _in_pandas(frame: pd.DataFrame) -> pd.DataFrame:
    def of_instrument(part: pd.DataFrame) -> pd.DataFrame:
        close, volume, high, low = part["close"], part["volume"], part["high"], part["low"]
        typical, lowest = (high + low + close) / 3, low.rolling(20).min()
        return pd.DataFrame(
            {
                "momentum": close / close.shift(10) - 1,
                "volatility": close.pct_change().rolling(20).std(ddof=0),
                "z_score": (close - close.rolling(20).mean()) / close.rolling(20).std(ddof=0),
                "vwap": close * volume.rolling(20).sum() / (typical * volume).rolling(20).sum() - 1,
                "don": (close - lowest) / (high.rolling(20).max() - lowest),
                "relative_volume": volume / volume.rolling(20).mean(),
                "mean_range": (high - low).rolling(10).mean() / close,
                "efficiency": (close - close.shift(20)).abs() / close.diff().abs().rolling(20).sum(),
            }
        )

    return pd.concat([of_instrument(part) for _, part in frame.groupby("instrument", sort=False)])


class _NumpyRing:
    """The last 21 bars of each instrument in one array, recomputed for the instruments of a batch."""

    def __init__(self, n: int) -> None:
        self._ring = np.zeros((n, 21, 4))  # high, low, close, volume; oldest first

    def fill(self, bars: Bars) -> None:
        for i in range(len(self._ring)):
            mine = bars[bars.instrument == i][-21:]
            self._ring[i] = np.stack([mine.high, mine.low, mine.close, mine.volume], axis=1)

    def step(self, bars: Bars) -> np.ndarray:
        i = bars.instrument
        self._ring[i, :-1] = self._ring[i, 1:]
        self._ring[i, -1] = np.stack([bars.high, bars.low, bars.close, bars.volume], axis=1)
        high, low, close, volume = np.moveaxis(self._ring[i], 2, 0)
        now, last = close[:, -1], close[:, -20:]
        typical = (high + low + close)[:, -20:] / 3
        returns = close[:, 1:] / close[:, :-1] - 1
        top, bottom, shares = high[:, -20:].max(axis=1), low[:, -20:].min(axis=1), volume[:, -20:]
        columns = (
            now / close[:, -11] - 1, returns.std(axis=1), (now - last.mean(axis=1)) / last.std(axis=1),
            now * shares.sum(axis=1) / (typical * shares).sum(axis=1) - 1, (now - bottom) / (top - bottom),
            volume[:, -1] / shares.mean(axis=1), (high - low)[:, -10:].mean(axis=1) / now,
            np.abs(now - close[:, 0]) / np.abs(np.diff(close, axis=1)).sum(axis=1),
        )  # fmt: skip
        return np.stack(columns, axis=1)


class _TalibStreams:
    """One stream of TA-Lib for each of eight indicators of one instrument."""

    def __init__(self, bars: Bars) -> None:
        native = talib._ta_lib  # the streams have no public name in this version
        high, low, close = (np.ascontiguousarray(column) for column in (bars.high, bars.low, bars.close))
        self._of_close = [
            native.ROC_Stream(close, 10), native.STDDEV_Stream(close, 20), native.RSI_Stream(close, 14),
            native.EMA_Stream(close, 5), native.EMA_Stream(close, 20), native.LINEARREG_SLOPE_Stream(close, 20),
            native.BBANDS_Stream(close, 20),
        ]  # fmt: skip
        self._of_bar = [native.NATR_Stream(high, low, close, 14), native.ADX_Stream(high, low, close, 14)]

    def update(self, high: float, low: float, close: float) -> None:
        for stream in self._of_close:
            stream.update(close)
        for stream in self._of_bar:
            stream.update(high, low, close)


# --- ticks to bars ----------------------------------------------------------------------------------------------------


def ticks_to_bars() -> list[Figure]:
    """A session of ticks into one-minute bars, at once and in frames of 1,000."""
    session, n = _SESSIONS[0], 3_000_000
    ticks = _random_ticks(session, n)
    clock = BarClock.minutes(1)
    at_once = n / seconds(lambda: bars_of_session(ticks, session, INSTRUMENTS, clock))
    frames = [ticks[k : k + 1000] for k in range(0, n, 1000)]

    def in_frames() -> None:
        builder = BarBuilder(INSTRUMENTS, clock)
        for frame in frames:
            builder.step(frame, session)

    return [
        at_least("ticks to bars, a session at once", at_once, "ticks/s", 5e6),
        at_least("ticks to bars, frames of 1,000", n / seconds(in_frames), "ticks/s", 5e6),
    ]


def _random_ticks(session: Session, n: int) -> Ticks:
    rng = np.random.default_rng(7)
    return Ticks(
        instrument=rng.integers(0, INSTRUMENTS, n).astype(np.int32),
        event_time_ns=np.sort(rng.integers(session.open_ns, session.close_ns, n)),
        last_price=np.round(rng.uniform(100, 1000, n), 2),
        day_volume=np.arange(n, dtype=np.int64),
    )


# --- stores -----------------------------------------------------------------------------------------------------------


def training_frames() -> list[Figure]:
    """50 instruments, 46 sessions, 24 features, from Parquet; the second reading."""
    market = synthetic_market(instruments=50, sessions=46)
    with tempfile.TemporaryDirectory() as home:
        store = OfflineStore(Path(home))
        for session, bars in zip(market.sessions, market.bars, strict=True):
            store.write_bars(session, market.universe, bars, market.name)
        for session, rows in zip(market.sessions, computed(store, market.sessions, TWENTY_FOUR), strict=True):
            write_features(store, session, TWENTY_FOUR, rows)
        first, last = market.sessions[0].date, market.sessions[-1].date

        def frame() -> int:
            return len(training_frame(store, None, first, last, features=TWENTY_FOUR, label=ForwardReturn(10)))

        frame()
        taken = seconds(frame, repeats=3)
    return [at_most("training frame, 50 × 46 sessions × 24 features", taken, "s", 3.0), labels(market)]


def labels(market: SyntheticMarket) -> Figure:
    """The label of every bar of a market."""
    bars, n = Bars.concatenate(market.bars), len(market.universe)
    taken = seconds(lambda: ForwardReturn(10).of(bars, n, market.sessions), repeats=3)
    return at_least("labels", len(bars) / taken, "rows/s", 5e6)


def join() -> list[Figure]:
    """1M rows, each with the newest of 200k side rows that was available before it."""
    rng = np.random.default_rng(7)
    start = np.datetime64("2026-01-05T03:45:00", "ns")
    rows = pl.DataFrame(
        {
            "symbol": rng.integers(0, 500, 1_000_000),
            "decided_at": start + np.sort(rng.integers(0, 10**15, 1_000_000)).astype("timedelta64[ns]"),
        }
    ).with_columns(pl.col("decided_at").dt.replace_time_zone("UTC"))
    side = pl.DataFrame(
        {
            "symbol": rng.integers(0, 500, 200_000),
            "available_at": start + np.sort(rng.integers(0, 10**15, 200_000)).astype("timedelta64[ns]"),
            "value": rng.random(200_000),
        }
    ).with_columns(pl.col("available_at").dt.replace_time_zone("UTC"))
    taken = seconds(lambda: point_in_time_join(rows, side, by="symbol", at="decided_at"))
    gigabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return [
        at_most("point-in-time join, 1M × 200k rows", taken, "s", 0.4),
        at_most("  peak memory of this whole process", gigabytes, "GiB", 2.0),
    ]


def online_store() -> list[Figure]:
    """The newest rows of 1,000 instruments, 24 features each, from Valkey on loopback."""
    universe = Universe.from_symbols([f"S{k:04d}" for k in range(1000)])
    now_ns = _SESSIONS[0].open_ns + MINUTE_NS
    tokens = np.sort(universe.tokens)
    ends, warm = np.full(len(tokens), now_ns), np.ones(len(tokens), dtype=np.bool_)
    rows = np.random.default_rng(7).random((len(tokens), len(TWENTY_FOUR.names)))
    with tempfile.TemporaryDirectory() as home, embedded_valkey(Path(home)) as url:
        store = OnlineStore.connect(url)
        store.write(TWENTY_FOUR, Block(TWENTY_FOUR.hash, 0, now_ns, tokens, ends, warm, rows))
        taken = seconds(
            lambda: store.read(TWENTY_FOUR, universe.instruments, now_ns=now_ns, max_age_ns=MINUTE_NS), repeats=101
        )
        store.close()
    return [at_most("online store, 1,000 instruments read", taken * 1e3, "ms", 2.0)]


if __name__ == "__main__":
    report("features", measure, ["numpy", "numba", "pandas", "polars", "TA-Lib", "pyarrow", "redis"])
