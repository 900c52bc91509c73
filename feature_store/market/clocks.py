"""Bar clocks: by what a bar is counted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, Self

from feature_store.market.types import MINUTE_NS, SECOND_NS

_SHORT = re.compile(r"(?P<size>[1-9]\d*)(?P<unit>[smht])")
_CANONICAL = re.compile(r"time:(?P<seconds>[1-9]\d*)s|(?P<session>session)|ticks:(?P<ticks>[1-9]\d*)")
_UNIT_NS = {"s": SECOND_NS, "m": MINUTE_NS, "h": 60 * MINUTE_NS}


class UnknownClock(ValueError):
    """A text that names no bar clock."""


@dataclass(frozen=True, slots=True)
class BarClock:
    """Bars of equal time, of one session each, or of equally many ticks.

    Examples
    --------
    >>> str(BarClock.parse("5m")), str(BarClock.parse("100t")), BarClock.parse("session").kind
    ('time:300s', 'ticks:100', 'session')
    >>> BarClock.parse("time:300s").short
    '5m'
    """

    kind: Literal["time", "session", "ticks"]
    size: int = 0
    """Nanoseconds of a ``time`` bar, ticks of a ``ticks`` bar, 0 for ``session``."""

    @classmethod
    def minutes(cls, count: int) -> Self:
        """Give the clock of bars of ``count`` minutes, counted from the session's open."""
        return cls("time", count * MINUTE_NS)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``1m``, ``60m``, ``session``, ``100t``, or the canonical text that `str` gives.

        Raises
        ------
        UnknownClock
            If the text is none of these.
        """
        if canonical := _CANONICAL.fullmatch(text):
            if canonical["session"]:
                return cls("session")
            if canonical["ticks"]:
                return cls("ticks", int(canonical["ticks"]))
            return cls("time", int(canonical["seconds"]) * SECOND_NS)
        if short := _SHORT.fullmatch(text):
            size = int(short["size"])
            return cls("ticks", size) if short["unit"] == "t" else cls("time", size * _UNIT_NS[short["unit"]])
        raise UnknownClock(f"{text!r} is no bar clock; write 1m, 5m, 60m, session, or 100t for bars of 100 ticks")

    def __str__(self) -> str:
        if self.kind == "session":
            return "session"
        return f"ticks:{self.size}" if self.kind == "ticks" else f"time:{self.size // SECOND_NS}s"

    @property
    def short(self) -> str:
        """The way people write it."""
        if self.kind == "session":
            return "session"
        if self.kind == "ticks":
            return f"{self.size}t"
        whole = self.size % MINUTE_NS == 0
        return f"{self.size // MINUTE_NS}m" if whole else f"{self.size // SECOND_NS}s"
