"""The strategy loading summary: what each broker's strategies run, said at the start and on every change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Final

import structlog

from live_services.domain.events import BrokerStrategies, StrategiesSummarized, StrategyStanding, self_caused
from live_services.domain.log import StrategyRuntime, TaskId
from live_services.domain.strategy.asked import StrategyKey
from live_services.domain.strategy.loaded_model import RuleFailures
from live_services.services.model_loading import Refusal
from models_registry.specification import RUNG_OF_BROKER, Broker, StrategySpec

_log = structlog.get_logger("trading")


class LoadingSummaries:
    """What a process says of its strategies.

    The event is each task's own; in the log a summary stands once for all tasks, and there is one warning for each
    strategy that is skipped, until it runs or is skipped for another reason.

    Parameters
    ----------
    strategies : sequence of StrategySpec
        Of the settings.
    brokers : sequence of Broker
        Those that run.
    """

    def __init__(self, strategies: Sequence[StrategySpec], brokers: Sequence[Broker]) -> None:
        self._names: Final = {b: tuple(one.name for one in strategies if b in one.brokers) for b in brokers}
        self._warned: dict[StrategyKey, str] = {}
        self._refused: dict[StrategyKey, Refusal] = {}
        self._logged: tuple[BrokerStrategies, ...] = ()
        self._failed: dict[str, str] = {}

    def of(self, task: TaskId, date: str, standing: Sequence[StrategyRuntime], now_ns: int) -> StrategiesSummarized:
        """Sum up what a task runs in the session of a day (ISO), and say in the log what is new of it."""
        brokers = tuple(self._of_broker(broker, standing) for broker in self._names)
        for one in standing:
            self._warn(one)
        if brokers != self._logged:
            self._logged = brokers
            ready = {one.broker: f"{one.ready} of {one.configured} ready" for one in brokers}
            _log.info("strategies_loaded", session=date, **ready)
        return StrategiesSummarized(
            **self_caused("strategies", str(task), date, now_ns, *(str(one) for one in standing)),
            event_time_ns=now_ns,
            session_date=date,
            task=str(task),
            strategies=tuple(StrategyStanding(**asdict(one)) for one in standing),
            brokers=brokers,
        )

    def refused(self, key: StrategyKey, refusal: Refusal) -> None:
        """Warn once of a version that may not run, while another goes on or none need be there."""
        if self._refused.get(key) != refusal:
            self._refused[key] = refusal
            _log.warning("model_refused", strategy=key[0], rung=key[1], version=refusal.version, reason=refusal.reason)

    def rules_failed(self, failures: Mapping[StrategyKey, RuleFailures]) -> None:
        """Say once how the rule of a strategy failed; where it does, nothing is proposed."""
        for (strategy, _), failed in failures.items():
            if self._failed.get(strategy) != failed.first:
                self._failed[strategy] = failed.first
                _log.error(
                    "rule_failed", strategy=strategy, reason=failed.first, consequence="such rows propose nothing"
                )

    def _of_broker(self, broker: Broker, standing: Sequence[StrategyRuntime]) -> BrokerStrategies:
        mine = [s for s in standing if s.rung == RUNG_OF_BROKER[broker] and s.strategy in self._names[broker]]
        lacking = {one.strategy: one.reason for one in mine if one.state != "ready"}
        return BrokerStrategies(
            broker=broker,
            configured=len(self._names[broker]),
            ready=len(mine) - len(lacking),
            skipped=lacking,
        )

    def _warn(self, one: StrategyRuntime) -> None:
        key = one.strategy, one.rung
        if one.state == "ready":
            self._warned.pop(key, None)
            return
        reason = one.reason if one.state == "disabled" else one.state  # an outage has many words
        if one.rung == "challenger" or self._warned.get(key) == reason:
            return  # nobody waits for a challenger
        self._warned[key] = reason
        _log.warning("strategy_skipped", strategy=one.strategy, rung=one.rung, model=one.model_name, reason=one.reason)
