"""What a process of the live side may not load, tried on each of them as far as one comes without a Kafka."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from feature_store.offline.store import OfflineStore
from feature_store.sources.synthetic import synthetic_market
from live_services.cli.task_health import ask_processes
from live_services.composition import SERVICES
from models_registry.strategies import BUILT_IN

NOT_IN_A_SERVICE = (
    "typer",
    "click",
    "kiteconnect",
    "supervisor",
    "dagster",
    "mlflow",
    "sklearn",
    "live_services.cli",
    "opentelemetry.exporter",  # unless tracing is on; redis loads the rest
    "plotly",
    "optuna",
    "matplotlib",
    "jinja2",
    "polars",
    "pandas",  # unless there are corporate actions to read
    "scipy.stats",
)
COMPUTES = ("strategy_runner", "account", "skew_monitor")
"""Run compiled kernels; the others do without the compiler, which is a third of what they would hold."""

# Runs a process until it asks Kafka, which is not there, and says which modules were loaded on the way.
_RUN = """
import json, sys
import structlog
at_first = sorted(sys.modules)  # structlog colours tracebacks with rich, if rich is installed
from live_services import process
loaded, expected_failures = [], process.expected_failures
def at_the_failure():  # which loads whatever may fail anywhere, to know it by its class
    loaded.append(sorted(sys.modules))
    return expected_failures()
process.expected_failures = at_the_failure
code = process.main(sys.argv[1:])
print(json.dumps({"code": code, "at_first": at_first, "loaded": loaded[0]}))
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("home")
    made = synthetic_market(instruments=2, sessions=3)
    store = OfflineStore(home / "store")
    store.write_universe(made.universe, made.name)
    for session, bars in zip(made.sessions, made.bars, strict=True):
        store.write_bars(session, made.universe, bars, made.name)
    store.write_ticks(made.tick_sessions[0], made.universe, made.ticks[0], made.name)
    return home


@pytest.mark.parametrize("entry", SERVICES, ids=lambda entry: entry.name)
def test_a_service_process_loads_no_cli_library_and_no_client_of_a_broker(home: Path, entry) -> None:
    nobody = "127.0.0.1:9"
    chosen = {"ALPHA_PANDA_HOME": str(home), "KAFKA__BOOTSTRAP_SERVERS": nobody}
    if entry.name != "market_feed":  # which waits for a registry that does not answer
        chosen |= {"MLFLOW__TRACKING_URI": f"http://{nobody}"}
    broker = ("paper",) if entry.scope == "broker" else ()
    done = subprocess.run(
        [sys.executable, "-c", _RUN, entry.name, *broker],
        env=os.environ | chosen,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["code"] == 1
    (told,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "('127.0.0.1', 9" in told or nobody in told
    assert "Traceback" not in done.stderr
    errors = [json.loads(line) for line in (home / "logs" / "error.log").read_text().splitlines()]
    last = next(line for line in reversed(errors) if line["event"] == "process_failed")
    assert (last["service"], f"error: {last['reason']}") == (entry.name, told)
    loaded = [name for name in said["loaded"] if name.startswith(NOT_IN_A_SERVICE)]
    assert loaded == []
    assert ("numba" in said["loaded"]) == (entry.name in COMPUTES)
    rich = {name for name in said["loaded"] if name.split(".")[0] == "rich"}
    assert rich <= set(said["at_first"])


@pytest.mark.parametrize(("service", "scope"), [("market_feed", "shared"), ("account", "paper")])
def test_a_process_that_waits_for_a_market_answers_what_it_waits_for_until_it_is_stopped(
    tmp_path: Path, service: str, scope: str
) -> None:
    chosen = {"ALPHA_PANDA_HOME": str(tmp_path), "KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9"}
    words = [sys.executable, "-m", "live_services.process", service]
    process = subprocess.Popen(words, env=os.environ | chosen, cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        deadline, waiting = time.monotonic() + 60, list[dict[str, Any]]()
        while not any("no market data" in lack for said in waiting for lack in said["lacks"]):
            assert time.monotonic() < deadline, "it does not answer"
            time.sleep(0.1)
            waiting = [one.document for one in ask_processes(tmp_path) if one.document is not None]
    finally:
        process.terminate()
    (said,) = waiting
    assert (said["process"], said["broker"], said["live"], said["ready"]) == (service, scope, True, False)
    assert said["lacks"][0].startswith("no market data yet: ")
    assert said["strategy_config"] == {"paper": [strategy.name for strategy in BUILT_IN]}
    assert said["strategy_runtime"] == {"paper": {}}
    assert process.wait(20) == 128 + signal.SIGTERM
    assert ask_processes(tmp_path) == ()
