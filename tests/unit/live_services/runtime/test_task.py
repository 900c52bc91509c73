from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest

from feature_store.market.types import SECOND_NS
from live_services.adapters.kafka import headers_of, value_of
from live_services.domain.clock import watermark
from live_services.domain.events import DeadLetter, Event, Watermark
from live_services.domain.log import EventRecord, Record, TaskId
from live_services.domain.topics import Topic
from live_services.runtime.merge import Source
from live_services.runtime.task import PromiseBroken, Received, TaskRun, UndeclaredOutput
from tests.toy_chain import NEXT_SESSION, OPEN_NS, PAPER, SESSION, UNIVERSE, RiskState, ToyRisk, toy_signal

RAW, SNAPSHOTS = PAPER.signals_raw, PAPER.pnl_snapshots


class Feeder:
    """A risk task and the offsets of what is pushed into it."""

    def __init__(self, service: Any) -> None:
        sources = [Source(RAW.name, 0, 0), Source(SNAPSHOTS.name, 0, 1, "lagged")]
        starts = {(s.topic, s.partition): 0 for s in sources}
        self.run: TaskRun[Any] = TaskRun(service, TaskId("toy_risk", "paper", 0), sources, UNIVERSE, starts=starts)
        self.offsets = dict.fromkeys((RAW.name, SNAPSHOTS.name), -1)

    def push(self, topic: Topic, event: Event, value: bytes | None = None) -> None:
        self.offsets[topic.name] += 1
        content = value_of(event) if value is None else value
        self.run.receive(Received(topic.name, 0, self.offsets[topic.name], None, content, tuple(headers_of(event))))

    def mark(self, topic: Topic, after_open_ns: int) -> None:
        self.push(topic, watermark(topic, 0, SESSION, OPEN_NS + after_open_ns))

    def outputs(self) -> list[Event]:
        self.run.step()
        self.run.forward()
        return [o.event for o in self.run.take_outputs()]


def opened(service: Any) -> Feeder:
    feeder = Feeder(service)
    feeder.mark(RAW, 0)
    feeder.outputs()
    return feeder


def test_nothing_is_committed_before_the_first_session() -> None:
    feeder = Feeder(ToyRisk())
    assert feeder.outputs() == []
    assert feeder.run.positions() == {}


def test_a_session_opens_with_a_watermark_at_its_open_on_every_watermarked_output() -> None:
    feeder = Feeder(ToyRisk())
    feeder.mark(RAW, 0)
    (opening,) = feeder.outputs()
    assert isinstance(opening, Watermark)
    assert opening.event_time_ns == SESSION.open_ns
    position = feeder.run.positions()[RAW.name, 0]
    assert (position.watermark_ns, position.session_open_offset, position.offset) == (OPEN_NS, 0, 1)


def test_an_item_held_by_a_lagged_input_still_lets_the_watermark_reach_it() -> None:
    feeder = opened(ToyRisk())
    feeder.push(RAW, toy_signal(0, OPEN_NS + 3 * SECOND_NS, 1.0, 1.0))
    feeder.mark(RAW, 9 * SECOND_NS)
    assert [e.event_time_ns for e in feeder.outputs()] == [OPEN_NS + 3 * SECOND_NS]
    feeder.mark(SNAPSHOTS, 3 * SECOND_NS)
    validated, forwarded = feeder.outputs()
    assert validated.event_type == "signal.validated"
    assert forwarded.event_time_ns == OPEN_NS + 9 * SECOND_NS


def test_a_late_event_is_a_dead_letter_in_its_place() -> None:
    feeder = opened(ToyRisk())
    feeder.mark(RAW, SECOND_NS)
    feeder.push(RAW, toy_signal(0, OPEN_NS + 1, 1.0, 1.0))
    feeder.mark(RAW, 2 * SECOND_NS)
    feeder.mark(SNAPSHOTS, 2 * SECOND_NS)
    letters = [e for e in feeder.outputs() if isinstance(e, DeadLetter)]
    assert [(letter.offset, letter.event_time_ns) for letter in letters] == [(2, OPEN_NS + SECOND_NS)]
    assert "too late" in letters[0].failure
    assert feeder.run.dead_letters == 1


class Liar(ToyRisk):
    """Answers with an event earlier than what it promised."""

    def handle(self, record: Record, state: RiskState, now_ns: int) -> Iterable[Event]:
        assert isinstance(record, EventRecord)
        for event in super().handle(record, state, now_ns):
            yield event.model_copy(update={"event_time_ns": SESSION.open_ns - 1})


class Stranger(ToyRisk):
    """Says something on a topic it does not name."""

    outputs = (PAPER.signals_rejected,)


@pytest.mark.parametrize(("service", "failure"), [(Liar(), PromiseBroken), (Stranger(), UndeclaredOutput)])
def test_a_service_that_breaks_its_word_ends_the_process(service: Any, failure: type[Exception]) -> None:
    feeder = opened(service)
    feeder.push(RAW, toy_signal(0, OPEN_NS, 1.0, 1.0))
    feeder.mark(RAW, 1)
    with pytest.raises(failure, match="toy_risk"):
        feeder.outputs()


@pytest.mark.parametrize("when", ["before the first session", "after the last signal"])
def test_a_bad_record_on_a_lagged_input_is_a_dead_letter_at_the_latest_when_the_next_session_opens(when: str) -> None:
    feeder = Feeder(ToyRisk())
    if when == "after the last signal":
        feeder.mark(RAW, 0)
        feeder.outputs()
        feeder.mark(SNAPSHOTS, 30 * SECOND_NS)
    feeder.push(SNAPSHOTS, toy_signal(0, OPEN_NS, 1.0, 1.0), b"garbage")
    session = SESSION if when == "before the first session" else NEXT_SESSION
    feeder.push(RAW, watermark(RAW, 0, session, session.open_ns))
    feeder.push(RAW, watermark(RAW, 0, session, session.open_ns + SECOND_NS))
    letters = [e for e in feeder.outputs() if isinstance(e, DeadLetter)]
    assert [(letter.topic, letter.offset) for letter in letters] == [(SNAPSHOTS.name, feeder.offsets[SNAPSHOTS.name])]
    assert feeder.run.positions()[SNAPSHOTS.name, 0].offset == feeder.offsets[SNAPSHOTS.name] + 1
    assert feeder.outputs() == []
