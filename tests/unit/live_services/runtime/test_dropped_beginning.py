"""A session whose beginning Kafka has dropped is not run again in part."""

from __future__ import annotations

import pytest
from aiokafka import TopicPartition

from live_services.domain.log import TaskId
from live_services.runtime.failures import WrongShape
from live_services.runtime.handover import Committed, Resume
from live_services.runtime.takeover import require_whole_session

TASK = TaskId("account", "paper", 0)
TICKS = TopicPartition("market.ticks", 0)
COMMITTED = {("market.ticks", 0): Committed(900, 2_000, 700, 1_000)}
RESUME = Resume(2_000, 1_000)


def test_a_session_whose_beginning_kafka_has_dropped_is_not_run_again_in_part() -> None:
    require_whole_session(TASK, COMMITTED, {TICKS: 700}, RESUME)
    with pytest.raises(WrongShape, match=r"dropped the beginning of it on .*market\.ticks.*kafka\.retention_hours"):
        require_whole_session(TASK, COMMITTED, {TICKS: 701}, RESUME)


def test_a_snapshot_and_a_group_that_is_new_need_no_session_from_its_open() -> None:
    require_whole_session(TASK, COMMITTED, {TICKS: 701}, Resume(2_000, 1_000, snapshot={"now_ns": 2_000}))
    require_whole_session(TASK, COMMITTED, {TICKS: 701}, Resume(-1, 1_000))
