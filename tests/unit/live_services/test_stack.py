"""Which servers a stack starts, and on which ports."""

import socket
from pathlib import Path

import pytest

from live_services.settings import load_settings
from live_services.stack import Ports, Stack


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
