from __future__ import annotations

import pytest

from live_services.domain.clock import read_session, session_end_ns, session_of, watermark
from live_services.domain.events import LAST_NS
from live_services.domain.topics import MARKET_TICKS
from tests.live_world import OPEN, SECOND, SESSION

END = SESSION.close_ns + SECOND


def test_a_watermark_tells_its_session_and_its_universe() -> None:
    event = watermark(MARKET_TICKS, 3, SESSION, OPEN + 1, "digest")
    assert (session_of(event), event.universe_digest, event.event_time_ns) == (SESSION, "digest", OPEN + 1)
    assert event.event_id == watermark(MARKET_TICKS, 3, SESSION, OPEN + 1, "other").event_id


@pytest.mark.parametrize("at_ns", [OPEN, END, END + 1, END + SECOND])
def test_a_watermark_reaches_from_the_open_to_the_end_and_as_far_as_a_stage_may_promise(at_ns: int) -> None:
    assert session_of(watermark(MARKET_TICKS, 0, SESSION, at_ns, "digest")) == SESSION


@pytest.mark.parametrize("at_ns", [0, OPEN - 1, END + SECOND + 1, LAST_NS])
def test_a_watermark_outside_its_session_is_refused(at_ns: int) -> None:
    with pytest.raises(ValueError, match="outside the session of 2026-01-05"):
        session_of(watermark(MARKET_TICKS, 0, SESSION, at_ns, "digest"))


@pytest.mark.parametrize(
    ("date", "open_ns", "close_ns", "complaint"),
    [
        ("today", OPEN, SESSION.close_ns, "isoformat"),
        ("2026-01-06", OPEN, SESSION.close_ns, "another day"),
        ("2026-01-05", OPEN, OPEN, "hours"),
        ("2026-01-05", -1, SESSION.close_ns, "hours"),
        ("2026-01-05", OPEN, OPEN + 86_400 * SECOND + 1, "hours"),
        ("2116-02-20", 2**62 - 1, 2**62 + 1, "hours"),
    ],
)
def test_a_session_that_cannot_be_is_refused(date: str, open_ns: int, close_ns: int, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        read_session(date, open_ns, close_ns)


def test_a_session_ends_a_second_after_its_close() -> None:
    assert session_end_ns(SESSION) == END
