"""What a service process keeps in memory, and how seldom the collector looks through it."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib.abc
import mmap
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final

# With Python's 700 a frame of ticks starts a collection; nothing that a handler makes is a cycle.
_YOUNG_OBJECTS: Final = 20_000
_LEAN_SECONDS: Final = 20.0
_COMPILER: Final = "libllvmlite"
_MAPPINGS: Final = Path("/proc/self/maps")


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
    """Return memory that only the start, or the reading of a history, needed: freed blocks, and the compiler's code.

    Freed blocks stay with glibc and with Arrow's pool otherwise (130 MB behind the history of 3,000 instruments). The
    compiler's code (50 MB) is in the system's file cache, shared by all processes, and comes from there if something is
    compiled after all. Where the system is not Linux, or its C library not glibc, less is returned.
    """
    if (arrow := sys.modules.get("pyarrow")) is not None:
        arrow.default_memory_pool().release_unused()
    if not sys.platform.startswith("linux"):
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    for begin, size in _compiled_compiler():
        libc.madvise(ctypes.c_void_p(begin), ctypes.c_size_t(size), mmap.MADV_DONTNEED)


@asynccontextmanager
async def lean() -> AsyncIterator[None]:
    """Give memory back now and then for as long as the block lasts: what is compiled or read first in a session."""

    async def again_and_again() -> None:
        while True:
            await asyncio.sleep(_LEAN_SECONDS)
            await asyncio.to_thread(give_back)  # 2 ms, without Python's lock

    giving = asyncio.create_task(again_and_again(), name="lean")
    try:
        yield
    finally:
        giving.cancel()
        await asyncio.gather(giving, return_exceptions=True)


def _compiled_compiler() -> Iterator[tuple[int, int]]:
    """Give begin and size of the compiler's machine code: nothing writes there, so its file has all of it."""
    for line in _MAPPINGS.read_text().splitlines():
        addresses, rights, *_, last = line.split()
        if rights == "r-xp" and _COMPILER in last:
            begin, end = (int(address, 16) for address in addresses.split("-"))
            yield begin, end - begin
