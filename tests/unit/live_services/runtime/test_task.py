from __future__ import annotations

import base64
from collections.abc import Iterable
from itertools import count, pairwise

import pytest
import structlog

from feature_store.market.types import MINUTE_NS, SECOND_NS, Session, Universe
from live_services.domain.clock import watermark
from live_services.domain.events import (
    AccountDifferenceAccepted,
    AccountOpened,
    CommandRefused,
    DeadLetter,
    Event,
    MarketGap,
    TradingStateChanged,
    TradingStateCommanded,
    TradingStateInForce,
    Watermark,
    headers_of,
    self_caused,
    value_of,
)
from live_services.domain.frames import encode_tick_frame
from live_services.domain.limits import AccountConfig
from live_services.domain.log import EventRecord, LogPosition, Record, TaskId
from live_services.domain.sequence import Stamp
from live_services.domain.topics import MARKET_TICKS
from live_services.runtime.chain import Chain, UndeclaredOutput
from live_services.runtime.control import control_of, number_left_out, own_control
from live_services.runtime.failures import PromiseBroken
from live_services.runtime.handover import Committed, Resume
from live_services.runtime.inbox import command_of
from live_services.runtime.inner_watch import InnerWatch
from live_services.runtime.letters import NotUnderstood
from live_services.runtime.local import MemoryTask, run_to_the_end
from live_services.runtime.merge import Source
from live_services.runtime.received import Received
from live_services.runtime.said import SaidSoFar
from live_services.runtime.service import Input, Opening, Service
from live_services.runtime.task import TaskRun
from live_services.settings import KafkaSettings
from tests.toy_chain import (
    NEXT_SESSION,
    OPEN_NS,
    PAPER,
    SESSION,
    UNIVERSE,
    ToyStrategy,
    frames_of,
    toy_market,
    toy_ticks,
)

MARKET = MARKET_TICKS


DELISTED = UNIVERSE.instruments[0].model_copy(update={"instrument_token": 9, "symbol": "GONE"})
YESTERDAY = Universe(instruments=(DELISTED, *UNIVERSE.instruments))


class Feeder:
    """A strategy task and the offsets of what is pushed into it."""

    def __init__(self, service: Service[object] | None = None, resume: Resume | None = None) -> None:
        chain = Chain("toy_strategy", (service or ToyStrategy(),))
        sources = [Source(MARKET.name, 0, 0)]
        known = {one.digest: one for one in (UNIVERSE, YESTERDAY)}
        self.run = TaskRun(
            chain,
            TaskId("toy_strategy", "shared", 0),
            sources,
            known.get,
            starts={(MARKET.name, 0): 0},
            resume=resume,
        )
        self.offset = -1

    def push(self, event: Event, value: bytes | None = None) -> None:
        self.offset += 1
        content = value_of(event) if value is None else value
        self.run.receive(Received(MARKET.name, 0, self.offset, None, content, tuple(headers_of(event))))

    def push_ticks(self, until_ns: int, number: int = 0, universe: Universe = UNIVERSE) -> None:
        self.offset += 1
        ticks, cut = frames_of(toy_ticks(), until_ns)[number]
        frame = encode_tick_frame(ticks, universe, number, cut, SESSION)
        self.run.receive(Received(MARKET.name, 0, self.offset, None, frame.value, tuple(frame.headers)))

    def mark(self, after_open_ns: int, session: Session = SESSION, digest: str = UNIVERSE.digest) -> None:
        self.push(watermark(MARKET, 0, session, session.open_ns + after_open_ns, digest))

    def outputs(self) -> list[Event]:
        self.run.step()
        self.run.forward()
        return [o.event for o in self.run.take_outputs()]


def opened(service: Service[object] | None = None) -> Feeder:
    feeder = Feeder(service)
    feeder.mark(0)
    feeder.outputs()
    return feeder


def test_nothing_is_committed_before_the_first_session() -> None:
    feeder = Feeder()
    assert feeder.outputs() == []
    assert feeder.run.positions() == {}


def test_a_session_opens_with_a_watermark_at_its_open_and_the_control_records_of_it() -> None:
    feeder = Feeder()
    feeder.mark(0)
    opening, assigned = feeder.outputs()
    assert isinstance(opening, Watermark)
    assert (opening.event_time_ns, assigned.event_type) == (SESSION.open_ns, "strategy.model_assigned")
    position = feeder.run.positions()[MARKET.name, 0]
    assert (position.watermark_ns, position.session_open_offset, position.offset) == (OPEN_NS, 0, 1)


def test_a_new_group_begins_with_the_session_that_is_under_way() -> None:
    feeder = Feeder(resume=Resume(-1, NEXT_SESSION.open_ns))
    feeder.mark(0)
    feeder.push_ticks(30 * SECOND_NS)
    feeder.mark(61 * SECOND_NS)
    assert feeder.outputs() == []
    feeder.mark(0, NEXT_SESSION)
    assert [event.event_time_ns for event in feeder.outputs()] == [NEXT_SESSION.open_ns] * 2


def test_a_late_event_is_a_dead_letter_in_its_place() -> None:
    feeder = opened()
    feeder.mark(30 * SECOND_NS)
    feeder.push_ticks(10 * SECOND_NS)
    feeder.mark(40 * SECOND_NS)
    letters = [e for e in feeder.outputs() if isinstance(e, DeadLetter)]
    assert [(letter.offset, letter.event_time_ns) for letter in letters] == [(2, OPEN_NS + 30 * SECOND_NS)]
    assert "too late" in letters[0].failure
    assert feeder.run.dead_letters_of("toy_strategy") == 1


def test_a_universe_that_nobody_told_is_a_dead_letter_and_no_session() -> None:
    feeder = Feeder()
    feeder.mark(0, digest="0" * 64)
    assert "was never told" in feeder.run.merge.waiting_for() or not feeder.outputs()
    assert feeder.run.session is None


def test_a_frame_that_names_instruments_by_another_sessions_universe_is_a_dead_letter() -> None:
    feeder = opened()
    feeder.push_ticks(10 * SECOND_NS, universe=YESTERDAY)
    feeder.mark(20 * SECOND_NS)
    letters = [e for e in feeder.outputs() if isinstance(e, DeadLetter)]
    assert ["is not that of the session" in letter.failure for letter in letters] == [True]
    assert feeder.run.records_handled == 1


def test_a_backlog_is_handled_a_minute_at_a_time_and_comes_to_what_one_step_comes_to() -> None:
    session = Session(SESSION.date, OPEN_NS, OPEN_NS + 10 * MINUTE_NS)
    ticks = toy_ticks(session)
    whole, cut = Feeder(), Feeder()
    for feeder in (whole, cut):
        feeder.mark(0, session)
        feeder.outputs()
        for number, (part, watermark_ns) in enumerate(frames_of(ticks, 10 * SECOND_NS, session)):
            frame = encode_tick_frame(part, UNIVERSE, number, watermark_ns, session)
            feeder.offset += 1
            feeder.run.receive(Received(MARKET.name, 0, feeder.offset, None, frame.value, tuple(frame.headers)))
    assert whole.run.step()
    reached = []
    while not cut.run.step(lambda: False):
        reached.append(cut.run.now_ns)
    assert len(reached) >= 8
    assert all(before <= later < before + 1.5 * MINUTE_NS for before, later in pairwise(reached))
    assert cut.run.positions() == whole.run.positions()
    assert cut.outputs() == whole.outputs()


class Liar(ToyStrategy):
    """Answers with an event earlier than what it promised."""

    def handle(self, record: Record, state: object, now_ns: int) -> Iterable[Event]:
        if isinstance(record, EventRecord):
            yield from super().handle(record, state, now_ns)  # type: ignore[arg-type]
            return
        for event in super().handle(record, state, now_ns):  # type: ignore[arg-type]
            yield event.model_copy(update={"event_time_ns": SESSION.open_ns - 1})


class Stranger(ToyStrategy):
    """Says something on a topic it does not name."""

    outputs = (PAPER.signals_rejected,)


@pytest.mark.parametrize(("service", "failure"), [(Liar(), PromiseBroken), (Stranger(), UndeclaredOutput)])
def test_a_service_that_breaks_its_word_ends_the_process(service: Service[object], failure: type[Exception]) -> None:
    feeder = opened(service)
    feeder.push_ticks(10 * SECOND_NS)
    with pytest.raises(failure, match="toy_strategy"):
        feeder.outputs()


def test_a_bad_record_is_a_dead_letter_and_those_behind_it_go_on() -> None:
    feeder = opened()
    feeder.push(watermark(MARKET, 0, SESSION, OPEN_NS, UNIVERSE.digest), b"garbage")
    feeder.push_ticks(10 * SECOND_NS)
    outputs = feeder.outputs()
    assert [letter.offset for letter in outputs if isinstance(letter, DeadLetter)] == [1]
    assert sum(event.event_type == "signal.generated" for event in outputs) > 10 * 20 // 8


def account_opened(command_offset: int = -1) -> AccountOpened:
    return AccountOpened(
        **self_caused("account_opened", "paper", "2026-01-05"),
        broker="paper",
        event_time_ns=OPEN_NS,
        command_offset=command_offset,
        session_date="2026-01-05",
        config=AccountConfig(),
        config_digest="c",
        git_commit="g",
        starting_cash_inr_e4=1,
        cash_inr_e4=1,
        equity_inr=0.0001,
        positions=(),
        strategies=(),
    )


def test_a_control_record_is_of_the_task_that_its_header_names_and_of_its_topic() -> None:
    task, control = TaskId("account", "paper", 0), PAPER.control
    opened_account = account_opened()

    def read(value: bytes, *names: bytes) -> Event | NotUnderstood | None:
        return control_of(task, control, Received(control.name, 0, 7, None, value, [("task", name) for name in names]))

    ours = b"paper.account[0]"
    assert read(value_of(opened_account), ours) == opened_account
    assert read(value_of(opened_account), b"paper.account[1]") is None
    assert read(b"garbage") is None
    of_zerodha = opened_account.model_copy(update={"broker": "zerodha"})
    elsewhere = watermark(MARKET, 0, SESSION, OPEN_NS, UNIVERSE.digest)
    for value in (b"garbage", b"\xff", value_of(of_zerodha), value_of(elsewhere)):
        assert isinstance(read(value, ours), NotUnderstood)


def test_what_stands_among_a_tasks_control_records_under_its_name_is_told_once_its_session_has_begun() -> None:
    task, control = TaskId("account", "paper", 0), PAPER.control
    later = account_opened().model_copy(update={"event_time_ns": OPEN_NS + 2})
    own, ours = account_opened(), Stamp(control.writer, OPEN_NS, 0)
    values = (
        (b"garbage", ours),
        (value_of(own), ours),
        (b"garbage", ours),
        (value_of(own), None),
        (value_of(own), ours),
        (value_of(own), Stamp("another", OPEN_NS, 1)),
        (value_of(later), Stamp(control.writer, OPEN_NS, 1)),
    )
    records = [
        Received(control.name, 0, k, None, value, [("task", b"paper.account[0]"), *([stamp.header] if stamp else [])])
        for k, (value, stamp) in enumerate(values)
    ]
    found = own_control(task, control, records, Committed(0, OPEN_NS + 1, 0, OPEN_NS))
    assert found.events == (own,)
    assert [one.position.offset for one in found.foreign] == [2, 3, 4, 5, 6]
    assert own_control(task, control, records, Committed(0, OPEN_NS + 1, 0, OPEN_NS + 1)).events == ()


def test_a_group_that_began_anew_in_a_session_goes_on_from_its_own_control_records_only() -> None:
    task, control = TaskId("account", "paper", 0), PAPER.control

    def said(number: int, at_ns: int) -> Received:
        event = account_opened().model_copy(update={"event_time_ns": at_ns, "event_id": f"{number}"})
        headers = [("task", b"paper.account[0]"), Stamp(control.writer, OPEN_NS, number).header]
        return Received(control.name, 0, number, None, value_of(event), headers)

    former = [said(0, OPEN_NS), said(1, OPEN_NS + 2), said(2, OPEN_NS + 9)]
    begins = number_left_out(control, OPEN_NS, [one.headers for one in former])
    assert begins == 3
    assert number_left_out(control, OPEN_NS + 1, [one.headers for one in former]) is None
    own = [said(begins + 1, OPEN_NS), said(begins + 2, OPEN_NS + 4)]
    found = own_control(task, control, [*former, *own], Committed(0, OPEN_NS + 5, 0, OPEN_NS))
    assert [event.event_id for event in found.events] == ["4", "5"]
    assert found.foreign == ()


def test_what_a_person_let_stand_counts_only_where_it_was_typed_or_went_on_from() -> None:
    task, control, digest = TaskId("account", "paper", 0), PAPER.control, "a" * 64
    accepted = AccountDifferenceAccepted(
        **self_caused("accepted"),
        broker="paper",
        event_time_ns=OPEN_NS,
        session_date="2026-01-05",
        task=str(task),
        outputs_digest=digest,
        taken_as_said={},
        accepted_by="a person",
        accepted_at_ns=1,
        reason="a test",
    )
    headers = tuple(headers_of(accepted))
    records = [Received(control.name, 0, 0, None, value_of(accepted), headers)]

    def counted(said: SaidSoFar) -> tuple[Event, ...]:
        return own_control(task, control, records, Committed(0, OPEN_NS + 1, 0, OPEN_NS, said)).events

    assert counted(SaidSoFar(digest)) == (accepted,)
    assert counted(SaidSoFar("b" * 64, begun_with=accepted.event_id)) == (accepted,)
    assert counted(SaidSoFar("b" * 64)) == (), "the task has gone on since, and nobody has seen what differs now"
    assert counted(SaidSoFar("b" * 64, begun_with="another")) == ()


def test_what_a_person_lets_stand_is_no_strangers_on_the_accounts_own_topic() -> None:
    watch = InnerWatch(KafkaSettings(), {PAPER.control.name}, TaskId("account", "paper", 0))
    said = {"session_date": "2026-01-05", "outputs_digest": "d", "taken_as_said": {}, "accepted_by": "a person"}
    said |= {"accepted_at_ns": 1, "reason": "a test", "event_time_ns": OPEN_NS, "broker": "paper"}
    for task, foreign in (("paper.account[0]", 0), ("paper.account[1]", 1)):
        event = AccountDifferenceAccepted.model_validate(said | {"task": task} | self_caused("accepted", task))
        watch.look_at(Received(PAPER.control.name, 0, 7, None, value_of(event), tuple(headers_of(event))))
        assert watch.foreign_on({PAPER.control.name}) == foreign


class Listening(ToyStrategy):
    """Keeps what is bound to its log lines while it handles an event."""

    def __init__(self) -> None:
        super().__init__()
        self.bound: list[dict[str, object]] = []

    def handle(self, record: Record, state: object, now_ns: int) -> Iterable[Event]:
        if isinstance(record, EventRecord) and isinstance(record.event, MarketGap):
            self.bound.append(structlog.contextvars.get_contextvars())
            return ()
        return super().handle(record, state, now_ns)


def test_what_is_logged_while_an_event_is_handled_carries_its_correlation_id() -> None:
    service = Listening()
    feeder = opened(service)
    gap = MarketGap(broker="shared", **self_caused("gap"), event_time_ns=OPEN_NS + 1, until_ns=OPEN_NS + 2, reason="x")
    feeder.push(gap)
    feeder.mark(10 * SECOND_NS)
    feeder.outputs()
    assert service.bound == [{"correlation_id": gap.correlation_id}]
    assert structlog.contextvars.get_contextvars() == {}


# --- commands ---------------------------------------------------------------------------------------------------------


class Obeys(Service[list[str]]):
    """Answers each command by a control record, and remembers the records that came back."""

    name = "obeys"
    scope = "paper"
    inputs = (Input(MARKET), Input(PAPER.control, "control"), Input(PAPER.commands, "command"))
    outputs = ()
    single_task = True

    def open_session(self, opening: Opening[list[str]]) -> list[str]:
        return []

    def commanded(self, record: EventRecord, state: list[str], now_ns: int) -> Iterable[Event]:
        assert isinstance(record.event, TradingStateCommanded)
        yield answer(record.event.reason, record.position.offset, now_ns, seen=len(state))

    def handle(self, record: Record, state: list[str], now_ns: int) -> Iterable[Event]:
        if isinstance(record, EventRecord) and isinstance(record.event, TradingStateChanged):
            state.append(record.event.in_force.reason)
        return ()


def answer(reason: str, offset: int, at_ns: int, seen: int = 0) -> TradingStateChanged:
    return TradingStateChanged(
        **self_caused("answer", offset, at_ns),
        broker="paper",
        event_time_ns=at_ns,
        command_offset=offset,
        in_force=TradingStateInForce(
            strategy=None,
            state="HALTED",
            flatten=False,
            since_ns=at_ns,
            reason=reason,
            commanded_by=f"after {seen} others",
            commanded_at_ns=1,
        ),
    )


def command(reason: str, offset: int) -> EventRecord:
    event = TradingStateCommanded(
        **self_caused("command", reason),
        broker="paper",
        event_time_ns=1,
        commanded_at_ns=1,
        state="HALTED",
        reason=reason,
        commanded_by="test",
    )
    return EventRecord(event, LogPosition(PAPER.commands.name, 0, offset))


def answered(feeder: Feeder) -> list[tuple[str, str, int]]:
    return [
        (event.in_force.reason, event.in_force.commanded_by, event.event_time_ns - OPEN_NS)
        for event in feeder.outputs()
        if isinstance(event, TradingStateChanged)
    ]


def test_a_command_waits_for_a_session_and_is_answered_at_its_watermark_without_waiting_for_the_market() -> None:
    feeder = Feeder(Obeys())
    feeder.run.receive_command(command("before the open", 0))
    assert answered(feeder) == []
    feeder.mark(0)
    assert answered(feeder) == [("before the open", "after 0 others", 0)]
    feeder.mark(5 * SECOND_NS)
    assert answered(feeder) == []
    feeder.run.receive_command(command("while the market stalls", 1))
    assert answered(feeder) == [("while the market stalls", "after 1 others", 5 * SECOND_NS)]


def test_of_two_commands_of_one_step_the_second_is_answered_when_the_first_is_in_force() -> None:
    feeder = opened(Obeys())
    for offset, reason in enumerate(("first", "second")):
        feeder.run.receive_command(command(reason, offset))
    assert answered(feeder) == [("first", "after 0 others", 0), ("second", "after 1 others", 0)]


def test_a_successor_answers_what_its_control_records_do_not_answer_and_only_once_it_is_live() -> None:
    at_ns = OPEN_NS + 5 * SECOND_NS
    feeder = Feeder(Obeys(), Resume(at_ns, OPEN_NS, (answer("first", 0, at_ns),)))
    for offset, reason in enumerate(("first", "second")):
        feeder.run.receive_command(command(reason, offset))
    feeder.mark(0)
    assert answered(feeder) == []
    feeder.mark(5 * SECOND_NS)
    assert answered(feeder) == [("second", "after 1 others", 5 * SECOND_NS)]


def test_what_an_earlier_session_answered_is_known_by_the_record_that_carries_the_account_into_this_one() -> None:
    at_ns = OPEN_NS
    feeder = Feeder(Obeys(), Resume(at_ns, OPEN_NS, (account_opened(command_offset=0),)))
    for offset, reason in enumerate(("yesterday", "overnight")):
        feeder.run.receive_command(command(reason, offset))
    feeder.mark(0)
    assert answered(feeder) == [("overnight", "after 0 others", 0)]


@pytest.mark.parametrize("value", [b"halt!", value_of(watermark(MARKET, 0, SESSION, OPEN_NS, UNIVERSE.digest))])
def test_what_is_no_command_of_this_chain_is_a_dead_letter_once_and_nobody_waits_behind_it(value: bytes) -> None:
    record = Received(PAPER.commands.name, 0, 0, None, value, (("a", b"1"),))
    feeder = opened(Obeys())
    feeder.run.receive_command(command_of(record, PAPER.commands))
    feeder.run.receive_command(command("behind it", 1))
    letter, refused, *_ = outputs = feeder.outputs()
    assert isinstance(letter, DeadLetter)
    assert (letter.reason, letter.topic, letter.offset) == ("no_command", PAPER.commands.name, 0)
    assert [base64.b64decode(text) for text in (letter.value_base64, letter.headers_base64[0][1])] == [value, b"1"]
    assert isinstance(refused, CommandRefused)
    assert [e.in_force.reason for e in outputs if isinstance(e, TradingStateChanged)] == ["behind it"]
    successor = Feeder(Obeys(), Resume(OPEN_NS, OPEN_NS, (refused,)))
    successor.mark(0)
    successor.run.receive_command(command_of(record, PAPER.commands))
    assert [event.event_type for event in successor.outputs() if not isinstance(event, Watermark)] == []


@pytest.mark.parametrize("every", [1, 7])
def test_a_step_that_is_cut_into_parts_says_the_same_as_one_that_is_not(every: int) -> None:
    whole, cut = toy_market(SECOND_NS), toy_market(SECOND_NS)
    run_to_the_end([MemoryTask(lambda: Chain("toy_strategy", (ToyStrategy(),)), whole)])
    task = MemoryTask(lambda: Chain("toy_strategy", (ToyStrategy(),)), cut)
    calls = count(1)
    while task.is_behind:
        for key in task.next:
            task.fetch(key, 10)
        steps = 1
        while not task.run.step(lambda: next(calls) % every != 0):
            steps += 1
        assert steps > 1, "an instant with several outputs is not one part"
        task.commit()
    assert cut.events(PAPER.signals_raw) == whole.events(PAPER.signals_raw) != []
