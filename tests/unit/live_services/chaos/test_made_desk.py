"""The desk that is made to be disturbed."""

from __future__ import annotations

import datetime as dt

import pytest

from feature_store.market.types import Session
from live_services.chaos.made_desk import MARKET_PARTITIONS, MODEL, STRATEGIES, write_configuration
from live_services.chaos.run import targets
from live_services.settings import CONFIG_NAME, load_settings

SESSIONS = (Session.regular(dt.date(2026, 1, 16)), Session.regular(dt.date(2026, 1, 19)))


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ALPHA_PANDA_HOME", str(tmp_path))
    monkeypatch.setenv("ALPHA_PANDA_CONFIG", str(tmp_path / CONFIG_NAME))
    return tmp_path


def test_its_settings_are_read_back(home):
    write_configuration(home, SESSIONS, speed=60.0)
    settings = load_settings()
    assert (settings.market.replay_session, settings.market.replay_through) == ("2026-01-16", "2026-01-19")
    assert settings.market.speed == 60.0
    assert settings.kafka.market_partitions == MARKET_PARTITIONS == 4
    assert [strategy.name for strategy in settings.strategies] == [one["name"] for one in STRATEGIES]
    assert {strategy.model_name for strategy in settings.strategies} == {MODEL}


def test_another_speed_is_no_other_configuration(home):
    write_configuration(home, SESSIONS, speed=60.0)
    before = load_settings().digest
    write_configuration(home, SESSIONS, speed=0.0)
    assert load_settings().digest == before


def test_every_service_and_every_server_that_they_need_is_a_target(home):
    write_configuration(home)
    assert targets() == (
        "market_feed",
        "strategy_runner",
        "skew_monitor",
        "pipeline_validator",
        "paper.account",
        "kafka",
        "valkey",
        "mlflow",
    )
