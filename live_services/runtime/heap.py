"""What a service process keeps in memory, and how seldom the collector looks through it."""

from __future__ import annotations

import ctypes
import gc
import importlib.abc
import sys
from typing import Final

import psutil

# Of glibc's mallopt(3), <malloc.h>.
_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8
# Of madvise(2), <sys/mman.h>.
_MADV_DONTNEED: Final = 4
_LARGE_BYTES: Final = 1 << 20
_ARENAS: Final = 2
# With Python's 700 a frame of ticks starts a collection; nothing that a handler makes is a cycle.
_THRESHOLDS: Final = (20_000, 20, 50)


def prepare_heap() -> None:
    """Begin a process that lives for weeks: what it frees goes back to the system, and the collector looks seldom.

    Blocks of a megabyte are the system's as soon as they are freed, threads share two heaps, and Arrow takes its memory
    from there too, not from a pool of its own: that is 20 MB of a strategy runner of 50 instruments, and half of a
    feed's. On a C library that is not glibc only Arrow's is done. Imports make what stays: with Python's threshold an
    eighth of their time is the collector's.
    """
    gc.set_threshold(*_THRESHOLDS)
    import pyarrow as pa

    pa.set_memory_pool(pa.system_memory_pool())
    if (libc := _glibc()) is not None:
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, 4 * _LARGE_BYTES)
        libc.mallopt(_M_ARENA_MAX, _ARENAS)


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None


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
    gc.set_threshold(*_THRESHOLDS)


def give_back() -> None:
    """Return what this process has no use for at the moment: freed blocks, and pages of files that were read.

    glibc and Arrow's pool keep freed blocks otherwise: 130 MB behind the history of 3,000 instruments. Of files it is
    90 MB behind the imports, most of them the compiler's: what is used again is mapped again, from the page cache.
    Elsewhere than on Linux with glibc only Arrow's blocks are returned.
    """
    if (arrow := sys.modules.get("pyarrow")) is not None:
        arrow.default_memory_pool().release_unused()
    if (libc := _glibc()) is not None:
        libc.malloc_trim(0)
        _unmap_pages_of_files(libc)


def _unmap_pages_of_files(libc: ctypes.CDLL) -> None:
    """Let go of what is mapped of files and was never written to, in memory or in swap: nothing of it can be lost."""
    try:
        areas = psutil.Process().memory_maps(grouped=False)
    except (psutil.Error, OSError):  # a system that shows no process its own memory
        return
    for area in areas:
        written = "w" in area.perms or area.anonymous or area.swap
        if area.path.startswith("/") and area.rss and not written:
            start, end = (int(address, 16) for address in area.addr.split("-"))
            libc.madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), _MADV_DONTNEED)
