"""What one event hands on to the event that answers it, and what an output says it stands on."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from live_services.domain.events import (
    Basis,
    OrderCancelled,
    OrderFilled,
    OrderRejected,
    OrderSubmitted,
    SignalGenerated,
    SignalRejected,
    SignalValidated,
)
from live_services.domain.log import LogPosition

Answerable = SignalGenerated | SignalValidated | OrderSubmitted | OrderFilled
Outcome = OrderFilled | OrderRejected | OrderCancelled
"""What becomes of an order, whole or in part."""
RiskVerdict = SignalValidated | SignalRejected


@dataclass(frozen=True, slots=True)
class Stamp:
    """What every output of a process is stamped with: which configuration and which code made it."""

    config_digest: str = ""
    git_commit: str = ""

    def basis(self, positions: Iterable[LogPosition] = ()) -> Basis:
        """Give the basis of an output that stands on these records; positions of one partition become a range."""
        return _basis(self, tuple(positions))


@lru_cache(maxsize=256)  # of a frame there are many outputs
def _basis(stamp: Stamp, positions: tuple[LogPosition, ...]) -> Basis:
    ranges: dict[str, tuple[int, int]] = {}
    for position in positions:
        if position.topic:
            key = f"{position.topic}[{position.partition}]"
            first, last = ranges.get(key, (position.offset, position.offset))
            ranges[key] = (min(first, position.offset), max(last, position.offset))
    return Basis(input_positions=ranges, config_digest=stamp.config_digest, git_commit=stamp.git_commit)


def handed_on(event: Answerable) -> dict[str, Any]:
    """Give the fields that an answer takes over unchanged, with ``causation_id`` naming the event answered."""
    said = vars(event)
    return {
        "broker": said["broker"],
        "correlation_id": said["correlation_id"],
        "model_name": said["model_name"],
        "model_version": said["model_version"],
        "feature_schema_hash": said["feature_schema_hash"],
        "strategy": said["strategy"],
        "rung": said["rung"],
        "instrument_token": said["instrument_token"],
        "symbol": said["symbol"],
        "product": said["product"],
        "side": said["side"],
        "intent": said["intent"],
        "causation_id": said["event_id"],
    }
