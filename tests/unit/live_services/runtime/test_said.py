from __future__ import annotations

from collections.abc import Iterable

import pytest

from feature_store.market.types import SECOND_NS
from live_services.domain.events import (
    TASK_HEADER,
    Event,
    SignalGenerated,
    StrategiesDifferenceAccepted,
    headers_of,
    self_caused,
    value_of,
)
from live_services.domain.topics import STRATEGIES_CONTROL
from live_services.runtime.chain import Chain
from live_services.runtime.failures import DayDiffers
from live_services.runtime.local import MemoryLog, MemoryTask
from live_services.runtime.said import LogRecord, Said, first_difference
from tests.toy_chain import OPEN_NS, PAPER, SESSION, ToyStrategy, toy_market, toy_signal

RAW = PAPER.signals_raw.name
SIGNALS = tuple(toy_signal(k % 4, OPEN_NS + k * SECOND_NS, 0.5 + k, 100.0 + k) for k in range(5))


def said(events: Iterable[Event], *, keeps: bool = True) -> Said:
    made = Said(keeps=keeps)
    for event in events:
        made.add(RAW, event)
    return made


def on_log(events: Iterable[Event]) -> dict[str, list[LogRecord]]:
    return {RAW: [LogRecord(10 + k, value_of(event)) for k, event in enumerate(events)]}


def difference(would: Iterable[Event], log: Iterable[Event]) -> str:
    return str(first_difference("t", OPEN_NS, said(would), on_log(log)))


def test_the_digest_is_that_of_what_was_said_and_of_its_order_within_a_topic() -> None:
    assert said(SIGNALS).so_far == said(SIGNALS, keeps=False).so_far
    assert said(SIGNALS).so_far.counts == {RAW: 5}
    assert said(SIGNALS[::-1]).so_far.digest != said(SIGNALS).so_far.digest
    assert said(SIGNALS[:4]).so_far.digest != said(SIGNALS).so_far.digest
    based = [one.model_copy(update={"basis": one.basis.model_copy(update={"git_commit": "other"})}) for one in SIGNALS]
    assert said(based).so_far == said(SIGNALS).so_far


def test_a_difference_is_told_by_topic_offset_and_field() -> None:
    assert difference(SIGNALS, SIGNALS) == "None"
    other = SIGNALS[2].model_copy(update={"quantity": 7, "signal_id": "x"})
    said_otherwise = [*SIGNALS[:2], other, *SIGNALS[3:]]
    assert difference(said_otherwise, SIGNALS) == f"{RAW} at offset 12, field quantity: said 1, would say 7"
    last = f"signal.generated {SIGNALS[4].event_id}"
    assert difference(SIGNALS[:4], SIGNALS) == f"{RAW} at offset 14: said {last}, would say nothing more"
    assert difference(SIGNALS, SIGNALS[:4]) == f"{RAW} behind its last record: said nothing more, would say {last}"
    inside = SIGNALS[0].model_copy(update={"exit": SIGNALS[0].exit.model_copy(update={"expiry_ns": 5})})
    assert difference([inside, *SIGNALS[1:]], SIGNALS).startswith(f"{RAW} at offset 10, field exit.expiry_ns: said")


def test_what_was_counted_goes_on_from_a_snapshot_and_what_came_before_it_is_not_asked_for() -> None:
    early, late = said(SIGNALS[:3]), Said(keeps=True)
    late.restore(early.snapshot())
    for event in SIGNALS[3:]:
        late.add(RAW, event)
    assert late.so_far == said(SIGNALS).so_far
    assert first_difference("t", OPEN_NS, late, on_log(SIGNALS)) is None
    assert "offset 13" in str(first_difference("t", OPEN_NS, late, on_log([*SIGNALS[:3], SIGNALS[4]])))


# --- in a task --------------------------------------------------------------------------------------------------------


class Otherwise(ToyStrategy):
    """Other code: from an instant on each score is another one."""

    def __init__(self, from_ns: int) -> None:
        super().__init__()
        self._from_ns = from_ns

    def handle(self, record, state, now_ns):  # type: ignore[no-untyped-def]
        for event in super().handle(record, state, now_ns):
            assert isinstance(event, SignalGenerated)
            changed = event.event_time_ns >= self._from_ns
            yield event.model_copy(update={"score": event.score + 1}) if changed else event


class Desk:
    """A strategy whose code may be another one after a kill."""

    def __init__(self) -> None:
        self.service: ToyStrategy = ToyStrategy()
        self.log = toy_market(SECOND_NS)
        self.task = MemoryTask(lambda: Chain("toy_strategy", (self.service,)), self.log)

    def run(self, frames: int) -> None:
        """Take and commit so many records more."""
        for key in self.task.next:
            self.task.fetch(key, frames)
        self.task.step()
        self.task.commit()

    def restart(self, service: ToyStrategy) -> None:
        self.service = service
        self.task.kill()

    def accept(self) -> None:
        (position,) = self.task.committed.values()
        event = StrategiesDifferenceAccepted(
            **self_caused("accepted", position.watermark_ns),
            event_time_ns=position.watermark_ns,
            session_date=SESSION.date.isoformat(),
            task="shared.toy_strategy[0]",
            outputs_digest=position.said.digest,
            taken_as_said={RAW: len(self.log.partitions[RAW, 0])},
            accepted_by="a person",
            accepted_at_ns=1,
            reason="the new code is right",
        )
        headers = [*headers_of(event), (TASK_HEADER, event.task.encode())]
        self.log.append(STRATEGIES_CONTROL.name, 0, value_of(event), headers)


def signals(log: MemoryLog) -> list[SignalGenerated]:
    return [event for event in log.events(RAW) if isinstance(event, SignalGenerated)]


def test_a_re_run_that_says_the_same_goes_on() -> None:
    desk = Desk()
    desk.run(20)
    desk.restart(ToyStrategy())
    desk.run(30)
    assert desk.task.run.live
    (position,) = desk.task.committed.values()
    assert position.said.counts == {RAW: len(signals(desk.log))}


def test_a_re_run_that_says_something_else_ends_with_the_first_difference_and_the_way_out() -> None:
    desk = Desk()
    desk.run(20)
    before = len(desk.log.partitions[RAW, 0])
    number, first = next((k, e) for k, e in enumerate(signals(desk.log)) if e.event_time_ns >= OPEN_NS + 5 * SECOND_NS)
    desk.restart(Otherwise(OPEN_NS + 5 * SECOND_NS))
    with pytest.raises(DayDiffers, match="First difference") as told:
        desk.run(30)
    offset = next(k for k, r in enumerate(desk.log.partitions[RAW, 0]) if first.event_id.encode() in r.value)
    assert number < offset  # watermarks stand between them
    assert f"{RAW} at offset {offset}, field score: said {first.score!r}, would say {first.score + 1!r}" in str(
        told.value
    )
    assert 'accept toy_strategy --reason "…"' in str(told.value)
    assert len(desk.log.partitions[RAW, 0]) == before


def test_what_a_person_lets_stand_ends_the_crash_loop_and_is_not_asked_for_again() -> None:
    desk = Desk()
    desk.run(20)
    said_before = signals(desk.log)
    other = Otherwise(OPEN_NS + 5 * SECOND_NS)
    desk.restart(other)
    with pytest.raises(DayDiffers):
        desk.run(30)
    desk.accept()
    for _ in range(2):  # the second time from a commit behind it
        desk.restart(other)
        desk.run(30)
        assert desk.task.run.live
    assert signals(desk.log)[: len(said_before)] == said_before
    assert len(signals(desk.log)) > len(said_before)

    desk.restart(Otherwise(OPEN_NS + 30 * SECOND_NS))
    with pytest.raises(DayDiffers, match="First difference") as told:
        desk.run(60)
    assert f"{RAW} at offset" in str(told.value)


def test_what_is_accepted_while_nothing_differs_changes_nothing() -> None:
    desk = Desk()
    desk.run(20)
    desk.accept()
    desk.run(10)
    desk.restart(ToyStrategy())
    desk.run(40)
    assert desk.task.run.live


def test_an_acceptance_moves_no_control_record_behind_a_snapshot() -> None:
    desk = Desk()
    desk.run(20)
    desk.accept()  # nothing differs
    for _ in range(2):
        desk.run(10)
        assert desk.task.keep()
        desk.restart(ToyStrategy())
    desk.run(15)
    assert desk.task.run.live
    assert len([e for e in desk.log.events(STRATEGIES_CONTROL) if e.event_type == "strategy.model_assigned"]) == 1


def test_what_was_let_stand_is_gone_on_from_with_a_snapshot_of_it() -> None:
    desk = Desk()
    desk.run(20)
    desk.restart(Otherwise(OPEN_NS + 5 * SECOND_NS))
    with pytest.raises(DayDiffers):
        desk.run(30)
    desk.accept()
    desk.restart(Otherwise(OPEN_NS + 5 * SECOND_NS))
    desk.run(25)
    assert desk.task.keep()
    desk.restart(Otherwise(OPEN_NS + 5 * SECOND_NS))
    desk.run(30)
    assert desk.task.run.live


def test_the_next_session_counts_anew() -> None:
    desk = Desk()
    desk.run(200)
    (position,) = desk.task.committed.values()
    second = [event for event in signals(desk.log) if event.event_time_ns > SESSION.close_ns]
    assert position.said.counts == {RAW: len(second)}
