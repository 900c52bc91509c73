"""What makes a session repeatable: by which configuration it is run, and what a person let stand as it was said."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from live_services.domain.configuration import StrategiesConfig
from live_services.domain.events.envelope import Event, Instant
from live_services.domain.events.operations import LONGEST_REASON
from live_services.domain.topics import STRATEGIES_CONTROL, Topic
from models_registry.specification import Broker


class StrategiesConfigured(Event):
    """Control: by which configuration a task of the strategy runner goes through a session, from its open to its end.

    Restart and replay follow it, whatever the settings say by then.
    """

    TOPIC: ClassVar[Topic | str | None] = STRATEGIES_CONTROL

    event_type: Literal["strategies.configured"] = "strategies.configured"
    broker: Literal["shared"] = "shared"
    session_date: str
    config: StrategiesConfig
    config_digest: str
    """SHA-256 of `config`."""
    git_commit: str
    """Of the code that opened the session; empty if it is not known."""


class DifferenceAccepted(Event):
    """Control: a person lets what a task said up to here stand, though a re-run comes to something else.

    From ``event_time_ns`` on the task goes on from what the re-run came to, and later re-runs compare what was said
    behind it. It counts only where a re-run does differ from ``outputs_digest``.
    """

    event_type: str
    session_date: str
    task: str
    outputs_digest: str
    """Of what was said, as it was committed."""
    taken_as_said: dict[str, int]
    """By topic, the offset behind the last record that is let stand."""
    accepted_by: str
    accepted_at_ns: Instant
    """Wall clock of the machine on which it was typed."""
    reason: str = Field(min_length=1, max_length=LONGEST_REASON)


class AccountDifferenceAccepted(DifferenceAccepted):
    """Of an account."""

    TOPIC: ClassVar[Topic | str | None] = "control"

    event_type: Literal["account.difference_accepted"] = "account.difference_accepted"
    broker: Broker


class StrategiesDifferenceAccepted(DifferenceAccepted):
    """Of a task of the strategy runner."""

    TOPIC: ClassVar[Topic | str | None] = STRATEGIES_CONTROL

    event_type: Literal["strategies.difference_accepted"] = "strategies.difference_accepted"
    broker: Literal["shared"] = "shared"
