import datetime as dt

import dagster as dg
import pytest

from dagster_project.checks.live_skew import live_features_equal_history, verify_live_after_close
from live_services.cli import skew_check
from live_services.domain.events import SkewDifference
from live_services.domain.strategy.skew import SkewReport
from live_services.settings import load_settings


@pytest.fixture
def settings(tmp_path):
    return load_settings(alpha_panda_home=tmp_path)


def difference():
    values = dict.fromkeys(SkewDifference.model_fields, 0)
    values |= {"symbol": "RELIANCE", "feature": "atr_ratio", "live": 1.0, "recomputed": 2.0}
    values |= {"live_bits": "3ff0000000000000", "recomputed_bits": "4000000000000000"}
    return SkewDifference.model_construct(**values)


@pytest.mark.parametrize(
    ("report", "passed", "severity", "said"),
    [
        (SkewReport(rows_equal=120), True, "WARN", "0 of 120 rows differ"),
        (SkewReport(rows_equal=119, rows_different=1, differences=(difference(),)), False, "ERROR", "1 of 120 rows"),
        (SkewReport(notes=("no Redis is known",)), False, "WARN", "no live row to compare"),
    ],
)
def test_a_single_row_that_differs_fails(settings, monkeypatch, report, passed, severity, said):
    monkeypatch.setattr(skew_check, "skew_report", lambda _settings: report)
    result = live_features_equal_history(settings=settings)
    assert (result.passed, result.severity.value) == (passed, severity)
    assert said in result.description
    assert ("differences" in result.metadata) is bool(report.differences)
    if report.differences:
        assert "atr_ratio of RELIANCE" in result.metadata["differences"].value


def test_without_a_running_desk_the_check_says_so_and_is_a_warning(settings):
    result = live_features_equal_history(settings=settings)
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.WARN
    assert "start one with `" in result.description


@pytest.mark.parametrize(("servers", "skipped"), [("", True), ("127.0.0.1:9092", False)])
def test_the_daily_look_is_left_out_where_no_desk_runs(tmp_path, servers, skipped):
    settings = load_settings(alpha_panda_home=tmp_path, kafka={"bootstrap_servers": servers})
    context = dg.build_schedule_context(
        scheduled_execution_time=dt.datetime(2026, 1, 6, 10, 30, tzinfo=dt.UTC), resources={"settings": settings}
    )
    asked = verify_live_after_close(context)
    assert isinstance(asked, dg.SkipReason if skipped else dg.RunRequest)
