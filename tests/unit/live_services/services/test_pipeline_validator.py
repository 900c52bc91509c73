from __future__ import annotations

from typing import Any

import pytest

from live_services.composition import broker_plan, reporting_tasks
from live_services.services.pipeline_validator import thresholds
from live_services.settings import Settings


def settings(**sections: Any) -> Settings:
    return Settings.model_validate(sections)


@pytest.mark.parametrize(
    ("market", "seconds"),
    [
        ({"speed": 0}, 30.0),
        ({"speed": 1}, 30.0),
        ({"speed": 600}, 30.0),
        ({"speed": 0.01, "frame_ms": 1000}, 300.0),
        ({"speed": 0.01, "frame_ms": 50}, 30.0),
        ({"speed": 0.01, "feed": "bars"}, 300.0),
    ],
)
def test_a_market_may_be_silent_for_three_cuts_of_a_replay_at_its_speed(market: dict[str, Any], seconds: float) -> None:
    limits = thresholds(settings(market=market))
    assert limits.no_recent_data_s == pytest.approx(seconds)
    assert limits.judges_pace == (market["speed"] > 0)


def test_a_plan_names_the_strategies_of_the_settings_and_why_a_broker_does_not_run_or_trade() -> None:
    strategies = [
        {"name": "momentum", "model": "m", "brokers": ["paper", "zerodha"]},
        {"name": "reversal", "model": "m", "brokers": ["paper"]},
    ]
    desk = settings(strategies=strategies, trading={"paper": {"enabled": False}})
    paper, zerodha = (broker_plan(desk, broker) for broker in ("paper", "zerodha"))
    assert (paper.active_strategies, paper.not_running) == (("momentum", "reversal"), None)
    assert paper.trading_off is not None
    assert paper.trading_off.startswith("TRADING__PAPER__ENABLED is false")
    assert zerodha.active_strategies == ("momentum",)
    assert zerodha.not_running == "it is not in ACTIVE_BROKERS: paper"


def test_every_service_of_the_runner_and_of_each_running_account_is_to_say_how_it_is() -> None:
    desk = settings(kafka={"market_partitions": 2}, active_brokers=["paper", "zerodha"])
    assert list(map(str, reporting_tasks(desk))) == [
        "shared.strategy_runner[0]",
        "shared.strategy_runner[1]",
        "paper.risk_manager[0]",
        "paper.paper_trading[0]",
        "paper.portfolio_manager[0]",
        "zerodha.risk_manager[0]",
        "zerodha.portfolio_manager[0]",
    ]
