"""Compiled code: the names in it, arrays on their way into it, and what it knows of the wall clock.

What features, bars and labels compile comes after this import, so that their names are apart from the first one on.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numba import njit
from numba.core.bytecode import FunctionIdentity
from numpy.typing import NDArray

from feature_store.market.types import ist_day, ist_time_of_day

# numba names what it compiles by module, function, types and a number, and its cache on disk keeps the names. It counts
# from 1 in each process, so two processes name two functions alike, and in one that loads both, code of the one calls
# the other: a step over 14 features wrote the columns of one over 34, wherever those would lie. Drawn numbers do not
# meet, not after a fork either. (https://github.com/numba/numba/issues/10486; there is no setting for it.)
FunctionIdentity._unique_ids = iter(partial(secrets.randbits, 64), None)

compiled_ist_day: Callable[[int], int] = njit(ist_day)
compiled_ist_time_of_day: Callable[[int], int] = njit(ist_time_of_day)


def kernel_input(array: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """Give an array as a contiguous, read-only one of a type, so that each kernel is compiled for one signature only.

    Arrays decoded from Arrow are read-only; without this their first batch would wait for a compilation.
    """
    view = np.ascontiguousarray(array, dtype=dtype).view()
    view.flags.writeable = False
    return view
