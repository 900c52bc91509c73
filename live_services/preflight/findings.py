"""What a check found, and what it holds back: pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from feature_store.market.types import ist_text
from live_services.settings import Settings

Status = Literal["ok", "warning", "failed", "not started"]
"""``not started``: an embedded server that `up` will start; nothing was asked of it."""
Policy = Literal["always", "production", "advice"]
"""always      a failure holds the live services back in every environment: they could not work.
production  it does so in production; elsewhere it is said, and disables the strategy that it is about, if it is.
advice      it never does."""
LIVE_SERVICES: Final = "live services"
NOTHING: Final = "nothing"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found."""

    check: str
    status: Status
    reason: str
    way_out: str = ""
    """What to do about it; empty where nothing is to be done."""
    policy: Policy = "production"
    strategy: str = ""
    """Whom it is about, where a failure lets only one strategy not trade."""
    duration_seconds: float = 0.0


def ok(check: str, reason: str) -> Finding:
    """Give the finding of a check that has nothing to say against."""
    return Finding(check, "ok", reason)


@dataclass(frozen=True, slots=True)
class Preflight:
    """All that one run found."""

    environment: str
    is_strict: bool
    """Whether production's policy holds."""
    at_ns: int
    """Wall clock."""
    findings: tuple[Finding, ...]
    duration_seconds: float

    def blocks(self, finding: Finding) -> str:
        """Say what a finding holds back: the live services, one strategy, or nothing."""
        if finding.status != "failed" or finding.policy == "advice":
            return NOTHING
        if finding.policy == "always" or self.is_strict:
            return LIVE_SERVICES
        return f"strategy {finding.strategy}" if finding.strategy else NOTHING

    @property
    def blocking(self) -> tuple[Finding, ...]:
        """What holds the live services back."""
        return tuple(finding for finding in self.findings if self.blocks(finding) == LIVE_SERVICES)

    @property
    def policy(self) -> str:
        """Say by which policy it was judged, and why."""
        if not self.is_strict:
            return self.environment
        return "production" if self.environment == "production" else "production, for real money may be traded"


def is_strict(settings: Settings) -> bool:
    """Whether production's policy holds: by the environment, or because an account of real money is enabled."""
    return settings.environment == "production" or settings.trading.zerodha.enabled


def lines(preflight: Preflight, findings: Iterable[Finding]) -> tuple[str, ...]:
    """Say findings in a line each: what, what it holds back, why, and what to do."""
    return tuple(_line(finding, preflight.blocks(finding)) for finding in findings)


def _line(finding: Finding, blocks: str) -> str:
    held = f" (holds back {blocks})" if blocks != NOTHING else ""
    said = f"{sentence(finding.reason)} {finding.way_out}" if finding.way_out else finding.reason.rstrip(".")
    return f"{finding.check} {finding.status}{held}: {said}"


def sentence(text: str) -> str:
    """Give a text with one stop at its end; a question has its own."""
    return text if text.endswith("?") else f"{text.rstrip('.')}."


def summary(preflight: Preflight) -> Mapping[str, Any]:
    """Give it as one JSON object; times are IST."""
    return {
        "at": ist_text(preflight.at_ns),
        "environment": preflight.environment,
        "policy": preflight.policy,
        "holds_back": LIVE_SERVICES if preflight.blocking else NOTHING,
        "duration_seconds": round(preflight.duration_seconds, 3),
        "checks": [
            asdict(finding)
            | {"blocks": preflight.blocks(finding), "duration_seconds": round(finding.duration_seconds, 3)}
            for finding in preflight.findings
        ],
    }
