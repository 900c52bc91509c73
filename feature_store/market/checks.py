"""What a check of market data, features or labels saw."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class CheckResult:
    """What one check saw."""

    name: str
    passed: bool
    details: dict[str, int | float | str] = field(default_factory=dict)
