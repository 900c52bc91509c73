"""How a process logs: structured lines, the standard library's among them."""

from __future__ import annotations

import logging
import sys
from typing import Any, Final

import structlog

CHANNELS: Final = (
    "trading",
    "market_data",
    "api",
    "error",
    "application",
    "monitoring",
    "performance",
    "audit",
)
"""What a line is about; each module logs on one: ``structlog.get_logger("trading")``."""


def configure_logging(service: str, level: int = logging.INFO) -> None:
    """Write structured log lines (JSON) to stderr, the standard library's among them."""
    before: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        structlog.processors.format_exc_info,
    ]
    structlog.configure(
        processors=[*before, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            processor=structlog.processors.JSONRenderer(),
            foreign_pre_chain=before,
        )
    )
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # Every reconnect and rebalance is INFO there; what matters comes from the runtime.
    logging.getLogger("aiokafka").setLevel(logging.WARNING)
    # Kafka verifies a transaction at its first produce and answers "NotEnoughReplicas" meanwhile, many times a minute;
    # a delivery that really fails ends the commit, and with it the process, with its own message.
    logging.getLogger("aiokafka.producer.sender").setLevel(logging.ERROR)
    structlog.contextvars.bind_contextvars(service=service)
