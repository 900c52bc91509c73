"""The merging of a task's inputs by event time: the same order whatever arrives first and however it was batched.

Each input partition has a queue of pending items and a watermark. Items are released in order of (event time, rank of
the input, partition, offset) once every gating partition's watermark is later than their event time. Frames are
released as slices, cut wherever another item belongs between their rows. It never times out: it stalls, and names
the input that holds it.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import Any, Final, NamedTuple

import numpy as np

from feature_store.market.types import Bars, Session, Ticks
from live_services.domain.clock import read_session
from live_services.domain.events import DeadLetter
from live_services.domain.frames import Frame
from live_services.domain.log import EventRecord, LogPosition, MarketSlice, Record
from live_services.domain.sequence import Numbering, Stamp
from live_services.domain.snapshot import CorruptSnapshot, Tree

BEGINNING_NS: Final = -1
"""Watermark of a partition that has said nothing yet."""


class LateRecord(Exception):
    """A record with an event time that its partition's watermark had already passed."""

    def __init__(self, time_ns: int, watermark_ns: int) -> None:
        super().__init__(f"event time {time_ns} is before the partition's watermark {watermark_ns}: it came too late")
        self.time_ns = time_ns
        self.watermark_ns = watermark_ns


class LateRows(LateRecord):
    """Rows of a frame that their partition's watermark had already passed; the others were used."""

    def __init__(self, rows: int, of: int, time_ns: int, watermark_ns: int) -> None:
        super().__init__(time_ns, watermark_ns)
        self.args = (f"{rows} of {of} rows were left out, the first of them: {self}",)


class Foreign(Exception):
    """A record that does not come from who writes its topic, or not as the next of its partition."""


class OutsideSession(Exception):
    """A record with an event time in no session that its partition has told."""


@dataclass(frozen=True, slots=True)
class Source:
    """One partition of one input."""

    topic: str
    partition: int
    rank: int

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


class _Before(NamedTuple):
    """What a partition had said before a record that is pending: with it the record is read again as it was."""

    watermark_ns: int = BEGINNING_NS
    newest_frame: tuple[int, int] = (BEGINNING_NS, -1)
    """Open of its session, and its number."""
    numbering: Numbering = Numbering()


@dataclass(slots=True)
class _PendingFrame:
    offset: int
    frame: Frame
    before: _Before
    row: int = 0

    @property
    def time_ns(self) -> int:
        return int(self.frame.times_ns[self.row])


@dataclass(slots=True)
class _Queue:
    source: Source
    watermark_ns: int = BEGINNING_NS
    singles: list[tuple[int, int, int, Single, _Before]] = field(default_factory=list)
    """Heap by time and offset; of one record in the order in which they came."""
    pushed: int = 0
    frames: deque[_PendingFrame] = field(default_factory=deque)
    rows: int = 0
    next_offset: int | None = None
    sessions: list[tuple[Session, int]] = field(default_factory=list)
    newest_frame: tuple[int, int] = (BEGINNING_NS, -1)  # (open of its session, number)
    numbering: Numbering = field(default_factory=Numbering)
    before: _Before = field(default_factory=_Before)  # the record that came last, which may leave several items

    @property
    def head_ns(self) -> int | None:
        """Event time of the earliest pending item."""
        heads = [self.singles[0][0]] if self.singles else []
        if self.frames:
            heads.append(self.frames[0].time_ns)
        return min(heads, default=None)

    @property
    def said(self) -> _Before:
        """What the partition has said so far."""
        return _Before(self.watermark_ns, self.newest_frame, self.numbering)

    @property
    def first_pending_offset(self) -> int | None:
        offsets = [offset for _, offset, *_ in self.singles]
        if self.frames:
            offsets.append(self.frames[0].offset)
        return min(offsets, default=self.next_offset)


class Merge:
    """The queues of one task's input partitions.

    Parameters
    ----------
    sources
        The task's gating partitions; at least one, because watermarks are its only clock.
    """

    def __init__(self, sources: Sequence[Source]) -> None:
        self._queues = {(s.topic, s.partition): _Queue(s) for s in sources}
        if not self._queues:
            raise ValueError("a task needs at least one gating input: watermarks are its only clock")
        self._handled_ns = BEGINNING_NS
        """Before it everything was handled by the process whose snapshot this one goes on from."""

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
        self._push_single(queue, time_ns, offset, record)

    def admit(
        self,
        topic: str,
        partition: int,
        offset: int,
        *,
        stamp: Stamp | None,
        session: Session,
        source: str | None,
        says_ns: int = -1,
    ) -> None:
        """Take the place of a record from outside in its partition's numbering, before it is pushed.

        Parameters
        ----------
        source
            Who writes it; empty if nobody stamps its records, None if that is not known.
        says_ns
            The watermark that it says; -1 of an event.

        Raises
        ------
        Foreign
            If it is not the next record of its writer; it moves no clock.
        """
        queue = self._arrived(topic, partition, offset)
        queue.numbering, refusal = queue.numbering.after(stamp, session, source, queue.watermark_ns, says_ns)
        if refusal:
            raise Foreign(refusal)

    def push_frame(self, topic: str, partition: int, offset: int, frame: Frame) -> int | None:
        """Queue a frame and take over its watermark; None if it was here before (a feed that was restarted).

        Rows that the partition's watermark had already passed are lost, and no others; what is given back counts them.
        """
        queue = self._arrived(topic, partition, offset)
        identity = (frame.session.open_ns, frame.number)
        if identity <= queue.newest_frame and frame.watermark_ns <= queue.watermark_ns:
            return None
        late = int(np.searchsorted(frame.times_ns, queue.watermark_ns, side="left"))
        if late:
            frame = replace(frame, table=frame.table[late:])
        if len(frame.times_ns):
            row = int(np.searchsorted(frame.times_ns, self._handled_ns, side="left"))
            if row < len(frame.times_ns):
                queue.frames.append(_PendingFrame(offset, frame, queue.before, row))
                queue.rows += len(frame.times_ns) - row
        queue.newest_frame = max(queue.newest_frame, identity)
        self.push_watermark(topic, partition, offset, frame.watermark_ns, frame.session)
        return late

    def push_watermark(self, topic: str, partition: int, offset: int, watermark_ns: int, session: Session) -> None:
        """Raise a partition's watermark (one that is lower than before changes nothing)."""
        queue = self._arrived(topic, partition, offset)
        if not queue.sessions or session.open_ns > queue.sessions[-1][0].open_ns:
            queue.sessions.append((session, offset))
        queue.watermark_ns = max(queue.watermark_ns, watermark_ns)

    def push_refused(self, topic: str, partition: int, offset: int, letter: DeadLetter) -> None:
        """Queue the dead letter of a record that could not be read, at ``letter.event_time_ns``."""
        queue = self._arrived(topic, partition, offset)
        self._push_single(queue, letter.event_time_ns, offset, Refused(letter))

    def watermark_ns(self, topic: str, partition: int) -> int:
        """Watermark of one partition; ``BEGINNING_NS`` before it said anything."""
        return self._queues[topic, partition].watermark_ns

    # --- what is due --------------------------------------------------------------------------------------------

    @property
    def cut_ns(self) -> int:
        """Lowest watermark over the gating partitions."""
        return min(q.watermark_ns for q in self._queues.values())

    def release(self, limit_ns: int) -> Release:
        """Take out what is due before ``limit_ns`` (exclusive), in order.

        ``reached_ns`` is the smaller of ``limit_ns`` and the lowest watermark.
        """
        bound = min(limit_ns, self.cut_ns)
        return Release(list(self._released_before(bound)), bound)

    @property
    def head_ns(self) -> int | None:
        """Event time of the earliest pending item of all partitions."""
        return min((head for q in self._queues.values() if (head := q.head_ns) is not None), default=None)

    @property
    def is_waiting(self) -> bool:
        """Whether something is pending that a watermark of some partition holds back."""
        return self.head_ns is not None

    def waiting_for(self) -> str:
        """Name the input that holds the merge: ``topic[partition]``, or nothing if no partition is behind another."""
        slowest = min(self._queues.values(), key=lambda q: q.watermark_ns)
        behind = any(q.watermark_ns > slowest.watermark_ns for q in self._queues.values())
        return str(slowest.source) if self.is_waiting or behind or slowest.watermark_ns == BEGINNING_NS else ""

    # --- sessions -----------------------------------------------------------------------------------------------

    def next_session(self, after: Session | None, begin_ns: int = BEGINNING_NS) -> Session | None:
        """Give the earliest session later than ``after``, and not before ``begin_ns``, whose open every partition has
        passed, if any.
        """
        opened = max(after.open_ns if after is not None else BEGINNING_NS, begin_ns - 1)
        known = [s for q in self._queues.values() for s, _ in q.sessions if opened < s.open_ns <= self.cut_ns]
        return min(known, key=lambda s: s.open_ns, default=None)

    def open_session(self, session: Session) -> None:
        """Forget the sessions before one."""
        for queue in self._queues.values():
            queue.sessions = [entry for entry in queue.sessions if entry[0].open_ns >= session.open_ns]

    def session_offset(self, topic: str, partition: int, session: Session) -> int | None:
        """Offset of a partition's first record of a session; None if it has none yet."""
        sessions = self._queues[topic, partition].sessions
        return next((offset for known, offset in sessions if known.open_ns == session.open_ns), None)

    def newest_session(self, topic: str, partition: int) -> Session | None:
        """Give the session that a partition told last; None if it told none yet."""
        sessions = self._queues[topic, partition].sessions
        return sessions[-1][0] if sessions else None

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

    @property
    def events_pending(self) -> int:
        """How many records that are no frames are pending."""
        return sum(len(queue.singles) for queue in self._queues.values())

    def may_pause(self, topic: str, partition: int) -> bool:
        """Whether the merge can go on without more of this partition, so that pausing it cannot stop everything."""
        return self._queues[topic, partition].watermark_ns > self.cut_ns

    # --- snapshots ----------------------------------------------------------------------------------------------

    def snapshot(self) -> Tree:
        """Write down of each partition from where it is to be read again, and what it had said before that."""
        return [_written(queue) for queue in self._queues.values()]

    def restore(self, kept: Any, handled_ns: int) -> dict[tuple[str, int], int]:
        """Go on from `snapshot`; give the offset from which each partition is to be read again.

        Parameters
        ----------
        handled_ns
            Everything before it was handled: what is read again of it is passed over.

        Raises
        ------
        CorruptSnapshot
            If it is not of these partitions.
        """
        self._handled_ns = handled_ns
        try:
            read = {(one["topic"], one["partition"]): one for one in kept}
            if read.keys() != self._queues.keys():
                raise CorruptSnapshot(f"it is of {sorted(read)}, not of {sorted(self._queues)}")
            for key, queue in self._queues.items():
                _read_again(queue, read[key])
        except (TypeError, KeyError, ValueError) as damage:
            raise CorruptSnapshot(f"its inputs cannot be read: {damage!r}") from damage
        return {key: queue.next_offset for key, queue in self._queues.items() if queue.next_offset is not None}

    # --- inside -------------------------------------------------------------------------------------------------

    def _arrived(self, topic: str, partition: int, offset: int) -> _Queue:
        queue = self._queues[topic, partition]
        if queue.next_offset != offset + 1:
            queue.next_offset, queue.before = offset + 1, queue.said
        return queue

    def _push_single(self, queue: _Queue, time_ns: int, offset: int, item: Single) -> None:
        if time_ns >= self._handled_ns:
            queue.pushed += 1
            heapq.heappush(queue.singles, (time_ns, offset, queue.pushed, item, queue.before))

    def _released_before(self, end: int) -> Iterator[tuple[int, Item]]:
        queues = self._queues.values()
        while True:
            singles = [(q.singles[0][0], q.source.rank, q.source.partition, q) for q in queues if q.singles]
            single = min(singles, key=lambda s: s[:3], default=None)
            frames = [(q.frames[0].time_ns, q.source.rank) for q in queues if q.frames]
            frame = min(frames, default=None)
            if single is not None and (frame is None or single[:2] <= frame):
                if (time_ns := single[0]) >= end:
                    return
                yield time_ns, heapq.heappop(single[3].singles)[3]
            elif frame is not None and frame[0] < end:
                rank = frame[1]
                others = [f for f in frames if f[1] != rank] + ([single[:2]] if single is not None else [])
                yield from self._rows(rank, min([end, *(t + 1 if rank < other else t for t, other in others)]))
            else:
                return

    def _rows(self, rank: int, stop: int) -> Iterator[tuple[int, Item]]:
        """Slices of one input's frames before ``stop``; rows of several partitions are woven into one slice."""
        taken = [
            [(part, LogPosition(q.source.topic, q.source.partition, offset)) for offset, part in _take(q, stop)]
            for q in sorted(self._queues.values(), key=lambda q: q.source.partition)
            if q.source.rank == rank and q.frames and q.frames[0].time_ns < stop
        ]
        if len(taken) == 1:
            yield from (_slice(part, position) for part, position in taken[0])
        else:
            yield _weave([one for of_partition in taken for one in of_partition])


def _written(queue: _Queue) -> Tree:
    pending = [(offset, before) for _, offset, *_, before in queue.singles]
    pending += [(one.offset, one.before) for one in queue.frames]
    first, before = min(pending, default=(queue.next_offset, queue.said), key=itemgetter(0))
    return {
        "topic": queue.source.topic,
        "partition": queue.source.partition,
        "offset": first,
        "watermark_ns": before.watermark_ns,
        "newest_frame": before.newest_frame,
        "numbering": before.numbering,
        "sessions": [
            (session.date.isoformat(), session.open_ns, session.close_ns, offset)
            for session, offset in queue.sessions
            if first is None or offset < first
        ],
    }


def _read_again(queue: _Queue, kept: Mapping[str, Any]) -> None:
    queue.next_offset = kept["offset"]
    queue.watermark_ns = kept["watermark_ns"]
    open_ns, number = kept["newest_frame"]
    queue.newest_frame = open_ns, number
    queue.numbering = Numbering(*kept["numbering"])
    queue.sessions = [(read_session(*session), offset) for *session, offset in kept["sessions"]]


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
    rows = MarketSlice(part, position)
    return int(rows.times_ns[-1]), rows


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
