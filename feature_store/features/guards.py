"""The guards of an audit: what must not change a feature's value is changed, and every value compared, bit for bit."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from feature_store.features.engine import FeatureEngine
from feature_store.features.library import FeatureSpec
from feature_store.features.schema import FeatureSchema
from feature_store.features.window import Window
from feature_store.market.corporate_actions import CorporateActions
from feature_store.market.types import Bars, Universe, ist_day, ist_text

Rows: TypeAlias = tuple[NDArray[np.float64], NDArray[np.bool_]]
"""Feature rows ``(n, F)`` and whether each is warm ``(n,)``."""
TableFeature: TypeAlias = Callable[[pd.DataFrame], Any]
"""Takes one instrument's bars, oldest first, with the columns of `Bars` and times ``start`` and ``end`` in IST; gives
one value for each."""
Declared: TypeAlias = Sequence[tuple[FeatureSpec, Callable[[Window], float]]]

BATCHES = (1, 10, 100, 1000)
_PRICES = ("open", "high", "low", "close")
_MOST_DECIMALS = 8  # more are no price that was quoted but one that was computed, such as an adjusted one
_SHORT_RUNS = 10  # for each random place; a warm-up one bar too short shows in few of them
_LEVEL = 10_000.0  # rupees that prices are mirrored at: fine enough that small moves are whole numbers of price units
_LARGEST_MOVE = 1e-3  # away from it: what is of second order in the moves is smaller than a value by as much
_FIRST_ORDER = 0.05  # of a value and its mean size; several times what terms of second order came to in any feature


@dataclass(frozen=True)
class Difference:
    """Where a feature first is what it must not be."""

    guard: str
    feature: str
    row: int
    """In the bars that were audited."""
    symbol: str
    time_ns: int
    """End of the bar."""
    expected: float
    found: float

    def __str__(self) -> str:
        return (
            f"{self.guard}: {self.feature} differs first in row {self.row}, {self.symbol} at {ist_text(self.time_ns)}: "
            f"{self.expected!r} ({self.expected.hex()}) became {self.found!r} ({self.found.hex()})"
        )


class Subject(Protocol):
    """Features that are audited."""

    names: tuple[str, ...]

    def rows(self, bars: Bars, universe: Universe) -> Rows:
        """Compute their rows of bars, from nothing."""
        ...


class CompiledFeatures:
    """Features of a schema, stepped by the engine."""

    def __init__(
        self, schema: FeatureSchema, universe: Universe, actions: CorporateActions | None, declared: Declared | None
    ) -> None:
        self.names, self.schema, self._actions, self._declared = schema.names, schema, actions, declared

    def engine(self, universe: Universe) -> FeatureEngine:
        """Give an engine that has seen nothing."""
        return FeatureEngine(self.schema, universe, self._actions, declared=self._declared)

    def rows(self, bars: Bars, universe: Universe) -> Rows:
        """Step all bars at once."""
        return self.engine(universe).step(bars)

    def unadjusted(self, bars: Bars, universe: Universe) -> Rows:
        """Step all bars at once, without corporate actions."""
        return FeatureEngine(self.schema, universe, declared=self._declared).step(bars)

    def stepped(self, bars: Bars, universe: Universe, ends: Sequence[int], snapshot_at: frozenset[int]) -> Rows:
        """Step in batches that end at ``ends``; at some of them, go on with a new engine from a snapshot."""
        engine, parts = self.engine(universe), []
        for begin, end in itertools.pairwise([0, *ends]):
            parts.append(engine.step(bars[begin:end]))
            if end in snapshot_at:
                snapshot = engine.snapshot()
                engine = self.engine(universe)
                engine.restore(snapshot)
        return np.concatenate([rows for rows, _ in parts]), np.concatenate([warm for _, warm in parts])


class FrameFeatures:
    """Functions on the data frame of one instrument."""

    def __init__(self, functions: dict[str, TableFeature], warm_up: int) -> None:
        self.names, self.warm_up, self._functions = tuple(functions), warm_up, functions

    def rows(self, bars: Bars, universe: Universe) -> Rows:
        """Call the functions on each instrument's bars."""
        rows, warm = np.full((len(bars), len(self.names)), np.nan), np.ones(len(bars), dtype=np.bool_)
        for i in np.unique(bars.instrument):
            mine = np.flatnonzero(bars.instrument == i)
            rows[mine] = self.of_frame(self.frame(bars[mine]))
            warm[mine[: self.warm_up]] = self.warm_up == 0
        return rows, warm

    @staticmethod
    def frame(bars: Bars) -> pd.DataFrame:
        """Give one instrument's bars as the functions take them."""
        columns = {name: getattr(bars, name) for name in ("open", "high", "low", "close", "volume", "tick_count")}
        times = {
            n: pd.to_datetime(getattr(bars, f"{n}_ns"), utc=True).tz_convert("Asia/Kolkata") for n in ("start", "end")
        }
        return pd.DataFrame({**times, **columns, "spread_bps": bars.spread_bps, "imbalance": bars.imbalance})

    def of_frame(self, frame: pd.DataFrame) -> NDArray[np.float64]:
        """Call the functions on one instrument's bars; shape ``(n, n_functions)``."""
        values = [self._column(name, function(frame.copy()), len(frame)) for name, function in self._functions.items()]
        return np.stack(values, axis=1)

    @staticmethod
    def _column(name: str, values: Any, n: int) -> NDArray[np.float64]:
        column = np.asarray(values, dtype=np.float64)
        if column.shape != (n,):
            raise ValueError(f"{name} gave shape {column.shape} for {n} bars; a feature gives one value for each bar")
        return column


class Guards:
    """Every guard on one subject: what each compared, and the first difference of each guard and feature."""

    def __init__(  # noqa: PLR0917
        self, subject: Subject, bars: Bars, universe: Universe, rng: np.random.Generator, cuts: int, edges: int
    ) -> None:
        self._subject, self._bars, self._universe = subject, bars, universe
        self._rng, self._cuts, self._edges = rng, cuts, edges
        self._rows, self._warm = subject.rows(bars, universe)
        self._prices = np.stack([getattr(bars, name) for name in _PRICES])
        self.compared: dict[str, int] = {}
        self.differences: dict[tuple[str, str], Difference] = {}

    def run(self, progress: Callable[[str], None]) -> None:
        """Run every guard, telling the name of each as it begins."""
        for guard, compare in self._guards().items():
            progress(guard)
            self._guard = guard
            self.compared[guard] = 0
            compare()

    def never_seen(self) -> tuple[str, ...]:
        """Features without a single finite value on these bars."""
        seen = np.isfinite(self._rows)
        return tuple(name for k, name in enumerate(self._subject.names) if not seen[:, k].any())

    def _guards(self) -> dict[str, Callable[[], None]]:
        found = {
            "prefix": self._prefixes,
            "future perturbation": self._perturbed_futures,
            "permuted instruments": self._permuted,
        }
        if isinstance(self._subject, FrameFeatures):
            found["every row as the last"] = lambda: self._every_edge(self._subject)  # type: ignore[arg-type]
            if self._subject.warm_up:
                found["origin"] = self._origins
        if isinstance(self._subject, CompiledFeatures):
            compiled = self._subject
            found["origin"] = self._origins
            found["origin of a short run"] = lambda: self._short_runs(compiled)
            found |= {f"batches of {n}": self._batches_of(compiled, n) for n in BATCHES}
            found["random batches"] = lambda: self._batched(compiled, self._random_ends(), frozenset())
            found["snapshot and restore"] = lambda: self._snapshots(compiled)
            found["interleaving"] = lambda: self._interleaved(compiled)
            found["NaN policy"] = lambda: self._nan_policy(compiled)
            if any(spec.mirror != "none" for spec in compiled.schema.features):
                found["mirror"] = lambda: self._mirror(compiled)
        return found

    # --- guards ---

    def _prefixes(self) -> None:
        for cut in self._random_cuts():
            self._compare(*self._subject.rows(self._bars[:cut], self._universe), at=np.arange(cut))

    def _perturbed_futures(self) -> None:
        for cut in self._random_cuts():
            other = with_other_future(self._bars, np.arange(len(self._bars)) >= cut, self._rng)
            rows, warm = self._subject.rows(other, self._universe)
            self._compare(rows[:cut], warm[:cut], at=np.arange(cut))

    def _every_edge(self, subject: FrameFeatures) -> None:
        chosen = self._edge_rows()
        for i in np.unique(self._bars.instrument):
            mine = np.flatnonzero(self._bars.instrument == i)
            frame = subject.frame(self._bars[mine])
            for end in np.flatnonzero(chosen[mine]) + 1:
                values = subject.of_frame(frame.iloc[:end])
                self._compare(values, self._warm[mine[:end]], at=mine[:end])

    def _edge_rows(self) -> NDArray[np.bool_]:
        """Draw rows: the last ones of sessions, up to half, then any."""
        day = ist_day(self._bars.start_ns)
        order = np.argsort(self._bars.instrument, kind="stable")
        ends = (np.diff(day[order], append=-1) != 0) | (np.diff(self._bars.instrument[order], append=-1) != 0)
        of_sessions = self._rng.permutation(order[ends])[: self._edges // 2]
        others = np.setdiff1d(order, of_sessions)
        more = min(self._edges - len(of_sessions), len(others))
        chosen = np.zeros(len(self._bars), dtype=np.bool_)
        chosen[of_sessions] = True
        chosen[self._rng.choice(others, size=more, replace=False)] = True
        return chosen

    def _origins(self) -> None:
        for origin in [0, *self._random_cuts()]:
            self._from_origin(origin, len(self._bars))

    def _short_runs(self, subject: CompiledFeatures) -> None:
        span = (subject.schema.warm_up + 3) * len(self._universe)
        for _ in range(_SHORT_RUNS * self._cuts):
            origin = int(self._rng.integers(0, max(len(self._bars) - span, 1)))
            self._from_origin(origin, min(origin + span, len(self._bars)))

    def _from_origin(self, origin: int, end: int) -> None:
        """Compare each value that is there; where the row calls itself warm, also those that are not."""
        rows, warm = self._subject.rows(self._bars[origin:end], self._universe)
        at = np.arange(origin, end)
        if isinstance(self._subject, FrameFeatures):
            self._compare(rows[warm], warm[warm], at=at[warm], warm_matters=False)
            return
        self._compare(rows, warm, at=at, warm_matters=False, where=warm[:, None] | ~np.isnan(rows))

    def _permuted(self) -> None:
        instruments = np.arange(len(self._universe))
        index = self._universe.market_index
        movable = instruments[instruments != index] if index is not None else instruments
        new_place = instruments.copy()
        new_place[movable] = self._rng.permutation(movable)
        places = np.argsort(new_place)
        universe = Universe(instruments=tuple(self._universe.instruments[k] for k in places))
        moved = replace(self._bars, instrument=new_place[self._bars.instrument].astype(np.int32))
        at = np.lexsort((moved.instrument, moved.end_ns))
        if index is not None:  # the index stays first of an instant wherever its number is
            at = np.lexsort((moved.instrument, moved.instrument != index, moved.end_ns))
        self._compare(*self._subject.rows(moved[at], universe), at=at)

    def _batches_of(self, subject: CompiledFeatures, size: int) -> Callable[[], None]:
        ends = [*range(size, len(self._bars), size), len(self._bars)]
        return lambda: self._batched(subject, ends, frozenset())

    def _batched(self, subject: CompiledFeatures, ends: Sequence[int], snapshot_at: frozenset[int]) -> None:
        self._compare(*subject.stepped(self._bars, self._universe, ends, snapshot_at), at=np.arange(len(self._bars)))

    def _snapshots(self, subject: CompiledFeatures) -> None:
        ends = self._random_ends()
        chosen = self._rng.choice(ends, size=min(self._cuts, len(ends)), replace=False)
        self._batched(subject, ends, frozenset(int(end) for end in chosen))

    def _interleaved(self, subject: CompiledFeatures) -> None:
        index = self._universe.market_index
        not_index = self._bars.instrument != (-1 if index is None else index)
        for _ in range(3):
            at = np.lexsort((self._rng.random(len(self._bars)), not_index, self._bars.end_ns))
            self._compare(*subject.engine(self._universe).step(self._bars[at]), at=at)
        lag = self._rng.integers(0, 10**15, len(self._universe))  # each instrument's stream as late as it likes
        at = np.argsort(self._bars.end_ns + lag[self._bars.instrument], kind="stable")
        rows, warm = subject.engine(self._universe).step(self._bars[at])
        alone = [spec.nan_policy != "without_index" for spec in subject.schema.features]  # others need it beside them
        self._compare(rows, warm, at=at, where=np.array(alone, dtype=np.bool_)[None, :])

    def _nan_policy(self, subject: CompiledFeatures) -> None:
        """A warm value is finite while its inputs are there, and NaN while none of them is: nothing is filled in."""
        there = {
            "never": np.ones(len(self._bars), dtype=np.bool_),
            "without_depth": ~(np.isnan(self._bars.spread_bps) | np.isnan(self._bars.imbalance)),
            "without_index": self._beside_the_index(),
        }
        for k, spec in enumerate(subject.schema.features):
            own_clock = "@" not in spec.name
            if not own_clock and spec.nan_policy != "never":
                continue  # its bars are folded inside the engine
            have = self._of_window(there[spec.nan_policy], spec.warm_up) if own_clock else there["never"] * spec.warm_up
            values = self._rows[:, k]
            wrong = np.isinf(values) | ((have == spec.warm_up) & self._warm & np.isnan(values))
            wrong |= (have == 0) & ~np.isnan(values)
            self.compared[self._guard] += int(self._warm.sum())
            if wrong.any():
                row = int(wrong.argmax())
                self._note(k, row, 0.0 if np.isnan(values[row]) else np.nan, float(values[row]))

    def _mirror(self, subject: CompiledFeatures) -> None:
        """In a mirrored market a value is what its feature declares, but for terms of second order in the moves."""
        market, mirrored = self._small_moves()
        (rows, warm), (seen, _) = (subject.unadjusted(bars, self._universe) for bars in (market, mirrored))
        for k, spec in enumerate(subject.schema.features):
            if spec.mirror == "none":
                continue
            top = 0.0 if spec.top is None else spec.top
            expected, found = rows[:, k] if spec.mirror == "same" else top - rows[:, k], seen[:, k]
            there = warm & ~(np.isnan(expected) & np.isnan(found))
            self.compared[self._guard] += int(there.sum())
            size = np.abs(expected - top / 2.0)
            allowed = _FIRST_ORDER * (size + (size[there].mean() if there.any() else 0.0))
            wrong = there & ~(np.abs(found - expected) <= allowed)
            if wrong.any():
                row = int(wrong.argmax())
                self._note(k, row, float(expected[row]), float(found[row]))

    def _small_moves(self) -> tuple[Bars, Bars]:
        """Give the market with every price near one level, each instrument's moves made small alike, and its mirror."""
        prices = np.empty_like(self._prices)
        for i in np.unique(self._bars.instrument):
            mine = self._bars.instrument == i
            moves = self._prices[:, mine] / self._bars.open[mine][0] - 1.0
            prices[:, mine] = np.round(_LEVEL * (1.0 + moves * (_LARGEST_MOVE / max(np.abs(moves).max(), 1e-9))), 4)
        market = replace(self._bars, **dict(zip(_PRICES, prices, strict=True)))
        opens, highs, lows, closes = 2.0 * _LEVEL - prices
        imbalance = -self._bars.imbalance
        return market, replace(market, open=opens, high=lows, low=highs, close=closes, imbalance=imbalance)

    def _beside_the_index(self) -> NDArray[np.bool_]:
        index = self._universe.market_index
        if index is None:
            return np.zeros(len(self._bars), dtype=np.bool_)
        return np.isin(self._bars.end_ns, self._bars.end_ns[self._bars.instrument == index])

    def _of_window(self, there: NDArray[np.bool_], period: int) -> NDArray[np.int64]:
        """In how many of the last ``period`` bars of a bar's instrument, its own included, an input is there."""
        found = np.zeros(len(there), dtype=np.int64)
        for i in np.unique(self._bars.instrument):
            mine = np.flatnonzero(self._bars.instrument == i)
            so_far = np.concatenate([np.zeros(period, dtype=np.int64), np.cumsum(there[mine])])
            found[mine] = so_far[period:] - so_far[: len(mine)]
        return found

    # --- the rest ---

    def _random_cuts(self) -> list[int]:
        return sorted({int(cut) for cut in self._rng.integers(1, max(len(self._bars), 2), self._cuts)})

    def _random_ends(self) -> list[int]:
        return [*_random_ends(self._rng, len(self._bars), 3 * len(self._universe))]

    def _compare(
        self,
        rows: NDArray[np.float64],
        warm: NDArray[np.bool_],
        *,
        at: NDArray[np.intp],
        warm_matters: bool = True,
        where: NDArray[np.bool_] | None = None,
    ) -> None:
        """Compare rows with those of all of history, ``at`` being their places there; bit for bit, any NaN alike."""
        expected = self._rows[at]
        matters = ~(np.isnan(rows) & np.isnan(expected))
        if where is not None:
            matters &= where
        self.compared[self._guard] += int(matters.sum())
        different = (rows.view(np.int64) != expected.view(np.int64)) & matters
        if warm_matters:
            different[warm != self._warm[at]] = True
        for k in np.flatnonzero(different.any(axis=0)):
            places = np.flatnonzero(different[:, k])
            first = int(places[np.argmin(at[places])])
            self._note(int(k), int(at[first]), float(expected[first, k]), float(rows[first, k]))

    def _note(self, feature: int, row: int, expected: float, found: float) -> None:
        name = self._subject.names[feature]
        symbol = self._universe.instruments[int(self._bars.instrument[row])].symbol
        known = self.differences.get((self._guard, name))
        if known is None or row < known.row:
            self.differences[self._guard, name] = Difference(
                self._guard, name, row, symbol, int(self._bars.end_ns[row]), expected, found
            )


def with_other_future(bars: Bars, later: NDArray[np.bool_], rng: np.random.Generator) -> Bars:
    """Give the bars with other prices, as fine as the data's, and other volumes in some rows; none of the others.

    Parameters
    ----------
    later : array of bool, shape (n,)
        The rows that become others.
    """
    volume, prices = bars.volume.copy(), np.stack([getattr(bars, name) for name in _PRICES])
    decimals = _decimals(prices)
    volume[later] = rng.permutation(volume[later])
    moved = prices[:, later] * np.exp(rng.normal(0.0, 0.05, int(later.sum())))
    prices[:, later] = moved if decimals is None else np.round(moved, decimals)
    return replace(bars, volume=volume, **dict(zip(_PRICES, prices, strict=True)))


def _decimals(prices: NDArray[np.float64]) -> int | None:
    """Give how many decimals the prices have; None if they are written with more than `_MOST_DECIMALS`."""
    return next((d for d in range(_MOST_DECIMALS + 1) if (np.round(prices, d) == prices).all()), None)


def _random_ends(rng: np.random.Generator, n: int, most: int) -> Iterator[int]:
    end = 0
    while end < n:
        end = min(end + int(rng.integers(1, most + 2)), n)
        yield end
