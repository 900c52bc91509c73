"""What comes off the log: slices of the market, events, where they stood, and the task that they are for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from feature_store.market.types import Bars, Ticks
from live_services.domain.events import Event
from live_services.domain.topics import Scope
from models_registry.refs import Alias

RUNNER: Final = "strategy_runner"
"""The service that runs the strategies; several rooms ask for its tasks."""
Reached = tuple[int, int]
"""Open of a session and the watermark that was reached in it, UTC epoch nanoseconds."""
NOTHING: Final[Reached] = (-1, -1)
"""Reached by who has not begun."""
_NAMED: Final = 5  # symbols in a line; a whole exchange would not fit


@dataclass(frozen=True, slots=True)
class LogPosition:
    """Where a record stood on the log; for ``Basis`` only."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True, eq=False)
class MarketSlice:
    """Ticks or bars of one frame, or of the part of it that is due, in order of event time."""

    whole: Ticks | Bars
    """Of the frame."""
    position: LogPosition
    first: int = 0
    end: int | None = None
    """Rows of the part, up to this one; None: to the last. Columns are cut when they are asked for."""

    @property
    def market(self) -> Ticks | Bars:
        """The rows of the part."""
        return self.whole if self.first == 0 and self.end is None else self.whole[self.first : self.end]

    @property
    def times_ns(self) -> NDArray[np.int64]:
        """Event time of each row: a tick's own, a bar's end."""
        return event_times(self.whole)[self.first : self.end]

    @property
    def instrument(self) -> NDArray[np.int32]:
        """Index in the universe of each row."""
        return self.whole.instrument[self.first : self.end]

    @property
    def last_price(self) -> NDArray[np.float64]:
        """Rupees, of each row: a tick's price, a bar's close."""
        whole = self.whole
        return (whole.last_price if isinstance(whole, Ticks) else whole.close)[self.first : self.end]

    def __len__(self) -> int:
        return len(self.instrument)

    def part(self, first: int, end: int) -> MarketSlice:
        """Give the slice of these rows, counted from its own first one."""
        return MarketSlice(self.whole, self.position, self.first + first, self.first + end)


class EventRecord(NamedTuple):
    """One event and where it stood."""

    event: Event
    position: LogPosition


Record = MarketSlice | EventRecord

NOWHERE: Final = LogPosition("", -1, -1)
"""Where an event stands that is not on the log: a backtest's."""


def event_times(market: Ticks | Bars) -> NDArray[np.int64]:
    """Give the event time of each row, shape ``(n,)``: a tick's own, a bar's end."""
    return market.event_time_ns if isinstance(market, Ticks) else market.end_ns


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


@dataclass(frozen=True, slots=True)
class StrategyRuntime:
    """What a task runs of a strategy on a rung, whatever is configured."""

    strategy: str
    rung: Alias
    state: Literal["ready", "disabled", "waiting"]
    """ready: a version is loaded and scores. disabled: none does, and it is known why. waiting: the registry or the
    ledger has not answered yet."""
    model_name: str
    version: str = ""
    """Which one scores; empty unless ready."""
    reason: str = ""
    """Why none scores, or what is amiss: what stands on the rung does not run, a rule fails. Empty if nothing is."""
    note: str = ""
    """What people must know of what scores, and is no fault: that its gate was overruled."""
