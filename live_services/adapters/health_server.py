"""The one loopback port of a process: ``/health/live``, ``/health/ready``, ``/health`` and ``/metrics``.

It answers on threads of its own, also while the event loop stands still. Which port it is, `scrape_targets` writes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import ThreadingMixIn
from threading import Thread
from typing import TYPE_CHECKING, Any, Final, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

    from prometheus_client import CollectorRegistry

_LOOPBACK: Final = "127.0.0.1"
# A client that asks nothing would hold its thread for ever.
_REQUEST_SECONDS: Final = 5

Answer = tuple[bool, dict[str, Any]]
"""Whether all is well, and what there is to say."""


class Health(Protocol):
    """What a process knows of itself; a service's is `live_services.adapters.process_health.ProcessHealth`."""

    def live(self) -> dict[str, Any]:
        """Say under ``live`` whether its loop turned lately."""
        ...

    def ready(self) -> dict[str, Any]:
        """Say under ``ready`` whether it does its work."""
        ...

    def document(self) -> dict[str, Any]:
        """Say both, and all else."""
        ...


class PortTaken(OSError):
    """The port that the settings name is in use."""


class HealthServer:
    """Serves a process's health and metrics on loopback, from the moment it is made until it is closed.

    Parameters
    ----------
    port
        0 picks a free one; ``HealthServer.port`` says which.
    health
    registry
        Of the process's metrics.

    Raises
    ------
    PortTaken
        Another process listens there.
    """

    def __init__(self, port: int, health: Health, registry: CollectorRegistry) -> None:
        try:
            self._server = make_server(_LOOPBACK, port, application(health, registry), _Server, _Quiet)
        except OSError as problem:
            raise PortTaken(
                f"port {port} (runtime.metrics_port) cannot be listened on: {problem.strerror}; each process needs one "
                "of its own: leave it at 0, and each takes a free one"
            ) from problem
        self._thread = Thread(target=self._server.serve_forever, name="health", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """The port that is listened on."""
        return self._server.server_port

    def close(self) -> None:
        """Stop listening."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    timeout = _REQUEST_SECONDS

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name in the standard library)
        """Say nothing: one line a second for each who asks would drown the log."""


def application(health: Health, registry: CollectorRegistry) -> WSGIApplication:
    """Give what answers the requests: 200 if all is well, 503 if not, with the reasons as JSON; 404 for other paths."""
    from prometheus_client import make_wsgi_app

    metrics: WSGIApplication = make_wsgi_app(registry)
    said: dict[str, Callable[[], Answer]] = {
        "/health/live": lambda: _with(health.live(), "live"),
        "/health/ready": lambda: _with(health.ready(), "ready"),
        "/health": lambda: _with(health.document(), "live", "ready"),
    }

    def answer(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "").rstrip("/")
        if path == "/metrics":
            return metrics(environ, start_response)
        if path in said:
            well, document = said[path]()
            status = HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE
        else:
            status, document = HTTPStatus.NOT_FOUND, {"there_is": [*said, "/metrics"]}
        body = json.dumps(document, indent=2, ensure_ascii=False).encode() + b"\n"
        headers = [("Content-Type", "application/json; charset=utf-8"), ("Content-Length", str(len(body)))]
        start_response(f"{status.value} {status.phrase}", headers)
        return [body]

    return answer


def _with(document: dict[str, Any], *questions: str) -> Answer:
    return all(document[question] for question in questions), document
