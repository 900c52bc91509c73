from __future__ import annotations

import datetime as dt

import pytest

from feature_store.market.types import Session, Universe
from live_services.domain.clock import session_opened
from live_services.domain.events import FeedStarted
from live_services.domain.feeds import check_claim, feed_started, says_the_same

TODAY = session_opened(Session.regular(dt.date(2026, 1, 5)), Universe.from_symbols(["AAA"]))
TOMORROW = session_opened(Session.regular(dt.date(2026, 1, 6)), Universe.from_symbols(["AAA"]))


def feed(**other: object) -> FeedStarted:
    said: dict[str, object] = {
        "name": "box",
        "home": "/desk",
        "store": "/desk/store",
        "feed": "ticks",
        "frame_ms": 1000,
        "partitions": 1,
        "plays": "2026-01-05",
        "last_session": "2026-01-05",
    }
    return feed_started(**(said | other))  # type: ignore[arg-type]


FORMER = feed()
WHO = [{"name": "laptop"}, {"home": "/other"}, {"store": "/other/store"}]
HOW = [{"frame_ms": 250}, {"feed": "bars"}, {"partitions": 2}]
OTHER_DAYS = {"plays": "2026-01-06"}


def test_the_first_feed_and_the_same_feed_again_go_on_without_a_word() -> None:
    assert check_claim(FORMER, None, None, None, "") == ""
    assert check_claim(feed(at_ns=5), FORMER, TODAY, TODAY, "") == ""
    assert says_the_same(feed(at_ns=5), FORMER)


@pytest.mark.parametrize("other", WHO + HOW, ids=str)
def test_in_a_session_another_feed_is_refused_with_what_differs_and_the_way_out(other: dict[str, object]) -> None:
    refusal = check_claim(feed(**other), FORMER, TODAY, TODAY, "")
    (value,) = other.values()
    assert f"{value}, not " in refusal
    assert "box (home /desk) plays 2026-01-05 and has the session of 2026-01-05 under way" in refusal
    assert f'market.take_over = "{FORMER.event_id[:8]}"' in refusal
    assert check_claim(feed(**other), FORMER, TODAY, TODAY, FORMER.event_id[:8]) == ""


def test_a_feed_may_go_on_to_other_days_at_any_time_and_another_one_is_told_which_it_plays() -> None:
    assert check_claim(feed(**OTHER_DAYS), FORMER, TODAY, TODAY, "") == ""
    assert "sessions: 2026-01-06, not 2026-01-05" in check_claim(feed(**WHO[0], **OTHER_DAYS), FORMER, TODAY, TODAY, "")


@pytest.mark.parametrize("other", [*HOW, OTHER_DAYS], ids=str)
def test_between_two_sessions_a_feed_may_cut_or_play_otherwise(other: dict[str, object]) -> None:
    goes_on = feed(last_session="")
    assert check_claim(feed(**other), goes_on, None, TODAY, "") == ""


@pytest.mark.parametrize("other", WHO, ids=str)
def test_what_a_feed_has_not_ended_is_no_other_feeds(other: dict[str, object]) -> None:
    assert "has not ended" in check_claim(feed(**other), feed(last_session=""), None, TODAY, "")
    assert "has not ended" in check_claim(feed(**other), feed(last_session="2026-01-06"), None, TODAY, "")
    assert check_claim(feed(**other), feed(last_session="2026-01-06"), None, TOMORROW, "") == ""


def test_the_id_of_yet_another_feed_takes_nothing_over() -> None:
    for wrong in ("", FORMER.event_id[:3], feed(name="z").event_id):
        assert check_claim(feed(name="laptop"), FORMER, TODAY, TODAY, wrong) != ""


def test_records_of_feeds_that_cut_otherwise_have_other_stamps() -> None:
    assert len({feed(**other).source for other in [{}, *WHO, *HOW[:3]]}) == 7
    assert feed(plays="2026-01-06", at_ns=7).source == FORMER.source
