"""What keeps a desk running: records that could not be handled."""

from __future__ import annotations

from typing import Literal

from live_services.domain.events.envelope import Event


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
