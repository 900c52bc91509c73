"""What a state may be written down as, so that another process goes on from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

from numpy.typing import NDArray

Tree: TypeAlias = bool | int | float | str | NDArray[Any] | Sequence["Tree"] | Mapping[str, "Tree"] | None
"""Plain values and arrays: floats keep their bits, integers their size, mappings their order. Read back
(`live_services.adapters.snapshot_bytes`) a tuple is a list.
"""


class CorruptSnapshot(ValueError):
    """It is no snapshot of this state, or a damaged one."""
