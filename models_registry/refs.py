"""Who a model is: references, identities, and the words in which a gate and a fold speak."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat

from feature_store.market.types import TICK_BARS, VENDOR_BARS

Alias = Literal["challenger", "champion", "live"]
"""The three rungs: shadow, paper, real money."""

GateVerdict = Literal["passed", "failed"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ModelRef(_Frozen):
    """A model by registry name and alias, written ``momentum@champion``; never a path."""

    name: str
    alias: Alias

    def __str__(self) -> str:
        return f"{self.name}@{self.alias}"


def bars_in_words(bar_source: str) -> str:
    """Say in words where bars came from, for people."""
    words = {TICK_BARS: "bars built from ticks", VENDOR_BARS: "a vendor's bars", "unknown": "bars of unknown source"}
    return " and ".join(words.get(part, f"bars of {part}") for part in bar_source.split(" + "))


class ModelIdentity(_Frozen):
    """What every signal, order and fill is stamped with."""

    model_name: str
    model_version: str
    feature_schema_hash: str


class _Open(_Frozen):
    """Part of a sidecar: a later version may add fields, and this one passes over them."""

    model_config = ConfigDict(frozen=True, extra="ignore", protected_namespaces=())


class FeatureColumn(_Open):
    """One feature of a schema, as the sidecar records it."""

    name: str
    parameters: dict[str, int | float | str]
    dtype: str
    version: int
    warm_up: int
    """Bars of history after which the value no longer depends on the origin."""


class FeatureDistribution(_Open):
    """Quantiles of a feature over the training rows, for drift; ``edges`` has 11 entries (0 %, 10 %, … 100 %)."""

    name: str
    mean: float
    std: float
    edges: tuple[float, ...]


class FoldResult(_Open):
    """Out-of-sample result of one fold; times are epoch nanoseconds, ends exclusive."""

    fold: int
    train_start_ns: int
    train_end_ns: int
    test_start_ns: int
    test_end_ns: int
    rows: int
    metrics: dict[str, FiniteFloat]


class GateCheck(_Open):
    """One check of a gate, with what it saw and what it asked for."""

    name: str
    passed: bool
    observed: str
    required: str
    blocking: bool = True
    """Whether the gate fails with this check; one that does not block is a warning."""

    @property
    def verdict(self) -> Literal["passed", "failed", "warning"]:
        """``warning``: it did not pass, and does not keep the gate from passing."""
        if self.passed:
            return "passed"
        return "failed" if self.blocking else "warning"


class GateResult(_Open):
    """The verdict of a gate for one rung; ``passed`` only if every blocking check passed."""

    rung: Alias
    checks: tuple[GateCheck, ...]
    judged_against: str | None = None
    """The version that held the rung's alias when this was judged; None: no version did."""

    @property
    def passed(self) -> bool:
        """Whether no check failed; a gate without checks has not passed."""
        return bool(self.checks) and not self.failed

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the checks that failed."""
        return tuple(check.name for check in self.checks if check.verdict == "failed")


def overruled(failed: Sequence[str]) -> str:
    """Say of a version that runs although checks of its gate failed that it does; empty if none did."""
    return f"its gate refused it ({', '.join(failed)}): it runs by a person's override" if failed else ""


def named_thresholds(buy: float, sell: float | None) -> dict[str, float]:
    """Give thresholds by name: one at which proposals are accepted, or one for each side."""
    return {"accept_threshold": buy} if sell is None else {"buy_threshold": buy, "sell_threshold": sell}
