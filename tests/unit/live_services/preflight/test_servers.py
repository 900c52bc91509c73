"""Servers that are away, refuse this desk, or are something else are told apart; each with its way out."""

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from live_services.preflight.servers import dagster_finding, ledger_finding, mlflow_finding, redis_finding
from live_services.settings import endpoints_file, load_settings
from models_registry.ledger import PromotionLedger
from tests.models_registry_fakes import stand

NOBODY = "127.0.0.1:9"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ALPHA_PANDA_CONFIG", raising=False)
    return tmp_path / "home"


@contextmanager
def answering(status, body=b"{}"):
    """A web server of which every question gets one answer."""

    class Answer(BaseHTTPRequestHandler):
        def handle_one_request(self):
            self.raw_requestline = self.rfile.readline()
            if not self.raw_requestline or not self.parse_request():
                return
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def found(check, **options):
    (finding,) = check(load_settings(**options))
    return finding


def test_an_embedded_server_that_does_not_run_yet_is_said_and_not_failed():
    for check in (redis_finding, mlflow_finding, dagster_finding):
        finding = found(check)
        assert finding.status == "not started"
        assert "up` starts one" in finding.reason


def test_a_server_that_is_away_is_failed_with_the_setting_that_names_it(home):
    asked = [
        (redis_finding, {"redis": {"url": f"redis://{NOBODY}/0"}}, "REDIS__URL"),
        (mlflow_finding, {"mlflow": {"tracking_uri": f"http://{NOBODY}"}}, "MLFLOW__TRACKING_URI"),
        (dagster_finding, {"dagster": {"url": f"http://{NOBODY}"}}, "DAGSTER__URL"),
    ]
    for check, options, key in asked:
        finding = found(check, **options)
        assert finding.status == "failed"
        assert finding.reason.startswith("no ")
        assert finding.way_out == f"Start it, correct {key}, or unset it to have one started here"
    endpoints_file(home).parent.mkdir(parents=True)
    endpoints_file(home).write_text(f'redis.url = "redis://{NOBODY}/0"')
    assert "up` brings back what is down" in found(redis_finding).way_out
    assert "unset it" in found(mlflow_finding, **asked[1][1]).way_out


def test_a_server_that_refuses_this_desk_is_not_one_that_is_away():
    with answering(401) as url:
        mlflow = found(mlflow_finding, mlflow={"tracking_uri": url.replace("//", "//me:wrong@")})
        dagster = found(dagster_finding, dagster={"url": url})
    assert "refuses this desk (401)" in mlflow.reason
    assert "wrong" not in mlflow.reason
    assert "user and password into MLFLOW__TRACKING_URI" in mlflow.way_out
    assert "refuses this desk (401)" in dagster.reason


def test_another_server_at_the_address_is_said_to_be_another():
    with answering(404, b"welcome") as url:
        assert "not how an MLflow server answers" in found(mlflow_finding, mlflow={"tracking_uri": url}).reason
        assert "does not answer as Dagster does" in found(dagster_finding, dagster={"url": url}).reason
    with answering(200) as url:
        assert found(mlflow_finding, mlflow={"tracking_uri": url}).status == "ok"


def test_code_that_dagster_cannot_load_is_named_with_its_error():
    def location(state):
        entry = {"name": "dagster_project.definitions", "locationOrLoadError": state}
        return json.dumps({"data": {"workspaceOrError": {"locationEntries": [entry]}}}).encode()

    with answering(200, location({"__typename": "PythonError", "message": "no module named features"})) as url:
        finding = found(dagster_finding, dagster={"url": url})
    assert (finding.status, finding.policy) == ("failed", "advice")
    assert "dagster_project.definitions cannot be loaded: no module named features" in finding.reason
    with answering(200, location({"__typename": "RepositoryLocation"})) as url:
        assert found(dagster_finding, dagster={"url": url}).status == "ok"


def test_a_ledger_is_read_whole_and_a_file_that_is_none_is_failed(home):
    assert "the first promotion makes" in found(ledger_finding).reason
    assert not home.exists()
    stand(PromotionLedger(f"sqlite:///{home}/ledger.sqlite"), "momentum", "champion", "1")
    assert found(ledger_finding).reason == "2 entries, unchanged"
    (home / "ledger.sqlite").write_text("no database, and long enough to be taken for one" * 9)
    for left in home.glob("ledger.sqlite-*"):
        left.unlink()
    finding = found(ledger_finding)
    assert finding.status == "failed"
    assert "ledger.sqlite did not answer (file is not a database)" in finding.reason
