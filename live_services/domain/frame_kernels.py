"""The compiled look at a frame of ticks: whether every row can be trusted, and which instruments they are of.

It is compiled, or loaded from disk, when this module is imported, and for the arrays that frames are read into only.
"""

from __future__ import annotations

import numpy as np
from numba import boolean, float64, int32, int64, njit, types

from feature_store.market.numba_cache import share_safely

share_safely()  # before anything is compiled

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # as `Universe.token_slots` has it
_WHOLES, _PRICES, _INDICES = (types.Array(kind, 1, "C", readonly=True) for kind in (int64, float64, int32))


@njit(
    types.Tuple((boolean, int32[::1]))(
        *(_WHOLES, _WHOLES, _PRICES, _WHOLES),
        *(_PRICES, _PRICES, _WHOLES, _WHOLES),
        *(_WHOLES, _INDICES, int64),
        *(int64, int64, float64, float64, int64),
    ),
    cache=True,
    nogil=True,
)
def look_at_ticks(  # type: ignore[no-untyped-def]  # noqa: PLR0917
    token, time_ns, price, volume, bid, ask, bids, asks, slot_token, slot_index, shift,
    open_ns, end_ns, lowest, highest, most_shares,
):  # fmt: skip
    """Say whether every row is good and times ascend in ``[open_ns, end_ns)``; give each row's instrument if so.

    The columns of the quote are empty where there is none. NaN is no last price, but a side without one.
    """
    index = np.empty(len(token), dtype=np.int32)
    has_quote, before, last_slot = len(bid) > 0, open_ns, len(slot_token) - 1
    for row in range(len(token)):
        now = time_ns[row]
        if now < before or now >= end_ns:
            return False, index
        before = now
        if not lowest <= price[row] <= highest or volume[row] < 0 or volume[row] > most_shares:
            return False, index
        if has_quote:
            if bid[row] < lowest or bid[row] > highest or ask[row] < lowest or ask[row] > highest:
                return False, index
            if bids[row] < 0 or bids[row] > most_shares or asks[row] < 0 or asks[row] > most_shares:
                return False, index
        slot = int64((np.uint64(token[row]) * _MULTIPLIER) >> np.uint64(shift))
        while slot_index[slot] >= 0 and slot_token[slot] != token[row]:
            slot = (slot + 1) & last_slot
        if slot_index[slot] < 0:
            return False, index
        index[row] = slot_index[slot]
    return True, index
