"""Frames of any size, any interleaving, and kills at any moment leave the same records on the log.

A process that was killed is run again from the session's open, or goes on from a snapshot.
"""

from __future__ import annotations

import random
from functools import cache

import structlog
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.market.types import SECOND_NS
from live_services.domain.events import Event
from live_services.domain.topics import STRATEGIES_CONTROL
from live_services.runtime.local import MemoryLog, MemoryTask, run_by_chance
from tests.toy_chain import PAPER, SESSION, toy_account, toy_market, toy_strategy

COMPARED = (PAPER.signals_raw, PAPER.signals_validated, PAPER.pnl_snapshots, STRATEGIES_CONTROL)


def _run(log: MemoryLog, seed: int, kills: int, keeps: float = 0.0) -> dict[str, list[Event]]:
    choose = random.Random(seed)
    tasks = [MemoryTask(make, log) for make in (toy_strategy, toy_account)]

    def keep(task: MemoryTask) -> None:
        if choose.random() < keeps:
            task.keep()

    run_by_chance(tasks, choose, kills=kills, kill_share=0.05, committed=keep)
    return {topic.name: log.events(topic) for topic in COMPARED}


@cache
def _reference() -> dict[str, list[Event]]:
    return _run(toy_market(SECOND_NS), seed=0, kills=0)


def test_the_chain_handles_two_whole_sessions() -> None:
    reference = _reference()
    raw, validated = reference["paper.signals.raw"], reference["paper.signals.validated"]
    assert len(raw) == len(validated) == 2 * (60 * 20 // 7)
    assert [event.quantity for event in validated] == [*range(1, len(raw) // 2 + 1)] * 2
    assert len(reference["paper.pnl.snapshots"]) > 60
    assert len(reference["strategies.control"]) == 2


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([50_000_000, 300_000_000, SECOND_NS, 7 * SECOND_NS, 60 * SECOND_NS]),
    st.integers(0, 10_000),
    st.integers(0, 6),
    st.sampled_from([0.0, 0.05, 1.0]),
)
def test_frame_sizes_interleavings_and_kills_change_nothing_on_the_log(
    frame_ns: int, seed: int, kills: int, keeps: float
) -> None:
    with structlog.testing.capture_logs() as lines:
        assert _run(toy_market(frame_ns), seed, kills, keeps) == _reference()
    assert "digest_differs" not in {line["event"] for line in lines}


def test_behind_a_snapshot_nothing_is_read_twice() -> None:
    task = MemoryTask(toy_strategy, toy_market(SECOND_NS))
    for _ in range(30):
        for key in task.next:
            task.fetch(key, 1)
        task.step()
        task.commit()
    task.kill()
    assert set(task.next.values()) == {0}
    while not task.run.live:
        for key in task.next:
            task.fetch(key, 1)
        task.step()
    task.commit()
    read = dict(task.next)
    assert task.keep()
    task.kill()
    assert task.next == read


def test_a_snapshot_of_another_session_is_not_gone_on_from() -> None:
    log = toy_market(SECOND_NS)
    task = MemoryTask(toy_strategy, log)
    while task.is_behind:
        for key in task.next:
            task.fetch(key, 1)
        task.step()
        task.commit()
        if task.run.session is not None and task.run.session.open_ns == SESSION.open_ns:
            task.keep()
    task.kill()
    assert not task.run.read_from
