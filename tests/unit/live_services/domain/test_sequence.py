from __future__ import annotations

import datetime as dt

import pytest

from feature_store.market.types import Session
from live_services.domain.clock import session_end_ns
from live_services.domain.sequence import Numbering, Stamp, stamp_of

TODAY = Session.regular(dt.date(2026, 1, 5))
TOMORROW = Session.regular(dt.date(2026, 1, 6))
FEED = "0123456789abcdef"


class Reader:
    """A partition whose watermark is where a test says."""

    def __init__(self) -> None:
        self.numbering = Numbering()
        self.reached_ns = -1

    def read(
        self,
        number: int | None,
        session: Session = TODAY,
        source: str = FEED,
        told: str | None = FEED,
        says_ns: int = -1,
    ) -> str:
        stamp = None if number is None else Stamp(source, session.open_ns, number)
        self.numbering, refusal = self.numbering.after(stamp, session, told, self.reached_ns, says_ns)
        return refusal


def test_a_stamp_is_read_from_the_header_that_it_is_written_to() -> None:
    stamp = Stamp(FEED, TODAY.open_ns, 41)
    assert stamp_of([("event_type", b"x"), stamp.header]) == stamp
    assert stamp_of([]) is None


@pytest.mark.parametrize("junk", [b"", b"a 1", b"a -1 2", b" 1 2", b"a 1 2 3", b"a 1 " + b"9" * 30, b"\xff" * 400])
def test_a_header_that_is_no_stamp_is_none(junk: bytes) -> None:
    assert stamp_of([("ingress", junk)]) is None


def test_the_records_of_a_session_are_believed_one_after_another() -> None:
    reader = Reader()
    assert [reader.read(number) for number in range(5)] == [""] * 5


def test_what_is_not_next_is_refused_and_the_next_one_is_still_believed() -> None:
    reader = Reader()
    for number in range(3):
        reader.read(number)
    assert "was here before: 3 is next" in reader.read(1)
    assert "what lies between is missing" in reader.read(9)
    assert "comes from 'another'" in reader.read(3, source="another")
    assert "no stamp" in reader.read(None)
    assert reader.read(3) == ""


def test_a_feed_is_believed_again_from_the_second_record_behind_a_hole() -> None:
    reader = Reader()
    reader.read(0)
    assert "missing" in reader.read(5)
    assert [reader.read(number) for number in (6, 7)] == ["", ""]


def test_two_jumps_of_different_strangers_do_not_make_a_sequence() -> None:
    reader = Reader()
    reader.read(0)
    for number in (5, 9, 7, 2):
        assert "missing" in reader.read(number)
    assert reader.read(1) == ""


def test_a_later_session_begins_behind_the_end_of_this_one_and_with_its_first_record() -> None:
    reader = Reader()
    reader.read(0)
    reader.reached_ns = TODAY.close_ns
    assert "begins before the end" in reader.read(0, TOMORROW)
    assert reader.read(1) == ""
    reader.reached_ns = session_end_ns(TODAY)
    assert "0 is next" in reader.read(4, TOMORROW)
    assert reader.read(0, TOMORROW) == ""
    assert "a later one was begun" in reader.read(2)


def test_a_session_whose_end_stands_behind_a_hole_is_over_when_the_next_one_begins() -> None:
    reader = Reader()
    reader.read(0)
    assert "missing" in reader.read(5, says_ns=session_end_ns(TODAY))
    assert "comes from 'another'" in reader.read(0, TOMORROW, source="another")
    assert reader.read(0, TOMORROW) == ""
    assert reader.read(1, TOMORROW) == ""


def test_a_jump_that_is_not_the_end_of_a_session_ends_none() -> None:
    reader = Reader()
    reader.read(0)
    for says_ns in (-1, session_end_ns(TODAY) - 1):
        assert "missing" in reader.read(5, says_ns=says_ns)
        assert "begins before the end" in reader.read(0, TOMORROW)
    reader.read(5, says_ns=session_end_ns(TODAY))
    assert "0 is next" in reader.read(3, TOMORROW), "it does not begin with its first record"


def test_a_reader_whose_log_begins_in_the_middle_of_a_session_takes_its_first_record() -> None:
    reader = Reader()
    assert [reader.read(number) for number in (40, 41)] == ["", ""]
    assert reader.read(0) != ""


def test_a_session_that_nobody_stamps_takes_records_without_a_stamp_only() -> None:
    reader = Reader()
    assert [reader.read(None, told="") for _ in range(3)] == [""] * 3
    assert reader.read(3, told="") != ""


def test_where_nobody_knows_who_told_a_session_its_first_record_decides() -> None:
    reader = Reader()
    assert reader.read(0, source="gateway", told=None) == ""
    assert reader.read(1, told=None) != ""
    assert reader.read(1, source="gateway", told=None) == ""


def test_the_stamp_of_another_session_is_no_stamp_of_this_one() -> None:
    stamp = Stamp(FEED, TOMORROW.open_ns, 0)
    assert "another session" in Numbering().after(stamp, TODAY, FEED, -1)[1]
