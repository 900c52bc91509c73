"""What a service process keeps in memory, and how seldom the collector looks through it."""

from __future__ import annotations

import ctypes
import gc
import importlib.abc
import sys
from typing import Final

# With Python's 700 a frame of ticks starts a collection; nothing that a handler makes is a cycle.
_YOUNG_OBJECTS: Final = 20_000


class _NoPandas(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: object, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError("kept out of a service process", name=name)


def keep_pandas_out() -> None:
    """Let pyarrow find no pandas, which it would import at its first array, whatever that is made of: 40 MB.

    pyarrow looks for it once (``pyarrow.lib._PandasAPIShim``); anybody else imports it as ever.
    """
    nobody = _NoPandas()
    sys.meta_path.insert(0, nobody)
    try:
        import pyarrow as pa

        pa.array([0])
    finally:
        sys.meta_path.remove(nobody)


def freeze_heap() -> None:
    """Take everything that is there now out of the collector's sight, and let it look less often at what comes.

    For what stays: imports, models, universes, the states of a session. What was frozen before and is garbage by now is
    collected first, and what nobody uses goes back to the system.
    """
    gc.unfreeze()
    gc.collect()
    give_back()
    gc.freeze()
    gc.set_threshold(_YOUNG_OBJECTS, 20, 50)


def give_back() -> None:
    """Return freed blocks, which glibc and Arrow's pool keep otherwise: 130 MB behind the history of 3,000 instruments.

    Where the C library is not glibc, only Arrow's are returned.
    """
    if (arrow := sys.modules.get("pyarrow")) is not None:
        arrow.default_memory_pool().release_unused()
    if sys.platform.startswith("linux") and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
