"""The session that is to come, its instruments and its history are looked for in the offline store."""

import pytest

from feature_store.market.types import Session
from feature_store.offline.store import OfflineStore
from live_services.preflight.market import history, market_findings, verified
from live_services.settings import load_settings
from tests.live_world import SESSION, UNIVERSE, bars


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path))
    monkeypatch.delenv("ALPHA_PANDA_CONFIG", raising=False)
    return tmp_path


def keep():
    OfflineStore(load_settings().store_root).write_bars(SESSION, UNIVERSE, bars((0, 0, 100.0, 101.0)), "SYNTHETIC")


def found(**market):
    options = {"market": {"feed": "bars"} | market}
    return {finding.check: finding for finding in market_findings(load_settings(**options))}


def test_an_empty_store_names_the_job_that_fills_it(home):
    (finding,) = market_findings(load_settings())
    assert (finding.status, finding.policy) == ("failed", "production")
    assert "Launch train_momentum" in finding.way_out


def test_a_stored_session_is_in_the_calendar_and_short_history_is_a_warning(home):
    keep()
    seen = found()
    assert {check: f.status for check, f in seen.items()} == {
        "instruments": "ok",
        "calendar": "ok",
        "history": "warning",
    }
    assert "WARMING" in seen["history"].reason


def test_a_session_that_is_not_stored_is_named(home):
    keep()
    finding = found(replay_session="2026-01-06")["calendar"]
    assert finding.status == "failed"
    assert "the store has no bars of session 2026-01-06" in finding.reason


def test_an_instrument_that_the_store_does_not_know_is_its_strategys_trouble(home):
    keep()
    settings = load_settings(strategies=[{"name": "m", "instruments": ["NOSUCH"]}], market={"feed": "bars"})
    finding = next(iter(market_findings(settings)))
    assert (finding.status, finding.strategy) == ("failed", "m")
    assert "'NOSUCH'" in finding.reason


def test_a_holiday_and_a_year_that_nobody_verified_are_doubtful(home):
    import datetime as dt

    holiday = Session.regular(dt.date(2026, 1, 26))
    assert "no session of the exchange's calendar" in verified(holiday).reason
    assert verified(Session.regular(dt.date(2031, 1, 6))).status == "warning"
    assert verified(SESSION).status == "ok"


def test_history_is_enough_when_all_that_is_looked_back_on_is_stored(home):
    import datetime as dt

    before = [SESSION.date - dt.timedelta(days=n) for n in range(1, 200)]
    assert history(load_settings(), SESSION, before).status == "ok"
