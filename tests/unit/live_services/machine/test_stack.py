"""Which servers a stack starts, and on which ports."""

import os
import socket
from pathlib import Path

import pytest

from live_services.machine.research_servers import python_environment
from live_services.machine.stack import Ports, Stack, _service_program
from live_services.settings import load_settings


def test_a_preferred_port_that_is_in_use_is_said_and_another_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path))
    settings = load_settings(
        kafka={"bootstrap_servers": "127.0.0.1:9"},
        mlflow={"tracking_uri": "http://127.0.0.1:9"},
        dagster={"url": "http://127.0.0.1:9"},
    )
    said: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (valkey,) = Stack(settings)._embedded(settings, Ports(redis=port), said.append, None)
    assert not valkey.endpoint.endswith(f":{port}/0")
    assert any(line.startswith(f"redis: port {port} is in use, so it takes ") for line in said)


def test_services_are_started_as_plain_processes_with_their_broker_behind_the_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path))
    programs = [_service_program(entry, scope) for entry, scope in Stack(load_settings()).desk.processes]
    started = {program.name: program.argv[1:] for program in programs}
    assert started["market_feed"] == ("-m", "live_services.process", "market_feed")
    assert started["paper.account"] == ("-m", "live_services.process", "account", "paper")


def test_children_import_this_very_checkout() -> None:
    first = Path(python_environment()["PYTHONPATH"].split(os.pathsep)[0])
    assert (first / "dagster_project" / "definitions.py").is_file()
