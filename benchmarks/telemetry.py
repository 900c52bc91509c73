"""What measuring costs those that are measured: nothing for a tick, so a little for a frame, a call and a commit.

    python -m benchmarks.telemetry

A commit carries what a decision instant of fifty instruments comes to: proposals, a rejection, and the account's books
with forty positions. At most forty commits a second are made (``runtime.commit_interval_ms``).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from benchmarks.measuring import Figure, at_most, report
from live_services.adapters.metrics import Metrics
from live_services.adapters.spans import FeedSpans, NoSpans, TaskSpans, trace_headers
from live_services.adapters.tracing import LiveTracing
from live_services.domain.events import (
    Event,
    PnlSnapshot,
    PositionMark,
    SignalGenerated,
    SignalRejected,
    StrategyTotals,
    headers_of,
    self_caused,
)
from live_services.domain.frames import Headers
from live_services.domain.log import TaskId
from live_services.domain.topics import broker_topics
from live_services.operations_settings import TracingSettings
from live_services.runtime.arrivals import Arrivals
from live_services.services.timed_model import TimedModel

TICKS_PER_FRAME: Final = 200
_TIMES: Final = 20_000
_PROPOSALS: Final = 10
_POSITIONS: Final = 40


@dataclass(frozen=True)
class Fetched:
    """What of a fetched record is looked at."""

    timestamp: int
    headers: tuple[tuple[str, bytes], ...]


class Constant:
    """A model that takes no time."""

    def score(self, X: NDArray[np.float64], /) -> NDArray[np.float64]:  # noqa: N803
        return X[:, 0]


class Discarded(SpanExporter):
    """Takes spans, and keeps none."""

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def proposal(instrument: int) -> SignalGenerated:
    """Make a proposal as desks do, without a check."""
    ids = self_caused("signal", instrument)
    said = {"strategy": "momentum", "instrument_token": instrument, "symbol": "S", "side": "BUY", "quantity": 1}
    model = {"model_name": "momentum", "model_version": "1"}
    return SignalGenerated.trusted({**ids, **said, **model, "broker": "paper", "event_time_ns": instrument})


def rejection() -> SignalRejected:
    """Make a rejection as accounts do."""
    ids = self_caused("rejected")
    fields = {"broker": "paper", "event_time_ns": 1, "strategy": "momentum", "rule": "open_positions"}
    return SignalRejected.trusted({**ids, **fields})


def books() -> PnlSnapshot:
    """Make the books of an account with forty positions of four strategies."""
    names = ("momentum", "reversal", "breakout", "carry")
    held = [
        PositionMark.trusted({"strategy": names[k % 4], "quantity": 1, "unrealized_inr": 1.0})
        for k in range(_POSITIONS)
    ]
    totals = [StrategyTotals.trusted({"strategy": n, "realized_inr_e4": 5, "charges_inr_e4": 5}) for n in names]
    money = dict.fromkeys(("equity_inr", "equity_at_open_inr", "orders_under_way"), 0)
    fields = {"broker": "paper", "event_time_ns": 1, "positions": tuple(held), "strategies": tuple(totals)}
    return PnlSnapshot.trusted({**self_caused("books"), **fields, **money})


def microseconds(run: Callable[[], object], times: int = _TIMES, repeats: int = 5) -> float:
    """Median time of one call on the processor, which a busy machine does not lengthen by making it wait."""
    taken = []
    for _ in range(repeats):
        begun = time.process_time()
        for _ in range(times):
            run()
        taken.append(time.process_time() - begun)
    return statistics.median(taken) / times * 1e6


def measure(tell: Callable[[str], None]) -> list[Figure]:
    """Measure each place where something is counted."""
    metrics = Metrics(["momentum", "reversal", "breakout", "carry"])
    silent, traced = NoSpans(), LiveTracing(Discarded(), TracingSettings(sample_ratio=1.0), "benchmark", "shared")
    headers = headers_of(proposal(1))
    arrivals, frame = Arrivals(["paper.signals.raw"]), [Fetched(1, ())]
    signals = [Fetched(1, tuple(headers_of(proposal(k)))) for k in range(_PROPOSALS)]
    said: list[Event] = [*(proposal(k) for k in range(_PROPOSALS)), rejection(), books()]
    watched, bare, rows = TimedModel(Constant(), "momentum", metrics.inferred), Constant(), np.zeros((50, 10))

    def read() -> None:
        arrivals.came("market.ticks", frame)
        arrivals.handled(has_events=False)

    def sent() -> None:
        metrics.frame_queued(0.001)
        metrics.frames_acknowledged([0.001])

    def committed() -> None:
        arrivals.came("paper.signals.raw", signals)
        arrivals.handled(has_events=True)
        metrics.commit_took("account", "paper", 0.01)
        metrics.committed(said)
        metrics.active("risk_manager", "paper")
        for _ in arrivals.committed(said, 1, 1.0):
            metrics.signal_latency("paper", 0.01)

    def step_of_a_task(spans: TaskSpans, said: Sequence[Event], frame: Headers) -> None:
        spans.came(frame)
        spans.begins()
        for event in said:
            spans.said(event)
        spans.stepped(live=True)
        spans.committed()

    def cut_of_the_feed(spans: FeedSpans) -> None:
        spans.queued("market.ticks", 0, headers)
        spans.acknowledged()

    tell("spans")
    runner = traced.task(TaskId("strategy_runner", "shared", 0), broker_topics("paper"))
    frame_headers = [*headers, *trace_headers(traced.feed().queued("market.ticks", 0, headers))]
    proposals = [proposal(k) for k in range(_PROPOSALS)]
    off = microseconds(lambda: step_of_a_task(silent, proposals, headers))
    off_feed = microseconds(lambda: cut_of_the_feed(silent))
    on = microseconds(lambda: step_of_a_task(runner, proposals, frame_headers), 1000)
    on_feed = microseconds(lambda: cut_of_the_feed(traced.feed()), 1000)
    traced.close()
    tell("a frame")
    reading, sending = microseconds(read), microseconds(sent)
    tell("a call and a commit")
    calling = microseconds(lambda: watched.score(rows)) - microseconds(lambda: bare.score(rows))
    committing = microseconds(committed, 1000)
    return [
        at_most("reading a frame", reading, "µs", 2.0),
        at_most("of it for a tick", reading / TICKS_PER_FRAME * 1000, "ns", 10.0),
        at_most("a frame of the feed, queued and on Kafka", sending, "µs", 20.0),
        at_most("spans of a frame of the feed, tracing off", off_feed, "µs", 1.0),
        at_most(f"spans of a batch with {_PROPOSALS} proposals, tracing off", off, "µs", 5.0),
        at_most("spans of a frame of the feed, tracing on, sampled", on_feed, "µs", 200.0),
        at_most(f"spans of a batch with {_PROPOSALS} proposals, tracing on, sampled", on, "µs", 2000.0),
        at_most("a call of a model", calling, "µs", 20.0),
        at_most(f"a commit of {len(said)} events", committing, "µs", 500.0),
        at_most("of a core, at forty commits a second", committing * 40 / 1e4, "%", 2.0),
    ]


if __name__ == "__main__":
    report("telemetry", measure, ("prometheus-client", "opentelemetry-sdk"))
