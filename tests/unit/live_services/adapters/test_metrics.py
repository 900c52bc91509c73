"""What a process counts, and that the number of its series is bounded by the settings."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, get_args

import pytest
from pydantic import ValidationError

from live_services.adapters.health import TaskHealth
from live_services.adapters.metrics import OTHER, RULES, STAGES, WHOLE_ACCOUNT, Metrics
from live_services.adapters.scrape_targets import ScrapeTarget, targets_directory
from live_services.domain import pipeline_findings
from live_services.domain.account.trading_states import TradingStates
from live_services.domain.events import (
    DeadLetter,
    LetterReason,
    PnlSnapshot,
    PositionMark,
    SignalRejected,
    StrategyTotals,
    TradingState,
    TradingStateInForce,
    self_caused,
)
from live_services.domain.histograms import HISTOGRAMS
from live_services.domain.log import StrategyRuntime, TaskId
from live_services.domain.topics import BROKERS, all_topics, consumer_group
from live_services.settings import Settings
from models_registry.refs import Alias
from models_registry.specification import Broker
from tests.live_world import signal
from tests.toy_chain import SESSION, toy_snapshot

TASK = TaskId("risk_manager", "paper", 0)
GROUP = consumer_group("account", "paper")


def rejected(rule: str = "open_positions", strategy: str = "momentum") -> SignalRejected:
    raw = signal(strategy=strategy)
    taken = {name: getattr(raw, name) for name in SignalRejected.model_fields if name in type(raw).model_fields}
    fields = taken | {"event_type": "signal.rejected", "signal_id": raw.event_id}
    return SignalRejected.model_validate(fields | {"rule": rule, "limit": "10", "observed": "11"})


def letter(reason: str, topic: str = "paper.signals.raw") -> DeadLetter:
    place = {"topic": topic, "partition": 0, "offset": 3, "service": "risk_manager", "failure": "KeyError: 'x'"}
    fields = {**self_caused("letter", reason), **place, "reason": reason, "broker": "paper", "event_time_ns": 5}
    return DeadLetter.model_validate(fields | {"event_type": "dead_letter", "key_base64": None, "value_base64": ""})


def totals(strategy: str, version: str, realized_inr: int) -> StrategyTotals:
    money = {"realized_inr_e4": realized_inr * 10_000, "charges_inr_e4": 20_000, "fills": 2, "trades": 1}
    return StrategyTotals.model_validate({"strategy": strategy, "model_name": "m", "model_version": version} | money)


def mark(strategy: str, quantity: int, unrealized_inr: float) -> PositionMark:
    fields = dict.fromkeys(PositionMark.model_fields, 0)
    words = {"strategy": strategy, "symbol": "AAA", "model_version": "1", "opening_order_id": "o"}
    return PositionMark.model_validate(fields | words | {"quantity": quantity, "unrealized_inr": unrealized_inr})


def books(**changes: Any) -> PnlSnapshot:
    return toy_snapshot(SESSION, SESSION.open_ns, 0).model_copy(update=changes)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


# --- what is counted --------------------------------------------------------------------------------------------------


def test_the_gauges_of_a_task_are_there_until_it_is_given_back() -> None:
    metrics, labels = Metrics(), {"broker": "paper", "service": "risk_manager", "partition": "0"}
    metrics.report(TaskHealth(TASK, 5_000_000_000, "2026-01-05", True, 12, {}, 1, 0, 7, "market.ticks[0]", 42))
    assert value(metrics, "alpha_panda_watermark_seconds", **labels) == 5.0
    assert value(metrics, "alpha_panda_lag_records", **labels) == 7.0
    metrics.withdraw(TASK)
    assert value(metrics, "alpha_panda_watermark_seconds", **labels) is None


def test_the_lag_of_a_partition_goes_with_it_to_another_member() -> None:
    metrics = Metrics()
    metrics.rebalanced(GROUP, [("market.ticks", 0), ("market.ticks", 1)])
    metrics.lag(GROUP, {("market.ticks", 0): 3, ("market.ticks", 1): 4})
    metrics.rebalanced(GROUP, [("market.ticks", 1)])
    where = {"group": GROUP, "topic": "market.ticks"}
    assert value(metrics, "alpha_panda_consumer_lag_records", **where, partition="0") is None
    assert value(metrics, "alpha_panda_consumer_lag_records", **where, partition="1") == 4.0
    assert value(metrics, "alpha_panda_rebalances_total", group=GROUP) == 2.0
    assert value(metrics, "alpha_panda_assigned_partitions", group=GROUP) == 1.0


def test_two_brokers_series_are_two() -> None:
    metrics = Metrics(["momentum"])
    metrics.committed([books(equity_inr=5.0), books(broker="zerodha", equity_inr=7.0)])
    metrics.active("risk_manager", "paper")
    assert value(metrics, "alpha_panda_equity_inr", broker="paper") == 5.0
    assert value(metrics, "alpha_panda_equity_inr", broker="zerodha") == 7.0
    where = {"service": "risk_manager", "stage": "risk"}
    assert value(metrics, "trading_last_activity_timestamp_unix", **where, broker="zerodha") is None
    assert value(metrics, "trading_last_activity_timestamp_unix", **where, broker="paper") is not None


def test_the_newest_books_stand_by_strategy_over_all_its_versions() -> None:
    metrics = Metrics(["momentum"])
    held = (mark("momentum", 10, 2.5), mark("momentum", 0, 0.0))
    both = (totals("momentum", "1", 10), totals("momentum", "2", -4), totals("gone", "1", 1))
    metrics.committed([books(), books(positions=held, strategies=both)])
    labels = {"broker": "paper", "strategy": "momentum"}
    assert value(metrics, "alpha_panda_open_positions", **labels) == 1.0
    assert value(metrics, "alpha_panda_realized_pnl_inr", **labels) == 6.0
    assert value(metrics, "alpha_panda_charges_inr", **labels) == 4.0
    assert value(metrics, "alpha_panda_unrealized_pnl_inr", **labels) == 2.5
    assert value(metrics, "alpha_panda_realized_pnl_inr", broker="paper", strategy=OTHER) == 1.0
    metrics.committed([books(strategies=both)])
    assert value(metrics, "alpha_panda_open_positions", **labels) == 0.0
    assert value(metrics, "alpha_panda_unrealized_pnl_inr", **labels) == 0.0


def test_rejections_are_counted_by_rule_and_dead_letters_by_reason() -> None:
    metrics = Metrics(["momentum"])
    metrics.committed([rejected(), rejected(), letter("bad_frame"), letter("failed")])
    labels = {"broker": "paper", "strategy": "momentum", "rule": "open_positions"}
    assert value(metrics, "alpha_panda_risk_rejections_total", **labels) == 2.0
    for reason in ("bad_frame", "failed"):
        assert value(metrics, "trading_dlq_messages_total", topic="paper.signals.raw", reason=reason) == 1.0


def test_models_frames_latencies_and_warnings_have_the_names_that_dashboards_ask_for() -> None:
    metrics = Metrics(["momentum"])
    metrics.model_loaded("momentum")
    metrics.model_missing("momentum")
    metrics.inferred("momentum", 50, 0.001)
    metrics.frame_queued(0.001)
    metrics.frames_acknowledged([0.002, 0.003])
    metrics.signal_latency("paper", 0.01)
    metrics.order_latency("paper", 0.02)
    metrics.validator_warning("orders", "paper", "no_recent_data")
    metrics.promoted("champion")
    metrics.commit_took("account", "paper", 0.01)
    assert value(metrics, "ml_model_load_success_total", strategy_id="momentum") == 1.0
    assert value(metrics, "ml_model_load_failure_total", strategy_id="momentum") == 1.0
    assert value(metrics, "ml_inference_total", strategy="momentum") == 50.0
    assert value(metrics, "ml_inference_latency_seconds_count", strategy="momentum") == 1.0
    assert value(metrics, "market_tick_enqueue_delay_seconds_count") == 1.0
    assert value(metrics, "market_tick_emit_latency_seconds_count") == 2.0
    assert value(metrics, "alpha_panda_tick_to_signal_seconds_count", broker="paper") == 1.0
    assert value(metrics, "alpha_panda_signal_to_order_seconds_sum", broker="paper") == 0.02
    assert value(metrics, "alpha_panda_promotions_total", rung="champion") == 1.0
    assert value(metrics, "alpha_panda_commits_total", service="account", broker="paper") == 1.0
    warned = {"stage": "orders", "broker": "paper", "issue": "no_recent_data"}
    assert value(metrics, "validator_warnings_total", **warned) == 1.0
    activity = {"service": "market_feed", "stage": "market_data", "broker": "shared"}
    assert value(metrics, "trading_last_activity_timestamp_unix", **activity) is not None


def running(partition: int, *states: Literal["ready", "disabled", "waiting"]) -> TaskHealth:
    """A runner's task with so many strategies, each on paper's rung and without a challenger."""
    names = [f"s{k}" for k in range(len(states))]
    said = [StrategyRuntime(name, "champion", state, "m") for name, state in zip(names, states, strict=True)]
    shadows = [StrategyRuntime(name, "challenger", "disabled", "m") for name in names]
    task = TaskId("strategy_runner", "shared", partition)
    return TaskHealth(task, 5, "2026-01-05", True, 1, {}, 0, 0, 0, "", 42, strategies=(*said, *shadows))


def test_a_strategy_is_ready_when_it_runs_a_version_on_every_task() -> None:
    metrics = Metrics()

    def ready() -> tuple[float | None, float | None]:
        names = "alpha_panda_strategies_ready", "alpha_panda_strategies_configured"
        return value(metrics, names[0], broker="paper"), value(metrics, names[1], broker="paper")

    metrics.to_run({"paper": ["s0", "s1", "s2"]})
    assert ready() == (0.0, 3.0)  # before any task says what the session has
    metrics.report(running(0, "ready", "ready", "disabled"))
    assert ready() == (2.0, 3.0)
    metrics.report(running(1, "ready", "waiting", "disabled"))
    assert ready() == (1.0, 3.0)
    metrics.withdraw(TaskId("strategy_runner", "shared", 1))
    assert ready() == (2.0, 3.0)
    assert value(metrics, "alpha_panda_strategies_ready", broker="zerodha") == 0.0
    metrics.withdraw(TaskId("strategy_runner", "shared", 0))
    assert ready() == (0.0, 3.0)


def account(*in_force: tuple[str | None, TradingState], broker: Broker = "paper") -> TaskHealth:
    """A broker's risk, by whose word these scopes are in these states."""
    said = [
        TradingStateInForce(
            strategy=strategy,
            state=state,
            flatten=False,
            since_ns=1,
            reason="r",
            commanded_by="asha",
            commanded_at_ns=1,
        )
        for strategy, state in in_force
    ]
    states, task = TradingStates.carried(said), TaskId("risk_manager", broker, 0)
    return TaskHealth(task, 5, "2026-01-05", True, 1, {}, 0, 0, 0, "", 42, trading_states=states)


def test_a_trading_state_stands_by_broker_and_strategy_until_it_is_lifted_or_the_task_goes() -> None:
    metrics = Metrics(["momentum", "reversal"])

    def states(broker: Broker = "paper") -> list[float | None]:
        names = (WHOLE_ACCOUNT, "momentum", "reversal", OTHER)
        return [value(metrics, "alpha_panda_trading_state", broker=broker, strategy=name) for name in names]

    metrics.report(replace(account(), trading_states=None))
    assert states() == [None] * 4, "what is in force is not known yet"
    metrics.report(account((None, "REDUCING"), ("momentum", "HALTED"), ("a strategy of last year", "HALTED")))
    metrics.report(account(broker="zerodha"))
    assert states() == [1.0, 2.0, 0.0, 2.0]
    assert states("zerodha") == [0.0, 0.0, 0.0, None]
    metrics.report(account(("momentum", "REDUCING")))
    assert states() == [0.0, 1.0, 0.0, None]
    metrics.withdraw(TaskId("portfolio_manager", "paper", 0))
    metrics.withdraw(account(broker="zerodha").task)
    assert states() == [0.0, 1.0, 0.0, None]
    assert states("zerodha") == [None] * 4


# --- what bounds the series -------------------------------------------------------------------------------------------

STRATEGY = {"momentum", OTHER, WHOLE_ACCOUNT}
BROKER = {*BROKERS, "shared"}
ALLOWED = {
    "broker": BROKER,
    "strategy": STRATEGY,
    "strategy_id": STRATEGY,
    "rule": {*RULES, OTHER},
    "topic": {*(topic.name for topic in all_topics()), OTHER},
    "reason": set(get_args(LetterReason)),
    "stage": {*STAGES.values(), *pipeline_findings.STAGES, OTHER},
    "issue": {*pipeline_findings.ISSUES, OTHER},
    "rung": {*get_args(Alias), OTHER},
    "service": {*STAGES, "account"},
    "event_type": {"signal.rejected", "dead_letter", "pnl.snapshot"},
    "result": {"equal", "different", "unverified"},
    "outcome": {"written"},
    "group": {GROUP},
    "partition": {"0"},
}


def told_anything() -> Metrics:
    """A process that met everything, much of it with names that nobody declared."""
    metrics = Metrics(["momentum"])
    for name in ("momentum", "INFY 408065", "a strategy of last year"):
        metrics.committed(
            [rejected(strategy=name), rejected(rule=name), letter("late"), letter("bad_frame", topic=name)]
        )
        metrics.committed([books(positions=(mark(name, 1, 1.0),), strategies=(totals(name, name, 1),))])
        metrics.model_loaded(name)
        metrics.model_missing(name)
        metrics.inferred(name, 1, 0.1)
        metrics.promoted(name)
        metrics.validator_warning(name, "paper", name)
    metrics.report(running(0, "ready"))
    metrics.report(account((None, "HALTED"), ("a strategy of last year", "HALTED")))
    metrics.registry_answered(well=False)
    metrics.rebalanced(GROUP, [("market.ticks", 0)])
    metrics.lag(GROUP, {("market.ticks", 0): 3})
    metrics.active("risk_manager", "paper")
    metrics.commit_took("account", "paper", 0.01)
    metrics.signal_latency("paper", 0.01)
    metrics.order_latency("paper", 0.01)
    metrics.online_block("shared", "written")
    return metrics


def test_every_value_of_a_label_is_one_that_the_settings_or_the_code_name() -> None:
    for family in told_anything().registry.collect():
        for sample in family.samples:
            for label, said in sample.labels.items():
                assert label == "le" or said in ALLOWED[label], sample


def test_more_strangers_make_no_series_more() -> None:
    metrics, series = Metrics(["momentum"]), []
    for strangers in (range(2), range(2, 50)):
        metrics.committed([rejected(strategy=f"s{k}", rule=f"r{k}") for k in strangers])
        metrics.committed([letter("failed", topic=f"t{k}") for k in strangers])
        metrics.committed([books(strategies=tuple(totals(f"s{k}", f"{k}", 1) for k in strangers))])
        metrics.report(account(*((f"s{k}", "HALTED") for k in strangers)))
        series.append(sum(len(family.samples) for family in metrics.registry.collect()))
    assert series[0] == series[1]


# --- buckets ----------------------------------------------------------------------------------------------------------


def test_buckets_are_those_of_the_settings_where_they_give_some() -> None:
    given = Settings.model_validate({"monitoring": {"prometheus_buckets": {"alpha_panda_commit_seconds": [0.5, 2]}}})
    metrics = Metrics(buckets=given.monitoring.prometheus_buckets)
    metrics.commit_took("account", "paper", 1.0)
    bounds = [
        sample.labels["le"]
        for family in metrics.registry.collect()
        for sample in family.samples
        if sample.name == "alpha_panda_commit_seconds_bucket"
    ]
    assert bounds == ["0.5", "2.0", "+Inf"]


@pytest.mark.parametrize(
    ("buckets", "told"),
    [
        ({"alpha_panda_comit_seconds": [1]}, f"there are {', '.join(HISTOGRAMS)}"),
        ({"alpha_panda_commit_seconds": [2, 1]}, "the bounds of alpha_panda_commit_seconds do not ascend: 2, 1"),
        ({"alpha_panda_commit_seconds": [1, 1]}, "do not ascend"),
        ({"alpha_panda_commit_seconds": []}, "has no bounds"),
        ({"alpha_panda_commit_seconds": [0]}, "greater than 0"),
    ],
)
def test_buckets_that_cannot_be_are_refused_with_the_names_that_there_are(buckets: Any, told: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Settings.model_validate({"monitoring": {"prometheus_buckets": buckets}})
    assert told in str(refused.value)


# --- where Prometheus finds a process ---------------------------------------------------------------------------------


def test_a_process_is_found_by_its_file_as_long_as_it_runs(tmp_path: Path) -> None:
    target = ScrapeTarget(tmp_path, "account", "paper", 4242)
    target.write()
    (file,) = targets_directory(tmp_path).glob("*.json")
    assert json.loads(file.read_text()) == [
        {"targets": ["127.0.0.1:4242"], "labels": {"process": "account", "world": "paper"}}
    ]
    target.remove()
    target.remove()
    assert list(targets_directory(tmp_path).iterdir()) == []


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where a folder is to be")
    ScrapeTarget(tmp_path, "account", "paper", 4242).write()


def test_what_is_found_at_two_brokers_is_two_series() -> None:
    metrics = Metrics()
    metrics.validator_warning("risk", "paper", "consumer_lag")
    for _ in range(2):
        metrics.validator_warning("risk", "zerodha", "consumer_lag")
    of_issue = {"stage": "risk", "issue": "consumer_lag"}
    counted = [value(metrics, "validator_warnings_total", broker=broker, **of_issue) for broker in BROKERS]
    assert counted == [1.0, 2.0]
