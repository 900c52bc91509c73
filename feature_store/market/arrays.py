"""Arrays on their way into compiled code, and what that code knows of the wall clock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from feature_store.market.numba_cache import share_safely
from feature_store.market.types import ist_day, ist_time_of_day

share_safely()  # what bars, features and labels compile comes after this import
compiled_ist_day: Callable[[int], int] = njit(ist_day)
compiled_ist_time_of_day: Callable[[int], int] = njit(ist_time_of_day)


def kernel_input(array: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """Give an array as a contiguous, read-only one of a type, so that each kernel is compiled for one signature only.

    Arrays decoded from Arrow are read-only; without this their first batch would wait for a compilation.
    """
    view = np.ascontiguousarray(array, dtype=dtype).view()
    view.flags.writeable = False
    return view
