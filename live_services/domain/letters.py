"""When dead letters are a flood. Pure."""

from __future__ import annotations

from collections import deque
from typing import Any, Final, NamedTuple

from live_services.domain.snapshot import Tree


class FloodLimits(NamedTuple):
    """When dead letters are a flood: a session keeps those that it was opened with."""

    letters: int = 100
    seconds: float = 60.0
    """Of event time."""


class LetterFlood:
    """Tells a flood of dead letters from a few: so many within a span of event time. It remembers that many times.

    Parameters
    ----------
    letters : int
        How many are a flood; at least 1.
    seconds : float
        Within which span of event time.
    """

    def __init__(self, letters: int = 100, seconds: float = 60.0) -> None:
        self.letters: Final = letters
        self.seconds: Final = seconds
        self.is_on = False
        """Whether the last letter was part of a flood."""
        self.span_ns: Final = round(seconds * 1e9)
        self._times: deque[int] = deque(maxlen=letters)

    @property
    def limits(self) -> FloodLimits:
        """When it is one."""
        return FloodLimits(self.letters, self.seconds)

    def begins_with(self, time_ns: int) -> bool:
        """Take a letter's event time; whether a flood begins with it. A flood that goes on does not begin again."""
        self._times.append(max(time_ns, self._times[-1]) if self._times else time_ns)
        before, full = self.is_on, len(self._times) == self.letters
        self.is_on = full and self._times[-1] - self._times[0] <= self.span_ns
        return self.is_on and not before

    def snapshot(self) -> Tree:
        """Write down what it remembers."""
        return {"is_on": self.is_on, "times": list(self._times)}

    def restore(self, kept: Any) -> None:
        """Go on from `snapshot`."""
        self.is_on = kept["is_on"]
        self._times.extend(kept["times"])
