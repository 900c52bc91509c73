"""When Kafka had what a task answers: for latencies, never for a decision."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final, Literal, NamedTuple

from live_services.domain.events import Event, OrderSubmitted, SignalGenerated
from live_services.domain.topics import broker_topics
from models_registry.specification import Broker

_PROPOSAL: Final = b"signal.generated"
_LONGEST_NUMBER: Final = 19  # digits of 64 bits; Python reads no number of thousands of them
_REMEMBERED: Final = 100_000  # proposals; one that a stranger dates in another century is never forgotten by its time


class Latency(NamedTuple):
    """How long an event took, wall clock: from Kafka's time of what it answers to its own commit."""

    of: Literal["signal", "order"]
    broker: Broker
    seconds: float

    @property
    def topic(self) -> str:
        """Where the event went."""
        topics = broker_topics(self.broker)
        return (topics.signals_raw if self.of == "signal" else topics.orders_submitted).name


class Arrivals:
    """Kafka's times of the records that one task has read.

    A proposal answers the newest record that was read before it, whose watermark closed its bar. An entry's order has
    the event time of its proposal; of several at one instant the first one's time stands.

    Parameters
    ----------
    proposals
        Names of the topics on which proposals come in.
    """

    def __init__(self, proposals: Collection[str]) -> None:
        self._proposals: Final = frozenset(proposals)
        self._proposed_ms: dict[int, int] = {}
        """By the proposal's event time."""
        self._newest_ms = 0
        self._answered_ms: int | None = None

    def came(self, topic: str, records: Sequence[Any]) -> None:
        """Note fetched records (of aiokafka) of one topic, in order, before they are handled."""
        self._newest_ms = records[-1].timestamp
        if topic not in self._proposals:
            return
        for record in records:
            headers = dict(record.headers)
            time_ns = headers.get("event_time_ns") or b""
            is_proposal = headers.get("event_type") == _PROPOSAL and len(self._proposed_ms) < _REMEMBERED
            if is_proposal and time_ns.isdigit() and len(time_ns) <= _LONGEST_NUMBER:
                self._proposed_ms.setdefault(int(time_ns), record.timestamp)

    def handled(self, *, has_events: bool) -> None:
        """Note that they were handled, and whether something is to be committed now."""
        if has_events and self._answered_ms is None:
            self._answered_ms = self._newest_ms

    def committed(self, events: Iterable[Event], watermark_ns: int, now_s: float) -> Iterator[Latency]:
        """Give the latencies of events committed at ``now_s``; forget what is older than the watermark."""
        for event in events:
            match event:
                case SignalGenerated() if self._answered_ms is not None:
                    yield Latency("signal", event.broker, max(0.0, now_s - self._answered_ms / 1000))
                case OrderSubmitted(reason="entry"):
                    came_ms = self._proposed_ms.get(event.event_time_ns)
                    if came_ms is not None:
                        yield Latency("order", event.broker, max(0.0, now_s - came_ms / 1000))
        self._answered_ms = None
        for time_ns in [at for at in self._proposed_ms if at < watermark_ns]:
            del self._proposed_ms[time_ns]
