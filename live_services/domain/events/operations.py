"""What keeps a desk running: what people command, records that could not be handled, and what became of them."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from pydantic import Field

from live_services.domain.events.envelope import AnswersCommands, Event, Frozen, Instant, Offset
from live_services.domain.topics import DLQ_DECISIONS, STRATEGIES_CONTROL, Topic
from models_registry.specification import Broker

TradingState = Literal["ACTIVE", "REDUCING", "HALTED"]
"""ACTIVE    entries and exits.
REDUCING  exits only.
HALTED    neither: no order is given until it is lifted; what rests at the exchange stays there."""

LONGEST_REASON: Final = 1_000
"""Characters of what a person gives as a reason."""


class Command(Event):
    """Something that a person asks of a broker's chain, which answers it at the watermark that it has reached.

    ``event_time_ns`` is ``commanded_at_ns``: when the command is in force, its answer on the control topic says.
    """

    TOPIC: ClassVar[Topic | str | None] = "commands"

    broker: Broker
    reason: str = Field(min_length=1, max_length=LONGEST_REASON)
    commanded_by: str
    commanded_at_ns: Instant
    """Wall clock of the machine on which it was typed."""


class TradingStateCommanded(Command):
    """Whether a broker, or a strategy on it, may trade."""

    event_type: Literal["trading.state_commanded"] = "trading.state_commanded"
    state: TradingState
    flatten: bool = False
    """Close first what its scope holds, at the market; the state is REDUCING then."""
    strategy: str | None = None
    """None: the whole broker."""


class TradingStateInForce(Frozen):
    """What was commanded for one scope, and since when it is in force."""

    strategy: str | None
    """None: the whole broker."""
    state: TradingState
    flatten: bool
    since_ns: Instant
    """Event time from which it is in force."""
    reason: str
    commanded_by: str
    commanded_at_ns: Instant


class TradingStateChanged(AnswersCommands):
    """Control: from ``event_time_ns`` on a trading state is in force. Restart and replay follow it."""

    TOPIC: ClassVar[Topic | str | None] = "control"

    event_type: Literal["trading.state_changed"] = "trading.state_changed"
    broker: Broker
    in_force: TradingStateInForce


class RecordHandedIn(Command):
    """A dead letter's record, mended, is to count as a new one of the moment at which its chain takes it."""

    event_type: Literal["record.handed_in"] = "record.handed_in"
    letter_id: str
    record: TradingStateCommanded
    """What may be handed in: a command. What belongs to the past (signals, frames, fills) never is."""


class RecordTaken(AnswersCommands):
    """Control: a record that was handed in counts from ``event_time_ns`` on; what comes of it follows at once."""

    TOPIC: ClassVar[Topic | str | None] = "control"

    event_type: Literal["record.taken"] = "record.taken"
    broker: Broker
    letter_id: str


class CommandRefused(AnswersCommands):
    """Control: a record on the topic of commands was answered with nothing, and why."""

    TOPIC: ClassVar[Topic | str | None] = "control"

    event_type: Literal["command.refused"] = "command.refused"
    broker: Broker
    refusal: str


class StrategiesStopped(Event):
    """Control: from ``event_time_ns`` to the end of the session a task's strategies propose nothing."""

    TOPIC: ClassVar[Topic | str | None] = STRATEGIES_CONTROL

    event_type: Literal["strategies.stopped"] = "strategies.stopped"
    broker: Literal["shared"] = "shared"
    reason: str


DEAD_LETTERS: Final = "dead letters"
"""Who commands the halt that a flood of them is."""

LetterReason = Literal[
    "bad_frame",
    "bad_rows",
    "late",
    "foreign",
    "wrong_topic",
    "no_event",
    "no_command",
    "no_session",
    "failed",
    "control",
    "timer",
    "unsorted",
]
"""bad_frame    the bytes of a frame of the market are none, or its universe or session is not the one told.
bad_rows     rows of a frame were left out; the others were used.
late         its event time is before a watermark that its partition had already passed.
foreign      who told the session did not write it, or not as the next record of its partition.
wrong_topic  it belongs on another topic, or to another broker.
no_event     the bytes are no event.
no_command   it stood on a topic of commands and is none.
no_session   no session was open at its event time.
failed       a service failed on it.
control      a task failed on a control record of its own, or somebody else's record stood among them.
timer        what a service had to do at an instant failed; there is no record.
unsorted     a letter written before reasons were kept."""


class DeadLetter(Event):
    """A record that could not be handled, with its bytes and where it stood."""

    event_type: Literal["dead_letter"] = "dead_letter"
    topic: str
    partition: Offset
    offset: Offset
    service: str
    reason: LetterReason = "unsorted"
    failure: str
    key_base64: str | None
    value_base64: str
    headers_base64: tuple[tuple[str, str], ...] = ()
    """Names and values of the record's headers."""


LetterAction = Literal["replayed", "recorded", "dropped"]
"""replayed  handed in, mended, as a new record of the moment.
recorded  kept in the record of the day beside what it should have been; it trades nothing.
dropped   put aside for good."""


class DeadLetterDecided(Event):
    """What a person decided on a dead letter; the first decision on a letter is the only one."""

    TOPIC: ClassVar[Topic | str | None] = DLQ_DECISIONS

    event_type: Literal["dead_letter.decided"] = "dead_letter.decided"
    broker: Literal["shared"] = "shared"
    letter_id: str
    letter_topic: str
    """Name of the topic that the record stood on."""
    action: LetterAction
    decided_by: str
    reason: str = Field(min_length=1, max_length=LONGEST_REASON)
    value_base64: str | None = None
    """What was handed in, mended; None: the letter's own bytes."""
    decided_at_ns: Instant
    """Wall clock of the machine on which it was typed."""
