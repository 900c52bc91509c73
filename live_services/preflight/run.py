"""Running the checks: side by side, each within its budget, and what is written of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import structlog

from live_services.adapters.redaction import redaction, secrets_of
from live_services.messages import expected_failures, message_of
from live_services.next_steps import to_type
from live_services.preflight.findings import Finding, Policy, Preflight, is_strict, lines, summary
from live_services.preflight.written import summary_file, write_summary
from live_services.settings import Settings

_log = structlog.get_logger("monitoring")

Look = Callable[[Settings], Iterable[Finding]]


@dataclass(frozen=True, slots=True)
class Check:
    """One question, with one answer or more."""

    name: str
    """Of its finding, where it cannot answer."""
    look: Look
    budget_seconds: float = 10.0
    policy: Policy = "production"
    """Of its finding, where it cannot answer."""


def run_checks(settings: Settings, checks: Sequence[Check], now_ns: int) -> Preflight:
    """Ask all checks at once, each in a thread of its own, and wait no longer for any than its budget.

    Secrets that an answer repeats are hidden.

    Parameters
    ----------
    now_ns
        Wall clock, for the summary.
    """
    started = time.monotonic()
    asked = [(check, _asked(check, settings)) for check in checks]
    hidden = redaction(secrets_of(settings))
    findings = [
        replace(finding, reason=str(hidden(finding.reason)))
        for check, answer in asked
        for finding in _answer(check, answer, started)
    ]
    return Preflight(settings.environment, is_strict(settings), now_ns, tuple(findings), time.monotonic() - started)


def without_settings(reason: str, now_ns: int) -> Preflight:
    """Give what is known where the settings themselves cannot be read: nothing else was asked."""
    way_out = f"Correct them; {to_type('config show')} says where each comes from"
    wrong = Finding("settings", "failed", reason, way_out, "always")
    return Preflight("not known", is_strict=False, at_ns=now_ns, findings=(wrong,), duration_seconds=0.0)


def _asked(check: Check, settings: Settings) -> Future[tuple[Finding, ...]]:
    answer: Future[tuple[Finding, ...]] = Future()

    def look() -> None:
        started = time.monotonic()
        try:
            found = tuple(check.look(settings))
        except Exception as problem:  # noqa: BLE001 (whatever it is: a check that cannot be made fails)
            found = (_unmade(check, problem),)
        took = time.monotonic() - started
        answer.set_result(tuple(replace(finding, duration_seconds=took) for finding in found))

    # A daemon: one that hangs holds up neither the others nor the end of this process.
    threading.Thread(target=look, name=f"preflight {check.name}", daemon=True).start()
    return answer


def _unmade(check: Check, problem: Exception) -> Finding:
    if isinstance(problem, expected_failures()):
        return Finding(check.name, "failed", message_of(problem), policy=check.policy)
    _log.error("preflight_check_is_wrong", check=check.name, exc_info=problem)
    return Finding(
        check.name,
        "failed",
        f"the check itself ended with {type(problem).__name__}: {problem}",
        "This is a fault of Alpha Panda; its stack is in logs/error.log",
        check.policy,
    )


def _answer(check: Check, answer: Future[tuple[Finding, ...]], started: float) -> tuple[Finding, ...]:
    try:
        return answer.result(max(0.0, started + check.budget_seconds - time.monotonic()))
    except TimeoutError:
        reason = f"no answer within {check.budget_seconds:g} s"
        took = time.monotonic() - started
        return (Finding(check.name, "failed", reason, policy=check.policy, duration_seconds=took),)


def tell_of(preflight: Preflight, home: Path) -> str | None:
    """Log one event and write ``{home}/logs/preflight_summary.json``; give why that file could not be written.

    The event is an error where live services are held back, and a warning where anything else failed.
    """
    document = summary(preflight)
    failed = lines(preflight, (finding for finding in preflight.findings if finding.status == "failed"))
    tell = _log.error if preflight.blocking else _log.warning if failed else _log.info
    tell("preflight", failed=failed, **document)
    try:
        write_summary(home, document)
    except OSError as problem:
        return f"{summary_file(home)} could not be written: {problem.strerror or problem}"
    return None
