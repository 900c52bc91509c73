from __future__ import annotations

import pytest
from aiokafka import TopicPartition

from live_services.domain.letters import FloodLimits
from live_services.runtime.failures import WrongShape
from live_services.runtime.handover import Committed
from live_services.runtime.positions import decode_position, encode_position
from live_services.runtime.said import SaidSoFar

PARTITION = TopicPartition("market.ticks", 0)
WHOLE = Committed(
    7,
    1_000,
    3,
    500,
    SaidSoFar("d" * 64, {"paper.signals.raw": 4}, begun_with="an accept"),
    numbers={"paper.signals.raw": 9, "paper.control": 0},
    flood=FloodLimits(3, 1.5),
)


@pytest.mark.parametrize("position", [WHOLE, Committed(7, -1, 7, -1)], ids=["of a session", "of a group that begins"])
def test_a_position_is_read_as_it_was_committed(position: Committed) -> None:
    written = encode_position(position)
    assert decode_position("group", PARTITION, written.offset, written.metadata) == position
    assert len(written.metadata) < 4_096  # Kafka's offset.metadata.max.bytes


@pytest.mark.parametrize("metadata", ["", "{}", "[]", '{"watermark_ns": 1}', '{"flood": [1]}'])
def test_what_this_runtime_did_not_commit_is_refused_by_name(metadata: str) -> None:
    with pytest.raises(WrongShape, match=r"group has an offset for market.ticks\[0\]"):
        decode_position("group", PARTITION, 7, metadata)
