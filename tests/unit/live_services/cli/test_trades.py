"""What an account's fills came to, as a person reads it."""

from __future__ import annotations

import datetime as dt
import io
import json

import pytest
from rich.console import Console

from live_services.cli.trades import TradeList, held_text, read_trades, render, trade_record
from live_services.domain.account.charge_schedules import schedule_on
from live_services.domain.events import AccountOpened, OrderFilled, PnlSnapshot, StrategiesSummarized, StrategyStanding
from live_services.failures import CommandFailed
from models_registry.refs import Alias
from tests.account_log import SESSIONS, STRATEGIES, Backwards, log_of, two_sessions

EVENTS = two_sessions()
FILLS = [event for event in EVENTS if isinstance(event, OrderFilled)]


def drawn(found: TradeList) -> str:
    out = io.StringIO()
    Console(file=out, width=100).print(render(found))
    return out.getvalue()


async def test_trades_of_all_sessions_add_up_to_the_account_s_books() -> None:
    found = await read_trades(log_of(EVENTS), "paper", STRATEGIES)
    newest = [event for event in EVENTS if isinstance(event, PnlSnapshot)][-1]
    assert len(found.ended) == sum(total.trades for total in newest.strategies)
    assert sum(trade.gross_pnl_inr_e4 for trade in found.ended) == newest.realized_inr_e4
    assert len(found.trades) - len(found.ended) == len([p for p in newest.positions if p.quantity])
    assert found.marked_ns == newest.event_time_ns


async def test_only_the_newest_snapshot_is_read() -> None:
    log = Backwards(EVENTS)
    await read_trades(log, "paper", STRATEGIES)
    assert log.read["paper.pnl.snapshots"] == 1
    assert set(log.read) == {"paper.orders.filled", "paper.pnl.snapshots", "paper.control", "strategies.summary"}


async def test_a_table_says_how_each_trade_ended_and_cuts_no_word() -> None:
    shown = drawn(await read_trades(log_of(EVENTS), "paper", STRATEGIES))
    assert "ended on 2026-01-05" in shown
    assert "ended on 2026-01-06" in shown
    assert "open at 2026-01-06 15:30:01 IST" in shown
    for reason in ("stop", "target", "time", "carried"):
        assert f" {reason} " in shown
    assert "…" not in shown
    assert max(len(line) for line in shown.splitlines()) <= 100
    words = set(shown.split())
    assert {"momentum", "patient", "v1", "mark", "01-05"} <= words
    assert "ended by target" in shown


async def test_trades_are_chosen_by_strategy_and_by_a_day_on_which_they_began_or_ended() -> None:
    log = log_of(EVENTS)
    everything = await read_trades(log, "paper", STRATEGIES)
    patient = await read_trades(log, "paper", STRATEGIES, strategy="patient")
    assert patient.trades == tuple(trade for trade in everything.trades if trade.strategy == "patient")
    first = await read_trades(log, "paper", STRATEGIES, strategy="patient", date=SESSIONS[0].date)
    second = await read_trades(log, "paper", STRATEGIES, strategy="patient", date=SESSIONS[1].date)
    carried = {trade for trade in patient.trades if trade.exit_reason == "carried"}
    assert carried
    assert set(first.trades) & set(second.trades) == carried
    assert set(first.trades) | set(second.trades) == set(patient.trades)


async def test_an_account_that_has_not_traded_says_so_in_one_sentence() -> None:
    said = drawn(await read_trades(log_of([]), "paper", STRATEGIES))
    assert said.strip() == "the paper account has traded nothing yet: paper.orders.filled holds no fill"
    found = await read_trades(log_of(EVENTS), "paper", STRATEGIES, strategy="momentum", date=dt.date(2026, 1, 9))
    assert drawn(found).strip() == "paper.orders.filled holds no trade of momentum on 2026-01-09"


async def test_an_unknown_strategy_names_near_ones_and_one_that_was_taken_out_is_known_by_its_trades() -> None:
    with pytest.raises(CommandFailed, match=r"no strategy 'momentun'; did you mean momentum\?"):
        await read_trades(log_of(EVENTS), "paper", STRATEGIES, strategy="momentun")
    found = await read_trades(log_of(EVENTS), "paper", STRATEGIES[:1], strategy="patient")
    assert found.trades


async def test_a_trade_as_json_has_exact_amounts_and_says_whether_it_is_over() -> None:
    found = await read_trades(log_of(EVENTS), "paper", STRATEGIES)
    ended, is_open = (trade_record(found.trades[place], {}) for place in (0, -1))
    assert json.loads(json.dumps(ended)) == ended
    assert ended["net_pnl_inr_e4"] == ended["gross_pnl_inr_e4"] - ended["charges_inr_e4"]
    assert ended["exit_reason"] in {"stop", "target"}
    assert (ended["open_quantity"], ended["mark_price_inr"]) == (0, None)
    assert (is_open["exit_time"], is_open["exit_price_inr"], is_open["exit_reason"]) == (None, None, None)
    assert is_open["open_quantity"] == is_open["quantity"]
    assert set(ended) == set(is_open)


async def test_what_ran_by_a_person_s_override_is_named_with_what_its_gate_refused() -> None:
    why = "its gate refused it (ranks_above_chance): it runs by a person's override"

    def standing(name: str, rung: Alias, note: str) -> StrategyStanding:
        return StrategyStanding(
            strategy=name, rung=rung, state="ready", model_name="momentum", version="1", reason="", note=note
        )

    summary = StrategiesSummarized(
        event_id="summary", correlation_id="summary", causation_id="", event_time_ns=0,
        session_date="2026-01-05", task="shared.strategy_runner[0]", brokers=(), strategies=(
            standing("momentum", "champion", why),
            standing("patient", "champion", ""),
            standing("patient", "live", why),  # what it is on another rung is no word on the paper account's trades
        ),
    )  # fmt: skip
    found = await read_trades(log_of([*EVENTS, summary]), "paper", STRATEGIES)
    assert found.overruled == {("momentum", "1"): why}
    assert f"momentum v1: {why}" in " ".join(drawn(found).split())
    records = [trade_record(trade, found.overruled) for trade in found.trades]
    assert {(one["strategy"], one["overruled"]) for one in records} == {("momentum", why), ("patient", "")}
    patient = await read_trades(log_of([*EVENTS, summary]), "paper", STRATEGIES, strategy="patient")
    assert "override" not in drawn(patient)


async def test_charges_by_a_schedule_that_is_not_verified_for_the_day_are_named() -> None:
    inexact = [e.model_copy(update={"charges_exact": False}) if isinstance(e, OrderFilled) else e for e in EVENTS]
    schedule, _ = schedule_on("equity_intraday", SESSIONS[0].date)
    shown = drawn(await read_trades(log_of(inexact), "paper", STRATEGIES, date=SESSIONS[0].date))
    used = schedule.holds_from
    assert f"no schedule of charges is verified for 2026-01-05; that of {used} was used" in shown
    assert "no schedule" not in drawn(await read_trades(log_of(EVENTS), "paper", STRATEGIES))


async def test_what_retention_has_dropped_takes_only_its_own_trades_along() -> None:
    opened = {fill.signal_id for fill in FILLS[:40] if fill.intent == "open"}
    kept = [e for e in EVENTS if e not in FILLS[:40] and not isinstance(e, AccountOpened)]
    found = await read_trades(log_of(kept), "paper", STRATEGIES)
    assert found.trades
    assert not opened & {trade.signal_id for trade in found.trades}


async def test_fills_that_do_not_add_up_to_the_books_are_an_alarm_and_those_that_retention_dropped_a_note() -> None:
    assert (await read_trades(log_of(EVENTS), "paper", STRATEGIES)).disagreement == ""
    foreign = FILLS[-1].model_copy(update={"event_id": "foreign", "order_id": "foreign", "intent": "open"})
    shown = drawn(await read_trades(log_of([*EVENTS, foreign]), "paper", STRATEGIES))
    assert f"ALARM: paper.orders.filled holds {len(FILLS) + 1} fills with charges of" in shown
    assert f"the account's books {len(FILLS)} with" in " ".join(shown.split())
    kept = [event for event in EVENTS if event not in FILLS[:40]]
    found = await read_trades(log_of(kept), "paper", STRATEGIES)
    assert found.disagreement == (
        f"paper.orders.filled holds {len(FILLS) - 40} of the account's {len(FILLS)} fills: retention has dropped "
        "earlier ones"
    )


def test_how_long_something_was_held_is_said_in_two_units() -> None:
    second = 1_000_000_000
    assert held_text(0) == "0 s"
    assert held_text(598 * second) == "9 min 58 s"
    assert held_text((18 * 3600 + 5 * 60) * second) == "18 h 5 min"
    assert held_text((3 * 86_400 + 2 * 3600) * second) == "3 d 2 h"
