"""Deciding on a dead letter: once, by whoever comes first; what is handed in counts once its chain says so."""

from __future__ import annotations

import base64
import getpass
import time
import uuid
from typing import Final

import structlog

from feature_store.market.types import ist_text
from live_services.adapters.kafka import topic_partitions
from live_services.adapters.letters import LetterDecisions
from live_services.cli.answers import ANSWER_SECONDS, answer_to, checked_reason
from live_services.cli.dead_letters import decision_text, find_letter, place_of, read_letters, takes_records
from live_services.cli.log_view import log_backwards
from live_services.cli.trading_commands import require_strategy
from live_services.domain.events import (
    CommandRefused,
    DeadLetter,
    DeadLetterDecided,
    LetterAction,
    RecordHandedIn,
    TradingStateCommanded,
    decode_event,
    self_caused,
)
from live_services.domain.topics import BROKERS, DLQ_DECISIONS, broker_topics
from live_services.failures import CommandFailed
from live_services.next_steps import to_type
from live_services.settings import Settings

_audit = structlog.get_logger("audit")

_MOST_TOGETHER: Final = 1_000  # decisions in one transaction
_MOST_BYTES: Final = 4 * 1024 * 1024  # in base64, with the rest of a decision, it fits in a record


async def drop_letter(settings: Settings, letter_id: str, reason: str) -> str:
    """Put a letter aside for good; give what to tell.

    Raises
    ------
    CommandFailed
        No such letter, no reason, or somebody has decided on it.
    live_services.adapters.letters.DecidedMeanwhile
        If somebody else decides at the same moment.
    """
    reason = checked_reason(reason)
    letter = await _open_letter(settings, letter_id)
    await _decide(settings, _decided(letter, "dropped", reason))
    return f"{letter.event_id[:8]} ({place_of(letter)}) is dropped; its bytes stay on {letter.topic}.dlq"


async def drop_topic(settings: Settings, topic: str, reason: str) -> str:
    """Put every open letter of records on a topic aside for good; give what to tell.

    Raises
    ------
    CommandFailed
        No such topic, or no reason.
    live_services.adapters.letters.DecidedMeanwhile
        If somebody else decides at the same moment; what was dropped before that stays so.
    """
    reason = checked_reason(reason)
    views = await read_letters(settings, topic=topic)
    await topic_partitions(settings.kafka, [DLQ_DECISIONS.name])
    async with LetterDecisions(settings.kafka) as decisions:
        made = await decisions.made()
        drops = [_decided(view.letter, "dropped", reason) for view in views if view.letter.event_id not in made]
        for first in range(0, len(drops), _MOST_TOGETHER):
            await decisions.decide(drops[first : first + _MOST_TOGETHER])
    _audit.info("dead_letters_dropped", topic=topic, letters=len(drops), decided_by=getpass.getuser(), reason=reason)
    return f"{len(drops):,} letters of {topic} are dropped; their bytes stay on its topic of dead letters"


async def replay_letter(settings: Settings, letter_id: str, reason: str, value: bytes | None = None) -> str:
    """Hand a letter's record in again, mended or as it is; give what to tell.

    Raises
    ------
    CommandFailed
        No such letter, no reason, somebody has decided on it, the record is still not one that can be taken, or its
        account refuses it.
    live_services.adapters.letters.DecidedMeanwhile
        If somebody else decides at the same moment.
    """
    reason = checked_reason(reason)
    letter = await _open_letter(settings, letter_id)
    if value is not None and len(value) > _MOST_BYTES:
        raise CommandFailed(f"--value holds {len(value):,} bytes; at most {_MOST_BYTES:,} can be kept with a decision")
    if not takes_records(letter):
        await _decide(settings, _decided(letter, "recorded", reason, value))
        return (
            f"{letter.event_id[:8]} ({place_of(letter)}) is in the record of the day ({DLQ_DECISIONS.name}) and "
            "nowhere else: it belongs to a moment that is over, so nothing is decided or traded on it"
        )
    command = _handed_in(letter, value, reason)
    await require_strategy(settings, command.broker, command.record.strategy)
    await _decide(settings, _decided(letter, "replayed", reason, value), command)
    answer = await answer_to(log_backwards(settings), command)
    if answer is None:
        return (
            f"{letter.event_id[:8]} is handed in; no account of {command.broker} has answered within "
            f"{ANSWER_SECONDS:g} s: it stands on the log and is taken when one runs in a session. "
            f"{to_type('status')} says what runs"
        )
    if isinstance(answer, CommandRefused):
        raise CommandFailed(f"the account of {command.broker} refused it: {answer.refusal}")
    return f"{letter.event_id[:8]} counts as a new record from the watermark {ist_text(answer.event_time_ns)} on"


async def _open_letter(settings: Settings, letter_id: str) -> DeadLetter:
    """Find a letter that nobody has decided on; who decides in this moment is found out when it is decided."""
    view = await find_letter(settings, letter_id)
    if view.decision is not None:
        raise _already(view.decision)
    return view.letter


def _already(decision: DeadLetterDecided) -> CommandFailed:
    return CommandFailed(f"the dead letter {decision.letter_id[:8]} was {decision_text(decision)}")


def _handed_in(letter: DeadLetter, value: bytes | None, reason: str) -> RecordHandedIn:
    """Read the record that is to be handed in as what its topic takes."""
    broker = next(broker for broker in BROKERS if broker_topics(broker).commands.name == letter.topic)
    mended = base64.b64decode(letter.value_base64) if value is None else value
    way_out = "write a mended one to a file and name it with --value"
    try:
        record = decode_event(mended)
    except ValueError as failure:
        what = "the letter's bytes are still" if value is None else "--value holds"
        raise CommandFailed(f"{what} no event ({' '.join(str(failure).split())}); {way_out}") from failure
    if not isinstance(record, TradingStateCommanded) or record.broker != broker:
        takes = TradingStateCommanded.model_fields["event_type"].default
        raise CommandFailed(
            f"{record.event_type} of {record.broker} cannot be handed in: {letter.topic} takes {takes} of {broker}; "
            f"{way_out}"
        )
    now_ns = time.time_ns()
    return RecordHandedIn(
        **self_caused("record_handed_in", letter.event_id, now_ns, uuid.uuid4().hex),
        broker=broker,
        event_time_ns=now_ns,
        commanded_at_ns=now_ns,
        commanded_by=getpass.getuser(),
        reason=reason,
        letter_id=letter.event_id,
        record=record,
    )


def _decided(letter: DeadLetter, action: LetterAction, reason: str, value: bytes | None = None) -> DeadLetterDecided:
    now_ns = time.time_ns()
    return DeadLetterDecided(
        **self_caused("dead_letter_decided", letter.event_id, now_ns, uuid.uuid4().hex),
        event_time_ns=now_ns,
        letter_id=letter.event_id,
        letter_topic=letter.topic,
        action=action,
        decided_by=getpass.getuser(),
        reason=reason,
        value_base64=None if value is None else base64.b64encode(value).decode(),
        decided_at_ns=now_ns,
    )


async def _decide(settings: Settings, decision: DeadLetterDecided, command: RecordHandedIn | None = None) -> None:
    needed = [DLQ_DECISIONS.name, *([broker_topics(command.broker).commands.name] if command is not None else [])]
    await topic_partitions(settings.kafka, needed)
    async with LetterDecisions(settings.kafka) as decisions:
        first = (await decisions.made()).get(decision.letter_id)
        if first is not None:
            raise _already(first)
        await decisions.decide([decision], command)
    _audit.info("dead_letter_decided", **decision.model_dump(exclude={"event_type", "schema_version", "value_base64"}))
