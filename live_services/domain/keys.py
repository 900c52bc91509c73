"""Every Redis key of the platform; writers and readers take them from here only."""

from __future__ import annotations

from live_services.domain.topics import Scope

PREFIX = "alpha-panda"


def task_health(scope: Scope, service: str, partition: int) -> str:
    """JSON of a task's health: watermark, counts, what it waits for. Expires when the task stops reporting."""
    return f"{PREFIX}:{scope}:health:{service}:{partition}"


def task_health_pattern() -> str:
    """Pattern over all tasks' health."""
    return f"{PREFIX}:*:health:*"


def portfolio(scope: Scope) -> str:
    """JSON of a broker's newest ``PnlSnapshot``."""
    return f"{PREFIX}:{scope}:portfolio"
