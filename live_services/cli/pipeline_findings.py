"""What the pipeline validator found at its last look, for `status`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

from rich.markup import escape

from live_services.cli.output import Document, Field, FittingTable
from live_services.domain import keys
from live_services.domain.pipeline_findings import STAGES, PipelineFindings
from live_services.domain.topics import BROKERS
from models_registry.specification import Broker

if TYPE_CHECKING:
    from redis import Redis

_PASSING: Final = ("high_latency", "consumer_lag")
"""Issues that a start, a restart or a busy minute brings and that go by themselves."""
_COLOURS: Final[Mapping[str, str]] = {"watched": "green", "idle": "dim", "suppressed": "dim", "skipped": "dim"}


def read_pipeline_findings(client: Redis) -> tuple[PipelineFindings, ...]:
    """Read what was found at each broker; a broker at which nobody looked lately is absent.

    Raises
    ------
    redis.RedisError
        If Redis does not answer.
    """
    found = [key.read_or_none(client.get(key)) for key in map(keys.pipeline_findings, BROKERS)]
    return tuple(one for one in found if one is not None)


def pipeline_ailments(found: Sequence[PipelineFindings]) -> list[str]:
    """Say what stands still or cannot be seen, a line for each thing; what all brokers share is said once.

    A latency and a lag are in the table and the metrics only: a desk that catches up is not unwell.
    """
    brokers: dict[tuple[str, str], dict[Broker, None]] = {}
    stages: dict[tuple[str, str], dict[str, None]] = {}
    for one in found:
        for finding in one.findings:
            if finding.issue in _PASSING:
                continue
            brokers.setdefault((finding.issue, finding.what), {})[one.broker] = None
            stages.setdefault((finding.issue, finding.what), {})[finding.stage] = None
    return [
        f"{issue} at {', '.join(stages[issue, what])} ({', '.join(of_brokers)}): {what}"
        for (issue, what), of_brokers in brokers.items()
    ]


def pipeline_records(found: Sequence[PipelineFindings]) -> list[Document]:
    """Give it as JSON."""
    return [one.model_dump(mode="json") for one in found]


def pipeline_table(found: Sequence[PipelineFindings]) -> FittingTable:
    """Lay it out, a line for each broker: whether it is watched, how each stage is, and why one is not looked at."""
    table = FittingTable(
        (
            Field("broker"),
            Field("pipeline"),
            *(Field(stage.replace("_", " "), text=True) for stage in STAGES),
            Field("strategies", leave_out=1, text=True),
            Field("because", text=True),
        )
    )
    for one in found:
        issues = {stage: [f.issue for f in one.findings if f.stage == stage] for stage in STAGES}
        watched = one.gate.state == "watched"
        state = f"[{_COLOURS[one.gate.state]}]{one.gate.state}[/]"
        table.add_row(
            one.broker,
            state,
            *(_stage(issues[stage], skipped=stage in one.stages_skipped) if watched else "" for stage in STAGES),
            escape(", ".join(one.active_strategies) or "none"),
            escape(one.gate.reason or "; ".join(one.stages_skipped.values())),
        )
    return table


def _stage(issues: Sequence[str], *, skipped: bool) -> str:
    if issues:
        return f"[bold red]{', '.join(dict.fromkeys(issues))}[/]"
    return "skipped" if skipped else "[green]ok[/]"
