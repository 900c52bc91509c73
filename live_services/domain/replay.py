"""How a recorded session is cut into frames: by event time, on an absolute grid, the same at every replay."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import MINUTE_NS, SECOND_NS, Bars, Session, Ticks, Universe
from live_services.domain.clock import session_end_ns
from live_services.domain.log import event_times
from live_services.domain.partitions import part_of

_MILLISECOND_NS: Final = 1_000_000
_IDLE_WATERMARK_NS: Final = 100 * _MILLISECOND_NS  # an idle market still has a clock, but not one tick of it per frame
FRAME_ROWS: Final = 3_000
"""Of a frame that nobody waits for: with fewer rows, what a record costs is most of the work."""


@dataclass(frozen=True, slots=True)
class Cut:
    """Everything between the cut before and ``watermark_ns``."""

    watermark_ns: int
    number: int
    """Number of the grid cell since the session's open; the same at every replay."""
    parts: tuple[Ticks | Bars, ...]
    """By market partition, the market's index in each of them; an empty part goes out as a watermark."""
    rows: int
    """Rows of the market in the cut, each counted once."""


def within_session(market: Ticks | Bars, session: Session) -> Ticks | Bars:
    """Leave out what is outside a session: ticks before its open or at or after its close, bars that overlap either.

    Ticks are in order of event time; what is left of them is no copy.
    """
    if isinstance(market, Ticks):
        first, end = np.searchsorted(market.event_time_ns, [session.open_ns, session.close_ns]).tolist()
        return market[first:end]
    return market[(market.start_ns >= session.open_ns) & (market.end_ns <= session.close_ns)]


def cuts_of_session(
    market: Ticks | Bars,
    session: Session,
    universe: Universe,
    partitions: int,
    *,
    frame_ms: int,
    paced: bool,
    frame_rows: int = FRAME_ROWS,
) -> Iterator[Cut]:
    """Cut a session.

    Parameters
    ----------
    market : Ticks or Bars
        In order of event time; what is outside the session is left out.
    frame_ms : int
        Event time in a frame of ticks; cuts are at multiples of it. Bars are cut after each end.
    paced : bool
        True: also cut the idle stretches, every 100 ms of ticks (1 s of bars) at most. False: at the first grid point
        at or after each minute, and in minutes with many ticks at points between which are equally many.
    frame_rows : int
        How many ticks a frame of a partition is to have when nothing is paced.

    Yields
    ------
    Cut
        First an empty one at the session's open, last one at its end, one second after the close.
    """
    market = within_session(market, session)
    times = event_times(market)
    if isinstance(market, Ticks):
        cell_ns = frame_ms * _MILLISECOND_NS
        of_ticks = _paced_tick_cuts if paced else partial(_unpaced_tick_cuts, rows=frame_rows * partitions)
        watermarks = of_ticks(times, session, cell_ns)
    else:
        watermarks, cell_ns = _bar_cuts(times, session, paced=paced), SECOND_NS
    done = 0
    nothing = tuple(market[0:0] for _ in range(partitions))
    yield Cut(session.open_ns, 0, nothing, 0)
    for watermark_ns, end in zip(watermarks.tolist(), np.searchsorted(times, watermarks).tolist(), strict=True):
        number = (watermark_ns - 1) // cell_ns - session.open_ns // cell_ns
        if end == done:
            yield Cut(watermark_ns, number, nothing, 0)
            continue
        rows = market[done:end]
        parts = tuple(part_of(rows, universe, partition, partitions) for partition in range(partitions))
        yield Cut(watermark_ns, number, parts, end - done)
        done = end


def _paced_tick_cuts(times: NDArray[np.int64], session: Session, frame_ns: int) -> NDArray[np.int64]:
    step_ns = max(frame_ns, _IDLE_WATERMARK_NS)
    idle = np.arange(session.open_ns + step_ns, session.close_ns, step_ns, dtype=np.int64)
    return _tick_cuts([_behind(times, frame_ns), _at_or_after(idle, frame_ns)], session)


def _unpaced_tick_cuts(times: NDArray[np.int64], session: Session, frame_ns: int, rows: int) -> NDArray[np.int64]:
    minutes = np.arange(session.open_ns + MINUTE_NS, session.close_ns, MINUTE_NS, dtype=np.int64)
    bounds = np.concatenate([[0], np.searchsorted(times, minutes), [len(times)]])
    inside = [
        np.linspace(begin, end, parts + 1, dtype=np.int64)[1:-1]
        for begin, end in pairwise(bounds.tolist())
        if (parts := round((end - begin) / rows)) > 1
    ]
    return _tick_cuts([_at_or_after(minutes, frame_ns), *(_behind(times[at], frame_ns) for at in inside)], session)


def _behind(times: NDArray[np.int64], frame_ns: int) -> NDArray[np.int64]:
    return (times // frame_ns + 1) * frame_ns


def _at_or_after(times: NDArray[np.int64], frame_ns: int) -> NDArray[np.int64]:
    return -(-times // frame_ns) * frame_ns


def _tick_cuts(cuts: list[NDArray[np.int64]], session: Session) -> NDArray[np.int64]:
    return _ended(np.minimum(np.concatenate(cuts), session.close_ns), session)


def _bar_cuts(times: NDArray[np.int64], session: Session, *, paced: bool) -> NDArray[np.int64]:
    idle = np.arange(session.open_ns + SECOND_NS, session.close_ns if paced else 0, SECOND_NS, dtype=np.int64)
    return _ended(np.concatenate([times + 1, idle]), session)


def _ended(cuts: NDArray[np.int64], session: Session) -> NDArray[np.int64]:
    return np.unique(np.append(cuts, session_end_ns(session)))
