"""Every Redis key of the platform, each with the type of what stands there; writers and readers take both from here.

Those of the online feature store, ``alpha-panda:shared:features:…``, are in `feature_store.online.blocks`: notebooks
read them without the live side.
"""

from __future__ import annotations

from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from feature_store.online.blocks import PREFIX
from live_services.domain.events import BrokerStrategies, PnlSnapshot
from live_services.domain.log import StrategyRuntime
from live_services.domain.pipeline_findings import PipelineFindings
from live_services.domain.topics import Scope

Value = TypeVar("Value", bound=BaseModel)
Count = Annotated[int, Field(ge=0)]


class WrongContent(ValueError):
    """What stands under a key is not what belongs there."""


class NotJson(WrongContent):
    """It is not JSON at all: cut off, or somebody else's."""


class NotOfItsKey(WrongContent):
    """It is JSON, but not of the type that the key declares: somebody else's, or another version's."""


class Key(str, Generic[Value]):
    """The name of a key, and what it holds: the JSON of one type."""

    value_type: type[Value]

    def __new__(cls, name: str, value_type: type[Value]) -> Key[Value]:
        """Name a key and say what it holds."""
        made = super().__new__(cls, name)
        made.value_type = value_type
        return made

    def write(self, value: Value) -> str:
        """Give what is to stand there."""
        return value.model_dump_json()

    def read(self, content: bytes | str) -> Value:
        """Read what stands there.

        Raises
        ------
        NotJson, NotOfItsKey
        """
        try:
            return self.value_type.model_validate_json(content)
        except ValidationError as problem:
            first = problem.errors(include_url=False)[0]
            if first["type"] == "json_invalid":
                raise NotJson(f"{self} holds no JSON: {first['msg']}") from None
            field = ".".join(map(str, first["loc"])) or "the whole"
            raise NotOfItsKey(
                f"{self} does not hold a {self.value_type.__name__}: {field}: {first['msg']}"
                f"{f', and {problem.error_count() - 1} more' if problem.error_count() > 1 else ''}"
            ) from None

    def read_or_none(self, content: bytes | str | None) -> Value | None:
        """Read what stands there; None for nothing, and for what does not belong there: the validator names that."""
        try:
            return self.read(content) if content is not None else None
        except WrongContent:
            return None


class TaskRecord(BaseModel):
    """The health of one service of a task, the same in Redis and at ``/health``."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    task: str
    service: str
    broker: Scope
    partition: Count
    watermark_ns: Count
    """Event time reached, UTC epoch nanoseconds; 0 before the first session."""
    session: str
    """Date of the open session, or empty."""
    live: bool
    """False while what was handled before a restart is run again."""
    records_handled: Count
    outputs: dict[str, Count]
    """Events committed by event type."""
    dead_letters: Count
    foreign_records: Count
    """On topics that only this task may write, by somebody else."""
    lag_records: Count
    """Records on the log that were not fetched yet."""
    waiting_for: str
    """Input partition that holds the merge, or empty."""
    pid: int
    host: str
    """Name of the computer that it runs on."""
    metrics_port: Count
    """Loopback port of the process; 0 where it serves none."""
    readiness: str
    """Which instruments are WARMING, in words; empty for a service without features."""
    warming: Count
    """How many are."""
    last_output_s: float
    """Wall clock of the last commit with an event of this service, seconds since 1970; 0: none since the start."""
    latency_s: float
    """Of its newest answer, from Kafka's time of what it answers to its commit, seconds of wall clock."""
    answered_s: float
    """Wall clock of that commit, seconds since 1970; 0: it has answered nothing since the start."""
    strategies: tuple[StrategyRuntime, ...]
    """What it runs of each strategy on each rung; empty for all but a strategy runner."""
    settings_wait: tuple[str, ...] = ()
    """What the settings would change of the configuration that the session was opened with, from the next one on."""


def task_health(scope: Scope, service: str, partition: int) -> Key[TaskRecord]:
    """Health of a service of a task: watermark, counts, what it waits for. Expires when the task stops reporting."""
    return Key(f"{PREFIX}:{scope}:health:{service}:{partition}", TaskRecord)


def task_health_pattern() -> str:
    """Pattern over all tasks' health."""
    return f"{PREFIX}:*:health:*"


def portfolio(scope: Scope) -> Key[PnlSnapshot]:
    """A broker's newest snapshot."""
    return Key(f"{PREFIX}:{scope}:portfolio", PnlSnapshot)


def pipeline_findings(scope: Scope) -> Key[PipelineFindings]:
    """What the pipeline validator found at its last look at a broker. Expires when it stops looking."""
    return Key(f"{PREFIX}:{scope}:pipeline", PipelineFindings)


def strategies(scope: Scope) -> Key[BrokerStrategies]:
    """What a broker's strategies run, as it was said last: how many run a version, and why others do not.

    Of several tasks of the runner the last one to change says it.
    """
    return Key(f"{PREFIX}:{scope}:strategies", BrokerStrategies)


def preflight_probe() -> str:
    """Written for a second to see whether this desk may write; nobody reads it."""
    return f"{PREFIX}:shared:preflight"
