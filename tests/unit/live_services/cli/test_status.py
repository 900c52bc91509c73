"""What a person sees of a desk and its tasks."""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys

from rich.console import Console

from feature_store.market.types import GENERATED_MARKET
from live_services.cli.ailments import ailments
from live_services.cli.status import processes_table, settings_that_wait, status_record, tasks_table
from live_services.cli.status_view import read_desk
from live_services.cli.task_health import Health, together
from live_services.machine.restarts import Restarts
from live_services.machine.supervision import ProcessState
from live_services.settings import Settings
from tests.account_log import STRATEGIES, log_of
from tests.live_world import OPEN
from tests.status_world import AT_S, EVENTS, SETTINGS, drawn, printed, runner, task, view


def test_what_the_settings_change_from_the_next_session_on_is_said_once() -> None:
    limit, size = "risk.max_open_positions: 2 now, 1 then", "strategies.momentum.holding_bars: 10 now, 12 then"
    tasks = [runner(partition=k) | {"settings_wait": [size]} for k in (0, 1)]
    health = Health((*tasks, task("risk_manager"), task("portfolio_manager") | {"settings_wait": [limit]}), {})
    assert settings_that_wait(health) == (size, f"paper: {limit}")


def test_what_a_process_said_that_is_gone_is_not_taken_for_running_while_redis_still_has_it() -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    said = runner(("momentum", "ready", "3", ""))
    here, there = {"host": socket.gethostname()}, {"host": "another", "pid": gone.pid}
    for last, is_shown in ((here | {"pid": gone.pid}, False), (here | {"pid": os.getpid()}, True), (there, True)):
        assert bool(together(Health((said | last,), {}), ()).tasks) is is_shown


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


def test_a_process_that_was_brought_back_says_how_often_and_from_what() -> None:
    seen = view(restarts=(Restarts("paper.account", restarts=2, last_error="terminated by SIGKILL"),))
    assert ailments(seen) == []
    assert "started again 2 times, last after: terminated by SIGKILL" in " ".join(printed(seen).split())
    told = {one["name"]: (one["restarts"], one["last_error"]) for one in status_record(seen)["processes"]}
    assert (told["paper.account"], told["kafka"]) == ((2, "terminated by SIGKILL"), (0, None))


def test_a_generated_market_is_named_on_the_page_and_in_the_record() -> None:
    assert GENERATED_MARKET in printed(view(generated=True))
    assert "SYNTHETIC" not in printed(view())
    assert status_record(view(generated=True))["generated_market"] is True


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
