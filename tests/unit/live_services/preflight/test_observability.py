"""What a desk is watched by answers."""

import pytest

from live_services.preflight.observability import metrics_finding
from live_services.settings import load_settings


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ALPHA_PANDA_CONFIG", raising=False)


def found(**options):
    (finding,) = metrics_finding(load_settings(**options))
    return finding.status, finding.reason


def test_where_nothing_runs_a_port_that_is_opened_here_answers():
    assert found() == ("ok", "a metrics port answers")
    assert found(redis={"url": "redis://127.0.0.1:9/0"}) == ("ok", "a metrics port answers")
