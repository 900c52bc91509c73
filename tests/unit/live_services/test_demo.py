"""What the demo takes from the person who runs it, and what it does not."""

from __future__ import annotations

import os

from live_services.demo import own_settings_only


def test_settings_in_the_environment_are_not_the_demos(monkeypatch):
    settings = {
        "KAFKA__BOOTSTRAP_SERVERS": "kafka-1:9092",
        "KAFKA__SECURITY_PROTOCOL": "SASL_SSL",
        "trading__paper__enabled": "false",  # the environment is read without regard to case
        "ACTIVE_BROKERS": '["zerodha"]',
        "MARKET": "{}",
        "REDIS__URL": "",
    }
    others = {"ALPHA_PANDA_CONFIG": "x", "KAFKA_HEAP_OPTS": "y", "MARKETING__X": "z"}
    for name, value in (settings | others | {"ALPHA_PANDA_HOME": "home"}).items():
        monkeypatch.setenv(name, value)
    said: list[str] = []
    with own_settings_only(said.append):
        assert not [name for name in settings if name in os.environ]
        assert "ALPHA_PANDA_HOME" not in os.environ
        assert others.items() <= os.environ.items()
    assert settings.items() <= os.environ.items()
    (line,) = said
    assert line.endswith(
        ": ACTIVE_BROKERS, KAFKA__BOOTSTRAP_SERVERS, KAFKA__SECURITY_PROTOCOL, MARKET, trading__paper__enabled"
    )


def test_an_environment_without_settings_is_not_worth_a_word(monkeypatch):
    said: list[str] = []
    with own_settings_only(said.append):
        pass
    assert not said
