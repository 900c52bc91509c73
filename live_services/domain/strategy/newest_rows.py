"""The newest feature row of every instrument of a task, as the desk computed it: what goes to the online store."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from feature_store.features.schema import FeatureSchema
from feature_store.market.types import Bars, Universe
from feature_store.online.blocks import Block
from live_services.domain.snapshot import Tree
from live_services.domain.written import fields_of


class NewestRows:
    """Rows of one schema, kept by instrument.

    Parameters
    ----------
    schema : FeatureSchema
        What the columns mean.
    universe : Universe
        Instruments by index.
    own : ndarray of bool, shape (n_instruments,)
        Instruments of the task; rows of the others (context) are not kept.
    """

    def __init__(self, schema: FeatureSchema, universe: Universe, own: NDArray[np.bool_]) -> None:
        self.schema = schema
        self.end_ns = 0
        """End of the newest bar taken; 0 before the first."""
        self._own = own
        self._tokens = universe.tokens
        self._by_token = np.argsort(universe.tokens)
        self._bar_end_ns = np.zeros(len(universe), dtype=np.int64)
        self._warm = np.zeros(len(universe), dtype=np.bool_)
        self._rows = np.full((len(universe), len(schema.names)), np.nan)

    def take(self, bars: Bars, rows: NDArray[np.float64], warm: NDArray[np.bool_]) -> None:
        """Take the rows of bars, in order of time."""
        if not len(bars):
            return
        self.end_ns = int(bars.end_ns[-1])
        self._bar_end_ns[bars.instrument] = bars.end_ns  # of repeated indices the last one stays
        self._warm[bars.instrument] = warm
        self._rows[bars.instrument] = rows

    def block(self, partition: int) -> Block:
        """Give the task's own rows as a value of its own."""
        there = self._own & (self._bar_end_ns > 0)
        order = self._by_token[there[self._by_token]]
        return Block(
            schema_hash=self.schema.hash,
            partition=partition,
            end_ns=self.end_ns,
            tokens=self._tokens[order],
            bar_end_ns=self._bar_end_ns[order],
            warm=self._warm[order],
            rows=self._rows[order],
        )

    def snapshot(self) -> Tree:
        """Write the rows down."""
        return {
            "end_ns": self.end_ns,
            "bar_end_ns": self._bar_end_ns.copy(),
            "warm": self._warm.copy(),
            "rows": self._rows.copy(),
        }

    def restore(self, kept: Tree) -> None:
        """Go on where a snapshot was taken."""
        there = fields_of(kept)
        self.end_ns = there["end_ns"]
        self._bar_end_ns[:], self._warm[:], self._rows[:] = there["bar_end_ns"], there["warm"], there["rows"]
