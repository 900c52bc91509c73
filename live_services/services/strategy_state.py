"""What one task of the strategy runner keeps of a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import astuple, dataclass, field
from typing import Any

from live_services.domain.configuration import config_digest
from live_services.domain.log import StrategyRuntime, TaskId
from live_services.domain.snapshot import CorruptSnapshot, Tree
from live_services.domain.strategy.asked import StrategyKey
from live_services.domain.strategy.desk import StrategyDesk
from live_services.domain.strategy.history import HistoryUsed
from live_services.domain.strategy.loaded_model import LoadedModel
from live_services.domain.strategy.written_desk import ModelOf, restore_desk, written_desk
from live_services.domain.written import fields_of
from live_services.services.model_loading import Refusal
from live_services.services.session_plans import SessionPlan


@dataclass(slots=True)
class StrategyState:
    """One task's strategies for one session."""

    task: TaskId
    plan: SessionPlan
    """By which configuration it goes through the session."""
    desk: StrategyDesk
    carried: Mapping[StrategyKey, LoadedModel]
    """What ran at the end of the session before."""
    configured: bool = False
    """Whether the log says by which configuration."""
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

    def snapshot(self) -> Tree:
        """Write down what was decided, said and assigned; models by name and version."""
        carried = {key: model.identity for key, model in self.carried.items()}
        return {
            "configuration": config_digest(self.plan.config),
            "desk": written_desk(self.desk),
            "carried": [[*key, one.model_name, one.model_version] for key, one in carried.items()],
            "configured": self.configured,
            "offered_ns": self.offered_ns,
            "history_logged": None if self.history_logged is None else self.history_logged.snapshot(),
            "warming": self.warming,
            "refused": sorted([*key, refusal.version, refusal.reason] for key, refusal in self.refused),
            "summarized": None if self.summarized is None else [astuple(one) for one in self.summarized],
            "stopped": self.stopped,
        }

    def restore(self, kept: Tree, model_of: ModelOf, known: Callable[[str, str], LoadedModel | None]) -> None:
        """Go on where a snapshot was taken, by the same configuration and on the same history.

        Parameters
        ----------
        model_of
            Gives the versions that the session runs, as strategies ask them.
        known
            Gives a version by name and version; None for one that only the session before ran, which a process that
            began in this one never had.

        Raises
        ------
        CorruptSnapshot
            If it is of another configuration.
        """
        there = fields_of(kept)
        if there["configuration"] != config_digest(self.plan.config):
            raise CorruptSnapshot("it is of another configuration of the strategies")
        restore_desk(self.desk, there["desk"], model_of)
        carried = {(strategy, rung): known(name, version) for strategy, rung, name, version in there["carried"]}
        self.carried = {key: model for key, model in carried.items() if model is not None}
        self.configured = there["configured"]
        self.offered_ns, self.stopped = there["offered_ns"], there["stopped"]
        self.history_logged = HistoryUsed.restored(there["history_logged"]) if there["history_logged"] else None
        self.warming = _tuple_or_none(there["warming"])
        self.refused = {((strategy, rung), Refusal(*said)) for strategy, rung, *said in there["refused"]}
        said = there["summarized"]
        self.summarized = None if said is None else tuple(StrategyRuntime(*one) for one in said)


def _tuple_or_none(kept: Any) -> tuple[str, ...] | None:
    return None if kept is None else tuple(kept)


def used_in(kept: Tree) -> HistoryUsed:
    """Give what the features of a snapshot stand on."""
    return HistoryUsed.restored(fields_of(fields_of(kept)["desk"])["bars"]["used"])
