"""A log line: what it says of itself, and how it is written in a file (JSON) and on the console."""

from __future__ import annotations

import datetime as dt
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog
from structlog.dev import ConsoleRenderer, plain_traceback

from feature_store.market.types import IST
from live_services.adapters.redaction import Redact

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
_API: Final = ("uvicorn", "fastapi", "starlette", "mlflow.server", "werkzeug", "gunicorn")


@dataclass(frozen=True, slots=True)
class Origin:
    """Which process writes."""

    service: str
    scope: str = ""
    """Its broker; empty for a service that all share."""


def channel_of(logger: str) -> str:
    """Give the channel of a logger's name: its own name, ``api`` for web servers, else ``application``."""
    if logger in CHANNELS:
        return logger
    return "api" if logger.startswith(_API) else "application"


def settle(record: logging.LogRecord) -> None:
    """Turn a record into what can be written later, by another thread: text, no frames, the caller's context."""
    if record.exc_info and not isinstance(record.msg, dict):
        record.exc_text = logging.Formatter().formatException(record.exc_info)
    if not isinstance(record.msg, dict):
        record.msg = record.getMessage()
        record.context = structlog.contextvars.get_contextvars()
    record.args = record.exc_info = None


def line_of(record: logging.LogRecord, origin: Origin, redact: Redact) -> dict[str, Any]:
    """Give the fields of a settled record, secrets hidden; the time is IST with its offset, to the millisecond."""
    time = dt.datetime.fromtimestamp(record.created, IST).isoformat(timespec="milliseconds")
    line: dict[str, Any] = {
        "time": time,
        "level": record.levelname.lower(),
        "channel": channel_of(record.name),
        "service": origin.service,
    }
    if origin.scope:
        line["scope"] = origin.scope
    if isinstance(record.msg, dict):
        said = dict(record.msg)
        line |= {"event": said.pop("event", ""), "module": record.module}
        for name, value in said.items():
            if name not in line:
                line[name] = value
            elif line[name] != value:
                line[f"said_{name}"] = value
    else:
        line |= {"event": record.msg, "logger": record.name} | getattr(record, "context", {})
        if held_back := getattr(record, "held_back", 0):
            line["held_back"] = held_back
        if record.exc_text:
            line["exception"] = record.exc_text
    line["pid"] = os.getpid()
    return dict(redact(line))


class JsonLines(logging.Formatter):
    """One JSON object a line, of what :func:`line_of` gave."""

    def format(self, record: logging.LogRecord) -> str:
        """Write it; other scripts than Latin stay as they are."""
        return json.dumps(getattr(record, "line", {}), ensure_ascii=False)


class ReadableLines(logging.Formatter):
    """For a person: time, level, event, then the rest as ``name=value``, a traceback below."""

    def format(self, record: logging.LogRecord) -> str:
        """Write it."""
        return readable(getattr(record, "line", {}))


_FOR_MACHINES: Final = ("pid", "event_time_ns")
_RENDERER: Final = ConsoleRenderer(
    colors=False,
    pad_event_to=0,
    sort_keys=False,
    timestamp_key="time",
    exception_formatter=plain_traceback,
)


def readable(line: Mapping[str, Any]) -> str:
    """Write a line's fields for a person, without those that only a machine needs."""
    return str(_RENDERER(None, "", {name: value for name, value in line.items() if name not in _FOR_MACHINES}))
