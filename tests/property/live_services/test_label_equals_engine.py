"""A label is what the account earns before costs: entry, exit and return of the engine's trades, gaps and all."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live_services.domain.engine import EngineConfig, assignments_at_open, fills_of, run_session

from feature_store.labels.forward_return import ForwardReturn
from feature_store.market.types import MINUTE_NS, Bars, Session, ist_ns
from live_services.domain.events import Event, OrderFilled, SignalGenerated
from live_services.settings import RiskSettings, TradingSettings
from models_registry.specification import StrategySpec
from tests.live_world import MINUTE, UNIVERSE, loaded_model

DAY = dt.date(2026, 1, 5)
MUHURAT = Session(DAY, ist_ns(DAY, dt.time(18, 0)), ist_ns(DAY, dt.time(19, 30)))
INDEX, MINUTES = 3, 90
WIDE = TradingSettings(enabled=True, risk=RiskSettings(max_open_positions=100))


def thin_market(seed: int, present: float, bar_minutes: int) -> Bars:
    """Bars of a session of an hour and a half: an index with all of them, and stocks with a share of them."""
    rng = np.random.default_rng(seed)
    count = MINUTES // bar_minutes
    there = rng.random((count, INDEX + 1)) < present
    there[:, INDEX] = True
    place, instrument = np.nonzero(there)
    start = MUHURAT.open_ns + place * bar_minutes * MINUTE
    opens, close = (np.round(100.0 * np.exp(rng.normal(0, 5e-3, len(place))), 2) for _ in range(2))
    return Bars(
        instrument.astype(np.int32),
        start,
        start + bar_minutes * MINUTE,
        opens,
        np.maximum(opens, close),
        np.minimum(opens, close),
        close,
        np.full(len(place), 100, np.int64),
        np.full(len(place), 5, np.int32),
    )


def trades(events: tuple[Event, ...]) -> list[tuple[SignalGenerated, OrderFilled, OrderFilled | None]]:
    """Opened trades that filled: the decision, its fill, and the fill of the close that follows."""
    fill_of = {fill.signal_id: fill for fill in fills_of(events)}
    signals = [event for event in events if isinstance(event, SignalGenerated)]
    found = []
    for k, one in enumerate(signals):
        if one.intent == "open" and one.event_id in fill_of:
            after = (s for s in signals[k + 1 :] if s.symbol == one.symbol and s.intent == "close")
            found.append((one, fill_of[one.event_id], fill_of.get(next(after).event_id)))
    return found


def labelled_trades(table: Bars, spec: StrategySpec, bar_minutes: int) -> int:
    """Compare every trade with its label, which only missing bars excuse; give how many there were."""
    model = loaded_model(names=["last_return"], buy=1e-3, sell=-1e-3)
    config = EngineConfig(UNIVERSE, (spec,), WIDE, bar_minutes=bar_minutes)
    events = run_session(table, MUHURAT, assignments_at_open(MUHURAT, {spec.name: model}), config)
    label = ForwardReturn(spec.holding_bars, bar_minutes, spec.exit_minutes_before_close)
    labels = label.of(table, len(UNIVERSE), [MUHURAT])
    row_of = {pair: row for row, pair in enumerate(zip(table.instrument, table.end_ns, strict=True))}
    compared = 0
    for decided, opened, closed in trades(events):
        row = row_of[UNIVERSE.index_of_symbol[decided.symbol], decided.event_time_ns]
        if np.isnan(labels.forward_return[row]):
            due_ns = decided.event_time_ns + label.horizon_ns
            starts = table.start_ns[table.instrument == table.instrument[row]]
            enters = ((starts >= decided.event_time_ns) & (starts < due_ns)).any()
            exits = ((starts >= due_ns) & (starts <= label.last_exit_ns(MUHURAT))).any()
            assert not (enters and exits)
            assert due_ns <= label.last_exit_ns(MUHURAT)
            continue
        assert closed is not None
        assert opened.price_time_ns == labels.entry_ns[row]
        assert closed.price_time_ns == labels.label_end_ns[row]
        assert closed.price / opened.price - 1.0 == labels.forward_return[row]
        assert opened.quantity == closed.quantity
        compared += 1
    return compared


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 10_000),
    st.sampled_from([0.1, 0.3, 0.6, 0.9, 1.0]),
    st.integers(1, 15),
    st.integers(1, 30),
    st.integers(1, 30),
    st.sampled_from([1, 5]),
)
def test_where_there_are_bars_for_it_a_trade_of_the_engine_enters_exits_and_earns_what_its_label_says(
    seed: int, present: float, holding: int, last_exit: int, last_entry: int, bar_minutes: int
) -> None:
    spec = StrategySpec(
        name="momentum",
        holding_bars=holding,
        exit_minutes_before_close=last_exit,
        last_entry_minutes_before_close=last_entry,
    )
    labelled_trades(thin_market(seed, present, bar_minutes), spec, bar_minutes)


@pytest.mark.parametrize(("bar_minutes", "holding"), [(1, 30), (5, 10)])
def test_no_trade_is_opened_that_its_label_would_leave_out(bar_minutes: int, holding: int) -> None:
    spec = StrategySpec(name="momentum", holding_bars=holding)
    table = thin_market(1, 1.0, bar_minutes)  # every bar is there, so nothing excuses a trade from its label
    model = loaded_model(names=["last_return"], buy=1e-3, sell=-1e-3)
    config = EngineConfig(UNIVERSE, (spec,), WIDE, bar_minutes=bar_minutes)
    made = trades(run_session(table, MUHURAT, assignments_at_open(MUHURAT, {spec.name: model}), config))
    assert made
    assert labelled_trades(table, spec, bar_minutes) == len(made)


def test_most_trades_of_a_thin_market_have_a_label() -> None:
    spec = StrategySpec(name="momentum", holding_bars=4)
    assert labelled_trades(thin_market(1, 0.5, 1), spec, 1) > 20


def test_every_label_of_a_decision_is_a_trade_that_the_engine_would_make() -> None:
    """One decision at a time, so that no position is in the way."""
    table, label = thin_market(3, 0.4, 1), ForwardReturn(6)
    labels = label.of(table, len(UNIVERSE), [MUHURAT])
    spec = StrategySpec(name="momentum", holding_bars=6)
    compared = 0
    for row in np.flatnonzero(np.isfinite(labels.forward_return) & (table.instrument == 0)):
        model = loaded_model(names=["last_return"], buy=-1.0)
        before = int(table.end_ns[row]) - MINUTE_NS  # an assignment holds for decisions strictly later than its time
        (assigned,) = assignments_at_open(Session(DAY, before, MUHURAT.close_ns), {spec.name: model})
        events = run_session(table, MUHURAT, (assigned,), EngineConfig(UNIVERSE, (spec,), WIDE))
        mine = [(o, c) for d, o, c in trades(events) if d.symbol == "AAA" and d.event_time_ns == table.end_ns[row]]
        if not mine:
            continue  # not warm yet, or after the last entry
        ((opened, closed),) = mine
        assert closed is not None
        assert closed.price / opened.price - 1.0 == labels.forward_return[row]
        compared += 1
    assert compared > 15
