"""What the pipeline validator makes of a look at Kafka and Redis: which stage of which broker is amiss, and how.

Gating comes first: what is not to run, has no strategy or has a closed market is not judged. Whether the market is
closed says the log, so a replay at any speed is judged like a live day, and one that is over is idle. Each fault is
named where it is: a consumer behind a stage that stands still is not stuck, and one that is gone is not either.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from feature_store.market.types import SECOND_NS, Session, ist_text
from live_services.domain.clock import session_end_ns
from live_services.domain.keys import NotJson, TaskRecord, WrongContent
from live_services.domain.log import NOTHING, RUNNER, Reached, TaskId
from live_services.domain.pipeline_findings import Finding, Gate, PipelineFindings, Stage
from models_registry.specification import Broker

_Watched = tuple[Literal["market", "said", "position"], TaskId | None]
_STAGES_OF_ACCOUNT: Final[Mapping[Stage, str]] = {
    "risk": "risk_manager",
    "orders": "{broker}_trading",
    "portfolio": "portfolio_manager",
}


@dataclass(frozen=True, slots=True)
class Thresholds:
    """What is called late, behind or stuck; seconds of wall clock."""

    no_recent_data_s: float
    high_latency_s: float
    consumer_lag_records: int
    stuck_s: float
    judges_pace: bool = True
    """False: the feed goes as fast as the log takes it, so latency and lag say nothing of the services."""


@dataclass(frozen=True, slots=True)
class BrokerPlan:
    """What the settings say of a broker."""

    broker: Broker
    active_strategies: tuple[str, ...]
    not_running: str | None = None
    """Why its account does not run; None if it does."""
    trading_off: str | None = None
    """Why it gives no orders; None if it does."""


@dataclass(frozen=True, slots=True)
class Position:
    """What a task has committed on Kafka."""

    reached: Reached = NOTHING
    lag_records: int = 0
    """Records that stand behind what it has committed, over all its inputs."""
    problem: str = ""
    """Why its offsets cannot be read; empty if they can."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen at one moment."""

    at_s: float
    """Wall clock, seconds since 1970."""
    session: Session | None = None
    """The newest that was told."""
    market: Reached = NOTHING
    """What every market partition has reached."""
    runner: Mapping[int, Position] = field(default_factory=dict)
    """Of the strategy runner's tasks, by market partition."""
    accounts: Mapping[Broker, Position] = field(default_factory=dict)
    health: Mapping[TaskId, TaskRecord | WrongContent | None] = field(default_factory=dict)
    """Of every service of every task that is to run; None: nothing stands there. A task left out was not asked."""
    portfolios: Mapping[Broker, WrongContent] = field(default_factory=dict)
    """Of those brokers under whose key something else stands."""
    kafka_problem: str = ""
    redis_problem: str = ""


class PipelineJudge:
    """Judges looks, one after another; it remembers since when what it sees has not changed.

    Parameters
    ----------
    plans
        One for each broker, also those that do not run.
    thresholds
    market_topic
        Name of the topic that the market comes on.
    """

    def __init__(self, plans: Sequence[BrokerPlan], thresholds: Thresholds, market_topic: str) -> None:
        self._plans: Final = plans
        self._limits: Final = thresholds
        self._topic: Final = market_topic
        self._unchanged: dict[_Watched, tuple[Hashable, float]] = {}

    def judge(self, look: Look) -> tuple[PipelineFindings, ...]:
        """Say what is amiss with each broker."""
        # Who could not say anything meanwhile has not stood still.
        if look.kafka_problem:
            self._forget("market", "position")
        if look.redis_problem:
            self._forget("said")
        shared = (*self._market(look), *self._signals(look))
        return tuple(self._of_broker(plan, look, shared) for plan in self._plans)

    def _of_broker(self, plan: BrokerPlan, look: Look, shared: Sequence[Finding]) -> PipelineFindings:
        gate = gate_of(plan, look)
        skipped: dict[Stage, str] = {"orders": plan.trading_off} if plan.trading_off is not None else {}
        account = tuple(self._account(plan, look, skipped)) if plan.not_running is None else ()
        watched = gate.state == "watched"
        return PipelineFindings(
            broker=plan.broker,
            at_s=look.at_s,
            active_strategies=plan.active_strategies,
            gate=gate,
            stages_skipped=skipped if watched else {},
            findings=(*shared, *account) if watched else (),
        )

    # --- stages ---------------------------------------------------------------------------------------------------

    def _market(self, look: Look) -> Iterator[Finding]:
        if look.kafka_problem:
            yield Finding(stage="market_data", issue="kafka_unavailable", what=look.kafka_problem)
            return
        still_s = self._unchanged_s(("market", None), (look.session, look.market), look.at_s)
        if look.session is None or _is_over(look.session, look.market) or still_s < self._limits.no_recent_data_s:
            return
        begun = look.market[0] == look.session.open_ns
        yield Finding(
            stage="market_data",
            issue="no_recent_data",
            what=f"nothing has come on {self._topic} for {still_s:.0f} s, and the session of {look.session.date} "
            + (f"is open, at {ist_text(look.market[1])}" if begun else "was told and has not begun")
            + ": the feed does not run, or stands still",
        )

    def _signals(self, look: Look) -> Iterator[Finding]:
        for task, seen in look.health.items():
            if task.service == RUNNER:
                yield from self._said("signals", task, seen, look.at_s)
        yield from _silent_redis(look, "signals")
        for partition, position in look.runner.items():
            task = TaskId(RUNNER, "shared", partition)
            yield from self._consumed("signals", task, position, look.market, look)

    def _account(self, plan: BrokerPlan, look: Look, skipped: Mapping[Stage, str]) -> Iterator[Finding]:
        for stage, service in _STAGES_OF_ACCOUNT.items():
            if stage in skipped:
                continue
            task = TaskId(service.format(broker=plan.broker), plan.broker, 0)
            if task in look.health:
                yield from self._said(stage, task, look.health[task], look.at_s)
            yield from _silent_redis(look, stage)
        if (wrong := look.portfolios.get(plan.broker)) is not None:
            yield _unreadable("portfolio", wrong)
        if (position := look.accounts.get(plan.broker)) is not None:
            before = min((look.market, *(runner.reached for runner in look.runner.values())))
            yield from self._consumed("risk", TaskId("risk_manager", plan.broker, 0), position, before, look)

    def _said(
        self, stage: Stage, task: TaskId, seen: TaskRecord | WrongContent | None, at_s: float
    ) -> Iterator[Finding]:
        """Judge what a service says of itself."""
        gone_s = self._unchanged_s(("said", task), seen is None, at_s)
        if isinstance(seen, WrongContent):
            yield _unreadable(stage, seen)
        elif seen is None:
            if gone_s >= self._limits.no_recent_data_s:
                what = f"{task} has said nothing for {gone_s:.0f} s: it does not run, or its process stands still"
                yield Finding(stage=stage, issue="no_recent_data", what=what)
        elif self._is_slow(seen, at_s):
            what = f"{task} took {seen.latency_s * 1000:,.0f} ms for its newest answer"
            yield Finding(stage=stage, issue="high_latency", what=what)

    def _is_slow(self, said: TaskRecord, at_s: float) -> bool:
        limits = self._limits
        recent = at_s - said.answered_s < limits.no_recent_data_s
        return limits.judges_pace and recent and said.latency_s > limits.high_latency_s

    def _consumed(
        self, stage: Stage, task: TaskId, position: Position, before: Reached, look: Look
    ) -> Iterator[Finding]:
        """Judge what a task has committed, against what the stage before it has reached."""
        if position.problem:
            yield Finding(stage=stage, issue="validation_error", what=position.problem)
            return
        if self._limits.judges_pace and position.lag_records > self._limits.consumer_lag_records:
            what = f"{position.lag_records:,} records stand before {task}"
            yield Finding(stage=stage, issue="consumer_lag", what=what)
        said = look.health.get(task)
        alive = said if isinstance(said, TaskRecord) else None
        again = alive.records_handled if alive is not None and not alive.live else 0  # commits nothing meanwhile
        behind = position.reached < before and not (task in look.health and said is None)
        still_s = self._unchanged_s(("position", task), (position.reached, again) if behind else None, look.at_s)
        if behind and still_s >= self._limits.stuck_s:
            at = f"at {ist_text(position.reached[1])}" if position.reached[1] > 0 else "before its first record"
            held = f"; it says that it waits for {alive.waiting_for}" if alive is not None and alive.waiting_for else ""
            what = (
                f"{task} has stood {at} for {still_s:.0f} s, while what it reads has got to {ist_text(before[1])}{held}"
            )
            yield Finding(stage=stage, issue="stuck_consumer", what=what)

    def _forget(self, *kinds: str) -> None:
        self._unchanged = {what: seen for what, seen in self._unchanged.items() if what[0] not in kinds}

    def _unchanged_s(self, what: _Watched, value: Hashable, at_s: float) -> float:
        """Give the seconds since it had another value, or was seen first."""
        before = self._unchanged.get(what)
        if before is None or before[0] != value:
            before = self._unchanged[what] = (value, at_s)
        return at_s - before[1]


def gate_of(plan: BrokerPlan, look: Look) -> Gate:
    """Say whether a broker is judged; a Kafka that is away hides whether its market is open, and is told."""
    if plan.not_running is not None:
        return Gate(state="skipped", reason=plan.not_running)
    if not plan.active_strategies:
        return Gate(state="suppressed", reason=f"no strategy of the settings targets {plan.broker}")
    if look.kafka_problem:
        return Gate(state="watched")
    closed = _why_closed(look, look.accounts.get(plan.broker, Position()))
    return Gate(state="idle", reason=closed) if closed else Gate(state="watched")


def _why_closed(look: Look, account: Position) -> str:
    """Say why there is no market to handle; empty while there is. What is left of a session that is over counts."""
    session = look.session
    if session is None:
        return "no session was told yet"
    if look.market[0] < session.open_ns and look.at_s * SECOND_NS < session.open_ns:
        return f"the session of {session.date} opens at {ist_text(session.open_ns)}"
    handled = [position.reached for position in (account, *look.runner.values()) if position.reached != NOTHING]
    if _is_over(session, look.market) and all(_is_over(session, reached) for reached in handled):
        return f"the session of {session.date} is over, and was handled to its end"
    return ""


def _is_over(session: Session, reached: Reached) -> bool:
    return reached >= (session.open_ns, session_end_ns(session))


def _silent_redis(look: Look, stage: Stage) -> Iterator[Finding]:
    if look.redis_problem:
        yield Finding(stage=stage, issue="redis_unavailable", what=look.redis_problem)


def _unreadable(stage: Stage, wrong: WrongContent) -> Finding:
    issue = "metrics_parse_error" if isinstance(wrong, NotJson) else "validation_error"
    return Finding(stage=stage, issue=issue, what=str(wrong))
