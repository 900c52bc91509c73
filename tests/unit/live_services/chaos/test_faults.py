"""Which faults are chosen."""

from __future__ import annotations

import itertools

from live_services.chaos.faults import LONG_FREEZE_S, SHORT_FREEZE_S, Episode, episodes
from live_services.settings import RuntimeSettings

TARGETS = ("market_feed", "strategy_runner", "kafka", "valkey")


def first(count: int, seed: int = 1) -> list[Episode]:
    return list(itertools.islice(episodes(seed, TARGETS, ("strategy_runner",)), count))


def test_a_seed_repeats_its_faults_and_another_gives_others():
    assert first(50) == first(50)
    assert first(50) != first(50, seed=2)


def test_every_kind_meets_every_process_alone_before_one_comes_again():
    alone = [episode.injuries[0] for episode in first(40) if episode.alone][:17]
    pairs = {(injury.kind, injury.target) for injury in alone}
    kinds = ("kill", "freeze", "long freeze", "slow")
    assert pairs == {*itertools.product(kinds, TARGETS), ("join", "strategy_runner")}


def test_every_third_time_several_processes_suffer_at_once_or_one_dies_twice():
    third = first(90)[2::3]
    assert all(not episode.alone for episode in third)
    again = [episode for episode in third if len({injury.target for injury in episode.injuries}) == 1]
    whole = [episode for episode in third if {injury.target for injury in episode.injuries} == set(TARGETS)]
    assert again and all(injury.kind == "kill" for episode in again for injury in episode.injuries)
    assert whole and all(injury.kind == "kill" for episode in whole for injury in episode.injuries)


def test_freezes_are_shorter_than_every_timeout_or_longer():
    longest_s = max(6.0, RuntimeSettings().transaction_timeout_ms / 1000)
    assert SHORT_FREEZE_S[1] < 6.0
    assert LONG_FREEZE_S[0] > longest_s


def test_an_episode_says_what_it_is():
    episode = next(one for one in first(90)[2::3] if any(injury.seconds for injury in one.injuries))
    for injury in episode.injuries:
        assert f"{injury.kind} {injury.target}" in str(episode)
