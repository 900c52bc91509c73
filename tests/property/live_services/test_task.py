"""Frames of any size, any interleaving, and kills at any moment leave the same records on the log."""

from __future__ import annotations

import random
from functools import cache

from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.market.types import SECOND_NS, Session
from live_services.adapters.kafka import headers_of, value_of
from live_services.domain.clock import session_end_ns, watermark
from live_services.domain.frames import encode_tick_frame
from live_services.domain.topics import MARKET_TICKS
from live_services.runtime.task import Received
from tests.toy_chain import (
    NEXT_SESSION,
    PAPER,
    SESSION,
    UNIVERSE,
    MemoryLog,
    MemoryTask,
    ToyPortfolio,
    ToyRisk,
    ToyStrategy,
    frames_of,
    toy_ticks,
)

COMPARED = (PAPER.signals_raw, PAPER.signals_validated, PAPER.pnl_snapshots, PAPER.control)


def _feed(frame_ns: int) -> MemoryLog:
    log = MemoryLog()
    for session in (SESSION, NEXT_SESSION):
        _append_watermark(log, session, session.open_ns)
        for number, (ticks, cut) in enumerate(frames_of(toy_ticks(session), frame_ns, session)):
            log.append(MARKET_TICKS.name, *encode_tick_frame(ticks, UNIVERSE, number, cut, session))
        _append_watermark(log, session, session_end_ns(session))
    return log


def _append_watermark(log: MemoryLog, session: Session, at_ns: int) -> None:
    event = watermark(MARKET_TICKS, 0, session, at_ns)
    log.append(MARKET_TICKS.name, value_of(event), headers_of(event))


def _run(log: MemoryLog, seed: int, kills: int) -> dict[str, list[bytes]]:
    choose = random.Random(seed)
    tasks = [MemoryTask(service, log) for service in (ToyStrategy(), ToyRisk(), ToyPortfolio())]
    idle = 0
    while idle < 8:
        progressed = False
        for task in choose.sample(tasks, len(tasks)):
            for topic in task.next:
                progressed |= task.fetch(topic, choose.randint(0, 12)) > 0 or task.behind
            task.step()
            if kills and choose.random() < 0.05:
                kills -= 1
                task.kill()
                progressed = True
            elif choose.random() < 0.7:
                progressed |= task.commit()
            else:
                progressed |= bool(task.run.has_events or task.run.owes_watermark)
        idle = 0 if progressed else idle + 1
    return {topic.name: _events(log.topics[topic.name]) for topic in COMPARED}


def _events(records: list[Received]) -> list[bytes]:
    return [r.value for r in records if dict(r.headers)["event_type"] != b"watermark"]


@cache
def _reference() -> dict[str, list[bytes]]:
    return _run(_feed(SECOND_NS), seed=0, kills=0)


def test_the_chain_handles_two_whole_sessions() -> None:
    reference = _reference()
    assert len(reference["paper.signals.raw"]) == len(reference["paper.signals.validated"]) == 2 * (60 * 20 // 7)
    assert len(reference["paper.pnl.snapshots"]) > 60
    assert len(reference["paper.control"]) == 2


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from([50_000_000, 300_000_000, SECOND_NS, 7 * SECOND_NS, 60 * SECOND_NS]),
    st.integers(0, 10_000),
    st.integers(0, 6),
)
def test_frame_sizes_interleavings_and_kills_change_nothing_on_the_log(frame_ns: int, seed: int, kills: int) -> None:
    assert _run(_feed(frame_ns), seed, kills) == _reference()
