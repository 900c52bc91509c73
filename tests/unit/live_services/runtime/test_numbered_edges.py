"""What one task reads of another: its records are numbered, and what is not by it is a letter and no clock."""

from __future__ import annotations

import random

import pytest

from feature_store.market.types import SECOND_NS
from live_services.domain.clock import session_end_ns, watermark
from live_services.domain.events import DeadLetter, Event, headers_of, value_of
from live_services.domain.sequence import Stamp, stamp_of
from live_services.runtime.chain import Chain
from live_services.runtime.local import MemoryLog, MemoryTask, run_by_chance, run_to_the_end
from tests.toy_chain import (
    NEXT_SESSION,
    OPEN_NS,
    PAPER,
    SESSION,
    UNIVERSE,
    ToyPortfolio,
    ToyRisk,
    ToyStrategy,
    toy_market,
    toy_signal,
)

RAW = PAPER.signals_raw
WRITER = RAW.writer


def runner(log: MemoryLog) -> MemoryTask:
    return MemoryTask(lambda: Chain("toy_strategy", (ToyStrategy(),)), log)


def account(log: MemoryLog) -> MemoryTask:
    return MemoryTask(lambda: Chain("toy_account", (ToyRisk(), ToyPortfolio())), log)


def stamps(log: MemoryLog) -> list[Stamp]:
    return [stamp for record in log.partitions[RAW.name, 0] if (stamp := stamp_of(record.headers)) is not None]


def end_mark() -> Event:
    return watermark(RAW, 0, SESSION, session_end_ns(SESSION), UNIVERSE.digest)


@pytest.mark.parametrize("seed", range(3))
def test_a_task_numbers_what_others_read_of_it_without_a_hole_whoever_dies_when(seed: int) -> None:
    log = toy_market(SECOND_NS)
    run_by_chance([runner(log), account(log)], random.Random(seed), kills=6)
    found = stamps(log)
    assert len(found) == len(log.partitions[RAW.name, 0])
    for session in (SESSION, NEXT_SESSION):
        of_session = [one for one in found if one.session_open_ns == session.open_ns]
        assert of_session == [Stamp(WRITER, session.open_ns, number) for number in range(len(of_session))] != []
    assert log.events(RAW.dlq) == []


@pytest.mark.parametrize(
    "stamp",
    [None, Stamp(WRITER, OPEN_NS, 0), Stamp("another", OPEN_NS, 1), Stamp(WRITER, OPEN_NS, 10**6)],
    ids=["none", "a copied one", "another's", "one far ahead"],
)
def test_a_stranger_between_two_tasks_moves_no_clock_and_proposes_nothing(stamp: Stamp | None) -> None:
    undisturbed, log = toy_market(SECOND_NS), toy_market(SECOND_NS)
    run_to_the_end([runner(undisturbed), account(undisturbed)])
    ours = [runner(log), account(log)]
    ours[0].fetch(("market.ticks", 0), 20)
    for task in ours:
        task.step()
        task.commit()
    strange = toy_signal(1, SESSION.close_ns - SECOND_NS, 9.0, 100.0)
    for event in (end_mark(), strange):
        log.append(RAW.name, 0, value_of(event), [*headers_of(event), *([stamp.header] if stamp else [])])
    run_to_the_end(ours)
    letters = [one for one in log.events(RAW.dlq) if isinstance(one, DeadLetter)]
    assert [one.reason for one in letters] == ["foreign", "foreign"]
    for topic in (PAPER.signals_validated, PAPER.pnl_snapshots):
        assert log.events(topic) == undisturbed.events(topic) != []


def test_who_comes_first_on_an_edge_does_not_own_it() -> None:
    log = toy_market(SECOND_NS)
    for stamped in ([], [Stamp("first", OPEN_NS, 0).header]):
        log.append(RAW.name, 0, value_of(end_mark()), [*headers_of(end_mark()), *stamped])
    run_to_the_end([runner(log), account(log)])
    assert len(log.events(RAW.dlq)) == 2
    assert len(log.events(PAPER.signals_validated)) == len(log.events(RAW)) > 100


def test_a_session_whose_last_records_but_its_end_are_lost_gives_way_to_the_next_one() -> None:
    whole = toy_market(SECOND_NS)
    run_to_the_end([runner(whole)])
    records = whole.partitions[RAW.name, 0]
    ends = next(k for k, one in enumerate(records) if stamp_of(one.headers) == Stamp(WRITER, NEXT_SESSION.open_ns, 0))
    log = toy_market(SECOND_NS)
    for record in (*records[: ends - 3], *records[ends - 1 :]):
        log.append(RAW.name, 0, record.value, record.headers)
    ours = account(log)
    run_to_the_end([ours])
    assert [one.reason for one in log.events(RAW.dlq) if isinstance(one, DeadLetter)] == ["foreign"]
    assert ours.run.session == NEXT_SESSION
    assert ours.run.now_ns == session_end_ns(NEXT_SESSION)


def test_a_record_of_the_writer_that_cannot_be_read_is_one_letter_and_costs_none_of_those_behind_it() -> None:
    whole = toy_market(SECOND_NS)
    run_to_the_end([runner(whole)])
    records = whole.partitions[RAW.name, 0]
    proposals = [k for k, one in enumerate(records) if dict(one.headers)["event_type"] == b"signal.generated"]
    log = toy_market(SECOND_NS)
    for k, record in enumerate(records):
        log.append(RAW.name, 0, b"junk" if k == proposals[10] else record.value, record.headers)
    run_to_the_end([account(log)])
    assert [one.reason for one in log.events(RAW.dlq) if isinstance(one, DeadLetter)] == ["no_event"]
    assert len(log.events(PAPER.signals_validated)) == len(proposals) - 1
