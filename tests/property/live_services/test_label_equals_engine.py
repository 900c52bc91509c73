"""A label is what the account earns before costs: entry, exit and return of the engine's trades, gaps and all."""

from __future__ import annotations

import datetime as dt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.labels.forward_return import ForwardReturn
from feature_store.market.types import MINUTE_NS, Bars, Session, ist_ns
from live_services.backtest.engine import EngineConfig, MarketDay, assignments_at_open, run_session
from live_services.domain.account.trades import Trade, round_trips
from live_services.domain.events import Event, SignalGenerated
from live_services.domain.limits import AccountConfig, RiskLimits
from live_services.domain.strategy.asked import Assignment
from live_services.domain.strategy.loaded_model import LoadedModel
from models_registry.specification import StrategySpec
from tests.live_world import MINUTE, UNIVERSE, loaded_model

DAY = dt.date(2026, 1, 5)
MUHURAT = Session(DAY, ist_ns(DAY, dt.time(18, 0)), ist_ns(DAY, dt.time(19, 30)))
INDEX, MINUTES = 3, 90
WIDE = AccountConfig(square_off_minutes_before_close=1, risk=RiskLimits(max_open_positions=100))


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


def traded(table: Bars, spec: StrategySpec, assigned: tuple[Assignment, ...]) -> tuple[Event, ...]:
    config = EngineConfig((spec,), {"paper": WIDE}, bar_minutes=spec.bar_minutes)
    return run_session(MarketDay(MUHURAT, UNIVERSE, table, assigned), config)


def trades(events: tuple[Event, ...]) -> list[tuple[SignalGenerated, Trade]]:
    """Trades with the decision that opened each."""
    decisions = {event.event_id: event for event in events if isinstance(event, SignalGenerated)}
    return [(decisions[trade.signal_id], trade) for trade in round_trips(events)]


def model_of(buy: float) -> LoadedModel:
    return loaded_model(names=["last_return"], buy=buy, sell=-buy)


def labelled_trades(table: Bars, spec: StrategySpec) -> int:
    """Compare every trade with its label, which only missing bars excuse; give how many there were."""
    events = traded(table, spec, assignments_at_open(MUHURAT, {spec.name: model_of(1e-3)}))
    label = spec.label()
    labels = label.of(table, len(UNIVERSE), [MUHURAT])
    row_of = {pair: row for row, pair in enumerate(zip(table.instrument, table.end_ns, strict=True))}
    compared = 0
    for decided, trade in trades(events):
        row = row_of[UNIVERSE.index_of_symbol[decided.symbol], decided.event_time_ns]
        if np.isnan(labels.forward_return[row]):
            due_ns = decided.event_time_ns + label.horizon_ns
            starts = table.start_ns[table.instrument == table.instrument[row]]
            enters = ((starts >= decided.event_time_ns) & (starts < due_ns)).any()
            exits = ((starts >= due_ns) & (starts <= label.last_exit_ns(MUHURAT))).any()
            assert not (enters and exits)
            assert due_ns <= label.last_exit_ns(MUHURAT)
            continue
        assert trade.left_open == 0
        assert trade.entry_time_ns == labels.entry_ns[row]
        assert trade.exit_time_ns == labels.label_end_ns[row]
        assert earned(trade) == labels.forward_return[row]
        compared += 1
    return compared


def earned(trade: Trade) -> float:
    """Give exit price over entry price less 1: prices of at most four decimals are exact in the books."""
    return trade.exit_price / trade.entry_price - 1.0


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
        bar_minutes=bar_minutes,
        holding_bars=holding,
        exit_minutes_before_close=last_exit,
        last_entry_minutes_before_close=last_entry,
    )
    labelled_trades(thin_market(seed, present, bar_minutes), spec)


@pytest.mark.parametrize(("bar_minutes", "holding"), [(1, 30), (5, 10)])
def test_no_trade_is_opened_that_its_label_would_leave_out(bar_minutes: int, holding: int) -> None:
    spec = StrategySpec(name="momentum", bar_minutes=bar_minutes, holding_bars=holding)
    table = thin_market(1, 1.0, bar_minutes)  # every bar is there, so nothing excuses a trade from its label
    made = trades(traded(table, spec, assignments_at_open(MUHURAT, {spec.name: model_of(1e-3)})))
    assert made
    assert labelled_trades(table, spec) == len(made)


def test_most_trades_of_a_thin_market_have_a_label() -> None:
    spec = StrategySpec(name="momentum", holding_bars=4)
    assert labelled_trades(thin_market(1, 0.5, 1), spec) > 20


def test_an_exit_needs_no_bar_of_the_instrument_or_of_others_at_its_time() -> None:
    table = thin_market(1, 1.0, 1)
    hole = (table.start_ns >= MUHURAT.open_ns + 40 * MINUTE) & (table.start_ns < MUHURAT.open_ns + 60 * MINUTE)
    spec = StrategySpec(name="momentum", holding_bars=6)
    assigned = assignments_at_open(MUHURAT, {spec.name: model_of(1e-3)})
    late = [trade for _, trade in trades(traded(table[~hole], spec, assigned)) if hole_of(trade)]
    assert late
    assert {trade.exit_time_ns for trade in late} == {MUHURAT.open_ns + 60 * MINUTE}
    assert labelled_trades(table[~hole], spec) > len(late)


def hole_of(trade: Trade) -> bool:
    """Say whether a trade was to end in the hole of the market."""
    return trade.entry_time_ns < MUHURAT.open_ns + 40 * MINUTE < trade.exit_time_ns


def test_every_label_of_a_decision_is_a_trade_that_the_engine_would_make() -> None:
    """One decision at a time, so that no position is in the way."""
    table, label = thin_market(3, 0.4, 1), ForwardReturn(6)
    labels = label.of(table, len(UNIVERSE), [MUHURAT])
    spec = StrategySpec(name="momentum", holding_bars=6)
    compared = 0
    for row in np.flatnonzero(np.isfinite(labels.forward_return) & (table.instrument == 0)):
        before = int(table.end_ns[row]) - MINUTE_NS  # an assignment holds for decisions strictly later than its time
        assigned = Assignment(before, spec.name, loaded_model(names=["last_return"], buy=-1.0))
        events = traded(table, spec, (assigned,))
        mine = [t for d, t in trades(events) if d.symbol == "AAA" and d.event_time_ns == table.end_ns[row]]
        if not mine:
            continue  # not warm yet, or after the last entry
        (trade,) = mine
        assert earned(trade) == labels.forward_return[row]
        compared += 1
    assert compared > 15
