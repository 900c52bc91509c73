"""Settings that do not go together are found before anything starts."""

import pytest

from live_services.preflight.configuration import (
    ports_finding,
    risk_limits_finding,
    routing_finding,
    settings_finding,
    shared_names,
    strategies_finding,
    transactional_ids,
)
from live_services.settings import load_settings


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ALPHA_PANDA_CONFIG", raising=False)


def said(check, **options):
    return [(f.status, f.policy, f.strategy, f.reason) for f in check(load_settings(**options))]


def test_the_defaults_have_nothing_against_them():
    for check in (settings_finding, strategies_finding, routing_finding, risk_limits_finding, ports_finding):
        assert [one[0] for one in said(check)] == ["ok"], check


def test_a_misspelt_section_of_the_environment_is_named(monkeypatch):
    monkeypatch.setenv("MARKT__SPEED", "5")
    ((status, _, _, reason),) = said(settings_finding)
    assert status == "warning"
    assert "MARKT__SPEED is no setting and is not used; did you mean MARKET__SPEED?" in reason


def test_a_misspelt_feature_is_named():
    ((status, policy, _, reason),) = said(strategies_finding, strategies=[{"name": "m", "features": ["momentm_10"]}])
    assert (status, policy) == ("failed", "always")
    assert "momentm_10" in reason


def test_a_strategy_without_a_running_account_and_an_account_without_a_strategy_are_named():
    two = {"active_brokers": ("zerodha",), "trading": {"zerodha": {"enabled": True}}}
    stray, idle = said(routing_finding, strategies=[{"name": "momentum"}], **two)[:2]
    assert (stray[0], stray[2]) == ("failed", "momentum")
    assert "strategy momentum trades on paper, and none of these runs" in stray[3]
    assert (idle[0], idle[3]) == ("warning", "the account of zerodha runs, and no strategy trades on it")
    assert said(routing_finding, active_brokers=())[0][3] == "no account runs, so nothing will be traded"


def test_no_two_tasks_or_worlds_share_a_name():
    both = load_settings(
        active_brokers=("paper", "zerodha"), trading={"zerodha": {"enabled": True}}, kafka={"market_partitions": 3}
    )
    ids = transactional_ids(both)
    assert len(ids) == len(set(ids))
    assert {"alpha-panda.shared.strategy_runner.2", "alpha-panda.zerodha.account.0"} <= set(ids)
    assert shared_names(both) == ()


def test_limits_that_contradict_each_other_are_named_with_their_keys():
    tight = {"paper": {"enabled": True, "risk": {"max_notional_per_instrument_inr": 50_000}}}
    ((status, _, _, reason),) = said(risk_limits_finding, strategies=[{"name": "momentum"}], trading=tight)
    assert status == "failed"
    assert "momentum opens trades of 100,000 rupees, and the account of paper allows 50,000" in reason
    loose = {"paper": {"enabled": True, "risk": {"max_gross_notional_inr": 200_000}, "starting_cash_inr": 150_000}}
    assert [one[0] for one in said(risk_limits_finding, trading=loose)] == ["warning", "warning"]


def test_one_metrics_port_for_several_processes_is_refused():
    ((status, policy, _, reason),) = said(ports_finding, runtime={"metrics_port": 9100})
    assert (status, policy) == ("failed", "always")
    assert "runtime.metrics_port is 9100, and 5 processes would listen there" in reason
