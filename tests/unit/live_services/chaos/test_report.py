"""What a trial came to, as tables and as a document."""

from __future__ import annotations

import json

from rich.console import Console

from live_services.chaos.comparison import Run
from live_services.chaos.faults import Episode, Injury
from live_services.chaos.report import FaultRow, Report, fault_rows, faults_table, report_of, topics_table, verdict
from live_services.chaos.trial import Measured, Trial
from live_services.domain.events import headers_of, topic_of, value_of
from tests.account_log import two_sessions

KILL, FREEZE = Injury("kill", "kafka"), Injury("freeze", "valkey", 0.0, 2.0)


def measured(*injuries: Injury, seconds: float | None = 3.0, last_minute: bool = False) -> Measured:
    return Measured(Episode(injuries), 0, injuries, seconds, last_minute)


def day(cut: int | None = None) -> Run:
    run = Run()
    for event in two_sessions()[:cut]:
        run.add(topic_of(event).name, 0, value_of(event), headers_of(event))
    return run


def report(run: Run | None, failure: str = "") -> Report:
    return report_of(day(), Trial([measured(KILL)], run, failure), seed=3, minutes=2)


def test_faults_are_counted_by_kind_and_process_and_timed_where_they_came_alone():
    rows = fault_rows(
        [
            measured(KILL, seconds=2.0),
            measured(KILL, seconds=8.0),
            measured(KILL, seconds=3.0),
            measured(FREEZE, seconds=None),
            measured(KILL, FREEZE, seconds=20.0),
            measured(KILL, KILL, seconds=9.0, last_minute=True),
        ]
    )
    assert rows == (
        FaultRow("freeze", "valkey", 2, None, None),
        FaultRow("kill", "kafka", 4, 3.0, 8.0),
        FaultRow("kill in the last minute", "all chains", 1, 9.0, 9.0),
        FaultRow("together", "several at once", 1, 20.0, 20.0),
    )


def test_an_injury_that_found_its_process_down_is_not_counted():
    missed = Measured(Episode((KILL,)), 0, (), 1.0)
    assert fault_rows([missed]) == ()


def test_the_same_day_is_said_to_be_the_same_with_the_hash_of_its_books():
    same = report(day())
    assert same.same
    assert same.undisturbed_books[:16] in verdict(same)
    assert json.loads(json.dumps(same.document()))["same"] is True


def test_another_day_is_named_by_its_topics_and_its_books():
    other = report(day(-1))
    assert not other.same
    assert verdict(other) == "the day is another one: paper.pnl.snapshots differs; other books in the end"
    assert other.first_difference is not None


def test_a_desk_that_did_not_recover_is_not_the_same_and_says_why():
    failed = report(None, "after kill kafka: the desk did not get on within 180 s")
    assert not failed.same
    assert verdict(failed).endswith("after kill kafka: the desk did not get on within 180 s")
    assert failed.document()["failure"]


def test_the_tables_fit_a_terminal():
    console = Console(width=80, record=True)
    console.print(faults_table(report(day())), topics_table(report(day())))
    text = console.export_text()
    assert "left out" not in text
    assert "kafka" in text and "paper.orders.filled" in text
