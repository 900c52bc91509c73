"""Prometheus metrics of one process: every name there is, and what it counts.

Nothing is counted for a tick: a frame, a batch, a commit and a second are the smallest things measured. Every value of
a label is one that the settings or the code name, and all others together are ``other``: no instrument, no id, no
version and no free text, so that the number of series is bounded whatever comes.
"""

from __future__ import annotations

import time
from collections import Counter as Tally
from collections.abc import Collection, Mapping, Sequence
from typing import Final, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from live_services.adapters.health import TaskHealth
from live_services.adapters.logs import wiring
from live_services.domain.account.risk import CLOSE_RULES, OPEN_RULES
from live_services.domain.account.trading_states import STRICTNESS, TradingStates
from live_services.domain.events import (
    DeadLetter,
    Event,
    FeatureSkewMeasured,
    PnlSnapshot,
    SignalRejected,
)
from live_services.domain.histograms import HISTOGRAMS
from live_services.domain.log import RUNNER, StrategyRuntime, TaskId
from live_services.domain.money import RUPEE
from live_services.domain.pipeline_findings import ISSUES
from live_services.domain.pipeline_findings import STAGES as VALIDATED
from live_services.domain.topics import BROKERS, Scope, all_topics
from models_registry.refs import Alias
from models_registry.specification import RUNG_OF_BROKER, Broker

OTHER: Final = "other"
"""Stands for every value of a label that neither the settings nor the code name."""
WHOLE_ACCOUNT: Final = "all"
"""Stands in the label ``strategy`` of a trading state for the whole account, as `status` calls it."""
STAGES: Final[Mapping[str, str]] = {
    "market_feed": "market_data",
    "strategy_runner": "signals",
    "risk_manager": "risk",
    **{f"{broker}_trading": "orders" for broker in BROKERS},
    "portfolio_manager": "portfolio",
    "skew_monitor": "features",
    "pipeline_validator": "monitoring",
}
"""The stage of the pipeline that each service is."""
RULES: Final = frozenset({*(rule.__name__ for rule in OPEN_RULES), *CLOSE_RULES, "trading_state"})
"""Every rule of risk that can refuse something."""
_TOPICS: Final = frozenset(topic.name for topic in all_topics())


class Metrics:
    """The metrics of one process, in a registry of their own; `live_services.adapters.health_server` serves it.

    Parameters
    ----------
    strategies
        Names of the strategies in the settings; any other is counted as ``other``.
    buckets
        Upper bounds of a histogram's buckets by its name; those left out have the bounds of `HISTOGRAMS`.
    """

    def __init__(self, strategies: Collection[str] = (), buckets: Mapping[str, Sequence[float]] | None = None) -> None:
        self.registry: Final = CollectorRegistry()
        self._strategies: Final = frozenset(strategies)
        self._given: Final = buckets or {}
        self._lags: set[tuple[str, str, str]] = set()
        self._runtime: dict[TaskId, tuple[StrategyRuntime, ...]] = {}
        """What each task of a strategy runner runs."""
        self._to_run: Mapping[Broker, Collection[str]] = {}
        """What a strategy runner is to run, by its settings: counted until a task says what the session has."""
        self._halted_by: set[TaskId] = set()
        """Tasks that said who may trade."""
        self._declare_tasks()
        self._declare_runtime()
        self._declare_market()
        self._declare_models()
        self._declare_account()
        self._warnings = self._counter(
            "validator_warnings_total", "What the pipeline validator found amiss", "stage", "broker", "issue"
        )

    # --- declarations ---------------------------------------------------------------------------------------------

    def _counter(self, name: str, says: str, *labels: str) -> Counter:
        return Counter(name, says, labels, registry=self.registry)

    def _gauge(self, name: str, says: str, *labels: str) -> Gauge:
        return Gauge(name, says, labels, registry=self.registry)

    def _histogram(self, name: str, *labels: str) -> Histogram:
        bounds = self._given.get(name, HISTOGRAMS[name].buckets)
        return Histogram(name, HISTOGRAMS[name].says, labels, buckets=bounds, registry=self.registry)

    def _declare_tasks(self) -> None:
        task = ("broker", "service", "partition")
        self._watermark = self._gauge("alpha_panda_watermark_seconds", "Event time reached", *task)
        self._live = self._gauge("alpha_panda_task_live", "0 while what was handled before is run again", *task)
        self._handled = self._gauge("alpha_panda_records_handled", "Records since the start", *task)
        self._lag = self._gauge("alpha_panda_lag_records", "Records not fetched yet, of all inputs", *task)
        self._dead = self._gauge("alpha_panda_dead_letters", "Records sent to a DLQ since the start", *task)
        self._foreign = self._gauge("alpha_panda_foreign_records", "Records that somebody else wrote", *task)
        self._warming = self._gauge(
            "alpha_panda_warming_instruments", "Instruments without full-history features", *task
        )

    def _declare_runtime(self) -> None:
        self._events = self._counter("alpha_panda_events_committed", "Events on the log", "broker", "event_type")
        self._activity = self._gauge(
            "trading_last_activity_timestamp_unix",
            "When a service began, or last had an output committed (watermarks too); wall clock, seconds since 1970",
            "service",
            "stage",
            "broker",
        )
        self._commits = self._counter("alpha_panda_commits_total", "Transactions committed", "service", "broker")
        self._commit_seconds = self._histogram("alpha_panda_commit_seconds", "service", "broker")
        self._rebalances = self._counter("alpha_panda_rebalances_total", "Assignments by the consumer group", "group")
        self._assigned = self._gauge("alpha_panda_assigned_partitions", "Partitions of this member", "group")
        self._group_lag = self._gauge(
            "alpha_panda_consumer_lag_records", "Records not fetched yet", "group", "topic", "partition"
        )
        self._letters = self._counter(
            "trading_dlq_messages_total", "Records sent to a DLQ, by the topic they stood on", "topic", "reason"
        )
        self._redis_away = self._gauge(
            "alpha_panda_redis_unavailable", "1 while Redis does not take this process's health; 0 also without a Redis"
        )

        lost = self._gauge("alpha_panda_log_lines_lost", "Lines of this process's log that are in no file")
        lost.set_function(_lines_lost)

    def _declare_market(self) -> None:
        self._enqueue_delay = self._histogram("market_tick_enqueue_delay_seconds")
        self._emit_latency = self._histogram("market_tick_emit_latency_seconds")
        self._tick_to_signal = self._histogram("alpha_panda_tick_to_signal_seconds", "broker")
        self._signal_to_order = self._histogram("alpha_panda_signal_to_order_seconds", "broker")

    def _declare_models(self) -> None:
        self._loads = self._counter(
            "ml_model_load_success_total", "Versions that were proved and may run", "strategy_id"
        )
        self._load_failures = self._counter(
            "ml_model_load_failure_total", "Versions missing or refused, once for each reason", "strategy_id"
        )
        self._inferences = self._counter("ml_inference_total", "Feature rows scored", "strategy")
        self._inference_seconds = self._histogram("ml_inference_latency_seconds", "strategy")
        self._ready = self._gauge("alpha_panda_strategies_ready", "Strategies that run a version", "broker")
        self._configured = self._gauge("alpha_panda_strategies_configured", "Strategies in the settings", "broker")
        self._registry_away = self._gauge(
            "alpha_panda_model_registry_unavailable",
            "1 while the registry or the ledger cannot be asked",
            "service",
        )
        self._promotions = self._counter("alpha_panda_promotions_total", "Promotions that were announced", "rung")
        self._skew = self._counter("alpha_panda_feature_skew_rows", "Live rows computed again", "broker", "result")
        self._blocks = self._counter(
            "alpha_panda_online_feature_blocks", "Feature blocks by outcome", "broker", "outcome"
        )

    def _declare_account(self) -> None:
        self._rejections = self._counter(
            "alpha_panda_risk_rejections_total", "Proposals refused", "broker", "strategy", "rule"
        )
        of_strategy = ("broker", "strategy")
        self._positions = self._gauge("alpha_panda_open_positions", "Positions held", *of_strategy)
        self._realized = self._gauge(
            "alpha_panda_realized_pnl_inr", "Since the account began, before charges", *of_strategy
        )
        self._charges = self._gauge("alpha_panda_charges_inr", "Since the account began", *of_strategy)
        self._unrealized = self._gauge(
            "alpha_panda_unrealized_pnl_inr", "Of open positions, at their marks", *of_strategy
        )
        self._equity = self._gauge("alpha_panda_equity_inr", "Cash and holdings at their marks", "broker")
        self._net_today = self._gauge("alpha_panda_net_pnl_today_inr", "Of the session, after charges", "broker")
        self._under_way = self._gauge("alpha_panda_orders_under_way", "Orders not over yet", "broker")
        self._trading_state = self._gauge(
            "alpha_panda_trading_state",
            "0 ACTIVE, 1 REDUCING, 2 HALTED, as commanded for the strategy or for all; the higher of both counts",
            *of_strategy,
        )

    # --- the runtime ----------------------------------------------------------------------------------------------

    def report(self, health: TaskHealth) -> None:
        """Set the gauges of a task."""
        labels = (health.task.scope, health.task.service, str(health.task.partition))
        self._watermark.labels(*labels).set(health.watermark_ns / 1e9)
        self._live.labels(*labels).set(health.live)
        self._handled.labels(*labels).set(health.records_handled)
        self._lag.labels(*labels).set(health.lag_records)
        self._dead.labels(*labels).set(health.dead_letters)
        self._foreign.labels(*labels).set(health.foreign_records)
        if health.readiness is not None:
            self._warming.labels(*labels).set(len(health.readiness.warming))
        if health.strategies:
            self._runtime[health.task] = health.strategies
            self._show_strategies()
        if health.trading_states is not None:
            self._halted_by.add(health.task)
            self._show_trading_states(health.task.scope, health.trading_states)

    def withdraw(self, task: TaskId) -> None:
        """Drop the gauges of a task."""
        labels = {"broker": task.scope, "service": task.service, "partition": str(task.partition)}
        gauges = (self._watermark, self._live, self._handled, self._lag, self._dead, self._foreign, self._warming)
        for gauge in gauges:
            gauge.remove_by_labels(labels)
        if self._runtime.pop(task, None) is not None:
            self._show_strategies()
        if task in self._halted_by:
            self._halted_by.remove(task)
            self._trading_state.remove_by_labels({"broker": task.scope})

    def to_run(self, strategies: Mapping[Broker, Collection[str]]) -> None:
        """Show the strategies that this process is to run, by broker: none is ready before a task says so."""
        self._to_run = strategies
        self._show_strategies()

    def _show_strategies(self) -> None:
        """Show how many strategies of each broker run a version, on every task, of how many that it has."""
        for broker, rung in RUNG_OF_BROKER.items():
            said = [one for task in self._runtime.values() for one in task if one.rung == rung]
            names = {one.strategy for one in said} if self._runtime else set(self._to_run.get(broker, ()))
            ready = {one.strategy for one in said} - {one.strategy for one in said if one.state != "ready"}
            self._configured.labels(broker).set(len(names))
            self._ready.labels(broker).set(len(ready))

    def _show_trading_states(self, broker: Scope, states: TradingStates) -> None:
        shown = dict.fromkeys((WHOLE_ACCOUNT, *self._strategies), 0)
        for strategy, one in states.of_scope.items():
            name = WHOLE_ACCOUNT if strategy is None else self._named(strategy)
            shown[name] = max(shown.get(name, 0), STRICTNESS[one.state])
        for name, strictness in shown.items():
            self._trading_state.labels(broker, name).set(strictness)
        if OTHER not in shown:  # the last one that the settings do not name was resumed
            self._trading_state.remove_by_labels({"broker": broker, "strategy": OTHER})

    def rebalanced(self, group: str, partitions: Collection[tuple[str, int]]) -> None:
        """Count an assignment of partitions to this member, and drop the lag of those that it no longer has."""
        self._rebalances.labels(group).inc()
        self._assigned.labels(group).set(len(partitions))
        kept = {(group, topic, str(partition)) for topic, partition in partitions}
        for labels in self._lags - kept:
            self._group_lag.remove(*labels)
        self._lags &= kept

    def lag(self, group: str, lags: Mapping[tuple[str, int], int]) -> None:
        """Set how many records of each partition, by topic and partition, the group has not fetched yet."""
        for (topic, partition), records in lags.items():
            labels = (group, topic, str(partition))
            self._lags.add(labels)
            self._group_lag.labels(*labels).set(records)

    def active(self, service: str, scope: Scope) -> None:
        """Note that a service began, or had an output committed, now."""
        self._activity.labels(service, STAGES.get(service, OTHER), scope).set(time.time())

    def commit_took(self, service: str, scope: Scope, seconds: float) -> None:
        """Count a transaction of a process, named as in its consumer group."""
        self._commits.labels(service, scope).inc()
        self._commit_seconds.labels(service, scope).observe(seconds)

    def signal_latency(self, broker: Broker, seconds: float) -> None:
        """Measure a proposal, from Kafka's time of the frame that it answers to its commit."""
        self._tick_to_signal.labels(broker).observe(seconds)

    def order_latency(self, broker: Broker, seconds: float) -> None:
        """Measure an entry, from Kafka's time of its proposal to the order's commit."""
        self._signal_to_order.labels(broker).observe(seconds)

    def committed(self, events: Sequence[Event]) -> None:
        """Count events that are on the log now; of an account, show the newest books."""
        for (broker, kind), count in Tally((event.broker, event.event_type) for event in events).items():
            self._events.labels(broker, kind).inc(count)
        newest: dict[str, PnlSnapshot] = {}
        for event in events:
            match event:
                case PnlSnapshot():
                    newest[event.broker] = event
                case SignalRejected():
                    rule = _one_of(event.rule, RULES)
                    self._rejections.labels(event.broker, self._named(event.strategy), rule).inc()
                case DeadLetter():
                    self._letters.labels(_one_of(event.topic, _TOPICS), event.reason).inc()
                case FeatureSkewMeasured():
                    for result in ("equal", "different", "unverified"):
                        self._skew.labels(event.broker, result).inc(getattr(event, f"rows_{result}"))
        for snapshot in newest.values():
            self._show_books(snapshot)

    def _show_books(self, books: PnlSnapshot) -> None:
        held, realized, charges, unrealized = Tally[str](), Tally[str](), Tally[str](), dict[str, float]()
        for totals in books.strategies:
            name = self._named(totals.strategy)
            realized[name] += totals.realized_inr_e4
            charges[name] += totals.charges_inr_e4
        for position in books.positions:
            name = self._named(position.strategy)
            held[name] += position.quantity != 0
            unrealized[name] = unrealized.get(name, 0.0) + position.unrealized_inr
        for name in (*realized.keys(), *(held.keys() - realized.keys())):
            labels = (books.broker, name)
            self._positions.labels(*labels).set(held[name])
            self._realized.labels(*labels).set(realized[name] / RUPEE)
            self._charges.labels(*labels).set(charges[name] / RUPEE)
            self._unrealized.labels(*labels).set(unrealized.get(name, 0.0))
        self._equity.labels(books.broker).set(books.equity_inr)
        self._net_today.labels(books.broker).set(books.net_today_inr)
        self._under_way.labels(books.broker).set(books.orders_under_way)

    # --- services -------------------------------------------------------------------------------------------------

    def frame_queued(self, delay_seconds: float) -> None:
        """Measure a frame of the market, from the moment it was due to its being queued."""
        self._enqueue_delay.observe(delay_seconds)

    def frames_acknowledged(self, latencies_seconds: Sequence[float]) -> None:
        """Measure frames that Kafka has, each from its being queued; without any, only watermarks went out."""
        self.active("market_feed", "shared")
        for latency in latencies_seconds:
            self._emit_latency.observe(latency)

    def model_loaded(self, strategy: str) -> None:
        """Count a version that was proved, and that a strategy may run."""
        self._loads.labels(self._named(strategy)).inc()

    def model_missing(self, strategy: str) -> None:
        """Count a version that a strategy was to run and that is missing or refused, once for each reason."""
        self._load_failures.labels(self._named(strategy)).inc()

    def registry_answered(self, *, well: bool) -> None:
        """Show whether the strategy runner could ask the model registry and the ledger the last time."""
        self._registry_away.labels(RUNNER).set(not well)

    def redis_answered(self, well: bool) -> None:
        """Show whether Redis took what this process last wrote."""
        self._redis_away.set(not well)

    def inferred(self, strategy: str, rows: int, seconds: float) -> None:
        """Measure one call of a strategy's model, which scored so many feature rows."""
        name = self._named(strategy)
        self._inferences.labels(name).inc(rows)
        self._inference_seconds.labels(name).observe(seconds)

    def promoted(self, alias: str) -> None:
        """Count a promotion that was announced."""
        self._promotions.labels(_one_of(alias, get_args(Alias))).inc()

    def online_block(self, broker: Scope, outcome: str) -> None:
        """Count a block that was offered to the online store: written, replaced by a newer one, or failed."""
        self._blocks.labels(broker, outcome).inc()

    def validator_warning(self, stage: str, broker: Scope, issue: str) -> None:
        """Count what the pipeline validator found amiss."""
        self._warnings.labels(_one_of(stage, VALIDATED), broker, _one_of(issue, ISSUES)).inc()

    def _named(self, strategy: str) -> str:
        return _one_of(strategy, self._strategies)


def _one_of(value: str, known: Collection[str]) -> str:
    return value if value in known else OTHER


def _lines_lost() -> float:
    wired = wiring()
    return 0.0 if wired is None else float(wired.lost)
