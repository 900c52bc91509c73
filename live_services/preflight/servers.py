"""Checks of the servers beside Kafka: Redis, MLflow, the ledger and Dagster, and whether this desk may use them."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from typing import Final

from live_services.next_steps import of_home, to_type
from live_services.preflight.findings import Finding, Policy, ok
from live_services.settings import Settings, endpoints_file
from models_registry.addresses import without_credentials

_TIMEOUT_SECONDS: Final = 5.0
_NOT_ALLOWED: Final = (401, 403)
_LOCATIONS: Final = (
    "{workspaceOrError{__typename ... on Workspace{locationEntries"
    "{name locationOrLoadError{__typename ... on PythonError{message}}}}}}"
)


def not_started(check: str, server: str, policy: Policy = "production") -> Finding:
    """Give the finding of a server that no setting names and that does not run yet: `up` starts one."""
    return Finding(check, "not started", f"no {server} runs here yet; {to_type('up')} starts one", policy=policy)


def start_again(settings: Settings, variable: str) -> str:
    """Say what to do about a server that does not answer: one that `up` started, or one that a setting names."""
    section, _, name = variable.lower().partition("__")
    try:
        started = tomllib.loads(endpoints_file(settings.alpha_panda_home).read_text(encoding="utf-8"))
    except FileNotFoundError:
        started = {}
    if name in started.get(section, {}):
        return f"`{of_home(settings.alpha_panda_home)} up` brings back what is down"
    return f"Start it, correct {variable}, or unset it to have one started here"


def redis_finding(settings: Settings) -> Iterator[Finding]:
    """Ask Redis whether it is there, lets this desk in, and takes what it writes."""
    import redis

    from live_services.domain import keys

    url = settings.redis.url.get_secret_value()
    if not url:
        yield not_started("redis", "Redis")
        return
    client = redis.Redis.from_url(
        url, socket_timeout=_TIMEOUT_SECONDS, socket_connect_timeout=_TIMEOUT_SECONDS, retry=None
    )
    try:
        client.set(keys.preflight_probe(), "1", ex=1)
    except (redis.AuthenticationError, redis.exceptions.NoPermissionError) as refused:
        reason = f"Redis refuses this desk: {refused}"
        way_out = "Write user and password into REDIS__URL (redis://USER:PASSWORD@HOST:PORT/0), or let them write"
        yield Finding("redis", "failed", reason, way_out)
    except redis.ConnectionError as gone:
        yield Finding("redis", "failed", f"no Redis answers: {gone}", start_again(settings, "REDIS__URL"))
    except redis.RedisError as problem:
        reason = f"Redis answers, and takes nothing: {problem}"
        yield Finding("redis", "failed", reason, "Mend it: it may be full, a replica, or no Redis at all")
    else:
        yield ok("redis", "it answers and can be written")
    finally:
        client.close()


def mlflow_finding(settings: Settings) -> Iterator[Finding]:
    """Ask MLflow for its models."""
    import requests

    uri, key = settings.mlflow.tracking_uri, "MLFLOW__TRACKING_URI"
    if not uri:
        yield not_started("mlflow", "MLflow")
        return
    shown = without_credentials(uri)
    try:
        answer = requests.get(
            f"{uri}/api/2.0/mlflow/registered-models/search", params={"max_results": 1}, timeout=_TIMEOUT_SECONDS
        )
    except requests.RequestException as problem:
        reason = f"no MLflow answers at {shown} ({type(problem).__name__})"
        yield Finding("mlflow", "failed", reason, start_again(settings, key))
        return
    if answer.status_code in _NOT_ALLOWED:
        reason = f"MLflow at {shown} refuses this desk ({answer.status_code})"
        way_out = f"Write user and password into {key} (http://USER:PASSWORD@HOST:PORT), or give them the right to read"
        yield Finding("mlflow", "failed", reason, way_out)
    elif not answer.ok:
        reason = f"{shown} answered {answer.status_code}, which is not how an MLflow server answers"
        yield Finding("mlflow", "failed", reason, f"Correct {key}")
    else:
        yield ok("mlflow", f"it answers at {shown}")


def ledger_finding(settings: Settings) -> Iterator[Finding]:
    """Read the promotion ledger, and compare each entry's digest."""
    from sqlalchemy.exc import DatabaseError

    from models_registry.ledger import LedgerError, LedgerTampered, PromotionLedger

    own = settings.alpha_panda_home / "ledger.sqlite"
    if not settings.ledger.url.get_secret_value() and not own.exists():
        yield ok("ledger", f"the first promotion makes {own}")
        return
    try:
        entries = PromotionLedger(settings.ledger_url).verify()
    except LedgerTampered as tampered:
        yield Finding("ledger", "failed", str(tampered), "Bring it back from a backup; nothing runs on a changed one")
    except LedgerError as away:
        way_out = "Start the database, or correct ledger.url: address, user, password"
        yield Finding("ledger", "failed", str(away), way_out)
    except DatabaseError as unreadable:
        reason = f"the promotion ledger cannot be read: {unreadable.orig}"
        yield Finding("ledger", "failed", reason, "Bring it back from a backup, or name another in ledger.url")
    else:
        yield ok("ledger", f"{entries} entries, unchanged")


def dagster_finding(settings: Settings) -> Iterator[Finding]:
    """Ask Dagster whether its code is loaded; it trains and promotes, and live services do without it."""
    import requests

    url, key = settings.dagster.url, "DAGSTER__URL"
    if not url:
        yield not_started("dagster", "Dagster", "advice")
        return
    shown = without_credentials(url)
    try:
        answer = requests.post(f"{url}/graphql", json={"query": _LOCATIONS}, timeout=_TIMEOUT_SECONDS)
        if answer.status_code in _NOT_ALLOWED:
            reason = f"Dagster at {shown} refuses this desk ({answer.status_code})"
            yield Finding("dagster", "failed", reason, f"Write user and password into {key}", "advice")
            return
        entries = answer.json()["data"]["workspaceOrError"]["locationEntries"]
    except (requests.JSONDecodeError, KeyError, TypeError):
        yield Finding("dagster", "failed", f"{shown} does not answer as Dagster does", f"Correct {key}", "advice")
        return
    except requests.RequestException as problem:
        reason = f"no Dagster answers at {shown} ({type(problem).__name__}), so nothing is trained or promoted"
        yield Finding("dagster", "failed", reason, start_again(settings, key), "advice")
        return
    found = {entry["name"]: entry["locationOrLoadError"] or {} for entry in entries}
    broken = {name: state["message"] for name, state in found.items() if state.get("__typename") == "PythonError"}
    if broken:
        reason = "; ".join(f"{name} cannot be loaded: {message.strip()[:300]}" for name, message in broken.items())
        yield Finding("dagster", "failed", reason, f"Mend it and reload it at {shown}", "advice")
    elif not found:
        yield Finding("dagster", "warning", "it has no code location, so there is nothing to train", policy="advice")
    else:
        yield ok("dagster", f"it answers at {shown}")
