"""The engine that computes a schema's rows bar by bar; history and live run the same compiled step (``kernels``)."""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from feature_store.bars.builder import bars_of_session
from feature_store.features.folding import BarFolder, joined_by_time
from feature_store.features.kernels import empty_header, step_of
from feature_store.features.library import DECLARED, FeatureSpec
from feature_store.features.schema import FeatureSchema, anchor_days, feature_schema
from feature_store.features.source import SOURCE_DIGEST
from feature_store.features.window import ANCHORS, CAPACITY, COLUMNS, NEXT_ACTION, SEEN, SESSIONS, SMOOTHED, Window
from feature_store.market.clocks import BarClock
from feature_store.market.corporate_actions import CorporateActions
from feature_store.market.types import (
    MINUTE_NS,
    Bars,
    MarketDataError,
    Session,
    Ticks,
    Universe,
    UnknownInstrument,
    ist_text,
)

_SPLIT_FROM_ROWS = 20_000  # some 10 ms of one core; below that, as live, threads cost more than they bring
_BAR_TYPES = (np.int32, np.int64, np.int64, *[np.float64] * 4, np.int64, np.int32, np.float64, np.float64)
_TYPES = (np.int32, np.int64, np.int64, *[np.float64] * 4, np.int64, np.float64, np.float64)
_FEW_BARS = CAPACITY // 8  # that came to an instrument since; of more, its whole ring is copied at once


class StateMismatch(MarketDataError):
    """A snapshot of another schema, universe, code or of other corporate actions."""


class BarsOutOfOrder(MarketDataError):
    """A bar that came again, or after a later one of its instrument."""


class FeatureEngine:
    """Compute feature rows bar by bar; the rows depend on the bars and not on how they were cut into batches.

    Parameters
    ----------
    schema : FeatureSchema
        The columns.
    universe : Universe
        What the bars' instrument indices refer to; names the market's index.
    actions : CorporateActions, optional
        Splits and the like: at the first bar of an ex-date, what is held of the instrument is put in new prices.
    declared : sequence, optional
        Other functions than those of ``library``, from `library.declare`; the schema must name these. Compiles for
        some seconds, once on a machine.
    threads : int, optional
        Over how many threads tables of many bars are split, by instruments; the rows do not depend on it. Default: the
        processor cores that this process may use, or ``NUMBA_NUM_THREADS``.

    Notes
    -----
    State goes on from session to session. A row is NaN in columns that are not warm yet. From the row on that is warm,
    it is bit-equal to that of a run over all of history.
    """

    def __init__(
        self,
        schema: FeatureSchema,
        universe: Universe,
        actions: CorporateActions | None = None,
        *,
        declared: Sequence[tuple[FeatureSpec, Callable[[Window], float]]] | None = None,
        threads: int | None = None,
    ) -> None:
        self.schema = schema
        self.universe = universe
        own = schema.by_clock.get(schema.clock, ())
        known = DECLARED if declared is None else declared
        self._step = step_of(known)
        self._threads = numba.config.NUMBA_NUM_THREADS if threads is None else threads
        self._column = np.full(len(known), -1, dtype=np.int64)
        position = {spec.name: k for k, (spec, _) in enumerate(known)}
        for at, spec in enumerate(own):
            self._column[position[spec.name]] = at
        self._warm_after = np.array(_warm_after(own), dtype=np.int64)
        offsets, ex_ns, factors = (actions or CorporateActions.none()).for_universe(universe)
        n = len(universe)
        self._actions = (offsets, ex_ns, factors)
        self._context = np.array([np.iinfo(np.int64).min, 0], dtype=np.int64)
        self._ring = np.empty((n, CAPACITY, COLUMNS), dtype=np.int64)
        self._ring.fill(0)  # zeros would have the first bars of a whole market wait for the memory, 90 ms
        self._smoothed = np.zeros((n, 2, 1 + SMOOTHED))
        self._header = empty_header(n, offsets)
        market_index = -1 if universe.market_index is None else universe.market_index
        is_index = np.array([not one.tradable for one in universe.instruments], dtype=np.bool_)
        self._before = (self._column, self._warm_after, anchor_days(schema.clock), market_index, is_index)
        self._behind = (*self._actions, self._ring, self._smoothed, self._header)
        self._own_columns = len(own)
        self._places = [schema.names.index(spec.name) for spec in own]
        self._longer = []
        for clock, specs in schema.by_clock.items():
            if clock != schema.clock:
                of_clock = FeatureSchema(specs, str(clock))
                engine = FeatureEngine(of_clock, universe, actions, declared=declared, threads=threads)
                places = [schema.names.index(f"{spec.name}@{clock.short}") for spec in specs]
                self._longer.append(_LongerClock(places, clock, engine))
        if self._longer:  # what folds bars is compiled, or loaded from disk, now and not when the first ones come
            self.step(Bars(*(np.empty(0, dtype=kind) for kind in _BAR_TYPES)))

    def step(
        self, bars: Bars, *, out: NDArray[np.float64] | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Take closed bars, in order of ``(end_ns, instrument)``; give a feature row for each.

        Parameters
        ----------
        bars : Bars
            Indexed by the engine's universe.
        out : ndarray of float64, shape (n, n_features), optional
            Where the rows are written, row by row in memory; a caller that steps again and again spares the memory.

        Returns
        -------
        X : ndarray of float64, shape (n, n_features)
            In the order of ``bars``; NaN until warm, and then as each feature's NaN policy says. It is ``out`` if
            that is given.
        warm : ndarray of bool, shape (n,)
            Whether every column has seen what it depends on.

        Raises
        ------
        ValueError
            If ``out`` is of another shape, dtype or layout.
        UnknownInstrument
            If an instrument index is outside the universe.
        BarsOutOfOrder
            If a bar ends no later than its instrument's one before, which would count it twice or too late. Bars
            before it may have been taken: go on from a snapshot, or with a new engine.
        """
        wide = _room((len(bars), len(self.schema.features)), out)
        rows = np.empty((len(bars), self._own_columns)) if self._longer else wide
        warm = np.empty(len(bars), dtype=np.bool_)
        columns = (
            bars.instrument, bars.start_ns, bars.end_ns, bars.open, bars.high, bars.low, bars.close, bars.volume,
            bars.spread_bps, bars.imbalance,
        )  # fmt: skip
        try:
            status = self._stepped(columns, rows, warm)
        except TypeError:  # another dtype, strided, or read-only as Arrow gives it: nothing is compiled for that
            typed = tuple(np.require(c, dtype, ["C", "W"]) for c, dtype in zip(columns, _TYPES, strict=True))
            status = self._stepped(typed, rows, warm)
        if status < -1:
            row = -2 - status
            symbol, end = self.universe.instruments[bars.instrument[row]].symbol, ist_text(int(bars.end_ns[row]))
            raise BarsOutOfOrder(
                f"bar {row} ({symbol}, end {end}) ends no later than one of {symbol} that was taken before; give each "
                "bar once, in order of (end_ns, instrument)"
            )
        if status < 0:
            raise UnknownInstrument(
                f"a bar names an instrument index outside 0…{len(self.universe) - 1}; "
                "build bars and FeatureEngine from the same universe"
            )
        if not self._longer:
            return wide, warm
        wide[:, self._places] = rows
        for longer in self._longer:
            wide[:, longer.places], longer_warm = longer.step(bars)
            warm &= longer_warm
        return wide, warm

    def _stepped(self, columns: tuple[NDArray[Any], ...], rows: NDArray[np.float64], warm: NDArray[np.bool_]) -> int:
        """Run the compiled step over all instruments, or over a part of them in each thread; give its status."""
        parts = self._parts(columns[0])

        def part(bounds: tuple[int, int], context: NDArray[np.int64]) -> int:
            return int(self._step(*columns, *bounds, *self._before, context, *self._behind, rows, warm))

        if len(parts) == 1:
            return part(parts[0], self._context)
        contexts = [self._context, *(self._context.copy() for _ in parts[1:])]
        with ThreadPoolExecutor(len(parts)) as threads:
            statuses = list(threads.map(part, parts, contexts))
        return next((status for status in statuses if status < 0), 0)

    def _parts(self, instrument: NDArray[np.int32]) -> list[tuple[int, int]]:
        """Cut the universe into ranges of instruments with about as many rows each, one for each thread."""
        n = len(self.universe)
        if self._threads < 2 or len(instrument) < _SPLIT_FROM_ROWS or instrument.min() < 0:
            return [(0, n)]
        rows = np.cumsum(np.bincount(instrument, minlength=n)[:n])
        cuts = np.searchsorted(rows, rows[-1] * np.arange(1, self._threads) / self._threads)
        ends = np.unique([0, *(cuts + 1).tolist(), n]).clip(max=n)
        return [(int(first), int(last)) for first, last in pairwise(np.unique(ends))]

    def warming(self) -> NDArray[np.bool_]:
        """Say of each instrument whether its next row of the same session could not be warm; shape (n_instruments,)."""
        seen = self._header[:, [SEEN, SESSIONS, ANCHORS]] + np.array([1, 0, 0])
        cold = (seen < self._warm_after).any(axis=1)
        for longer in self._longer:
            cold |= longer.warming()
        return np.asarray(cold, dtype=np.bool_)

    def snapshot(self, into: Mapping[str, NDArray[Any]] | None = None) -> dict[str, NDArray[Any]]:
        """Give a copy of the state, with what it belongs to; `restore` takes it.

        Parameters
        ----------
        into : mapping, optional
            What this engine gave, or was restored from, before, and nobody reads any more: its ring, which is nearly
            all of the state (20 kB an instrument), is brought up to date by the bars that came since, and given again.
            Of 3,000 instruments that takes a millisecond; a copy into new memory takes 60 to 500.
        """
        state: dict[str, NDArray[Any]] = {
            "belongs_to": np.array(self._belongs_to()),
            **{name: array.copy() for name, array in self._state().items() if name != "ring"},
            "ring": self._ring.copy() if into is None else _brought_up(into, self._ring, self._header),
        }
        for k, longer in enumerate(self._longer):
            prefix = f"longer{k}."
            there = longer.snapshot(None if into is None else _part(into, prefix))
            state |= {f"{prefix}{name}": array for name, array in there.items()}
        return state

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        """Go on where a snapshot was taken.

        Raises
        ------
        StateMismatch
            If the snapshot is of another schema, universe, version of the feature code, or of other corporate actions.
        """
        if str(snapshot.get("belongs_to")) != self._belongs_to():
            raise StateMismatch(
                "the snapshot is of another schema, universe or feature code, or of other corporate actions; warm up "
                "from the store"
            )
        for name, array in self._state().items():
            array[...] = snapshot[name]
        for k, longer in enumerate(self._longer):
            longer.restore(_part(snapshot, f"longer{k}."))

    def _state(self) -> dict[str, NDArray[Any]]:
        return {"context": self._context, "ring": self._ring, "smoothed": self._smoothed, "header": self._header}

    def _belongs_to(self) -> str:
        actions = hashlib.sha256(b"".join(array.tobytes() for array in self._actions)).hexdigest()
        return f"{self.schema.hash} {self.universe.digest} {SOURCE_DIGEST} {actions}"


class _LongerClock:
    """The columns of a schema on a longer clock: bars folded, stepped when closed, joined by event time."""

    def __init__(self, places: Sequence[int], clock: BarClock, engine: FeatureEngine) -> None:
        n = len(engine.universe)
        self.places = list(places)
        self._folder = BarFolder(n, clock)
        self._engine = engine
        self._newest = np.full((n, len(self.places)), np.nan)
        self._newest_warm = np.zeros(n, dtype=np.bool_)

    def step(self, bars: Bars) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        closed, known = self._folder.step(bars)
        rows, warm = self._engine.step(closed)
        return joined_by_time(bars.instrument, known, closed.instrument, rows, warm, self._newest, self._newest_warm)

    def warming(self) -> NDArray[np.bool_]:
        return ~self._newest_warm

    def snapshot(self, into: Mapping[str, NDArray[Any]] | None) -> dict[str, NDArray[Any]]:
        parts = {"newest": self._newest.copy(), "newest_warm": self._newest_warm.copy()}
        folder = {f"folder.{name}": array for name, array in self._folder.snapshot().items()}
        engine = self._engine.snapshot(None if into is None else _part(into, "engine."))
        return parts | folder | {f"engine.{name}": array for name, array in engine.items()}

    def restore(self, snapshot: Mapping[str, NDArray[Any]]) -> None:
        self._newest[...], self._newest_warm[...] = snapshot["newest"], snapshot["newest_warm"]
        for part, owner in (("folder.", self._folder), ("engine.", self._engine)):
            owner.restore(_part(snapshot, part))


def _part(snapshot: Mapping[str, NDArray[Any]], prefix: str) -> dict[str, NDArray[Any]]:
    return {name.removeprefix(prefix): array for name, array in snapshot.items() if name.startswith(prefix)}


def _brought_up(
    into: Mapping[str, NDArray[Any]], ring: NDArray[np.int64], header: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Give the copy of the ring in an earlier snapshot, made equal to the ring as it is now.

    A bar writes into its own slot only, and a corporate action writes an instrument's ring anew.
    """
    copy, before = into["ring"], into["header"]
    came = header[:, SEEN] - before[:, SEEN]
    anew = (came > _FEW_BARS) | (header[:, NEXT_ACTION] != before[:, NEXT_ACTION])
    for instrument in np.flatnonzero(anew).tolist():  # all at once they would be copied to new memory first
        copy[instrument] = ring[instrument]
    for ago in range(1, int(came[~anew].max(initial=0)) + 1):
        instruments = np.flatnonzero(~anew & (came >= ago))
        slots = (header[instruments, SEEN] - ago) % CAPACITY
        copy[instruments, slots] = ring[instruments, slots]
    return copy


def _room(shape: tuple[int, int], out: NDArray[np.float64] | None) -> NDArray[np.float64]:
    if out is None:
        return np.empty(shape)
    if out.shape != shape or out.dtype != np.float64 or not (out.flags.c_contiguous and out.flags.writeable):
        raise ValueError(
            f"out is {out.dtype} of shape {out.shape}; give a writable, C-contiguous float64 array of shape {shape}"
        )
    return out


def _warm_after(specs: Sequence[FeatureSpec]) -> tuple[int, int, int]:
    """Bars, sessions begun and anchors passed after which all of these are warm."""
    return (
        max((spec.warm_up for spec in specs), default=0),
        max((int(spec.memory == "session") for spec in specs), default=0),
        max((2 * int(spec.memory == "recursive") for spec in specs), default=0),
    )


def feature_table(
    bars: Bars, schema: FeatureSchema, universe: Universe, actions: CorporateActions | None = None
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Compute the feature rows of history: a fresh engine and one step."""
    return FeatureEngine(schema, universe, actions).step(bars)


def compile_kernels() -> None:
    """Compile the kernels of bars and features, or load them from numba's cache, so that no first batch waits."""
    session = Session.regular(dt.date(2026, 1, 5))
    ticks = Ticks(
        instrument=np.zeros(2, dtype=np.int32),
        event_time_ns=np.array([session.open_ns, session.open_ns + MINUTE_NS], dtype=np.int64),
        last_price=np.ones(2),
        day_volume=np.arange(2, dtype=np.int64),
    )
    universe = Universe.from_symbols(["ANY"])
    bars = bars_of_session(ticks, session, len(universe), BarClock.minutes(1))
    feature_table(bars, feature_schema(["momentum", "momentum@5m"], 1), universe)
