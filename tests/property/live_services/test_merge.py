"""The merge releases the same rows in the same order whatever arrives first and however it was batched."""

from __future__ import annotations

import datetime as dt

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from feature_store.market.types import SECOND_NS, Session, Ticks
from live_services.domain.clock import NEVER_NS
from live_services.domain.frames import Frame
from live_services.domain.log import EventRecord, LogPosition, MarketSlice
from live_services.runtime.merge import Merge, Source
from tests.toy_chain import toy_signal

SESSION = Session(dt.date(2026, 1, 5), 0, 100 * SECOND_NS)
END_NS = 20 * SECOND_NS
TICKS_A, TICKS_B = Source("ticks", 0, 0), Source("ticks", 1, 0)
SIGNALS, OTHERS = Source("signals", 0, 1), Source("others", 0, 2)
SOURCES = (TICKS_A, TICKS_B, SIGNALS, OTHERS)

times = st.integers(0, 39).map(lambda half: half * SECOND_NS // 2)
many_times = st.lists(times, max_size=12)
Step = tuple[str, int, object]


def _tick_pushes(source: Source, at: list[int], cuts: list[int]) -> list[tuple[Source, object]]:
    at = sorted(at)
    pushes: list[tuple[Source, object]] = []
    start = 0
    for number, cut in enumerate([*sorted(set(cuts)), END_NS]):
        rows = [t for t in at if start <= t < cut]
        values = np.array(rows, dtype=np.int64)
        table = Ticks(
            np.full(len(rows), source.partition, dtype=np.int32),
            values,
            np.ones(len(rows)),
            np.arange(len(rows), dtype=np.int64) + at.index(rows[0]) if rows else np.zeros(0, dtype=np.int64),
        )
        pushes.append((source, Frame(table, cut, SESSION, number)))
        start = cut
    return pushes


def _event_pushes(source: Source, at: list[int], cuts: list[int]) -> list[tuple[Source, object]]:
    pushes: list[tuple[Source, object]] = []
    start = 0
    for cut in [*sorted(set(cuts)), END_NS]:
        pushes += [(source, t) for t in at if start <= t < cut]
        pushes.append((source, ("watermark", cut)))
        start = cut
    return pushes


def _run(pushes: list[list[tuple[Source, object]]], choices: list[int], every: int) -> list[tuple[object, ...]]:
    """Push from the lists in the order that ``choices`` says, releasing after every so many pushes."""
    merge = Merge(SOURCES)
    merge.open_session(SESSION)
    queues = [list(p) for p in pushes]
    offsets = dict.fromkeys((s.topic, s.partition) for s in SOURCES)
    released: list[tuple[object, ...]] = []
    count = turn = 0
    while any(queues):
        alive = [q for q in queues if q]
        source, what = alive[choices[turn % len(choices)] % len(alive)].pop(0)
        turn += 1
        key = (source.topic, source.partition)
        offset = (offsets[key] or 0) + 1
        offsets[key] = offset  # type: ignore[assignment]
        if isinstance(what, Frame):
            merge.push_frame(*key, offset, what)
        elif isinstance(what, tuple):
            merge.push_watermark(*key, offset, what[1], SESSION)
        else:
            merge.push_event(*key, offset, EventRecord(toy_signal(0, what, 1.0, 1.0), LogPosition(*key, offset)))  # type: ignore[arg-type]
        count += 1
        if count % every == 0:
            released += _flatten(merge)
    return released + _flatten(merge)


def _flatten(merge: Merge) -> list[tuple[object, ...]]:
    flat: list[tuple[object, ...]] = []
    for time_ns, item in merge.release(NEVER_NS).items:
        if isinstance(item, MarketSlice):
            ticks = item.market
            assert isinstance(ticks, Ticks)
            flat += [
                ("tick", int(t), int(p), int(v))
                for t, p, v in zip(ticks.event_time_ns, ticks.instrument, ticks.day_volume, strict=True)
            ]
        else:
            assert isinstance(item, EventRecord)
            flat.append((item.position.topic, time_ns))
    return flat


def _expected(at: dict[Source, list[int]]) -> list[tuple[object, ...]]:
    """The order written down from its definition, with all records known."""
    order: list[tuple[tuple[int, int, int, int], tuple[object, ...]]] = []
    for source, moments in at.items():
        for sequence, t in enumerate(sorted(moments)):
            what = ("tick", t, source.partition, sequence) if source.rank == 0 else (source.topic, t)
            order.append(((t, source.rank, source.partition, sequence), what))
    return [what for _, what in sorted(order)]


@given(
    st.tuples(many_times, many_times, many_times, many_times),
    st.tuples(many_times, many_times, many_times, many_times),
    st.lists(st.integers(0, 3), min_size=1, max_size=30),
    st.integers(1, 9),
)
def test_any_arrival_and_any_batching_give_the_order_of_event_time_rank_and_partition(
    at: tuple[list[int], ...], cuts: tuple[list[int], ...], choices: list[int], every: int
) -> None:
    by_source = dict(zip(SOURCES, at, strict=True))
    pushes = [
        (_tick_pushes if source.rank == 0 else _event_pushes)(source, by_source[source], list(cut))
        for source, cut in zip(SOURCES, cuts, strict=True)
    ]
    assert _run(pushes, choices, every) == _expected(by_source)
