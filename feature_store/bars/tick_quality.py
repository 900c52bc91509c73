"""What ticks say of themselves: what the bar builder leaves out or mends, and whether their volume is the day's."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from feature_store.bars.builder import BarBuilder
from feature_store.market.clocks import BarClock
from feature_store.market.types import Session, Ticks, Universe

NO_DAY_VOLUME: Final = 0.2
"""Share of an instrument's ticks with a falling day volume from which on it is no day volume.

A day volume falls where a source repeats an old value or counts anew: in few ticks. The quantity of the last trade, the
usual mistake, is below an earlier one in nearly all of them.
"""
_FEW_TICKS: Final = 20  # say nothing of an instrument


def builder_counts(ticks: Ticks, session: Session, n_instruments: int) -> dict[str, int]:
    """Count what `BarBuilder` meets in a session's ticks.

    Returns
    -------
    dict
        ``ticks``; of them ``late`` (out of order), ``outside_session`` and ``repeated`` ones; ``volume_decreases`` and
        ``volume_resets``, as the builder counts them.
    """
    builder = BarBuilder(n_instruments, BarClock.minutes(1))
    builder.step(ticks, session)
    return {
        "ticks": len(ticks),
        "late": builder.late_ticks,
        "outside_session": builder.ticks_outside_session,
        "repeated": builder.repeated_ticks,
        "volume_decreases": builder.volume_decreases,
        "volume_resets": builder.volume_resets,
    }


def falling_volumes(ticks: Ticks, universe: Universe) -> pd.DataFrame:
    """Count for each instrument in how many ticks of a session its day volume is below an earlier one.

    Parameters
    ----------
    ticks : Ticks
        Of one session; in any order.
    universe : Universe
        What their indices refer to.

    Returns
    -------
    DataFrame
        One row for each instrument with such a tick, most of them first: ``symbol``, ``ticks``, ``falls``, ``share``,
        and ``no_day_volume``: whether that share is above `NO_DAY_VOLUME`, of enough ticks to say so.
    """
    order = np.argsort(ticks.event_time_ns, kind="stable")
    volumes = pd.DataFrame({"instrument": ticks.instrument[order], "volume": ticks.day_volume[order]})
    falls = volumes["volume"] < volumes.groupby("instrument")["volume"].cummax()
    counts = falls.groupby(volumes["instrument"]).agg(ticks="size", falls="sum").query("falls > 0").reset_index()
    counts["share"] = counts["falls"] / counts["ticks"]
    counts["no_day_volume"] = (counts["share"] > NO_DAY_VOLUME) & (counts["ticks"] >= _FEW_TICKS)
    symbols = [universe.instruments[i].symbol for i in counts["instrument"]]
    counts.insert(0, "symbol", pd.Series(symbols, dtype="str"))
    found: pd.DataFrame = counts.drop(columns="instrument").sort_values("share", ascending=False, ignore_index=True)
    return found
