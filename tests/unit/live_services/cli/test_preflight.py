"""The preflight command: one table, one file, and an exit code that a script can go by."""

import json

import pytest
from typer.testing import CliRunner

from live_services.__main__ import app
from models_registry.strategies import BUILT_IN

runner = CliRunner()


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ALPHA_PANDA_CONFIG", raising=False)
    return tmp_path / "home"


def run(*words):
    return runner.invoke(app, ["preflight", *words], env={"COLUMNS": "120"})


def written(home):
    return json.loads((home / "logs" / "preflight_summary.json").read_text())


def test_before_up_embedded_servers_are_said_and_nothing_is_held_back(home):
    result = run("--json")
    assert result.exit_code == 0
    said = json.loads(result.stdout)
    states = {check["check"]: check["status"] for check in said["checks"]}
    assert {states[name] for name in ("kafka", "topics", "redis", "mlflow", "dagster", "models")} == {"not started"}
    assert (said["holds_back"], states["logs"], states["disk"]) == ("nothing", "ok", "ok")
    assert written(home) == said


def test_production_is_held_back_by_what_development_only_says(home, monkeypatch):
    assert "Nothing holds the live services back so far; `up` asks again" in run().stdout
    monkeypatch.setenv("ENVIRONMENT", "production")
    result = run()
    assert result.exit_code == 1
    assert "The live services are held back by instruments" in result.stdout
    assert written(home)["policy"] == "production"


@pytest.mark.parametrize(
    ("variable", "value", "reason"),
    [
        ("KAFKA__BOOTSTRAP_SERVERS", "kafka.example", "write HOST:PORT"),
        ("BROKER_NAMESPACE", "paper", "set ACTIVE_BROKERS instead"),
        ("MLFLOW__TRACKING_URI", "mlflow", "write the address of a server"),
        ("ENVIRONMENT", "live", "'development', 'testing' or 'production'"),
    ],
)
def test_settings_that_cannot_be_read_are_a_finding_too(home, monkeypatch, variable, value, reason):
    monkeypatch.setenv(variable, value)
    result = run()
    assert result.exit_code == 1
    (check,) = written(home)["checks"]
    assert (check["check"], check["status"], check["blocks"]) == ("settings", "failed", "live services")
    assert reason in check["reason"]


def test_kafka_that_is_away_holds_back_everywhere_and_redis_and_mlflow_only_in_production(home, monkeypatch):
    monkeypatch.setenv("REDIS__URL", "redis://127.0.0.1:9/0")
    monkeypatch.setenv("MLFLOW__TRACKING_URI", "http://127.0.0.1:9")
    assert run().exit_code == 0
    blocks = {check["check"]: check["blocks"] for check in written(home)["checks"] if check["status"] == "failed"}
    assert blocks == {
        "redis": "nothing",
        "mlflow": "nothing",
        **{f"model {spec.model}@champion": f"strategy {spec.name}" for spec in BUILT_IN},
        "instruments": "nothing",
    }
    monkeypatch.setenv("KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:9")
    result = run()
    assert result.exit_code == 1
    assert "The live services are held back by kafka." in result.stdout


def test_a_start_that_is_refused_is_told_by_the_summary_the_log_and_status_as_well(home):
    home.mkdir(mode=0o700)
    file = home / "alpha-panda.toml"
    file.write_text('[[strategies]]\nname = "momentum"\nfeatures = ["last_retrun"]\n')
    for reason in ("momentum", "no_such_key"):
        refused = runner.invoke(app, ["up", "--detach"])
        assert refused.exit_code == 1
        assert reason in refused.output
        failed = [check for check in written(home)["checks"] if check["blocks"] == "live services"]
        assert [check["check"] for check in failed] == ["settings" if reason == "no_such_key" else "strategies"]
        assert reason in failed[0]["reason"]
        assert "error" in (home / "logs" / "error.log").read_text()
        status = runner.invoke(app, ["status"])
        assert status.exit_code == 1
        assert reason in status.output
        file.write_text("no_such_key = 1\n")
    file.unlink()
    assert "Preflight held the live services back at " in runner.invoke(app, ["status"]).output


@pytest.mark.parametrize("folder", ["logs", "run", "models"])
def test_a_file_in_a_folders_place_is_told_by_up_preflight_and_status(home, folder):
    home.mkdir(mode=0o700)
    (home / folder).touch()
    moved = f"Move {home / folder} away"
    assert moved in runner.invoke(app, ["up", "--detach"]).output
    status = runner.invoke(app, ["status"])
    assert status.exit_code == 1
    assert moved in status.output
    if folder != "logs":  # where the summary lies
        assert [one["check"] for one in written(home)["checks"] if one["blocks"] == "live services"] == ["home"]
