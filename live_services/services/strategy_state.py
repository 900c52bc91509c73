"""What one task of the strategy runner keeps of a session."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from live_services.domain.log import StrategyRuntime, TaskId
from live_services.domain.strategy.desk import StrategyDesk, StrategyKey
from live_services.domain.strategy.history import HistoryUsed
from live_services.domain.strategy.loaded_model import LoadedModel
from live_services.services.model_loading import Refusal


@dataclass(slots=True)
class StrategyState:
    """One task's strategies for one session."""

    task: TaskId
    desk: StrategyDesk
    carried: Mapping[StrategyKey, LoadedModel]
    """What ran at the end of the session before."""
    offered_ns: int = 0
    """The decision whose rows went to the sink."""
    history_logged: HistoryUsed | None = None
    """What the log says that the features stand on."""
    warming: tuple[str, ...] | None = None
    """Symbols that were said to be WARMING; None before the first word on it."""
    refused: set[tuple[StrategyKey, Refusal]] = field(default_factory=set)
    """What was announced as refused."""
    summarized: tuple[StrategyRuntime, ...] | None = None
    """What the last loading summary said, without the words of an outage."""
    stopped: str = ""
    """Why nothing is proposed any more in this session; empty: it is."""

    def running(self, key: StrategyKey) -> LoadedModel | None:
        """Give what a strategy runs on a rung."""
        current = self.desk.assigned(key)
        return current.model if current is not None else None
