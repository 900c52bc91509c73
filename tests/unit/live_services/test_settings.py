"""Settings refuse what does not go together, and their digest is that of what decides what is said."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from live_services.settings import MarketSettings, Settings, SyntheticSettings, TradingSettings


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("ALPHA_PANDA_HOME", "ALPHA_PANDA_CONFIG"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("market", "told"),
    [
        ({"replay_through": "2026-01-09"}, "replay_through 2026-01-09 needs replay_session as well"),
        (
            {"replay_session": "2026-01-08", "replay_through": "2026-01-07"},
            "replay_through 2026-01-07 is before replay_session 2026-01-08",
        ),
        (
            {"replay_session": "2026-01-08", "replay_through": "2026-01-12", "train_through": "2026-01-08"},
            "train_through 2026-01-08 is not before replay_session 2026-01-08",
        ),
        ({"replay_session": "2026-01-08", "replay_through": "Monday"}, "write a date as YYYY-MM-DD"),
        ({"join_at": "half past ten"}, "write a time of day as HH:MM or HH:MM:SS"),
        ({"join_at": "24:00"}, "write a time of day as HH:MM or HH:MM:SS"),
        ({"synthetic": {"sessions": 4, "tick_sessions": 5}}, "tick_sessions 5 is more than sessions 4"),
    ],
)
def test_sessions_that_cannot_be_played_are_refused_with_the_way_out(market: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        MarketSettings.model_validate(market)


def test_one_session_is_replayed_once_and_has_ticks_unless_more_are_asked_for() -> None:
    market = MarketSettings()
    assert (market.replay_session, market.replay_through, market.follow, market.join_at) == ("", "", False, "")
    assert SyntheticSettings().tick_sessions == 1
    one = MarketSettings(replay_session="2026-01-08", replay_through="2026-01-08", train_through="2026-01-07")
    assert one.replay_through == one.replay_session
    assert MarketSettings(synthetic=SyntheticSettings(sessions=5, tick_sessions=5)).synthetic.tick_sessions == 5


@pytest.mark.parametrize("wrong", [{"starting_cash_inr": 0}, {"square_off_minutes_before_close": 0}])
def test_an_account_has_cash_and_is_squared_off_before_the_close(wrong: dict[str, Any]) -> None:
    account = TradingSettings()
    assert (account.starting_cash_inr, account.square_off_minutes_before_close) == (1_000_000.0, 5)
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        TradingSettings.model_validate(wrong)


@pytest.mark.parametrize(
    "changed",
    [
        {"alpha_panda_home": "/elsewhere"},
        {"kafka": {"bootstrap_servers": "kafka-1:9092", "sasl_password": "secret"}},
        {"redis": {"url": "redis://elsewhere:6379/0"}},
        {"mlflow": {"tracking_uri": "http://mlflow:5000", "poll_seconds": 1}},
        {"runtime": {"metrics_port": 9100}},
        {"market": {"speed": 60, "follow": True}},
        {"market": {"replay_session": "2026-01-08", "replay_through": "2026-01-12"}},
        {"market": {"bars_file": "/a/bars.parquet", "corporate_actions": "/a/actions.csv", "membership": "/a/m.csv"}},
    ],
)
def test_places_paces_and_the_choice_of_sessions_leave_the_digest_as_it_is(changed: dict[str, Any]) -> None:
    assert Settings(**changed).digest == Settings().digest


@pytest.mark.parametrize(
    "changed",
    [
        {"kafka": {"market_partitions": 2}},
        {"market": {"feed": "bars"}},
        {"market": {"bar_minutes": 5}},
        {"strategies": [{"name": "trend"}]},
        {"trading": {"paper": {"enabled": True, "risk": {"max_open_positions": 1}}}},
        {"trading": {"paper": {"enabled": True, "starting_cash_inr": 5}}},
    ],
)
def test_what_decides_what_is_said_changes_the_digest(changed: dict[str, Any]) -> None:
    assert Settings(**changed).digest != Settings().digest
