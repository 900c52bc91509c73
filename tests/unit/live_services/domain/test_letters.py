"""When dead letters are a flood."""

from __future__ import annotations

from live_services.domain.letters import LetterFlood

SECOND = 1_000_000_000


def test_so_many_letters_within_so_many_seconds_are_a_flood_and_fewer_or_slower_ones_are_not() -> None:
    quick, slow = LetterFlood(3, 10.0), LetterFlood(3, 10.0)
    assert [quick.begins_with(at * SECOND) for at in (0, 5, 10)] == [False, False, True]
    assert [slow.begins_with(at * SECOND) for at in (0, 6, 12, 18, 24)] == [False] * 5


def test_a_flood_that_goes_on_does_not_begin_again_and_one_that_has_ceased_may() -> None:
    flood = LetterFlood(2, 1.0)
    assert [flood.begins_with(at * SECOND) for at in (0, 1, 2, 9, 9)] == [False, True, False, False, True]


def test_a_letter_of_an_earlier_time_than_the_last_one_counts_at_the_time_of_the_last_one() -> None:
    flood = LetterFlood(2, 1.0)
    assert [flood.begins_with(at * SECOND) for at in (100, 0)] == [False, True]


def test_of_any_number_of_letters_no_more_is_remembered_than_a_flood_needs() -> None:
    flood = LetterFlood(3, 1.0)
    for at in range(1000):
        flood.begins_with(at)
    assert len(flood._times) == 3
