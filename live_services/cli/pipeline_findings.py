"""What the pipeline validator found at its last look, for `status`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.markup import escape

from live_services.cli.output import Document, Field, FittingTable
from live_services.domain import keys
from live_services.domain.pipeline_findings import STAGES, PipelineFindings
from live_services.domain.topics import BROKERS
from live_services.settings import Settings
from models_registry.specification import Broker

_COLOURS: Mapping[str, str] = {"watched": "green", "idle": "dim", "suppressed": "dim", "skipped": "dim"}


def read_pipeline_findings(settings: Settings) -> tuple[PipelineFindings, ...]:
    """Read what was found at each broker; a broker at which nobody looked lately is absent.

    Raises
    ------
    redis.RedisError
        If Redis does not answer.
    """
    import redis

    url = settings.redis.url.get_secret_value()
    if not url:
        return ()
    with redis.Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3) as client:
        found = [(key, client.get(key)) for key in map(keys.pipeline_findings, BROKERS)]
    return tuple(one for key, content in found if (one := _read(key, content)) is not None)


def _read(key: keys.Key[PipelineFindings], content: bytes | str | None) -> PipelineFindings | None:
    try:
        return key.read(content) if content is not None else None
    except keys.WrongContent:
        return None


def pipeline_ailments(found: Sequence[PipelineFindings]) -> list[str]:
    """Say what is amiss, a line for each thing; what all brokers share is said once."""
    brokers: dict[tuple[str, str], dict[Broker, None]] = {}
    stages: dict[tuple[str, str], dict[str, None]] = {}
    for one in found:
        for finding in one.findings:
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
    """Lay it out, a line for each broker: whether it is watched, and how each stage is."""
    table = FittingTable(
        (
            Field("broker"),
            Field("pipeline"),
            *(Field(stage.replace("_", " "), text=True) for stage in STAGES),
            Field("strategies", leave_out=1, text=True),
        )
    )
    for one in found:
        issues = {stage: [f.issue for f in one.findings if f.stage == stage] for stage in STAGES}
        watched = one.gate.state == "watched"
        state = f"[{_COLOURS[one.gate.state]}]{one.gate.state}[/]"
        table.add_row(
            one.broker,
            state if watched else f"{state}: {escape(one.gate.reason)}",
            *(_stage(issues[stage], skipped=stage in one.stages_skipped) if watched else "" for stage in STAGES),
            escape(", ".join(one.active_strategies) or "none"),
        )
    return table


def _stage(issues: Sequence[str], *, skipped: bool) -> str:
    if issues:
        return f"[bold red]{', '.join(dict.fromkeys(issues))}[/]"
    return "skipped" if skipped else "[green]ok[/]"
