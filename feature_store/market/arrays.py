"""Arrays on their way into compiled code."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def kernel_input(array: NDArray[Any], dtype: type[np.generic]) -> NDArray[Any]:
    """Give an array as a contiguous, read-only one of a type, so that each kernel is compiled for one signature only.

    Arrays decoded from Arrow are read-only; without this their first batch would wait for a compilation.
    """
    view = np.ascontiguousarray(array, dtype=dtype).view()
    view.flags.writeable = False
    return view
