"""What a person sees of strategies: what runs, what was assigned, and what was refused since."""

from __future__ import annotations

from live_services.cli.strategy_states import read_strategy_states, strategies_table, strategy_record, strategy_rows
from live_services.domain.events import Event, ModelRefused, StrategyModelAssigned, self_caused
from models_registry.refs import overruled
from tests.account_log import STRATEGIES, log_of
from tests.live_world import OPEN
from tests.status_world import BOTH_READY, drawn, rows_of, runner, task


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
    first = BOTH_READY | {"strategies": BOTH_READY["strategies"][:1]}  # the settings have gained one since the open
    (_, added) = strategy_rows(STRATEGIES, lambda _: None, (first,), (), runner_answers=True)
    assert added.reasons == ("the session at hand began without it, and it is run from the next one on",)
    assert [row.reasons for row in rows_of(skip="TRADING is off")] == [("paper is skipped: TRADING is off",)] * 2


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
