"""The servers a person looks at: MLflow (the model registry) and Dagster (training and promotion), on loopback."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from typing import Final
from uuid import uuid4

import requests

from live_services.machine.embedded import LOOPBACK, EmbeddedServerError, ServerSpec, free_port, listens
from live_services.machine.mlflow_server import ARTIFACT_ROOT, DATABASE

CODE_LOCATION: Final = "dagster_project.definitions"
FINDINGS: Final = "findings"
"""Metadata of a materialization whose lines a person who waits for the run is told."""
NOTHING_TO_LOOK_AT: Final = "nothing to look at"
"""How the description of a check begins that had nothing to check: it is not green, and found no fault."""
_PACKAGE_ROOT: Final = Path(__file__).resolve().parents[2]

_DAGSTER_YAML: Final = """\
telemetry:
  enabled: false
nux:
  enabled: false
concurrency:
  runs:
    max_concurrent_runs: 2 # one machine; the default of 10 starves the servers beside it
    tag_concurrency_limits:
      - {key: alpha_panda/writes, value: store, limit: 1} # each training brings the market in
  pools:
    default_limit: 1
run_monitoring:
  enabled: true
run_retries:
  enabled: true
python_logs:
  dagster_handler_config:
    handlers:
      channels: {class: live_services.adapters.logs.Routed, level: INFO}
retention:
  schedule:
    purge_after_days:
      skipped: 1
  sensor:
    purge_after_days:
      skipped: 1 # a sensor that looks every five seconds would fill the disk with "nothing to do"
"""


def python_environment() -> dict[str, str]:
    """Give what a Python child needs so that it imports this very checkout, wherever it is started."""
    if _PACKAGE_ROOT.name in ("site-packages", "dist-packages"):
        return {}
    others = [p for p in os.environ.get("PYTHONPATH", "").split(os.pathsep) if p and Path(p).resolve() != _PACKAGE_ROOT]
    return {"PYTHONPATH": os.pathsep.join([str(_PACKAGE_ROOT), *others])}


def mlflow_spec(home: Path, port: int | None = None) -> ServerSpec:
    """Describe an MLflow server on SQLite that keeps its artifacts in ``mlflow`` of a home, and logs in ``logs``."""
    directory = home.absolute() / "mlflow"
    directory.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    url = f"http://{LOOPBACK}:{port}"
    return ServerSpec(
        name="mlflow",
        argv=(sys.executable, "-m", "live_services.machine.mlflow_server", str(port), str(home.absolute())),
        directory=directory,
        endpoint=url,
        env=python_environment() | mlflow_environment() | _mlflow_server_environment(directory),
        ready=partial(http_answers, f"{url}/health"),
        ready_seconds=120.0,
    )


def _mlflow_server_environment(directory: Path) -> dict[str, str]:
    """Give what ``mlflow server`` hands to the process that serves."""
    return {
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        DATABASE: f"sqlite:///{directory / 'mlflow.sqlite'}",
        ARTIFACT_ROOT: "mlflow-artifacts:/",
        "_MLFLOW_SERVER_ARTIFACT_DESTINATION": str(directory / "artifacts"),
        "_MLFLOW_SERVER_SERVE_ARTIFACTS": "true",
        "_MLFLOW_SGI_NAME": "uvicorn",
        "_MLFLOW_SERVER_BOOT_ID": uuid4().hex,  # with it a server refuses to make scorers out of stored code
        "_MLFLOW_IN_JOB_EXECUTOR": "false",
    }


def mlflow_environment() -> dict[str, str]:
    """Keep MLflow quiet, in its server and its clients."""
    return {"MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false"}


def dagster_specs(
    directory: Path, environment: dict[str, str], port: int | None = None
) -> tuple[ServerSpec, ServerSpec, ServerSpec]:
    """Describe Dagster's code server, webserver and daemon; the code location is loaded once and shared.

    Parameters
    ----------
    directory
        DAGSTER_HOME.
    environment
        Of the code server, and so of all runs: where the home, MLflow and Kafka are.
    port
        Of the webserver; default: a free one.
    """
    directory = directory.absolute()
    directory.mkdir(parents=True, exist_ok=True)
    code_port, port = free_port(), port or free_port()
    code_endpoint = f"{LOOPBACK}:{code_port}"
    url = f"http://{LOOPBACK}:{port}"
    workspace = directory / "workspace.yaml"
    env = {"DAGSTER_HOME": str(directory)} | python_environment() | mlflow_environment() | environment
    code = [sys.executable, "-m", "dagster", "api", "grpc", "-m", CODE_LOCATION, "-h", LOOPBACK, "-p", str(code_port)]
    code += ["-d", str(_PACKAGE_ROOT), "--location-name", CODE_LOCATION, "--use-python-environment-entry-point"]
    code += ["--lazy-load-user-code"]  # wrong settings are shown in the UI; without it the server ends, again and again
    web = [sys.executable, "-m", "dagster_webserver", "-w", str(workspace), "-h", LOOPBACK, "-p", str(port)]
    return (
        ServerSpec(
            "dagster-code",
            tuple(code),
            directory,
            code_endpoint,
            ready=partial(listens, LOOPBACK, code_port),
            env=env,
            ready_seconds=120.0,
            prepare=partial(_prepare_dagster, directory, workspace, code_port),
        ),
        ServerSpec(
            "dagster-web",
            tuple(web),
            directory,
            url,
            ready=partial(http_answers, f"{url}/server_info"),
            env=env,
            ready_seconds=120.0,
        ),
        ServerSpec(
            "dagster-daemon",
            (sys.executable, "-m", "dagster._daemon", "run", "-w", str(workspace)),
            directory,
            "",
            ready=lambda: True,  # it has no port; its heartbeat shows in the web UI
            env=env,
        ),
    )


def _prepare_dagster(directory: Path, workspace: Path, code_port: int) -> None:
    (directory / "dagster.yaml").write_text(_DAGSTER_YAML)
    server = f"{{host: {LOOPBACK}, port: {code_port}, location_name: {CODE_LOCATION}}}"
    workspace.write_text(f"load_from:\n  - grpc_server: {server}\n")
    _create_dagster_storage(directory)


def _create_dagster_storage(directory: Path) -> None:
    """Create Dagster's tables before its three processes start; at once, one finds the other half-way and dies."""
    from dagster import DagsterInstance

    with DagsterInstance.from_config(str(directory)) as instance:
        for storage in (instance.run_storage, instance.event_log_storage, instance.schedule_storage):
            if storage is None:
                raise EmbeddedServerError(
                    f"Dagster has no storage in {directory}; remove that directory and start again"
                )


def http_answers(url: str) -> bool:
    """Whether a GET is answered with success."""
    try:
        return requests.get(url, timeout=2.0).ok
    except requests.RequestException:
        return False
