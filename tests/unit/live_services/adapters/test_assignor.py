"""Who of a group gets which tasks."""

from __future__ import annotations

from live_services.adapters.assignor import shared_evenly, tasks_assignor


class _Cluster:
    def partitions_for_topic(self, topic: str) -> set[int]:
        return {0, 1, 2, 3}


def test_the_only_member_has_every_task() -> None:
    assert shared_evenly(range(4), {"a": ()}) == {"a": {0, 1, 2, 3}}


def test_a_newcomer_gets_what_makes_the_shares_even_and_the_others_keep_the_rest() -> None:
    two = shared_evenly(range(4), {"a": (0, 1, 2, 3), "b": ()})
    assert two == {"a": {0, 1}, "b": {2, 3}}
    three = shared_evenly(range(4), two | {"c": set()})
    assert [len(share) for share in three.values()] == [2, 1, 1]
    assert three["a"] == two["a"]
    assert three["b"] < two["b"]


def test_who_stays_keeps_what_he_has_and_takes_over_the_tasks_of_who_leaves() -> None:
    assert shared_evenly(range(4), {"b": (2, 3), "c": (1,)}) == {"b": {2, 3}, "c": {0, 1}}


def test_of_two_that_say_they_have_a_task_the_first_is_believed() -> None:
    shares = shared_evenly(range(2), {"elder": (1,), "younger": (1,)})
    assert shares == {"elder": {1}, "younger": {0}}


def test_more_members_than_tasks_stand_by_with_none() -> None:
    assert sorted(len(share) for share in shared_evenly(range(2), {"a": (), "b": (), "c": ()}).values()) == [0, 1, 1]


def test_a_member_has_the_same_partitions_of_every_topic() -> None:
    one, other = tasks_assignor(lambda: (3,)), tasks_assignor(lambda: ())
    said = {"m2": one.metadata(["x", "y"]), "m1": other.metadata(["x", "y"])}
    given = one.assign(_Cluster(), said)
    shares = {member: dict(assignment.assignment) for member, assignment in given.items()}
    assert all(share["x"] == share["y"] for share in shares.values())
    assert 3 in shares["m2"]["x"]
    assert sorted(shares["m1"]["x"] + shares["m2"]["x"]) == [0, 1, 2, 3]
