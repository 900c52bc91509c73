"""A task that comes back from its snapshot has the very state that was there, and says the very same from then on."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import example, given, settings
from hypothesis import strategies as st

from feature_store.bars.builder import bars_of_session
from feature_store.market.clocks import BarClock
from feature_store.market.types import Ticks
from live_services.adapters.snapshot_bytes import pack, unpack
from live_services.runtime.local import MemoryLog, MemoryTask
from tests.memory_desk import BAR_DAYS, TICK_DAYS, Day, run_live
from tests.state_comparison import changed_fields, differences, fields_in

MADE_OF_THE_OPENING: set[str] = set()
"""Fields that stay, through a session, what the opening made them."""


class Restored:
    """Lets a new process go on from a task's snapshot, here and there; remembers which fields were worth one."""

    def __init__(self, seed: int, share: float) -> None:
        self._choose, self._share = random.Random(seed), share
        self.times = 0
        self.fields: set[str] = set()
        self.changed: set[str] = set()

    def __call__(self, task: MemoryTask) -> None:
        run = task.run
        if run._state is None or not run.live or self._choose.random() >= self._share:
            return
        state, chain = run._state, task._make()
        kept = run._chain.snapshot(state)
        if kept is None:
            return
        restored = chain.restore(state.session, state.universe, run.task, unpack(pack(kept)))
        opened = chain.open_session(state.session, state.universe, run.task)
        for was, there, new in zip(state.of, restored.of, opened.of, strict=True):
            assert (found := differences(was, there)) == [], found[:9]
            self.fields |= fields_in(was)
            self.changed |= changed_fields(new, was)
        run._chain, run._state, chain.bury = chain, restored, run._bury_failed
        self.times += 1


def with_today(day: Day) -> Day:
    """Let the day's own bars be stored already, so that they stand in for what a gap takes."""
    market, clock = day.market, BarClock.minutes(1)
    today = bars_of_session(market, day.session, len(day.universe), clock) if isinstance(market, Ticks) else market
    return replace(day, history=replace(day.history, today=today))


def said(log: MemoryLog) -> dict[tuple[str, int], list[bytes]]:
    """Give all that is on a log, byte for byte."""
    return {key: [record.value for record in records] for key, records in log.partitions.items() if records}


@settings(max_examples=6, deadline=None)
@given(
    on_ticks=st.booleans(),
    stored=st.booleans(),
    frame_ms=st.sampled_from([1000, 7000, 60_000]),
    partitions=st.sampled_from([1, 2]),
    seed=st.integers(0, 10_000),
    kills=st.integers(0, 3),
)
@example(on_ticks=True, stored=True, frame_ms=1000, partitions=1, seed=4, kills=0)
@example(on_ticks=True, stored=False, frame_ms=1000, partitions=2, seed=4, kills=2)
@example(on_ticks=False, stored=True, frame_ms=60_000, partitions=2, seed=5, kills=0)
def test_who_comes_back_from_a_snapshot_says_what_would_have_been_said(
    on_ticks: bool, stored: bool, frame_ms: int, partitions: int, seed: int, kills: int
) -> None:
    of = TICK_DAYS if on_ticks else BAR_DAYS
    if stored:
        of = tuple(with_today(day) for day in of)
    per_minute = 60_000 // frame_ms
    lost = (range(11 * per_minute, 12 * per_minute + 1),)
    restored = Restored(seed, 0.1)
    undisturbed = run_live(of, frame_ms, partitions, seed, kills, 12, lost=lost, monitor=True)
    disturbed = run_live(of, frame_ms, partitions, seed, kills, 12, lost=lost, monitor=True, committed=restored)
    assert restored.times > 0
    assert said(disturbed) == said(undisturbed)
    assert not any(name.endswith(".dlq") for name in disturbed.topics)
