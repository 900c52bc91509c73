"""How the tasks are, by the word of their processes: over HTTP from those of this home, in Redis from all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from socket import gethostname
from typing import Any, Final

from live_services.adapters.health import read_tasks
from live_services.adapters.scrape_targets import read_targets
from live_services.cli.pipeline_findings import read_pipeline_findings
from live_services.domain import keys
from live_services.domain.events import PnlSnapshot
from live_services.domain.pipeline_findings import PipelineFindings
from live_services.domain.topics import BROKERS
from live_services.settings import Settings
from models_registry.specification import Broker

# A process whose loop stands still answers all the same; one that does not within this time is stopped or gone.
_ANSWER_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Health:
    """The newest health of each task (JSON documents), each broker's newest snapshot, and what the validator found."""

    tasks: tuple[dict[str, Any], ...]
    portfolios: Mapping[Broker, PnlSnapshot]
    pipeline: tuple[PipelineFindings, ...] = ()
    """What the pipeline validator found, by broker."""

    def task(self, service: str, broker: str) -> dict[str, Any] | None:
        """Give the task of a service that is furthest behind."""
        mine = [t for t in self.tasks if t["service"] == service and t["broker"] == broker]
        return min(mine, key=lambda t: int(t["watermark_ns"]), default=None)


@dataclass(frozen=True, slots=True)
class ProcessReport:
    """What a process of this home said at ``/health``."""

    process: str
    scope: str
    address: str
    """Host and port."""
    document: dict[str, Any] | None
    """None: it did not answer."""

    @property
    def tasks(self) -> tuple[dict[str, Any], ...]:
        """Its tasks, as in Redis."""
        return tuple(self.document["tasks"]) if self.document is not None else ()


def read_health(settings: Settings) -> Health:
    """Read what Redis knows of health and portfolios; empty when no Redis is set.

    Raises
    ------
    redis.RedisError
        If Redis does not answer.
    """
    import redis

    url = settings.redis.url.get_secret_value()
    if not url:
        return Health((), {})
    client = redis.Redis.from_url(url, socket_timeout=3, socket_connect_timeout=3)
    try:
        tasks = read_tasks(client)
        found = {broker: (key := keys.portfolio(broker)).read_or_none(client.get(key)) for broker in BROKERS}
        pipeline = read_pipeline_findings(client)
    finally:
        client.close()
    return Health(
        tuple(task.model_dump(mode="json") for task in tasks),
        {broker: snapshot for broker, snapshot in found.items() if snapshot is not None},
        pipeline,
    )


def ask_processes(home: Path) -> tuple[ProcessReport, ...]:
    """Ask every process of a home that said where it listens how it is, all at once."""
    targets = list(read_targets(home))
    with ThreadPoolExecutor(max_workers=max(len(targets), 1)) as pool:
        return tuple(pool.map(lambda target: _ask(*target), targets))


def _ask(process: str, scope: str, address: str) -> ProcessReport:
    """Ask a process; somebody else may answer at the port that it had."""
    import requests

    try:
        said: Any = requests.get(f"http://{address}/health", timeout=_ANSWER_SECONDS).json()
    except requests.RequestException:
        said = None
    is_it = isinstance(said, dict) and (said.get("process"), said.get("broker")) == (process, scope)
    return ProcessReport(process, scope, address, said if is_it else None)


def together(health: Health, reports: Sequence[ProcessReport]) -> Health:
    """Put what processes of this home say of their tasks before what Redis has of them.

    What a process of this computer said that is gone, Redis keeps for seconds more; it runs nothing, and is left out.
    """
    own = {task["task"]: task for report in reports for task in report.tasks}
    return Health((*_others(health.tasks, own), *own.values()), health.portfolios, health.pipeline)


def _others(tasks: Iterable[dict[str, Any]], own: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    return (task for task in tasks if task["task"] not in own and not _of_a_gone_process(task))


def _of_a_gone_process(task: Mapping[str, Any]) -> bool:
    import psutil

    return task["host"] == gethostname() and not psutil.pid_exists(task["pid"])
