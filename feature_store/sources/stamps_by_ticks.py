"""How bars are stamped whose times do not show it, told by ticks of the same days."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np

from feature_store.bars.builder import bars_of_session
from feature_store.bars.comparison import stamp_shift
from feature_store.market.types import IST, IST_OFFSET_NS, SECOND_NS, Bars, Session, Ticks, Universe, ist_day
from feature_store.sources.mappings import ColumnMapping
from feature_store.sources.reading import SourceBars, SourceTicks, read_bars, read_ticks
from feature_store.sources.stamps import session_of_day

_SESSIONS: Final = 3  # whose bars are compared


def settled_by_ticks(
    of_bars: SourceBars,
    bars_file: Path,
    ticks_file: Path | None,
    sessions: Sequence[Session | dt.date] | None = None,
    *,
    instruments: Universe | None = None,
    mapping: ColumnMapping | None = None,
) -> SourceBars:
    """Read bars again if their times leave open how they are stamped and ticks of the same days show another way.

    Parameters
    ----------
    of_bars
        The file of bars as it was read.
    bars_file, ticks_file
        Both are read whole to be compared, so that no choice of sessions changes how bars are read.
    sessions
        Those that were read; default: all.
    instruments
        What a table states of instruments.
    mapping
        What was stated of the files.

    Returns
    -------
    SourceBars
        ``of_bars``, or its file read as END-stamped, as UTC, or both, with the reason in ``recognised``.
    """
    if ticks_file is None or not of_bars.reading.undecided:
        return of_bars
    whole = of_bars if sessions is None else read_bars(bars_file, instruments=instruments, mapping=mapping)
    found = layout_by_ticks(whole, read_ticks(ticks_file, universe=whole.universe, mapping=mapping))
    if found is None:
        return of_bars
    layout, reason = found
    again = read_bars(bars_file, sessions, instruments=instruments, mapping=layout)
    settled = tuple(said for said in of_bars.recognised if said not in of_bars.reading.doubts)
    return replace(again, recognised=(*settled, reason))


def layout_by_ticks(of_bars: SourceBars, of_ticks: SourceTicks) -> tuple[ColumnMapping, str] | None:
    """Say how to read bars again whose closes are those of the ticks only after a shift, and why; None if none are.

    Both sides are indexed by one universe. What was stated of the bars is not overruled.
    """
    stated, layout, clock = of_bars.reading.stated, of_bars.reading.layout, of_bars.clock
    shared = np.intersect1d(ist_day(of_bars.bars.start_ns), ist_day(of_ticks.ticks.event_time_ns))[-_SESSIONS:]
    compared = [session for day in shared.tolist() if (session := session_of_day(day)) is not None]
    if clock.kind != "time" or not compared:
        return None
    count, size = len(of_ticks.universe), clock.size
    built = [bars_of_session(_of(of_ticks.ticks, session), session, count, clock) for session in compared]
    theirs = of_bars.bars[np.isin(ist_day(of_bars.bars.start_ns), shared)]
    ends = [size] if stated.stamp is None and layout.stamp != "end" else []
    zones = [-IST_OFFSET_NS] if stated.zone is None and layout.zone == IST.key else []
    tried = [*ends, *zones, *(zone + end for zone in zones for end in ends)]
    shift_ns = stamp_shift(Bars.concatenate(built), theirs, tried)
    if shift_ns == 0:
        return None
    how = []
    if shift_ns < 0:
        layout, how = replace(layout, zone="UTC"), ["of UTC"]
    if shift_ns in (size, size - IST_OFFSET_NS):
        layout, how = replace(layout, stamp="end"), [*how, "stamped at their end"]
    days = ", ".join(str(session.date) for session in compared)
    off = f"{shift_ns / SECOND_NS:+g} s"
    return layout, f"bars are {' and '.join(how)}: of {days} their closes are those of the ticks only {off} off"


def _of(ticks: Ticks, session: Session) -> Ticks:
    begin, end = np.searchsorted(ticks.event_time_ns, [session.open_ns, session.close_ns])
    return ticks[int(begin) : int(end)]
