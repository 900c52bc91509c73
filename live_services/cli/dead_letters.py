"""What stands on the topics of dead letters, for people: lists, one letter, and what its failure means."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from rich.markup import escape

from feature_store.market.types import ist_text
from live_services.adapters.letters import decisions_made, stored_letters
from live_services.cli.errors import did_you_mean
from live_services.cli.log_view import log_backwards
from live_services.cli.output import Document, Field, FittingTable
from live_services.domain.events import DeadLetter, DeadLetterDecided, LetterReason
from live_services.domain.topics import BROKERS, all_topics, broker_topics
from live_services.failures import CommandFailed
from live_services.next_steps import to_type
from live_services.settings import Settings

LEAST_ID: Final = 6
"""So many characters of a letter's id are enough to name it."""
_MOST_BYTES: Final = 4096  # of a record that is shown in hex
_NAMED: Final = 8

MEANING: Final[dict[LetterReason, tuple[str, str]]] = {
    "bad_frame": (
        "The bytes of a frame of the market are none, or belong to a universe or session that the feed never told.",
        "Somebody other than this desk's feed writes on the market's topic, or the feed runs another version: find "
        "who. Prices of the past trade nothing any more; drop it.",
    ),
    "bad_rows": (
        "Some rows of a frame had no usable price or time and were left out; the others were used.",
        "Look at the source of the market's data. There is nothing to hand in; drop it.",
    ),
    "late": (
        "Its event time is before a watermark that its partition had already passed: what came after is decided.",
        "Its producer broke the order of event times, or wrote twice. A record of the past never trades; drop it.",
    ),
    "foreign": (
        "Its stamp is not that of who told the session, or its number is not the next of its partition: it moved no "
        "clock.",
        "Something else than this desk's feed writes on the market's topic, or a part of the log is missing: find it "
        "by the headers. Drop it.",
    ),
    "wrong_topic": (
        "It belongs on another topic, or to another broker.",
        "Somebody writes on the wrong topic: find who, by its headers and its fields, and drop it.",
    ),
    "no_event": (
        "The bytes are no event that this version knows: not JSON, an unknown type, or a field that is wrong.",
        "If its producer is newer than this version, bring them together. Else find who wrote it, and drop it.",
    ),
    "no_command": (
        "It stood on a topic of commands and is none, so nothing was done.",
        "Mend it and hand it in with `dlq replay ID --value FILE`, give the command anew, or drop it.",
    ),
    "no_session": (
        "No session was open at its event time.",
        "Its producer runs outside the hours that the feed told, or has another clock. Drop it.",
    ),
    "failed": (
        "A service failed on it; nothing of it was written, and what came behind it went on.",
        "This may be a fault of the platform: keep the letter with the traceback in logs/application.log (event "
        "record_failed).",
    ),
    "control": (
        "A task failed on a record of its control topic, or somebody else's stood there under its name and was passed "
        "over. What the task failed on is not in force: it opens no positions until a person lifts the halt.",
        "Compare the record with what the desk should be doing, and find who wrote it, before `resume` lifts the halt.",
    ),
    "timer": (
        "What a service had to do at an instant failed: there is no record to hand in. It opens no positions until a "
        "person lifts the halt.",
        "This is a fault of the platform: keep the traceback in logs/application.log (event service_failed). Look at "
        "open positions and their exits before `resume` lifts the halt.",
    ),
    "unsorted": ("An older version wrote this letter, without the kind of its failure.", "Read its failure."),
}
"""What each failure means, and what can be done."""


@dataclass(frozen=True, slots=True)
class LetterView:
    """A letter and what was decided on it."""

    letter: DeadLetter
    decision: DeadLetterDecided | None


async def read_letters(
    settings: Settings, *, topic: str | None = None, broker: str | None = None, decided: bool = False
) -> list[LetterView]:
    """Read the open letters, in order of event time, without their bytes.

    Parameters
    ----------
    topic
        Only those of records on this topic.
    broker
        Only those of this broker's world, or of ``shared``.
    decided
        Also those on which somebody has decided.

    Raises
    ------
    CommandFailed
        No such topic or broker, or no Kafka is known.
    """
    wanted, kafka = _wanted(topic, broker), settings.kafka
    log_backwards(settings)
    made = await decisions_made(kafka)
    views = [
        LetterView(letter.model_copy(update={"value_base64": "", "key_base64": None}), made.get(letter.event_id))
        async for letter in stored_letters(kafka, wanted)
        if decided or letter.event_id not in made
    ]
    return sorted(views, key=lambda view: view.letter.event_time_ns)


def _wanted(topic: str | None, broker: str | None) -> list[str]:
    known, scopes = {one.name: one for one in all_topics()}, ("shared", *BROKERS)
    if broker is not None and broker not in scopes:
        raise CommandFailed(f"there is no broker {broker!r}; choose one of {', '.join(scopes)}")
    if topic is not None and topic.removesuffix(".dlq") not in known:
        near = did_you_mean(topic, known)
        raise CommandFailed(
            f"there is no topic {topic!r}; {f'{near} ' if near else ''}{to_type('topics list')} names them all"
        )
    return [one.dlq for one in known.values() if topic in (None, one.name, one.dlq) and broker in (None, one.scope)]


async def find_letter(settings: Settings, letter_id: str) -> LetterView:
    """Find a letter by the beginning of its id, with its bytes.

    Raises
    ------
    CommandFailed
        No letter, or more than one, or too few characters.
    """
    if len(letter_id) < LEAST_ID:
        raise CommandFailed(f"{letter_id!r} is too short for a dead letter's id: give its first {LEAST_ID} characters")
    log_backwards(settings)
    found: dict[str, DeadLetter] = {}
    async for letter in stored_letters(settings.kafka, [topic.dlq for topic in all_topics()]):
        if letter.event_id.startswith(letter_id.lower()) and len(found) <= _NAMED:
            found[letter.event_id] = letter
    if not found:
        raise CommandFailed(f"there is no dead letter {letter_id!r}; {to_type('dlq list')} names those there are")
    if len(found) > 1:
        raise CommandFailed(f"{letter_id!r} stands for {', '.join(found)}: give more of the one you mean")
    (letter,) = found.values()
    return LetterView(letter, (await decisions_made(settings.kafka)).get(letter.event_id))


# --- shown ----------------------------------------------------------------------------------------------------------


def letters_table(views: Sequence[LetterView]) -> FittingTable:
    """Lay letters out, the newest last; times are event times, IST."""
    table = FittingTable(
        (
            Field("id"),
            Field("when (IST)", leave_out=1),
            Field("record"),
            Field("stage", leave_out=2),
            Field("reason"),
            Field("failure, or what was decided", text=True),
        )
    )
    for view in views:
        letter, said = view.letter, escape(_one_line(view.letter.failure))
        if view.decision is not None:
            said = f"[dim]{escape(decision_text(view.decision))}[/]"
        when = ist_text(letter.event_time_ns).removesuffix(" IST") if letter.event_time_ns else "before the first"
        table.add_row(letter.event_id[:8], when, escape(place_of(letter)), letter.service, letter.reason, said)
    return table


def counts_of(views: Sequence[LetterView]) -> list[Document]:
    """Count open letters by topic and reason, the most first."""
    counted = Counter((view.letter.topic, view.letter.reason) for view in views if view.decision is None)
    return [{"topic": topic, "reason": reason, "open": n} for (topic, reason), n in counted.most_common()]


def letter_record(view: LetterView, *, with_bytes: bool = True) -> Document:
    """Give a letter as JSON; a list of them leaves out key and value, which `dlq show` has."""
    decision = view.decision.model_dump(mode="json") if view.decision is not None else None
    left_out = set() if with_bytes else {"key_base64", "value_base64"}
    return {**view.letter.model_dump(mode="json", exclude=left_out), "decision": decision}


def letter_facts(view: LetterView) -> list[tuple[str, str]]:
    """Say everything of a letter."""
    letter = view.letter
    meaning, way_out = MEANING[letter.reason]
    when = ist_text(letter.event_time_ns) if letter.event_time_ns else "before the first watermark"
    key = "none" if letter.key_base64 is None else _text(base64.b64decode(letter.key_base64))
    return [
        ("letter", letter.event_id),
        ("record", place_of(letter)),
        ("when", f"{when} (event time)"),
        ("stage", f"{letter.service} ({letter.broker})"),
        ("failure", f"{letter.reason}: {letter.failure}"),
        ("means", meaning),
        ("what to do", way_out),
        ("replay", replay_text(letter)),
        ("decided", "nothing so far" if view.decision is None else decision_text(view.decision)),
        ("key", key),
        ("headers", "\n".join(f"{n}: {_text(base64.b64decode(v))}" for n, v in letter.headers_base64) or "none kept"),
        ("bytes", _text(base64.b64decode(letter.value_base64))),
    ]


def place_of(letter: DeadLetter) -> str:
    """Say where the record stood; within a chain it has no place of its own."""
    return f"{letter.topic}[{letter.partition}]" + (
        f"@{letter.offset}" if letter.offset >= 0 else " (within its chain)"
    )


def decision_text(decision: DeadLetterDecided) -> str:
    """Say who decided what, when and why."""
    return f"{decision.action} by {decision.decided_by} at {ist_text(decision.decided_at_ns)}: {decision.reason}"


def replay_text(letter: DeadLetter) -> str:
    """Say what a replay of this letter would be."""
    if takes_records(letter):
        return "mended, it is handed in as a new record at the present watermark, once"
    return f"to the record of the day only: what belongs to the past of {letter.topic} never trades"


def takes_records(letter: DeadLetter) -> bool:
    """Whether a mended record of this letter may count as a new one: commands may, and nothing else.

    Signals, frames and fills belong to a moment that is over. A gateway's answers will belong here once there is one.
    """
    return any(letter.topic == broker_topics(broker).commands.name for broker in BROKERS)


def _text(content: bytes) -> str:
    """Write bytes as JSON or text where they are, else as hexadecimal digits."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return _hex(content)
    try:
        return json.dumps(json.loads(text), indent=2, ensure_ascii=False)
    except ValueError:
        return text if all(c.isprintable() or c in "\n\t" for c in text) else _hex(content)


def _hex(content: bytes) -> str:
    more = f" … and {len(content) - _MOST_BYTES:,} bytes more" if len(content) > _MOST_BYTES else ""
    return f"{content[:_MOST_BYTES].hex(' ', 4)}{more}"


def _one_line(text: str) -> str:
    return " ".join(text.split())
