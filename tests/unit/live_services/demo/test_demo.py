"""What the demo takes from the person who runs it, and what it does not."""

from __future__ import annotations

import datetime as dt
import os

import pytest

from feature_store.market.clocks import BarClock
from feature_store.sources.synthetic import synthetic_market
from live_services.adapters.kafka import StoredRecord
from live_services.demo.market_files import MarketFiles
from live_services.demo.replay_view import Tally
from live_services.demo.run import STRATEGIES, DemoOptions, check_files, configuration_toml, own_settings_only
from live_services.failures import CommandFailed
from live_services.settings import load_settings
from tests.live_world import UNIVERSE, signal


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


def test_too_few_sessions_are_refused_before_anything_starts_and_the_least_number_is_named(tmp_path):
    check_files(DemoOptions(home=tmp_path, sessions=8))
    with pytest.raises(CommandFailed, match=r"--sessions 7: .* needs 6 sessions for its 4 folds.*; give 8 or more"):
        check_files(DemoOptions(home=tmp_path, sessions=7))


def test_its_strategies_stand_in_its_settings_file_in_full_and_are_read_back(tmp_path, monkeypatch):
    file = tmp_path / "alpha-panda.toml"
    file.write_text(
        configuration_toml(DemoOptions(home=tmp_path), MarketFiles(bar_minutes=5, train_through=dt.date(2026, 1, 9)))
    )
    monkeypatch.setenv("ALPHA_PANDA_CONFIG", str(file))
    settings = load_settings()
    assert settings.market.bar_minutes == 5
    assert settings.market.train_through == "2026-01-09"
    assert settings.strategies == tuple(spec.model_copy(update={"bar_minutes": 5}) for spec in STRATEGIES)
    assert "holding_bars = 10" in file.read_text()


def test_totals_are_counted_for_each_strategy():
    tally = Tally(UNIVERSE, BarClock.minutes(1))
    for number, strategy in enumerate(["momentum", "fade", "fade"]):
        event = signal(index=number, strategy=strategy)
        headers = (("event_type", b"signal.generated"),)
        tally.add(StoredRecord("paper.signals.raw", 0, number, 0, None, event.model_dump_json().encode(), headers))
    nothing = {"signals_rejected": 0, "orders": 0, "fills": 0}
    assert tally.of_strategies(["momentum", "fade", "idle"]) == {
        "momentum": {"signals": 1} | nothing,
        "fade": {"signals": 2} | nothing,
        "idle": {"signals": 0} | nothing,
    }


def test_it_trains_through_the_session_before_the_one_that_it_replays(tmp_path, monkeypatch):
    file = tmp_path / "alpha-panda.toml"
    monkeypatch.setenv("ALPHA_PANDA_CONFIG", str(file))
    for chosen in (None, 12):
        file.write_text(configuration_toml(DemoOptions(home=tmp_path, sessions=chosen)))
        settings = load_settings()
        made = synthetic_market(**settings.market.synthetic.model_dump() | {"instruments": 2})
        assert settings.market.train_through == made.sessions[-1].date.isoformat()
        assert made.tick_sessions[0].date > made.sessions[-1].date
