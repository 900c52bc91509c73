"""How bars are stamped whose times do not show it, told by ticks of the same days."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final, Literal

import numpy as np

from feature_store.bars.builder import bars_of_session
from feature_store.bars.comparison import stamp_shift
from feature_store.market.types import IST, IST_OFFSET_NS, Bars, Session, Ticks, Universe, ist_day
from feature_store.sources.mappings import ColumnMapping
from feature_store.sources.reading import SourceBars, SourceTicks, read_bars, read_ticks
from feature_store.sources.stamps import TimeReading, session_of_day

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
        ``of_bars``, or its file read again; with what the ticks show in ``recognised`` instead of the doubts.
    """
    if ticks_file is None or not of_bars.reading.undecided:
        return of_bars
    whole = of_bars if sessions is None else read_bars(bars_file, instruments=instruments, mapping=mapping)
    found = layout_by_ticks(whole, read_ticks(ticks_file, universe=whole.universe, mapping=mapping))
    if found is None:
        return of_bars
    layout, reason = found
    settled = (*(said for said in of_bars.recognised if said not in of_bars.reading.doubts), reason)
    if layout == of_bars.reading.layout:
        return replace(of_bars, recognised=settled)
    again = read_bars(bars_file, sessions, instruments=instruments, mapping=layout)
    return replace(again, recognised=settled)


def layout_by_ticks(of_bars: SourceBars, of_ticks: SourceTicks) -> tuple[ColumnMapping, str] | None:
    """Say how bars are to be read so that their closes are those of the ticks, and why; None if no way makes them so.

    Both sides are indexed by one universe. What was stated of the bars is not overruled.
    """
    layout, clock = of_bars.reading.layout, of_bars.clock
    shared = np.intersect1d(ist_day(of_bars.bars.start_ns), ist_day(of_ticks.ticks.event_time_ns))[-_SESSIONS:]
    compared = [session for day in shared.tolist() if (session := session_of_day(day)) is not None]
    if clock.kind != "time" or not compared:
        return None
    count = len(of_ticks.universe)
    built = [bars_of_session(_of(of_ticks.ticks, session), session, count, clock) for session in compared]
    theirs = of_bars.bars[np.isin(ist_day(of_bars.bars.start_ns), shared)]
    ways = _ways(of_bars.reading, clock.size)
    shift_ns = stamp_shift(Bars.concatenate(built), theirs, list(ways))
    if shift_ns is None:
        return None
    days = ", ".join(str(session.date) for session in compared)
    if shift_ns == 0:
        return layout, f"so read, closes of {days} are those of the ticks"
    layout = ways[shift_ns]
    how = ["of UTC"] if layout.zone != of_bars.reading.layout.zone else []
    how += [f"stamped at their {layout.stamp}"] if layout.stamp != of_bars.reading.layout.stamp else []
    return layout, f"bars are {' and '.join(how)}: only so their closes of {days} are those of the ticks"


def _ways(reading: TimeReading, size_ns: int) -> dict[int, ColumnMapping]:
    """Other ways to read bars of a length, by how much later than the ticks they would be stamped as they were read."""
    stated, layout = reading.stated, reading.layout
    ways = {0: layout}
    if stated.zone is None and reading.naive and layout.zone == IST.key:
        ways[-IST_OFFSET_NS] = replace(layout, zone="UTC")
    if stated.stamp is None:
        other: Literal["start", "end"] = "start" if layout.stamp == "end" else "end"
        later_ns = size_ns if other == "end" else -size_ns
        ways |= {shift_ns + later_ns: replace(way, stamp=other) for shift_ns, way in ways.items()}
    return {shift_ns: way for shift_ns, way in ways.items() if shift_ns != 0}


def _of(ticks: Ticks, session: Session) -> Ticks:
    begin, end = np.searchsorted(ticks.event_time_ns, [session.open_ns, session.close_ns])
    return ticks[int(begin) : int(end)]
