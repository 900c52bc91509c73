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
        return _basis(self.config_digest, self.git_commit, tuple(positions))


@lru_cache(maxsize=256)  # of a frame there are many outputs
def _basis(config_digest: str, git_commit: str, positions: tuple[LogPosition, ...]) -> Basis:
    ranges: dict[str, tuple[int, int]] = {}
    for position in positions:
        if position.topic:
            key = f"{position.topic}[{position.partition}]"
            first, last = ranges.get(key, (position.offset, position.offset))
            ranges[key] = (min(first, position.offset), max(last, position.offset))
    return Basis(input_positions=ranges, config_digest=config_digest, git_commit=git_commit)


def answer(
    event: Answerable, event_type: str, own_id: str, *, event_time_ns: int, basis: Basis, quantity: int
) -> dict[str, Any]:
    """Give what every answer to an event says, in the order in which its fields are declared.

    What it takes over unchanged, the event that it answers as its cause, and what is its own. In that order and with
    the rest of its fields behind it `Frozen.trusted` need not lay them out anew.
    """
    said = vars(event)
    return {
        "event_type": event_type,
        "broker": said["broker"],
        "event_id": own_id,
        "correlation_id": said["correlation_id"],
        "causation_id": said["event_id"],
        "event_time_ns": event_time_ns,
        "schema_version": said["schema_version"],
        "model_name": said["model_name"],
        "model_version": said["model_version"],
        "feature_schema_hash": said["feature_schema_hash"],
        "basis": basis,
        "strategy": said["strategy"],
        "rung": said["rung"],
        "instrument_token": said["instrument_token"],
        "symbol": said["symbol"],
        "product": said["product"],
        "side": said["side"],
        "intent": said["intent"],
        "quantity": quantity,
    }
