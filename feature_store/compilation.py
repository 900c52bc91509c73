"""Compiles what the rooms of this package run over ticks and bars, before anything waits for it."""

from __future__ import annotations

import datetime as dt

import numpy as np

from feature_store.bars.builder import bars_of_session
from feature_store.features.engine import feature_table
from feature_store.features.schema import feature_schema
from feature_store.labels.forward_return import forward_return
from feature_store.market.clocks import BarClock
from feature_store.market.types import MINUTE_NS, Session, Ticks, Universe


def compile_kernels() -> None:
    """Compile every kernel, or load it from numba's cache, so that the first real batch does not wait."""
    session = Session.regular(dt.date(2026, 1, 5))
    ticks = Ticks(
        instrument=np.zeros(2, dtype=np.int32),
        event_time_ns=np.array([session.open_ns, session.open_ns + MINUTE_NS], dtype=np.int64),
        last_price=np.ones(2),
        day_volume=np.arange(2, dtype=np.int64),
    )
    universe = Universe.from_symbols(["ANY"])
    bars = bars_of_session(ticks, session, len(universe), BarClock.minutes(1))
    feature_table(bars, feature_schema(["momentum", "momentum@5m"], 1), universe)
    forward_return(bars, horizon_bars=1, n_instruments=len(universe))
