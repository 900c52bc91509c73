"""Every reason why a desk is not well."""

from __future__ import annotations

from typing import Any

import pytest

from live_services.cli.account_view import read_account
from live_services.cli.ailments import ailments
from live_services.cli.status_view import ServiceProcess
from live_services.cli.task_health import ProcessReport
from live_services.cli.trading_states import TradingStatesView
from live_services.domain.events import TradingStateCommanded, TradingStateInForce, self_caused
from live_services.machine.restarts import Restarts
from tests.account_log import log_of
from tests.live_world import OPEN
from tests.status_world import BOTH_READY, EVENTS, printed, process, report, runner, task, told, view


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
