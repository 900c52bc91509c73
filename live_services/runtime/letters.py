"""The dead letters of a task: what could not be handled, with its bytes, its place, and why."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from feature_store.market.types import ist_text
from live_services.domain.events import CommandRefused, DeadLetter, LetterReason, event_id, topic_of
from live_services.domain.frame_rows import BadFrame
from live_services.domain.frames import Headers
from live_services.domain.letters import FloodLimits, LetterFlood
from live_services.domain.log import EventRecord, LogPosition, TaskId
from live_services.domain.snapshot import Tree
from live_services.domain.topics import BROKERS, Topic
from live_services.runtime.chain import Failed, WrongTopic
from live_services.runtime.merge import Foreign, LateRecord, OutsideSession
from live_services.runtime.received import Received

_LONGEST_QUOTE: Final = 200  # of a failure, in the reason of a halt


@dataclass(frozen=True, slots=True)
class NotUnderstood:
    """A record on a topic of commands, or among a task's control records, that is none of them."""

    record: Received
    failure: str

    @property
    def position(self) -> LogPosition:
        """Where it stands."""
        return LogPosition(self.record.topic, self.record.partition, self.record.offset)


class Letters:
    """Makes and counts a task's dead letters, and tells when they are a flood.

    Parameters
    ----------
    task : TaskId
    topics : mapping of str to Topic
        What the task reads and writes.
    flood : FloodLimits
    """

    def __init__(self, task: TaskId, topics: Mapping[str, Topic], flood: FloodLimits) -> None:
        self.counted: Final[Counter[str]] = Counter()
        """By service."""
        self.begun_by: DeadLetter | None = None
        """With which a flood began that nothing was stopped for so far."""
        self._task: Final = task
        self._topics: Final = topics
        self._flood = LetterFlood(*flood)
        self._is_alarm = False
        """Whether one letter alone is what something is stopped for."""
        self._alarmed_until_ns = 0

    @property
    def are_a_flood(self) -> bool:
        """Whether the last one was part of a flood: no line is logged for it."""
        return self._flood.is_on

    @property
    def limits(self) -> FloodLimits:
        """When they are a flood."""
        return self._flood.limits

    def go_by(self, limits: FloodLimits) -> None:
        """Let a session begin in which they are a flood by these limits."""
        if limits != self._flood.limits:
            self._flood = LetterFlood(*limits)

    def count(self, letter: DeadLetter, *, of_the_day: bool = True) -> str:
        """Count a letter; give the topic that it goes to.

        Parameters
        ----------
        of_the_day
            Whether a restart meets it again, so that it may be part of a flood.
        """
        self.counted[letter.service] += 1
        of_the_day = of_the_day and letter.reason != "no_command"
        begins = of_the_day and self._flood.begins_with(letter.event_time_ns)
        if begins and self.begun_by is None:
            self._is_alarm, self.begun_by = False, letter
        return self._topics[letter.topic].dlq

    def alarm(self, letter: DeadLetter) -> None:
        """Let something be stopped for one letter alone, as for a flood; for the next ones of its span it is done."""
        if letter.event_time_ns >= self._alarmed_until_ns:
            self._alarmed_until_ns = letter.event_time_ns + self._flood.span_ns
            if self.begun_by is None:
                self._is_alarm, self.begun_by = True, letter

    def answered(self, cause: str) -> None:
        """Take that something was stopped for the letter of this id."""
        if self.begun_by is not None and self.begun_by.event_id == cause:
            self.begun_by = None

    def snapshot(self) -> Tree:
        """Write down what was counted, and what is still to be stopped for."""
        begun_by = self.begun_by.model_dump_json() if self.begun_by is not None else None
        return {
            "counted": dict(self.counted),
            "begun_by": begun_by,
            "is_alarm": self._is_alarm,
            "alarmed_until_ns": self._alarmed_until_ns,
            "flood": self._flood.snapshot(),
        }

    def restore(self, kept: Any) -> None:
        """Go on from `snapshot`."""
        self.counted.update(kept["counted"])
        self.begun_by = None if kept["begun_by"] is None else DeadLetter.model_validate_json(kept["begun_by"])
        self._is_alarm, self._alarmed_until_ns = kept["is_alarm"], kept["alarmed_until_ns"]
        self._flood.restore(kept["flood"])

    def reason_of(self, last: DeadLetter) -> str:
        """Say why a stage stops."""
        if self._is_alarm:
            return f"{last.service} failed, so what it goes on from may be wrong: {last.failure[:_LONGEST_QUOTE]}"
        return (
            f"{self._flood.letters} records within {self._flood.seconds:g} s could not be handled, the last of them "
            f"{last.topic}[{last.partition}] at offset {last.offset}: {last.failure[:_LONGEST_QUOTE]}"
        )

    # --- what could not be handled --------------------------------------------------------------------------------

    def of_record(self, record: Received, failure: Exception, time_ns: int) -> DeadLetter:
        """Write the letter of a record that could not be read."""
        text = f"{type(failure).__name__}: {failure}"
        return self._letter(record, _kind(failure), text, time_ns)

    def of_rows(self, record: Received, failure: str, time_ns: int) -> DeadLetter:
        """Write the letter of a frame of which rows were left out."""
        return self._letter(record, "bad_rows", failure, time_ns)

    def of_command(self, command: NotUnderstood, now_ns: int) -> tuple[DeadLetter, CommandRefused]:
        """Write the letter of a record that is no command, and the answer with which it is done."""
        letter = self._letter(command.record, "no_command", command.failure, now_ns)
        return letter, self.refusal(letter, f"it is no command of this account: {command.failure}", now_ns)

    def of_foreign(self, record: NotUnderstood, now_ns: int) -> DeadLetter:
        """Write the letter of what stood among the task's control records and is none of them."""
        return self._letter(record.record, "control", record.failure, now_ns)

    def refusal(self, letter: DeadLetter, why: str, now_ns: int) -> CommandRefused:
        """Answer a command that became a dead letter."""
        return CommandRefused(
            broker=next(broker for broker in BROKERS if broker == letter.broker),
            event_id=event_id("command_refused", letter.event_id),
            correlation_id=letter.correlation_id,
            causation_id=letter.event_id,
            event_time_ns=now_ns,
            command_offset=letter.offset,
            refusal=why[:_LONGEST_QUOTE],
        )

    def of_event(self, record: EventRecord, reason: LetterReason, failure: str, service: str) -> DeadLetter:
        """Write the letter of an event that a service failed on, or that no session was open for."""
        place, value = record.position, record.event.model_dump_json().encode()
        topic = self._topics[place.topic] if record.event.TOPIC is None else topic_of(record.event)
        on_log = (
            place.topic == topic.name and place.offset >= 0
        )  # an inner edge: its own place on the log is not known yet
        partition, offset = (place.partition, place.offset) if on_log else (0, -1)
        stored = Received(topic.name, partition, offset, None, value, ())
        time_ns, own = record.event.event_time_ns, "" if on_log else record.event.event_id
        return self._letter(stored, reason, failure, time_ns, service=service, own_id=own)

    def of_failure(self, failed: Failed) -> DeadLetter:
        """Write the letter of what a service failed on."""
        service, record = failed.service.name, failed.record
        failure = f"{type(failed.error).__name__}: {failed.error}"
        if isinstance(record, EventRecord):
            return self.of_event(record, "control" if failed.what == "control" else "failed", failure, service)
        if record is not None:
            rows, place = f"{len(record)} rows up to {ist_text(failed.at_ns)}", record.position
            stored = Received(place.topic, place.partition, place.offset, None, b"", ())
            own_id = f"{place.partition}@{place.offset}:{failed.at_ns}"
            return self._letter(stored, "failed", f"{rows}: {failure}", failed.at_ns, service=service, own_id=own_id)
        topic = failed.service.inputs[0].topic
        partition = self._task.partition if topic.per_market_partition else 0
        said = f"its {failed.what} at {ist_text(failed.at_ns)}: {failure}"
        if failed.silenced:
            said += "; it is left out from here to the session's end"
        stored = Received(topic.name, partition, -1, None, b"", ())
        own_id = f"{failed.what}@{failed.at_ns}"
        return self._letter(stored, "timer", said, failed.at_ns, service=service, own_id=own_id)

    def _letter(
        self,
        record: Received,
        reason: LetterReason,
        failure: str,
        time_ns: int,
        *,
        service: str = "",
        own_id: str = "",
    ) -> DeadLetter:
        service, place = service or self._task.service, own_id or f"{record.partition}@{record.offset}"
        identity = event_id("dead_letter", service, record.topic, place, failure)
        return DeadLetter(
            event_type="dead_letter",
            broker=self._topics[record.topic].scope,
            event_id=identity,
            correlation_id=identity,
            causation_id=identity,
            event_time_ns=time_ns,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            service=service,
            reason=reason,
            failure=failure,
            key_base64=None if record.key is None else base64.b64encode(record.key).decode(),
            value_base64=base64.b64encode(record.value).decode(),
            headers_base64=_headers(record.headers),
        )


def _headers(headers: Headers) -> tuple[tuple[str, str], ...]:
    return tuple((name, base64.b64encode(value).decode()) for name, value in headers)


_KINDS: Final[tuple[tuple[type[Exception], LetterReason], ...]] = (
    (BadFrame, "bad_frame"),
    (LateRecord, "late"),
    (Foreign, "foreign"),
    (OutsideSession, "no_session"),
    (WrongTopic, "wrong_topic"),
)


def _kind(failure: Exception) -> LetterReason:
    return next((reason for kind, reason in _KINDS if isinstance(failure, kind)), "no_event")
