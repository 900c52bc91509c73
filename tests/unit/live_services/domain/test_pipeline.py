"""What the pipeline validator makes of what it sees: every issue named rightly, and nothing said of what is well."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from live_services.domain import keys
from live_services.domain.clock import session_end_ns
from live_services.domain.keys import NotJson, NotOfItsKey, TaskRecord, WrongContent
from live_services.domain.log import NOTHING, TaskId
from live_services.domain.pipeline import BrokerPlan, Look, PipelineJudge, Position, Thresholds
from live_services.domain.pipeline_findings import PipelineFindings
from live_services.domain.topics import BROKERS
from tests.live_world import OPEN, SECOND, SESSION

LIMITS = Thresholds(no_recent_data_s=30, high_latency_s=1, consumer_lag_records=100, stuck_s=60)
PAPER = BrokerPlan("paper", ("momentum",))
RUNNER = TaskId("strategy_runner", "shared", 0)
ACCOUNT = tuple(TaskId(name, "paper", 0) for name in ("risk_manager", "paper_trading", "portfolio_manager"))
NOW_S = OPEN / SECOND + 100


def at(seconds: float) -> tuple[int, int]:
    return OPEN, OPEN + round(seconds * SECOND)


END = (OPEN, session_end_ns(SESSION))


def record(task: TaskId, **changes: Any) -> TaskRecord:
    fields: dict[str, Any] = {
        "task": str(task),
        "service": task.service,
        "broker": task.scope,
        "partition": task.partition,
        "watermark_ns": OPEN,
        "session": "2026-01-05",
        "live": True,
        "records_handled": 1,
        "outputs": {},
        "dead_letters": 0,
        "foreign_records": 0,
        "lag_records": 0,
        "waiting_for": "",
        "pid": 1,
        "host": "here",
        "metrics_port": 0,
        "readiness": "",
        "warming": 0,
        "last_output_s": 0.0,
        "latency_s": 0.0,
        "answered_s": 0.0,
        "strategies": (),
    }
    return TaskRecord(**(fields | changes))


def look(seconds: float, market: tuple[int, int] | None = None, **changes: Any) -> Look:
    """Look so many seconds later at a desk on which everybody has reached what the market has."""
    reached = at(seconds) if market is None else market
    well = Look(
        at_s=NOW_S + seconds,
        session=SESSION,
        market=reached,
        runner={0: Position(reached)},
        accounts={"paper": Position(reached)},
        health={task: record(task) for task in (RUNNER, *ACCOUNT)},
    )
    return replace(well, **changes)


def judged(looks: Sequence[Look], plan: BrokerPlan = PAPER, limits: Thresholds = LIMITS) -> PipelineFindings:
    """What is said of the last look."""
    judge = PipelineJudge([plan], limits, "market.ticks")
    return [judge.judge(one) for one in looks][-1][0]


def found(looks: Sequence[Look], plan: BrokerPlan = PAPER, limits: Thresholds = LIMITS) -> set[tuple[str, str]]:
    return {(one.stage, one.issue) for one in judged(looks, plan, limits).findings}


# --- gating ---------------------------------------------------------------------------------------------------------


def test_of_a_desk_that_is_well_nothing_is_said() -> None:
    said = judged([look(seconds) for seconds in range(0, 200, 5)])
    assert (said.gate.state, said.findings, said.active_strategies) == ("watched", (), ("momentum",))


@pytest.mark.parametrize(
    ("plan", "state", "reason"),
    [
        (replace(PAPER, active_strategies=()), "suppressed", "no strategy of the settings targets paper"),
        (replace(PAPER, not_running="it is not in ACTIVE_BROKERS: none is"), "skipped", "it is not in ACTIVE_BROKERS"),
        (replace(PAPER, active_strategies=(), not_running="it is off"), "skipped", "it is off"),
    ],
)
def test_a_broker_without_strategies_or_that_does_not_run_is_not_judged(plan, state, reason) -> None:
    nobody = dict.fromkeys((RUNNER, *ACCOUNT))
    said = judged([look(0, health=nobody), look(90, at(0), health=nobody)], plan)
    assert (said.gate.state, said.findings) == (state, ())
    assert said.gate.reason.startswith(reason)


def test_with_trading_off_its_orders_are_skipped_and_the_other_stages_judged() -> None:
    plan = replace(PAPER, trading_off="TRADING__PAPER__ENABLED is false")
    nobody = dict.fromkeys((RUNNER, *ACCOUNT))
    looks = [look(0, health=nobody), look(30, health=nobody)]
    assert found(looks, plan) == {(stage, "no_recent_data") for stage in ("signals", "risk", "portfolio")}
    assert judged(looks, plan).stages_skipped == {"orders": "TRADING__PAPER__ENABLED is false"}


def test_a_market_that_is_closed_by_the_log_is_idle_whatever_the_wall_clock_says() -> None:
    days = 86_400 * 30
    for seconds in (0, days):
        assert (
            judged([look(seconds, END)]).gate.reason == "the session of 2026-01-05 is over, and was handled to its end"
        )
    assert judged([look(0, NOTHING, session=None)]).gate.reason == "no session was told yet"


def test_a_session_that_was_told_before_its_open_is_idle_and_one_of_the_past_is_to_begin() -> None:
    early = look(0, NOTHING, at_s=OPEN / SECOND - 60)
    assert judged([early]).gate.reason == "the session of 2026-01-05 opens at 2026-01-05 09:15:00 IST"
    (finding,) = judged([look(0, NOTHING), look(30, NOTHING)]).findings
    assert "was told and has not begun" in finding.what


def test_a_session_that_is_over_is_watched_until_everybody_has_handled_it() -> None:
    late = {"accounts": {"paper": Position(at(5))}}
    looks = [look(seconds, END, **late) for seconds in range(0, 65, 5)]
    assert found(looks) == {("risk", "stuck_consumer")}
    begins_later = {"accounts": {"paper": Position()}}  # a new group begins with the next session
    assert judged([look(0, END, **begins_later)]).gate.state == "idle"


# --- issues ---------------------------------------------------------------------------------------------------------


def test_a_market_that_stands_still_is_no_recent_data_and_nobody_behind_it_is_to_blame() -> None:
    assert found([look(0, at(0)), look(29, at(0))]) == set()
    still = [look(seconds, at(0)) for seconds in range(0, 125, 5)]
    assert found(still) == {("market_data", "no_recent_data")}
    assert "nothing has come on market.ticks for 120 s" in judged(still).findings[0].what
    assert found([*still, look(125)]) == set()


def test_a_service_that_says_nothing_is_no_recent_data_at_its_stage() -> None:
    gone = {"health": look(0).health | {ACCOUNT[2]: None}}
    assert found([look(0, **gone), look(30, **gone)]) == {("portfolio", "no_recent_data")}
    assert found([look(0, **gone), look(15), look(30, **gone)]) == set()


def test_a_consumer_that_is_alive_and_stands_before_records_is_stuck_and_one_that_is_gone_is_not() -> None:
    behind = {"accounts": {"paper": Position(at(2), lag_records=7)}}
    stuck = [look(seconds, **behind) for seconds in range(5, 70, 5)]
    assert found(stuck[:-1]) == set()
    assert found(stuck) == {("risk", "stuck_consumer")}
    gone = [replace(one, health=one.health | {ACCOUNT[0]: None}) for one in stuck]
    assert found(gone) == {("risk", "no_recent_data")}


def test_a_consumer_behind_one_that_is_stuck_is_not_stuck() -> None:
    stands = {"runner": {0: Position(at(2))}, "accounts": {"paper": Position(at(2))}}
    assert found([look(seconds, **stands) for seconds in range(5, 100, 5)]) == {("signals", "stuck_consumer")}


def test_a_consumer_that_runs_again_what_it_had_handled_is_not_stuck_while_it_gets_on() -> None:
    def again(seconds: int, handled: int) -> Look:
        said = record(ACCOUNT[0], live=False, records_handled=handled)
        seen = look(seconds, accounts={"paper": Position(at(2))})
        return replace(seen, health=seen.health | {ACCOUNT[0]: said})

    assert found([again(seconds, seconds) for seconds in range(5, 200, 5)]) == set()
    assert found([again(seconds, 5) for seconds in range(5, 200, 5)]) == {("risk", "stuck_consumer")}


def test_a_market_that_comes_back_after_a_pause_makes_nobody_stuck() -> None:
    paused = [look(seconds, at(0)) for seconds in range(0, 200, 5)]
    resumed = look(200, runner={0: Position(at(0))}, accounts={"paper": Position(at(0))})
    assert found([*paused, resumed]) == set()


def test_too_many_records_are_a_lag_and_a_slow_answer_is_a_latency_unless_the_replay_has_no_pace() -> None:
    slow = record(RUNNER, latency_s=1.2, answered_s=NOW_S)
    seen = look(5, accounts={"paper": Position(at(5), lag_records=101)}, health=look(0).health | {RUNNER: slow})
    assert found([seen]) == {("risk", "consumer_lag"), ("signals", "high_latency")}
    assert found([replace(seen, at_s=NOW_S + 31)]) == {("risk", "consumer_lag")}  # that answer is an old one
    assert found([seen], limits=replace(LIMITS, judges_pace=False)) == set()


def test_what_cannot_be_read_is_told_apart_from_what_cannot_be_asked() -> None:
    broken = look(0, health=look(0).health | {RUNNER: NotJson("cut off"), ACCOUNT[1]: NotOfItsKey("another's")})
    assert found([broken]) == {("signals", "metrics_parse_error"), ("orders", "validation_error")}
    assert found([look(0, portfolios={"paper": NotOfItsKey("x")})]) == {("portfolio", "validation_error")}
    assert found([look(0, accounts={"paper": Position(problem="not of this runtime")})]) == {
        ("risk", "validation_error")
    }
    away = look(0, health={}, redis_problem="Redis does not answer: refused")
    assert found([away]) == {(stage, "redis_unavailable") for stage in ("signals", "risk", "orders", "portfolio")}
    assert found([replace(look(0), session=None, runner={}, accounts={}, kafka_problem="Kafka is away")]) == {
        ("market_data", "kafka_unavailable")
    }


def test_who_could_not_say_anything_while_a_server_was_away_has_not_stood_still() -> None:
    gone = {"health": look(0).health | {RUNNER: None}}
    away = look(15, health={}, redis_problem="away")
    assert found([look(0, **gone), away, look(31, **gone)]) == set()
    no_kafka = look(15, session=None, runner={}, accounts={}, kafka_problem="away")
    assert found([look(0, at(0)), no_kafka, look(31, at(0))]) == set()


# --- keys -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "wrong"),
    [(b"", NotJson), (b"\xff\xfe{", NotJson), (b'{"task": "cut', NotJson), (b"[]", NotOfItsKey), (b"{}", NotOfItsKey)],
)
def test_content_that_is_no_json_is_told_apart_from_json_of_another_type(content: bytes, wrong: type[WrongContent]):
    with pytest.raises(wrong, match="alpha-panda:paper:health:risk_manager:0"):
        keys.task_health("paper", "risk_manager", 0).read(content)


@pytest.mark.parametrize("change", [{"watermark_ns": -1}, {"lag_records": "7"}, {"more": 1}, {"broker": "icici"}])
def test_a_record_of_health_has_the_fields_and_types_that_its_key_declares(change: dict[str, Any]) -> None:
    key = keys.task_health("paper", "risk_manager", 0)
    written = key.write(record(ACCOUNT[0]))
    assert key.read(written) == record(ACCOUNT[0])
    with pytest.raises(NotOfItsKey, match=next(iter(change))):
        key.read(json.dumps(json.loads(written) | change))


def test_every_key_that_is_read_declares_what_it_holds() -> None:
    made = [
        make("paper", *rest)
        for make, rest in ((keys.task_health, ("a", 0)), (keys.portfolio, ()), (keys.pipeline_findings, ()))
    ]
    assert all(isinstance(key, keys.Key) for key in made)
    assert len({key.value_type for key in made}) == len(made)


def test_keys_and_findings_of_two_brokers_never_meet() -> None:
    one, other = (keys.pipeline_findings(broker) for broker in BROKERS)
    assert one != other
    both = PipelineJudge([BrokerPlan(broker, ("momentum",)) for broker in BROKERS], LIMITS, "market.ticks")
    seen = look(0, accounts={"paper": Position(at(0)), "zerodha": Position(at(0), lag_records=101)})
    paper, zerodha = both.judge(seen)
    assert (paper.broker, paper.findings) == ("paper", ())
    assert (zerodha.broker, [finding.issue for finding in zerodha.findings]) == ("zerodha", ["consumer_lag"])
