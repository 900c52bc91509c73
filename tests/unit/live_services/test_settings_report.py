"""A person sees where each setting came from, and what is wrong with one; never a secret."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from live_services.settings import load_settings
from live_services.settings_report import HIDDEN, describe_error, report


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("ALPHA_PANDA_HOME", "ALPHA_PANDA_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def _lines(**options):
    return {line.key: line for line in report(options)}


def test_each_setting_names_its_origin_and_the_highest_wins(home, monkeypatch):
    (home / "alpha-panda.toml").write_text("[market]\nspeed = 2.0\nbar_minutes = 3\n[kafka]\nmarket_partitions = 4\n")
    (home / ".alpha-panda" / "run").mkdir(parents=True)
    (home / ".alpha-panda" / "run" / "endpoints.toml").write_text('kafka.bootstrap_servers = "127.0.0.1:9"\n')
    monkeypatch.setenv("MARKET__SPEED", "5")
    monkeypatch.setenv("REDIS__URL", "redis://:hunter2@127.0.0.1:1/0")
    lines = _lines(market={"bar_minutes": 7})
    assert (lines["market.bar_minutes"].value, lines["market.bar_minutes"].origin) == ("7", "option")
    assert (lines["market.speed"].value, lines["market.speed"].origin) == ("5.0", "environment MARKET__SPEED")
    assert lines["kafka.market_partitions"].origin == "file alpha-panda.toml"
    assert lines["kafka.bootstrap_servers"].origin == "running stack"
    assert lines["market.frame_ms"].origin == "default"


def test_secrets_are_hidden_but_it_shows_whether_they_are_set(monkeypatch):
    monkeypatch.setenv("REDIS__URL", "redis://:hunter2@127.0.0.1:1/0")
    lines = _lines()
    assert lines["redis.url"].value == HIDDEN
    assert lines["kafka.sasl_password"].value == ""
    assert "hunter2" not in repr(lines)


def test_a_wrong_setting_is_named_with_its_key_value_and_origin(monkeypatch):
    monkeypatch.setenv("KAFKA__MARKET_PARTITIONS", "0")
    monkeypatch.setenv("KAFKA__PARTITIONS", "1")
    with pytest.raises(ValidationError) as caught:
        load_settings()
    text = describe_error(caught.value)
    assert "kafka.market_partitions (from environment KAFKA__MARKET_PARTITIONS): Input should be greater" in text
    assert "(it is '0')" in text
    assert "kafka.partitions (from environment KAFKA__PARTITIONS): there is no such setting" in text
    assert "did you mean market_partitions?" in text


def test_a_password_in_an_address_is_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW__TRACKING_URI", "http://asha:hunter2@mlflow.example:5000/base")
    (shown,) = [line.value for line in report({}) if line.key == "mlflow.tracking_uri"]
    assert shown == "http://mlflow.example:5000/base"
