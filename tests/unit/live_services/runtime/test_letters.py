"""Dead letters of the account and of the strategies on a log in memory: floods, and records that are handed in."""

from __future__ import annotations

import pytest
import structlog

from live_services.domain.basis import Stamp
from live_services.domain.clock import session_end_ns, watermark
from live_services.domain.events import (
    DEAD_LETTERS,
    TASK_HEADER,
    CommandRefused,
    DeadLetter,
    Event,
    OrderSubmitted,
    RecordHandedIn,
    RecordTaken,
    SignalRejected,
    TradingState,
    TradingStateChanged,
    TradingStateCommanded,
    self_caused,
    value_of,
)
from live_services.domain.frames import encode_tick_frame
from live_services.domain.topics import MARKET_SESSIONS, MARKET_TICKS, Topic, broker_topics
from live_services.operations_settings import DeadLettersSettings
from live_services.runtime.chain import Chain
from live_services.runtime.local import MemoryLog, MemoryTask, run_to_the_end
from live_services.services.account import account_chain
from tests.account_world import limits
from tests.live_world import OPEN, SECOND, SESSION, UNIVERSE, signal, ticks
from tests.toy_chain import session_opened

PAPER = broker_topics("paper")
FLOOD = DeadLettersSettings(flood_letters=5, flood_seconds=60.0)


class Desk:
    """An account and what comes to it, by seconds after the open."""

    def __init__(self) -> None:
        self.log = MemoryLog()
        self.log.append_event(MARKET_SESSIONS, 0, session_opened(SESSION, UNIVERSE))
        self.task = MemoryTask(_account, self.log, dead_letters=FLOOD)
        self._frames = 0
        self.until(0)

    def until(self, seconds: float, *rows: tuple[int, float, float], proposals: tuple[Event, ...] = ()) -> None:
        at_ns = OPEN + round(seconds * SECOND)
        for proposal in proposals:
            self.log.append_event(PAPER.signals_raw, 0, proposal)
        if rows:
            frame = encode_tick_frame(ticks(*rows), UNIVERSE, self._frames, at_ns, SESSION)
            self.log.append(MARKET_TICKS.name, 0, *frame)
            self._frames += 1
        for topic in (MARKET_TICKS, PAPER.signals_raw):
            if not rows or topic != MARKET_TICKS:
                self.log.append_event(topic, 0, watermark(topic, 0, SESSION, at_ns, UNIVERSE.digest))
        self.work()

    def work(self) -> None:
        run_to_the_end([self.task])

    def garbage(self, count: int, topic: Topic = PAPER.signals_raw) -> None:
        for k in range(count):
            self.log.append(topic.name, 0, b"garbage %d" % k, ())

    def states(self) -> list[tuple[TradingState, str]]:
        changes = [e for e in self.log.events(PAPER.control) if isinstance(e, TradingStateChanged)]
        return [(change.in_force.state, change.in_force.commanded_by) for change in changes]

    def letters(self, topic: Topic = PAPER.signals_raw) -> list[DeadLetter]:
        return [e for e in self.log.events(topic.dlq) if isinstance(e, DeadLetter)]


def _account() -> Chain:
    return account_chain("paper", MARKET_TICKS, limits(), Stamp())


def commanded(state: TradingState, number: int = 0) -> TradingStateCommanded:
    return TradingStateCommanded(
        **self_caused("command", state, number),
        broker="paper",
        event_time_ns=1,
        commanded_at_ns=1,
        commanded_by="a person",
        reason="any",
        state=state,
    )


def handed_in(letter_id: str, number: int) -> RecordHandedIn:
    fields = commanded("HALTED").model_dump() | self_caused("handed_in", number) | {"event_type": "record.handed_in"}
    fields = {name: fields[name] for name in RecordHandedIn.model_fields if name in fields}
    return RecordHandedIn.model_validate(fields | {"letter_id": letter_id, "record": commanded("HALTED")})


# --- floods -----------------------------------------------------------------------------------------------------------


def test_a_flood_halts_the_account_once_with_its_reason_and_every_letter_is_kept() -> None:
    desk = Desk()
    desk.garbage(4)
    desk.until(10)
    assert desk.states() == []
    desk.garbage(40)
    desk.until(20)
    desk.garbage(40)
    desk.until(30, proposals=(signal(0, 25),))
    assert desk.states() == [("HALTED", DEAD_LETTERS)]
    (halted,) = [e for e in desk.log.events(PAPER.control) if isinstance(e, TradingStateChanged)]
    assert "5 records within 60 s could not be handled, the last of them paper.signals.raw[0]" in halted.in_force.reason
    assert [e.rule for e in desk.log.events(PAPER.signals_rejected) if isinstance(e, SignalRejected)] == [
        "trading_state"
    ]
    assert len(desk.letters()) == 84


def test_what_an_account_could_not_read_is_counted_once_by_the_services_that_health_names() -> None:
    desk = Desk()
    desk.garbage(3)
    desk.garbage(2, PAPER.commands)
    desk.until(10)
    counted = {one.name: desk.task.run.dead_letters_of(one.name) for one in _account().services}
    assert counted == {"risk_manager": 5, "paper_trading": 0, "portfolio_manager": 0}


def test_a_flood_of_the_market_halts_it_as_well_and_one_of_commands_does_not() -> None:
    desk = Desk()
    desk.garbage(50, PAPER.commands)
    desk.until(10)
    assert (desk.states(), len(desk.letters(PAPER.commands))) == ([], 50)
    desk.garbage(5, MARKET_TICKS)
    desk.until(20)
    assert desk.states() == [("HALTED", DEAD_LETTERS)]


@pytest.mark.parametrize("killed", [False, True])
def test_who_resumes_during_a_flood_is_not_halted_again_by_it_and_by_the_next_one_is(killed: bool) -> None:
    desk = Desk()
    desk.garbage(9)
    desk.until(10)
    desk.log.append_event(PAPER.commands, 0, commanded("ACTIVE"))
    desk.work()
    if killed:
        desk.task.kill()
        desk.work()
    desk.garbage(9)
    desk.until(20, proposals=(signal(0, 15),))
    assert desk.states() == [("HALTED", DEAD_LETTERS), ("ACTIVE", "a person")]
    assert [e for e in desk.log.events(PAPER.orders_submitted) if isinstance(e, OrderSubmitted)]
    desk.until(200)
    desk.garbage(1)
    desk.until(201)
    desk.garbage(4)
    desk.until(202)
    assert [state for state, _ in desk.states()] == ["HALTED", "ACTIVE", "HALTED"]


def test_a_flood_that_a_killed_process_did_not_commit_halts_its_successor() -> None:
    desk = Desk()
    desk.garbage(9)
    for topic in (MARKET_TICKS, PAPER.signals_raw):
        desk.log.append_event(topic, 0, watermark(topic, 0, SESSION, OPEN + 10 * SECOND, UNIVERSE.digest))
    for key in desk.task.next:
        desk.task.fetch(key, 100)
    desk.task.step()
    desk.task.commit()  # the letters; what they bring about comes with the next step
    assert (len(desk.letters()), desk.states()) == (9, [])
    desk.task.kill()
    desk.work()
    assert (len(desk.letters()), desk.states()) == (9, [("HALTED", DEAD_LETTERS)])


def test_of_a_service_that_fails_again_and_again_a_flood_is_logged_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("live_services.domain.account.risk.RiskState.propose", fails)
    desk = Desk()
    with structlog.testing.capture_logs() as lines:
        desk.until(50, proposals=tuple(signal(0, at) for at in range(1, 40)))
    assert (len(desk.letters()), {letter.reason for letter in desk.letters()}) == (39, {"failed"})
    assert len([line for line in lines if line["event"] == "record_failed"]) == 5
    assert desk.states() == [("HALTED", DEAD_LETTERS)]


# --- failures that are no record's ------------------------------------------------------------------------------------


def fails(*_: object) -> None:
    raise ZeroDivisionError("by nothing")


@pytest.mark.parametrize(
    ("at_fault", "topic", "reason"),
    [
        ("live_services.domain.account.books.Books.on_prices", MARKET_TICKS, "failed"),
        ("live_services.services.portfolio_manager.PortfolioManager.fire", PAPER.orders_submitted, "timer"),
        ("live_services.domain.account.paper_exchange.PaperExchange.first_answer", MARKET_TICKS, "failed"),
        ("live_services.domain.account.books.Books.open_from", PAPER.control, "control"),
    ],
)
def test_a_service_that_fails_halts_its_account_once_and_ends_no_process_now_or_later(
    monkeypatch: pytest.MonkeyPatch, at_fault: str, topic: Topic, reason: str
) -> None:
    monkeypatch.setattr(at_fault, fails)
    desk = Desk()
    with structlog.testing.capture_logs() as lines:
        desk.until(10, (0, 5, 100.0), proposals=(signal(0, 4),))
        desk.until(20, (0, 15, 100.0))
        for _ in range(2):
            desk.task.kill()
            desk.work()
        desk.until((session_end_ns(SESSION) - OPEN) / SECOND)
    assert desk.task.run.live
    assert {letter.reason for letter in desk.letters(topic)} == {reason}
    (halted,) = [e for e in desk.log.events(PAPER.control) if isinstance(e, TradingStateChanged)]
    assert (halted.in_force.state, halted.in_force.commanded_by) == ("HALTED", DEAD_LETTERS)
    assert "failed, so what it goes on from may be wrong: " in halted.in_force.reason
    assert any(line.get("consequence", "").startswith("ALARM") for line in lines if line["event"] == "service_failed")
    assert len([e for e in desk.log.events(PAPER.control) if e.event_type == "account.opened"]) == 1


def test_a_command_that_a_service_fails_on_is_refused_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("live_services.services.risk_manager.RiskManager.commanded", fails)
    desk = Desk()
    desk.until(10)
    desk.log.append_event(PAPER.commands, 0, commanded("HALTED"))
    for _ in range(3):
        desk.work()
        desk.task.kill()
    desk.work()
    (refused,) = [e for e in desk.log.events(PAPER.control) if isinstance(e, CommandRefused)]
    assert refused.refusal == "it failed: ZeroDivisionError: by nothing"
    assert [letter.reason for letter in desk.letters(PAPER.commands)] == ["failed"]


def test_a_session_keeps_the_limits_that_it_was_opened_with_and_a_letter_of_a_restart_is_no_part_of_its_flood() -> None:
    desk = Desk()
    desk.garbage(FLOOD.flood_letters - 1)
    desk.until(10)
    desk.log.append(PAPER.control.name, 0, value_of(signal()), [(TASK_HEADER, b"paper.account[0]")])
    desk.task._dead_letters = DeadLettersSettings(flood_letters=1)
    for _ in range(3):
        desk.task.kill()
        desk.work()
    assert [letter.reason for letter in desk.letters(PAPER.control)] == ["control"] * 3
    assert desk.states() == [], "neither one more of a restart nor what the settings say by now makes a flood"
    desk.garbage(1)
    desk.until(11)
    assert desk.states() == [("HALTED", DEAD_LETTERS)]


# --- records that are handed in ---------------------------------------------------------------------------------------


def test_a_record_that_is_handed_in_counts_from_the_present_watermark_on_and_once_over_kills_and_sessions() -> None:
    desk = Desk()
    desk.until(10)
    for number in range(2):
        desk.log.append_event(PAPER.commands, 0, handed_in("letter-1", number))
        desk.work()
        desk.task.kill()
        desk.work()
    control = desk.log.events(PAPER.control)
    taken = [e for e in control if isinstance(e, RecordTaken)]
    assert [(e.letter_id, e.event_time_ns) for e in taken] == [("letter-1", OPEN + 10 * SECOND)]
    assert desk.states() == [("HALTED", "a person")]
    (refused,) = [e for e in control if isinstance(e, CommandRefused)]
    assert refused.refusal == "the dead letter letter-1 was handed in before"
    desk.until((session_end_ns(SESSION) - OPEN) / SECOND)
    assert desk.task.run._state.of[-1].books.handed_in == ("letter-1",)  # type: ignore[union-attr]
