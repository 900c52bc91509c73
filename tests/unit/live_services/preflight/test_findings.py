"""What a failure holds back, by policy and environment, and what is written of it."""

import json
import threading

import pytest

from live_services.preflight.findings import Finding, Preflight, is_strict, lines, ok, summary
from live_services.preflight.run import Check, run_checks, tell_of
from live_services.preflight.written import read_held_back
from live_services.settings import load_settings

MODEL = Finding("model", "failed", "none stands", "Train one", strategy="momentum")


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ALPHA_PANDA_CONFIG", raising=False)


@pytest.mark.parametrize(
    ("finding", "elsewhere", "in_production"),
    [
        (MODEL, "strategy momentum", "live services"),
        (Finding("redis", "failed", "away"), "nothing", "live services"),
        (Finding("kafka", "failed", "away", policy="always"), "live services", "live services"),
        (Finding("dagster", "failed", "away", policy="advice"), "nothing", "nothing"),
        (Finding("history", "warning", "short"), "nothing", "nothing"),
        (Finding("kafka", "not started", "not yet", policy="always"), "nothing", "nothing"),
        (ok("disk", "much"), "nothing", "nothing"),
    ],
)
def test_the_policy_says_what_a_finding_holds_back(finding, elsewhere, in_production):
    for strict, held in ((False, elsewhere), (True, in_production)):
        found = Preflight("testing", strict, 0, (finding,), 0.0)
        assert found.blocks(finding) == held
        assert bool(found.blocking) == (held == "live services")


def test_production_and_real_money_follow_productions_policy():
    assert not is_strict(load_settings())
    assert not is_strict(load_settings(environment="testing"))
    assert is_strict(load_settings(environment="production"))
    real = load_settings(trading={"zerodha": {"enabled": True}})
    assert is_strict(real)
    assert run_checks(real, (), 0).policy == "production, for real money may be traded"


def test_the_summary_has_status_duration_reason_and_policy_of_each_check(tmp_path):
    settings = load_settings(environment="production")
    found = run_checks(settings, (Check("model", lambda _: (MODEL,)), Check("disk", lambda _: (ok("disk", "9"),))), 0)
    assert tell_of(found, tmp_path / "home") is None
    written = json.loads((tmp_path / "home" / "logs" / "preflight_summary.json").read_text())
    assert written == json.loads(json.dumps(summary(found)))
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o700
    assert written["environment"] == "production"
    assert written["holds_back"] == "live services"
    model, disk = written["checks"]
    assert (model["check"], model["status"], model["blocks"]) == ("model", "failed", "live services")
    assert (model["reason"], model["way_out"], model["policy"]) == ("none stands", "Train one", "production")
    assert (disk["status"], disk["blocks"]) == ("ok", "nothing")
    assert disk["duration_seconds"] >= 0
    assert read_held_back(tmp_path / "home") == ("model: none stands. Train one",)
    assert lines(found, found.blocking) == ("model failed (holds back live services): none stands. Train one",)


def test_a_check_that_hangs_or_breaks_fails_and_the_others_answer():
    never, home = threading.Event(), load_settings()

    def hang(_):
        never.wait(60)
        return ()

    def away(_):
        raise ConnectionError("nobody there")

    def wrong(_):
        raise KeyError("oops")

    asked = (
        Check("hangs", hang, 0.05),
        Check("away", away, policy="always"),
        Check("wrong", wrong),
        Check("good", lambda _: [ok("good", "yes")]),
    )
    found = {finding.check: finding for finding in run_checks(home, asked, 0).findings}
    never.set()
    assert (found["hangs"].status, found["hangs"].reason) == ("failed", "no answer within 0.05 s")
    assert (found["away"].status, found["away"].reason, found["away"].policy) == ("failed", "nobody there", "always")
    assert "the check itself ended with KeyError" in found["wrong"].reason
    assert found["good"].status == "ok"


def test_a_summary_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "home").write_text("a file")
    said = tell_of(run_checks(load_settings(), (), 0), tmp_path / "home")
    assert "preflight_summary.json could not be written" in said


def test_a_secret_that_an_answer_repeats_is_hidden():
    settings = load_settings(kafka={"sasl_password": "hunter22"})
    told = (ok("kafka", "refused me:hunter22@kafka and http://me:secret@mlflow"),)
    (finding,) = run_checks(settings, (Check("kafka", lambda _: told),), 0).findings
    assert "hunter22" not in finding.reason
    assert "secret" not in finding.reason
    assert "mlflow" in finding.reason


def test_where_nothing_was_held_back_or_asked_nothing_is_said(tmp_path):
    assert read_held_back(tmp_path) == ()
    tell_of(run_checks(load_settings(), (Check("disk", lambda _: (ok("disk", "9"),)),), 0), tmp_path)
    assert read_held_back(tmp_path) == ()
