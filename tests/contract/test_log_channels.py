"""Where a module's log lines go: on a channel that it names, never under its own name."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from live_services.adapters.logs import CHANNELS

_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = ("feature_store", "models_registry", "live_services", "dagster_project")
_ROUTES = {"live_services/adapters/logs.py", "live_services/machine/mlflow_server.py"}
"""They hang handlers on the loggers of others."""
_HELD_DOWN = ("aiokafka", "opentelemetry")  # what they say of a server that is away, we say ourselves
_WRITES = {"debug", "info", "warning", "error", "critical", "exception", "log"}


def _calls() -> Iterator[tuple[str, ast.Call]]:
    for path in (path for package in _PACKAGES for path in sorted((_ROOT / package).rglob("*.py"))):
        name = str(path.relative_to(_ROOT))
        if name not in _ROUTES:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    yield f"{name}:{node.lineno}: {ast.unparse(node)}", node


def _first(call: ast.Call) -> object:
    return call.args[0].value if call.args and isinstance(call.args[0], ast.Constant) else None


def test_no_module_logs_outside_a_channel() -> None:
    outside = []
    for said, call in _calls():
        match call.func:
            case ast.Attribute(ast.Name("structlog"), "get_logger") | ast.Name("get_logger"):
                outside += [] if _first(call) in CHANNELS else [said]
            case ast.Attribute(ast.Name("logging"), "getLogger") | ast.Name("getLogger"):
                outside += [] if _first(call) in _HELD_DOWN else [said]
            case ast.Attribute(ast.Name("logging"), name):
                outside += [said] if name in _WRITES else []
    assert outside == []
