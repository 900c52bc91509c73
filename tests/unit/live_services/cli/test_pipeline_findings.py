from __future__ import annotations

import io

from rich.console import Console

from live_services.cli.pipeline_findings import pipeline_ailments, pipeline_table
from live_services.domain.pipeline_findings import Finding, Gate, PipelineFindings

STUCK = Finding(stage="risk", issue="stuck_consumer", what="paper.risk_manager[0] stands")
AWAY = [Finding(stage=stage, issue="redis_unavailable", what="Redis is away") for stage in ("signals", "risk")]


def of(broker: str, *findings: Finding, gate: Gate | None = None) -> PipelineFindings:
    watched = gate or Gate(state="watched")
    return PipelineFindings(
        broker=broker, at_s=1.0, active_strategies=("momentum",), gate=watched, findings=tuple(findings)
    )


def test_what_all_brokers_share_is_said_once_with_its_stages_and_brokers() -> None:
    assert pipeline_ailments([of("paper", STUCK, *AWAY), of("zerodha", *AWAY)]) == [
        "stuck_consumer at risk (paper): paper.risk_manager[0] stands",
        "redis_unavailable at signals, risk (paper, zerodha): Redis is away",
    ]
    assert pipeline_ailments([of("paper")]) == []


def test_each_broker_has_a_line_with_its_stages_or_the_reason_why_it_is_not_watched() -> None:
    idle = Gate(state="suppressed", reason="no strategy of the settings targets zerodha")
    console = Console(width=240, record=True, file=io.StringIO())
    console.print(pipeline_table([of("paper", STUCK), of("zerodha", gate=idle)]))
    paper, zerodha = [line for line in console.export_text().splitlines() if "paper" in line or "zerodha" in line]
    assert "watched" in paper
    assert "stuck_consumer" in paper
    assert paper.count("ok") == 4
    assert "suppressed: no strategy of the settings targets zerodha" in zerodha


def test_a_latency_and_a_lag_are_shown_and_raise_no_alarm() -> None:
    late = Finding(stage="signals", issue="high_latency", what="2,000 ms")
    assert pipeline_ailments([of("paper", late)]) == []
    console = Console(width=240, record=True, file=io.StringIO())
    console.print(pipeline_table([of("paper", late)]))
    assert "high_latency" in console.export_text()
