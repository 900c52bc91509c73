"""Trading states: whether a broker, or a strategy on it, may enter and leave positions. Pure values.

A broker has one of its own and each of its strategies may have one; the stricter of both counts. What a person commands
replaces what was commanded for the same scope, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from live_services.domain.events import TradingState, TradingStateInForce
from live_services.domain.snapshot import Tree
from live_services.domain.written import read_values, written_values

STRICTNESS: Final[Mapping[TradingState, int]] = {"ACTIVE": 0, "REDUCING": 1, "HALTED": 2}
"""The higher, the less may be ordered; also how a metric says it."""


@dataclass(frozen=True, slots=True)
class TradingStates:
    """What is in force in an account."""

    of_scope: Mapping[str | None, TradingStateInForce] = field(default_factory=dict)
    """By strategy, None being the whole broker; a scope that is ACTIVE is left out."""

    @classmethod
    def carried(cls, in_force: Iterable[TradingStateInForce]) -> TradingStates:
        """Take what a record carries into a session."""
        return cls({one.strategy: one for one in in_force})

    @property
    def in_force(self) -> tuple[TradingStateInForce, ...]:
        """Every scope that is not ACTIVE, the broker first, as the next session's record carries them."""
        return tuple(sorted(self.of_scope.values(), key=lambda one: one.strategy or ""))

    def after(self, change: TradingStateInForce) -> TradingStates:
        """Give what is in force once a scope has changed."""
        others = {scope: one for scope, one in self.of_scope.items() if scope != change.strategy}
        return TradingStates(others if change.state == "ACTIVE" else others | {change.strategy: change})

    def strictest(self, strategy: str) -> TradingStateInForce | None:
        """Give the stricter one of the broker's and the strategy's, of two alike the broker's; None: it is ACTIVE."""
        if not self.of_scope:
            return None
        both = (one for scope in (None, strategy) if (one := self.of_scope.get(scope)) is not None)
        return max(both, key=lambda one: STRICTNESS[one.state], default=None)

    def is_halted(self, strategy: str) -> bool:
        """Whether nothing may be ordered for a strategy, not even an exit."""
        strictest = self.strictest(strategy)
        return strictest is not None and strictest.state == "HALTED"

    def flat_from_ns(self, strategy: str) -> int | None:
        """Give the event time from which a strategy is to hold nothing; None: it may hold what it has."""
        if not self.of_scope:
            return None
        both = (one for scope in (None, strategy) if (one := self.of_scope.get(scope)) is not None)
        return min((one.since_ns for one in both if one.flatten), default=None)

    def snapshot(self) -> Tree:
        """Write down what is in force."""
        return written_values(TradingStateInForce, self.of_scope.values())

    @classmethod
    def restored(cls, kept: Tree) -> TradingStates:
        """Give what was in force."""
        return cls.carried(read_values(TradingStateInForce, kept))
