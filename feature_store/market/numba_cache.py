"""What processes share of numba's work on disk, made safe for several of them."""

from __future__ import annotations

import fcntl
import secrets
from functools import partial
from pathlib import Path
from typing import Any

from numba.core import caching
from numba.core.bytecode import FunctionIdentity


class _OneWriter(caching.IndexDataCacheFile):  # type: ignore[misc]
    """Numba's files of one function, written by one process at a time."""

    def save(self, key: Any, data: Any) -> None:
        with Path(self._cache_path, "lock").open("ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            super().save(key, data)


def share_safely() -> None:
    """Let no process run code of another in place of its own; to be called before anything is compiled.

    Notes
    -----
    numba names what it compiles by module, function, types and a number, and its files keep the names. It counts from 1
    in each process, so two processes name two functions alike, and in one that loads both, code of the one calls the
    other: a step over 14 features wrote the columns of one over 34, wherever those would lie. Drawn numbers do not
    meet, not after a fork either. (https://github.com/numba/numba/issues/10486; there is no setting for it.)

    To save code, numba reads the function's index, adds an entry, writes it, and then the code. Two processes that did
    so at once numbered the code of two signatures alike, and who loaded it ran the one on arguments of the other.
    """
    FunctionIdentity._unique_ids = iter(partial(secrets.randbits, 64), None)
    caching.IndexDataCacheFile = _OneWriter
