from __future__ import annotations

import asyncio
import io
import json
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest
import structlog
from pydantic import SecretStr
from rich.console import Console

from live_services.adapters.health import HealthReporter, TaskHealth
from live_services.adapters.metrics import Metrics
from live_services.adapters.telemetry import LiveTelemetry
from live_services.cli.status import Health, tasks_table
from live_services.domain.log import Readiness, TaskId
from live_services.settings import RedisSettings, Settings

TASK = TaskId("risk_manager", "paper", 0)


def health() -> TaskHealth:
    return TaskHealth(
        TASK, 5_000_000_000, "2026-01-05", True, 12, {"signal.validated": 3}, 1, 0, 7, "market.ticks[0]", 42
    )


async def test_metrics_are_served_on_loopback_and_the_process_is_found_by_its_file(tmp_path: Path) -> None:
    settings = Settings(alpha_panda_home=tmp_path)
    async with LiveTelemetry(settings, "account", "paper") as telemetry:
        telemetry.report(health())
        ((target,),) = [one["targets"] for one in json.loads((tmp_path / "run/metrics/paper.account.json").read_text())]
        assert target == f"127.0.0.1:{telemetry.port}"
        with urllib.request.urlopen(f"http://{target}/metrics", timeout=5) as answer:
            text = answer.read().decode()
    assert 'alpha_panda_watermark_seconds{broker="paper",partition="0",service="risk_manager"} 5.0' in text
    assert list((tmp_path / "run/metrics").iterdir()) == []


def test_instruments_that_are_warming_are_a_gauge_a_line_in_the_status_and_part_of_the_health() -> None:
    cold = replace(health(), readiness=Readiness(3, ("AAA", "CCC")))
    metrics, reporter = Metrics(), HealthReporter(Settings())
    metrics.report(cold)
    labels = {"broker": "paper", "service": "risk_manager", "partition": "0"}
    assert metrics.registry.get_sample_value("alpha_panda_warming_instruments", labels) == 2.0
    reporter.report(cold)
    (content,) = (json.loads(value) for value in reporter.values.values())
    assert (content["readiness"], content["warming"]) == ("WARMING 2 of 3 (AAA, CCC)", 2)
    console = Console(width=200, record=True, file=io.StringIO())
    console.print(tasks_table(Health((content,), {})))
    assert "WARMING 2 of 3 (AAA, CCC)" in console.export_text()


async def test_a_redis_that_is_away_is_logged_once_and_stops_nothing() -> None:
    settings = Settings(redis=RedisSettings(url=SecretStr("redis://127.0.0.1:1/0")))
    with structlog.testing.capture_logs() as lines:
        async with HealthReporter(settings) as reporter:
            reporter.report(health())
            await asyncio.sleep(1.2)
            reporter.report(health())
    assert [line["event"] for line in lines] == ["redis_is_away"]


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
