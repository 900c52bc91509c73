"""Which faults come in which order: a seeded choice that takes every kind with every target before it repeats one."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal

Kind = Literal["kill", "freeze", "long freeze", "slow", "join"]
"""``freeze`` is shorter than a group's session timeout, ``long freeze`` longer than that and than a transaction's;
``join`` is a second member of a process' group, which leaves again."""

SHORT_FREEZE_S: Final = (1.0, 4.0)
"""Within a group's session timeout of 6 s: nobody may notice."""
LONG_FREEZE_S: Final = (11.0, 14.0)
"""Beyond the transaction timeout of 10 s and the session timeout: what is thawed is fenced, and must see it."""
SLOW_S: Final = (6.0, 10.0)
JOIN_S: Final = (8.0, 12.0)
_TOGETHER_EVERY: Final = 3  # episodes: two alone, then one of several
_AGAIN_S: Final = (1.0, 4.0)  # within these a killed process is starting: it is killed while it recovers


@dataclass(frozen=True, slots=True)
class Injury:
    """What is done to one process."""

    kind: Kind
    target: str
    after_s: float = 0.0
    """From the begin of its episode."""
    seconds: float = 0.0
    """For how long; a kill takes none."""
    ends_by_kill: bool = False
    """Of a second member: whether it is killed, or leaves as a stopped process does."""


@dataclass(frozen=True, slots=True)
class Episode:
    """Injuries that come together; the desk has time to recover before the next episode."""

    injuries: tuple[Injury, ...]
    pause_s: float = 0.0
    """How long the desk is left alone before it."""

    @property
    def alone(self) -> bool:
        """Whether it is a single injury."""
        return len(self.injuries) == 1

    def __str__(self) -> str:
        """Name it in one line."""
        return " + ".join(
            f"{injury.kind} {injury.target}"
            + (f" for {injury.seconds:.1f} s" if injury.seconds else "")
            + (f" (after {injury.after_s:.1f} s)" if injury.after_s else "")
            for injury in self.injuries
        )


def episodes(seed: int, targets: Sequence[str], joinable: Sequence[str] = ()) -> Iterator[Episode]:
    """Give episodes without end; the same arguments give the same ones.

    Parameters
    ----------
    seed : int
        Of the choice.
    targets : sequence of str
        Programs that are killed, frozen and slowed.
    joinable : sequence of str
        Programs that a second member may join.
    """
    choose = random.Random(seed)  # noqa: S311 (a choice that a seed repeats)
    alone, number = _shuffled(choose, targets, joinable), 0
    while True:
        number += 1
        pause_s = choose.uniform(0.5, 2.5)
        if number % _TOGETHER_EVERY:
            yield Episode((next(alone),), pause_s)
        elif choose.random() < 0.3:
            yield Episode(_killed_again(choose, targets), pause_s)
        else:
            yield Episode(_several(choose, targets), pause_s)


def _shuffled(choose: random.Random, targets: Sequence[str], joinable: Sequence[str]) -> Iterator[Injury]:
    """Go through every kind with every target, in another order each time."""
    kinds: tuple[Kind, ...] = ("kill", "freeze", "long freeze", "slow")
    pairs: list[tuple[Kind, str]] = [(kind, target) for kind in kinds for target in targets]
    pairs += [("join", target) for target in joinable]
    while True:
        choose.shuffle(pairs)
        for kind, target in pairs:
            yield _injury(choose, kind, target)


def _injury(choose: random.Random, kind: Kind, target: str, after_s: float = 0.0) -> Injury:
    lengths: dict[Kind, tuple[float, float]] = {
        "kill": (0.0, 0.0),
        "freeze": SHORT_FREEZE_S,
        "long freeze": LONG_FREEZE_S,
        "slow": SLOW_S,
        "join": JOIN_S,
    }
    seconds = round(choose.uniform(*lengths[kind]), 1)
    return Injury(kind, target, after_s, seconds, kind == "join" and choose.random() < 0.5)


def _killed_again(choose: random.Random, targets: Sequence[str]) -> tuple[Injury, ...]:
    target, again_s = choose.choice(targets), round(choose.uniform(*_AGAIN_S), 1)
    return Injury("kill", target), Injury("kill", target, again_s)


def _several(choose: random.Random, targets: Sequence[str]) -> tuple[Injury, ...]:
    chosen = choose.sample(targets, min(len(targets), choose.choice((2, 2, 3, len(targets)))))
    if len(chosen) > 3:  # a power cut rather than a choice of each one's fate
        return tuple(Injury("kill", target) for target in chosen)
    kinds: tuple[Kind, ...] = ("kill", "kill", "freeze", "long freeze", "slow")
    return tuple(
        _injury(choose, choose.choice(kinds), target, round(choose.uniform(0.0, 2.0), 1) if place else 0.0)
        for place, target in enumerate(chosen)
    )
