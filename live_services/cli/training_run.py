"""Launch a training job as a person would, through the Dagster webserver, and follow it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any, Final

import requests

from live_services.failures import CommandFailed
from live_services.machine.research_servers import CODE_LOCATION
from live_services.machine.stack import Tell

_POLL_SECONDS: Final = 0.5
_CLASS_NAME: Final = re.compile(r"^(?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*: ")  # Dagster puts it before the message
_TERMINAL: Final = frozenset({"SUCCESS", "FAILURE", "CANCELED"})

_RUN: Final = """
query Run($id: ID!) { runOrError(runId: $id) { __typename ... on Run {
  status
  assetMaterializations { assetKey { path } }
  eventConnection(limit: 1000) { events {
    __typename ... on ExecutionStepFailureEvent { stepKey error { message causes { message } } }
  } }
} } }
"""


def launch(url: str, job: str) -> str:
    """Launch a training job by name; gives the run id.

    Raises
    ------
    CommandFailed
        Dagster refused; the message has its reason.
    """
    from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError

    host, _, port = url.removeprefix("http://").rpartition(":")
    try:
        client = DagsterGraphQLClient(host, port_number=int(port))
        return str(client.submit_job_execution(job, repository_location_name=CODE_LOCATION))
    except DagsterGraphQLClientError as problem:
        raise CommandFailed(f"Dagster did not launch {job}: {problem}") from problem


def follow(url: str, run_id: str, *, tell: Tell, each_poll: Callable[[], None], budget_seconds: float) -> None:
    """Wait for a run's end and tell of each asset as it is materialised.

    Raises
    ------
    CommandFailed
        The run failed, was cancelled, or took longer than its budget.
    """
    deadline = time.monotonic() + budget_seconds
    told: dict[str, int] = {}
    while True:
        run = _query(url, run_id)
        counts: dict[str, int] = {}
        for materialization in run["assetMaterializations"]:
            name = "/".join(materialization["assetKey"]["path"])
            counts[name] = counts.get(name, 0) + 1
        for name in counts.keys() - told.keys():
            tell(f"  Dagster made the asset {name}")
        told = counts
        if run["status"] in _TERMINAL:
            break
        if time.monotonic() > deadline:
            raise CommandFailed(f"the run {url}/runs/{run_id} took longer than {budget_seconds:.0f} s")
        each_poll()
        time.sleep(_POLL_SECONDS)
    if run["status"] != "SUCCESS":
        events = run["eventConnection"]["events"]
        reasons = [_reason(e) for e in events if e.get("error")]
        raise CommandFailed(f"the run {url}/runs/{run_id} ended as {run['status']}. {' '.join(reasons)}".strip())


def _query(url: str, run_id: str) -> dict[str, Any]:
    response = requests.post(f"{url}/graphql", json={"query": _RUN, "variables": {"id": run_id}}, timeout=30)
    response.raise_for_status()
    answer = response.json()
    if answer.get("errors"):
        raise CommandFailed(f"Dagster does not know the run {run_id}: {answer['errors'][0]['message']}")
    run: dict[str, Any] = answer["data"]["runOrError"]
    if run["__typename"] != "Run":
        raise CommandFailed(f"Dagster does not know the run {run_id} ({run['__typename']})")
    return run


def _reason(event: dict[str, Any]) -> str:
    causes = [cause["message"] for cause in event["error"].get("causes") or ()]
    message = (causes or [event["error"]["message"]])[-1].strip()
    return f"{event['stepKey']}: {_CLASS_NAME.sub('', message)}"
