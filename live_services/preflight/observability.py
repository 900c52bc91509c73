"""Checks of what a desk is watched by: the channels that are logged on, the metrics ports, the collector of spans."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from socket import gethostname
from typing import Final

from live_services.adapters.health import read_tasks
from live_services.adapters.logs import CHANNELS, wiring
from live_services.preflight.findings import Finding, ok
from live_services.settings import Settings

_TIMEOUT_SECONDS: Final = 3.0


def log_channels_finding(_settings: Settings) -> Iterator[Finding]:
    """Say whether each channel has a handler and a file in this process, and each line got there."""
    wired = wiring()
    lacking = [channel for channel in CHANNELS if wired is None or not wired.takes(channel)]
    if lacking:
        reason = f"what is logged on {', '.join(lacking)} goes nowhere in this process"
        yield Finding("log_channels", "failed", reason, "Start it as `alpha-panda` does, which wires them")
    elif wired is not None and wired.failed:
        reason = f"{wired.failed} lines could not be written to the files of their channels"
        yield Finding("log_channels", "failed", reason, "Look at disk and rights of the log folder")
    else:
        yield ok("log_channels", f"{len(CHANNELS)} channels have their files")


def metrics_finding(settings: Settings) -> Iterator[Finding]:
    """Say whether the metrics ports of the running processes answer; where none runs, whether one opened here does."""
    ports = metrics_ports(settings)
    silent = [f"{task} (port {port})" for task, port in ports.items() if not _answers(port)]
    if silent:
        reason = f"the metrics port of {', '.join(silent)} does not answer"
        yield Finding("metrics", "failed", reason, "Look at its log, and let no other program answer on loopback")
    elif ports:
        yield ok("metrics", f"the metrics ports of {len(ports)} tasks answer")
    elif _one_opened_here_answers():
        yield ok("metrics", "a metrics port answers")
    else:
        reason = "a metrics port that was opened on loopback does not answer"
        yield Finding("metrics", "failed", reason, "Look for a firewall, or a program that takes loopback's ports")


def tracing_finding(settings: Settings) -> Iterator[Finding]:
    """Say whether the collector takes spans, asked with none of them; nothing where tracing is off."""
    if not settings.tracing.enabled:
        return
    from opentelemetry.sdk.trace.export import SpanExportResult

    from live_services.adapters.tracing import otlp_exporter

    exporter, endpoint = otlp_exporter(settings.tracing), settings.tracing.endpoint
    try:
        taken = exporter.export([]) is SpanExportResult.SUCCESS
    finally:
        exporter.shutdown()
    if taken:
        yield ok("tracing", f"the collector at {endpoint} takes spans")
    else:
        way_out = "Start it, set tracing.endpoint and OTEL_EXPORTER_OTLP_HEADERS, or tracing.enabled = false"
        yield Finding("tracing", "warning", f"the collector at {endpoint} takes no spans: they would be lost", way_out)


def metrics_ports(settings: Settings) -> Mapping[str, int]:
    """Give the metrics port of each task of this computer that says in Redis how it does, and whose process lives.

    Other computers may write to the same Redis, and who died is found there for some seconds more.
    """
    import psutil
    import redis

    url = settings.redis.url.get_secret_value()
    if not url:
        return {}
    client = redis.Redis.from_url(
        url, socket_timeout=_TIMEOUT_SECONDS, socket_connect_timeout=_TIMEOUT_SECONDS, retry=None
    )
    try:
        said = read_tasks(client)
    except redis.RedisError:  # the check of Redis says so
        return {}
    finally:
        client.close()
    here = [task for task in said if task.metrics_port and task.host == gethostname()]
    return {task.task: task.metrics_port for task in here if psutil.pid_exists(task.pid)}


def _answers(port: int) -> bool:
    import requests

    with requests.Session() as session:
        session.trust_env = False  # a proxy knows nothing of loopback
        try:
            return session.get(f"http://127.0.0.1:{port}/metrics", timeout=_TIMEOUT_SECONDS).ok
        except requests.RequestException:
            return False


def _one_opened_here_answers() -> bool:
    from prometheus_client import CollectorRegistry, start_http_server

    server, thread = start_http_server(0, addr="127.0.0.1", registry=CollectorRegistry())
    try:
        return _answers(server.server_port)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
