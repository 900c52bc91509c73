"""The way in: what it writes, and that its readers believe it and nobody else. A feed and a gateway use the same."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import replace

import pytest

from feature_store.market.types import SECOND_NS
from live_services.domain.clock import session_end_ns, session_of, session_opened, watermark
from live_services.domain.events import (
    DeadLetter,
    Event,
    MarketGap,
    Watermark,
    decode_event,
    event_id,
    headers_of,
    value_of,
)
from live_services.domain.frames import Headers
from live_services.domain.log import EventRecord, Record
from live_services.domain.sequence import LogEnd, Stamp, stamp_of
from live_services.domain.topics import MARKET_SESSIONS, MARKET_TICKS, Topic
from live_services.runtime.chain import Chain
from live_services.runtime.ingress import Ingress, SessionUnderWay
from live_services.runtime.local import MemoryLog, MemoryTask
from live_services.runtime.service import Input, Opening, Service
from tests.stored_sessions import MemoryFeed
from tests.toy_chain import (
    NEXT_SESSION,
    OPEN_NS,
    PAPER,
    SESSION,
    UNIVERSE,
    frames_of,
    toy_signal,
    toy_strategy,
    toy_ticks,
)

FEED = "0123456789abcdef"
TOLD, TOLD_NEXT = (session_opened(one, UNIVERSE, FEED) for one in (SESSION, NEXT_SESSION))
END_NS = session_end_ns(SESSION)
FRAMES = [(ticks, cut) for ticks, cut in frames_of(toy_ticks(), 10 * SECOND_NS)]


class World:
    """A log in memory, and the ingress of one of its topics."""

    def __init__(self, topic: Topic = MARKET_TICKS) -> None:
        self.log = MemoryLog()
        self.topic = topic
        self.writer = MemoryFeed(self.log)
        self.ingress = Ingress(topic, self.writer, {})

    def flush(self) -> None:
        asyncio.run(self.ingress.flush())

    def said(self) -> list[Event]:
        return [decode_event(record.value, record.headers) for record in self.log.partitions[self.topic.name, 0]]

    def stamps(self) -> list[Stamp | None]:
        return [stamp_of(record.headers) for record in self.log.partitions[self.topic.name, 0]]


def fed(*plants: tuple[int, Event, Headers]) -> MemoryLog:
    """Today and tomorrow as a feed says them; each plant stands before the record of its number."""
    world = World()
    for told in (TOLD, TOLD_NEXT):
        session = session_of(told)
        world.ingress.tell(told)
        world.ingress.begin(told)
        world.ingress.mark(0, session.open_ns)
        for number, (ticks, cut) in enumerate(frames_of(toy_ticks(session), 10 * SECOND_NS, session)):
            world.ingress.rows(0, ticks, UNIVERSE, number, cut)
        world.ingress.end(0)
    world.flush()
    records = list(world.log.partitions[MARKET_TICKS.name, 0])
    log = MemoryLog()
    log.partitions[MARKET_SESSIONS.name, 0] = world.log.partitions[MARKET_SESSIONS.name, 0]
    for place, record in enumerate(records):
        for before, event, headers in plants:
            if before == place:
                log.append(MARKET_TICKS.name, 0, value_of(event), headers)
        log.append(MARKET_TICKS.name, 0, record.value, record.headers)
    return log


def handled(log: MemoryLog) -> tuple[list[Event], list[DeadLetter]]:
    """What the toy strategy says, and what it could not believe."""
    task = MemoryTask(toy_strategy, log)
    while task.is_behind:
        task.fetch((MARKET_TICKS.name, 0), 3)
        task.step()
        task.commit()
    return handled_on(log)


def handled_on(log: MemoryLog) -> tuple[list[Event], list[DeadLetter]]:
    letters = [event for event in log.events(MARKET_TICKS.dlq) if isinstance(event, DeadLetter)]
    return log.events(PAPER.signals_raw), letters


def mark(at_ns: int, session: object = SESSION, stamp: Stamp | None = None) -> tuple[Event, Headers]:
    event = watermark(MARKET_TICKS, 0, session, at_ns, UNIVERSE.digest)  # type: ignore[arg-type]
    return event, [*headers_of(event), *([] if stamp is None else [stamp.header])]


FOREIGN = {
    "a watermark near the close": mark(END_NS - 1),
    "the end of the session": mark(END_NS),
    "a later session's open": mark(NEXT_SESSION.open_ns, NEXT_SESSION),
    "a jump with the feed's own name": mark(END_NS - 1, stamp=Stamp(FEED, OPEN_NS, 40)),
    "what was said before": mark(OPEN_NS, stamp=Stamp(FEED, OPEN_NS, 0)),
    "another feed's next record": mark(END_NS - 1, stamp=Stamp("another", OPEN_NS, 3)),
    "a later session as the feed's own": mark(NEXT_SESSION.open_ns, NEXT_SESSION, Stamp(FEED, NEXT_SESSION.open_ns, 0)),
    "a session of other hours": mark(OPEN_NS, replace(SESSION, close_ns=SESSION.close_ns - SECOND_NS)),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("times", [1, 200])
def test_a_foreign_record_is_a_dead_letter_and_moves_no_clock(name: str, times: int) -> None:
    undisturbed, none = handled(fed())
    assert (len(undisturbed) > 100, none) == (True, [])
    said, letters = handled(fed(*[(3, *FOREIGN[name])] * times))
    assert said == undisturbed
    assert len(letters) == times
    assert {letter.reason for letter in letters} <= {"foreign", "bad_frame"}
    assert {letter.offset for letter in letters} == set(range(3, 3 + times))


@pytest.mark.parametrize("records", [12, 13])  # more than the plants: a life that reads letters only gets nowhere
def test_a_task_that_goes_on_from_a_snapshot_at_any_record_believes_the_same(records: int) -> None:
    plants = [(place, *planted) for place, planted in enumerate(FOREIGN.values(), 1)]
    undisturbed = handled(fed(*plants))
    log = fed(*plants)
    task = MemoryTask(toy_strategy, log)
    while task.is_behind:
        task.fetch((MARKET_TICKS.name, 0), records)
        task.step()
        task.commit()
        if task.keep():
            task.kill()
    task.step()
    task.commit()
    said, letters = handled_on(log)
    assert (said, {letter.event_id for letter in letters}) == (undisturbed[0], {one.event_id for one in undisturbed[1]})
    assert len(letters) == len(undisturbed[1])


def test_a_record_that_is_missing_costs_itself_and_the_one_behind_it() -> None:
    log = fed()
    del log.partitions[MARKET_TICKS.name, 0][3]
    said, letters = handled(log)
    assert [letter.failure.split(": ")[1] for letter in letters] == ["its number is 4, and 3 is next"]
    assert said[-1].event_time_ns > NEXT_SESSION.open_ns


def test_a_frame_that_is_late_in_part_loses_its_late_rows_and_a_letter_counts_them() -> None:
    world, late_ns = World(), OPEN_NS + 4 * SECOND_NS
    world.log.append_event(MARKET_SESSIONS, 0, TOLD)
    world.ingress.begin(TOLD)
    world.ingress.mark(0, OPEN_NS)
    world.ingress.rows(0, FRAMES[0][0], UNIVERSE, 0, FRAMES[0][1])
    world.ingress.rows(0, FRAMES[1][0], UNIVERSE, 1, FRAMES[1][1])
    world.ingress.end(0)
    first, *rest = world.writer.unflushed
    early, _ = mark(late_ns, stamp=None)
    world.log.append(*first)
    world.log.append(MARKET_TICKS.name, 0, value_of(early), [*headers_of(early), Stamp(FEED, OPEN_NS, 1).header])
    for number, (topic, partition, value, headers) in enumerate(rest):
        kept = [one for one in headers if one[0] != "ingress"]
        world.log.append(topic, partition, value, [*kept, Stamp(FEED, OPEN_NS, 2 + number).header])
    _, (letter,) = handled(world.log)
    lost, rows = int((FRAMES[0][0].event_time_ns < late_ns).sum()), len(FRAMES[0][0])
    assert letter.reason == "late"
    assert f"{lost} of {rows} rows were left out" in letter.failure


# --- what it writes ---------------------------------------------------------------------------------------------------


def test_records_are_numbered_in_each_partition_and_session_from_the_watermark_at_the_open() -> None:
    log = fed()
    stamps = [stamp_of(record.headers) for record in log.partitions[MARKET_TICKS.name, 0]]
    numbers = list(range(len(stamps) // 2))
    assert stamps == [Stamp(FEED, one.open_ns, number) for one in (SESSION, NEXT_SESSION) for number in numbers]


def test_a_successor_goes_on_with_the_next_number_and_says_nothing_twice() -> None:
    world = World()
    world.ingress.begin(TOLD)
    world.ingress.mark(0, OPEN_NS + SECOND_NS)
    successor = Ingress(MARKET_TICKS, world.writer, dict(enumerate(world.ingress.ends)))
    successor.begin(TOLD)
    successor.mark(0, OPEN_NS + SECOND_NS)
    successor.mark(0, OPEN_NS)
    assert successor.rows(0, FRAMES[0][0], UNIVERSE, 0, FRAMES[0][1]) < len(FRAMES[0][0])
    world.flush()
    assert world.stamps() == [Stamp(FEED, OPEN_NS, number) for number in range(2)]


def test_a_session_begins_only_behind_the_end_of_the_one_before() -> None:
    ends = {0: LogEnd(OPEN_NS, END_NS - 1, 9, END_NS)}
    with pytest.raises(SessionUnderWay, match=r"market\.ticks\[0\] is at .* before the session of 2026-01-06"):
        Ingress(MARKET_TICKS, MemoryFeed(MemoryLog()), ends).begin(TOLD_NEXT)
    ended = {0: LogEnd(OPEN_NS, END_NS, 9, END_NS)}
    Ingress(MARKET_TICKS, MemoryFeed(MemoryLog()), ended).begin(TOLD_NEXT)


def test_nothing_is_said_outside_a_session() -> None:
    world = World()
    with pytest.raises(ValueError, match="no session was begun"):
        world.ingress.mark(0, OPEN_NS)
    world.ingress.begin(TOLD)
    with pytest.raises(ValueError, match="outside the session"):
        world.ingress.mark(0, END_NS + 1)


# --- a broker's gateway -----------------------------------------------------------------------------------------------


class Books(Service[list[Event]]):
    """Keeps what the gateway told of orders: an account's reader of it, in small."""

    name = "toy_books"
    scope = "paper"
    inputs = (Input(MARKET_TICKS), Input(PAPER.gateway_events))
    outputs = ()
    single_task = True
    kept: list[tuple[str, int]] = []  # noqa: RUF012 - a test reads it

    def open_session(self, opening: Opening[list[Event]]) -> list[Event]:
        return []

    def handle(self, record: Record, state: list[Event], now_ns: int) -> Iterable[Event]:
        if isinstance(record, EventRecord):
            self.kept.append((record.event.event_type, record.event.event_time_ns - OPEN_NS))
        return ()


def answered(after_open_ns: int) -> Event:
    """What a broker says of an order; the type does not matter to the way in."""
    said = toy_signal(0, OPEN_NS + after_open_ns, 1.0, 100.0)
    return MarketGap(
        broker="paper",
        event_id=event_id("answer", after_open_ns),
        correlation_id=said.correlation_id,
        causation_id=said.event_id,
        event_time_ns=OPEN_NS + after_open_ns,
        until_ns=OPEN_NS + after_open_ns,
        reason="a fill",
    )


def test_what_a_gateway_hears_behind_the_end_of_a_session_is_said_at_the_open_of_the_next() -> None:
    gateway = World(PAPER.gateway_events)
    gateway.ingress.begin(TOLD)
    gateway.ingress.end(0)
    gateway.ingress.event(0, answered(END_NS - OPEN_NS + SECOND_NS))
    gateway.flush()
    assert len(gateway.said()) == 1, "the end alone"
    gateway.ingress.begin(TOLD_NEXT)
    gateway.flush()
    opened, answer = gateway.said()[1:]
    assert (opened.event_type, answer.event_type) == ("watermark", "market.gap")
    assert opened.event_time_ns == answer.event_time_ns == NEXT_SESSION.open_ns
    assert gateway.stamps()[1:] == [Stamp("gateway", NEXT_SESSION.open_ns, number) for number in range(2)]


def test_a_gateways_answers_come_through_the_same_way_in() -> None:
    log, gateway = fed(), World(PAPER.gateway_events)
    gateway.ingress.begin(TOLD)
    gateway.ingress.event(0, answered(5 * SECOND_NS))
    gateway.ingress.mark(0, OPEN_NS + 20 * SECOND_NS)
    gateway.ingress.event(0, answered(7 * SECOND_NS))
    gateway.ingress.gap(0, OPEN_NS + 30 * SECOND_NS, "the broker did not answer")
    gateway.ingress.end(0)
    gateway.flush()
    said = gateway.said()
    assert [stamp and stamp.number for stamp in gateway.stamps()] == list(range(len(said)))
    assert isinstance(said[0], Watermark)
    assert said[0].broker == "paper"
    begins = watermark(PAPER.gateway_events, 0, SESSION, OPEN_NS, UNIVERSE.digest)
    claim = Stamp("a stranger", OPEN_NS, 0)  # the first to come, and yet not who writes there
    log.append(PAPER.gateway_events.name, 0, value_of(begins), [*headers_of(begins), claim.header])
    for place, record in enumerate(gateway.log.partitions[PAPER.gateway_events.name, 0]):
        if place == 2:
            event = watermark(PAPER.gateway_events, 0, SESSION, END_NS, UNIVERSE.digest)
            log.append(PAPER.gateway_events.name, 0, value_of(event), headers_of(event))
        log.append(PAPER.gateway_events.name, 0, record.value, record.headers)
    Books.kept.clear()
    task = MemoryTask(lambda: Chain("toy_books", (Books(),)), log)
    while task.is_behind:
        for key in task.next:
            task.fetch(key, 2)
        task.step()
        task.commit()
    late_ns = 20 * SECOND_NS
    assert Books.kept == [("market.gap", 5 * SECOND_NS), ("market.gap", late_ns), ("market.gap", late_ns)]
    letters = [letter for letter in log.events(PAPER.gateway_events.dlq) if isinstance(letter, DeadLetter)]
    assert [(letter.reason, letter.offset) for letter in letters] == [("foreign", 0), ("foreign", 3)]
