"""Features as a model knows them: an ordered schema with a hash, and the engine that computes its rows.

The functions and their declarations stand in `feature_store.kernels`; history and live run the same compiled step.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store.bars import bars_of_session
from feature_store.clocks import BarClock
from feature_store.kernels import SPECS, FeatureSpec, kernel_input, step_bars
from feature_store.market import MINUTE_NS, Bars, Session, Ticks, UnknownInstrument

__all__ = ["FEATURES", "FeatureEngine", "FeatureSchema", "FeatureSpec", "UnknownFeature", "compile_kernels",
           "feature_schema", "feature_table", "schema_hash"]  # fmt: skip

_ANY_DATE = dt.date(2026, 1, 5)

FEATURES: tuple[FeatureSpec, ...] = SPECS
"""Every feature there is, in the order of declaration."""


class UnknownFeature(ValueError):
    """A feature name that no declaration has."""


@dataclass(frozen=True)
class FeatureSchema:
    """An ordered choice of features on one bar clock; what a model's columns mean."""

    features: tuple[FeatureSpec, ...]
    bar_clock: str
    """``time:60s`` for one-minute bars."""

    @property
    def names(self) -> tuple[str, ...]:
        """Feature names in column order."""
        return tuple(spec.name for spec in self.features)

    @property
    def warm_up(self) -> int:
        """Bars of a session that an instrument needs before its rows are warm."""
        return max(spec.warm_up for spec in self.features)

    @property
    def bar_ns(self) -> int:
        """Length of a bar, nanoseconds."""
        return int(self.bar_clock.removeprefix("time:").removesuffix("s")) * 1_000_000_000

    @cached_property
    def hash(self) -> str:
        """The ``feature_schema_hash``: see `schema_hash`."""
        return schema_hash(self.columns(), self.bar_clock)

    def columns(self) -> tuple[dict[str, Any], ...]:
        """Give one dictionary for each column, as a model's sidecar records it."""
        return tuple(
            {
                "name": spec.name,
                "parameters": dict(spec.parameters),
                "dtype": spec.dtype,
                "version": spec.version,
                "warm_up": spec.warm_up,
            }
            for spec in self.features
        )


def schema_hash(columns: Sequence[dict[str, Any]], bar_clock: str) -> str:
    """SHA-256 of the canonical JSON of the clock and the ordered columns (see `FeatureSchema.columns`)."""
    text = json.dumps({"bar_clock": bar_clock, "columns": list(columns)}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def feature_schema(names: Sequence[str] | None, bar_minutes: int) -> FeatureSchema:
    """Choose features by name, in the order given; None chooses all.

    Raises
    ------
    UnknownFeature
        If a name has no declaration, is named twice, or none is named; the message lists what there is.
    """
    declared = {spec.name: spec for spec in FEATURES}
    chosen = tuple(declared) if names is None else tuple(names)
    unknown = [name for name in chosen if name not in declared]
    if unknown or not chosen or len(set(chosen)) < len(chosen):
        wrong = f"unknown {unknown}" if unknown else f"got {list(chosen)}"
        raise UnknownFeature(f"{wrong}: name at least one feature, each once, of {list(declared)}")
    return FeatureSchema(tuple(declared[name] for name in chosen), f"time:{bar_minutes * 60}s")


class FeatureEngine:
    """Compute feature rows bar by bar; the rows depend on the bars and not on how they were cut into batches.

    Parameters
    ----------
    schema : FeatureSchema
        The columns.
    n_instruments : int
        Length of the universe.

    Notes
    -----
    An instrument begins afresh when the IST date of its bars changes. Until it has had ``schema.warm_up`` bars in the
    session its rows are NaN and not warm; from then on a row depends on those last bars only.
    """

    def __init__(self, schema: FeatureSchema, n_instruments: int) -> None:
        position = {spec.name: k for k, spec in enumerate(FEATURES)}
        self.schema = schema
        self.n_instruments = n_instruments
        self._which = np.array([position[name] for name in schema.names], dtype=np.int64)
        self._warm_up = np.array([spec.warm_up for spec in schema.features], dtype=np.int64)
        self._ring = np.zeros((n_instruments, 5, 2 * schema.warm_up))
        self._ring_end_ns = np.zeros((n_instruments, 2 * schema.warm_up), dtype=np.int64)
        self._seen = np.zeros(n_instruments, dtype=np.int64)
        self._date = np.full(n_instruments, -1, dtype=np.int64)

    def step(self, bars: Bars) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Take closed bars, in order of time for each instrument; give a feature row for each.

        Returns
        -------
        X : ndarray of float64, shape (n, n_features)
            In the order of ``bars``; NaN until warm, finite from then on.
        warm : ndarray of bool, shape (n,)
            Whether the row may be used.

        Raises
        ------
        UnknownInstrument
            If an instrument index is outside the universe.
        """
        rows = np.full((len(bars), len(self._which)), np.nan)
        warm = np.zeros(len(bars), dtype=np.bool_)
        status = step_bars(
            kernel_input(bars.instrument, np.int32),
            kernel_input(bars.start_ns, np.int64),
            kernel_input(bars.end_ns, np.int64),
            kernel_input(bars.open, np.float64),
            kernel_input(bars.high, np.float64),
            kernel_input(bars.low, np.float64),
            kernel_input(bars.close, np.float64),
            kernel_input(bars.volume, np.int64),
            self._which,
            self._warm_up,
            self._ring,
            self._ring_end_ns,
            self._seen,
            self._date,
            rows,
            warm,
        )
        if status < 0:
            raise UnknownInstrument(
                f"a bar names an instrument index outside 0…{self.n_instruments - 1}; "
                "build bars and FeatureEngine from the same universe"
            )
        return rows, warm


def feature_table(
    bars: Bars, schema: FeatureSchema, n_instruments: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Compute the feature rows of history: a fresh engine and one step."""
    return FeatureEngine(schema, n_instruments).step(bars)


def compile_kernels() -> None:
    """Compile every kernel, or load it from numba's cache, so that the first real batch does not wait."""
    from feature_store.labels import forward_return

    session = Session.regular(_ANY_DATE)
    ticks = Ticks(
        instrument=np.zeros(2, dtype=np.int32),
        event_time_ns=np.array([session.open_ns, session.open_ns + MINUTE_NS], dtype=np.int64),
        last_price=np.ones(2),
        day_volume=np.arange(2, dtype=np.int64),
    )
    bars = bars_of_session(ticks, session, n_instruments=1, clock=BarClock.minutes(1))
    feature_table(bars, feature_schema(None, bar_minutes=1), n_instruments=1)
    forward_return(bars, horizon_bars=1, n_instruments=1)
