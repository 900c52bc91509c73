"""How the market feed is, from what it says of its progress."""

from __future__ import annotations

import os
import time
from typing import Final

from live_services.adapters.health import TaskHealth
from live_services.adapters.telemetry import Telemetry
from live_services.domain.log import TaskId
from live_services.services.market_feed import FeedProgress

FEED: Final = TaskId("market_feed", "shared", 0)
_REPORT_SECONDS: Final = 1.0


class FeedHealth:
    """Takes the feed's progress, and reports it as the health of a task about once a second.

    It begins with the word that the feed runs and has said nothing yet.
    """

    def __init__(self, telemetry: Telemetry) -> None:
        self._telemetry = telemetry
        self._reported = 0.0
        self._report(0, "", 0, 0.0)

    def __call__(self, progress: FeedProgress) -> None:
        """Take how far the feed has come."""
        if progress.finished or time.monotonic() - self._reported >= _REPORT_SECONDS:
            date = progress.session.date.isoformat()
            self._report(progress.watermark_ns, date, progress.rows_sent, time.time())

    def _report(self, watermark_ns: int, session: str, rows: int, last_output_s: float) -> None:
        self._reported = time.monotonic()
        health = TaskHealth(FEED, watermark_ns, session, True, rows, {}, 0, 0, 0, "", os.getpid(), None, last_output_s)
        self._telemetry.report(health)
