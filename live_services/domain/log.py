"""What comes off the log: slices of the market, events, where they stood, and the task that they are for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from feature_store.market.types import Bars, Ticks
from live_services.domain.events import Event
from live_services.domain.topics import Scope

_NAMED: Final = 5  # symbols in a line; a whole exchange would not fit


@dataclass(frozen=True, slots=True)
class LogPosition:
    """Where a record stood on the log; for ``Basis`` only."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class TickSlice:
    """Ticks of one frame, or of the part of it that is due."""

    ticks: Ticks
    position: LogPosition


@dataclass(frozen=True, slots=True)
class BarSlice:
    """Bars of one frame, or of the part of it that is due; a bar's event time is its end."""

    bars: Bars
    position: LogPosition


@dataclass(frozen=True, slots=True)
class EventRecord:
    """One event and where it stood."""

    event: Event
    position: LogPosition


Record = TickSlice | BarSlice | EventRecord


@dataclass(frozen=True, slots=True)
class TaskId:
    """The unit of state and ownership: (service, broker, partition)."""

    service: str
    scope: Scope
    partition: int

    def __str__(self) -> str:
        return f"{self.scope}.{self.service}[{self.partition}]"


@dataclass(frozen=True, slots=True)
class Readiness:
    """Which of a task's instruments are WARMING: their feature rows do not equal those of a full-history run yet."""

    instruments: int
    """How many may be traded."""
    warming: tuple[str, ...] = ()
    """Symbols of those on which nothing is opened."""

    def __str__(self) -> str:
        if not self.warming:
            return f"all {self.instruments} warm"
        more = ", …" if len(self.warming) > _NAMED else ""
        return f"WARMING {len(self.warming)} of {self.instruments} ({', '.join(self.warming[:_NAMED])}{more})"
