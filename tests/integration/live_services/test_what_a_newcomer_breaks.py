"""What a newcomer breaks is read in four places: on `status`, in the summary of preflight, in a log, and in a metric.

One desk of production with nothing right; what breaks while a desk runs is provoked in the tests that
docs/operations.md names beside each row.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from live_services.__main__ import app
from live_services.adapters.scrape_targets import read_targets
from live_services.machine.stack import Stack
from live_services.settings import CONFIG_NAME, load_settings

pytestmark = pytest.mark.integration
NOBODY = "127.0.0.1:9"
_CONFIGURATION = f"""
environment = "production"
kafka.bootstrap_servers = "{NOBODY}"
redis.url = "redis://{NOBODY}/0"
mlflow.tracking_uri = "http://{NOBODY}"
dagster.url = "http://{NOBODY}"
preflight.min_free_disk_mb = 1_000_000_000

[[strategies]]
name = "momentum"

[[strategies]]
name = "reversal"
brokers = ["zerodha"]
"""


@dataclass(frozen=True)
class Told:
    """What the desk says of itself, place by place."""

    said_by_up: str
    alarms: list[str]
    checks: dict[str, dict[str, str]]
    channels: dict[str, str]
    failed: dict[str, str]
    """By check: what the metric says that its failure holds back."""
    down: dict[str, float]
    states: dict[str, str]


def _lines(home: Path, channel: str) -> str:
    """What the newest line of preflight on a channel says."""
    file = home / "logs" / f"{channel}.log"
    said = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    return "\n".join(next(line for line in reversed(said) if line["event"] == "preflight")["failed"])


def _scraped(home: Path) -> dict[str, list[tuple[dict[str, str], float]]]:
    """The series of the only process that runs, the keeper, once it has looked."""
    deadline = time.monotonic() + 30
    while True:
        found = [address for process, _, address in read_targets(home) if process == "keeper"]
        series = _series(found[0]) if found else {}
        if series.get("alpha_panda_process_down"):
            return series
        assert time.monotonic() < deadline, "the keeper does not look"
        time.sleep(0.1)


def _series(address: str) -> dict[str, list[tuple[dict[str, str], float]]]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {family.name: [(sample.labels, sample.value) for sample in family.samples] for family in families}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The home of a desk that was started once; what `up` said is in it."""
    home = tmp_path_factory.mktemp("broken") / "home"
    home.mkdir(mode=0o700)
    (home / CONFIG_NAME).write_text(_CONFIGURATION, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(home)
        patched.setenv("ALPHA_PANDA_HOME", str(home))
        patched.delenv("ALPHA_PANDA_CONFIG", raising=False)
        up = subprocess.run(
            (sys.executable, "-m", "live_services", "up", "--detach"), capture_output=True, text=True, check=False
        )
        try:
            assert up.returncode == 1, up.stdout + up.stderr
            (home / "said").write_text(up.stdout + up.stderr, encoding="utf-8")
            yield home
        finally:
            CliRunner().invoke(app, ["down"])


@pytest.fixture(scope="module")
def told(home: Path) -> Told:
    """Ask each place once."""
    status = CliRunner().invoke(app, ["status", "--json"])
    assert status.exit_code == 3, status.output
    series = _scraped(home)
    summary = json.loads((home / "logs" / "preflight_summary.json").read_text(encoding="utf-8"))
    assert summary["holds_back"] == "live services"
    return Told(
        (home / "said").read_text(encoding="utf-8"),
        json.loads(status.stdout)["alarms"],
        {check["check"]: check for check in summary["checks"]},
        {channel: _lines(home, channel) for channel in ("monitoring", "error")},
        {of["check"]: of["holds_back"] for of, value in series["alpha_panda_preflight_failed"] if value},
        {of["process"]: value for of, value in series["alpha_panda_process_down"]},
        {process.name: process.state for process in Stack(load_settings()).supervisor.processes()},
    )


@pytest.mark.parametrize(
    ("check", "reason", "way_out"),
    [
        ("kafka", f"no Kafka answers at {NOBODY}", "Start it, correct KAFKA__BOOTSTRAP_SERVERS"),
        ("redis", "no Redis answers", "Start it, correct REDIS__URL"),
        ("mlflow", f"no MLflow answers at http://{NOBODY}", "Start it, correct MLFLOW__TRACKING_URI"),
        ("routing", "strategy reversal trades on zerodha, and none of these runs", "Name paper in its brokers"),
        ("disk", "1,000,000,000 are asked for (preflight.min_free_disk_mb)", "Free some"),
        ("instruments", "has no sessions yet", "Launch train_momentum"),
        ("model momentum@champion", "could not be asked for", ""),
    ],
)
def test_what_holds_a_desk_back_is_read_in_four_places(told: Told, check: str, reason: str, way_out: str) -> None:
    alarm = next(
        alarm for alarm in told.alarms if alarm.startswith(f"preflight holds the live services back: {check}:")
    )
    of_summary = told.checks[check]
    assert (of_summary["status"], of_summary["blocks"]) == ("failed", "live services")
    line = f"{check} failed (holds back live services): "
    for place in (alarm, of_summary["reason"]):
        assert reason in place
    for place in (alarm, of_summary["way_out"]):
        assert way_out in place
    for place in (told.said_by_up, *told.channels.values()):
        assert reason in place
        assert line in place
    assert told.failed[check] == "live services"


def test_what_never_ran_is_down_in_a_metric_and_what_only_advises_holds_nothing(told: Told) -> None:
    services = {"market_feed", "strategy_runner", "skew_monitor", "pipeline_validator", "paper.account"}
    assert told.down == dict.fromkeys(services, 1.0)
    assert {told.states[name] for name in services} == {"STOPPED"}
    assert told.failed["dagster"] == "nothing"
    assert "the live services do not: mend what preflight says" in told.said_by_up


def test_a_start_that_is_refused_leaves_nothing_to_scrape_and_is_told_by_the_other_three(
    home: Path, told: Told
) -> None:
    assert told.down
    assert CliRunner().invoke(app, ["down"]).exit_code == 0
    named = _CONFIGURATION.replace('name = "momentum"', 'name = "momentum"\nfeatures = ["last_retrun"]')
    (home / CONFIG_NAME).write_text(named, encoding="utf-8")
    refused = CliRunner().invoke(app, ["up", "--detach"])
    status = CliRunner().invoke(app, ["status"])
    summary = json.loads((home / "logs" / "preflight_summary.json").read_text(encoding="utf-8"))
    (check,) = (check for check in summary["checks"] if check["check"] == "strategies")
    assert (refused.exit_code, status.exit_code) == (1, 1)
    for place in (refused.output, status.output, check["reason"], _lines(home, "error")):
        assert "no feature is named 'last_retrun'; did you mean last_return?" in place
    assert list(read_targets(home)) == []  # the alert NothingRuns is of this
