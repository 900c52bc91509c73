"""The merging of a task's inputs by event time: the same order whatever arrives first and however it was batched.

Each input partition has a queue of pending items and a watermark. Items are released in order of (event time, rank of
the input, partition, offset) once every gating partition's watermark is later than their event time. Frames are
released as slices, cut wherever another item belongs between their rows. It never times out: it stalls, and names
the input that holds it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np

from feature_store.market.types import SECOND_NS, Bars, Session, Ticks
from live_services.domain.events import DeadLetter
from live_services.domain.frames import Frame
from live_services.domain.log import BarSlice, EventRecord, LogPosition, Record, TickSlice

BEGINNING_NS: Final = -1
"""Watermark of a partition that has said nothing yet."""
FOREVER_NS: Final = 2**63 - 1


class LateRecord(Exception):
    """A record with an event time that its partition's watermark had already passed."""

    def __init__(self, time_ns: int, watermark_ns: int) -> None:
        super().__init__(f"event time {time_ns} is before the partition's watermark {watermark_ns}: it came too late")
        self.time_ns = time_ns
        self.watermark_ns = watermark_ns


@dataclass(frozen=True, slots=True)
class Source:
    """One partition of one input."""

    topic: str
    partition: int
    rank: int
    role: Literal["gating", "lagged"] = "gating"

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]"


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that could not be read, in its place in the order; its dead letter is due when it is released."""

    letter: DeadLetter


Single = EventRecord | Refused
Item = Record | Refused


@dataclass(frozen=True, slots=True)
class Release:
    """What became due: items with their event times, and the time before which nothing is left."""

    items: list[tuple[int, Item]]
    reached_ns: int


@dataclass(slots=True)
class _PendingFrame:
    offset: int
    frame: Frame
    row: int = 0

    @property
    def time_ns(self) -> int:
        return int(self.frame.times_ns[self.row])


@dataclass(slots=True)
class _Queue:
    source: Source
    watermark_ns: int = BEGINNING_NS
    floor_ns: int = BEGINNING_NS
    """Open of the session under way: what a lagged input still says of the time before concerns nobody."""
    singles: list[tuple[int, int, int, Single]] = field(default_factory=list)  # heap of (due, time, offset, item)
    frames: deque[_PendingFrame] = field(default_factory=deque)
    rows: int = 0
    next_offset: int | None = None
    sessions: list[tuple[Session, int]] = field(default_factory=list)
    newest_frame: tuple[int, int] = (BEGINNING_NS, -1)  # (open of its session, number)

    def push(self, time_ns: int, offset: int, item: Single) -> None:
        # A lagged record is due with its whole second, so that watermarks inside a second make no difference.
        due_ns = time_ns if self.source.role == "gating" else _second_from(time_ns)
        heapq.heappush(self.singles, (due_ns, time_ns, offset, item))

    @property
    def head_ns(self) -> int | None:
        """Event time of the earliest pending item."""
        heads = [self.singles[0][0]] if self.singles else []
        if self.frames:
            heads.append(self.frames[0].time_ns)
        return min(heads, default=None)

    @property
    def covered_ns(self) -> int:
        """Latest event time that may see this lagged input: every whole second strictly before it is complete."""
        return _second_from(max(self.watermark_ns, self.floor_ns))

    @property
    def first_pending_offset(self) -> int | None:
        offsets = [offset for _, _, offset, _ in self.singles]
        if self.frames:
            offsets.append(self.frames[0].offset)
        return min(offsets, default=self.next_offset)


class Merge:
    """The queues of one task's input partitions.

    Parameters
    ----------
    sources
        The task's gating and lagged partitions; at least one of them gating.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._queues = {(s.topic, s.partition): _Queue(s) for s in sources}
        self._gating = [q for q in self._queues.values() if q.source.role == "gating"]
        self._lagged = [q for q in self._queues.values() if q.source.role == "lagged"]
        if not self._gating:
            raise ValueError("a task needs at least one gating input: watermarks are its only clock")
        self._stalled_at_ns: int | None = None

    # --- what arrives -------------------------------------------------------------------------------------------

    def push_event(self, topic: str, partition: int, offset: int, record: EventRecord) -> None:
        """Queue one event.

        Raises
        ------
        LateRecord
            If its event time is before the partition's watermark; nothing is queued.
        """
        queue = self._arrived(topic, partition, offset)
        time_ns = record.event.event_time_ns
        if time_ns < queue.watermark_ns:
            raise LateRecord(time_ns, queue.watermark_ns)
        if time_ns >= queue.floor_ns:
            queue.push(time_ns, offset, record)

    def push_frame(self, topic: str, partition: int, offset: int, frame: Frame) -> bool:
        """Queue a frame and take over its watermark; False if it was here before (a feed that was restarted).

        Raises
        ------
        LateRecord
            If its first row is before the partition's watermark; nothing is queued.
        """
        queue = self._arrived(topic, partition, offset)
        identity = (frame.session.open_ns, frame.number)
        if identity <= queue.newest_frame and frame.watermark_ns <= queue.watermark_ns:
            return False
        if len(frame.times_ns):
            if (first := int(frame.times_ns[0])) < queue.watermark_ns:
                raise LateRecord(first, queue.watermark_ns)
            queue.frames.append(_PendingFrame(offset, frame))
            queue.rows += len(frame.times_ns)
        queue.newest_frame = max(queue.newest_frame, identity)
        self.push_watermark(topic, partition, offset, frame.watermark_ns, frame.session)
        return True

    def push_watermark(self, topic: str, partition: int, offset: int, watermark_ns: int, session: Session) -> None:
        """Raise a partition's watermark (one that is lower than before changes nothing)."""
        queue = self._arrived(topic, partition, offset)
        if not queue.sessions or session.open_ns > queue.sessions[-1][0].open_ns:
            queue.sessions.append((session, offset))
        queue.watermark_ns = max(queue.watermark_ns, watermark_ns)

    def push_refused(self, topic: str, partition: int, offset: int, letter: DeadLetter) -> None:
        """Queue the dead letter of a record that could not be read, at ``letter.event_time_ns``."""
        queue = self._arrived(topic, partition, offset)
        queue.push(letter.event_time_ns, offset, Refused(letter))

    def watermark_ns(self, topic: str, partition: int) -> int:
        """Watermark of one partition; ``BEGINNING_NS`` before it said anything."""
        return self._queues[topic, partition].watermark_ns

    # --- what is due --------------------------------------------------------------------------------------------

    @property
    def cut_ns(self) -> int:
        """Lowest watermark over the gating partitions."""
        return min(q.watermark_ns for q in self._gating)

    def release(self, limit_ns: int, *, lag_holds: bool = True) -> Release:
        """Take out what is due before ``limit_ns``, in order.

        A lagged record of time s is released just before the first gating item later than s, so what a handler has seen
        depends on records only. ``reached_ns`` is the smaller of ``limit_ns`` and the lowest gating watermark, or the
        event time of an item that a lagged input holds back.

        Parameters
        ----------
        limit_ns
            Exclusive.
        lag_holds
            False before the first session: no lagged input is waited for.
        """
        bound = min(limit_ns, self.cut_ns)
        end = bound
        if lag_holds and self._lagged:
            end = min(bound, min(q.covered_ns for q in self._lagged) + 1)
        items = list(self._released_before(end))
        held = [head for q in self._gating if (head := q.head_ns) is not None and head < bound]
        self._stalled_at_ns = min(held, default=None)
        return Release(items, bound if self._stalled_at_ns is None else self._stalled_at_ns)

    @property
    def is_stalled(self) -> bool:
        """Whether a lagged input holds back an item whose time has come."""
        return self._stalled_at_ns is not None

    def waiting_for(self) -> str:
        """Name the input that holds the merge: ``topic[partition]``, or nothing if no partition is behind another."""
        if self._stalled_at_ns is not None:
            return str(min(self._lagged, key=lambda q: q.watermark_ns).source)
        slowest = min(self._gating, key=lambda q: q.watermark_ns)
        pending = any(q.head_ns is not None for q in self._gating)
        behind = any(q.watermark_ns > slowest.watermark_ns for q in self._gating)
        return str(slowest.source) if pending or behind or slowest.watermark_ns == BEGINNING_NS else ""

    # --- sessions -----------------------------------------------------------------------------------------------

    def next_session(self, after: Session | None) -> Session | None:
        """Give the earliest session later than ``after`` whose open every gating partition has passed, if any."""
        opened = after.open_ns if after is not None else BEGINNING_NS
        known = [s for q in self._gating for s, _ in q.sessions if opened < s.open_ns <= self.cut_ns]
        return min(known, key=lambda s: s.open_ns, default=None)

    def open_session(self, session: Session) -> list[Refused]:
        """Count a lagged input as complete up to the session's open, and drop what it still holds from before.

        Gives the dropped items that nobody has heard of: dead letters that no later record has released.
        """
        unheard: list[Refused] = []
        for queue in self._lagged:
            queue.floor_ns = session.open_ns
            earlier = sorted((single for single in queue.singles if single[1] < session.open_ns), key=lambda s: s[:3])
            unheard += [item for *_, item in earlier if isinstance(item, Refused)]
            queue.singles = [single for single in queue.singles if single[1] >= session.open_ns]
            heapq.heapify(queue.singles)
        for queue in self._queues.values():
            queue.sessions = [entry for entry in queue.sessions if entry[0].open_ns >= session.open_ns]
        return unheard

    def session_offset(self, topic: str, partition: int, session: Session) -> int | None:
        """Offset of a partition's first record of a session; None if it has none yet."""
        sessions = self._queues[topic, partition].sessions
        return next((offset for known, offset in sessions if known.open_ns == session.open_ns), None)

    # --- positions ----------------------------------------------------------------------------------------------

    def first_pending_offset(self, topic: str, partition: int) -> int | None:
        """Offset of the first record that is not wholly released; None if nothing was ever pushed."""
        return self._queues[topic, partition].first_pending_offset

    def next_offset(self, topic: str, partition: int) -> int | None:
        """Offset after the last record pushed."""
        return self._queues[topic, partition].next_offset

    def backlog(self, topic: str, partition: int) -> tuple[int, int]:
        """Rows and records that are pending."""
        queue = self._queues[topic, partition]
        return queue.rows, len(queue.singles) + len(queue.frames)

    def may_pause(self, topic: str, partition: int) -> bool:
        """Whether the merge can go on without more of this partition, so that pausing it cannot stop everything."""
        queue = self._queues[topic, partition]
        if queue.source.role == "lagged":
            return False
        return self._stalled_at_ns is not None or queue.watermark_ns > self.cut_ns

    # --- inside -------------------------------------------------------------------------------------------------

    def _arrived(self, topic: str, partition: int, offset: int) -> _Queue:
        queue = self._queues[topic, partition]
        queue.next_offset = offset + 1
        return queue

    def _released_before(self, end: int) -> Iterator[tuple[int, Item]]:
        while True:
            singles = [(q.singles[0][0], q.source.rank, q.source.partition, q) for q in self._gating if q.singles]
            single = min(singles, key=lambda s: s[:3], default=None)
            frames = [(q.frames[0].time_ns, q.source.rank) for q in self._gating if q.frames]
            frame = min(frames, default=None)
            if single is not None and (frame is None or single[:2] <= frame):
                if (time_ns := single[0]) >= end:
                    return
                yield from self._lagged_before(time_ns)
                yield time_ns, heapq.heappop(single[3].singles)[3]
            elif frame is not None and frame[0] < end:
                time_ns, rank = frame
                yield from self._lagged_before(time_ns)
                others = [f for f in frames if f[1] != rank] + ([single[:2]] if single is not None else [])
                stops = [t + 1 if rank < other_rank else t for t, other_rank in others]
                stops += [q.singles[0][0] + 1 for q in self._lagged if q.singles]
                yield from self._rows(rank, min([end, *stops]))
            else:
                return

    def _lagged_before(self, time_ns: int) -> Iterator[tuple[int, Item]]:
        due = []
        for queue in self._lagged:
            while queue.singles and queue.singles[0][0] < time_ns:
                due_ns, at, offset, item = heapq.heappop(queue.singles)
                due.append((due_ns, at, queue.source.rank, queue.source.partition, offset, item))
        due.sort(key=lambda d: d[:5])
        yield from ((d[1], d[5]) for d in due)

    def _rows(self, rank: int, stop: int) -> Iterator[tuple[int, Item]]:
        """Slices of one input's frames before ``stop``; rows of several partitions are woven into one slice."""
        taken = [
            [(part, LogPosition(q.source.topic, q.source.partition, offset)) for offset, part in _take(q, stop)]
            for q in sorted(self._gating, key=lambda q: q.source.partition)
            if q.source.rank == rank and q.frames and q.frames[0].time_ns < stop
        ]
        if len(taken) == 1:
            yield from (_slice(part, position) for part, position in taken[0])
        else:
            yield _weave([one for of_partition in taken for one in of_partition])


def _second_from(time_ns: int) -> int:
    """Whole second at or after a time."""
    return -(-time_ns // SECOND_NS) * SECOND_NS


def _take(queue: _Queue, stop: int) -> Iterable[tuple[int, Ticks | Bars]]:
    parts: list[tuple[int, Ticks | Bars]] = []
    while queue.frames and queue.frames[0].time_ns < stop:
        pending = queue.frames[0]
        last = int(np.searchsorted(pending.frame.times_ns, stop, side="left"))
        parts.append((pending.offset, pending.frame.table[pending.row : last]))
        queue.rows -= last - pending.row
        pending.row = last
        if last == len(pending.frame.times_ns):
            queue.frames.popleft()
    return parts


def _slice(part: Ticks | Bars, position: LogPosition) -> tuple[int, Item]:
    if isinstance(part, Ticks):
        return int(part.event_time_ns[-1]), TickSlice(part, position)
    return int(part.end_ns[-1]), BarSlice(part, position)


def _weave(parts: list[tuple[Ticks | Bars, LogPosition]]) -> tuple[int, Item]:
    """Join parts that are listed by partition and offset; ties in time keep that order."""
    whose = np.repeat(np.arange(len(parts)), [len(part) for part, _ in parts])
    first = parts[0][0]
    if isinstance(first, Ticks):
        tables = [part for part, _ in parts if isinstance(part, Ticks)]
        if any(table.has_depth for table in tables):
            tables = [table.with_depth() for table in tables]
        ticks = Ticks.concatenate(tables)
        order = np.argsort(ticks.event_time_ns, kind="stable")
        return _slice(ticks[order], parts[int(whose[order[-1]])][1])
    bars = Bars.concatenate([part for part, _ in parts if isinstance(part, Bars)])
    order = np.argsort(bars.end_ns, kind="stable")
    return _slice(bars[order], parts[int(whose[order[-1]])][1])
