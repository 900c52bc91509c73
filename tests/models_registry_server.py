from dataclasses import dataclass
from pathlib import Path

import pytest

from live_services.machine.embedded import running
from live_services.machine.research_servers import mlflow_spec


@dataclass(frozen=True)
class MlflowServer:
    url: str
    artifacts: Path
    logs: Path


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory):
    """A real MLflow server on SQLite and a free loopback port, as `up` starts it; stopped with what it started."""
    home = tmp_path_factory.mktemp("home")
    spec = mlflow_spec(home)
    with running(spec):
        yield MlflowServer(spec.endpoint, spec.directory / "artifacts", home / "logs")
