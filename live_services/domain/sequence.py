"""The numbering of what one task reads of another: who wrote a record, in which session, and as which of its partition.

An ingress (the feed, later a broker's gateway) and a task that others merge stamp each of their records; the stamp
travels in one header. A reader believes a record that is next in its partition and nothing else: what another wrote,
what was here before, and what stands behind a hole move no clock. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from feature_store.market.types import Session
from live_services.domain.clock import session_end_ns
from live_services.domain.log import Reached

STAMP_HEADER: Final = "ingress"
_MOST: Final = 2**62  # numbers and times stay in 64 bits
_LONGEST: Final = 120  # bytes of a stamp; a stranger's header may be as long as it likes


class Stamp(NamedTuple):
    """What its writer says of one record."""

    source: str
    """Who told the session, of the market: `SessionOpened.feed`; else `Topic.writer`."""
    session_open_ns: int
    number: int
    """In its session and partition, from 0: the watermark at the open."""

    @property
    def header(self) -> tuple[str, bytes]:
        """The header that it travels in."""
        return STAMP_HEADER, f"{self.source} {self.session_open_ns} {self.number}".encode()


def stamp_of(headers: Sequence[tuple[str, bytes]]) -> Stamp | None:
    """Read the stamp of a record; None for one that carries none, or none that can be read."""
    said = next((value for name, value in headers if name == STAMP_HEADER), b"")
    if not 0 < len(said) <= _LONGEST:
        return None
    source, *numbers = said.decode(errors="replace").split(" ")
    if len(numbers) != 2 or not source or not all(one.isascii() and one.isdecimal() for one in numbers):
        return None
    open_ns, number = map(int, numbers)
    return Stamp(source, open_ns, number) if max(open_ns, number) <= _MOST else None


class LogEnd(NamedTuple):
    """What one partition that comes from outside ends with, as its readers believe it."""

    open_ns: int = -1
    """Of its last session; -1: nothing was said yet."""
    watermark_ns: int = -1
    number: int = -1
    """Of the last record of that session; -1: nothing of it is numbered."""
    end_ns: int = -1
    """The watermark that ends that session."""

    @property
    def is_over(self) -> bool:
        """Whether that session was ended."""
        return self.watermark_ns >= self.end_ns

    @property
    def reached(self) -> Reached:
        """The session and the watermark."""
        return self.open_ns, self.watermark_ns


class Numbering(NamedTuple):
    """How far one partition's numbering was believed."""

    source: str = ""
    """Of the session; empty for one that was put on a log by hand: nothing of it is numbered."""
    open_ns: int = -1
    """Of the session; -1 before the first."""
    end_ns: int = -1
    """The watermark that ends it."""
    number: int = -1
    """Of the last record that was believed."""
    believed: int = 0
    """Records of the session that were."""
    doubted_open_ns: int = -1
    doubted_number: int = -1
    """Session and number of the last record if it stood behind a hole; if the next one follows it, both are the
    writer's own, and what is missing is gone."""
    doubted_ns: int = -1
    """The watermark that it said; behind the end of its session the next one is the first of a later session."""

    def after(
        self, stamp: Stamp | None, session: Session, source: str | None, reached_ns: int, says_ns: int = -1
    ) -> tuple[Numbering, str]:
        """Take a record if it is next; give what holds behind it and why it is not believed, empty if it is.

        Parameters
        ----------
        session
            That the record is of.
        source
            Who told it; empty if nobody stamps its records, None if that is not known: the first record decides.
        reached_ns
            The partition's watermark: a session is over when it is at its end.
        says_ns
            The watermark that the record says; -1 of an event.
        """
        if refusal := self._another(stamp, session, source, reached_ns):
            return self, refusal
        begins = self.open_ns < session.open_ns
        if stamp is not None and (refusal := self._out_of_order(stamp, begins=begins)):
            if stamp.number <= self.number and not begins:
                return self, refusal
            doubted = self._replace(doubted_open_ns=session.open_ns, doubted_number=stamp.number, doubted_ns=says_ns)
            return doubted, refusal
        return self._with(stamp, session), ""

    def _another(self, stamp: Stamp | None, session: Session, source: str | None, reached_ns: int) -> str:
        """Say why a record is of another session than can be now, or comes from another than told it."""
        if stamp is not None and stamp.session_open_ns != session.open_ns:
            return f"its stamp is of another session than that of {session.date}"
        if self.open_ns > session.open_ns:
            return f"the session of {session.date} is over: a later one was begun on this partition"
        begins = self.open_ns < session.open_ns
        if begins and self.open_ns >= 0 and reached_ns < self.end_ns and not self._ended_behind_a_hole:
            return f"the session of {session.date} begins before the end of the one under way was said"
        known = source if begins or source is not None else self.source
        if known is None or known == (stamp.source if stamp is not None else ""):
            return ""
        return _UNSTAMPED if stamp is None else f"it comes from {stamp.source!r}{_NOT_THE_WRITER}"

    @property
    def _ended_behind_a_hole(self) -> bool:
        """Whether the session's own end was the last record, and what came before it is missing."""
        return self.doubted_open_ns == self.open_ns and self.doubted_ns >= self.end_ns

    def _out_of_order(self, stamp: Stamp, *, begins: bool) -> str:
        """Say what is wrong with the number of a record of the right source."""
        expected = 0 if begins else self.number + 1
        joins = begins and self.open_ns < 0  # a reader whose log begins in the middle of a session
        if stamp.number == expected or joins:
            return ""
        if stamp.number < expected:
            return f"its number {stamp.number} was here before: {expected} is next"
        if (self.doubted_open_ns, self.doubted_number) == (stamp.session_open_ns, stamp.number - 1):
            return ""
        return f"its number is {stamp.number}, and {expected} is next: what lies between is missing"

    def _with(self, stamp: Stamp | None, session: Session) -> Numbering:
        source, number = ("", -1) if stamp is None else (stamp.source, stamp.number)
        if self.open_ns == session.open_ns:
            return Numbering(self.source, self.open_ns, self.end_ns, number, self.believed + 1)
        return Numbering(source, session.open_ns, session_end_ns(session), number, 1)


_NOT_THE_WRITER: Final = ", which is not who writes this session here"
_UNSTAMPED: Final = "it has no stamp: it does not come from who writes this session here"
