"""Launch a training job as a person would, through the Dagster webserver, and follow it to the version it registers."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import urlsplit

import requests
from rich.console import Console
from rich.text import Text

from live_services.failures import CommandFailed
from live_services.machine.research_servers import CODE_LOCATION, FINDINGS, NOTHING_TO_LOOK_AT
from live_services.machine.stack import Tell

if TYPE_CHECKING:
    from models_registry.registry import Registry, VersionInfo
    from models_registry.sidecar import Sidecar

Progress: TypeAlias = Callable[[str], None]
"""Takes where a run is; each word replaces the one before."""

_POLL_SECONDS: Final = 0.5
_PAGE: Final = 500
_CLASS_NAME: Final = re.compile(r"^(?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*: ")  # Dagster puts it before the message
_TERMINAL: Final = frozenset({"SUCCESS", "FAILURE", "CANCELED"})
_BLOCKED_BY_CHECK: Final = "DagsterAssetCheckFailedError"

_RUN: Final = """
query Run($id: ID!, $after: String, $limit: Int) { runOrError(runId: $id) { __typename ... on Run {
  status
  eventConnection(afterCursor: $after, limit: $limit) { cursor hasMore events {
    __typename
    ... on MessageEvent { message stepKey }
    ... on MaterializationEvent {
      assetKey { path } metadataEntries { label ... on MarkdownMetadataEntry { mdStr } }
    }
    ... on AssetCheckEvaluationEvent { evaluation { checkName success severity description } }
    ... on ErrorEvent { error { className message causes { message } } }
  } }
} } }
"""


@dataclass
class RunLog:
    """What a run's events say to the person who waits for it."""

    known: Collection[str] = ()
    """Findings that this person was told already."""
    assets: list[str] = field(default_factory=list)
    """Made so far, each once."""
    failures: dict[str, list[str]] = field(default_factory=dict)
    """Descriptions of checks that failed as an error, by step."""
    idle: list[str] = field(default_factory=list)
    """Checks that had nothing to look at."""
    reasons: list[str] = field(default_factory=list)
    """Why steps failed."""
    problem: str = ""
    """Why the run as a whole could not go on, for a run that failed outside its steps."""

    def add(self, event: Mapping[str, Any], tell: Tell, progress: Progress) -> None:
        """Take one event; tell what it found."""
        match event["__typename"]:
            case "MaterializationEvent":
                self._add_asset(event, tell)
            case "AssetCheckEvaluationEvent":
                self._add_check(event, tell)
            case "ExecutionStepFailureEvent":
                self._add_failure(event)
            case "LogMessageEvent":
                progress(event["message"])
            case _ if event.get("error"):
                self.problem = _message(event["error"])

    def _add_asset(self, event: Mapping[str, Any], tell: Tell) -> None:
        name = "/".join(event["assetKey"]["path"])
        if name not in self.assets:
            self.assets.append(name)
            tell(f"  Dagster made the asset {name}")
        for entry in event["metadataEntries"]:
            if entry["label"] == FINDINGS:
                found = [line.removeprefix("* ") for line in entry["mdStr"].splitlines()]
                for line in (line for line in found if line not in self.known):
                    tell(f"    {line}")

    def _add_check(self, event: Mapping[str, Any], tell: Tell) -> None:
        seen = event["evaluation"]
        if seen["success"]:
            return
        if (seen["description"] or "").startswith(NOTHING_TO_LOOK_AT):
            self.idle.append(seen["checkName"])
            return
        said = f"{seen['checkName']}: {seen['description']}"
        if seen["severity"] == "ERROR":
            self.failures.setdefault(event["stepKey"], []).append(said)
        tell(f"  check {'FAILED' if seen['severity'] == 'ERROR' else 'warns'}: {said}")

    def _add_failure(self, event: Mapping[str, Any]) -> None:
        if event["error"]["className"] == _BLOCKED_BY_CHECK:
            self.reasons += [f"the check {said}" for said in self.failures.get(event["stepKey"], ())]
        else:
            self.reasons.append(f"{event['stepKey']}: {_message(event['error'])}")

    @property
    def reason(self) -> str:
        """Why the run failed, in words; empty while it has not."""
        return "; ".join(self.reasons) or self.problem


def launch(url: str, job: str, run_config: Mapping[str, Any] | None = None) -> str:
    """Launch a training job by name; gives the run id.

    Raises
    ------
    CommandFailed
        Dagster does not answer or refused; the message has its reason.
    """
    from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError

    address = urlsplit(url)
    try:
        client = DagsterGraphQLClient(
            address.hostname or "", port_number=address.port, use_https=address.scheme == "https"
        )
        return str(
            client.submit_job_execution(job, repository_location_name=CODE_LOCATION, run_config=dict(run_config or {}))
        )
    except DagsterGraphQLClientError as problem:
        raise CommandFailed(f"Dagster did not launch {job}: {problem}") from problem


def follow(
    url: str,
    run_id: str,
    *,
    tell: Tell,
    progress: Progress,
    each_poll: Callable[[], None] = lambda: None,
    known: Collection[str] = (),
    budget_seconds: float,
) -> None:
    """Wait for a run's end; tell of each asset as it is made, of what it found, and of each check that warns or fails.

    Parameters
    ----------
    tell
        Takes one line that stays.
    progress
        Takes each line of the run's log.
    each_poll
        Called between two looks.
    known
        Findings that need not be told again.

    Raises
    ------
    CommandFailed
        The run failed, and the message says why; or it was cancelled, or took longer than its budget.
    """
    deadline = time.monotonic() + budget_seconds
    log, cursor = RunLog(known), None
    while True:
        run = _query(url, run_id, cursor)
        events, cursor = run["eventConnection"]["events"], run["eventConnection"]["cursor"]
        for event in events:
            log.add(event, tell, progress)
        if run["eventConnection"]["hasMore"]:
            continue
        if run["status"] in _TERMINAL:
            break
        if time.monotonic() > deadline:
            raise CommandFailed(f"the run {run_id} took longer than {budget_seconds:.0f} s; it goes on in Dagster")
        each_poll()
        time.sleep(_POLL_SECONDS)
    if log.idle:
        tell(f"  checks that had nothing to look at: {', '.join(log.idle)}")
    if run["status"] != "SUCCESS":
        # no link: what this command started may be gone before a person opens it
        raise CommandFailed(f"the run {run_id} ended as {run['status']}. {log.reason}".strip())


@contextmanager
def run_progress(console: Console) -> Iterator[Progress]:
    """Show where a run is as one line that changes and vanishes; nothing outside a terminal."""
    if not console.is_terminal:
        yield lambda _line: None
        return
    with console.status("Dagster starts the run") as status:
        yield lambda line: status.update(Text(line[: console.width - 4]))  # a log line is no markup


def registered_version(registry: Registry, name: str, run_id: str) -> VersionInfo:
    """Give the version of a model that a run registered.

    Raises
    ------
    CommandFailed
        If it registered none.
    """
    made = [version for version in registry.versions(name) if version.tags.get("dagster_run_id") == run_id]
    if not made:
        raise CommandFailed(f"the run {run_id} registered no version of {name}; see its log in Dagster")
    return max(made, key=lambda version: int(version.version))


def tell_of_version(registry: Registry, version: VersionInfo, tell: Tell) -> Sidecar:
    """Tell of a new version: its market, its page, and each check of its gate; gives its sidecar."""
    sidecar = registry.sidecar(version.name, version.version)
    tell(f"market: {sidecar.market}")
    tell(f"registered {version.name} version {version.version}: {registry.url_of(version.name, version.version)}")
    for check in sidecar.gate.checks:
        mark = "passed" if check.passed else check.verdict.upper()
        tell(f"  gate {check.name}: {mark}, {check.observed} (required {check.required})")
    return sidecar


def _query(url: str, run_id: str, after: str | None) -> dict[str, Any]:
    variables = {"id": run_id, "after": after, "limit": _PAGE}
    response = requests.post(f"{url}/graphql", json={"query": _RUN, "variables": variables}, timeout=30)
    response.raise_for_status()
    answer = response.json()
    if answer.get("errors"):
        raise CommandFailed(f"Dagster does not know the run {run_id}: {answer['errors'][0]['message']}")
    run: dict[str, Any] = answer["data"]["runOrError"]
    if run["__typename"] != "Run":
        raise CommandFailed(f"Dagster does not know the run {run_id} ({run['__typename']})")
    return run


def _message(error: Mapping[str, Any]) -> str:
    """Give the innermost message of an error, without the name of its class."""
    causes = [cause["message"] for cause in error.get("causes") or ()]
    return _CLASS_NAME.sub("", (causes or [error["message"]])[-1].strip())
