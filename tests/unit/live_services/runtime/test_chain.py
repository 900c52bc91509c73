"""Services in one task: what one says is handled by the next within the same step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from live_services.domain.clock import NEVER_NS
from live_services.domain.events import Event, SignalValidated
from live_services.domain.log import NOWHERE, EventRecord, LogPosition, MarketSlice, Record, TaskId
from live_services.domain.topics import MARKET_TICKS, Scope, Topic, broker_topics
from live_services.runtime.chain import Chain, ChainState, Failed, UndeclaredOutput, WrongTopic
from live_services.runtime.service import Input, Opening, Service
from tests.live_world import OPEN, SECOND, SESSION, UNIVERSE, filled, said_by, signal, submitted, ticks, validated

PAPER = broker_topics("paper")
ZERODHA = broker_topics("zerodha")
TASK = TaskId("toy", "paper", 0)
Told = list[str]
Answers = Callable[[Record], Iterable[Event]]


class Toy(Service[Told]):
    """Says what a function makes of a record; `timers` are the instants at which it says its name."""

    scope: Scope = "paper"

    def __init__(
        self,
        name: str,
        told: Told,
        *,
        reads: Iterable[Topic],
        says: Iterable[Topic] = (),
        answers: Answers = lambda _: (),
        timers: Iterable[int] = (),
    ) -> None:
        self.name = name
        self.inputs = tuple(Input(topic) for topic in reads)
        self.outputs = tuple(says)
        self._answers, self._timers, self._told = answers, sorted(timers), told

    def open_session(self, opening: Opening[Told]) -> Told:
        self._told.append(f"{self.name} opens behind {sorted(opening.chain)} after {opening.before}")
        return self._told

    def handle(self, record: Record, state: Told, now_ns: int) -> Iterable[Event]:
        what = record.event.event_type if isinstance(record, EventRecord) else f"{len(record)} rows"
        state.append(f"{self.name} takes {what}")
        for event in self._answers(record):
            yield event
            state.append(f"{self.name} goes on")

    def first_answer(self, market: MarketSlice, row: int, state: Told) -> int:
        cheap = [k for k in range(row, len(market)) if market.market.last_price[k] < 1]  # type: ignore[union-attr]
        return cheap[0] if cheap else len(market)

    def due_ns(self, state: Told) -> int:
        return self._timers[0] if self._timers else NEVER_NS

    def fire(self, state: Told, at_ns: int) -> Iterable[Event]:
        state.append(f"{self.name} fires at {(self._timers.pop(0) - OPEN) / SECOND:g}")
        return ()


def raw_to_validated(record: Record) -> Iterator[Event]:
    assert isinstance(record, EventRecord)
    yield validated()
    yield validated(1)


def opened(*services: Service[Any]) -> tuple[Chain, ChainState]:
    chain = Chain("toy", services)
    return chain, chain.open_session(SESSION, UNIVERSE, TASK)


def three(told: Told) -> tuple[Chain, ChainState]:
    first = Toy("first", told, reads=[PAPER.signals_raw], says=[PAPER.signals_validated], answers=raw_to_validated)
    second = Toy(
        "second",
        told,
        reads=[PAPER.signals_validated],
        says=[PAPER.orders_submitted],
        answers=lambda r: (
            [submitted(r.event)] if isinstance(r, EventRecord) and isinstance(r.event, SignalValidated) else []
        ),
    )
    third = Toy("third", told, reads=[PAPER.orders_submitted, MARKET_TICKS])
    return opened(first, second, third)


def test_only_outer_edges_are_consumed_and_the_market_comes_first() -> None:
    chain, _ = three([])
    assert [one.topic for one in chain.inputs] == [MARKET_TICKS, PAPER.signals_raw]
    assert chain.inner == {PAPER.signals_validated.name, PAPER.orders_submitted.name}
    assert chain.outputs == (PAPER.signals_validated, PAPER.orders_submitted)


def test_states_are_opened_from_the_last_to_the_first_each_with_its_own_of_before() -> None:
    told: Told = []
    chain, state = three(told)
    assert told == [
        "third opens behind [] after None",
        "second opens behind ['third'] after None",
        "first opens behind ['second', 'third'] after None",
    ]
    told.clear()
    chain.open_session(SESSION, UNIVERSE, TASK, ChainState(SESSION, UNIVERSE, ["a", "b", "c"]))
    assert [line.split()[-1] for line in told] == ["c", "b", "a"]
    assert state.session == SESSION


def test_each_output_runs_down_the_chain_before_the_next_one_is_asked_for() -> None:
    told: Told = []
    chain, state = three(told)
    told.clear()
    said = said_by(chain.handle, EventRecord(signal(), NOWHERE), state, OPEN)
    assert [event.event_type for event in said] == ["signal.validated", "order.submitted"] * 2
    assert told == [
        "first takes signal.generated",
        "second takes signal.validated",
        "third takes order.submitted",
        "second goes on",
        "first goes on",
        "second takes signal.validated",
        "third takes order.submitted",
        "second goes on",
        "first goes on",
    ]


def test_of_several_readers_of_an_event_the_last_of_the_chain_takes_it_first() -> None:
    told: Told = []
    chain, state = opened(*(Toy(name, told, reads=[PAPER.orders_filled]) for name in ("looks", "writes")))
    told.clear()
    said_by(chain.handle, EventRecord(filled(submitted(validated()), 61, 100.0), NOWHERE), state, OPEN)
    assert told == ["writes takes order.filled", "looks takes order.filled"]


def test_timers_come_between_the_rows_of_the_market_each_after_its_whole_instant() -> None:
    told: Told = []
    late = Toy("late", told, reads=[MARKET_TICKS], timers=[OPEN + 2 * SECOND, OPEN + 4 * SECOND])
    early = Toy("early", told, reads=[MARKET_TICKS], timers=[OPEN + 2 * SECOND])
    chain, state = opened(early, late)
    told.clear()
    table = ticks((0, 1, 9.0), (1, 2, 9.0), (2, 2, 9.0), (0, 3, 9.0), (0, 5, 9.0))
    said_by(chain.handle, MarketSlice(table, LogPosition(MARKET_TICKS.name, 0, 0)), state, OPEN + 5 * SECOND)
    assert told == [
        *("late takes 3 rows", "early takes 3 rows", "early fires at 2", "late fires at 2"),
        *("late takes 1 rows", "early takes 1 rows", "late fires at 4"),
        *("late takes 1 rows", "early takes 1 rows"),
    ]


def test_a_timer_waits_for_the_watermark_to_pass_its_instant() -> None:
    told: Told = []
    chain, state = opened(Toy("one", told, reads=[MARKET_TICKS], timers=[OPEN + SECOND]))
    told.clear()
    said_by(chain.advance, state, OPEN + SECOND)
    assert told == []
    said_by(chain.advance, state, OPEN + SECOND + 1)
    assert told == ["one fires at 1"]


def test_the_market_is_cut_behind_the_instant_of_an_answer() -> None:
    told: Told = []
    chain, state = opened(Toy("one", told, reads=[MARKET_TICKS]))
    told.clear()
    table = ticks((0, 1, 9.0), (1, 2, 0.5), (2, 2, 9.0), (0, 3, 9.0))
    said_by(chain.handle, MarketSlice(table, LogPosition(MARKET_TICKS.name, 0, 0)), state, OPEN + 3 * SECOND)
    assert told == ["one takes 3 rows", "one takes 1 rows"]


def failing(record: Record) -> Iterator[Event]:
    if isinstance(record, EventRecord) and isinstance(record.event, SignalValidated) and record.event.symbol == "AAA":
        raise ValueError("no")
    yield from ()


def test_what_a_service_fails_on_is_buried_and_everything_behind_it_goes_on() -> None:
    told: Told = []
    first = Toy("first", told, reads=[PAPER.signals_raw], says=[PAPER.signals_validated], answers=raw_to_validated)
    chain, state = opened(first, Toy("second", told, reads=[PAPER.signals_validated], answers=failing))
    at = LogPosition(PAPER.signals_raw.name, 0, 5)
    with pytest.raises(ValueError, match="no"):
        said_by(chain.handle, EventRecord(signal(), at), state, OPEN)
    buried: list[Failed] = []
    chain.bury = buried.append
    told.clear()
    said = said_by(chain.handle, EventRecord(signal(), at), state, OPEN)
    assert [event.event_type for event in said] == ["signal.validated"] * 2
    (failed,) = buried
    assert failed.record == EventRecord(validated(), at)
    assert (str(failed.error), failed.service.name, failed.what) == ("no", "second", "record")
    assert told.count("second takes signal.validated") == 2


def test_a_control_record_that_a_service_fails_on_is_buried_as_such() -> None:
    chain, state = opened(Toy("one", [], reads=[PAPER.signals_validated], answers=failing))
    buried: list[Failed] = []
    chain.bury = buried.append
    assert said_by(chain.handle_control, EventRecord(validated(), NOWHERE), state) == []
    assert [failed.what for failed in buried] == ["control"]


class Stuck(Toy):
    """Fails at its timers, and whether it gets on behind one is its own affair; says how often it was asked."""

    def __init__(self, told: Told, *, gets_on: bool, timers: Iterable[int] = (), **fails: bool) -> None:
        super().__init__("stuck", told, reads=[MARKET_TICKS], timers=timers)
        self._gets_on, self._fails, self.asked = gets_on, fails, 0

    def due_ns(self, state: Told) -> int:
        if self._fails.get("due_ns"):
            raise ValueError("no clock")
        return super().due_ns(state)

    def fire(self, state: Told, at_ns: int) -> Iterable[Event]:
        self.asked += 1
        if self._gets_on:
            self._timers.pop(0)
        raise ValueError("no timer")

    def advance(self, state: Told, now_ns: int) -> Iterable[Event]:
        self.asked += 1
        if self._fails.get("advance"):
            raise ValueError("no watermark")
        return ()

    def first_answer(self, market: MarketSlice, row: int, state: Told) -> int:
        if self._fails.get("first_answer"):
            raise ValueError("no answer")
        return len(market)


def buried_of(service: Stuck, *others: Service[Any]) -> tuple[Chain, ChainState, list[Failed]]:
    chain, state = opened(service, *others)
    buried: list[Failed] = []
    chain.bury = buried.append
    return chain, state, buried


def test_a_timer_that_fails_is_passed_over_and_those_of_others_come() -> None:
    told: Told = []
    stuck = Stuck(told, gets_on=True, timers=[OPEN, OPEN + SECOND])
    other = Toy("other", told, reads=[MARKET_TICKS], timers=[OPEN + 2 * SECOND])
    chain, state, buried = buried_of(stuck, other)
    said_by(chain.advance, state, OPEN + 3 * SECOND)
    assert [(failed.what, failed.at_ns, failed.silenced) for failed in buried] == [
        ("timer", OPEN, False),
        ("timer", OPEN + SECOND, False),
    ]
    assert told[-1] == "other fires at 2"
    assert state.silenced == set()


def test_a_timer_that_fails_again_and_again_is_left_out_until_the_sessions_end() -> None:
    told: Told = []
    stuck = Stuck(told, gets_on=False, timers=[OPEN])
    chain, state, buried = buried_of(stuck, Toy("other", told, reads=[MARKET_TICKS], timers=[OPEN + 2 * SECOND]))
    for second in range(1, 5):
        said_by(chain.advance, state, OPEN + second * SECOND)
    assert len(buried) == stuck.asked < 200
    assert [failed.silenced for failed in buried] == [False] * (len(buried) - 1) + [True]
    assert told[-1] == "other fires at 2"
    assert chain.open_session(SESSION, UNIVERSE, TASK, state).silenced == set()


def test_a_watermark_that_a_service_always_fails_at_is_left_out_in_the_end() -> None:
    stuck = Stuck([], gets_on=True, advance=True)
    chain, state, buried = buried_of(stuck)
    for millisecond in range(1_000):
        said_by(chain.advance, state, OPEN + millisecond)
    assert len(buried) == stuck.asked < 200
    assert {failed.what for failed in buried} == {"watermark"}


def test_a_service_that_cannot_say_what_is_due_is_asked_once() -> None:
    chain, state, buried = buried_of(Stuck([], gets_on=True, due_ns=True))
    for second in range(3):
        said_by(chain.advance, state, OPEN + second * SECOND)
    assert [(failed.what, failed.silenced) for failed in buried] == [("timer", True)]


def test_rows_that_a_service_fails_on_are_buried_and_others_take_them() -> None:
    told: Told = []
    bad = Toy("bad", told, reads=[MARKET_TICKS], answers=lambda _: 1 // 0)  # type: ignore[arg-type,return-value]
    chain, state, buried = buried_of(
        Stuck(told, gets_on=True, first_answer=True), bad, Toy("good", told, reads=[MARKET_TICKS])
    )
    at = LogPosition(MARKET_TICKS.name, 0, 7)
    said_by(chain.handle, MarketSlice(ticks((0, 1, 9.0), (1, 2, 9.0)), at), state, OPEN + 2 * SECOND)
    assert [(failed.service.name, failed.what, type(failed.error)) for failed in buried] == [
        ("stuck", "slice", ValueError),
        ("bad", "slice", ZeroDivisionError),
    ]
    assert {failed.record.position for failed in buried if failed.record is not None} == {at}
    assert "good takes 2 rows" in told


def test_an_output_that_is_not_declared_is_a_mistake_that_nothing_buries() -> None:
    chain, state = opened(Toy("one", [], reads=[PAPER.signals_raw], answers=raw_to_validated))
    chain.bury = lambda _: None
    with pytest.raises(UndeclaredOutput, match=r"one: signal.validated goes to paper.signals.validated"):
        said_by(chain.handle, EventRecord(signal(), NOWHERE), state, OPEN)


def test_an_event_of_another_broker_on_an_inner_edge_is_a_mistake_that_nothing_buries() -> None:
    foreign = validated().model_copy(update={"broker": "zerodha"})
    edge = ZERODHA.signals_validated
    first = Toy("first", [], reads=[PAPER.signals_raw], says=[edge], answers=lambda _: [foreign])
    chain, state = opened(first, Toy("second", [], reads=[Topic(edge.name, "paper")]))
    chain.bury = lambda _: None
    with pytest.raises(WrongTopic, match=r"an event of zerodha on zerodha\.signals\.validated, which is paper's"):
        said_by(chain.handle, EventRecord(signal(), NOWHERE), state, OPEN)
