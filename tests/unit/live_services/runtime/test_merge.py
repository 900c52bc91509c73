from __future__ import annotations

import pytest

from feature_store.market.types import SECOND_NS
from live_services.domain.clock import NEVER_NS
from live_services.domain.frames import Frame
from live_services.domain.log import EventRecord, LogPosition
from live_services.runtime.merge import LateRecord, Merge, Source
from tests.toy_chain import OPEN_NS, SESSION, frames_of, toy_signal, toy_ticks

SIGNALS, OTHERS = Source("signals", 0, 0), Source("others", 0, 1)


def opened(*sources: Source) -> Merge:
    merge = Merge(sources)
    for source in sources:
        merge.push_watermark(source.topic, 0, 0, OPEN_NS, SESSION)
    assert merge.next_session(None) == SESSION
    merge.open_session(SESSION)
    return merge


def push(merge: Merge, topic: str, offset: int, after_open_ns: int) -> None:
    signal = toy_signal(0, OPEN_NS + after_open_ns, 1.0, 1.0)
    merge.push_event(topic, 0, offset, EventRecord(signal, LogPosition(topic, 0, offset)))


def mark(merge: Merge, topic: str, offset: int, after_open_ns: int) -> None:
    merge.push_watermark(topic, 0, offset, OPEN_NS + after_open_ns, SESSION)


def times(merge: Merge) -> list[int]:
    return [time_ns - OPEN_NS for time_ns, _ in merge.release(NEVER_NS).items]


def test_an_item_waits_until_every_gating_watermark_is_later_than_it() -> None:
    merge = opened(SIGNALS, OTHERS)
    push(merge, "signals", 1, 10)
    mark(merge, "signals", 2, 20)
    assert times(merge) == []
    assert merge.waiting_for() == "others[0]"
    mark(merge, "others", 1, 10)
    assert times(merge) == []
    mark(merge, "others", 2, 11)
    assert times(merge) == [10]


def test_an_event_below_its_partitions_watermark_is_late() -> None:
    merge = opened(SIGNALS)
    mark(merge, "signals", 1, 10)
    with pytest.raises(LateRecord, match="came too late"):
        push(merge, "signals", 2, 9)


def test_a_frame_that_came_before_is_not_queued_again() -> None:
    merge = opened(SIGNALS)
    frames = [Frame(t, cut, SESSION, n) for n, (t, cut) in enumerate(frames_of(toy_ticks(), SECOND_NS))]
    assert merge.push_frame("signals", 0, 1, frames[0]) == 0
    assert merge.push_frame("signals", 0, 2, frames[1]) == 0
    assert merge.push_frame("signals", 0, 3, frames[0]) is None
    assert merge.backlog("signals", 0) == (len(frames[0].times_ns) + len(frames[1].times_ns), 2)


def test_a_frame_that_is_late_in_part_loses_its_late_rows_only() -> None:
    merge = opened(SIGNALS)
    (ticks, cut), *_ = frames_of(toy_ticks(), 10 * SECOND_NS)
    mark(merge, "signals", 1, 4 * SECOND_NS)
    late = int((ticks.event_time_ns < OPEN_NS + 4 * SECOND_NS).sum())
    assert merge.push_frame("signals", 0, 2, Frame(ticks, cut, SESSION, 0)) == late > 0
    assert merge.backlog("signals", 0) == (len(ticks) - late, 1)
    assert merge.watermark_ns("signals", 0) == cut


def test_a_frame_that_is_late_as_a_whole_still_tells_how_far_its_partition_is() -> None:
    merge = opened(SIGNALS)
    (ticks, cut), *_ = frames_of(toy_ticks(), 10 * SECOND_NS)
    mark(merge, "signals", 1, 10 * SECOND_NS)
    assert merge.push_frame("signals", 0, 2, Frame(ticks, cut + 1, SESSION, 0)) == len(ticks)
    assert (merge.backlog("signals", 0), merge.watermark_ns("signals", 0)) == ((0, 0), cut + 1)


def test_the_position_is_that_of_the_first_record_that_is_not_wholly_released() -> None:
    merge = opened(SIGNALS, OTHERS)
    (ticks, cut), *_ = frames_of(toy_ticks(), 10 * SECOND_NS)
    merge.push_frame("signals", 0, 7, Frame(ticks, cut, SESSION, 0))
    mark(merge, "others", 1, 4 * SECOND_NS)
    released = merge.release(NEVER_NS)
    assert len(released.items) == 1
    assert merge.first_pending_offset("signals", 0) == 7
    mark(merge, "others", 2, 10 * SECOND_NS)
    merge.release(NEVER_NS)
    assert merge.first_pending_offset("signals", 0) == 8


def test_the_partition_that_holds_the_merge_is_never_paused() -> None:
    merge = opened(SIGNALS, OTHERS)
    mark(merge, "signals", 1, 10)
    assert merge.may_pause("signals", 0)
    assert not merge.may_pause("others", 0)
