"""Partition assignment of services that are one task: one member owns everything, the others stand by."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Any, Final

from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

# Wall clock: it only ranks members by age, so that a newcomer does not take over from one that works.
_STARTED: Final = f"{time.time_ns():020d}".encode()


class OneMemberAssignor(AbstractPartitionAssignor):  # type: ignore[misc]
    """Gives all partitions of all topics to the member that started first."""

    name = "alpha-panda-one-member"
    version = 0

    @classmethod
    def assign(
        cls, cluster: Any, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Assign everything to the eldest member, nothing to the others."""
        eldest = min(members, key=lambda member: (members[member].user_data, member))
        topics = sorted(members[eldest].subscription)
        everything = [(topic, sorted(cluster.partitions_for_topic(topic) or ())) for topic in topics]
        return {
            member: ConsumerProtocolMemberAssignment(cls.version, everything if member == eldest else [], b"")
            for member in members
        }

    @classmethod
    def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """Say what this member wants and when it started."""
        return ConsumerProtocolMemberMetadata(cls.version, list(topics), _STARTED)

    @classmethod
    def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Nothing is kept between assignments."""
