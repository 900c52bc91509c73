"""Records as they were fetched, before anything is known of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from live_services.domain.frames import Headers


@dataclass(frozen=True, slots=True)
class Received:
    """A record as it was fetched."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes
    headers: Headers


def received(record: Any) -> Received:
    """Give a record as the client fetched it."""
    headers = tuple((name, value or b"") for name, value in record.headers)  # Kafka allows null for a value
    return Received(record.topic, record.partition, record.offset, record.key, record.value or b"", headers)
