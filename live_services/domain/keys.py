"""Every Redis key of the platform; writers and readers take them from here only.

Those of the online feature store, ``alpha-panda:shared:features:…``, are in `feature_store.online.blocks`: notebooks
read them without the live side.
"""

from __future__ import annotations

from feature_store.online.blocks import PREFIX
from live_services.domain.topics import Scope


def task_health(scope: Scope, service: str, partition: int) -> str:
    """JSON of a task's health: watermark, counts, what it waits for. Expires when the task stops reporting."""
    return f"{PREFIX}:{scope}:health:{service}:{partition}"


def task_health_pattern() -> str:
    """Pattern over all tasks' health."""
    return f"{PREFIX}:*:health:*"


def portfolio(scope: Scope) -> str:
    """JSON of a broker's newest ``PnlSnapshot``."""
    return f"{PREFIX}:{scope}:portfolio"


def strategies(scope: Scope) -> str:
    """JSON of a broker's newest ``BrokerStrategies``: how many of its strategies run a version, and why others do not.

    Of several tasks of the runner the last one to change says it.
    """
    return f"{PREFIX}:{scope}:strategies"


def preflight_probe() -> str:
    """Written for a second to see whether this desk may write; nobody reads it."""
    return f"{PREFIX}:shared:preflight"
