"""The loading summary: what runs by broker, a warning for each strategy that is skipped, and a line for all tasks."""

from __future__ import annotations

from dataclasses import replace

from structlog.testing import capture_logs

from live_services.domain.log import StrategyRuntime, TaskId
from live_services.services.loading_summary import LoadingSummaries
from models_registry.specification import StrategySpec
from tests.live_world import OPEN

TASKS = [TaskId("strategy_runner", "shared", partition) for partition in range(2)]
SPECS = (
    StrategySpec(name="momentum", brokers=("paper", "zerodha")),
    StrategySpec(name="fade", holding_bars=5),
)
READY = StrategyRuntime("momentum", "champion", "ready", "momentum", "3")
NONE_LIVE = StrategyRuntime("momentum", "live", "disabled", "momentum", reason="no version was promoted to it")
NO_SHADOW = StrategyRuntime("momentum", "challenger", "disabled", "momentum", reason="no version was promoted to it")
REFUSED = StrategyRuntime("fade", "champion", "disabled", "fade", reason="version 2 is refused: other features")


def test_each_broker_has_its_own_count_and_the_reasons_of_what_is_skipped() -> None:
    summaries = LoadingSummaries(SPECS, ("paper", "zerodha"))
    event = summaries.of(TASKS[0], "2026-01-05", [READY, NONE_LIVE, NO_SHADOW, REFUSED], OPEN)
    paper, zerodha = event.brokers
    assert (paper.broker, paper.configured, paper.ready) == ("paper", 2, 1)
    assert paper.skipped == {"fade": "version 2 is refused: other features"}
    assert (zerodha.configured, zerodha.ready) == (1, 0)
    assert zerodha.skipped == {"momentum": "no version was promoted to it"}
    assert [(one.strategy, one.state) for one in event.strategies if one.rung == "champion"] == [
        ("momentum", "ready"),
        ("fade", "disabled"),
    ]


def test_a_skipped_strategy_is_warned_of_once_whatever_the_tasks_and_again_for_another_reason() -> None:
    summaries = LoadingSummaries(SPECS, ("paper",))
    other = replace(REFUSED, reason="version 3 is refused: its gate did not pass")
    away = replace(REFUSED, state="waiting", reason="the registry cannot be asked: connection refused")
    with capture_logs() as lines:
        for standing in ([READY, NO_SHADOW, REFUSED], [READY, other], [READY, away]):
            for task in TASKS:
                summaries.of(task, "2026-01-05", standing, OPEN)
        summaries.of(TASKS[0], "2026-01-05", [READY, replace(away, reason="cannot be asked: timed out")], OPEN)
    warned = [line["reason"] for line in lines if line["event"] == "strategy_skipped"]
    assert warned == [REFUSED.reason, other.reason, away.reason]
    assert {line["log_level"] for line in lines if line["event"] == "strategy_skipped"} == {"warning"}


def test_the_summary_stands_in_the_log_once_for_all_tasks_and_again_when_it_changes() -> None:
    summaries = LoadingSummaries(SPECS, ("paper",))
    with capture_logs() as lines:
        for standing in ([READY, REFUSED], [READY, replace(REFUSED, state="ready", version="1", reason="")]):
            for task in TASKS:
                summaries.of(task, "2026-01-05", standing, OPEN)
    assert [line["paper"] for line in lines if line["event"] == "strategies_loaded"] == ["1 of 2 ready", "2 of 2 ready"]
