"""What a state may be written down as, so that another process goes on from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Joined:
    """An array whose parts nobody writes into: they are joined where it is written, not where it is taken."""

    parts: tuple[NDArray[Any], ...]

    def whole(self) -> NDArray[Any]:
        """Join them."""
        return np.concatenate(self.parts)


Tree: TypeAlias = bool | int | float | str | NDArray[Any] | Joined | Sequence["Tree"] | Mapping[str, "Tree"] | None
"""Plain values and arrays: floats keep their bits, integers their size, mappings their order. Read back
(`live_services.adapters.snapshot_bytes`) a tuple is a list.
"""


class CorruptSnapshot(ValueError):
    """It is no snapshot of this state, or a damaged one."""
