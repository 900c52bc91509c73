"""What a desk is watched by answers."""

import pytest

from live_services.adapters.logs import log_beside, stop_logging
from live_services.preflight.observability import log_channels_finding, metrics_finding, tracing_finding
from live_services.settings import load_settings
from tests.otlp_collector import collecting


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ALPHA_PANDA_CONFIG", raising=False)


def found(check=metrics_finding, **options):
    (finding,) = check(load_settings(**options))
    return finding.status, finding.reason


def test_where_nothing_runs_a_port_that_is_opened_here_answers():
    assert found() == ("ok", "a metrics port answers")
    assert found(redis={"url": "redis://127.0.0.1:9/0"}) == ("ok", "a metrics port answers")


def test_channels_that_go_nowhere_are_named_and_those_of_a_command_have_their_files(tmp_path):
    stop_logging()
    status, reason = found(log_channels_finding)
    assert status == "failed"
    assert reason.startswith("what is logged on trading, market_data, ")
    try:
        log_beside("cli", tmp_path / "home")
        assert found(log_channels_finding) == ("ok", "8 channels have their files")
    finally:
        stop_logging()


def test_a_collector_is_asked_whether_it_takes_spans_where_tracing_is_on():
    assert [*tracing_finding(load_settings())] == []
    with collecting() as collector:
        on = {"enabled": True, "endpoint": collector.endpoint}
        assert found(tracing_finding, tracing=on) == ("ok", f"the collector at {collector.endpoint} takes spans")
    assert found(tracing_finding, tracing=on | {"endpoint": f"{collector.endpoint}/gone"})[0] == "warning"
