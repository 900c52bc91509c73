from __future__ import annotations

import asyncio
import json
import urllib.request

import pytest
import structlog
from pydantic import SecretStr

from live_services.adapters.telemetry import HealthReporter, Metrics, TaskHealth
from live_services.domain.service import TaskId
from live_services.settings import RedisSettings, Settings

TASK = TaskId("risk_manager", "paper", 0)


def health() -> TaskHealth:
    return TaskHealth(TASK, 5_000_000_000, "2026-01-05", True, 12, {"signal.validated": 3}, 1, 7, "market.ticks[0]", 42)


def test_metrics_are_served_on_loopback() -> None:
    metrics = Metrics()
    try:
        metrics.report(health())
        with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics", timeout=5) as answer:
            text = answer.read().decode()
        metrics.withdraw(TASK)
    finally:
        metrics.close()
    assert 'alpha_panda_watermark_seconds{broker="paper",partition="0",service="risk_manager"} 5.0' in text


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
