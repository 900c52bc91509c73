from __future__ import annotations

import dataclasses
import datetime as dt

from feature_store.market.types import Session
from live_services.backtest.engine import EngineConfig, MarketDay, assignments_at_open, run_session
from live_services.backtest.sessions import TestedSession, trade_sessions
from live_services.domain.account.trades import round_trips
from live_services.domain.limits import AccountConfig, RiskLimits
from live_services.domain.strategy.history import SessionHistory
from models_registry.specification import StrategySpec
from tests.live_world import SESSION, UNIVERSE, loaded_model, session_bars, token

NEXT = Session.regular(dt.date(2026, 1, 6))
STRATEGY = StrategySpec(name="momentum", holding_bars=3)
ACCOUNT = AccountConfig(risk=RiskLimits(max_open_positions=2))


def unseen(session: Session, **changes: object) -> TestedSession:
    table, history = session_bars(session, 3, 120, seed=2), SessionHistory(UNIVERSE)
    return dataclasses.replace(TestedSession(session, UNIVERSE, table, history, loaded_model()), **changes)  # type: ignore[arg-type]


def test_sessions_are_traded_one_by_one_each_with_its_own_model() -> None:
    never = dataclasses.replace(loaded_model(), buy_threshold=2.0, sell_threshold=-2.0)
    first, second = trade_sessions([unseen(SESSION), unseen(NEXT, model=never)], STRATEGY, ACCOUNT)
    assert (first.session, second.session) == (SESSION, NEXT)
    assert first.trades
    assert not second.trades
    assert second.entries_proposed == 0


def test_a_strategy_trades_alone_on_paper_and_risk_says_what_it_refused() -> None:
    real = STRATEGY.model_copy(update={"brokers": ("zerodha",)})
    (found,) = trade_sessions([unseen(SESSION)], real, ACCOUNT)
    assert found.trades
    assert found.entries_refused["open_positions"] > 0
    assert "already_open" not in found.entries_refused
    assert found.entries_proposed == len(found.trades) + sum(found.entries_refused.values())


def test_the_trades_are_those_of_the_engine() -> None:
    market = unseen(SESSION)
    (found,) = trade_sessions([market], STRATEGY, ACCOUNT)
    day = MarketDay(SESSION, UNIVERSE, market.bars, assignments_at_open(SESSION, {"momentum": loaded_model()}))
    assert found.trades == round_trips(run_session(day, EngineConfig((STRATEGY,), {"paper": ACCOUNT})))


def test_a_trade_on_bars_begins_at_the_open_after_its_decision() -> None:
    market = unseen(SESSION)
    (found,) = trade_sessions([market], STRATEGY, ACCOUNT)
    table = market.bars
    opens = {
        (token(int(i)), int(t)): float(p) for i, t, p in zip(table.instrument, table.start_ns, table.open, strict=True)
    }
    assert all(opens[trade.instrument_token, trade.entry_time_ns] == trade.entry_price for trade in found.trades)
