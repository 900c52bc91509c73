"""Pipeline validator: looks at Kafka and Redis every few seconds, and says which stage of which broker is amiss.

It only looks: nobody waits for it, and it consumes nothing. `live_services.domain.pipeline` judges what it sees.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

import structlog
from aiokafka import TopicPartition

from live_services.adapters.health import HEALTH_TTL_SECONDS, TaskHealth
from live_services.adapters.pipeline_view import Committed, KafkaView, MarketView, RedisView, Unavailable
from live_services.adapters.progress_marks import ProgressMark
from live_services.adapters.telemetry import Telemetry
from live_services.domain import keys
from live_services.domain.clock import session_of
from live_services.domain.keys import TaskRecord, WrongContent
from live_services.domain.log import NOTHING, RUNNER, TaskId
from live_services.domain.pipeline import BrokerPlan, Look, PipelineJudge, Position, Thresholds
from live_services.domain.pipeline_findings import PipelineFindings, Stage
from live_services.domain.topics import Scope, consumer_group, market_topic
from live_services.runtime.failures import WrongShape
from live_services.runtime.positions import decode_position
from live_services.settings import Settings
from models_registry.specification import Broker

Warn = Callable[[Stage, Broker, str], None]
"""Counts what was found: stage, broker, issue."""

_log = structlog.get_logger("monitoring")

_TIMES: Final = 3
"""So many cuts of a slow replay may be missing before it is said to stand still."""
_IDLE_STEP_S: Final = {"ticks": 0.1, "bars": 1.0}
"""Event time between two cuts of an idle market."""


def thresholds(settings: Settings) -> Thresholds:
    """Give what the settings call late, behind or stuck; a replay slower than the market stands still for longer."""
    monitoring, market = settings.monitoring, settings.market
    step_s = max(market.frame_ms / 1000 if market.feed == "ticks" else 0.0, _IDLE_STEP_S[market.feed])
    slow_s = _TIMES * step_s / market.speed if market.speed else 0.0
    return Thresholds(
        no_recent_data_s=max(monitoring.no_recent_data_seconds, slow_s),
        high_latency_s=monitoring.high_latency_ms / 1000,
        consumer_lag_records=monitoring.consumer_lag_records,
        stuck_s=max(monitoring.stuck_seconds, slow_s),
        judges_pace=market.speed > 0,
    )


class PipelineValidator:
    """Takes looks, has them judged, and says what has changed since the look before; an async context manager.

    Parameters
    ----------
    settings
    plans
        One for each broker, also those that do not run.
    tasks
        Every service of every task that is to say in Redis how it is.
    telemetry
    warn

    Raises
    ------
    live_services.adapters.kafka.KafkaSetupError
        On entering, if no Kafka answers; one that is away later is found amiss.
    """

    name = "pipeline_validator"
    scope: Scope = "shared"

    def __init__(
        self,
        settings: Settings,
        plans: Sequence[BrokerPlan],
        tasks: Sequence[TaskId],
        telemetry: Telemetry,
        warn: Warn,
    ) -> None:
        market, limits = market_topic(settings.market.feed), thresholds(settings)
        self._tasks: Final = tasks
        self._running: Final = tuple(plan.broker for plan in plans if plan.not_running is None)
        self._accounts: Final = {broker: consumer_group("account", broker) for broker in self._running}
        self._runner: Final = consumer_group(RUNNER, "shared")
        self._partitions: Final = range(market.partitions(settings.kafka.market_partitions))
        self._judge: Final = PipelineJudge(plans, limits, market.name)
        self._kafka: Final = KafkaView(settings.kafka, market, [self._runner, *self._accounts.values()])
        self._redis: Final = RedisView(settings.redis.url.get_secret_value())
        self._interval_s: Final = settings.monitoring.interval_seconds
        self._findings_stand_s: Final = max(HEALTH_TTL_SECONDS, round(3 * self._interval_s))
        self._telemetry: Final = telemetry
        self._warn: Final = warn
        self._mark: Final = ProgressMark(settings.alpha_panda_home, self.name)
        self._looks = 0
        self._said: dict[tuple[str, ...], object] = {}
        if not limits.judges_pace:
            _log.info("pace_is_not_judged", reason="market.speed is 0: the replay goes as fast as the log takes it")
        if not self._redis.is_set:
            _log.info("health_is_not_judged", reason="redis.url is empty, so services say nowhere how they are")

    async def __aenter__(self) -> Self:
        await self._kafka.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._kafka.__aexit__(kind, error, trace)
        await self._redis.close()

    async def run(self, stop: asyncio.Event) -> None:
        """Look until the event is set."""
        while not stop.is_set():
            await self.look()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._interval_s):
                    await stop.wait()

    async def look(self) -> tuple[PipelineFindings, ...]:
        """Take one look, and say and write what was found."""
        seen = await self._see()
        found = self._judge.judge(seen)
        for of_broker in found:
            self._tell(of_broker)
        await self._write(found)
        self._report(seen)
        return found

    # --- seeing ---------------------------------------------------------------------------------------------------

    async def _see(self) -> Look:
        view, kafka_problem = MarketView(None, {}, {}), ""
        health: dict[TaskId, TaskRecord | WrongContent | None] = {}
        portfolios: dict[Broker, WrongContent] = {}
        redis_problem = ""
        try:
            view = await self._kafka.look()
        except Unavailable as problem:
            kafka_problem = str(problem)
        try:
            health, portfolios = await self._said_in_redis()
        except Unavailable as problem:
            redis_problem = str(problem)
        runner = view.groups.get(self._runner, {})
        by_partition = {p: {tp: at for tp, at in runner.items() if tp.partition == p} for p in self._partitions}
        return Look(
            at_s=time.time(),
            session=session_of(view.session) if view.session is not None else None,
            market=min((view.reached.get(p, NOTHING) for p in self._partitions), default=NOTHING),
            runner={p: _position(self._runner, at) for p, at in by_partition.items()} if not kafka_problem else {},
            accounts={b: _position(g, view.groups.get(g, {})) for b, g in self._accounts.items()}
            if not kafka_problem
            else {},
            health=health,
            portfolios=portfolios,
            kafka_problem=kafka_problem,
            redis_problem=redis_problem,
        )

    async def _said_in_redis(
        self,
    ) -> tuple[dict[TaskId, TaskRecord | WrongContent | None], dict[Broker, WrongContent]]:
        of_tasks = {task: keys.task_health(task.scope, task.service, task.partition) for task in self._tasks}
        of_books = {broker: keys.portfolio(broker) for broker in self._running}
        contents = await self._redis.contents([*of_tasks.values(), *of_books.values()])
        if not self._redis.is_set:
            return {}, {}
        books = {broker: read_under(key, contents[key]) for broker, key in of_books.items()}
        return (
            {task: _of_task(task, key, contents[key]) for task, key in of_tasks.items()},
            {broker: wrong for broker, wrong in books.items() if isinstance(wrong, WrongContent)},
        )

    # --- saying ---------------------------------------------------------------------------------------------------

    def _tell(self, found: PipelineFindings) -> None:
        """Count every finding, and log what is new and what is over, once."""
        for finding in found.findings:
            self._warn(finding.stage, found.broker, finding.issue)
        strategies = list(found.active_strategies)
        if self._is_new(("gate", found.broker), (found.gate, found.stages_skipped)):
            gate, said = found.gate, {"broker": found.broker, "active_strategies": strategies}
            _log.info(f"pipeline_{gate.state}", **said, **({"reason": gate.reason} if gate.reason else {}))
            for stage, reason in found.stages_skipped.items():
                _log.info("pipeline_skipped", **said, stage=stage, reason=reason)
        stages: dict[str, dict[str, list[str]]] = {}
        for finding in found.findings:
            stages.setdefault(finding.issue, {}).setdefault(finding.stage, []).append(finding.what)
        for issue, by_stage in stages.items():
            if self._is_new(("issue", found.broker, issue), tuple(by_stage)):
                what = list(dict.fromkeys(line for lines in by_stage.values() for line in lines))
                _log.warning(issue, broker=found.broker, stages=list(by_stage), what=what, active_strategies=strategies)
        for said_before in [key for key in self._said if key[:2] == ("issue", found.broker) and key[2] not in stages]:
            del self._said[said_before]
            _log.info("issue_is_over", broker=found.broker, issue=said_before[2])

    def _is_new(self, what: tuple[str, ...], value: object) -> bool:
        is_new = self._said.get(what) != value
        self._said[what] = value
        return is_new

    async def _write(self, found: Sequence[PipelineFindings]) -> None:
        of_brokers = ((keys.pipeline_findings(of_broker.broker), of_broker) for of_broker in found)
        try:
            await self._redis.write({key: key.write(one) for key, one in of_brokers}, self._findings_stand_s)
        except Unavailable:
            return  # the next look finds Redis amiss, and says it

    def _report(self, seen: Look) -> None:
        self._looks += 1
        self._mark.got_on()
        session = seen.session.date.isoformat() if seen.session is not None else ""
        task, pid = TaskId(self.name, self.scope, 0), os.getpid()
        self._telemetry.report(
            TaskHealth(task, max(seen.market[1], 0), session, True, self._looks, {}, 0, 0, 0, "", pid, None, seen.at_s)
        )
        self._telemetry.active(self.name, self.scope)


def read_under(key: keys.Key[keys.Value], content: bytes | str | None) -> keys.Value | WrongContent | None:
    """Read what stands under a key; what does not belong there is a value."""
    try:
        return key.read(content) if content is not None else None
    except WrongContent as wrong:
        return wrong


def _of_task(task: TaskId, key: keys.Key[TaskRecord], content: bytes | str | None) -> TaskRecord | WrongContent | None:
    said = read_under(key, content)
    if isinstance(said, TaskRecord) and (said.service, said.broker, said.partition) != (
        task.service,
        task.scope,
        task.partition,
    ):
        return keys.NotOfItsKey(f"{key} holds the health of {said.task}")
    return said


def _position(group: str, committed: Mapping[TopicPartition, Committed]) -> Position:
    """Read what a task has committed of its partitions."""
    lag = sum(max(0, at.end - at.offset) for at in committed.values())
    try:
        said = [decode_position(group, tp, at.offset, at.metadata) for tp, at in committed.items()]
    except WrongShape as problem:
        return Position(lag_records=lag, problem=str(problem))
    reached = min(((one.session_open_ns, one.watermark_ns) for one in said), default=NOTHING)
    return Position(reached, lag)
