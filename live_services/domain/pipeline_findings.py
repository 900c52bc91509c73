"""What the pipeline validator may say of a broker: what is watched, what is amiss, and where."""

from __future__ import annotations

from typing import Final, Literal, get_args

from pydantic import Field

from live_services.domain.events.envelope import Frozen
from models_registry.specification import Broker

Stage = Literal["market_data", "signals", "risk", "orders", "portfolio"]
STAGES: Final[tuple[Stage, ...]] = get_args(Stage)
"""Stages in the order in which a tick meets them."""

Issue = Literal[
    "kafka_unavailable",
    "redis_unavailable",
    "metrics_parse_error",
    "validation_error",
    "no_recent_data",
    "high_latency",
    "consumer_lag",
    "stuck_consumer",
]
"""kafka_unavailable    Kafka did not answer in time, or refused.
redis_unavailable    Redis did not answer in time, or refused.
metrics_parse_error  what stands under a key of Redis is no JSON.
validation_error     it is JSON, but not what the key declares; or a group's offsets are not of this runtime.
no_recent_data       the market stands still in an open session, or a service says nothing of itself.
high_latency         an answer took too long, from Kafka's time of what it answers to its commit.
consumer_lag         too many records stand before a consumer.
stuck_consumer       a consumer that says it is alive stands still, and what it waits for is there."""
ISSUES: Final[tuple[Issue, ...]] = get_args(Issue)

GateState = Literal["watched", "idle", "suppressed", "skipped"]
"""watched     every stage is judged.
idle        the market is closed.
suppressed  no strategy targets the broker.
skipped     it is not to run."""


class Gate(Frozen):
    """Whether there is anything to judge, and why not."""

    state: GateState
    reason: str = ""
    """Empty while it is watched."""


class Finding(Frozen):
    """One thing amiss."""

    stage: Stage
    issue: Issue
    what: str
    """What happened, to whom, and since when, in a sentence."""


class PipelineFindings(Frozen):
    """One look at a broker."""

    broker: Broker
    at_s: float
    """Wall clock, seconds since 1970."""
    active_strategies: tuple[str, ...]
    """Those that the settings give it."""
    gate: Gate
    stages_skipped: dict[Stage, str] = Field(default_factory=dict)
    """Stages that are not judged although the broker is watched, each with the reason."""
    findings: tuple[Finding, ...] = ()
