"""By which configuration a strategy runner goes through a session: that of the log, else that of the settings.

Whoever restarts it in the middle of a session with other settings changes nothing of that session: they hold from the
next one on.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from feature_store.market.types import Session, ist_text
from live_services.domain.configuration import StrategiesConfig, config_digest
from live_services.domain.events import StrategiesConfigured, self_caused
from live_services.domain.log import TaskId
from live_services.domain.strategy.asked import StrategyKey, asked
from live_services.domain.strategy.loaded_model import LoadedModel
from live_services.runtime.failures import WrongShape
from live_services.services.loading_summary import LoadingSummaries
from live_services.services.model_loading import ModelLoader, Refusal
from models_registry.specification import Broker, StrategySpec


@dataclass(frozen=True, slots=True, eq=False)
class SessionPlan:
    """A configuration, and what follows its models."""

    config: StrategiesConfig
    loader: ModelLoader
    asked: Mapping[StrategyKey, StrategySpec]
    """Each strategy on each rung."""
    summaries: LoadingSummaries

    @classmethod
    def of(cls, config: StrategiesConfig, loader: ModelLoader) -> SessionPlan:
        """Make the plan of a configuration whose models a loader follows."""
        each = {(one.spec.name, one.rung): one.spec for one in asked(config.strategies, config.brokers)}
        return cls(config, loader, each, LoadingSummaries(config.strategies, config.brokers))

    @property
    def silence(self) -> str:
        """Why it is not known what stands on a rung."""
        return self.loader.outage or "the model registry has not answered yet"

    def carried(
        self, before: SessionPlan, running: Mapping[StrategyKey, LoadedModel]
    ) -> dict[StrategyKey, LoadedModel]:
        """Give those of the models of the session before that the same strategies may go on with."""
        if self.config.bar_minutes != before.config.bar_minutes:
            return {}
        return {key: model for key, model in running.items() if self.asked.get(key) == before.asked[key]}


class SessionPlans:
    """The plan of the settings, and those of sessions that were opened before this process began.

    Parameters
    ----------
    config : StrategiesConfig
        Of the settings.
    loader : ModelLoader
        Of the same strategies and brokers.
    speaks_to : collection of Broker
        All that it may speak to.
    """

    def __init__(self, config: StrategiesConfig, loader: ModelLoader, speaks_to: Collection[Broker]) -> None:
        self.own: Final = SessionPlan.of(config, loader)
        self._speaks_to: Final = frozenset(speaks_to)
        self._logged: dict[tuple[int, str], SessionPlan] = {}

    def learn(self, task: TaskId, event: StrategiesConfigured) -> None:
        """Take what the log says that a task's session was opened with.

        Raises
        ------
        WrongShape
            If it speaks to a broker that this process was not built to speak to.
        """
        if gone := sorted(set(event.config.brokers) - self._speaks_to):
            raise WrongShape(
                f"{task}: the session of {event.session_date} was opened for the brokers "
                f"{', '.join(event.config.brokers)}, and this process did not know of {', '.join(gone)} when it "
                "started: the next start does"
            )
        alike = (plan for plan in (self.own, *self._logged.values()) if plan.config == event.config)
        known = next(alike, None)
        if known is None:
            config = event.config
            beside = self.own.loader.beside(config.strategies, brokers=config.brokers, bar_minutes=config.bar_minutes)
            known = SessionPlan.of(config, beside)
        self._logged[task.partition, event.session_date] = known

    def of(self, task: TaskId, date: str) -> SessionPlan:
        """Give the plan of a task's session, by its ISO date."""
        return self._logged.get((task.partition, date), self.own)

    async def start(self) -> None:
        """Look at the ledger once for each plan and go on in the background; a second call changes nothing."""
        loaders: Iterable[ModelLoader] = dict.fromkeys(plan.loader for plan in (self.own, *self._logged.values()))
        await asyncio.gather(*(loader.start() for loader in loaders))


def strategies_configured(
    task: TaskId, date: str, config: StrategiesConfig, git_commit: str, now_ns: int
) -> StrategiesConfigured:
    """Say by which configuration a task goes through the session of a day (ISO)."""
    return StrategiesConfigured(
        **self_caused("strategies_configured", str(task), date),
        event_time_ns=now_ns,
        session_date=date,
        config=config,
        config_digest=config_digest(config),
        git_commit=git_commit,
    )


def knows_too_much(model: LoadedModel, session: Session) -> Refusal | None:
    """Say why a version may not trade this session: it was trained on what happens in it, or later."""
    if model.training_end_ns <= session.open_ns:
        return None
    return Refusal(
        model.identity.model_version,
        f"it was trained on data up to {ist_text(model.training_end_ns)}, after the session of {session.date} opened "
        f"({ist_text(session.open_ns)}), so it knows what is to come: set market.train_through to a day before "
        f"{session.date} and train again, or replay a later session",
    )
