"""`status` of a desk of which parts are broken: it shows the rest, says what is wrong, and so does its exit code."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from live_services.__main__ import app
from live_services.adapters.health import TaskHealth
from live_services.adapters.scrape_targets import targets_directory
from live_services.adapters.telemetry import LiveTelemetry
from live_services.cli.task_health import Health, ask_processes, together
from live_services.domain.log import StrategyRuntime, TaskId
from live_services.machine.supervision import Program, Supervisor
from live_services.settings import Settings

pytestmark = pytest.mark.integration
READY = StrategyRuntime("momentum", "champion", "ready", "momentum", "3")
RUNNER = TaskHealth(
    TaskId("strategy_runner", "shared", 0), 5, "2026-01-05", True, 1, {}, 0, 0, 7, "", 42, strategies=(READY,)
)


def started(home: Path, *programs: Program) -> Supervisor:
    supervisor = Supervisor(home)
    supervisor.start({"services": programs}, {})
    try:
        supervisor.start_group("services")
        deadline = time.monotonic() + 20
        while any(process.state != "RUNNING" for process in supervisor.processes()):
            assert time.monotonic() < deadline, "gave up waiting"
            time.sleep(0.05)
    except BaseException:
        supervisor.shutdown()
        raise
    return supervisor


def test_a_desk_without_redis_kafka_and_mlflow_is_shown_and_is_not_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("REDIS__URL", "redis://127.0.0.1:1/0")
    monkeypatch.setenv("KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    sleeper = Program("strategy_runner", (sys.executable, "-c", "import time; time.sleep(600)"))
    supervisor = started(tmp_path / "home", sleeper)
    try:
        told = CliRunner().invoke(app, ["status"], env={"COLUMNS": "200"})
        record = json.loads(CliRunner().invoke(app, ["status", "--json"]).output)
    finally:
        supervisor.shutdown()
    assert told.exit_code == 3, told.output
    assert "RUNNING" in told.output
    assert not record["is_well"]
    alarms = "\n".join(record["alarms"])
    assert "Redis does not answer" in alarms
    assert "the log cannot be read" in alarms
    assert "strategy_runner runs, but says nothing of its health" in alarms
    assert "momentum for paper is NOT RUNNING: no strategy runner reports" in alarms
    for alarm in record["alarms"]:
        assert f"ALARM: {alarm}" in told.output.splitlines()
    assert CliRunner().invoke(app, ["status"]).exit_code == 1  # nothing runs any more


async def test_a_process_is_asked_itself_and_whoever_took_its_port_is_not_believed(tmp_path: Path) -> None:
    async with LiveTelemetry(Settings(alpha_panda_home=tmp_path), "strategy_runner") as telemetry:
        telemetry.report(RUNNER)
        (said,) = await asyncio.to_thread(ask_processes, tmp_path)
        assert said.document is not None
        assert said.document["ready"]
        assert said.document["strategy_runtime"]["paper"]["momentum"][0]["version"] == "3"
        written = targets_directory(tmp_path) / "shared.strategy_runner.json"
        content = written.read_text()
        killed = targets_directory(tmp_path) / "paper.account.json"
        killed.write_text(content.replace('"strategy_runner"', '"account"').replace('"shared"', '"paper"'))
        (targets_directory(tmp_path) / "broken.json").write_text("[")
        account, runner = await asyncio.to_thread(ask_processes, tmp_path)
        assert (account.process, account.document, runner.document is None) == ("account", None, False)
        older = replace(RUNNER, lag_records=9)
        other = {"task": "shared.strategy_runner[1]", "host": "another computer", "pid": 1}
        seen = together(Health((other | {"task": str(older.task)}, other), {}), [account, runner])
        assert [task["task"] for task in seen.tasks] == ["shared.strategy_runner[1]", "shared.strategy_runner[0]"]
        assert seen.tasks[1]["lag_records"] == 7
