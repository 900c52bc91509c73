from __future__ import annotations

import asyncio
import io
import json
from dataclasses import replace

import pytest
import structlog
from pydantic import SecretStr
from rich.console import Console

from live_services.adapters.health import HealthReporter, TaskHealth
from live_services.adapters.metrics import Metrics
from live_services.cli.status import tasks_table
from live_services.cli.task_health import Health
from live_services.domain.log import Readiness, TaskId
from live_services.settings import RedisSettings, Settings

TASK = TaskId("risk_manager", "paper", 0)


def health() -> TaskHealth:
    return TaskHealth(
        TASK, 5_000_000_000, "2026-01-05", True, 12, {"signal.validated": 3}, 1, 0, 7, "market.ticks[0]", 42
    )


def test_the_watermark_of_a_task_is_a_gauge_until_the_task_goes() -> None:
    metrics, labels = Metrics(), {"broker": "paper", "partition": "0", "service": "risk_manager"}
    metrics.report(health())
    assert metrics.registry.get_sample_value("alpha_panda_watermark_seconds", labels) == 5.0
    metrics.withdraw(TASK)
    assert metrics.registry.get_sample_value("alpha_panda_watermark_seconds", labels) is None


def test_instruments_that_are_warming_are_a_gauge_a_line_in_the_status_and_part_of_the_health() -> None:
    cold = replace(health(), readiness=Readiness(3, ("AAA", "CCC")))
    metrics, reporter = Metrics(), HealthReporter(Settings())
    metrics.report(cold)
    labels = {"broker": "paper", "partition": "0", "service": "risk_manager"}
    assert metrics.registry.get_sample_value("alpha_panda_warming_instruments", labels) == 2.0
    reporter.report(cold)
    (content,) = (json.loads(value) for value in reporter.values.values())
    assert (content["readiness"], content["warming"]) == ("WARMING 2 of 3 (AAA, CCC)", 2)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(tasks_table(Health((content,), {}), 0.0))
    assert "WARMING 2 of 3 (AAA, CCC)" in console.export_text()


async def test_a_redis_that_is_away_is_logged_once_shown_as_a_gauge_and_stops_nothing() -> None:
    settings = Settings(redis=RedisSettings(url=SecretStr("redis://127.0.0.1:1/0")))
    metrics = Metrics()
    assert metrics.registry.get_sample_value("alpha_panda_redis_unavailable") == 0.0
    with structlog.testing.capture_logs() as lines:
        async with HealthReporter(settings, answered=metrics.redis_answered) as reporter:
            reporter.report(health())
            await asyncio.sleep(1.2)
            reporter.report(health())
    assert [line["event"] for line in lines] == ["redis_is_away"]
    assert metrics.registry.get_sample_value("alpha_panda_redis_unavailable") == 1.0


@pytest.mark.parametrize("url", ["", "redis://127.0.0.1:1/0"])
def test_reporting_outside_a_running_loop_does_nothing(url: str) -> None:
    reporter = HealthReporter(Settings(redis=RedisSettings(url=SecretStr(url))))
    reporter.report(health())
    reporter.withdraw(TASK)


def test_health_is_plain_json() -> None:
    reporter = HealthReporter(Settings(), metrics_port=9)
    reporter.report(health())
    (content,) = reporter.values.values()
    assert json.loads(content)["waiting_for"] == "market.ticks[0]"
    assert json.loads(content)["metrics_port"] == 9
