"""Who of a group gets which partitions: what somebody has, he keeps.

A task has partition i of every topic, and a service that is one task has all of them. Moving a task costs a re-run, so
members say which tasks they have, and a newcomer gets only what makes the shares even.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, ClassVar, Final

from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata

# Wall clock: it only ranks members by age, so that a newcomer does not take over from one that works.
_STARTED: Final = f"{time.time_ns():020d}"


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
        return ConsumerProtocolMemberMetadata(cls.version, list(topics), _STARTED.encode())

    @classmethod
    def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Nothing is kept between assignments."""


class TasksAssignor(AbstractPartitionAssignor):  # type: ignore[misc]
    """Shares tasks out evenly, and moves as few as that needs; see `tasks_assignor`."""

    name = "alpha-panda-tasks"
    version = 0
    tasks: ClassVar[Callable[[], Collection[int]]]
    """Gives the tasks that this member has."""

    @classmethod
    def assign(
        cls, cluster: Any, members: Mapping[str, ConsumerProtocolMemberMetadata]
    ) -> dict[str, ConsumerProtocolMemberAssignment]:
        """Assign to each member the same partitions of every topic."""
        topics = sorted({topic for member in members.values() for topic in member.subscription})
        partitions = {topic: frozenset(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        said = {member: json.loads(metadata.user_data) for member, metadata in members.items()}
        eldest_first = sorted(said, key=lambda member: (said[member]["started"], member))
        shares = shared_evenly(
            sorted(frozenset().union(*partitions.values())),
            {member: said[member]["tasks"] for member in eldest_first},
        )
        return {
            member: ConsumerProtocolMemberAssignment(
                cls.version, [(topic, sorted(partitions[topic] & share)) for topic in topics], b""
            )
            for member, share in shares.items()
        }

    @classmethod
    def metadata(cls, topics: Iterable[str]) -> ConsumerProtocolMemberMetadata:
        """Say what this member wants, which tasks it has, and when it started."""
        said = {"started": _STARTED, "tasks": sorted(cls.tasks())}
        return ConsumerProtocolMemberMetadata(cls.version, list(topics), json.dumps(said).encode())

    @classmethod
    def on_assignment(cls, assignment: ConsumerProtocolMemberAssignment) -> None:
        """Nothing is kept here: what runs is asked for at the next assignment."""


def tasks_assignor(tasks: Callable[[], Collection[int]]) -> type[TasksAssignor]:
    """Give the assignor of one member; the client takes a class, and what a member has is the member's own.

    Parameters
    ----------
    tasks : callable
        Gives the indices of the tasks that it has.
    """
    return type("TasksAssignor", (TasksAssignor,), {"tasks": staticmethod(tasks)})


def shared_evenly(tasks: Collection[int], had: Mapping[str, Collection[int]]) -> dict[str, set[int]]:
    """Share tasks out among members, so that no two shares differ by more than one task and few of them move.

    Parameters
    ----------
    tasks : collection of int
        In ascending order.
    had : mapping of str to collection of int
        By member, what it has; of two that say the same, the first is believed.
    """
    share, more = divmod(len(tasks), len(had))
    free, shares = set(tasks), dict[str, set[int]]()
    for member, own in had.items():
        kept = sorted(free.intersection(own))[: share + (more > 0)]
        more -= len(kept) > share
        free.difference_update(kept)
        shares[member] = set(kept)
    for task in sorted(free):
        fewest = min(shares, key=lambda member: len(shares[member]))
        shares[fewest].add(task)
    return shares
