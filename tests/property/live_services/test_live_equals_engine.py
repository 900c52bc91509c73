"""Sessions through the engine, and through the live tasks cut apart by topics: zero differences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import structlog
from hypothesis import example, given, settings
from hypothesis import strategies as st

from live_services.backtest.engine import Engine, EngineConfig, MarketDay
from live_services.domain.events import (
    Event,
    OrderFilled,
    SignalValidated,
    StrategyModelAssigned,
    TradingStateChanged,
    TradingStateInForce,
    topic_of,
)
from live_services.domain.strategy.asked import Assignment
from live_services.domain.topics import MODELS_LOADED, STRATEGIES_CONTROL, broker_topics
from live_services.runtime.local import MemoryLog
from models_registry.specification import Broker
from tests.memory_desk import ACCOUNT, BAR_DAYS, BROKERS, MODELS, STRATEGIES, TICK_DAYS, Day, run_live


def run_engine(of: Sequence[Day], partitions: int, log: MemoryLog) -> dict[str, list[Event]]:
    assigned = [e for e in log.events(STRATEGIES_CONTROL) if isinstance(e, StrategyModelAssigned)]
    control = [event for broker in BROKERS for event in log.events(broker_topics(broker).control)]
    commanded = [event for event in control if isinstance(event, TradingStateChanged)]
    config = EngineConfig(STRATEGIES, dict.fromkeys(BROKERS, ACCOUNT), market_partitions=partitions)
    engine, events = Engine(config), defaultdict(list)
    for day, until_ns in zip(of, (*(day.session.open_ns for day in of[1:]), 2**62), strict=True):
        assignments = [
            Assignment(e.event_time_ns, e.strategy, MODELS.get(e.model_version or ""), e.rung)
            for e in assigned
            if day.session.open_ns <= e.event_time_ns <= day.session.close_ns
        ]
        states = [e for e in commanded if day.session.open_ns <= e.event_time_ns < until_ns]
        for event in engine.run(MarketDay(day.session, day.universe, day.market, assignments, day.history, states)):
            events[topic_of(event).name].append(event)
    return events


def facts(events: Sequence[Event]) -> list[dict[str, object]]:
    return [event.model_dump(exclude={"basis"}) for event in events]


def assert_obeyed(log: MemoryLog, broker: Broker) -> None:
    """What risk let through was allowed by a state that was in force in its instant."""
    topics = broker_topics(broker)
    changes = [e.in_force for e in log.events(topics.control) if isinstance(e, TradingStateChanged)]
    for verdict in log.events(topics.signals_validated):
        assert isinstance(verdict, SignalValidated)
        before = [one for one in changes if one.since_ns < verdict.event_time_ns]
        within = [one for one in changes if one.since_ns == verdict.event_time_ns]
        states = [in_force(before + within[:k], verdict.strategy) for k in range(len(within) + 1)]
        if verdict.intent == "open":
            assert states[-1] == {"ACTIVE"}
        elif verdict.reason == "flatten":
            assert any(one.flatten for one in changes if one.since_ns <= verdict.event_time_ns)
        elif verdict.reason != "bracket":
            assert any("HALTED" not in state for state in states)


def in_force(changes: Sequence[TradingStateInForce], strategy: str) -> set[str]:
    """The states of the broker and the strategy, once these changes were made in order."""
    last = {change.strategy: change.state for change in changes}
    return {last.get(None, "ACTIVE"), last.get(strategy, "ACTIVE")}


def in_order(events: Sequence[Event]) -> list[Event]:
    """Of a topic with several partitions: by time, and by id within an instant."""
    return sorted(events, key=lambda event: (event.event_time_ns, event.event_id))


@settings(max_examples=6, deadline=None)
@given(
    on_ticks=st.booleans(),
    frame_ms=st.sampled_from([500, 1000, 7000, 60_000, 600_000]),
    partitions=st.sampled_from([1, 2, 4]),
    seed=st.integers(0, 10_000),
    kills=st.integers(0, 5),
    commands=st.integers(0, 12),
)
@example(on_ticks=True, frame_ms=1000, partitions=2, seed=4, kills=5, commands=12)
def test_the_live_services_and_the_engine_say_the_same_whatever_the_frames_the_order_the_kills_and_the_commands(
    on_ticks: bool, frame_ms: int, partitions: int, seed: int, kills: int, commands: int
) -> None:
    of = TICK_DAYS if on_ticks else BAR_DAYS
    with structlog.testing.capture_logs() as lines:
        log = run_live(of, frame_ms, partitions, seed, kills, commands)
    assert "digest_differs" not in {line["event"] for line in lines}
    engine = run_engine(of, partitions, log)
    for broker in BROKERS:
        assert_obeyed(log, broker)
        topics = broker_topics(broker)
        answered = [e.command_offset for e in log.events(topics.control) if isinstance(e, TradingStateChanged)]
        assert answered == [*range(len(log.events(topics.commands)))]
        for topic in set(topics) - {topics.commands}:
            live, expected = log.events(topic), engine[topic.name]
            if topic.per_market_partition:
                live, expected = in_order(live), in_order(expected)
            assert facts(live) == facts(expected), topic.name
    loaded = log.events(MODELS_LOADED)
    assigned = [e for e in log.events(STRATEGIES_CONTROL) if isinstance(e, StrategyModelAssigned) and e.model_version]
    assert sorted(e.causation_id for e in loaded) == sorted(e.event_id for e in assigned)
    assert not any(name.endswith(".dlq") for name in log.topics)


def test_two_sessions_trade_enough_for_the_comparison_to_mean_something() -> None:
    log = run_live(TICK_DAYS, 1000, 2, seed=5, kills=0, commands=12)
    fills = [event for event in log.events("paper.orders.filled") if isinstance(event, OrderFilled)]
    assert {"entry", "stop", "target", "time", "flatten"} <= {fill.reason for fill in fills}
    assert {fill.strategy for fill in fills} == {"momentum", "other", "slow", "judged"}
    rejected = {event.rule for event in log.events("paper.signals.rejected")}  # type: ignore[attr-defined]
    assert {"already_open", "open_positions", "trading_state"} <= rejected
    assert not log.events("zerodha.orders.submitted")
    assert log.events("zerodha.signals.validated")
    assert not {e.event_id for e in log.events("paper.signals.raw")} & {
        e.event_id for e in log.events("zerodha.signals.raw")
    }
