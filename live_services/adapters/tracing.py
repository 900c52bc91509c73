"""Spans by OpenTelemetry, sent to a collector by OTLP over HTTP; loaded only by a process that traces.

A cut of the market begins a trace, and its sampling decides for everything behind it. Half of a trace's id and all of a
span's come of what it tells of, never of a batch: the same session is sampled alike whenever it is played, and after a
restart a span hangs behind what its predecessor sent, without anything being remembered but the newest proposals.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_NAMESPACE, Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from live_services.adapters.spans import TRACEPARENT, FeedSpans, TaskSpans
from live_services.domain.events import (
    Event,
    OrderFilled,
    OrderSubmitted,
    SignalGenerated,
    SignalRejected,
    SignalValidated,
    Watermark,
)
from live_services.domain.frames import Headers, rows_of
from live_services.domain.log import TaskId
from live_services.domain.topics import BROKERS, Scope, Topic, broker_topics
from live_services.operations_settings import TracingSettings

_log = structlog.get_logger("monitoring")

_QUEUE_SPANS: Final = 8192  # behind a collector that is slow; what is more is dropped, and nobody waits
_BATCH_SPANS: Final = 512
_EVERY_MS: Final = 1000
_EXPORT_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 1.0  # of the five in which a process ends
_REMEMBERED: Final = 10_000  # proposals that are traced; an exit of an older one is not
_PROPOSALS: Final = frozenset(broker_topics(broker).signals_raw for broker in BROKERS)

_Told = SignalGenerated | SignalValidated | SignalRejected | OrderSubmitted | OrderFilled
_SPANS: Final[dict[type[Event], tuple[str, SpanKind]]] = {
    SignalGenerated: ("strategy.emit_signal", SpanKind.PRODUCER),
    SignalValidated: ("risk.validate", SpanKind.INTERNAL),
    SignalRejected: ("risk.validate", SpanKind.INTERNAL),
    OrderSubmitted: ("order.place", SpanKind.PRODUCER),
    OrderFilled: ("portfolio.update", SpanKind.INTERNAL),
}
"""Name and kind of an event's span. A producer's ends when its record is on the log."""

_propagator: Final = TraceContextTextMapPropagator()


class LiveTracing:
    """Where a process tells of its work; `close` it at its end.

    Parameters
    ----------
    exporter
        Takes spans in batches, on a thread of its own.
    settings
        How many of the market's cuts are traced, and where spans go.
    process, scope
        Name in the table of processes, and whose it is.
    """

    def __init__(self, exporter: SpanExporter, settings: TracingSettings, process: str, scope: Scope) -> None:
        self._ids: Final = _Foretold()
        resource = Resource.create({SERVICE_NAME: process, SERVICE_NAMESPACE: "alpha-panda", "broker": scope})
        self._provider: Final = TracerProvider(
            ParentBased(TraceIdRatioBased(settings.sample_ratio)),
            resource,
            shutdown_on_exit=False,
            id_generator=self._ids,
        )
        self._provider.add_span_processor(_Bounded(Counted(exporter, settings.endpoint)))
        self._tracer: Final = self._provider.get_tracer("alpha_panda")

    def feed(self) -> FeedSpans:
        """Give it for the feed."""
        return _FeedSpans(self.start)

    def task(self, task: TaskId, outputs: Iterable[Topic]) -> TaskSpans:
        """Give it for a task; one that proposes also tells of the batches that it decides on."""
        return _TaskSpans(self.start, task, decides=not _PROPOSALS.isdisjoint(outputs))

    def start(
        self,
        name: str,
        identity: str,
        *,
        parent: SpanContext | None = None,
        kind: SpanKind = SpanKind.INTERNAL,
        links: Sequence[SpanContext] = (),
        start_ns: int | None = None,
    ) -> Span:
        """Begin the span of what ``identity`` names; without a parent it begins a trace, if that is sampled."""
        self._ids.foretell(identity)
        context = Context() if parent is None else set_span_in_context(NonRecordingSpan(parent), Context())
        return self._tracer.start_span(
            name, context, kind, links=[Link(one) for one in links], start_time=start_ns or time.time_ns()
        )

    def close(self) -> None:
        """Send what is left, for a second at most: a collector that is away holds up no process that ends."""
        closing = threading.Thread(target=self._provider.shutdown, name="tracing-close", daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)


def otlp_exporter(settings: TracingSettings) -> SpanExporter:
    """Build what sends to the collector; ``OTEL_EXPORTER_OTLP_HEADERS`` may hold what it asks for."""
    # The library says it of every batch, and of each attempt.
    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    return OTLPSpanExporter(endpoint=settings.endpoint, timeout=_EXPORT_SECONDS)


class Counted(SpanExporter):
    """Counts what becomes of spans; says once when they are lost, and once when no more are, and how many were.

    Parameters
    ----------
    exporter
        Sends.
    endpoint
        Its address, for people.
    """

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self._exporter: Final = exporter
        self._endpoint: Final = endpoint
        self._lock: Final = threading.Lock()
        self._lost = self._lost_before = 0
        self.tried = 0
        """How many were sent, or could not be."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; what is not taken is lost."""
        result = self._exporter.export(spans)
        self.tried += len(spans)
        if result is SpanExportResult.SUCCESS:
            self._taken()
        else:
            self.lose(len(spans))
        return result

    def lose(self, spans: int) -> None:
        """Count spans that nobody will have."""
        with self._lock:
            first, self._lost = not self._lost, self._lost + spans
        if first:
            consequence = "spans are lost until it keeps up; trading does not wait for it"
            _log.warning("traces_not_taken", endpoint=self._endpoint, consequence=consequence)

    def _taken(self) -> None:
        """End an outage with the second batch in a row that was taken, and nothing lost between both."""
        with self._lock:
            lost, before, self._lost_before = self._lost, self._lost_before, self._lost
            if lost != before or not lost:
                return
            self._lost = self._lost_before = 0
        _log.info("traces_taken_again", endpoint=self._endpoint, spans_lost=lost)

    def shutdown(self) -> None:
        """Pass it on."""
        self._exporter.shutdown()


class _Bounded(BatchSpanProcessor):
    """Keeps so many spans for the exporter's thread; what is more is lost, and counted."""

    def __init__(self, exporter: Counted) -> None:
        super().__init__(exporter, 2 * _QUEUE_SPANS, _EVERY_MS, _BATCH_SPANS)
        self._counted: Final = exporter
        self._kept = 0

    def on_end(self, span: ReadableSpan) -> None:
        if self._kept - self._counted.tried >= _QUEUE_SPANS:
            self._counted.lose(1)
            return
        self._kept += 1
        super().on_end(span)


class _Foretold(IdGenerator):
    """Ids of what a span tells of. A trace's other half is random: a session played again is another trace."""

    def __init__(self) -> None:
        self._identity = ""

    def foretell(self, identity: str) -> None:
        self._identity = identity

    def generate_span_id(self) -> int:
        return _id_of(self._identity)

    def generate_trace_id(self) -> int:
        # The lower half decides whether it is sampled.
        return secrets.randbits(64) << 64 | _id_of(self._identity)


def _id_of(identity: str) -> int:
    return int.from_bytes(blake2b(identity.encode(), digest_size=8).digest()) or 1  # 0 is no id


def _traceparent(span: Span) -> str:
    carrier: dict[str, str] = {}
    _propagator.inject(carrier, set_span_in_context(span, Context()))
    return carrier[TRACEPARENT]


def _context_of(headers: Headers) -> SpanContext | None:
    """Read a record's span; None of one that is not traced, or whose header cannot be read."""
    for name, value in headers:
        if name == TRACEPARENT:
            carrier = {TRACEPARENT: value.decode(errors="replace")}
            context = get_current_span(_propagator.extract(carrier, Context())).get_span_context()
            return context if context.is_valid and context.trace_flags.sampled else None
    return None


Start = Callable[..., Span]
"""`LiveTracing.start`."""


class _FeedSpans:
    def __init__(self, start: Start) -> None:
        self._start: Final = start
        self._queued: Final[list[Span]] = []

    def queued(self, topic: str, partition: int, headers: Headers) -> str:
        said = dict(headers)
        watermark_ns = int(said.get("watermark_ns") or said["event_time_ns"])  # of a frame, of a watermark alone
        span = self._start("market.frame", f"{topic}|{partition}|{watermark_ns}", kind=SpanKind.PRODUCER)
        if not span.is_recording():
            return ""
        span.set_attributes(
            {"topic": topic, "partition": partition, "watermark_ns": watermark_ns, "rows": rows_of(headers)}
        )
        self._queued.append(span)
        return _traceparent(span)

    def acknowledged(self) -> None:
        for span in self._queued:
            span.end()
        self._queued.clear()


@dataclass(frozen=True, slots=True)
class _Proposal:
    """A traced proposal, and its span as its record named it."""

    event_id: str
    context: SpanContext


@dataclass(slots=True)
class _Open:
    """A span that is told when its record is on the log, and when what it tells of was over; None: it is then."""

    span: Span
    end_ns: int | None = None


class _TaskSpans:
    def __init__(self, start: Start, task: TaskId, *, decides: bool) -> None:
        self._start: Final = start
        self._task: Final = str(task)
        self._decides: Final = decides
        self._proposals: Final[dict[str, _Proposal]] = {}
        """By correlation id, the newest ones."""
        self._open: Final[list[_Open]] = []
        self._booking: _Open | None = None
        """Of a fill that the books are taking."""
        self._mark_ns = 0
        """When what is said next began."""
        self._cuts: list[SpanContext | None] = []
        """Of the market, in the batch."""
        self._batch: Span | None = None
        self._batch_ns = 0

    # --- in -------------------------------------------------------------------------------------------------------

    def came(self, headers: Headers, event: Event | None = None) -> None:
        if event is None or isinstance(event, Watermark):
            if self._decides:
                self._batch_ns = self._batch_ns if self._cuts else time.time_ns()
                self._cuts.append(_context_of(headers))
            return
        context = _context_of(headers)
        if context is not None:
            self._proposals[event.correlation_id] = _Proposal(event.event_id, context)
            if len(self._proposals) > _REMEMBERED:
                del self._proposals[next(iter(self._proposals))]

    def begins(self) -> None:
        self._mark_ns = self._booked()

    # --- out ------------------------------------------------------------------------------------------------------

    def said(self, event: Event) -> str:
        now_ns = self._booked()
        began_ns, self._mark_ns = self._mark_ns, now_ns
        name, kind = _SPANS.get(type(event), ("", SpanKind.INTERNAL))
        parent = self._parent_of(event) if name else None
        if parent is None:
            return ""
        booked = isinstance(event, OrderFilled)
        start_ns = now_ns if booked else began_ns
        span = self._start(name, event.event_id, parent=parent, kind=kind, start_ns=start_ns)
        _describe(span, event)
        told = _Open(span, now_ns if kind is SpanKind.INTERNAL else None)
        self._booking = told if booked else None
        self._open.append(told)
        return _traceparent(span)

    def _booked(self) -> int:
        """End the booking of a fill, if one is under way; gives the time now."""
        now_ns = time.time_ns()
        if self._booking is not None:
            self._booking.end_ns, self._booking = now_ns, None
        return now_ns

    def _parent_of(self, event: Event) -> SpanContext | None:
        """Give the span of what an event answers: a batch's, a proposal's, or one made of the id of its cause."""
        if self._decides:
            batch = self._batch_span()
            return None if batch is None else batch.get_span_context()
        proposal = self._proposals.get(event.correlation_id)
        if proposal is None or event.causation_id == proposal.event_id:
            return None if proposal is None else proposal.context
        trace_id, flags = proposal.context.trace_id, TraceFlags(TraceFlags.SAMPLED)
        return SpanContext(trace_id, _id_of(event.causation_id), is_remote=False, trace_flags=flags)

    def _batch_span(self) -> Span | None:
        """Give the span of the batch, behind its newest cut, whose watermark closed the bar; None if not traced."""
        newest = self._cuts[-1] if self._cuts else None
        if newest is not None and self._batch is None:
            others = [cut for cut in self._cuts[:-1] if cut is not None]
            identity = f"{self._task}|{newest.trace_id}|{newest.span_id}"
            name, kind = "strategy.process_tick", SpanKind.CONSUMER
            self._batch = self._start(name, identity, parent=newest, kind=kind, links=others, start_ns=self._batch_ns)
            self._batch.set_attributes({"task": self._task, "frames": len(self._cuts)})
        return self._batch

    def stepped(self, *, live: bool) -> None:
        self._booked()
        batch = self._batch_span() if live else None
        if batch is not None:
            batch.end()
        self._batch, self._cuts = None, []

    def committed(self) -> None:
        now_ns = time.time_ns()
        for told in self._open:
            told.span.end(told.end_ns or now_ns)
        self._open.clear()


def _describe(span: Span, event: Event) -> None:
    assert isinstance(event, _Told)  # noqa: S101 - of `_SPANS`
    span.set_attributes(
        {
            "strategy.id": event.strategy,
            "instrument": event.symbol,
            "instrument.token": event.instrument_token,
            "broker": event.broker,
            "model.name": event.model_name,
            "model.version": event.model_version,
            "side": event.side,
            "quantity": event.quantity,
            "event.id": event.event_id,
            "event.time_ns": event.event_time_ns,
            "correlation.id": event.correlation_id,
        }
    )
    match event:
        case SignalRejected():
            span.set_attributes({"verdict": "rejected", "rule": event.rule})
        case SignalValidated():
            span.set_attributes({"verdict": "validated", "reason": event.reason})
        case OrderSubmitted() | OrderFilled():
            span.set_attributes({"order.id": event.order_id, "reason": event.reason})
        case SignalGenerated():
            pass
