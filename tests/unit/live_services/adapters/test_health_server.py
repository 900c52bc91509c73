"""What a process says of itself on its loopback port."""

from __future__ import annotations

import asyncio
import json
import socket
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

import pytest

from live_services.adapters.health import TaskHealth
from live_services.adapters.health_server import HealthServer, PortTaken
from live_services.adapters.metrics import Metrics
from live_services.adapters.process_health import ProcessHealth
from live_services.adapters.telemetry import LiveTelemetry
from live_services.domain.log import StrategyRuntime, TaskId
from live_services.settings import RuntimeSettings, Settings
from models_registry.specification import StrategySpec

STRATEGIES = (
    StrategySpec(name="momentum", brokers=("paper", "zerodha")),
    StrategySpec(name="patient", model="momentum"),
)
SETTINGS = Settings(strategies=STRATEGIES, active_brokers=("paper", "zerodha"))
RUNNER = TaskHealth(TaskId("strategy_runner", "shared", 0), 0, "", True, 0, {}, 0, 0, 0, "", 42)
READY = StrategyRuntime("momentum", "champion", "ready", "momentum", "3")
WAITING = StrategyRuntime("momentum", "champion", "waiting", "momentum", reason="the registry has not answered")
NO_CHALLENGER = StrategyRuntime("momentum", "challenger", "waiting", "momentum", reason="the registry is away")


def answer(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as said:
            return said.status, said.read().decode()
    except HTTPError as refused:
        return refused.code, refused.read().decode()


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def process(clock: Clock | None = None) -> ProcessHealth:
    return ProcessHealth(SETTINGS, "strategy_runner", "shared", clock or Clock())


def test_a_loop_that_has_not_turned_for_the_stated_time_is_not_live() -> None:
    health = process(clock := Clock())
    clock.now += SETTINGS.processes.stall_seconds - 1
    assert health.live()["live"]
    clock.now += 1
    assert health.live() == {"live": False, "loop_turned_seconds_ago": SETTINGS.processes.stall_seconds}
    health.turned()
    assert health.live()["live"]


@pytest.mark.parametrize(
    ("task", "lacks"),
    [
        (None, ["no task was taken over yet"]),
        (replace(RUNNER, live=False), ["shared.strategy_runner[0] runs again what was handled before the restart"]),
        (replace(RUNNER, strategies=(WAITING,)), ["momentum on champion: the registry has not answered"]),
        (replace(RUNNER, strategies=(READY, NO_CHALLENGER)), []),
        (replace(RUNNER, strategies=(replace(WAITING, state="disabled"),)), []),
    ],
)
def test_ready_is_who_has_taken_over_is_live_and_knows_what_its_strategies_run(
    task: TaskHealth | None, lacks: list[str]
) -> None:
    health = process()
    if task is not None:
        health.report(task)
    assert health.ready() == {"ready": not lacks, "lacks": lacks}


def test_what_a_process_waits_for_comes_before_all_else() -> None:
    health = process()
    health.report(RUNNER)
    health.waits("no market data yet")
    assert health.ready()["lacks"] == ["no market data yet"]
    health.waits("")
    assert health.ready()["ready"]
    health.withdraw(RUNNER.task)
    assert not health.ready()["ready"]


def test_what_is_configured_and_what_is_loaded_stand_side_by_side_for_each_broker() -> None:
    health = process()
    said = health.document()
    assert said["strategy_config"] == {"paper": ["momentum", "patient"], "zerodha": ["momentum"]}
    assert said["strategy_runtime"] == {"paper": {}, "zerodha": {}}
    disabled = StrategyRuntime("patient", "champion", "disabled", "momentum", reason="no version was promoted to it")
    live = StrategyRuntime("momentum", "live", "disabled", "momentum", reason="no person let it live")
    health.report(replace(RUNNER, strategies=(READY, NO_CHALLENGER, disabled, live)))
    other = replace(RUNNER, task=replace(RUNNER.task, partition=1), strategies=(READY, replace(disabled)))
    health.report(other)
    found = health.document()["strategy_runtime"]
    assert found["paper"]["momentum"] == [{"state": "ready", "model": "momentum", "version": "3", "reason": ""}]
    assert [one["state"] for one in found["paper"]["patient"]] == ["disabled"]
    assert found["zerodha"]["momentum"][0]["reason"] == "no person let it live"


def test_the_port_answers_health_and_metrics_and_says_503_where_something_is_lacking() -> None:
    metrics, health = Metrics(), process()
    server = HealthServer(0, health, metrics.registry)
    try:
        assert answer(server.port, "/health/live")[0] == 200
        code, body = answer(server.port, "/health/ready")
        assert (code, json.loads(body)["lacks"]) == (503, ["no task was taken over yet"])
        health.report(RUNNER)
        metrics.report(RUNNER)
        code, body = answer(server.port, "/health")
        assert (code, json.loads(body)["tasks"][0]["task"]) == (200, "shared.strategy_runner[0]")
        assert 'service="strategy_runner"' in answer(server.port, "/metrics")[1]
        code, body = answer(server.port, "/heath")
        assert (code, "/health" in json.loads(body)["there_is"]) == (404, True)
    finally:
        server.close()


async def test_it_answers_that_the_loop_stands_still_while_the_loop_stands_still(tmp_path: Path) -> None:
    settings = Settings(alpha_panda_home=tmp_path, processes={"stall_seconds": 0.6})  # type: ignore[arg-type]

    def ask_while_the_loop_stands_still(port: int) -> dict[str, Any]:
        until = time.monotonic() + 10
        while time.monotonic() < until:
            code, body = answer(port, "/health/live")
            if code == 503:
                return json.loads(body)  # type: ignore[no-any-return]
        raise AssertionError("it called itself live all the time")

    async with LiveTelemetry(settings, "account", "paper") as telemetry:
        await asyncio.sleep(0)
        assert not ask_while_the_loop_stands_still(telemetry.port)["live"]  # on the loop's own thread


def test_a_port_that_is_taken_is_named_with_its_key() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"port {port} \(runtime.metrics_port\) cannot be listened on"):
            LiveTelemetry(Settings(runtime=RuntimeSettings(metrics_port=port)), "account")
