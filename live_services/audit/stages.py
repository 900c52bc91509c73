"""Stages of a chain as tables that are compared bit for bit: what was said of an instrument, and when it was known."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import Bars

ROW = "(row)"
"""Stands for a column where a row is there on one side only: 1 where it is, 0 where it is not."""


@dataclass(frozen=True, eq=False)
class Stage:
    """What one stage of a chain said, in order of ``(known_ns, instrument)``, equal keys in the order they came."""

    name: str
    """``features``, ``proposals``, ``scores``, ``signals``, ``orders``, ``fills`` or a name of your own."""
    instrument: NDArray[np.int32]
    """Index in the universe, shape ``(n,)``."""
    known_ns: NDArray[np.int64]
    """When it was said, shape ``(n,)``: nothing that came later may change the row."""
    columns: tuple[str, ...]
    values: NDArray[np.float64]
    """Shape ``(n, len(columns))``."""

    @classmethod
    def of(
        cls,
        name: str,
        instrument: NDArray[np.int32],
        known_ns: NDArray[np.int64],
        columns: Sequence[str],
        values: NDArray[np.float64],
    ) -> Stage:
        """Bring rows into order; values may have shape ``(n,)`` if there is one column."""
        table = np.asarray(values, dtype=np.float64).reshape(len(known_ns), len(columns))
        order = np.lexsort((instrument, known_ns))
        return cls(name, instrument[order], known_ns[order], tuple(columns), np.ascontiguousarray(table[order]))

    def __len__(self) -> int:
        return len(self.known_ns)

    def until(self, time_ns: int) -> Stage:
        """Give the rows that were known at a time."""
        n = int(np.searchsorted(self.known_ns, time_ns, side="right"))
        return Stage(self.name, self.instrument[:n], self.known_ns[:n], self.columns, self.values[:n])

    def value(self, instrument: int, known_ns: int, column: int) -> float:
        """Give a value by its key; NaN if there is no such row."""
        first, end = np.searchsorted(self.known_ns, (known_ns, known_ns + 1))
        mine = np.flatnonzero(self.instrument[first:end] == instrument)
        return float(self.values[first + mine[0], column]) if len(mine) else float("nan")


Chain: TypeAlias = Callable[[Bars], Sequence[Stage]]
"""A chain: bars in order of ``(end_ns, instrument)`` in, its stages out in the order in which each stands on the one
before. It is called many times, on parts of the data and on changed data, and must not remember."""


@dataclass(frozen=True)
class Differing:
    """Rows of one column that are not what they were."""

    column: int
    """Index among the stage's columns; -1: the row is there on one side only."""
    instrument: NDArray[np.int32]
    known_ns: NDArray[np.int64]
    with_future: NDArray[np.float64]
    without_future: NDArray[np.float64]


def compared(whole: Stage, part: Stage, until_ns: int, *, fewer: bool = False) -> tuple[int, list[Differing]]:
    """Compare what two runs said until a time, bit for bit, any NaN alike.

    Parameters
    ----------
    whole : Stage
        Of all data.
    part : Stage
        Of the data that is held against it.
    until_ns : int
        Rows that were known later are left out on both sides.
    fewer : bool
        Whether the part may lack rows, as one that begins later does.

    Returns
    -------
    int, list of Differing
        Values compared (two NaN are not counted), and what differs, by column.
    """
    a, b = whole.until(until_ns), part.until(until_ns)
    in_a, in_b = _paired(a, b)
    x, y = a.values[in_a], b.values[in_b]
    counts = ~(np.isnan(x) & np.isnan(y))
    different = (x.view(np.int64) != y.view(np.int64)) & counts
    found = []
    alone_a = np.empty(0, dtype=np.intp) if fewer else np.setdiff1d(np.arange(len(a)), in_a, assume_unique=True)
    alone_b = np.setdiff1d(np.arange(len(b)), in_b, assume_unique=True)
    if len(alone_a) or len(alone_b):
        there = np.concatenate([np.ones(len(alone_a)), np.zeros(len(alone_b))])
        found.append(
            Differing(
                -1,
                np.concatenate([a.instrument[alone_a], b.instrument[alone_b]]),
                np.concatenate([a.known_ns[alone_a], b.known_ns[alone_b]]),
                there,
                1.0 - there,
            )
        )
    for column in np.flatnonzero(different.any(axis=0)).tolist():
        rows = np.flatnonzero(different[:, column])
        place = in_a[rows]
        found.append(Differing(column, a.instrument[place], a.known_ns[place], x[rows, column], y[rows, column]))
    return int(counts.sum()) + len(alone_a) + len(alone_b), found


def _paired(a: Stage, b: Stage) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Give places of equal keys in both; of equal keys in one stage the first goes with the first."""
    if np.array_equal(a.known_ns, b.known_ns) and np.array_equal(a.instrument, b.instrument):
        both = np.arange(len(a))
        return both, both
    place = {key: k for k, key in enumerate(_keys(a))}
    pairs = [(place[key], k) for k, key in enumerate(_keys(b)) if key in place]
    rows = np.array(pairs, dtype=np.intp).reshape(-1, 2)
    return rows[:, 0], rows[:, 1]


def _keys(stage: Stage) -> list[tuple[int, int, int]]:
    seen: dict[tuple[int, int], int] = {}
    keys = []
    for known_ns, instrument in zip(stage.known_ns.tolist(), stage.instrument.tolist(), strict=True):
        times = seen.get((known_ns, instrument), 0)
        seen[known_ns, instrument] = times + 1
        keys.append((known_ns, instrument, times))
    return keys
