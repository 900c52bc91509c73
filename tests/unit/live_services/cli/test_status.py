"""What a person sees of accounts, strategies and tasks."""

from __future__ import annotations

import io
import json
from pathlib import Path

from rich.console import Console, RenderableType

from live_services.cli import account_view
from live_services.cli.account_view import read_account, read_verdicts
from live_services.cli.status import (
    Health,
    StatusView,
    dead_letters,
    foreign_records,
    processes_table,
    read_desk,
    status_record,
    tasks_table,
)
from live_services.cli.strategy_states import read_strategy_states, strategies_table
from live_services.domain.events import (
    Event,
    ModelRefused,
    PnlSnapshot,
    SessionOpened,
    SignalRejected,
    SignalValidated,
    StrategyModelAssigned,
    self_caused,
)
from live_services.machine.supervision import ProcessState
from live_services.settings import Settings
from tests.account_log import SESSIONS, STRATEGIES, log_of, two_sessions
from tests.live_world import OPEN, UNIVERSE

EVENTS = two_sessions()
SETTINGS = Settings(strategies=STRATEGIES)
LAST = SESSIONS[1]


def drawn(*shown: RenderableType) -> str:
    out = io.StringIO()
    for one in shown:
        Console(file=out, width=100).print(one)
    return out.getvalue()


def told() -> SessionOpened:
    return SessionOpened(
        **self_caused("session", LAST.open_ns),
        event_time_ns=LAST.open_ns,
        session_date=LAST.date.isoformat(),
        session_open_ns=LAST.open_ns,
        session_close_ns=LAST.close_ns,
        universe_digest=UNIVERSE.digest,
        instruments=UNIVERSE.instruments,
    )


def assigned(strategy: str, version: str | None, time_ns: int = OPEN, reason: str = "champion") -> Event:
    return StrategyModelAssigned(
        **self_caused("assigned", strategy, time_ns),
        event_time_ns=time_ns,
        strategy=strategy,
        rung="champion",
        model_name="momentum",
        model_version=version,
        feature_schema_hash=None if version is None else "hash",
        reason=reason,
    )


def refused(strategy: str, version: str, time_ns: int) -> Event:
    return ModelRefused(
        **self_caused("refused", strategy, time_ns),
        event_time_ns=time_ns,
        strategy=strategy,
        rung="champion",
        model_name="momentum",
        model_version=version,
        reason="its golden rows differ",
        running_version="3",
        task="shared.strategy_runner[0]",
    )


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
    assert "ALARM: open after the session's close" in drawn(account_view.render(view, SETTINGS))
    opened = next(e for e in EVENTS if isinstance(e, PnlSnapshot) and e.session_date == LAST.date.isoformat())
    carried = await read_account(log_of([*EVENTS, told()]), "paper", opened)
    assert carried is not None
    shown = drawn(account_view.render(carried, SETTINGS))
    assert "ALARM" not in shown
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
    assert "passed over as already open, 1 rejected (gross_notional 1); 12 exits raised (time 9, carried 3)" in str(
        verdicts
    )


async def test_charges_that_no_schedule_is_verified_for_are_noted() -> None:
    newest = [event for event in EVENTS if isinstance(event, PnlSnapshot)][-1]
    view = await read_account(log_of(EVENTS), "paper", newest.model_copy(update={"charges_exact": False}))
    assert view is not None
    assert "no schedule of charges is verified" in drawn(account_view.render(view, SETTINGS))


async def test_a_strategy_shows_what_it_runs_or_why_it_is_disabled_or_what_it_refused() -> None:
    log = log_of(
        [
            assigned("momentum", "2"),
            assigned("patient", None, reason="no version stands behind momentum@champion"),
            assigned("momentum", "3", OPEN + 1),
            refused("momentum", "1", OPEN),
            refused("momentum", "4", OPEN + 2),
            assigned("gone", "1"),
        ]
    )
    states = await read_strategy_states(log, STRATEGIES)
    assert [(state.strategy, state.is_disabled) for state in states] == [("momentum", False), ("patient", True)]
    shown = " ".join(drawn(strategies_table(states)).split())
    assert "momentum v3 since 2026-01-05" in shown
    assert "refused momentum v4: its golden rows differ" in shown
    assert "DISABLED since 2026-01-05 09:15:00 IST: no version stands behind momentum@champion" in shown
    assert "v2" not in shown
    assert "gone" not in shown


async def test_a_refusal_is_over_once_a_version_was_assigned_after_it() -> None:
    log = log_of([refused("momentum", "4", OPEN), assigned("momentum", "5", OPEN + 1)])
    (state,) = await read_strategy_states(log, STRATEGIES)
    assert state.refused is None


async def test_each_active_account_is_a_block_of_its_own_and_one_without_a_snapshot_is_none() -> None:
    both = Settings(strategies=STRATEGIES, active_brokers=("paper", "zerodha"))
    desk = await read_desk(log_of(EVENTS), both, {})
    assert [account.snapshot.broker for account in desk.accounts] == ["paper"]


def task(service: str, broker: str = "paper", foreign: int = 0) -> dict[str, object]:
    return {
        "task": f"{broker}.{service}[0]",
        "service": service,
        "broker": broker,
        "watermark_ns": OPEN,
        "records_handled": 12,
        "lag_records": 0,
        "dead_letters": 0,
        "foreign_records": foreign,
        "readiness": "",
        "waiting_for": "",
    }


def test_every_service_of_a_chain_has_its_row_in_the_order_in_which_a_tick_meets_them() -> None:
    services = [task("portfolio_manager"), task("paper_trading"), task("strategy_runner", "shared")]
    lines = drawn(tasks_table(Health((*services, task("risk_manager")), {}))).splitlines()
    named = [line.split()[0] for line in lines if "[0]" in line]
    assert named == [
        "shared.strategy_runner[0]",
        "paper.risk_manager[0]",
        "paper.paper_trading[0]",
        "paper.portfolio_manager[0]",
    ]


def test_records_that_somebody_else_wrote_on_an_account_s_topics_are_an_alarm() -> None:
    (alarm,) = foreign_records(Health((task("risk_manager"), task("paper_trading", foreign=3)), {}))
    assert alarm.startswith("3 records on what only paper.paper_trading[0] may write are not its own.")


async def test_all_of_it_is_one_json_document_and_times_of_processes_are_ist() -> None:
    health = Health((task("risk_manager", foreign=3) | {"dead_letters": 2},), {})
    processes = (
        ProcessState("kafka", "servers", "RUNNING", 7, "", OPEN // 1_000_000_000),
        ProcessState("market_feed", "services", "FATAL", 0, "exit code 1", 0),
    )
    desk = await read_desk(log_of(EVENTS), SETTINGS, {})
    view = StatusView(Path("home"), processes, (), {"MLflow": "http://x"}, None, health, desk, "")
    record = json.loads(json.dumps(status_record(view), allow_nan=False))
    assert [p["since"] for p in record["processes"]] == ["2026-01-05 09:15:00 IST", None]
    assert [p["gave_up"] for p in record["processes"]] == [False, True]
    assert record["alarms"] == [*foreign_records(health), *dead_letters(health)]
    assert record["accounts"][0]["verdicts"]["exits"] == dict(desk.accounts[0].verdicts.exits)  # type: ignore[union-attr]
    shown = drawn(processes_table(view))
    assert "2026-01-05 09:15:00" in shown
    assert "exit code 1" in shown


def test_without_room_a_task_keeps_where_it_stands_and_what_it_waits_for() -> None:
    out = io.StringIO()
    Console(file=out, width=80).print(
        tasks_table(Health((task("risk_manager") | {"waiting_for": "market.ticks[0]"},), {}))
    )
    assert {"paper.risk_manager[0]", "market.ticks[0]"} <= set(out.getvalue().split())
    assert "left out for want of room: handled, lag" in out.getvalue()
