"""How long an event took is measured from Kafka's time of what it answers."""

from __future__ import annotations

from dataclasses import dataclass

from live_services.domain.events import headers_of
from live_services.runtime.arrivals import Arrivals
from tests.live_world import signal, submitted, validated

RAW = "paper.signals.raw"


@dataclass(frozen=True)
class Fetched:
    """What of a fetched record is looked at."""

    timestamp: int
    headers: tuple[tuple[str, bytes], ...] = ()


def test_a_proposal_is_measured_from_the_frame_that_was_read_before_it() -> None:
    arrivals = Arrivals([RAW])
    arrivals.came("market.ticks", [Fetched(1_000), Fetched(2_000)])
    arrivals.handled(has_events=True)
    arrivals.came("market.ticks", [Fetched(2_500)])  # read while the proposal waits for its commit
    arrivals.handled(has_events=True)
    ((of, broker, seconds),) = arrivals.committed([signal()], 0, 2.75)
    assert (of, broker, seconds) == ("signal", "paper", 0.75)
    arrivals.came("market.ticks", [Fetched(3_000)])
    arrivals.handled(has_events=True)
    assert [latency.seconds for latency in arrivals.committed([signal()], 0, 3.25)] == [0.25]


def test_an_order_is_measured_from_its_own_proposal_and_an_exit_is_not() -> None:
    arrivals = Arrivals([RAW])
    raw, accepted = signal(seconds=60), validated(seconds=60)
    arrivals.came(RAW, [Fetched(1_000, tuple(headers_of(raw)))])
    arrivals.came("market.ticks", [Fetched(9_000)])
    arrivals.handled(has_events=True)
    left = submitted(accepted).model_copy(update={"reason": "time"})
    assert list(arrivals.committed([left], raw.event_time_ns, 9.0)) == []
    ((of, _, seconds),) = arrivals.committed([submitted(accepted)], raw.event_time_ns + 1, 9.5)
    assert (of, seconds) == ("order", 8.5)
    assert list(arrivals.committed([submitted(accepted)], raw.event_time_ns + 1, 9.5)) == []  # forgotten behind it


def test_clocks_that_disagree_never_make_a_latency_less_than_nothing() -> None:
    arrivals = Arrivals([RAW])
    arrivals.came("market.ticks", [Fetched(5_000)])
    arrivals.handled(has_events=True)
    assert [latency.seconds for latency in arrivals.committed([signal()], 0, 4.0)] == [0.0]


def test_a_header_that_is_no_number_is_passed_over() -> None:
    arrivals = Arrivals([RAW])
    arrivals.came(RAW, [Fetched(1_000, (("event_type", b"signal.generated"), ("event_time_ns", b"soon")))])
    assert list(arrivals.committed([submitted(validated())], 0, 2.0)) == []


def test_a_stranger_s_times_end_nothing_and_are_not_remembered_without_end(monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("live_services.runtime.arrivals._REMEMBERED", 3)
    arrivals = Arrivals([RAW])
    for time_ns in (b"9" * 5_000, b"-1", b"", "\u0661".encode(), *(b"%d" % (2**62 + k) for k in range(10))):
        arrivals.came(RAW, [Fetched(1, (("event_type", b"signal.generated"), ("event_time_ns", time_ns)))])
    assert len(arrivals._proposed_ms) == 3
