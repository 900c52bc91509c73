"""What two runs of the same sessions say that differs: by topic lost, twice, different, new and out of order.

Events are compared by id and content, every field but the basis, which names the offsets that a decision stood on.
The market is compared by its rows: how it was cut into frames says nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import Ticks, Universe
from live_services.domain.events import PnlSnapshot, Watermark, decode_event
from live_services.domain.frames import FRAME_TOPICS, Frame, Headers, decode_frame, universe_digest_of

UniverseOf = Callable[[str], Universe | None]
"""What the digest on a record of the market means."""


@dataclass(frozen=True, slots=True)
class Fact:
    """One event: its id and everything that it says but the basis, as JSON."""

    event_id: str
    content: str


@dataclass(slots=True)
class Run:
    """What one run said: events by topic, and in a topic by who said them, in order; and the market's rows."""

    facts: dict[str, dict[str, list[Fact]]] = field(default_factory=dict)
    rows: dict[str, dict[int, list[NDArray[np.int64]]]] = field(default_factory=dict)
    """By topic and partition; each of shape ``(rows, columns)``, prices by their bits."""
    books: PnlSnapshot | None = None
    """The last snapshot of the account."""

    def add(self, topic: str, partition: int, value: bytes, headers: Headers) -> None:
        """Take an event as it stands on a topic; a watermark is none."""
        event = decode_event(value, headers)
        if isinstance(event, Watermark):
            return
        content = event.model_dump_json(exclude={"basis"})
        # where several tasks speak on one partition, whose word comes first is chance
        speaker = str(json.loads(content).get("task", partition))
        self.facts.setdefault(topic, {}).setdefault(speaker, []).append(Fact(event.event_id, content))
        if isinstance(event, PnlSnapshot):
            self.books = event

    def add_market(self, topic: str, partition: int, value: bytes, headers: Headers, universe_of: UniverseOf) -> None:
        """Take a record of the market: of a frame its rows."""
        if dict(headers)["event_type"].decode() not in FRAME_TOPICS:
            self.add(topic, partition, value, headers)
            return
        frame = decode_frame(value, headers, _known(universe_of, headers))
        self.rows.setdefault(topic, {}).setdefault(partition, []).append(_rows(frame))


def _known(universe_of: UniverseOf, headers: Headers) -> Universe:
    universe = universe_of(universe_digest_of(headers))
    if universe is None:
        raise ValueError(f"a frame of a session that was never told (universe {universe_digest_of(headers)!r})")
    return universe


def _rows(frame: Frame) -> NDArray[np.int64]:
    table = frame.table
    if isinstance(table, Ticks):
        return _matrix(table.instrument, table.event_time_ns, table.day_volume, _bits(table.last_price))
    prices = (table.open, table.high, table.low, table.close)
    return _matrix(table.instrument, table.end_ns, table.volume, *map(_bits, prices))


def _matrix(*columns: NDArray[Any]) -> NDArray[np.int64]:
    return np.stack(columns, axis=1).astype(np.int64)


def _bits(price: NDArray[np.float64]) -> NDArray[np.int64]:
    return np.ascontiguousarray(price).view(np.int64)


@dataclass(frozen=True, slots=True)
class TopicDifferences:
    """How a topic of a disturbed run differs from that of the undisturbed one; counts of events, or of market rows."""

    topic: str
    records: int
    """In the undisturbed run."""
    lost: int = 0
    twice: int = 0
    different: int = 0
    """The id is there, with another content; a row of the market has no id, and is lost and new."""
    new: int = 0
    """What the undisturbed run does not have."""
    out_of_order: int = 0
    """Places at which a speaker says another record than it did undisturbed, where all say the same ones."""

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not (self.lost or self.twice or self.different or self.new or self.out_of_order)


def compare(undisturbed: Run, disturbed: Run) -> tuple[TopicDifferences, ...]:
    """Compare two runs, topic by topic; a topic with rows and events of the market counts both."""
    events = undisturbed.facts.keys() | disturbed.facts.keys()
    rows = undisturbed.rows.keys() | disturbed.rows.keys()
    found = [
        _compared_rows(topic, undisturbed.rows.get(topic, {}), disturbed.rows.get(topic, {})) for topic in sorted(rows)
    ]
    found += [
        _compared(topic, undisturbed.facts.get(topic, {}), disturbed.facts.get(topic, {})) for topic in sorted(events)
    ]
    return tuple(found)


def _compared(
    topic: str, expected: Mapping[str, Sequence[Fact]], said: Mapping[str, Sequence[Fact]]
) -> TopicDifferences:
    was, now = _contents(expected.values()), _contents(said.values())
    lost = twice = different = new = 0
    for event_id in was.keys() | now.keys():
        before, after = was.get(event_id, Counter()), now.get(event_id, Counter())
        lost += max(before.total() - after.total(), 0)
        new += not before
        twice += max(after.total() - (before.total() or 1), 0)
        if before and after:
            different += min((before - after).total(), (after - before).total())
    same = not (lost or twice or different or new)
    moved = sum(_moved(facts, said.get(speaker, ())) for speaker, facts in expected.items()) if same else 0
    return TopicDifferences(topic, sum(map(len, expected.values())), lost, twice, different, new, moved)


def _contents(speakers: Iterable[Sequence[Fact]]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for facts in speakers:
        for fact in facts:
            found[fact.event_id][fact.content] += 1
    return found


def _moved(expected: Sequence[Fact], said: Sequence[Fact]) -> int:
    if len(said) != len(expected):  # another speaker said what this one did
        return max(len(said), len(expected))
    return sum(one != other for one, other in zip(expected, said, strict=True))


def _compared_rows(
    topic: str, expected: Mapping[int, Sequence[NDArray[np.int64]]], said: Mapping[int, Sequence[NDArray[np.int64]]]
) -> TopicDifferences:
    records = lost = twice = new = moved = 0
    for partition in expected.keys() | said.keys():
        before, after = _together(expected.get(partition, ())), _together(said.get(partition, ()))
        records += len(before)
        if np.array_equal(before, after):
            continue
        if not (len(before) and len(after)):
            lost, new = lost + len(before), new + len(after)
            continue
        rows, place = np.unique(np.concatenate([before, after]), axis=0, return_inverse=True)
        place = place.reshape(-1)
        was = np.bincount(place[: len(before)], minlength=len(rows))
        now = np.bincount(place[len(before) :], minlength=len(rows))
        if np.array_equal(was, now):
            moved += int((before != after).any(axis=1).sum())
        lost += int(np.maximum(was - now, 0).sum())
        new += int(((was == 0) & (now > 0)).sum())
        twice += int(np.maximum(now - np.maximum(was, 1), 0).sum())
    return TopicDifferences(topic, records, lost, twice, new=new, out_of_order=moved)


def _together(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate(parts) if parts else np.empty((0, 0), np.int64)


def books_hash(run: Run) -> str:
    """Give the SHA-256 of the account's last snapshot, without its basis; empty if the account said none."""
    if run.books is None:
        return ""
    fields = run.books.model_dump(mode="json", exclude={"basis"})
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def first_difference(undisturbed: Run, disturbed: Run, topic: str) -> tuple[str, str] | None:
    """Give the first event at which a topic's speakers part, as both runs have it; None if no speaker's do."""
    expected, said = undisturbed.facts.get(topic, {}), disturbed.facts.get(topic, {})
    for speaker in sorted(expected.keys() | said.keys()):
        before, after = expected.get(speaker, []), said.get(speaker, [])
        for place in range(max(len(before), len(after))):
            one = before[place].content if place < len(before) else "nothing"
            other = after[place].content if place < len(after) else "nothing"
            if one != other:
                return one, other
    return None
