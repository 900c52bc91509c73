"""The histograms of the live side: what each one measures, and its buckets unless the settings give others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from types import MappingProxyType
from typing import Final, NamedTuple


class Histogram(NamedTuple):
    """One histogram; its unit is seconds, as its name says."""

    says: str
    buckets: tuple[float, ...]
    """Upper bounds, ascending; one without bound is added."""


_HOPS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""From a hop over Kafka on loopback to a desk that is hopelessly behind."""
_CALLS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
"""From a score of one instrument to that of a whole exchange."""

HISTOGRAMS: Final[Mapping[str, Histogram]] = MappingProxyType(
    {
        "market_tick_enqueue_delay_seconds": Histogram(
            "From the moment a frame of ticks was due (read, and its turn in a paced replay) to its being queued for "
            "Kafka",
            (0.0005, *_HOPS),
        ),
        "market_tick_emit_latency_seconds": Histogram("From a frame's being queued to Kafka's acknowledgement", _HOPS),
        "alpha_panda_tick_to_signal_seconds": Histogram(
            "From Kafka's time of the frame that a proposal answers to the commit of the proposal", _HOPS
        ),
        "alpha_panda_signal_to_order_seconds": Histogram(
            "From Kafka's time of a proposal to the commit of the order that came of it", _HOPS
        ),
        "alpha_panda_commit_seconds": Histogram("A transaction, from its beginning to its commit", _HOPS),
        "ml_inference_latency_seconds": Histogram("One call of a model: all instruments of a closed bar", _CALLS),
    }
)


def checked_buckets(given: Mapping[str, Sequence[float]]) -> None:
    """Check buckets that a person gave.

    Raises
    ------
    ValueError
        Names the histogram that does not exist, or whose bounds do not ascend.
    """
    for name, bounds in given.items():
        if name not in HISTOGRAMS:
            raise ValueError(f"there is no histogram {name!r}; there are {', '.join(HISTOGRAMS)}")
        if not bounds:
            raise ValueError(f"{name} has no bounds: give at least one, or leave it out")
        if any(later <= earlier for earlier, later in pairwise(bounds)):
            raise ValueError(f"the bounds of {name} do not ascend: {', '.join(f'{bound:g}' for bound in bounds)}")
