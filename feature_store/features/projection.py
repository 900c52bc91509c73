"""A schema inside a larger one: values are computed and stored once for the union of what several strategies ask.

A value that is warm does not depend on what else is in its schema, but whether it is warm does: the schema with the
longest memory decides how many sessions of history are stepped, and more history warms more. So rows of a union say of
each column how much history it needs to be warm there, and a projection leaves out what the smaller schema, with its
own history, would not have had. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feature_store.features.folding import BarFolder, joined_by_time
from feature_store.features.library import FeatureSpec, Memory
from feature_store.features.schema import FeatureSchema, anchor_days
from feature_store.market.arrays import compiled_ist_day, kernel_input
from feature_store.market.clocks import BarClock
from feature_store.market.types import Bars

NEVER: Final = np.iinfo(np.int16).max
"""History that no schema has: the column is not warm in the row."""


class WarmUp(NamedTuple):
    """What columns that get warm together have in common."""

    memory: Memory
    bars: int
    clock: str
    """As people write it, ``5m``."""

    @property
    def column(self) -> str:
        """Name of the column that says how much history it needs, for example ``history.window.20.5m``."""
        return f"history.{self.memory}.{self.bars}.{self.clock}"


class Projection(NamedTuple):
    """Rows of a schema, as a run over its own history gives them."""

    X: NDArray[np.float64]
    """Shape ``(n, n_features)``; NaN until warm."""
    warm: NDArray[np.bool_]
    """Whether every column is, shape ``(n,)``."""


def union_schema(schemas: Sequence[FeatureSchema]) -> FeatureSchema:
    """Give the schema that has every column of some schemas, the same whatever their order.

    If one of them has all columns it is that one (of several the one with the lowest hash); else columns stand in order
    of their names.

    Raises
    ------
    ValueError
        If there is no schema, or they are on several clocks, or have different columns of one name.
    """
    clocks = sorted({schema.bar_clock for schema in schemas})
    if len(clocks) != 1:
        raise ValueError(f"got schemas on {len(clocks)} clocks ({', '.join(clocks)}); values are stored by clock")
    columns: dict[str, FeatureSpec] = {}
    for spec in (spec for schema in schemas for spec in schema.features):
        if columns.setdefault(spec.name, spec) != spec:
            raise ValueError(f"{spec.name} is two features of one name in these schemas; they are of two versions")
    whole = [schema for schema in schemas if len(schema.features) == len(columns)]
    if whole:
        return min(whole, key=lambda schema: schema.hash)
    return FeatureSchema(tuple(columns[name] for name in sorted(columns)), clocks[0])


def holds(schema: FeatureSchema, part: FeatureSchema) -> bool:
    """Whether a schema has every column of another, on the same clock."""
    return schema.bar_clock == part.bar_clock and all(spec in schema.features for spec in part.features)


def warm_ups(schema: FeatureSchema) -> tuple[WarmUp, ...]:
    """Give the warm-ups that a schema's columns have, each once, in order."""
    return tuple(sorted({_warm_up(spec, schema) for spec in schema.features}))


def history_needed(sessions: Sequence[Bars], schema: FeatureSchema, n_instruments: int) -> NDArray[np.int16]:
    """Say of each row of a session how many sessions of history make each of its columns warm.

    Parameters
    ----------
    sessions : sequence of Bars
        Bars of the ``schema.history_sessions`` sessions before, or as many as there are, and of the session itself, in
        order of time.
    schema : FeatureSchema
        The union.
    n_instruments : int
        Length of the universe.

    Returns
    -------
    ndarray of int16, shape (n, n_warm_ups)
        For the bars of the last session, in the order of `warm_ups`: the least of the histories that its columns can
        stand on, or `NEVER`.
    """
    kinds, whole, own = warm_ups(schema), Bars.concatenate(sessions), len(sessions[-1])
    needed = np.full((own, len(kinds)), NEVER, dtype=np.int16)
    history_of = {
        _warm_up(spec, schema): FeatureSchema((spec,), schema.bar_clock).history_sessions for spec in schema.features
    }
    for length in sorted(set(history_of.values())):
        stepped = sum(len(bars) for bars in sessions[max(len(sessions) - 1 - length, 0) :])
        bars, seen = whole[len(whole) - stepped :], {}
        for k, kind in enumerate(kinds):
            open_rows = needed[:, k] == NEVER
            if history_of[kind] > length or not open_rows.any():
                continue
            if kind.clock not in seen:
                counts = _seen(bars, BarClock.parse(kind.clock), schema.clock, n_instruments)[stepped - own :]
                seen[kind.clock] = counts.T.copy()
            n_bars, n_sessions, n_anchors = seen[kind.clock]
            warm = n_bars >= kind.bars
            if kind.memory == "session":
                warm &= n_sessions >= 1
            if kind.memory == "recursive":
                warm &= n_anchors >= 2
            needed[open_rows & warm, k] = length
    return needed


def projected(
    X: NDArray[np.float64],  # noqa: N803
    needed: NDArray[np.int16],
    union: FeatureSchema,
    part: FeatureSchema,
) -> Projection:
    """Give the rows of a schema out of those of a union that `holds` it, bit for bit as a run of its own would.

    Parameters
    ----------
    X : ndarray of float64, shape (n, part's n_features)
        The part's columns of the union's rows.
    needed : ndarray of int16, shape (n, union's n_warm_ups)
        As `history_needed` gives it for the union.
    """
    kinds, values, warm = warm_ups(union), X.copy(), np.ones(len(X), dtype=np.bool_)
    for k, spec in enumerate(part.features):
        ready = needed[:, kinds.index(_warm_up(spec, part))] <= part.history_sessions
        values[~ready, k] = np.nan
        warm &= ready
    return Projection(values, warm)


def _warm_up(spec: FeatureSpec, schema: FeatureSchema) -> WarmUp:
    return WarmUp(spec.memory, spec.warm_up, spec.name.partition("@")[2] or schema.clock.short)


def _seen(bars: Bars, clock: BarClock, base: BarClock, n_instruments: int) -> NDArray[np.int64]:
    """Count, as the engine does, what each bar's instrument has seen of a clock: bars, sessions before, anchors."""
    if clock == base:
        return _counted(bars, clock, n_instruments)
    closed, known = BarFolder(n_instruments, clock).step(bars)
    of_closed = _counted(closed, clock, n_instruments).astype(np.float64)
    nothing, cold = np.zeros((n_instruments, 3)), np.zeros(n_instruments, dtype=np.bool_)
    none_warm = np.zeros(len(closed), dtype=np.bool_)
    joined, _ = joined_by_time(bars.instrument, known, closed.instrument, of_closed, none_warm, nothing, cold)
    return joined.astype(np.int64)


def _counted(bars: Bars, clock: BarClock, n_instruments: int) -> NDArray[np.int64]:
    counts = np.empty((len(bars), 3), dtype=np.int64)
    instrument, start_ns = kernel_input(bars.instrument, np.int32), kernel_input(bars.start_ns, np.int64)
    _count(
        instrument,
        start_ns,
        anchor_days(clock),
        np.full((n_instruments, 2), -1),
        np.zeros((n_instruments, 3), np.int64),
        counts,
    )
    return counts


@njit(cache=True)
def _count(instrument, start_ns, days, newest, seen, counts):  # type: ignore[no-untyped-def]  # noqa: PLR0917
    """The counters of `feature_store.features.kernels` without the values."""
    for row in range(len(instrument)):
        i = instrument[row]
        day = compiled_ist_day(start_ns[row])
        if day != newest[i, 0]:
            seen[i, 1] += newest[i, 0] >= 0
            seen[i, 2] += newest[i, 1] >= 0 and newest[i, 1] != day // days
            newest[i, 0], newest[i, 1] = day, day // days
        seen[i, 0] += 1
        counts[row] = seen[i]
