from __future__ import annotations

import pytest
from pydantic import ValidationError

from live_services.adapters.retention import FOR_EVER, retention_ms, retention_text
from live_services.preflight.kafka import judged_retention
from live_services.settings import KafkaSettings

WEEK = KafkaSettings(retention_hours=168)
WEEK_MS = 168 * 3_600_000


def test_topics_keep_their_records_for_ever_unless_a_setting_says_otherwise() -> None:
    assert retention_ms(KafkaSettings(), "market.ticks") == FOR_EVER
    assert retention_ms(WEEK, "market.ticks") == WEEK_MS


@pytest.mark.parametrize(
    "name", ["market.sessions", "strategies.control", "paper.control", "paper.commands", "market.ticks.dlq"]
)
def test_what_a_day_was_and_what_waits_for_a_person_stays_whatever_the_setting(name: str) -> None:
    assert retention_ms(WEEK, name) == FOR_EVER


def test_a_retention_that_a_session_could_outlive_is_refused() -> None:
    with pytest.raises(ValidationError, match="write 0, which is for ever, or at least 168"):
        KafkaSettings(retention_hours=24)


def test_preflight_says_in_one_line_what_is_kept_and_names_topics_that_keep_it_otherwise() -> None:
    assert judged_retention(KafkaSettings(), {"market.ticks": FOR_EVER}).reason == (
        "topics keep their records for ever (kafka.retention_hours)"
    )
    right = judged_retention(WEEK, {"market.ticks": WEEK_MS, "paper.control": FOR_EVER})
    assert (right.status, retention_text(WEEK_MS) in right.reason) == ("ok", True)
    wrong = judged_retention(WEEK, {"market.ticks": FOR_EVER, "paper.control": FOR_EVER})
    assert (wrong.status, wrong.policy) == ("warning", "advice")
    assert "market.ticks for ever" in wrong.reason
    assert "paper.control" not in wrong.reason
