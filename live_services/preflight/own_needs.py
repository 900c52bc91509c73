"""What one process needs when it starts, or starts again: little, for nobody looks on, and servers may be away."""

from __future__ import annotations

from typing import Final

from live_services.composition import ServiceEntry
from live_services.domain.strategy.checks import strategy_schema
from live_services.failures import CommandFailed
from live_services.preflight.computer import home_finding, logs_finding
from live_services.preflight.findings import sentence
from live_services.preflight.kafka import own_topics
from live_services.settings import Settings

_COMPUTING: Final = ("strategy_runner", "skew_monitor")
"""Processes that compute features."""


def require_folders(settings: Settings) -> None:
    """Refuse a home of another version, and folders in it that this user cannot write.

    Raises
    ------
    CommandFailed
        Says what is wrong and what to do.
    """
    for finding in (*home_finding(settings), *logs_finding(settings)):
        if finding.status == "failed":
            raise CommandFailed(f"{sentence(finding.reason)} {finding.way_out}".rstrip())


def require_own_needs(entry: ServiceEntry, settings: Settings) -> None:
    """Refuse to run a process that could not work: the features that it computes, and its topics.

    MLflow, Dagster and Redis are not asked: it goes on without them. A Kafka that is away is for the runtime to say.

    Raises
    ------
    CommandFailed
        Says what is wrong and what to do.
    live_services.domain.strategy.checks.WrongStrategy
        A strategy names something that there is not.
    """
    if entry.name in _COMPUTING:
        for strategy in settings.strategies:
            strategy_schema(strategy)
    if (wrong := own_topics(settings)) is not None:
        raise CommandFailed(f"topics: {wrong.reason}. {wrong.way_out}")
