from __future__ import annotations

import dataclasses
import datetime as dt

import numpy as np
import pytest
from live_services.domain.engine import EngineConfig, assignments_at_open, final_snapshot, run_session

from feature_store.market.types import Session
from live_services.domain.account.trades import TestedSession, Trade, round_trips, trade_sessions
from live_services.domain.events import Event, OrderFilled
from live_services.domain.strategy.history import SessionHistory
from live_services.settings import RiskSettings, TradingSettings
from models_registry.specification import StrategySpec
from tests.live_world import OPEN, SECOND, SESSION, UNIVERSE, filled, loaded_model, random_walk, session_bars, token

STRATEGY = StrategySpec(name="momentum", holding_bars=3)
CONFIG = EngineConfig(
    UNIVERSE,
    strategies=(STRATEGY,),
    trading=TradingSettings(enabled=True, risk=RiskSettings(max_open_positions=2)),
)
NEXT = Session.regular(dt.date(2026, 1, 6))


def fill(
    instrument: int, second: int, side: str, intent: str, quantity: int, price: float, costs: float
) -> OrderFilled:
    return filled(instrument, second, side, quantity, price, costs).model_copy(update={"intent": intent})


def only(events: list[Event]) -> Trade:
    (trade,) = round_trips(events, 0.0)
    return trade


def test_a_long_trade_earns_what_the_price_rose_less_the_costs_of_both_fills() -> None:
    trade = only([fill(0, 60, "BUY", "open", 10, 100.0, 0.3), fill(0, 660, "SELL", "close", 10, 101.0, 0.2)])
    assert (trade.strategy, trade.symbol, trade.side, trade.quantity) == ("momentum", "AAA", "BUY", 10)
    assert (trade.entry_time_ns, trade.exit_time_ns) == (OPEN + 60 * SECOND, OPEN + 660 * SECOND)
    assert trade.gross_pnl_inr == pytest.approx(10.0)
    assert trade.net_pnl_inr == pytest.approx(9.5)
    assert trade.gross_bps == pytest.approx(100.0)
    assert trade.net_bps == pytest.approx(95.0)
    assert trade.left_open == 0


def test_a_short_trade_earns_what_the_price_fell() -> None:
    trade = only([fill(1, 60, "SELL", "open", 5, 200.0, 0.0), fill(1, 120, "BUY", "close", 5, 198.0, 0.0)])
    assert trade.gross_pnl_inr == pytest.approx(10.0)
    assert trade.gross_bps == pytest.approx(100.0)


def test_a_trade_that_is_closed_in_parts_has_their_mean_price_and_ends_with_the_last() -> None:
    events: list[Event] = [
        fill(0, 60, "BUY", "open", 10, 100.0, 0.1),
        fill(0, 120, "SELL", "close", 4, 101.0, 0.1),
        fill(0, 180, "SELL", "close", 6, 102.0, 0.1),
    ]
    trade = only(events)
    assert trade.exit_price == pytest.approx(101.6)
    assert trade.exit_time_ns == OPEN + 180 * SECOND
    assert trade.costs_inr == pytest.approx(0.3)


def test_two_instruments_are_two_trades_in_order_of_their_end() -> None:
    events: list[Event] = [
        fill(0, 60, "BUY", "open", 1, 100.0, 0.0),
        fill(1, 61, "BUY", "open", 1, 100.0, 0.0),
        fill(1, 70, "SELL", "close", 1, 100.0, 0.0),
        fill(0, 80, "SELL", "close", 1, 100.0, 0.0),
    ]
    assert [trade.symbol for trade in round_trips(events, 0.0)] == ["BBB", "AAA"]


def test_what_is_left_open_counts_at_the_last_price_of_the_session_and_pays_both_ways() -> None:
    model = dataclasses.replace(loaded_model(), buy_threshold=-1e9)
    walk = random_walk(4, minutes=30, per_minute=20, seed=5)  # the market ends with every position open
    held = StrategySpec(name="momentum", holding_bars=300)
    config = dataclasses.replace(CONFIG, strategies=(held,))
    events = run_session(walk, SESSION, assignments_at_open(SESSION, {"momentum": model}), config)
    trades = round_trips(events, CONFIG.trading.costs_bps)
    last = final_snapshot(events)
    assert trades
    assert all(trade.left_open == trade.quantity for trade in trades)
    marks = {position.symbol: position.mark_price for position in last.positions}
    assert [trade.exit_price for trade in trades] == pytest.approx([marks[trade.symbol] for trade in trades])
    notional = [trade.quantity * (trade.entry_price + trade.exit_price) for trade in trades]
    rate = CONFIG.trading.costs_bps / 1e4
    assert [trade.costs_inr for trade in trades] == pytest.approx([rate * both for both in notional])


def test_the_trades_of_a_session_add_up_to_the_portfolio() -> None:
    events = run_session(
        random_walk(4, minutes=60, per_minute=20, seed=5),
        SESSION,
        assignments_at_open(SESSION, {"momentum": loaded_model()}),
        CONFIG,
    )
    trades = round_trips(events, 0.0)  # the portfolio counts no exit that was not made
    assert len(trades) > 5
    assert sum(trade.net_pnl_inr for trade in trades) == pytest.approx(final_snapshot(events).net_pnl_inr)


def unseen(session: Session, **changes: object) -> TestedSession:
    whole = TestedSession(session, session_bars(session, 3, 120, seed=2), SessionHistory(UNIVERSE), loaded_model())
    return dataclasses.replace(whole, **changes)  # type: ignore[arg-type]


def test_sessions_are_traded_one_by_one_each_with_its_own_model() -> None:
    never = dataclasses.replace(loaded_model(), buy_threshold=2.0, sell_threshold=-2.0)
    first, second = trade_sessions([unseen(SESSION), unseen(NEXT, model=never)], STRATEGY, CONFIG)
    assert (first.session, second.session) == (SESSION, NEXT)
    assert first.trades
    assert not second.trades
    assert second.entries_proposed == 0


def test_a_strategy_is_alone_on_the_account_and_risk_says_what_it_refused() -> None:
    crowd = dataclasses.replace(CONFIG, strategies=(STRATEGY, StrategySpec(name="other", model="momentum")))
    (found,) = trade_sessions([unseen(SESSION)], STRATEGY, crowd)
    assert {trade.strategy for trade in found.trades} == {"momentum"}
    assert found.entries_refused["open_positions"] > 0
    assert found.entries_proposed == len(found.trades) + sum(found.entries_refused.values())


def test_sessions_are_traded_in_the_market_partitions_of_the_desk() -> None:
    whole = session_bars(SESSION, 3, 120, seed=2)
    thin = whole[np.random.default_rng(3).random(len(whole)) < 0.3]  # and no index, so each task has closes of its own

    def engine(partitions: int) -> tuple[Trade, ...]:
        config = dataclasses.replace(CONFIG, market_partitions=partitions)
        events = run_session(thin, SESSION, assignments_at_open(SESSION, {"momentum": loaded_model()}), config)
        return round_trips(events, CONFIG.trading.costs_bps)

    (found,) = trade_sessions([unseen(SESSION, bars=thin)], STRATEGY, dataclasses.replace(CONFIG, market_partitions=2))
    assert found.trades == engine(2) != engine(1)


def test_a_trade_on_bars_begins_at_the_open_after_its_decision() -> None:
    market = unseen(SESSION)
    (found,) = trade_sessions([market], STRATEGY, CONFIG)
    opens = {
        (token(int(i)), int(t)): float(p)
        for i, t, p in zip(market.bars.instrument, market.bars.start_ns, market.bars.open, strict=True)
    }
    assert all(opens[trade.instrument_token, trade.entry_time_ns] == trade.entry_price for trade in found.trades)
