from __future__ import annotations

import json

import pytest

pytestmark = pytest.mark.integration


def test_the_web_server_of_mlflow_logs_on_api_alone(mlflow_server) -> None:
    lines = [json.loads(line) for line in (mlflow_server.logs / "api.log").read_text().splitlines()]
    assert any("Uvicorn running on" in line["event"] for line in lines)
    assert {(line["channel"], line["service"]) for line in lines} == {("api", "mlflow")}
    elsewhere = [path for path in mlflow_server.logs.glob("*.log") if path.name != "api.log"]
    assert [path.name for path in elsewhere if "uvicorn" in path.read_text()] == []
