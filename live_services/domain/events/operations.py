"""What keeps a desk running: what people command, and records that could not be handled."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from pydantic import Field

from live_services.domain.events.envelope import AnswersCommands, Event, Frozen, Instant
from live_services.domain.topics import Topic
from models_registry.specification import Broker

TradingState = Literal["ACTIVE", "REDUCING", "HALTED"]
"""ACTIVE    entries and exits.
REDUCING  exits only.
HALTED    neither: no order is given until it is lifted; what rests at the exchange stays there."""

_LONGEST_REASON: Final = 1_000


class Command(Event):
    """Something that a person asks of a broker's chain, which answers it at the watermark that it has reached.

    ``event_time_ns`` is ``commanded_at_ns``: when the command is in force, its answer on the control topic says.
    """

    TOPIC: ClassVar[Topic | str | None] = "commands"

    broker: Broker
    reason: str = Field(min_length=1, max_length=_LONGEST_REASON)
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


class DeadLetter(Event):
    """A record that could not be handled, with its bytes and where it stood."""

    event_type: Literal["dead_letter"] = "dead_letter"
    topic: str
    partition: int
    offset: int
    service: str
    failure: str
    key_base64: str | None
    value_base64: str
