"""What becomes of a frame and of a proposal, as spans: the port that feed and runtime speak to, and its silence.

market.frame            a cut of one partition of the market, from its being queued to its being on the log
└ strategy.process_tick    a batch of frames, decided on
  └ strategy.emit_signal      a proposal, from its being made to its being on the log
    └ risk.validate              risk's word on it; an exit's hangs behind the fill that opened its position
      └ order.place                 an order
        └ portfolio.update            a fill, booked

Across Kafka a span's children find it by the W3C header ``traceparent`` of its record; it never stands in an event.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, Protocol

from live_services.domain.events import Event
from live_services.domain.frames import Headers
from live_services.domain.log import TaskId
from live_services.domain.topics import Topic

TRACEPARENT: Final = "traceparent"
"""Source: W3C Trace Context, https://www.w3.org/TR/trace-context/#traceparent-header."""
_TRACED: Final = re.compile(rb"[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f][13579bdf]")
"""A sampled one."""


def trace_headers(traceparent: str) -> list[tuple[str, bytes]]:
    """Give the Kafka headers of a record that belongs to a span; none of one that is not traced."""
    return [(TRACEPARENT, traceparent.encode())] if traceparent else []


def trace_id_of(headers: Headers) -> str:
    """Give the 32 hexadecimal digits under which a collector has a record's trace; empty of one that is not traced."""
    said = _TRACED.fullmatch(dict(headers).get(TRACEPARENT, b""))
    return said[1].decode() if said is not None else ""


class FeedSpans(Protocol):
    """Where the feed tells of its cuts."""

    def queued(self, topic: str, partition: int, headers: Headers) -> str:
        """Take a cut, a frame or a watermark alone; gives its ``traceparent``, empty of one that is not traced."""
        ...

    def acknowledged(self) -> None:
        """Note that everything queued is on the log."""
        ...


class TaskSpans(Protocol):
    """Where one task tells of its work; nothing of it changes what the task says."""

    def came(self, headers: Headers, event: Event | None = None) -> None:
        """Take a record in its order, also while the task runs again; without an event it is a frame."""
        ...

    def begins(self) -> None:
        """Note that something is handled: what is said next began here."""
        ...

    def said(self, event: Event) -> str:
        """Take an output of a live task; gives its ``traceparent``, empty of one that is not traced."""
        ...

    def stepped(self, *, live: bool) -> None:
        """Note that what is due was handled: the batch ends."""
        ...

    def committed(self) -> None:
        """Note that everything said is on the log."""
        ...


class Tracing(Protocol):
    """Gives a process where to tell."""

    def feed(self) -> FeedSpans:
        """Give it for the feed."""
        ...

    def task(self, task: TaskId, outputs: Iterable[Topic]) -> TaskSpans:
        """Give it for a task that says events on these topics."""
        ...


class NoSpans:
    """Nothing is told: tracing is off."""

    def queued(self, topic: str, partition: int, headers: Headers) -> str:
        """Ignore it."""
        return ""

    def acknowledged(self) -> None:
        """Ignore it."""

    def came(self, headers: Headers, event: Event | None = None) -> None:
        """Ignore it."""

    def begins(self) -> None:
        """Ignore it."""

    def said(self, event: Event) -> str:
        """Ignore it."""
        return ""

    def stepped(self, *, live: bool) -> None:
        """Ignore it."""

    def committed(self) -> None:
        """Ignore it."""


class NoTracing:
    """Traces nothing."""

    def feed(self) -> FeedSpans:
        """Give what ignores everything."""
        return NoSpans()

    def task(self, task: TaskId, outputs: Iterable[Topic]) -> TaskSpans:
        """Give what ignores everything."""
        return NoSpans()
