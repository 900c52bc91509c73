from __future__ import annotations

from dataclasses import replace

from structlog.testing import capture_logs

from live_services.adapters.health import TaskHealth
from live_services.adapters.work_lines import WorkLines
from live_services.domain.events import DeadLetter, OrderFilled, PnlSnapshot, self_caused
from live_services.domain.letters import LetterFlood
from live_services.domain.log import TaskId
from tests.account_log import two_sessions

EVENTS = two_sessions()
TASK = TaskId("risk_manager", "paper", 0)


def test_each_step_of_a_proposals_life_is_a_line_with_its_correlation_id() -> None:
    (first, *_) = (event for event in EVENTS if isinstance(event, OrderFilled))
    with capture_logs() as lines:
        WorkLines().committed([event for event in EVENTS if event.correlation_id == first.correlation_id])
    steps = [line["event"] for line in lines]
    assert {"signal.generated", "signal.validated", "order.submitted", "order.filled"} <= set(steps)
    assert {line["correlation_id"] for line in lines} == {first.correlation_id}
    (filled, *_) = (line for line in lines if line["event"] == "order.filled")
    assert (filled["order_id"], filled["symbol"], filled["log_level"]) == (first.order_id, first.symbol, "info")


def test_what_comes_every_second_is_no_line() -> None:
    with capture_logs() as lines:
        WorkLines().committed([event for event in EVENTS if isinstance(event, PnlSnapshot)])
    assert lines == []


def test_a_dead_letter_is_a_warning_marked_dlq() -> None:
    letter = DeadLetter(
        broker="paper",
        **self_caused("letter"),
        event_time_ns=0,
        topic="paper.signals.raw",
        partition=0,
        offset=17,
        service="risk_manager",
        failure="ValueError: no price",
        key_base64=None,
        value_base64="",
    )
    with capture_logs() as lines:
        WorkLines().committed([letter])
    (line,) = lines
    assert (line["log_level"], line["dlq"], line["offset"]) == ("warning", True, 17)
    assert line["failure"] == "ValueError: no price"


def test_the_pace_of_a_chain_is_said_once_a_minute() -> None:
    now = [0.0]
    said = WorkLines(lambda: now[0])
    health = TaskHealth(TASK, 0, "2026-01-05", True, 0, {}, 0, 0, 7, "", 42)
    with capture_logs() as lines:
        for second in range(121):
            now[0] = float(second)
            for service in ("risk_manager", "portfolio_manager"):
                said.report(replace(health, task=replace(TASK, service=service), records_handled=second * 50))
    assert [line["records_per_second"] for line in lines] == [50.0, 50.0]


def test_a_flood_of_dead_letters_is_one_line_and_what_follows_in_it_none() -> None:
    place = {"topic": "paper.signals.raw", "partition": 0, "service": "risk_manager", "failure": "ValueError: no event"}
    fields = {**place, "event_type": "dead_letter", "broker": "paper", "key_base64": None, "value_base64": ""}
    letters = [
        DeadLetter.model_validate(self_caused("letter", k) | fields | {"offset": k, "event_time_ns": k})
        for k in range(50)
    ]
    lines = WorkLines(flood=LetterFlood(3, 1.0))
    with capture_logs() as said:
        lines.committed(letters[:10])
        lines.committed(letters[10:])
    assert [line["event"] for line in said] == ["dead_letter", "dead_letter", "dead_letters_flood"]
    assert {line["dlq"] for line in said} == {True}
