"""What a consumer group gave one of its members."""

from __future__ import annotations

from collections.abc import Collection

from aiokafka import ConsumerRebalanceListener, TopicPartition


class Assignment(ConsumerRebalanceListener):  # type: ignore[misc]
    """Records what the group gave this member, and nothing else: exceptions here are swallowed by the client."""

    def __init__(self) -> None:
        self.generation = 0
        """Changes whenever the group moves on."""
        self.is_settled = True
        """Whether the group is not shared out anew at this moment."""
        self.partitions: frozenset[TopicPartition] = frozenset()

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        """Note that the group is shared out anew; what this member has it may keep, or not."""
        self.generation += 1
        self.is_settled = False

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        """Note what is this member's now."""
        self.generation += 1
        self.is_settled = True
        self.partitions = frozenset(assigned)
