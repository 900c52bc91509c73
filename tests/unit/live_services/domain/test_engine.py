from __future__ import annotations

import dataclasses
from collections import Counter

import numpy as np
from live_services.domain.engine import EngineConfig, assignments_at_open, fills_of, final_snapshot, run_session
from numpy.typing import NDArray

from feature_store.features.schema import feature_schema
from live_services.domain.events import OrderFilled, PnlSnapshot, SignalGenerated, SignalValidated
from live_services.settings import RiskSettings, TradingSettings
from models_registry.specification import StrategySpec
from tests.live_world import SECOND, SESSION, UNIVERSE, bars, loaded_model, random_walk, token

WALK = random_walk(4, minutes=60, per_minute=20, seed=5)
CONFIG = EngineConfig(
    UNIVERSE,
    strategies=(StrategySpec(name="momentum", holding_bars=3),),
    trading=TradingSettings(enabled=True, risk=RiskSettings(max_open_positions=2)),
)
ASSIGNED = assignments_at_open(SESSION, {"momentum": loaded_model()})


def test_every_signal_has_one_verdict_and_every_accepted_one_an_order_that_ends() -> None:
    events = run_session(WALK, SESSION, ASSIGNED, CONFIG)
    kinds = Counter(event.event_type for event in events)
    assert kinds["signal.generated"] > 20
    assert kinds["signal.rejected"] > 0
    assert kinds["signal.generated"] == kinds["signal.validated"] + kinds["signal.rejected"]
    ended = kinds["order.filled"] + kinds["order.cancelled"] + kinds["order.rejected"]
    assert kinds["signal.validated"] == kinds["order.submitted"] == ended
    assert len({event.event_id for event in events}) == len(events)


def test_a_fill_is_strictly_later_than_its_decision_and_at_a_price_that_was_there() -> None:
    events = run_session(WALK, SESSION, ASSIGNED, CONFIG)
    decided = {event.event_id: event.event_time_ns for event in events if isinstance(event, SignalGenerated)}
    prices = {(token(i), t): p for i, t, p in zip(WALK.instrument, WALK.event_time_ns, WALK.last_price, strict=True)}
    for fill in fills_of(events):
        assert fill.event_time_ns > decided[fill.signal_id]
        assert prices[fill.instrument_token, fill.event_time_ns] == fill.price


def test_the_last_snapshot_is_flat_one_second_after_the_close_and_counts_every_fill() -> None:
    events = run_session(WALK, SESSION, ASSIGNED, CONFIG)
    last = final_snapshot(events)
    fills = fills_of(events)
    assert last.event_time_ns == SESSION.close_ns + SECOND
    assert last.fills == len(fills)
    cash = sum((1 if fill.side == "SELL" else -1) * fill.quantity * fill.price - fill.costs_inr for fill in fills)
    value = sum(position.quantity * position.mark_price for position in last.positions)
    assert abs(last.net_pnl_inr - (cash + value)) < 1e-6


def test_the_open_positions_never_exceed_what_risk_allows() -> None:
    events = run_session(WALK, SESSION, ASSIGNED, CONFIG)
    for snapshot in events:
        if isinstance(snapshot, PnlSnapshot):
            assert sum(1 for position in snapshot.positions if position.quantity) <= 2


def test_on_bars_orders_fill_at_the_next_open() -> None:
    table = bars(*((i, k, 100.0 + k, 100.5 + k) for i in range(2) for k in range(30)))
    events = run_session(table, SESSION, ASSIGNED, CONFIG)
    decided = {event.signal_id: event.event_time_ns for event in events if isinstance(event, SignalValidated)}
    fills = fills_of(events)
    assert fills
    for fill in fills:
        assert fill.fill_model == "next_bar_open"
        assert fill.price_time_ns == decided[fill.signal_id]
        assert fill.price == 100.0 + (fill.price_time_ns - SESSION.open_ns) // (60 * SECOND)


def test_positions_of_long_bars_are_closed_before_the_session_ends() -> None:
    walk = random_walk(4, minutes=375, per_minute=4, seed=5)
    schema = feature_schema(["momentum"], 15)
    model = dataclasses.replace(loaded_model(), schema=schema, model=AlwaysLong(), buy_threshold=0.5)
    config = dataclasses.replace(
        CONFIG,
        bar_minutes=15,
        strategies=(StrategySpec(name="momentum", exit_minutes_before_close=10, holding_bars=12),),
    )
    events = run_session(walk, SESSION, assignments_at_open(SESSION, {"momentum": model}), config)
    assert fills_of(events)
    assert not any(position.quantity for position in final_snapshot(events).positions)


class AlwaysLong:
    def score(self, X: NDArray[np.float64], /) -> NDArray[np.float64]:  # noqa: N803
        return np.ones(len(X))


def test_without_a_model_the_session_is_one_empty_snapshot() -> None:
    (only,) = run_session(WALK, SESSION, (), CONFIG)
    assert isinstance(only, PnlSnapshot)


def test_market_partitions_change_no_fill_while_no_limit_binds() -> None:
    def fills(partitions: int) -> set[OrderFilled]:
        config = EngineConfig(UNIVERSE, CONFIG.strategies, TradingSettings(enabled=True), market_partitions=partitions)
        return {fill.event_id for fill in fills_of(run_session(WALK, SESSION, ASSIGNED, config))}  # type: ignore[misc]

    assert fills(1) == fills(3)
