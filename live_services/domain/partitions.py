"""What of the market travels in a market partition: its own instruments, and the market's index as context.

An instrument has one owner (`Universe.partition_of`): only there it is counted, decided on and recorded. The index that
features of other instruments are relative to travels in every partition beside them, and is counted by its owner only.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import Bars, Ticks, Universe


def owned(universe: Universe, partition: int, partitions: int) -> NDArray[np.bool_]:
    """Say of each instrument whether a partition owns it, shape ``(n_instruments,)``."""
    mine: NDArray[np.bool_] = universe.partition_of(np.arange(len(universe), dtype=np.int32), partitions) == partition
    return mine


def part_of(market: Ticks | Bars, universe: Universe, partition: int, partitions: int) -> Ticks | Bars:
    """Give what travels in a partition, in the order it came: rows of its own and those of the market's index."""
    if partitions == 1:
        return market
    travels = owned(universe, partition, partitions)
    if universe.market_index is not None:
        travels[universe.market_index] = True
    return market[travels[market.instrument]]


def own_rows(market: Ticks | Bars, universe: Universe, partition: int, partitions: int) -> Ticks | Bars:
    """Leave out the rows that travelled in a partition as context only."""
    if partitions == 1:
        return market
    mine = universe.partition_of(market.instrument, partitions) == partition
    return market if mine.all() else market[mine]
