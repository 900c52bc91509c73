"""The market feed reports like any task."""

from __future__ import annotations

from live_services.adapters.health import TaskHealth
from live_services.adapters.telemetry import NoTelemetry
from live_services.services.feed_health import FeedHealth
from live_services.services.market_feed import FeedProgress
from tests.live_world import OPEN, SESSION


class Kept(NoTelemetry):
    def __init__(self) -> None:
        self.health: list[TaskHealth] = []

    def report(self, health: TaskHealth) -> None:
        self.health.append(health)


def test_it_reports_at_once_and_then_once_a_second_and_at_a_sessions_end() -> None:
    kept = Kept()
    feed = FeedHealth(kept)
    for rows in range(1, 50):
        feed(FeedProgress(SESSION, OPEN + rows, rows, 50, finished=False))
    feed(FeedProgress(SESSION, OPEN + 50, 50, 50, finished=True))
    first, *_, last = kept.health
    assert (str(first.task), first.session, first.live, first.last_output_s) == ("shared.market_feed[0]", "", True, 0.0)
    assert (last.watermark_ns, last.session, last.records_handled) == (OPEN + 50, SESSION.date.isoformat(), 50)
    assert last.last_output_s > 0
    assert len(kept.health) < 10
