from __future__ import annotations

import dataclasses
import datetime as dt
import gc
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from feature_store.features.schema import feature_schema
from feature_store.market.types import Bars, Session, Ticks
from feature_store.proposals.rules import RULES, declare
from live_services.backtest.engine import (
    Engine,
    EngineConfig,
    MarketDay,
    assignments_at_open,
    fills_of,
    final_snapshot,
    run_session,
)
from live_services.domain.events import (
    AccountOpened,
    Event,
    OrderCancelled,
    OrderSubmitted,
    PnlSnapshot,
    SignalGenerated,
    SignalShadowed,
    SignalValidated,
    TradingSwitched,
)
from live_services.domain.limits import AccountConfig, RiskLimits
from live_services.domain.strategy.asked import Assignment
from live_services.domain.strategy.loaded_model import LoadedModel
from models_registry.specification import StrategySpec
from tests.account_world import assert_identity
from tests.live_world import MINUTE, SECOND, SESSION, UNIVERSE, bars, loaded_model, random_walk, session_bars, token

NEXT = Session.regular(dt.date(2026, 1, 6))
WALK = random_walk(4, minutes=60, per_minute=20, seed=5)
EARLY = WALK[WALK.event_time_ns < SESSION.open_ns + 32 * MINUTE]  # it ends while two positions are open
MOMENTUM = StrategySpec(name="momentum", holding_bars=3)
TIGHT = AccountConfig(risk=RiskLimits(max_open_positions=2))
CONFIG = EngineConfig((MOMENTUM,), {"paper": TIGHT})
MODEL = loaded_model()
ASSIGNED = assignments_at_open(SESSION, {"momentum": MODEL})


def day(market: Ticks | Bars, assignments: Sequence[Assignment] = ASSIGNED, session: Session = SESSION) -> MarketDay:
    return MarketDay(session, UNIVERSE, market, assignments)


EVENTS = run_session(day(WALK), CONFIG)


def test_every_proposal_has_one_verdict_and_every_order_one_end() -> None:
    kinds = Counter(event.event_type for event in EVENTS)
    entries = sum(isinstance(event, SignalValidated) and event.reason == "entry" for event in EVENTS)
    assert kinds["signal.generated"] > 20
    assert kinds["signal.rejected"] > 0
    assert kinds["signal.generated"] == entries + kinds["signal.rejected"]
    ended = kinds["order.filled"] + kinds["order.cancelled"] + kinds["order.rejected"]
    assert kinds["signal.validated"] == kinds["order.submitted"] == ended
    assert len({event.event_id for event in EVENTS}) == len(EVENTS)


def test_every_event_is_what_it_says_it_is_when_it_is_read_back_and_has_its_fields_in_order() -> None:
    for event in EVENTS:
        assert list(vars(event)) == list(type(event).model_fields)
        assert type(event).model_validate_json(event.model_dump_json()) == event


def fragile(z_score: float, last_return: float) -> int:
    """A rule that raises at every row on one side."""
    if z_score > 0.0:
        raise ValueError("too far")
    return 1


def test_rows_at_which_a_rule_raises_propose_nothing_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "fragile", declare(fragile, source="a test"))
    spec = StrategySpec(name="broken", rule="fragile", features=("last_return",), holding_bars=3)
    model = loaded_model(names=spec.feature_schema().names)
    engine = Engine(EngineConfig((spec,)))
    proposed = [e for e in engine.run(day(WALK, assignments_at_open(SESSION, {"broken": model})))
                if isinstance(e, SignalGenerated)]  # fmt: skip
    assert all((one.features["z_score"] or 0.0) <= 0.0 for one in proposed)
    (failed,) = engine.rule_failures.values()
    assert failed.rows > 10
    assert "fragile(z_score=" in failed.first
    assert f"its rule failed on {10 ** (len(str(failed.rows)) - 1):,} rows or more" in str(failed)


def test_collections_go_on_behind_a_session_and_stay_off_for_who_turned_them_off() -> None:
    run_session(day(EARLY), CONFIG)
    assert gc.isenabled()
    gc.disable()
    try:
        run_session(day(EARLY), CONFIG)
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_events_come_in_order_of_time_and_begin_with_what_the_account_enters_with() -> None:
    times = [event.event_time_ns for event in EVENTS]
    assert times == sorted(times)
    assert isinstance(EVENTS[0], AccountOpened)
    assert isinstance(EVENTS[-1], PnlSnapshot)


def test_a_fill_is_strictly_later_than_its_order_and_at_a_price_that_was_there() -> None:
    ordered = {event.order_id: event.event_time_ns for event in EVENTS if isinstance(event, OrderSubmitted)}
    prices = {(token(i), t): p for i, t, p in zip(WALK.instrument, WALK.event_time_ns, WALK.last_price, strict=True)}
    for fill in fills_of(EVENTS):
        assert fill.event_time_ns > ordered[fill.order_id]
        assert prices[fill.instrument_token, fill.event_time_ns] * 1e4 == pytest.approx(fill.price_inr_e4)


def test_the_last_snapshot_is_one_second_after_the_close_and_counts_every_fill() -> None:
    last, fills = final_snapshot(EVENTS), fills_of(EVENTS)
    assert last.event_time_ns == SESSION.close_ns + SECOND
    assert last.fills == len(fills)
    paid = sum((1 if f.side == "SELL" else -1) * f.quantity * f.price_inr_e4 - f.charges_inr_e4 for f in fills)
    assert last.cash_inr_e4 == last.starting_cash_inr_e4 + paid
    for event in EVENTS:
        if isinstance(event, PnlSnapshot):
            assert_identity(event)


def test_the_open_positions_never_exceed_what_risk_allows() -> None:
    for snapshot in EVENTS:
        if isinstance(snapshot, PnlSnapshot):
            assert sum(1 for position in snapshot.positions if position.quantity) <= 2


def test_on_bars_orders_fill_at_the_next_open() -> None:
    table = bars(*((i, k, 100.0 + k, 100.5 + k) for i in range(2) for k in range(30)))
    events = run_session(day(table), CONFIG)
    ordered = {event.order_id: event.event_time_ns for event in events if isinstance(event, OrderSubmitted)}
    fills = fills_of(events)
    assert fills
    for fill in fills:
        assert fill.fill_model == "next_bar_open"
        assert fill.price_time_ns == ordered[fill.order_id]
        assert fill.price_inr_e4 == 10_000 * (100 + (fill.price_time_ns - SESSION.open_ns) // (60 * SECOND))


class Always:
    """A model that foretells the same of everything."""

    def __init__(self, score: float) -> None:
        self._score = score

    def score(self, X: NDArray[np.float64], /) -> NDArray[np.float64]:  # noqa: N803
        return np.full(len(X), self._score)


def always(score: float = 1.0, bar_minutes: int = 1) -> LoadedModel:
    schema = feature_schema(["momentum"], bar_minutes)
    return dataclasses.replace(MODEL, schema=schema, model=Always(score), buy_threshold=0.5, sell_threshold=-0.5)


def test_positions_of_long_bars_are_closed_before_the_session_ends() -> None:
    walk = random_walk(4, minutes=375, per_minute=4, seed=5)
    strategy = StrategySpec(name="momentum", bar_minutes=15, exit_minutes_before_close=10, holding_bars=12)
    config = dataclasses.replace(CONFIG, bar_minutes=15, strategies=(strategy,))
    events = run_session(day(walk, assignments_at_open(SESSION, {"momentum": always(bar_minutes=15)})), config)
    assert fills_of(events)
    assert final_snapshot(events).positions == ()


def test_without_a_model_the_session_is_what_it_was_opened_with_and_one_empty_snapshot() -> None:
    opened, switched, snapshot = run_session(day(WALK, ()), CONFIG)
    assert isinstance(opened, AccountOpened)
    assert isinstance(switched, TradingSwitched)
    assert isinstance(snapshot, PnlSnapshot)


def test_a_silent_feed_does_not_keep_a_position_open() -> None:
    early = EARLY
    events = run_session(day(early, assignments_at_open(SESSION, {"momentum": always()})), CONFIG)
    exits = [event for event in events if isinstance(event, OrderSubmitted) and event.reason == "time"]
    last_ns = int(early.event_time_ns[-1])
    silent = [order.symbol for order in exits if order.event_time_ns > last_ns]
    assert silent
    unfilled = [end.symbol for end in events if isinstance(end, OrderCancelled) and end.reason == "time"]
    assert sorted(silent) == sorted(unfilled) == [p.symbol for p in final_snapshot(events).positions]


# --- brokers and rungs --------------------------------------------------------------------------------------------


def of(broker: str, events: Sequence[Event]) -> list[Event]:
    return [event for event in events if event.broker == broker]


def test_each_broker_has_an_account_of_its_own_and_ids_of_its_own() -> None:
    both = StrategySpec(name="momentum", holding_bars=3, brokers=("paper", "zerodha"))
    config = EngineConfig((both,), {"paper": TIGHT, "zerodha": AccountConfig()})
    assigned = (*ASSIGNED, *assignments_at_open(SESSION, {"momentum": always(-1.0)}, "live"))
    events = run_session(day(WALK, assigned), config)
    assert of("paper", events) == list(EVENTS)
    real = Counter(event.event_type for event in of("zerodha", events))
    assert real["signal.generated"] == real["signal.validated"] > 20
    assert real["order.submitted"] == 0  # there is no gateway
    assert {e.side for e in of("zerodha", events) if isinstance(e, SignalGenerated)} == {"SELL"}
    identities = [event.event_id for event in events]
    assert len(identities) == len(set(identities))


def test_a_challenger_speaks_to_no_account() -> None:
    assigned = (*ASSIGNED, *assignments_at_open(SESSION, {"momentum": always()}, "challenger"))
    events = run_session(day(WALK, assigned), CONFIG)
    assert [event for event in events if not isinstance(event, SignalShadowed)] == list(EVENTS)
    assert of("shared", events)


# --- strategies and sessions --------------------------------------------------------------------------------------


def test_two_strategies_trade_one_instrument_side_by_side() -> None:
    specs = (MOMENTUM, StrategySpec(name="against", holding_bars=5))
    assigned = assignments_at_open(SESSION, {"momentum": always(), "against": always(-1.0)})
    config = EngineConfig(specs, {"paper": AccountConfig(risk=RiskLimits(max_open_positions=100))})
    events = run_session(day(WALK, assigned), config)
    alone = run_session(day(WALK, assigned[:1]), dataclasses.replace(config, strategies=specs[:1]))
    mine = [fill for fill in fills_of(events) if fill.strategy == "momentum"]
    assert mine == list(fills_of(alone))
    held = max((e for e in events if isinstance(e, PnlSnapshot)), key=lambda e: len(e.positions))
    assert len({position.instrument_token for position in held.positions}) < len(held.positions)


def test_an_account_lives_through_sessions() -> None:
    engine, start = Engine(CONFIG), day(EARLY, assignments_at_open(SESSION, {"momentum": always()}))
    first = engine.run(start)
    table = session_bars(NEXT, 3, 120, seed=3)
    second = engine.run(day(table, assignments_at_open(NEXT, {"momentum": MODEL}), NEXT))
    left, opened = final_snapshot(first), second[0]
    assert isinstance(opened, AccountOpened)
    assert left.positions
    assert opened.cash_inr_e4 == left.cash_inr_e4
    assert [p.symbol for p in opened.positions] == [p.symbol for p in left.positions]
    carried = [fill.symbol for fill in fills_of(second) if fill.reason == "carried"]
    assert carried == [p.symbol for p in left.positions]
    assert final_snapshot(second).realized_inr_e4 == left.realized_inr_e4 + final_snapshot(second).realized_today_inr_e4
    again = Engine(CONFIG)
    again.run(start, 60 * SECOND)
    assert again.run(day(table, assignments_at_open(NEXT, {"momentum": MODEL}), NEXT), 7 * SECOND) == second
