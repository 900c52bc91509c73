"""Every bad record of the table gets what it must, ends no task, now or at a restart, and changes nothing else."""

from __future__ import annotations

import base64
from functools import cache
from typing import Any

import pytest
from structlog.testing import capture_logs

from live_services.adapters.kafka import StoredRecord
from live_services.adapters.sessions import MarketSessions
from live_services.domain.basis import Stamp
from live_services.domain.events import (
    AnswersCommands,
    DeadLetter,
    Event,
    FeatureSkewMeasured,
    SignalRejected,
    decode_event,
    event_or_none,
)
from live_services.domain.log import TaskId
from live_services.domain.topics import MARKET_SESSIONS, MARKET_TICKS, Scope, all_topics
from live_services.runtime.inner_watch import InnerWatch
from live_services.runtime.received import Received
from live_services.services.account import account_chain
from live_services.settings import KafkaSettings
from tests.memory_desk import ACCOUNT
from tests.poison import ALARM, DAYS, LETTER, PASSED_OVER, REJECTED, Poison
from tests.poison_table import TABLE, of_kind
from tests.poisoned_desk import Desk, live

LIVES = ("at once", "over kills", "from snapshots")


@cache
def poisoned(kind: str, life: str) -> Desk:
    """Give the desk that lived through every bad record, undisturbed, killed around them, or restored."""
    with capture_logs():  # a traceback takes longer to draw than the session to live through
        return live(kind, of_kind(kind), kills=life != "at once", kept=life == "from snapshots")


@cache
def unpoisoned(kind: str) -> Desk:
    return live(kind)


@cache
def letters(kind: str, life: str) -> dict[tuple[str, bytes], list[DeadLetter]]:
    """Give the dead letters of a desk, each once, by topic and bytes of their records."""
    found: dict[str, DeadLetter] = {}
    log = poisoned(kind, life).log
    for name in log.topics:
        if name.endswith(".dlq"):
            found |= {one.event_id: one for one in log.events(name) if isinstance(one, DeadLetter)}
    by_record: dict[tuple[str, bytes], list[DeadLetter]] = {}
    for letter in found.values():
        by_record.setdefault((letter.topic, base64.b64decode(letter.value_base64)), []).append(letter)
    return by_record


def headers(letter: DeadLetter, one: Poison) -> tuple[tuple[str, bytes], ...]:
    """Give a letter's headers, without the stamp with which the topic's own writer said its record."""
    said = tuple((name, base64.b64decode(value)) for name, value in letter.headers_base64)
    return said[:-1] if one.ours else said


def lives_of(one: Poison) -> tuple[str, ...]:
    """A control topic is read by a successor only."""
    return LIVES[1:] if one.why == "control" else LIVES


@pytest.mark.parametrize(
    ("one", "life"), [(one, life) for one in TABLE if one.gets == LETTER for life in lives_of(one)], ids=str
)
def test_it_gets_a_dead_letter_with_its_bytes_from_each_task_that_reads_it(one: Poison, life: str) -> None:
    found = [
        letter
        for letter in letters(one.on, life).get((one.topic.name, one.value), [])
        if headers(letter, one) == one.headers
    ]
    assert {letter.reason for letter in found} == {one.why}
    readers = [task for task in poisoned(one.on, life).tasks.values() if task.reads(one.topic)]
    assert {letter.service for letter in found} == {task.run.task.service for task in readers} != set()


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize("one", [one for one in TABLE if one.gets == REJECTED], ids=str)
def test_it_is_rejected_by_its_rule_and_by_nothing_else(one: Poison, life: str) -> None:
    log, proposed = poisoned(one.on, life).log, decode_event(one.value)
    answers = [e for e in events_but_control(log) if e.correlation_id == proposed.correlation_id and e != proposed]
    (rejected,) = (e for e in answers if e.event_type != "dead_letter")
    assert isinstance(rejected, SignalRejected)
    assert rejected.rule == one.why


@pytest.mark.parametrize("one", [one for one in TABLE if one.gets == ALARM], ids=str)
def test_it_is_an_alarm_where_the_account_alone_writes(one: Poison) -> None:
    scope: Scope = one.topic.scope
    assert scope != "shared"
    chain = account_chain(scope, MARKET_TICKS, ACCOUNT, Stamp())
    watch = InnerWatch(KafkaSettings(), chain.watched, TaskId("account", scope, 0))
    assert one.topic.name in chain.watched
    watch.look_at(Received(one.topic.name, 0, 7, None, one.value, one.headers))
    assert watch.foreign_on({one.topic.name}) == 1


@pytest.mark.parametrize("one", [one for one in TABLE if one.gets == PASSED_OVER], ids=str)
def test_it_is_passed_over_by_who_looks_at_its_topic(one: Poison) -> None:
    if one.topic != MARKET_SESSIONS:
        assert event_or_none(one.value) is None
        return
    sessions = MarketSessions(KafkaSettings())
    sessions.take(StoredRecord(one.topic.name, 0, 0, 0, None, one.value, one.headers))
    assert sessions.opened == {}


@pytest.mark.parametrize("life", LIVES)
@pytest.mark.parametrize("kind", DAYS)
def test_what_is_good_gets_the_same_as_without_the_bad(kind: str, life: str) -> None:
    assert facts(poisoned(kind, life), kind) == facts(unpoisoned(kind), kind)


@pytest.mark.parametrize("kind", DAYS)
def test_every_task_is_alive_at_the_end_and_at_the_sessions_end(kind: str) -> None:
    for life in LIVES:
        for name, task in poisoned(kind, life).tasks.items():
            assert task.run.live, name
            assert task.run.now_ns == unpoisoned(kind).tasks[name].run.now_ns


def test_the_table_is_of_every_topic_that_there_is() -> None:
    assert {one.topic for one in TABLE if one.topic.name.count(".") > 1 or one.topic.scope == "shared"} >= {
        topic for topic in all_topics() if topic.scope == "shared"
    }
    assert {one.topic for one in TABLE} >= set(all_topics(("paper",)))
    assert len(TABLE) >= 80
    assert len({(one.topic, one.name, one.on) for one in TABLE}) == len(TABLE)


def events_but_control(log: Any) -> list[Event]:
    return [event for name in sorted(log.topics) for event in _decoded(log, name)]


def _decoded(log: Any, name: str) -> list[Event]:
    found = [
        event_or_none(record.value)
        for key, records in sorted(log.partitions.items())
        if key[0] == name
        for record in records
    ]
    return [event for event in found if event is not None and event.event_type != "watermark"]


def facts(desk: Desk, kind: str) -> dict[str, list[dict[str, Any]]]:
    """Give what a desk said of the good records: without basis, letters, and what answered bad ones."""
    bad = {(one.topic.name, one.value) for one in of_kind(kind)}
    proposed = {event.correlation_id for one in of_kind(kind) if (event := event_or_none(one.value)) is not None}
    said: dict[str, list[dict[str, Any]]] = {}
    for (name, _), records in sorted(desk.log.partitions.items()):
        if name.endswith(".dlq") or name in ("strategies.summary",):
            continue
        for record in records:
            event = event_or_none(record.value)
            if event is None or (name, record.value) in bad or event.correlation_id in proposed:
                continue
            if event.event_type in ("watermark", "command.refused"):
                continue
            if isinstance(event, AnswersCommands) and event.event_type != "account.opened":
                continue
            if isinstance(event, FeatureSkewMeasured) and event.rows_equal == event.rows_different == 0:
                continue  # of rows that nobody can compute: bad proposals have some
            left_out = {"basis", "command_offset", "rows_unverified"}
            said.setdefault(name, []).append(event.model_dump(exclude=left_out))
    return {name: events for name, events in said.items() if events}
