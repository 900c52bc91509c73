"""The services of an account: what each takes, and what the portfolio manager says when."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from feature_store.labels import barriers
from feature_store.market.types import Session, Universe
from live_services.domain.basis import Stamp
from live_services.domain.events import AccountOpened, Event, MarketGap, PnlSnapshot, SignalGenerated, self_caused
from live_services.domain.limits import AccountConfig
from live_services.domain.log import NOWHERE, EventRecord, LogPosition, TaskId
from live_services.domain.topics import MARKET_TICKS, broker_topics
from live_services.runtime.service import Opening, Service
from live_services.services.account import account_chain
from live_services.services.paper_trading import PaperTrading
from live_services.services.portfolio_manager import PortfolioManager
from live_services.services.risk_manager import RiskManager
from live_services.settings import TradingSettings
from tests.account_world import Account, limits
from tests.live_world import MINUTE, OPEN, SECOND, SESSION, UNIVERSE, bars, said_by, signal, ticks, token

NEXT = Session.regular(dt.date(2026, 1, 6))
END = SESSION.close_ns + SECOND
PAPER = broker_topics("paper")
MAKERS: list[Callable[[], Service[Any]]] = [
    lambda: RiskManager(AccountConfig(), Stamp()),
    lambda: PaperTrading(MARKET_TICKS, Stamp()),
    lambda: PortfolioManager(MARKET_TICKS, AccountConfig(), Stamp()),
]


def seconds(account: Account) -> list[float]:
    return [(snapshot.event_time_ns - OPEN) / SECOND for snapshot in account.of(PnlSnapshot)]


# --- what they are ------------------------------------------------------------------------------------------------


def test_an_account_consumes_the_market_and_proposals_and_says_everything_else_itself() -> None:
    chain = account_chain("paper", MARKET_TICKS, AccountConfig(), Stamp())
    assert [one.topic for one in chain.inputs] == [MARKET_TICKS, PAPER.signals_raw, PAPER.control, PAPER.commands]
    assert set(chain.outputs) == set(PAPER) - {PAPER.signals_raw, PAPER.control, PAPER.commands, PAPER.gateway_events}
    assert chain.inner == {
        topic.name
        for topic in (
            PAPER.signals_validated,
            PAPER.orders_submitted,
            PAPER.orders_filled,
            PAPER.orders_rejected,
            PAPER.orders_cancelled,
        )
    }
    assert chain.single_task


def test_without_a_gateway_a_real_account_judges_and_orders_nothing() -> None:
    zerodha = broker_topics("zerodha")
    chain = account_chain("zerodha", MARKET_TICKS, AccountConfig(), Stamp())
    assert [one.topic for one in chain.inputs] == [MARKET_TICKS, zerodha.signals_raw, zerodha.control, zerodha.commands]
    state = chain.open_session(SESSION, UNIVERSE, TaskId("account", "zerodha", 0))
    proposal: SignalGenerated = signal().model_copy(update={"broker": "zerodha", "rung": "live"})
    said_by(chain.handle, EventRecord(proposal, NOWHERE), state, OPEN)
    kinds = [event.event_type for event in said_by(chain.advance, state, END)]
    assert kinds == ["signal.validated", "pnl.snapshot"]


@pytest.mark.parametrize("make", MAKERS)
def test_what_a_service_does_not_take_is_an_error_that_names_it(make: Callable[[], Service[Any]]) -> None:
    service = make()
    portfolio = PortfolioManager(MARKET_TICKS, AccountConfig(), Stamp())
    task = TaskId("account", "paper", 0)
    behind = {portfolio.name: portfolio.open_session(Opening(SESSION, UNIVERSE, task))}
    state = service.open_session(Opening(SESSION, UNIVERSE, task, chain=behind))
    (wrong,) = Account().close().of(PnlSnapshot)
    with pytest.raises(TypeError, match=f"{service.name} does not take"):
        service.handle(EventRecord(wrong, NOWHERE), state, OPEN)


def test_an_account_waits_behind_a_gap_of_the_market_for_the_next_price() -> None:
    account = Account().say(signal())
    gap = MarketGap(
        **self_caused("gap"),
        event_type="market.gap",
        broker="shared",
        event_time_ns=OPEN + 61 * SECOND,
        until_ns=OPEN + 90 * SECOND,
        reason="r",
    )
    at = LogPosition(MARKET_TICKS.name, 0, 3)
    assert said_by(account.chain.handle, EventRecord(gap, at), account.state, gap.event_time_ns)
    account.market(ticks((0, 91, 100.0)))
    assert account.books.positions["momentum", token(0)].quantity == 10


def test_a_snapshot_is_promised_at_most_once_for_an_instant() -> None:
    chain = account_chain("paper", MARKET_TICKS, AccountConfig(), Stamp())
    assert chain.promise(chain.open_session(SESSION, UNIVERSE, TaskId("account", "paper", 0)), OPEN) == OPEN + 1


# --- when the portfolio manager speaks ----------------------------------------------------------------------------


def test_a_snapshot_follows_a_fill_at_the_next_whole_second_with_what_was_before_it() -> None:
    account = Account().say(signal()).market(ticks((0, 60.2, 100.0), (0, 60.9, 104.0), (0, 61, 500.0), (0, 62, 1.0)))
    (snapshot,) = account.of(PnlSnapshot)
    assert seconds(account) == [61]
    (held,) = snapshot.positions
    assert (held.quantity, held.mark_price, held.unrealized_inr, held.average_price) == (10, 104.0, 40.0, 100.0)
    assert snapshot.unrealized_inr == 40.0
    assert snapshot.net_today_inr == pytest.approx(40.0 - snapshot.charges_today_inr_e4 / 10_000)
    assert (snapshot.fills, snapshot.orders_under_way) == (1, 0)


def test_a_fill_at_a_whole_second_is_in_the_snapshot_after_it() -> None:
    assert seconds(Account().say(signal()).market(ticks((0, 61, 100.0))).until(63)) == [62]


def test_snapshots_keep_coming_while_positions_are_open_and_stop_when_flat() -> None:
    raw = signal(0, 1810, expiry_ns=OPEN + 1990 * SECOND)
    account = Account().say(raw).market(ticks((0, 1830.5, 100.0), (0, 2000.5, 101.0))).close()
    assert seconds(account) == [1831, 1860, 1920, 1980, 2001, (END - OPEN) / SECOND]
    last_but_one, last = account.of(PnlSnapshot)[-2:]
    assert [held.quantity for held in last_but_one.positions] == [0]
    assert last.positions == ()
    assert last.realized_today_inr_e4 == 100_000


def test_what_was_held_when_the_account_was_quiet_is_no_snapshot_of_the_past() -> None:
    account = Account().market(ticks((0, 5000, 1.0))).say(signal(0, 5001)).market(ticks((0, 5002.5, 100.0))).close()
    assert seconds(account)[:3] == [5003, 5040, 5100]
    times = [event.event_time_ns for event in account.events]
    assert times == sorted(times)


def test_a_session_without_trades_ends_with_one_empty_snapshot() -> None:
    account = Account().close()
    (snapshot,) = account.of(PnlSnapshot)
    assert (snapshot.event_time_ns, snapshot.positions, snapshot.strategies) == (END, (), ())
    assert snapshot.cash_inr_e4 == snapshot.starting_cash_inr_e4
    assert account.close().of(PnlSnapshot) == [snapshot]


def test_snapshots_hold_what_is_open_or_changed() -> None:
    account = Account().say(signal(0), signal(1, expiry_ns=OPEN + 90 * SECOND))
    account.market(ticks((0, 61, 100.0), (1, 61, 100.0), (1, 91.5, 99.0))).until(200)
    held = [{p.symbol: p.quantity for p in snapshot.positions} for snapshot in account.of(PnlSnapshot)]
    assert held == [{"AAA": 10, "BBB": 10}, {"AAA": 10, "BBB": 0}, {"AAA": 10}, {"AAA": 10}]


def test_strategies_and_versions_have_totals_of_their_own() -> None:
    account = Account().say(signal(0), signal(1, model_version="2"), signal(0, strategy="other", side="SELL"))
    account.market(ticks((0, 61, 100.0), (1, 61, 50.0), (0, 661, 101.0), (1, 661, 51.0))).close()
    last = account.of(PnlSnapshot)[-1]
    earned = {(t.strategy, t.model_version): (t.realized_inr_e4, t.fills, t.trades) for t in last.strategies}
    assert earned == {
        ("momentum", "1"): (100_000, 2, 1),
        ("momentum", "2"): (100_000, 2, 1),
        ("other", "1"): (-100_000, 2, 1),
    }
    assert last.realized_inr_e4 == 100_000


# --- from session to session --------------------------------------------------------------------------------------


def carried() -> Account:
    raw = signal(product="CNC", expiry_ns=NEXT.open_ns + 30 * MINUTE)
    return (
        Account(limits(), on_bars=False)
        .say(raw, signal(1))
        .market(ticks((0, 61, 100.0), (1, 61, 50.0), (1, 700, 51.0), (0, 800, 103.0)))
        .close()
    )


def test_what_an_account_enters_a_session_with_is_said_once() -> None:
    first = carried()
    second = Account(session=NEXT, before=first)
    (opened,) = second.of(AccountOpened)
    (position,) = opened.positions
    assert (position.quantity, position.mark_price, position.product) == (10, 103.0, "CNC")
    last = first.of(PnlSnapshot)[-1]
    assert (opened.cash_inr_e4, opened.equity_inr, opened.strategies) == (
        last.cash_inr_e4,
        last.equity_inr,
        last.strategies,
    )
    assert list(second.chain.commands(second.state, NEXT.open_ns + SECOND)) == []


def test_a_session_that_was_lived_into_equals_one_that_was_restored_from_the_record() -> None:
    first = carried()
    lived = Account(session=NEXT, before=first)
    (opened,) = lived.of(AccountOpened)
    chain = account_chain("paper", MARKET_TICKS, first.config, Stamp("digest", "commit"))
    state = chain.open_session(NEXT, UNIVERSE, TaskId("account", "paper", 0))
    read_back = AccountOpened.model_validate_json(opened.model_dump_json())
    restored: list[Event] = said_by(chain.handle_control, EventRecord(read_back, NOWHERE), state)
    restored += said_by(chain.advance, state, NEXT.close_ns + SECOND)
    lived.events.clear()
    lived.close()
    assert restored == lived.events
    assert len(restored) > 30


def test_a_restart_under_other_settings_goes_on_by_those_that_the_session_was_opened_with() -> None:
    def lived(config: AccountConfig, control: list[AccountOpened]) -> list[Event]:
        chain = account_chain("paper", MARKET_TICKS, config, Stamp("digest", "commit"))
        state = chain.open_session(SESSION, UNIVERSE, TaskId("account", "paper", 0))
        said = [e for event in control for e in said_by(chain.handle_control, EventRecord(event, NOWHERE), state)]
        for proposal in (signal(0), signal(1)):
            said += said_by(chain.handle, EventRecord(proposal, NOWHERE), state, proposal.event_time_ns)
        return [*said, *said_by(chain.advance, state, SESSION.close_ns + SECOND)]

    first = Account(limits(max_open_positions=2))
    opened = first.of(AccountOpened)
    stricter = AccountConfig(square_off_minutes_before_close=30, pnl_interval_seconds=1, risk={"max_open_positions": 1})  # type: ignore[arg-type]
    assert lived(stricter, opened) == lived(first.config, opened)
    assert [e.event_type for e in lived(stricter, opened)].count("signal.validated") == 2


def test_limits_come_back_from_the_log_as_they_were_in_the_settings() -> None:
    (opened,) = Account(TradingSettings(enabled=True)).of(AccountOpened)
    assert AccountOpened.model_validate_json(opened.model_dump_json()) == opened
    assert opened.config == AccountConfig()


def test_today_begins_anew_and_the_total_goes_on() -> None:
    first = carried()
    second = Account(session=NEXT, before=first).close()
    last, after = first.of(PnlSnapshot)[-1], second.of(PnlSnapshot)[-1]
    assert (after.realized_today_inr_e4, after.charges_today_inr_e4, after.fills) == (0, 0, 0)
    assert (after.realized_inr_e4, after.charges_inr_e4) == (last.realized_inr_e4, last.charges_inr_e4)
    assert after.equity_at_open_inr == last.equity_inr == after.equity_inr
    assert after.net_today_inr == 0.0


def test_what_is_left_open_and_what_cannot_be_closed_is_alarmed() -> None:
    with capture_logs() as alarms:
        held = signal(product="CNC", expiry_ns=NEXT.close_ns)
        Account().say(held).market(ticks((0, 61, 100.0))).close()
    assert alarms == []
    with capture_logs() as alarms:
        Account().say(signal(product="CNC")).market(ticks((0, 61, 100.0))).close()
    assert [(one["event"], one["symbol"], one["quantity"]) for one in alarms] == [("position_left_open", "AAA", 10)]
    with capture_logs() as alarms:
        first = Account().say(signal()).market(ticks((0, 61, 100.0))).close()
    assert [(one["event"], one["symbol"], one["quantity"]) for one in alarms] == [("position_left_open", "AAA", 10)]
    with capture_logs() as alarms:
        Account(session=NEXT, universe=Universe(instruments=UNIVERSE.instruments[1:]), before=first)
    assert [(one["event"], one["symbol"]) for one in alarms] == [("position_cannot_be_closed", "AAA")]
    assert ("momentum", token(0)) in first.books.positions


async def test_the_first_orders_of_a_process_compile_nothing_any_more() -> None:
    on_ticks, on_bars = Account(), Account(on_bars=True)
    await on_ticks.chain.prepare(TaskId("account", "paper", 0), ())
    kernels = (barriers._fill, barriers._touch)
    compiled = [kernel.signatures for kernel in kernels]
    assert all(compiled)
    on_ticks.say(signal(stop_inr=1.0)).market(ticks((0, 61, 100.0), (0, 62, 98.0)))
    on_bars.say(signal(stop_inr=1.0)).market(bars((0, 1, 100.0, 98.0)))
    assert on_ticks.books.positions == on_bars.books.positions == {}
    assert [kernel.signatures for kernel in kernels] == compiled
