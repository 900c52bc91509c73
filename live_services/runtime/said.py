"""What a task has said in its session, as a running digest that a re-run has to come to as well. Pure.

Counted is what handlers and timers answered the market, orders and control records with. Watermarks, dead letters, the
control records themselves, and announcements, which are said once and never read back, are not.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import structlog

from live_services.domain.events import DifferenceAccepted, Event, event_or_none

_log: Final = structlog.get_logger("application")

_BASIS: Final = {"basis"}  # for `explain` only: where the inputs stood, and by which code
_LONGEST_QUOTE: Final = 120  # of a value, in the line that ends a process
_FAST: Final = 1  # zlib's level: a day's outputs shrink to a tenth at 100 MB a second


@dataclass(frozen=True, slots=True)
class SaidSoFar:
    """What a commit says of the outputs up to it."""

    digest: str = ""
    """SHA-256, hexadecimal; empty: nothing is compared."""
    counts: Mapping[str, int] = field(default_factory=dict)
    """How many events, by topic."""
    begun_with: str = ""
    """Id of what a person let stand, behind which they are counted; empty if nobody did."""


NOTHING_SAID: Final = SaidSoFar()


@dataclass(frozen=True, slots=True)
class Difference:
    """The first record of a topic that a re-run would say otherwise."""

    topic: str
    offset: int
    """Of the record on the log; -1: there is none."""
    field: str
    """Empty where one of both says nothing at all."""
    said: str
    would_say: str

    def __str__(self) -> str:
        place = f"{self.topic} at offset {self.offset}" if self.offset >= 0 else f"{self.topic} behind its last record"
        named = f", field {self.field}" if self.field else ""
        return f"{place}{named}: said {self.said}, would say {self.would_say}"


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A record of an output topic, as it stands on the log."""

    offset: int
    value: bytes


class Said:
    """The outputs of a task's session: for each topic a chain of SHA-256 digests, and one digest over them.

    Chains are by topic because nothing is promised of the order between topics.

    Parameters
    ----------
    keeps : bool
        Whether the outputs themselves are kept, compressed, as while a session is run again: a difference is then told
        field by field.
    """

    def __init__(self, *, keeps: bool = False) -> None:
        self.taken: dict[str, int] = {}
        """By topic, the offset behind what a person let stand as it was said."""
        self.skipped: dict[str, int] = {}
        """By topic, how many outputs came before those that are kept."""
        self._keeps = keeps
        self._begun_with = ""
        self._instead_of = ""
        """The digest in whose place a person let the count begin anew."""
        self._chains: dict[str, bytes] = {}
        self._counts: dict[str, int] = {}
        self._kept: dict[str, _Kept] = {}

    def open_session(self) -> None:
        """Begin with nothing said."""
        self._begin("", "", {})

    def add(self, topic: str, event: Event) -> None:
        """Count an output, and keep it if outputs are kept."""
        content = event.model_dump_json(exclude=_BASIS).encode()
        before = self._chains.get(topic, b"")
        self._chains[topic] = hashlib.sha256(before + content).digest()
        self._counts[topic] = self._counts.get(topic, 0) + 1
        if self._keeps:
            self._kept.setdefault(topic, _Kept()).add(content)

    def accept(self, accepted: DifferenceAccepted) -> None:
        """Take what was said as true and begin to count anew, unless nothing differs from it."""
        if accepted.event_id == self._begun_with or self.so_far.digest == accepted.outputs_digest:
            return
        self._begin(accepted.event_id, accepted.outputs_digest, accepted.taken_as_said)
        who = {"by": accepted.accepted_by, "reason": accepted.reason}
        _log.warning("difference_accepted", task=accepted.task, watermark_ns=accepted.event_time_ns, **who)

    def agrees_with(self, committed: SaidSoFar) -> bool:
        """Say whether this is what was committed, or what a person let stand in its place."""
        if not committed.digest or committed.digest == self.so_far.digest:
            return True
        return committed.digest == self._instead_of and not self._counts

    @property
    def so_far(self) -> SaidSoFar:
        """What a commit has to say now."""
        text = [self._begun_with, *(f"{topic} {self._chains[topic].hex()}" for topic in sorted(self._chains))]
        digest = hashlib.sha256("\n".join(text).encode()).hexdigest()
        return SaidSoFar(digest, dict(sorted(self._counts.items())), self._begun_with)

    @property
    def kept(self) -> dict[str, tuple[bytes, ...]]:
        """The outputs that were kept, by topic: JSON without the basis."""
        return {topic: kept.lines() for topic, kept in self._kept.items()}

    def keep_no_more(self) -> None:
        """Let go of what was kept."""
        self._keeps = False
        self._kept.clear()

    def snapshot(self) -> dict[str, Any]:
        """Give all that is counted, for a snapshot of the task."""
        chains = {topic: chain.hex() for topic, chain in self._chains.items()}
        begun = {"begun_with": self._begun_with, "instead_of": self._instead_of, "taken": dict(self.taken)}
        return begun | {"chains": chains, "counts": dict(self._counts)}

    def restore(self, tree: Mapping[str, Any]) -> None:
        """Go on from a snapshot; what came before it is not kept."""
        self._begin(tree["begun_with"], tree["instead_of"], tree["taken"])
        self._chains = {topic: bytes.fromhex(chain) for topic, chain in tree["chains"].items()}
        self._counts = dict(tree["counts"])
        self.skipped = dict(self._counts)

    def _begin(self, begun_with: str, instead_of: str, taken: Mapping[str, int]) -> None:
        self._begun_with, self._instead_of, self.taken, self.skipped = begun_with, instead_of, dict(taken), {}
        for counted in (self._chains, self._counts, self._kept):
            counted.clear()


class _Kept:
    """Outputs of one topic, a line each, compressed as they come."""

    def __init__(self) -> None:
        self._compressor = zlib.compressobj(_FAST)
        self._parts: list[bytes] = []

    def add(self, content: bytes) -> None:
        if part := self._compressor.compress(content + b"\n"):
            self._parts.append(part)

    def lines(self) -> tuple[bytes, ...]:
        whole = b"".join([*self._parts, self._compressor.copy().flush()])
        return tuple(zlib.decompress(whole).splitlines())


def first_difference(task: str, begin_ns: int, said: Said, log: Mapping[str, Iterable[LogRecord]]) -> Difference | None:
    """Compare what a re-run came to with what stands on the log.

    Parameters
    ----------
    task : str
        Whose outputs they are; records of a shared topic that name another task are passed over.
    begin_ns : int
        Open of the session, UTC epoch nanoseconds; earlier records are passed over.
    said : Said
        Of the re-run, with its outputs kept.
    log : mapping of str to iterable of LogRecord
        By topic, the records of the task's partition, in order.

    Returns
    -------
    Difference or None
        The earliest one by event time; None: the log says the same.
    """
    found, would = [], said.kept
    for topic in sorted({*log, *would}):
        ours = _of_task(task, begin_ns, said.taken.get(topic, 0), log.get(topic, ()))
        first = _first_of_topic(topic, ours[said.skipped.get(topic, 0) :], would.get(topic, ()))
        if first is not None:
            found.append(first)
    return min(found, key=lambda one: one[0])[1] if found else None


def _of_task(task: str, begin_ns: int, taken: int, records: Iterable[LogRecord]) -> list[tuple[int, dict[str, Any]]]:
    read = (
        (record.offset, json.loads(record.value))
        for record in records
        if record.offset >= taken and event_or_none(record.value) is not None  # a watermark has no value, junk no event
    )
    return [
        (offset, event)
        for offset, event in read
        if event["event_time_ns"] >= begin_ns and event.get("task", task) == task
    ]


def _first_of_topic(
    topic: str, said: Sequence[tuple[int, dict[str, Any]]], would: Sequence[bytes]
) -> tuple[int, Difference] | None:
    for (offset, event), content in zip(said, would, strict=False):
        other = json.loads(content)
        mine = {name: value for name, value in event.items() if name not in _BASIS}
        if mine != other:
            name, here, there = _first_field(mine, other)
            return event["event_time_ns"], Difference(topic, offset, name, _quoted(here), _quoted(there))
    if len(said) > len(would):
        offset, event = said[len(would)]
        return event["event_time_ns"], Difference(topic, offset, "", _named(event), "nothing more")
    if len(would) > len(said):
        event = json.loads(would[len(said)])
        return event["event_time_ns"], Difference(topic, -1, "", "nothing more", _named(event))
    return None


def _first_field(said: Mapping[str, Any], would: Mapping[str, Any], prefix: str = "") -> tuple[str, Any, Any]:
    """Name the first field that differs; ids, which follow from the others, only if nothing else does."""
    names = [name for name in dict.fromkeys([*said, *would]) if said.get(name) != would.get(name)]
    name = next((one for one in names if not one.endswith("_id")), names[0])
    here, there = said.get(name), would.get(name)
    if isinstance(here, Mapping) and isinstance(there, Mapping):
        return _first_field(here, there, f"{prefix}{name}.")
    return f"{prefix}{name}", here, there


def _named(event: Mapping[str, Any]) -> str:
    return f"{event['event_type']} {event['event_id']}"


def _quoted(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= _LONGEST_QUOTE else f"{text[:_LONGEST_QUOTE]}…"
