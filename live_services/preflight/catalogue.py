"""Which checks a desk has before it starts."""

from __future__ import annotations

import time
from functools import partial
from typing import Final

from live_services.preflight import computer, configuration, observability, servers
from live_services.preflight.findings import Preflight
from live_services.preflight.kafka import kafka_findings
from live_services.preflight.market import market_findings
from live_services.preflight.models import models_findings
from live_services.preflight.run import Check, run_checks
from live_services.settings import Settings

_KAFKA_SECONDS: Final = 40.0
_MODELS_SECONDS: Final = 90.0  # the first one loads the features' compiled code


def checks(*, topics_must_be_there: bool) -> tuple[Check, ...]:
    """Give the checks of a whole desk, in the order in which they are shown."""
    kafka = partial(kafka_findings, topics_must_be_there=topics_must_be_there)
    return (
        Check("settings", configuration.settings_finding),
        Check("strategies", configuration.strategies_finding, 30.0, "always"),
        Check("routing", configuration.routing_finding),
        Check("risk_limits", configuration.risk_limits_finding),
        Check("ports", configuration.ports_finding),
        Check("home", computer.home_finding, policy="always"),
        Check("logs", computer.logs_finding, policy="always"),
        Check("disk", computer.disk_finding),
        Check("memory", computer.memory_finding),
        Check("log_channels", observability.log_channels_finding),
        Check("metrics", observability.metrics_finding),
        Check("tracing", observability.tracing_finding, policy="advice"),
        Check("kafka", kafka, _KAFKA_SECONDS, "always"),
        Check("redis", servers.redis_finding),
        Check("mlflow", servers.mlflow_finding),
        Check("ledger", servers.ledger_finding, 20.0),
        Check("dagster", servers.dagster_finding, policy="advice"),
        Check("models", models_findings, _MODELS_SECONDS),
        Check("market", market_findings, 60.0),
    )


def preflight(settings: Settings, *, within_up: bool = False) -> Preflight:
    """Ask everything that a desk needs.

    Parameters
    ----------
    settings
        With the addresses of the servers that run.
    within_up
        Whether servers and topics must be there by now.
    """
    return run_checks(settings, checks(topics_must_be_there=within_up), time.time_ns())
