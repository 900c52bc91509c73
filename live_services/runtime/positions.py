"""What a commit says of each input partition: an offset, with the rest as its metadata."""

from __future__ import annotations

import json
from collections.abc import Mapping

from aiokafka import OffsetAndMetadata, TopicPartition

from live_services.domain.letters import FloodLimits
from live_services.runtime.failures import WrongShape
from live_services.runtime.handover import Committed, TopicPartitionKey
from live_services.runtime.said import SaidSoFar


def watermark_of(positions: Mapping[TopicPartitionKey, Committed]) -> int | None:
    """Give the watermark that the partitions were committed at; None before the first commit."""
    return next((p.watermark_ns for p in positions.values()), None)


def encode_position(position: Committed) -> OffsetAndMetadata:
    """Write what a commit says of a partition, as an offset with metadata."""
    metadata = {
        "watermark_ns": position.watermark_ns,
        "session_open_offset": position.session_open_offset,
        "session_open_ns": position.session_open_ns,
        "outputs_digest": position.said.digest,
        "outputs": dict(position.said.counts),
        "accepted": position.said.begun_with,
        "numbers": dict(position.numbers),
        "flood": position.flood,
    }
    return OffsetAndMetadata(position.offset, json.dumps(metadata))


def decode_position(group: str, tp: TopicPartition, offset: int, metadata: str) -> Committed:
    """Read what a commit said of a partition.

    Raises
    ------
    WrongShape
        If this runtime did not write it.
    """
    try:
        fields = json.loads(metadata)
        return Committed(
            offset,
            int(fields["watermark_ns"]),
            int(fields["session_open_offset"]),
            int(fields["session_open_ns"]),
            SaidSoFar(
                str(fields["outputs_digest"]),
                {topic: int(count) for topic, count in fields["outputs"].items()},
                str(fields["accepted"]),
            ),
            {topic: int(number) for topic, number in fields["numbers"].items()},
            None if fields["flood"] is None else FloodLimits(int(fields["flood"][0]), float(fields["flood"][1])),
        )
    except (ValueError, TypeError, KeyError, AttributeError) as cause:
        raise WrongShape(
            f"group {group} has an offset for {tp.topic}[{tp.partition}] that this runtime did not commit "
            f"(metadata {metadata!r}): delete the group's offsets to start from the earliest record"
        ) from cause
