"""What a person sees of accounts, strategies and tasks."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console, RenderableType

from live_services.cli import account_view
from live_services.cli.account_view import read_account, read_verdicts
from live_services.cli.ailments import ailments
from live_services.cli.status import print_status, processes_table, settings_that_wait, status_record, tasks_table
from live_services.cli.status_view import ServiceProcess, StatusView, read_desk
from live_services.cli.strategy_states import (
    StrategyRow,
    read_strategy_states,
    strategies_table,
    strategy_record,
    strategy_rows,
)
from live_services.cli.task_health import Health, ProcessReport, together
from live_services.cli.trading_states import TradingStatesView
from live_services.domain.events import (
    Event,
    ModelRefused,
    PnlSnapshot,
    SessionOpened,
    SignalRejected,
    SignalValidated,
    StrategyModelAssigned,
    TradingStateCommanded,
    TradingStateInForce,
    self_caused,
)
from live_services.domain.log import StrategyRuntime
from live_services.machine.restarts import Restarts
from live_services.machine.supervision import ProcessState
from live_services.settings import Settings
from models_registry.refs import overruled
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


RUNNER = "strategy_runner"


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


def runner(
    *said: tuple[str, str, str, str], rung: str = "champion", partition: int = 0, note: str = ""
) -> dict[str, object]:
    strategies = [
        asdict(StrategyRuntime(name, rung, state, "momentum", version, reason, note))  # type: ignore[arg-type]
        for name, state, version, reason in said
    ]
    name = f"shared.{RUNNER}[{partition}]"
    return task(RUNNER, "shared") | {"task": name, "strategies": strategies, "partition": partition}


def rows_of(*tasks: dict[str, object], states: object = (), skip: str | None = None) -> tuple[StrategyRow, ...]:
    return strategy_rows(STRATEGIES, lambda _: skip, tasks, states)  # type: ignore[arg-type]


def test_what_the_settings_change_from_the_next_session_on_is_said_once() -> None:
    limit, size = "risk.max_open_positions: 2 now, 1 then", "strategies.momentum.holding_bars: 10 now, 12 then"
    tasks = [runner(partition=k) | {"settings_wait": [size]} for k in (0, 1)]
    health = Health((*tasks, task("risk_manager"), task("portfolio_manager") | {"settings_wait": [limit]}), {})
    assert settings_that_wait(health) == (size, f"paper: {limit}")


async def test_the_log_says_what_a_strategy_was_given_last_and_what_was_refused_since() -> None:
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
    assert [(s.strategy, [e.model_version for e in s.assigned]) for s in states] == [
        ("momentum", ["3"]),
        ("patient", [None]),
    ]
    assert states[0].refused is not None
    assert states[0].refused.model_version == "4"
    running = runner(("momentum", "ready", "3", ""), ("patient", "disabled", "", "nothing was promoted to it"))
    shown = " ".join(drawn(strategies_table(rows_of(running, states=states))).split())
    assert "ready momentum v3" in shown
    assert "assigned v3 at 2026-01-05 09:15:00 IST" in shown
    assert "DISABLED nothing was promoted to it" in shown
    assert "v2" not in shown
    assert "gone" not in shown


def test_a_gate_that_was_overruled_is_said_of_what_runs_and_is_no_alarm() -> None:
    note = overruled(["enough_trades"])
    (row, _) = rows_of(runner(("momentum", "ready", "3", ""), note=note))
    assert (row.state, row.reasons, row.notes) == ("ready", (), (note,))
    assert strategy_record(row)["notes"] == [note]
    assert "ready momentum v3 its gate refused it (enough_trades)" in " ".join(drawn(strategies_table([row])).split())


async def test_what_is_configured_is_never_shown_as_running_when_nobody_runs_it() -> None:
    states = await read_strategy_states(log_of([assigned("momentum", "3")]), STRATEGIES)
    rows = rows_of(task("risk_manager"), states=states)
    assert [(row.state, row.versions) for row in rows] == [("not running", ())] * 2
    shown = " ".join(drawn(strategies_table(rows)).split())
    assert "NOT RUNNING no strategy runner reports last assigned v3 at 2026-01-05 09:15:00 IST" in shown
    waiting = strategy_rows(STRATEGIES, lambda _: None, (), (), runner_answers=True)
    assert {row.reasons for row in waiting} == {("the strategy runner waits, and has taken over no market yet",)}
    assert [row.reasons for row in rows_of(skip="TRADING is off")] == [("paper is skipped: TRADING is off",)] * 2


def test_what_a_process_said_that_is_gone_is_not_taken_for_running_while_redis_still_has_it() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    said = runner(("momentum", "ready", "3", ""))
    here, there = {"host": socket.gethostname()}, {"host": "another", "pid": gone.pid}
    for last, is_shown in ((here | {"pid": gone.pid}, False), (here | {"pid": os.getpid()}, True), (there, True)):
        assert bool(together(Health((said | last,), {}), ()).tasks) is is_shown


def test_market_partitions_that_run_different_things_are_shown_by_the_worst_and_a_challenger_only_if_it_scores() -> (
    None
):
    one = runner(("momentum", "ready", "3", ""))
    other = runner(("momentum", "waiting", "", "the registry is silent"), partition=1)
    (row, _) = rows_of(one, other)
    assert (row.state, row.versions, row.reasons) == ("waiting", ("3",), ("the registry is silent",))
    assert all(row.broker == "paper" for row in rows_of(runner(("momentum", "waiting", "", ""), rung="challenger")))
    shadow = [
        row for row in rows_of(runner(("momentum", "ready", "9", ""), rung="challenger")) if row.broker == "shadow"
    ]
    assert [(row.rung, row.versions) for row in shadow] == [("challenger", ("9",))]


async def test_a_refusal_is_over_once_a_version_was_assigned_after_it() -> None:
    log = log_of([refused("momentum", "4", OPEN), assigned("momentum", "5", OPEN + 1)])
    (state,) = await read_strategy_states(log, STRATEGIES)
    assert state.refused is None


async def test_each_active_account_is_a_block_of_its_own_and_one_without_a_snapshot_is_none() -> None:
    both = Settings(strategies=STRATEGIES, active_brokers=("paper", "zerodha"))
    desk = await read_desk(log_of(EVENTS), both, Health((), {}))
    assert [account.snapshot.broker for account in desk.accounts] == ["paper"]


def test_every_service_of_a_chain_has_its_row_in_the_order_in_which_a_tick_meets_them() -> None:
    services = [task("portfolio_manager"), task("paper_trading"), task("strategy_runner", "shared")]
    lines = drawn(tasks_table(Health((*services, task("risk_manager")), {}), 0.0)).splitlines()
    named = [line.split()[0] for line in lines if "[0]" in line]
    assert named == [
        "shared.strategy_runner[0]",
        "paper.risk_manager[0]",
        "paper.paper_trading[0]",
        "paper.portfolio_manager[0]",
    ]


AT_S = OPEN / 1_000_000_000
BOTH_READY = runner(("momentum", "ready", "3", ""), ("patient", "ready", "3", ""))


def process(name: str, state: str = "RUNNING", why: str = "", group: str = "services") -> ProcessState:
    return ProcessState(name, group, state, 7, why, OPEN // 1_000_000_000)


def report(name: str, scope: str = "shared", **says: object) -> ProcessReport:
    document = {"live": True, "ready": True, "lacks": [], "loop_turned_seconds_ago": 0.1, "tasks": []} | says
    return ProcessReport(name, scope, "127.0.0.1:1", document)


def view(**other: Any) -> StatusView:
    tasks = other.pop("tasks", (BOTH_READY,))
    of_a_well_desk: dict[str, Any] = {
        "home": Path("home"),
        "at_s": AT_S,
        "processes": (process("kafka", group="servers"), process("strategy_runner"), process("paper.account")),
        "restarts": (),
        "trading_states": (),
        "services": (
            ServiceProcess("strategy_runner", "shared", "strategy_runner"),
            ServiceProcess("account", "paper", "paper.account"),
        ),
        "skipped": ("zerodha is skipped",),
        "addresses": {"MLflow": "http://x"},
        "lacking": None,
        "reports": (report("strategy_runner"), report("account", "paper")),
        "health": Health(tasks, {}),
        "strategies": rows_of(*tasks),
        "accounts": (),
        "redis_problem": "",
        "log_problem": "",
    }
    return StatusView(**of_a_well_desk | other)


def printed(seen: StatusView) -> str:
    out = io.StringIO()
    print_status(seen, SETTINGS, Console(file=out, width=100))
    return out.getvalue()


def test_a_desk_is_well_when_all_that_is_configured_runs_and_is_ready() -> None:
    assert ailments(view()) == []
    over = (*view().processes, process("market_feed", "EXITED"))
    assert ailments(view(processes=over)) == []
    assert "the replay is over" in printed(view(processes=over))
    decided = task("risk_manager") | {"dead_letters": 2}
    assert ailments(view(tasks=(BOTH_READY, decided))) == []
    warming = task("risk_manager") | {"warming": 3, "readiness": "WARMING 3 of 3"}
    assert ailments(view(tasks=(BOTH_READY, warming))) == []


def test_what_preflight_holds_back_is_one_alarm_and_not_another_for_each_process_and_strategy() -> None:
    stopped = (
        process("kafka", group="servers"),
        process("strategy_runner", "STOPPED"),
        process("paper.account", "STOPPED"),
    )
    held = view(processes=stopped, reports=(), tasks=(), held_back=("topics: missing",))
    assert ailments(held) == ["preflight holds the live services back: topics: missing"]


def test_a_process_that_keeps_dying_is_an_alarm_also_in_the_moments_in_which_it_runs() -> None:
    died = (Restarts("strategy_runner", in_a_row=3, restarts=3, last_error="error: its model was changed"),)
    starting = (report("strategy_runner", ready=False, lacks=["no task"]), report("account", "paper"))
    told = "strategy_runner ended 3 times in a row before it did its work, and was started again: error: its model"
    assert ailments(view(restarts=died, reports=starting))[0].startswith(told)
    assert ailments(view(restarts=died)) == []  # it got on since


@pytest.mark.parametrize(
    ("other", "told"),
    [
        (
            {"redis_problem": "Redis does not answer: refused"},
            "Redis does not answer: refused. Trading goes on without",
        ),
        (
            {"log_problem": "no Kafka answers"},
            "the log cannot be read, so verdicts and what was assigned are not shown",
        ),
        ({"lacking": "no market data yet: launch it"}, "no market data yet: launch it"),
        (
            {"processes": (*view().processes, process("mlflow", "EXITED", "exit code 1", "servers"))},
            "mlflow is EXITED: exit code 1; it wrote home/logs/mlflow.log",
        ),
        (
            {"processes": (*view().processes, process("market_feed", "BACKOFF", "starts again in 4 s: no disk"))},
            "market_feed is BACKOFF: starts again in 4 s: no disk; it wrote home/logs/market_feed.log",
        ),
        ({"processes": (*view().processes, process("valkey", "EXITED", "", "servers"))}, "valkey is EXITED; it wrote "),
        (
            {"services": (*view().services, ServiceProcess("account", "zerodha", "zerodha.account"))},
            "zerodha.account is configured and was not when this stack started",
        ),
        ({"reports": (report("strategy_runner"),)}, "paper.account runs, but says nothing of its health"),
        (
            {"reports": (report("strategy_runner"), ProcessReport("account", "paper", "127.0.0.1:1", None))},
            "paper.account runs, but says nothing of its health",
        ),
        (
            {
                "reports": (
                    report("strategy_runner", live=False, loop_turned_seconds_ago=31.2),
                    report("account", "paper"),
                )
            },
            "strategy_runner: its event loop has not turned for 31 s",
        ),
        (
            {"reports": (report("strategy_runner", log_lines_lost=1200), report("account", "paper"))},
            "lines of the log are lost (strategy_runner 1,200): the disk of home/logs is full, or may not be written",
        ),
        (
            {"reports": (report("strategy_runner", ready=False, lacks=["no task"]), report("account", "paper"))},
            "strategy_runner is not ready: no task",
        ),
        (
            {"tasks": (BOTH_READY, task("risk_manager") | {"dead_letters": 2}), "open_letters": 1},
            "1 dead letters are open, and paper.risk_manager[0] put such records aside",
        ),
        (
            {"tasks": (BOTH_READY, task("paper_trading", foreign=3))},
            "3 records on what only paper.paper_trading[0] may write are not its own.",
        ),
        (
            {"tasks": (runner(("momentum", "ready", "3", ""), ("patient", "disabled", "", "nothing was promoted")),)},
            "patient for paper is DISABLED: nothing was promoted",
        ),
        (
            {
                "tasks": (
                    runner(("momentum", "ready", "3", ""), ("patient", "ready", "3", "version 4 is refused: why")),
                )
            },
            "patient for paper goes on with momentum v3, but version 4 is refused: why",
        ),
    ],
)
def test_every_reason_why_a_desk_is_not_well_is_an_alarm_of_one_line(other: dict[str, Any], told: str) -> None:
    seen = view(**other)
    (alarm,) = ailments(seen)
    assert alarm.startswith(told)
    assert f"ALARM: {alarm}" in printed(seen).splitlines()


def test_a_process_that_was_brought_back_says_how_often_and_from_what() -> None:
    seen = view(restarts=(Restarts("paper.account", restarts=2, last_error="terminated by SIGKILL"),))
    assert ailments(seen) == []
    assert "started again 2 times, last after: terminated by SIGKILL" in " ".join(printed(seen).split())
    told = {one["name"]: (one["restarts"], one["last_error"]) for one in status_record(seen)["processes"]}
    assert (told["paper.account"], told["kafka"]) == ((2, "terminated by SIGKILL"), (0, None))


def test_a_halt_is_shown_and_is_no_ailment_and_one_that_nobody_answered_is_one() -> None:
    halted = TradingStateInForce(
        strategy=None,
        state="HALTED",
        flatten=False,
        since_ns=OPEN,
        commanded_by="asha",
        reason="news",
        commanded_at_ns=OPEN,
    )
    seen = view(trading_states=(TradingStatesView("paper", (halted,), ()),))
    assert ailments(seen) == []
    assert "HALTED" in printed(seen)
    command = TradingStateCommanded(
        **self_caused("command", 1),
        broker="paper",
        event_time_ns=OPEN,
        state="HALTED",
        flatten=False,
        strategy=None,
        reason="news",
        commanded_by="asha",
        commanded_at_ns=OPEN,
    )
    (alarm,) = ailments(view(trading_states=(TradingStatesView("paper", (), (command,)),)))
    assert "is NOT in force" in alarm


def test_what_all_wait_for_is_said_once() -> None:
    waits = "no market data yet"
    lacks = {"ready": False, "lacks": [waits]}
    seen = view(lacking=waits, reports=(report("strategy_runner", **lacks), report("account", "paper", **lacks)))
    assert ailments(seen) == [waits]


async def test_what_is_open_after_the_close_is_an_alarm_of_the_desk() -> None:
    account = await read_account(log_of([*EVENTS, told()]), "paper", None)
    (alarm,) = ailments(view(accounts=(account,)))
    assert alarm.startswith("paper: open after the session's close: ")


async def test_all_of_it_is_one_json_document_and_times_of_processes_are_ist() -> None:
    desk = await read_desk(log_of(EVENTS), SETTINGS, Health((), {}))
    processes = (
        ProcessState("kafka", "servers", "RUNNING", 7, "", OPEN // 1_000_000_000),
        ProcessState("market_feed", "services", "FATAL", 0, "exit code 1", 0),
    )
    seen = view(processes=processes, services=(), accounts=desk.accounts)
    record = json.loads(json.dumps(status_record(seen), allow_nan=False))
    assert [p["since"] for p in record["processes"]] == ["2026-01-05 09:15:00 IST", None]
    assert [p["gave_up"] for p in record["processes"]] == [False, True]
    assert (record["is_well"], record["alarms"]) == (False, ailments(seen))
    assert record["health"]["paper.account"]["ready"]
    assert [row["state"] for row in record["strategies"]] == ["ready", "ready"]
    assert record["accounts"][0]["verdicts"]["exits"] == dict(desk.accounts[0].verdicts.exits)  # type: ignore[union-attr]
    shown = drawn(processes_table(seen))
    assert "2026-01-05 09:15:00" in shown
    assert "exit code 1" in shown


def test_a_task_says_how_long_ago_it_put_an_event_out_and_whether_it_still_runs_the_past_again() -> None:
    spoke = task("risk_manager") | {"last_output_s": AT_S - 90, "live": True}
    again = task("portfolio_manager") | {"last_output_s": AT_S - 7300, "live": False}
    shown = drawn(tasks_table(Health((spoke, again), {}), AT_S))
    assert "90 s" in shown
    assert "2 h" in shown
    assert "running the past again" in shown


def test_without_room_a_task_keeps_where_it_stands_and_what_it_waits_for() -> None:
    out = io.StringIO()
    Console(file=out, width=80).print(
        tasks_table(Health((task("risk_manager") | {"waiting_for": "market.ticks[0]"},), {}), 0.0)
    )
    assert {"paper.risk_manager[0]", "market.ticks[0]"} <= set(out.getvalue().split())
    assert "left out for want of room: handled" in out.getvalue()
