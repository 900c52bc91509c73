"""Task health and the newest portfolio on a real Valkey."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from live_services.adapters.health import HEALTH_TTL_SECONDS, TaskHealth
from live_services.adapters.telemetry import LiveTelemetry
from live_services.domain import keys
from live_services.domain.log import TaskId
from live_services.machine.embedded import embedded_valkey
from live_services.settings import RedisSettings, Settings

pytestmark = pytest.mark.integration
TASK = TaskId("risk_manager", "paper", 0)


async def test_health_is_written_with_a_time_to_live_and_removed_when_the_task_goes(tmp_path: Path) -> None:
    with embedded_valkey(tmp_path) as url:
        client = Redis.from_url(url, decode_responses=True)
        async with LiveTelemetry(
            Settings(alpha_panda_home=tmp_path, redis=RedisSettings(url=SecretStr(url))), "account", "paper"
        ) as telemetry:
            telemetry.report(TaskHealth(TASK, 5, "2026-01-05", True, 12, {}, 0, 0, 0, "", 42))
            async with asyncio.timeout(10):
                while not (content := await client.get(keys.task_health("paper", "risk_manager", 0))):
                    await asyncio.sleep(0.05)
            assert json.loads(content)["pid"] == 42
            assert 0 < await client.ttl(keys.task_health("paper", "risk_manager", 0)) <= HEALTH_TTL_SECONDS
            telemetry.withdraw(TASK)
        assert await client.get(keys.task_health("paper", "risk_manager", 0)) is None
        await client.aclose()
