"""What a person sees of an account."""

from __future__ import annotations

from live_services.cli import account_view
from live_services.cli.account_view import read_account, read_verdicts
from live_services.domain.events import PnlSnapshot, SignalRejected, SignalValidated
from tests.account_log import log_of
from tests.status_world import EVENTS, LAST, SETTINGS, drawn, told


async def test_an_account_shows_money_positions_and_profit_by_strategy_and_version() -> None:
    log = log_of([*EVENTS, told()])
    view = await read_account(log, "paper", None)
    assert view is not None
    snapshot = view.snapshot
    shown = drawn(account_view.render(view, SETTINGS))
    assert "paper account, session 2026-01-06, 2026-01-06 15:30:01 IST" in shown
    assert f"cash ₹{snapshot.cash_inr_e4 / 10_000:,.2f}" in shown
    assert "equity" in shown
    assert f"{snapshot.fills} fills" in shown
    assert "momentum v1" in shown
    assert "patient v1" in shown
    assert "…" not in shown
    held = [position for position in snapshot.positions if position.quantity]
    assert held
    for position in held:
        assert f"{position.symbol} {'long' if position.quantity > 0 else 'short'} {abs(position.quantity):,}" in shown


async def test_what_is_open_after_the_close_is_an_alarm_and_what_was_carried_in_is_named() -> None:
    view = await read_account(log_of([*EVENTS, told()]), "paper", None)
    assert view is not None
    assert account_view.open_after_close(view).startswith("paper: open after the session's close: ")
    opened = next(e for e in EVENTS if isinstance(e, PnlSnapshot) and e.session_date == LAST.date.isoformat())
    carried = await read_account(log_of([*EVENTS, told()]), "paper", opened)
    assert carried is not None
    shown = drawn(account_view.render(carried, SETTINGS))
    assert account_view.open_after_close(carried) == ""
    assert "carried from an earlier session: " in shown


async def test_a_mis_position_ends_at_its_square_off_if_that_comes_first() -> None:
    newest = [event for event in EVENTS if isinstance(event, PnlSnapshot)][-1]
    late = newest.positions[-1].model_copy(update={"expiry_ns": LAST.close_ns - 1})
    snapshot = newest.model_copy(update={"positions": (late,), "event_time_ns": LAST.close_ns - 60 * 10**9})
    view = await read_account(log_of([*EVENTS, told()]), "paper", snapshot)
    assert view is not None
    assert "15:25:00" in drawn(account_view.render(view, SETTINGS))


async def test_verdicts_of_the_session_count_already_open_apart_from_rejections_by_rule() -> None:
    mine = [event for event in EVENTS if event.event_time_ns >= LAST.open_ns]
    passed_over = [event for event in mine if isinstance(event, SignalRejected)]
    over_limit = passed_over[-1].model_copy(update={"rule": "gross_notional"})
    log = log_of([event for event in EVENTS if event != passed_over[-1]] + [over_limit])
    verdicts = await read_verdicts(log, "paper", LAST.open_ns)
    accepted = [event for event in mine if isinstance(event, SignalValidated)]
    assert verdicts.accepted == sum(event.intent == "open" for event in accepted)
    assert verdicts.brackets == sum(event.reason == "bracket" for event in accepted)
    assert verdicts.exits == {"time": 9, "carried": 3}
    assert verdicts.already_open == len(passed_over) - 1
    assert verdicts.rejected == {"gross_notional": 1}
    assert verdicts.rejected_of == {over_limit.strategy: {"gross_notional": 1}}
    assert verdicts.accepted_of.total() == verdicts.accepted
    assert "passed over as already open, 1 rejected (gross_notional 1); 12 exits raised (time 9, carried 3)" in str(
        verdicts
    )


async def test_charges_that_no_schedule_is_verified_for_are_noted() -> None:
    newest = [event for event in EVENTS if isinstance(event, PnlSnapshot)][-1]
    view = await read_account(log_of(EVENTS), "paper", newest.model_copy(update={"charges_exact": False}))
    assert view is not None
    assert "no schedule of charges is verified" in drawn(account_view.render(view, SETTINGS))
