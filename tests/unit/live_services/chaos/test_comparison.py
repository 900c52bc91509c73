"""How two runs of the same sessions are compared."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from feature_store.market.types import Bars, Ticks
from live_services.chaos.comparison import Run, TopicDifferences, books_hash, compare, first_difference
from live_services.domain.basis import Stamp
from live_services.domain.clock import watermark
from live_services.domain.events import Event, PnlSnapshot, headers_of, topic_of, value_of
from live_services.domain.frames import encode_bar_frame, encode_tick_frame
from live_services.domain.log import LogPosition
from live_services.domain.topics import MARKET_BARS, MARKET_TICKS
from tests.account_log import two_sessions
from tests.live_world import OPEN, SECOND, SESSION, UNIVERSE, bars, signal, ticks

SIGNALS = [signal(seconds=60 * k) for k in range(1, 5)]
TOPIC = topic_of(SIGNALS[0]).name


def run_of(*events: Event, partition: int = 0) -> Run:
    run = Run()
    for event in events:
        run.add(topic_of(event).name, partition, value_of(event), headers_of(event))
    return run


def difference(expected: Run, said: Run) -> TopicDifferences:
    (found,) = compare(expected, said)
    return found


def test_runs_that_say_the_same_do_not_differ_however_their_decisions_stood_on_the_log():
    basis = Stamp("another configuration", "another commit").basis([LogPosition("market.ticks", 0, 7)])
    stamped = [event.model_copy(update={"basis": basis}) for event in SIGNALS]
    mark = watermark(MARKET_TICKS, 0, SESSION, OPEN + SECOND, UNIVERSE.digest)
    said = run_of(*stamped)
    said.add(TOPIC, 0, value_of(mark), headers_of(mark))
    assert difference(run_of(*SIGNALS), said) == TopicDifferences(TOPIC, 4)
    assert first_difference(run_of(*SIGNALS), said, TOPIC) is None


@pytest.mark.parametrize(
    ("said", "differs"),
    [
        (SIGNALS[:-1], {"lost": 1}),
        ([*SIGNALS, SIGNALS[1]], {"twice": 1}),
        ([*SIGNALS[:-1], SIGNALS[-1].model_copy(update={"score": 0.6})], {"different": 1}),
        ([*SIGNALS, signal(seconds=600)], {"new": 1}),
        ([*SIGNALS, signal(seconds=600), signal(seconds=600)], {"new": 1, "twice": 1}),
        ([SIGNALS[1], SIGNALS[0], *SIGNALS[2:]], {"out_of_order": 2}),
        ([], {"lost": 4}),
    ],
)
def test_what_is_lost_twice_different_new_or_out_of_order_is_counted(said, differs):
    expected = run_of(*SIGNALS)
    assert difference(expected, run_of(*said)) == TopicDifferences(TOPIC, 4, **differs)
    assert not difference(expected, run_of(*said)).same
    assert first_difference(expected, run_of(*said), TOPIC) is not None


def test_the_same_word_from_another_partition_is_out_of_order():
    moved = difference(run_of(*SIGNALS), run_of(*SIGNALS, partition=1))
    assert (moved.lost, moved.new, moved.out_of_order) == (0, 0, 4)


def market(*frames: Ticks | Bars) -> Run:
    """A session whose rows stand in these frames."""
    run = Run()
    for number, part in enumerate(frames):
        place = (UNIVERSE, number, SESSION.close_ns, SESSION)
        topic = MARKET_TICKS if isinstance(part, Ticks) else MARKET_BARS
        frame = encode_tick_frame(part, *place) if isinstance(part, Ticks) else encode_bar_frame(part, *place)
        run.add_market(topic.name, 0, frame.value, frame.headers, {UNIVERSE.digest: UNIVERSE}.get)
    return run


@pytest.mark.parametrize(
    "table",
    [
        ticks((0, 1, 100.0), (1, 1, 200.0), (0, 3, 100.5), (0, 4, 100.5)),
        bars((0, 0, 100.0, 101.0), (1, 0, 200.0, 201.0), (0, 1, 101.0, 102.0), (0, 2, 102.0, 103.0)),
    ],
)
def test_of_the_market_the_rows_count_and_not_the_frames(table):
    whole, topic = market(table), "market.ticks" if isinstance(table, Ticks) else "market.bars"
    assert difference(whole, market(table[:1], table[1:3], table[3:])) == TopicDifferences(topic, 4)
    assert difference(whole, market(table[:3])) == TopicDifferences(topic, 4, lost=1)
    assert difference(whole, market(table, table[1:3])) == TopicDifferences(topic, 4, twice=2)
    assert difference(market(table[:3]), whole) == TopicDifferences(topic, 3, new=1)
    assert difference(whole, Run()) == TopicDifferences(topic, 4, lost=4)
    late = market(table[:1], table[2:], table[1:2])
    assert difference(whole, late) == TopicDifferences(topic, 4, out_of_order=3)


def test_a_price_that_differs_in_its_last_bit_is_another_row():
    table = ticks((0, 1, 100.0), (1, 2, 200.0))
    price = table.last_price.copy()
    price[1] = np.nextafter(price[1], np.inf)
    changed = difference(market(table), market(dataclasses.replace(table, last_price=price)))
    assert changed == TopicDifferences(MARKET_TICKS.name, 2, lost=1, new=1)


def test_a_frame_of_a_session_that_was_never_told_is_refused():
    frame = encode_tick_frame(ticks((0, 1, 100.0)), UNIVERSE, 0, SESSION.close_ns, SESSION)
    with pytest.raises(ValueError, match="never told"):
        Run().add_market(MARKET_TICKS.name, 0, frame.value, frame.headers, {}.get)


def test_books_are_equal_by_their_last_snapshot_without_its_basis():
    day = two_sessions()
    last = [event for event in day if isinstance(event, PnlSnapshot)][-1]
    other = last.model_copy(update={"basis": Stamp("another", "commit").basis()})
    assert books_hash(run_of(*day)) == books_hash(run_of(*day[:-1], other)) != ""
    richer = last.model_copy(update={"cash_inr_e4": last.cash_inr_e4 + 1})
    assert books_hash(run_of(*day)) != books_hash(run_of(*day, richer))
    assert books_hash(Run()) == ""
