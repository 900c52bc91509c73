"""An order's life as spans: across tasks by headers, the same over a restart, and nobody waits for a collector."""

from __future__ import annotations

import datetime as dt
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import ValidationError
from structlog.testing import capture_logs

from feature_store.market.types import SECOND_NS, Session
from live_services.adapters.spans import TRACEPARENT, NoTracing, Tracing, trace_headers, trace_id_of
from live_services.adapters.tracing import Counted, LiveTracing
from live_services.composition import tracing_of
from live_services.domain.basis import Stamp
from live_services.domain.clock import session_end_ns, watermark
from live_services.domain.events import OrderFilled, SignalGenerated, decode_event
from live_services.domain.frames import encode_tick_frame
from live_services.domain.topics import MARKET_SESSIONS, MARKET_TICKS
from live_services.operations_settings import TracingSettings
from live_services.runtime.chain import Chain
from live_services.runtime.local import MemoryLog, MemoryTask, run_to_the_end
from live_services.services.account import account_chain
from live_services.settings import Settings
from tests.account_world import limits
from tests.toy_chain import OPEN_NS, PAPER, UNIVERSE, frames_of, session_opened, toy_strategy, toy_ticks

SESSION = Session(dt.date(2026, 1, 5), OPEN_NS, OPEN_NS + 12 * 60 * SECOND_NS)

LIFE = [
    "market.frame",
    "strategy.process_tick",
    "strategy.emit_signal",
    "risk.validate",
    "order.place",
    "portfolio.update",
]


@contextmanager
def traced(process: str, ratio: float = 1.0) -> Iterator[tuple[LiveTracing, InMemorySpanExporter]]:
    exporter = InMemorySpanExporter()
    tracing = LiveTracing(exporter, TracingSettings(sample_ratio=ratio), process, "shared")
    yield tracing, exporter
    tracing.close()


FETCHED = 3
"""Records that a task takes of a partition at a time."""


def account() -> Chain:
    return account_chain("paper", MARKET_TICKS, limits(), Stamp())


@cache
def market() -> MemoryLog:
    """A session as a feed says it, long enough for positions to be opened and closed."""
    log, frames = MemoryLog(), frames_of(toy_ticks(SESSION, per_second=1), 5 * SECOND_NS, SESSION)
    log.append_event(MARKET_SESSIONS, 0, session_opened(SESSION))
    for number, (ticks, cut) in enumerate(frames):
        log.append(MARKET_TICKS.name, 0, *encode_tick_frame(ticks, UNIVERSE, number, cut, SESSION))
    end = watermark(MARKET_TICKS, 0, SESSION, session_end_ns(SESSION), UNIVERSE.digest)
    log.append_event(MARKET_TICKS, 0, end)
    return log


def market_of(tracing: Tracing) -> MemoryLog:
    """The same as one that traces says it."""
    log, spans = MemoryLog(), tracing.feed()
    for (topic, partition), records in market().partitions.items():
        for record in records:
            traceparent = spans.queued(topic, partition, record.headers) if topic == MARKET_TICKS.name else ""
            log.append(topic, partition, record.value, [*record.headers, *trace_headers(traceparent)])
    spans.acknowledged()
    return log


def die_and_live_through(task: MemoryTask, kills: Sequence[int]) -> None:
    """Handle a little at a time, and lose it in these turns before it is committed."""
    for turn in range(max(kills, default=-1) + 1):
        for key in task.next:
            task.fetch(key, FETCHED)
        task.step()
        if turn in kills:
            task.kill()
        else:
            task.commit()
    run_to_the_end([task], FETCHED)


def desk(log: MemoryLog, tracing: Callable[[str], Tracing] = lambda _: NoTracing()) -> MemoryLog:
    run_to_the_end([MemoryTask(toy_strategy, log, tracing=tracing("toy_strategy"))], FETCHED)
    run_to_the_end([MemoryTask(account, log, tracing=tracing("account"))], FETCHED)
    return log


@pytest.fixture(scope="module")
def followed() -> tuple[MemoryLog, dict[int, ReadableSpan]]:
    """A session of which everything is traced, and its spans by their ids."""
    with (
        traced("market_feed") as (feed, frames),
        traced("strategy_runner") as (runner, proposals),
        traced("account") as (books, orders),
    ):
        log = desk(market_of(feed), {"toy_strategy": runner, "account": books}.__getitem__)
    spans = [span for exporter in (frames, proposals, orders) for span in exporter.get_finished_spans()]
    assert len({span.context.span_id for span in spans}) == len(spans)
    return log, {span.context.span_id: span for span in spans}


def path_to(span: ReadableSpan, spans: dict[int, ReadableSpan]) -> list[ReadableSpan]:
    path = [span]
    while path[0].parent is not None:
        path.insert(0, spans[path[0].parent.span_id])
    return path


def records_of(log: MemoryLog, kind: type) -> list[tuple[object, tuple[tuple[str, bytes], ...]]]:
    found = [(decode_event(r.value, r.headers), tuple(r.headers)) for key in PAPER for r in log.partitions[key.name, 0]]
    return [(event, headers) for event, headers in found if isinstance(event, kind)]


def test_an_order_is_followed_from_its_frame_to_its_fill(
    followed: tuple[MemoryLog, dict[int, ReadableSpan]],
) -> None:
    log, spans = followed
    fill, headers = records_of(log, OrderFilled)[0]
    assert isinstance(fill, OrderFilled)
    (booked,) = [span for span in spans.values() if (span.attributes or {}).get("event.id") == fill.event_id]
    path = path_to(booked, spans)
    assert [span.name for span in path] == LIFE
    assert {f"{span.context.trace_id:032x}" for span in path} == {trace_id_of(headers)}
    assert [span.resource.attributes["service.name"] for span in path] == [
        "market_feed",
        *["strategy_runner"] * 2,
        *["account"] * 3,
    ]
    for span in path[2:]:
        said = span.attributes or {}
        assert (said["strategy.id"], said["instrument"]) == (fill.strategy, fill.symbol)
        assert (said["broker"], said["model.version"]) == ("paper", fill.model_version)
        assert said["correlation.id"] == fill.correlation_id


def test_every_span_hangs_behind_one_that_was_told_and_ends_after_it_began(
    followed: tuple[MemoryLog, dict[int, ReadableSpan]],
) -> None:
    _, spans = followed
    assert {span.name for span in spans.values()} == set(LIFE)
    for span in spans.values():
        assert path_to(span, spans)[0].name == "market.frame"
        assert (span.start_time or 0) <= (span.end_time or 0)


def test_there_is_one_span_for_a_batch_however_many_frames_it_has(
    followed: tuple[MemoryLog, dict[int, ReadableSpan]],
) -> None:
    _, spans = followed
    batches = [span for span in spans.values() if span.name == "strategy.process_tick"]
    told = [int((span.attributes or {})["frames"]) for span in batches]  # type: ignore[arg-type]
    assert max(told) == FETCHED
    assert sum(told) == sum(span.name == "market.frame" for span in spans.values())
    assert [len(span.links) for span in batches] == [frames - 1 for frames in told]


def test_an_account_that_is_killed_tells_the_same_spans_and_none_twice() -> None:
    with traced("market_feed") as (feed, _), traced("strategy_runner") as (runner, _):
        log = market_of(feed)
        run_to_the_end([MemoryTask(toy_strategy, log, tracing=runner)], FETCHED)
    told = []
    for kills in ((), (5, 9, 14)):
        again = MemoryLog(partitions=log.partitions.copy())
        with traced("account") as (books, orders):
            die_and_live_through(MemoryTask(account, again, tracing=books), kills)
        told.append(
            sorted((s.name, s.context.span_id, s.parent.span_id) for s in orders.get_finished_spans() if s.parent)
        )
    assert told[0] == told[1]
    assert len(told[0]) > 10


def test_what_is_said_is_the_same_with_and_without_it() -> None:
    bare = desk(market_of(NoTracing()))
    with traced("desk") as (tracing, _):
        log = desk(market_of(tracing), lambda _: tracing)
    for key, records in bare.partitions.items():
        assert [r.value for r in log.partitions[key]] == [r.value for r in records]
        assert [[h for h in r.headers if h[0] != TRACEPARENT] for r in log.partitions[key]] == [
            list(r.headers) for r in records
        ]
    assert not any(trace_id_of(r.headers) for records in bare.partitions.values() for r in records)


def test_the_sample_is_drawn_by_the_frame_and_decides_for_all_that_comes_of_it() -> None:
    sampled = []
    for _ in range(2):
        with traced("desk", 0.4) as (tracing, exporter):
            log = desk(market_of(tracing), lambda _, tracing=tracing: tracing)  # type: ignore[misc]
        frames = log.partitions[MARKET_TICKS.name, 0]
        sampled.append([trace_id_of(r.headers) for r in frames])
        spans = {s.context.span_id: s for s in exporter.get_finished_spans()}
        assert all(path_to(s, spans)[0].name == "market.frame" for s in spans.values())
        assert {trace_id_of(headers) for _, headers in records_of(log, SignalGenerated)} <= {*sampled[-1], ""}
    first, second = sampled
    assert [bool(one) for one in first] == [bool(one) for one in second]
    assert 0 < sum(map(bool, first)) < len(first)
    assert not {*first} & {*second} - {""}  # a session played again is another trace


NO_TRACE = b"00-" + b"0" * 32 + b"-" + b"1" * 16 + b"-01"


@pytest.mark.parametrize("said", [b"", b"garbage", b"00-0-0-01", b"\xff\xfe", NO_TRACE])
def test_a_header_that_cannot_be_read_is_no_trace(said: bytes) -> None:
    log = market_of(NoTracing())
    frames = log.partitions[MARKET_TICKS.name, 0]
    headers = [(TRACEPARENT, said)]
    assert trace_id_of(headers) == ""
    log.partitions[MARKET_TICKS.name, 0] = []
    for record in frames:
        log.append(record.topic, 0, record.value, [*record.headers, *headers])
    with traced("desk") as (tracing, exporter):
        run_to_the_end([MemoryTask(toy_strategy, log, tracing=tracing)], FETCHED)
    assert exporter.get_finished_spans() == ()
    assert log.events(PAPER.signals_raw)


# --- the collector ----------------------------------------------------------------------------------------------------


class Collector(SpanExporter):
    """Takes what comes while it is there."""

    def __init__(self) -> None:
        self.away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.FAILURE if self.away else SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        pass


def test_a_collector_that_is_away_is_said_once_and_so_is_its_return() -> None:
    collector = Collector()
    exporter = Counted(collector, "http://collector/v1/traces")
    with traced("any") as (tracing, kept):
        market_of(tracing)
    spans = kept.get_finished_spans()
    with capture_logs() as lines:
        for collector.away in (False, True, True, False, True, False, False, False):
            exporter.export(spans[:7])
    assert [(line["event"], line["log_level"]) for line in lines] == [
        ("traces_not_taken", "warning"),
        ("traces_taken_again", "info"),
    ]
    assert lines[1]["spans_lost"] == 21


class Hangs(Collector):
    """Never answers."""

    def __init__(self) -> None:
        super().__init__()
        self.released = threading.Event()

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.released.wait()
        return SpanExportResult.SUCCESS


def test_nobody_waits_for_a_collector_that_hangs_while_more_comes_than_is_kept() -> None:
    hanging = Hangs()
    tracing = LiveTracing(hanging, TracingSettings(sample_ratio=1.0), "desk", "shared")
    spans = tracing.feed()
    with capture_logs() as lines:
        for at_ns in range(9_000):
            spans.queued("market.ticks", 0, [("event_time_ns", str(at_ns + 1).encode())])
            spans.acknowledged()
    tracing.close()
    hanging.released.set()
    assert [line["event"] for line in lines] == ["traces_not_taken"]


def test_tracing_is_off_unless_it_is_asked_for() -> None:
    with tracing_of(Settings(), "account", "paper") as tracing:
        assert isinstance(tracing, NoTracing)
    asked = Settings(tracing=TracingSettings(enabled=True))
    with tracing_of(asked, "account", "paper") as tracing:
        assert isinstance(tracing, LiveTracing)


def test_an_endpoint_that_is_no_address_is_refused() -> None:
    with pytest.raises(ValidationError, match="endpoint"):
        TracingSettings(endpoint="localhost:4318")
